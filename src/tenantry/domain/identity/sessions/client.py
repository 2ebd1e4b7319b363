"""Who is at the other end of a log-in: a program, an address, and perhaps a device that was here before."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ua_parser import Parser
from ua_parser.basic import Resolver
from ua_parser.loaders import load_lazy_builtins

from tenantry.kernel.http.address import NOWHERE, ClientAddress, client_address

if TYPE_CHECKING:
    from litestar import Request

__all__ = ("UNKNOWN", "Client", "client_of", "programs_of")

UNKNOWN = "Unknown"
LONGEST = 500
"""Characters of a User-Agent that are read: it is the client's to write."""


@dataclass(frozen=True, slots=True)
class Client:
    """The client of a request."""

    user_agent: str | None
    address: ClientAddress = NOWHERE
    device_token: str | None = None
    """Of an earlier log-in, as the client has sent it."""
    remember: bool = False
    """Whether it wants to be known again by a token."""

    @property
    def browser(self) -> str:
        return programs_of(self.user_agent)[0]

    @property
    def system(self) -> str:
        return programs_of(self.user_agent)[1]

    @property
    def device(self) -> str:
        """What people know it by: `Firefox on Windows`."""
        if self.browser == self.system == UNKNOWN:
            return "Unknown device"
        return f"{self.browser} on {self.system}"


def client_of(request: Request[Any, Any, Any], *, device_token: str | None = None, remember: bool = False) -> Client:
    """The client of this request; see `Client`."""
    return Client(
        user_agent=request.headers.get("user-agent"),
        address=client_address(request.scope, request.app.state.trusted_proxies),
        device_token=device_token,
        remember=remember,
    )


def programs_of(user_agent: str | None) -> tuple[str, str]:
    """Families of the browser and of the operating system, without versions, which change with every update."""
    return _programs(user_agent[:LONGEST]) if user_agent else (UNKNOWN, UNKNOWN)


# Its regular expressions take half a millisecond, and eighty the first time; most log-ins are by the same few programs.
_parser = Parser(Resolver(load_lazy_builtins()))


@lru_cache(maxsize=1000)
def _programs(user_agent: str) -> tuple[str, str]:
    browser, system = _parser.parse_user_agent(user_agent), _parser.parse_os(user_agent)
    return (browser.family if browser else UNKNOWN)[:100], (system.family if system else UNKNOWN)[:100]
