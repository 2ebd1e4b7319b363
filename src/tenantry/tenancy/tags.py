"""Entity tags (RFC 9110, section 8.8.3), and the conditions that clients make with them (section 13.1).

A tag is a digest of the representation, so it is strong by definition: what a client would see in another way has
another tag, whichever table it comes from, and what it would see again has the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from tenantry.kernel.errors import ClientException, FieldError, define_problem

__all__ = ("CONDITION_MALFORMED", "PRECONDITION_FAILED", "Condition", "PreconditionFailedException", "entity_tag")

PRECONDITION_FAILED = define_problem(
    "precondition-failed",
    412,
    "Changed meanwhile",
    "What was to be changed is not, or not any more, what `If-Match` or `If-None-Match` says; nothing was done. Read "
    "it again: its `ETag` is the one to send.",
)
CONDITION_MALFORMED = define_problem(
    "condition-malformed",
    400,
    "Malformed condition",
    "`If-Match` and `If-None-Match` take `*`, or tags as `ETag` has them, in quotation marks and separated by commas "
    "(RFC 9110, section 13.1).",
)


class PreconditionFailedException(ClientException):
    """The condition that the client has made does not hold (412)."""

    problem = PRECONDITION_FAILED


def entity_tag(representation: bytes) -> bytes:
    """The tag of a representation, as the header has it.

    128 bits: nobody gains by two representations of their own with one tag.
    """
    return b'"%s"' % blake2b(representation, digest_size=16).hexdigest().encode("ascii")


# One element of the list, or the comma before the next; between commas there may be nothing (section 5.6.1.2). A tag
# may hold commas, so the list cannot be split by them.
_ELEMENT = re.compile(rb'[ \t]*(?:(,)|(W/)?("[\x21\x23-\x7e\x80-\xff]*"))')


@dataclass(frozen=True, slots=True)
class Condition:
    """The value of `If-Match` or `If-None-Match`."""

    any: bool
    """`*`: whichever there is."""
    strong: frozenset[bytes] = frozenset()
    """With their quotation marks."""
    weak: frozenset[bytes] = frozenset()

    @classmethod
    def parse(cls, header: Literal["If-Match", "If-None-Match"], lines: list[bytes]) -> Condition | None:
        """The condition that a header makes, in as many lines as it has; None without any.

        Raises:
            ClientException: it is no list of tags.
        """
        value = b",".join(lines)
        if not value.strip(b" \t,"):
            if lines:
                raise _malformed(header)
            return None
        if value.strip(b" \t") == b"*":
            return cls(any=True)
        tags: tuple[set[bytes], set[bytes]] = (set(), set())
        position, separated = 0, True
        while value[position:].strip(b" \t"):
            element = _ELEMENT.match(value, position)
            if element is None or (element[3] and not separated):
                raise _malformed(header)
            separated = element[1] is not None
            if element[3]:
                tags[element[2] is not None].add(element[3])
            position = element.end()
        return cls(any=False, strong=frozenset(tags[0]), weak=frozenset(tags[1]))

    def matches(self, tag: bytes) -> bool:
        """Whether one of its tags is this one, both strong (section 8.8.3.2): what a change asks for."""
        return self.any or tag in self.strong

    def matches_weakly(self, tag: bytes) -> bool:
        """Whether one of its tags is this one, weak or not: what a read asks for."""
        opaque = tag.removeprefix(b"W/")
        return self.any or opaque in self.strong or opaque in self.weak


def _malformed(header: str) -> ClientException:
    return ClientException(
        problem=CONDITION_MALFORMED,
        errors=(FieldError(field=header, source="header", message="Expected `*`, or tags in quotation marks."),),
    )
