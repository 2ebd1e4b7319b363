"""A copy of the repository in which a test may change what it likes, and Python that runs what is in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.servers import ADMIN_URL, REDIS_URL

__all__ = ("ROOT", "copy_repository", "run_pytest", "run_python")

ROOT = Path(__file__).parents[1]
_IGNORED = shutil.ignore_patterns("__pycache__", ".*_cache", "*.pyc")


def copy_repository(folder: Path) -> Path:
    """The sources, migrations and tests in `folder`, which may not be there yet or is empty."""
    for name in ("src", "migrations", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=_IGNORED)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run_python(copy: Path, *arguments: str, timeout: float = 120, ends_with: int = 0, **settings: str) -> str:
    """Run Python in a copy, on this run's servers or those of `settings`; what it printed, if it ends as it has to.

    `timeout` is in seconds.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TENANTRY_"))}
    env |= {
        # Before the editable installation of the repository itself.
        "PYTHONPATH": str(copy / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TENANTRY_DATABASE_URL": os.environ[ADMIN_URL],
        "TENANTRY_REDIS_URL": os.environ[REDIS_URL],
        **settings,
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == ends_with, f"{' '.join(arguments)} exited with {done.returncode}:\n{done.stdout}"
    return done.stdout


def run_pytest(copy: Path, *arguments: str, timeout: float = 120) -> str:
    """Run tests in a copy, in one process."""
    return run_python(
        copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments, timeout=timeout
    )
