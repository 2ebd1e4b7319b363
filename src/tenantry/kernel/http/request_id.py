"""Request ids."""

from __future__ import annotations

import re

from uuid_utils import uuid7

__all__ = ("request_id_for",)

_SANE = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def request_id_for(sent: bytes | None) -> str:
    """The client's or the ingress's id if it is a plain token, else a new one: ids end up in logs and headers.

    New ones are UUIDv7 (RFC 9562 §5.7) in hex: they sort by time.
    """
    if sent is not None and _SANE.fullmatch(sent):
        return sent.decode("ascii")
    return str(uuid7().hex)
