"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): a POST that is sent twice is done once."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Response
from uuid_utils.compat import uuid7

from tenantry.kernel.errors import (
    ClientException,
    ConflictException,
    FieldError,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.security.vault import MAX_SEALABLE, SEAL_OVERHEAD
from tenantry.tenancy.conditional import lock_number

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from litestar import Request

    from tenantry.kernel.security import Vault
    from tenantry.tenancy.held import HeldAnswer
    from tenantry.tenancy.request import TenantRequest

__all__ = (
    "KEY_IN_USE",
    "KEY_MALFORMED",
    "KEY_REUSED",
    "REPLAYED",
    "IdempotencyKeys",
    "Replay",
    "parse_key",
    "replay_answer",
)

KEY_MALFORMED = define_problem(
    "idempotency-key-malformed",
    400,
    "Malformed Idempotency-Key",
    "An `Idempotency-Key` is a text of 1 to 255 printable ASCII characters in quotation marks, such as a new UUID for "
    "each thing that is to be made. Without quotation marks it may have letters, digits and any of `-_.:+/=~`.",
)
KEY_REUSED = define_problem(
    "idempotency-key-reused",
    422,
    "The Idempotency-Key is another request's",
    "The key was sent before, with another body or to another address. Use a new key for every new request, and the "
    "same one only to repeat a request as it was.",
)
KEY_IN_USE = define_problem(
    "idempotency-key-in-use",
    409,
    "Still being done",
    "A request with this Idempotency-Key is being done right now. Retry-After says when to ask again, in seconds: then "
    "for its answer.",
)

REPLAYED = "Idempotent-Replayed"
"""The header of an answer that was given before."""

_QUOTED = re.compile(rb'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"')
_BARE = re.compile(rb"[A-Za-z0-9\-_.:+/=~]+")
_MOST = 255
_KEPT_HEADERS = frozenset({b"content-type", b"location", b"etag", b"last-modified", b"link", b"retry-after"})
"""Of the answer. Others are of the request (its id), or belong to one connection or browser alone."""
_PURPOSE = "idempotent-answer"
_RETRY_AFTER = "1"

# On the driver, and by the table's name: nothing here is a model's to load, and every statement counts.
_LOCK = "SELECT pg_try_advisory_xact_lock($1)"
_FIND = "SELECT id, fingerprint, answer, expires_at > now() AS is_kept FROM idempotent_request WHERE digest = $1"
_FORGET = "DELETE FROM idempotent_request WHERE id = $1"
_KEEP = (
    "INSERT INTO idempotent_request (id, digest, fingerprint, answer, expires_at)"
    " VALUES ($1, $2, $3, $4, now() + $5::interval)"
)


class _Kept(msgspec.Struct, array_like=True):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Kept).decode


class Replay(Exception):  # noqa: N818 - nothing went wrong
    """The request was done before: this was its answer."""

    def __init__(self, kept: _Kept) -> None:
        super().__init__("answered before")
        self.kept = kept


def replay_answer(_: Request[Any, Any, Any], replay: Replay) -> Response[bytes | None]:
    """Litestar's exception handler: the answer of then, and a header that says so."""
    kept = replay.kept
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in kept.headers}
    media_type = headers.pop("content-type", None)
    return Response(
        kept.body or None, status_code=kept.status, headers={**headers, REPLAYED: "true"}, media_type=media_type
    )


