"""A resource of one's own, written down from its name and its fields: `tenantry new-resource`."""
