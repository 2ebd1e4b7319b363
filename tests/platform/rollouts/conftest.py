"""Fixtures of the rollouts' tests."""

from tests.tree import tenant_tree

__all__ = ("tenant_tree",)
