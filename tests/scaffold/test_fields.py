from __future__ import annotations

import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.scaffold.fields import KINDS, Field, FieldsError, parse_fields
from tenantry.scaffold.resource import NameRefused, Resource, plural_of

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,10}(_[a-z0-9]{1,5})?", fullmatch=True).filter(
    lambda name: (
        name not in {"id", "datetime", "decimal", "uuid", "metadata", "registry"}
        and not keyword.iskeyword(name)
        and not keyword.issoftkeyword(name)
    )
)
WORDS = st.lists(st.from_regex(r"[a-z][a-z0-9_-]{0,9}", fullmatch=True), min_size=2, max_size=5, unique=True)


@st.composite
def fields(draw: st.DrawFn) -> Field:
    name, optional = draw(NAMES), draw(st.booleans())
    if draw(st.booleans()):
        return Field(name, "words", tuple(draw(WORDS)), optional)
    kind = draw(st.sampled_from(KINDS))
    unique = draw(st.booleans()) if kind not in {"text", "bool"} else False
    return Field(name, kind, optional=optional, unique=unique)


def _written(field: Field) -> str:
    kind = "|".join(field.words) or field.kind
    return f"{field.name}:{kind}{'?' if field.optional else ''}{'!' if field.unique else ''}"


@given(
    st.lists(fields(), min_size=1, max_size=8, unique_by=lambda field: field.name), st.sampled_from([" ", ",", ",  "])
)
def test_what_is_written_is_read(wanted: list[Field], between: str) -> None:
    assert parse_fields(between.join(_written(field) for field in wanted)) == tuple(wanted)


@given(st.text(max_size=60))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    try:
        found = parse_fields(text)
    except FieldsError:
        return
    assert parse_fields(" ".join(_written(field) for field in found)) == found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "at least one field"),
        ("number", "expected a type after the name, such as number:str"),
        ("number:string", "'string' is no type; expected one of str, text, int"),
        ("Number:str", "lower-case letters"),
        ("class:str", "the name is taken"),
        ("id:uuid", "the name is taken"),
        ("a:str a:int", "two fields of that name"),
        ("open:bool!", "cannot be unique"),
        ("status:draft|Sent", "different words of lower-case letters"),
        ("status:draft|draft", "different words"),
        (f"{'a' * 41}:str", "at most 40"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(text: str, told: str) -> None:
    with pytest.raises(FieldsError, match=told.replace("|", r"\|")):
        parse_fields(text)


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("invoice", "invoices"),
        ("company", "companies"),
        ("day", "days"),
        ("box", "boxes"),
        ("credit_note", "credit_notes"),
    ],
)
def test_the_plural_is_what_english_makes_of_it(one: str, many: str) -> None:
    assert plural_of(one) == many


def test_a_resource_has_a_name_for_each_place() -> None:
    resource = Resource("credit_note", "credit_notes", (Field("number", "str"),))
    assert (resource.model, resource.path, resource.key) == ("CreditNote", "credit-notes", "credit_note_id")
    assert (resource.one, resource.sentence) == ("a credit note", "Credit notes")


@pytest.mark.parametrize(
    ("one", "many"), [("Invoice", "invoices"), ("sheep", "sheep"), ("class", "classes"), ("a" * 31, "b")]
)
def test_a_name_that_is_none_is_refused(one: str, many: str) -> None:
    with pytest.raises(NameRefused):
        Resource(one, many, (Field("number", "str"),))
