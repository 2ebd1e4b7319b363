"""Which tenant this is, and the only way to a scoped transaction, Redis key or queue."""
