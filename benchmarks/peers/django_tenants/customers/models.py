# mypy: ignore-errors
"""The shared schema: customers and their domains."""

from __future__ import annotations

from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Client(TenantMixin):
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(auto_now_add=True)


class Domain(DomainMixin):
    pass