class IdempotencyKeys:
    """Remembers answers by the keys of their requests, in the tenant's own schema.

    Args:
        vault: seals the answers.
        ttl: for how many seconds a key is known.
    """

    def __init__(self, vault: Vault, *, ttl: float) -> None:
        self._vault = vault
        self._ttl = timedelta(seconds=ttl)

    async def claim(
        self, connection: Request[Any, Any, Any], request: TenantRequest, lines: list[bytes]
    ) -> Callable[[], Awaitable[None]]:
        """Let the request's answer be kept; returns what every transaction of it begins with.

        Args:
            lines: the values of the header.

        Raises:
            ClientException: there is more than one, or it is malformed.
        """
        principal = request.principal
        who = f"key:{principal.api_key_id}" if principal.api_key_id is not None else f"user:{principal.id}"
        route = f"{connection.method} {connection.scope['path_template']}"
        digest = _digest(who, route, parse_key(lines))
        address = connection.scope["path"].encode() + b"?" + connection.scope["query_string"]
        fingerprint = _digest(address, await connection.body())
        request.finishing.append(partial(self._keep, request, digest, fingerprint))
        return partial(self._begin, request, digest, fingerprint)

    async def _begin(self, request: TenantRequest, digest: bytes, fingerprint: bytes) -> None:
        """Answer what was answered before, or keep others with the same key away until the transaction is over.

        Raises:
            Replay: it was done before.
            ConflictException: it is being done.
            ValidationFailedException: the key was another request's.
        """
        tenant = request.tenant
        driver = await request.connection()
        # Two statements, in this order: what is read without the lock may have been written since.
        if not await driver.fetchval(_LOCK, lock_number(tenant.id.bytes if tenant else b"", digest)):
            raise ConflictException(problem=KEY_IN_USE, headers={"Retry-After": _RETRY_AFTER})
        row = await driver.fetchrow(_FIND, digest)
        if row is None:
            return
        if not row["is_kept"]:
            await driver.execute(_FORGET, row["id"])
            return
        if row["fingerprint"] != fingerprint:
            raise ValidationFailedException(
                problem=KEY_REUSED,
                errors=(FieldError(field="Idempotency-Key", source="header", message="Expected a new key."),),
            )
        # What was done then is all there is to do.
        request.is_held = False
        raise Replay(_decode(self._open(row["answer"], row["id"])))

    async def _keep(self, request: TenantRequest, digest: bytes, fingerprint: bytes, answer: HeldAnswer) -> None:
        record_id = uuid7()
        headers = [each for each in answer.headers if each[0].lower() in _KEPT_HEADERS]
        sealed = self._seal(_encode(_Kept(answer.status, headers, answer.body)), record_id)
        driver = await request.connection()
        await driver.execute(_KEEP, record_id, digest, fingerprint, sealed, self._ttl)

    def _seal(self, plain: bytes, owner: UUID) -> bytes:
        """In pieces as long as the vault takes, each in its place."""
        return b"".join(
            self._vault.seal(plain[start : start + MAX_SEALABLE], purpose=f"{_PURPOSE}:{start}", owner=owner)
            for start in range(0, len(plain), MAX_SEALABLE)
        )

    def _open(self, sealed: bytes, owner: UUID) -> bytes:
        whole = MAX_SEALABLE + SEAL_OVERHEAD
        return b"".join(
            self._vault.unseal(
                sealed[place * whole : (place + 1) * whole], purpose=f"{_PURPOSE}:{place * MAX_SEALABLE}", owner=owner
            )
            for place in range(-(-len(sealed) // whole))
        )


def _digest(*parts: str | bytes) -> bytes:
    return sha256(_encode(parts)).digest()


def parse_key(lines: list[bytes]) -> bytes:
    """The key in the header: a String of RFC 8941 (section 3.3.3), or the same without its quotation marks.

    Most clients send it bare; to those who quote it, the key is what is between the marks.

    Raises:
        ClientException: there is more than one, or it is neither.
    """
    [value, *others] = lines
    value = value.strip(b" \t")
    if not others:
        if _BARE.fullmatch(value) and len(value) <= _MOST:
            return value
        if quoted := _QUOTED.fullmatch(value):
            key = re.sub(rb"\\(.)", rb"\1", quoted[1])
            if len(key) <= _MOST:
                return key
    raise ClientException(
        problem=KEY_MALFORMED,
        errors=(FieldError(field="Idempotency-Key", source="header", message="Expected one key."),),
    )
