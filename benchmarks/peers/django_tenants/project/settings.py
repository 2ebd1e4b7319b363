# mypy: ignore-errors
"""django-tenants as its documentation sets it up, and lean: what it can do without, it does without.

No sessions, admin or auth; one middleware; connections that stay open; `SET search_path` once a request
and not once a cursor.
"""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

_address = urlsplit(os.environ["BENCH_PEER_DATABASE_URL"])

SECRET_KEY = os.environ["BENCH_PEER_SECRET"]
TOKEN_KEY = os.environ["BENCH_PEER_TOKEN_KEY"]
TOKEN_ISSUER = "peer"
TOKEN_AUDIENCE = "peer:tenant"

DEBUG = False
ALLOWED_HOSTS = [".peer.test"]
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGGING_CONFIG = None

# django-tenants imports the content types; a tenant has none.
SHARED_APPS = ["django_tenants", "django.contrib.contenttypes", "customers"]
TENANT_APPS = ["workspace"]
INSTALLED_APPS = [*SHARED_APPS, *TENANT_APPS]
TENANT_MODEL = "customers.Client"
TENANT_DOMAIN_MODEL = "customers.Domain"

# The domain's tenant is remembered in the process: without, each request is a query more.
MIDDLEWARE = ["customers.middleware.CachedTenantMiddleware"]

DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
DATABASES = {
    "default": {
        "ENGINE": "django_tenants.postgresql_backend",
        "HOST": _address.hostname,
        "PORT": _address.port,
        "USER": unquote(_address.username or ""),
        "PASSWORD": unquote(_address.password or ""),
        "NAME": _address.path.lstrip("/"),
        "CONN_MAX_AGE": None,
    }
}
TENANT_LIMIT_SET_CALLS = True
TENANT_MULTIPROCESSING_MAX_PROCESSES = 2

# A copy of the migrations to which a run adds revisions of its own.
MIGRATION_MODULES = {"workspace": os.environ.get("BENCH_PEER_MIGRATIONS", "workspace.migrations")}
