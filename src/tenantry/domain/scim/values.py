"""Values between SCIM's wire and the database."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from scim2_models import InvalidValueException

if TYPE_CHECKING:
    from scim2_models import Resource

__all__ = ("id_of", "line_of", "tag_of", "version_of")

_NOTHING = UUID(int=0)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def id_of(text: str) -> UUID:
    """An id; what is none is the id of nothing, as one of another organization is."""
    try:
        found = UUID(text)
    except ValueError:
        return _NOTHING
    # The library reads braces, prefixes and upper case as well; ids have one spelling.
    return found if str(found) == text else _NOTHING


def line_of(text: str | None, attribute: str, *, most: int = 100) -> str | None:
    """A text that the database takes, or None where there is nothing in it.

    Raises:
        InvalidValueException: it is too long, or not on one line.
    """
    if text is None or not text.strip():
        return None
    if len(text) > most or _CONTROLS.search(text):
        raise InvalidValueException(detail=f"{attribute}: expected one line of at most {most} characters")
    return text


def version_of(resource: Resource[Any]) -> str:
    """A version of all that is shown of a resource but its `meta`."""
    return tag_of(resource.model_dump(exclude={"meta"}))


def tag_of(content: Any) -> str:
    """A weak entity tag (RFC 7644 §3.14) of what can be written as JSON."""
    return f'W/"{hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:32]}"'
