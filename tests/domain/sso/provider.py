"""A real OpenID provider: `oidc-provider-mock`, in a process of its own on loopback."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tenantry.dev.process import Account, GuardedProcess, server_environment, wait_until

__all__ = ("Provider", "open_provider")

_RUNNING = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class Provider:
    """The provider, as its administrators and its people use it."""

    issuer: str

    def register(self, *redirect_uris: str, method: str = "client_secret_basic") -> dict[str, str]:
        """A client of it (RFC 7591): `client_id` and `client_secret`."""
        answer = httpx.post(
            f"{self.issuer}/oauth2/clients",
            json={"redirect_uris": redirect_uris, "token_endpoint_auth_method": method},
        )
        assert answer.status_code == 201, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def know(self, subject: str, **claims: Any) -> None:
        """Let it know somebody, or something else of them."""
        answer = httpx.put(f"{self.issuer}/users/{quote(subject)}", json=claims)
        assert answer.status_code == 204, answer.text

    async def sign_in(self, url: str, subject: str) -> str:
        """Be somebody on the page that `url` is the address of; where the browser is sent."""
        return await self._answer(url, {"sub": subject})

    async def deny(self, url: str) -> str:
        """Say no on that page."""
        return await self._answer(url, {"action": "deny"})

    @staticmethod
    async def _answer(url: str, form: dict[str, str]) -> str:
        async with httpx.AsyncClient() as browser:
            answer = await browser.post(url, data=form)
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]


@contextmanager
def open_provider(home: Path) -> Iterator[Provider]:
    """A provider that knows only clients that were registered, and wants a nonce of them."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / "provider.log"
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", "0", "-r", "true", "-n", "true"]
    process = GuardedProcess(
        command,
        log=log,
        account=Account("direct"),
        stop_signal=signal.SIGTERM,
        # On loopback there is no TLS.
        environment=server_environment() | {"AUTHLIB_INSECURE_TRANSPORT": "1", "PYTHONWARNINGS": "ignore"},
    )

    def found() -> re.Match[str] | None:
        return _RUNNING.search(log.read_text(encoding="utf-8", errors="replace"))

    with process:
        assert wait_until(lambda: found() is not None, 60), process.log_tail()
        match = found()
        assert match is not None
        yield Provider(match[1])
