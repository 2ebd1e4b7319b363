"""`make bench-peers`: Tenantry beside a django-tenants application of the same shape, on one PostgreSQL."""
