"""What `tenantry backup verify` and `drill` print."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tenantry.cli.backup_context import age_of
from tenantry.cli.output import print_table
from tenantry.cli.transfer import size_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tenantry.platform.backups.drill import DrillResult
    from tenantry.platform.backups.format import BackupName

__all__ = ("choose", "print_results")


def choose(latest: Iterable[BackupName], sample: int | None) -> list[BackupName]:
    """The shared schema's, and those of all tenants, or of so many by chance."""
    names = sorted(latest, key=lambda name: (name.tenant_id is not None, name.id))
    tenants = [name for name in names if name.tenant_id is not None]
    if sample is None or sample >= len(tenants):
        return names
    # By chance, and no secret: over the weeks everybody's is looked at.
    return [name for name in names if name.tenant_id is None] + random.sample(tenants, sample)


def print_results(results: Sequence[DrillResult]) -> None:
    print_table(
        ("Of", "Backup", "Good", "Restored", "Age", "Rows", "Size", "Took"),
        [
            (
                result.what,
                result.backup,
                "yes" if result.good else "NO",
                "yes" if result.restored else "no",
                age_of(result.age_seconds),
                None if result.rows is None else f"{result.rows:,}",
                None if result.bytes is None else size_of(result.bytes),
                f"{result.seconds:.2f} s",
            )
            for result in results
        ],
    )
