"""What a new resource is called, everywhere that it has a name."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenantry.scaffold.fields import Field

__all__ = ("NameRefused", "Resource", "plural_of")

_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_LONGEST = 30


class NameRefused(ValueError):  # noqa: N818
    """No resource can be called that."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing of which every organization has its own: `invoice`, of which there are `invoices`."""

    name: str
    plural: str
    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        for name in (self.name, self.plural):
            if not _NAME.fullmatch(name) or len(name) > _LONGEST:
                raise NameRefused(
                    f"{name!r}: expected at most {_LONGEST} lower-case letters, digits and underscores, as credit_note"
                )
            if keyword.iskeyword(name) or keyword.issoftkeyword(name):
                raise NameRefused(f"{name!r} is a word of Python's")
        if self.name == self.plural:
            raise NameRefused(f"{self.name!r} is what one and many are called; name the many with --plural")

    @property
    def model(self) -> str:
        """`CreditNote`"""
        return "".join(part.title() for part in self.name.split("_"))

    @property
    def models(self) -> str:
        """`CreditNotes`"""
        return "".join(part.title() for part in self.plural.split("_"))

    @property
    def path(self) -> str:
        """`credit-notes`: in addresses and permissions."""
        return self.plural.replace("_", "-")

    @property
    def words(self) -> str:
        """`credit note`: in sentences."""
        return self.name.replace("_", " ")

    @property
    def one(self) -> str:
        """`a credit note`"""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.words}"

    @property
    def many(self) -> str:
        """`credit notes`"""
        return self.plural.replace("_", " ")

    @property
    def sentence(self) -> str:
        """`Credit notes`: that a sentence begins with."""
        return self.many[0].upper() + self.many[1:]

    @property
    def key(self) -> str:
        """`credit_note_id`: of the path's parameter."""
        return f"{self.name}_id"


def plural_of(name: str) -> str:
    """What English makes of most nouns; for the others there is `--plural`."""
    if re.search(r"[^aeiou]y$", name):
        return f"{name[:-1]}ies"
    return f"{name}es" if re.search(r"(?:s|x|z|ch|sh)$", name) else f"{name}s"
