"""What goes over the wire: the base of all structs, and the constraints that they share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar, overload

import msgspec
from email_validator import EmailNotValidError, validate_email
from msgspec import UNSET, Meta, StructMeta, UnsetType
from typing_extensions import dataclass_transform

from tenantry.kernel.errors import Source, ValidationFailedException

__all__ = (
    "END",
    "MAX_PAGE_SIZE",
    "PATTERN_MEANING",
    "UNSET",
    "Amount",
    "BaseStruct",
    "Description",
    "Email",
    "HttpsUrl",
    "Locale",
    "LongText",
    "Page",
    "Password",
    "SafeInteger",
    "ShortText",
    "Slug",
    "TimeZone",
    "UnsetType",
    "Update",
    "camel",
    "changes",
    "in_utc",
    "normalize_email",
)

MAX_PAGE_SIZE = 200

T = TypeVar("T")


class _KeywordOnly(StructMeta):
    """msgspec does not hand `kw_only` down; without it a subclass could not add a required field after a default."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> _KeywordOnly:
        config.setdefault("kw_only", True)
        return super().__new__(cls, name, bases, namespace, **config)


@dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
class BaseStruct(
    msgspec.Struct, metaclass=_KeywordOnly, rename="camel", forbid_unknown_fields=True, omit_defaults=False
):
    """Base of everything on the wire: camelCase JSON objects that refuse unknown fields."""


class Update(BaseStruct):
    """Base of PATCH bodies (RFC 7396): a field that is left out stays as it is, null clears it where that is allowed.

    Declare fields as `name: ShortText | UnsetType = UNSET`, clearable ones as `ShortText | None | UnsetType = UNSET`.
    """


class Page(BaseStruct, Generic[T]):
    """One page of a list. `total` counts all pages' items; `page` starts at 1."""

    items: list[T]
    total: int
    page: int
    page_size: int


def changes(data: msgspec.Struct) -> dict[str, Any]:
    """The fields of an `Update` that were sent, by their Python names; None is an explicit null."""
    return {name: value for name in data.__struct_fields__ if (value := getattr(data, name)) is not UNSET}


def camel(name: str) -> str:
    """`member_id` as msgspec's `rename="camel"` spells it on the wire: `memberId`."""
    head, *rest = name.lstrip("_").split("_")
    return head + "".join(part.title() for part in rest)


END = r"$(?!\n)"
"""The end of a text. Python's `$` alone would take a line feed after it; in JSON Schema's dialect `$` is enough."""

_LINE = rf"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*{END}"
_TEXT = r"^[^\x00]*$"
_SLUG = rf"^[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?{END}"

# No name and password before the host: an address is shown to whoever sees what it belongs to.
_HTTPS = rf"^https://[^\s\x00-\x1f\x7f/?#@\\]+(?:[/?#][^\s\x00-\x1f\x7f]*)?{END}"
_LOCALE = rf"^[a-z]{{2,3}}(?:-[A-Z][a-z]{{3}})?(?:-(?:[A-Z]{{2}}|[0-9]{{3}}))?{END}"

_AMOUNT = rf"^-?(?:0|[1-9][0-9]{{0,14}})(?:\.[0-9]{{1,6}})?{END}"

PATTERN_MEANING = {
    _AMOUNT: "Expected a decimal number in quotes such as 19.90, of at most 15 digits before the point and 6 after it",
    _HTTPS: "Expected an address that begins with https://, without a name or password in it",
    _LOCALE: "Expected a language such as en, de-CH or zh-Hant-TW",
    _LINE: "Expected text on one line that is not blank",
    _TEXT: "Expected text without NUL characters",
    _SLUG: "Expected 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends",
}
"""What a pattern asks for, in words: an error message that shows a regular expression helps nobody."""

ShortText = Annotated[str, Meta(min_length=1, max_length=100, pattern=_LINE)]
"""A name or title: one line, not blank."""

Description = Annotated[str, Meta(max_length=500, pattern=_TEXT)]
"""A few lines about something."""

LongText = Annotated[str, Meta(max_length=10_000, pattern=_TEXT)]
"""A description: any text that PostgreSQL can store."""

Amount = Annotated[str, Meta(min_length=1, max_length=23, pattern=_AMOUNT)]
"""A decimal number, as text: a JSON number is a binary fraction to most clients, and `Decimal` takes NaN."""

SafeInteger = Annotated[int, Meta(ge=-(2**53) + 1, le=2**53 - 1)]
"""A whole number that every client can hold (RFC 8259 §6)."""

Slug = Annotated[str, Meta(min_length=1, max_length=63, pattern=_SLUG)]
"""A DNS label (RFC 1123 §2.1), since a tenant's slug is a host's first label."""

HttpsUrl = Annotated[str, Meta(min_length=9, max_length=500, pattern=_HTTPS)]
"""An address that a browser may fetch from a page served by TLS."""

Locale = Annotated[str, Meta(min_length=2, max_length=35, pattern=_LOCALE)]
"""A language, with a script and a region if need be (RFC 5646 §2.1), spelt as §2.1.1 recommends."""

TimeZone = Annotated[str, Meta(min_length=1, max_length=64)]
"""A name of the IANA time zone database; whether there is such a zone is for the service to look up."""

Email = Annotated[str, Meta(min_length=3, max_length=254, extra_json_schema={"extra": {"format": "email"}})]
"""An address (at most 254 octets: RFC 5321 §4.5.3.1.3). Only `normalize_email` says whether it is one."""

Password = Annotated[str, Meta(min_length=1, max_length=1024)]
"""A password to check. Bounded, since hashing costs by length; a new one's strength is for the service to judge."""


@overload
def in_utc(field: str, moment: datetime, *, source: Source = ...) -> datetime: ...
@overload
def in_utc(field: str, moment: datetime | None, *, source: Source = ...) -> datetime | None: ...
def in_utc(field: str, moment: datetime | None, *, source: Source = "body") -> datetime | None:
    """The moment in UTC, of which the database knows no other form.

    Raises:
        ValidationFailedException: it has no offset, or is no moment of the calendar in UTC.
    """
    if moment is None:
        return None
    try:
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except OverflowError:
        pass
    raise ValidationFailedException.of(
        field, "Expected a time with an offset, such as 2026-11-23T09:00:00Z.", source=source
    )


def normalize_email(text: str, *, field: str = "email", source: Source = "body") -> str:
    """The form in which an address is stored and compared: NFC, in lower case throughout.

    RFC 5321 §2.4 would let the local part be case-sensitive; no provider in use is, and telling `Ann@` from `ann@`
    would let somebody pass for somebody else. DNS is not asked: that is what the verification mail is for.

    Raises:
        ValidationFailedException: it is not an address that mail could be sent to.
    """
    try:
        found = validate_email(text, check_deliverability=False)
    except EmailNotValidError as error:
        raise ValidationFailedException.of(field, f"Expected an e-mail address. {error}", source=source) from None
    return found.normalized.lower()
