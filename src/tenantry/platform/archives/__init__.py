"""The portable archive of one tenant: its format, and what writes, checks and loads it (docs/archive-format.md)."""
