# mypy: ignore-errors
"""`manage.py make_tenants`: reads slugs from stdin, makes a tenant of each, prints the seconds that `save()` took.

One process for all of them, so that neither Django's start nor the first reading of the migrations is measured.
"""

from __future__ import annotations

import sys
import time

from django.core.management.base import BaseCommand

from customers.models import Client, Domain


class Command(BaseCommand):
    def handle(self, *args, **options):
        for line in sys.stdin:
            slug = line.strip()
            client = Client(schema_name=slug.replace("-", "_"), name=slug)
            started = time.perf_counter()
            client.save(verbosity=0)
            seconds = time.perf_counter() - started
            # Outside of the measured time, though nobody can reach the tenant before.
            Domain.objects.create(domain=f"{slug}.peer.test", tenant=client, is_primary=True)
            self.stdout.write(f"{seconds:.6f}")
            self.stdout.flush()
