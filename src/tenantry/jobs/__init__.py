"""Work that is queued for a tenant, run in its scope, and fair to all of them."""
