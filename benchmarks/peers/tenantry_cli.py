"""`python -m benchmarks.peers.tenantry_cli …`: the command line, by the migrations in BENCH_MIGRATIONS.

A deployment cannot choose its migrations, and is not given a way to: they are replaced from outside, before anything
else of the product is imported. Nothing heavy is, either: how long the command takes to start is part of the result.
"""

from __future__ import annotations

import os
from pathlib import Path

from tenantry.tenancy import revision_files

__all__ = ("install",)


def install() -> None:
    """Replace the folder, in this process and for good."""
    folder = Path(os.environ["BENCH_MIGRATIONS"])
    revision_files.migrations_folder = lambda: folder


if __name__ == "__main__":
    install()
    # Only now: whoever imports the function by its name is to get this one.
    from tenantry.cli import main

    main()
