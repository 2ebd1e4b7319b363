"""Refresh tokens and devices' tokens as cookies, for front-ends in browsers.

No script can read them (`HttpOnly`), no other site sends them (`SameSite=Strict`), no connection in the clear carries
them (`Secure`, and the prefix `__Secure-`, which a browser takes from nothing else: RFC 6265bis, section 4.1.3.1). The
refresh token goes to one route. Each organization's cookies have its id in their names: two of them in one browser do
not know of one another.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from litestar.datastructures import Cookie

from tenantry.kernel.errors import PermissionDeniedException, define_problem

if TYPE_CHECKING:
    from uuid import UUID

    from litestar import Request

    from tenantry.kernel.settings import Settings

__all__ = (
    "CROSS_SITE_REQUEST",
    "CSRF_HEADER",
    "cleared_cookie",
    "device_cookie",
    "read_cookie",
    "refresh_cookie",
    "require_own_page",
)

CROSS_SITE_REQUEST = define_problem(
    "cross-site-request",
    403,
    "Not a request of our own page",
    "Cookies count only in requests of the service's own pages: with the header `X-CSRF: 1`, and an `Origin` that is "
    "the API's own or one of TENANTRY_CORS_ORIGINS. `reason` says which of them is missing.",
)

CSRF_HEADER = "X-CSRF"
"""Whose presence says that a script has sent the request: a form cannot, and a foreign page would have to ask first
(CORS preflight)."""

_REFRESH_PATH = "/api/auth/refresh"
_DEVICE_PATH = "/api/auth"
_DEVICE_LIFE = 400 * 86_400
"""Seconds: the longest that browsers keep a cookie (RFC 6265bis, section 5.5)."""

Kind = Literal["refresh", "device"]


def _name(kind: Kind, tenant_id: UUID) -> str:
    return f"__Secure-{kind}-{tenant_id.hex}"


def _cookie(kind: Kind, tenant_id: UUID, value: str, *, path: str, max_age: int) -> Cookie:
    return Cookie(
        key=_name(kind, tenant_id),
        value=value,
        path=path,
        max_age=max_age,
        secure=True,
        httponly=True,
        samesite="strict",
    )


def refresh_cookie(tenant_id: UUID, token: str, *, settings: Settings) -> Cookie:
    """Keeps a refresh token for as long as it is good."""
    return _cookie("refresh", tenant_id, token, path=_REFRESH_PATH, max_age=settings.refresh_token_ttl)


def device_cookie(tenant_id: UUID, token: str) -> Cookie:
    """Keeps a device's token, across log-outs."""
    return _cookie("device", tenant_id, token, path=_DEVICE_PATH, max_age=_DEVICE_LIFE)


def cleared_cookie(tenant_id: UUID) -> Cookie:
    """Has the browser forget the refresh token."""
    return _cookie("refresh", tenant_id, "", path=_REFRESH_PATH, max_age=0)


def read_cookie(request: Request[Any, Any, Any], kind: Kind, tenant_id: UUID) -> str | None:
    """The token of a cookie, or None.

    Also None where there are two of its name: a page of a neighbouring domain may set cookies for this one as well
    (RFC 6265bis, section 8.6), and nobody could say which is ours.
    """
    wanted = _name(kind, tenant_id)
    found = [
        value
        for header in request.headers.getall("cookie", [])
        for name, _, value in (pair.strip().partition("=") for pair in header.split(";"))
        if name == wanted
    ]
    return found[0] if len(found) == 1 else None


def require_own_page(request: Request[Any, Any, Any]) -> None:
    """Refuse a request that is to set or use cookies, unless a page of ours has sent it.

    What is missing counts against it: an `Origin` above all, which every browser sends with a POST.

    Raises:
        PermissionDeniedException: it was another page, or nothing says which.
    """
    if request.headers.get(CSRF_HEADER) != "1":
        raise _refused("header", f"The header {CSRF_HEADER} is missing, or is not 1.")
    origins = request.headers.getall("origin", [])
    if len(origins) != 1:
        raise _refused("origin", "The request does not say, once, which page has sent it.")
    settings: Settings = request.app.state.settings
    is_listed = settings.cors_origins != ("*",) and origins[0] in settings.cors_origins
    if not is_listed and not _is_same_origin(origins[0], request.headers.get("host", "")):
        raise _refused("origin", "The request comes from another site's page.")
    # Browsers without it are older than 2023; where it is, it must agree.
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin" and not (is_listed and site == "same-site"):
        raise _refused("site", "The request comes from another site's page.")


def _refused(reason: str, detail: str) -> PermissionDeniedException:
    return PermissionDeniedException(detail, problem=CROSS_SITE_REQUEST, reason=reason)


def _is_same_origin(origin: str, host: str) -> bool:
    """Whether it is this host's; in the clear only on this machine, since TLS ends in front of us and nobody else says
    whether there was any."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if not host or parts.netloc.lower() != host.lower():
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_local(parts.hostname or ""))


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
