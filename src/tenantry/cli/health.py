"""`tenantry health`: whether the process beside it lives, as an image's health check asks."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Literal

import msgspec
import rich_click as click

from tenantry.cli.output import json_option, print_json, quiet_option
from tenantry.cli.problems import ExitCode
from tenantry.kernel.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantry.kernel.settings import Settings

__all__ = ("health",)

_PATH = "/health/live"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - it is what is asked, not what is listened on
"""Who listens on all addresses is asked on the machine's own."""


class HealthAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What `health --json` prints. `address` is what was asked last, `detail` what it said."""

    status: Literal["ok", "unavailable"]
    address: str
    detail: str


@click.command(epilog="Example: tenantry health --quiet")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 60),
    default=2.0,
    show_default=True,
    help="Seconds that the process may take for its answer.",
)
@json_option
@quiet_option
def health(timeout: float, as_json: bool, quiet: bool) -> int:
    """Ask the process of these settings, on this machine, whether it lives; exit code 0 if so, else 1.

    An API is asked on TENANTRY_PORT. Where nothing listens there, it is a worker or a provisioner, which is asked on
    TENANTRY_METRICS_PORT. It is what the image's health check runs; Kubernetes asks the same addresses itself.
    """
    answer = _ask(load_settings(), timeout)
    if as_json:
        print_json(answer)
    elif answer.status == "ok":
        if not quiet:
            click.echo(f"{answer.address} is alive")
    else:
        click.echo(f"Error: {answer.address} is not alive: {answer.detail}", err=True)
    # Not 5: of a health check Docker knows 0 and 1.
    return ExitCode.OK if answer.status == "ok" else ExitCode.FAILED


def _places(settings: Settings) -> Iterator[tuple[str, int]]:
    yield settings.host, settings.port
    if settings.metrics_port:
        yield settings.metrics_host, settings.metrics_port


def _ask(settings: Settings, timeout: float) -> HealthAnswer:
    answer = HealthAnswer(status="unavailable", address="", detail="")
    for given, port in _places(settings):
        host = _EVERYWHERE.get(given, given)
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}{_PATH}"
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            connection.request("GET", _PATH)
            status = connection.getresponse().status
        except ConnectionRefusedError as error:
            answer = HealthAnswer(status="unavailable", address=address, detail=error.strerror or "refused")
            continue
        except (OSError, http.client.HTTPException) as error:
            # Something listens there, and it is that which is asked.
            return HealthAnswer(status="unavailable", address=address, detail=str(error) or type(error).__name__)
        finally:
            connection.close()
        return HealthAnswer(
            status="ok" if status == http.client.OK else "unavailable", address=address, detail=f"HTTP {status}"
        )
    return answer
