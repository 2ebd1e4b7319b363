"""What granian is given: the product as it is served, beside the migrations in BENCH_MIGRATIONS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.tenantry_cli import install

if TYPE_CHECKING:
    from litestar.types import ASGIApp

__all__ = ("create",)

install()

# Only now: whoever imports the function by its name is to get the other one.
from tenantry.asgi import create_asgi  # noqa: E402
from tenantry.kernel.logging import configure_logging  # noqa: E402
from tenantry.kernel.settings import load_settings  # noqa: E402


def create() -> ASGIApp:
    """The product, nothing added and nothing left out."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    return create_asgi(settings)
