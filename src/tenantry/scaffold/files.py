"""The files of a new resource, as text: a package, a migration and a test.

Each is a template in `templates/`, which imports whatever some resource might need: ruff takes out what this one does
not, and puts the rest into form.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantry.scaffold.fields import Field
    from tenantry.scaffold.resource import Resource

__all__ = ("migration", "package_files", "test_file")

_PACKAGE: Final = ("__init__.py", "models.py", "schemas.py", "service.py", "controller.py")


@dataclass(frozen=True, slots=True)
class _Type:
    """How a kind of field is written down."""

    python: str
    column: str
    """What the column must name, where its Python type does not lead to it."""
    revision: str
    wire: str
    """Of `tenantry.kernel.schema` where there is one that bounds what comes in."""
    sample: str
    other: str
    each: str = ""
    """A sample that is another one each time, where it is to be unique."""
    longest: int = 0


_TYPES: Final[Mapping[str, _Type]] = {
    "str": _Type("str", "Text", "sa.Text()", "ShortText", '"One"', '"Another"', 'f"Number {next(_numbers)}"', 100),
    "text": _Type("str", "Text", "sa.Text()", "LongText", '"One"', '"Another"', longest=10_000),
    "words": _Type("str", "Text", "sa.Text()", "", "", ""),
    "int": _Type("int", "BigInteger", "sa.BigInteger()", "SafeInteger", "42", "43", "next(_numbers)"),
    "decimal": _Type("Decimal", "Numeric", "sa.Numeric()", "Amount", '"19.90"', '"20.05"', 'f"{next(_numbers)}.50"'),
    "bool": _Type("bool", "", "sa.Boolean()", "bool", "True", "False"),
    "date": _Type(
        "datetime.date",
        "",
        "sa.Date()",
        "datetime.date",
        '"2027-01-31"',
        '"2027-02-01"',
        'f"{2000 + next(_numbers)}-01-31"',
    ),
    "datetime": _Type(
        "datetime.datetime",
        "",
        "sa.DateTime(timezone=True)",
        "datetime.datetime",
        '"2027-01-31T09:00:00Z"',
        '"2027-02-01T09:00:00Z"',
        'f"{2000 + next(_numbers)}-01-31T09:00:00Z"',
    ),
    "uuid": _Type("UUID", "", "sa.Uuid()", "UUID", "str(uuid4())", "str(uuid4())", "str(uuid4())"),
}


def package_files(resource: Resource) -> Mapping[str, str]:
    """The package's modules, by their names."""
    return {name: _render(name, resource) for name in _PACKAGE}


def migration(resource: Resource, *, number: str, after: str, written: str) -> str:
    """The revision that makes the table. `written` is the day, as ISO 8601 has it."""
    return _render("migration.py", resource, number=number, after=after, written=written)


def test_file(resource: Resource) -> str:
    """Tests of the resource: its life, and that no organization sees another's."""
    return _render("test.py", resource)


def _render(name: str, resource: Resource, **values: str) -> str:
    fields = [_described(resource, field) for field in resource.fields]
    return (
        _environment()
        .get_template(f"{name}.jinja")
        .render(
            r=resource,
            fields=fields,
            words=[field for field in fields if field["words"]],
            unique=[field for field in fields if field["unique"]],
            converted=[field for field in fields if field["kind"] in {"decimal", "datetime"}],
            sortable=[field for field in fields if field["kind"] != "text"],
            searched=[field for field in fields if field["kind"] in {"str", "text"}],
            # A list is in the order of what people look for; where there is no such thing, in that of its making.
            title=next((field for field in fields if field["kind"] == "str" and not field["optional"]), None),
            changed=next((field for field in fields if not field["words"] or len(field["words"]) > 1), fields[0]),
            **values,
        )
    )


def _described(resource: Resource, field: Field) -> dict[str, Any]:
    known = _TYPES[field.kind]
    head, *rest = field.name.split("_")
    literal = resource.model + "".join(part.title() for part in (head, *rest))
    of_words = field.kind == "words"
    first, last = (json.dumps(field.words[at]) for at in (0, -1)) if of_words else (known.sample, known.other)
    return {
        "name": field.name,
        "kind": field.kind,
        "words": field.words,
        "optional": field.optional,
        "unique": field.unique,
        "camel": head + "".join(part.title() for part in rest),
        "constant": f"{resource.name}_{field.name}_words".upper(),
        "literal": literal,
        "python": known.python,
        "column": known.column,
        "revision": known.revision,
        "longest": known.longest,
        "is_checked": of_words or bool(known.longest),
        # By people, in their own words.
        "is_written": bool(known.longest),
        "read": literal if of_words else known.python,
        "wire": literal if of_words else known.wire,
        "sample": known.each if field.unique else first,
        "other": known.each if field.unique else last,
    }


@cache
def _environment() -> jinja2.Environment:
    # What is made is Python, of names that were checked: nothing of it is ever HTML.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    environment.filters["upfirst"] = lambda text: text[:1].upper() + text[1:]
    return environment
