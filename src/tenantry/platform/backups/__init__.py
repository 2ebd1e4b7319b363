"""Backups of one tenant at a time, and of the shared schema: made, checked, restored and pruned (docs/backups.md)."""
