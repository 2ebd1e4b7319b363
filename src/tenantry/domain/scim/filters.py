"""SCIM's filters (RFC 7644 §3.4.2.2) as conditions of SQL.

scim2-models has parsed the filter and checked it against the resource before it comes here: names are declared ones,
values of the right type. What is left is what each attribute is in the database. Each condition is true or false and
never NULL, so that `not` means what it says.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scim2_models import InvalidFilterException
from scim2_models.path import AttrPath, CompareOperator, FilterVisitor, LogicalOperator
from sqlalchemy import ColumnElement, Text, and_, cast, false, func, not_, null, or_, true

if TYPE_CHECKING:
    from scim2_models import ScimFilter
    from scim2_models.path import Comparison, LogicalExpr, Not, Present, ValuePath

__all__ = ("Attribute", "AttributeMap", "Many", "condition_of")

_ORDERINGS: Mapping[CompareOperator, Callable[[Any, Any], ColumnElement[bool]]] = {
    CompareOperator.gt: lambda left, right: left > right,
    CompareOperator.ge: lambda left, right: left >= right,
    CompareOperator.lt: lambda left, right: left < right,
    CompareOperator.le: lambda left, right: left <= right,
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """A single value in the database.

    `exact` are texts that are compared with their case (RFC 7643 §2.2), `folded` those that are stored without one.
    """

    column: ColumnElement[Any]
    kind: type = str
    exact: bool = False
    folded: bool = False

    def present(self) -> ColumnElement[bool]:
        return self.column.is_not(None)

    def compare(self, operator: CompareOperator, value: Any) -> ColumnElement[bool]:
        """The condition for one operator.

        Raises:
            InvalidFilterException: the operator is none for such a value.
        """
        if value is None:
            if operator in {CompareOperator.eq, CompareOperator.ne}:
                return self.column.is_(None) if operator is CompareOperator.eq else self.column.is_not(None)
            return false()
        column = self.column
        if isinstance(value, str) and not self.exact:
            column, value = column if self.folded else func.lower(column), value.lower()
        if operator is CompareOperator.eq:
            return func.coalesce(column == value, false())
        if operator is CompareOperator.ne:
            return column.is_distinct_from(value)
        if operator in _ORDERINGS:
            return func.coalesce(_ORDERINGS[operator](column, value), false())
        if not isinstance(value, str):
            raise InvalidFilterException(detail=f"'{operator.value}' compares texts, and this is none")
        search: Mapping[CompareOperator, Callable[..., ColumnElement[bool]]] = {
            CompareOperator.co: column.contains,
            CompareOperator.sw: column.startswith,
            CompareOperator.ew: column.endswith,
        }
        return func.coalesce(search[operator](value, autoescape=True), false())


@dataclass(frozen=True, slots=True)
class Many:
    """Several values, each a row of another table; `exists` says of a condition on such rows that one fulfils it."""

    exists: Callable[[ColumnElement[bool]], ColumnElement[bool]]
    parts: Mapping[str, Attribute]


AttributeMap = Mapping[str, "Attribute | Many"]
"""By the attribute's name in lower case; a part of a complex one as `name.part`."""


_NOTHING = Attribute(cast(null(), Text))
"""An attribute that a kind of resource does not have."""


def condition_of(found: ScimFilter[Any], attributes: AttributeMap, *, strict: bool = True) -> ColumnElement[bool]:
    """The condition of a filter. Unless `strict`, an attribute that there is not has no value: another kind has it.

    Raises:
        InvalidFilterException: an attribute cannot be filtered by.
    """
    return _Conditions(attributes, strict=strict).visit(found.ast)


class _Conditions(FilterVisitor[ColumnElement[bool]]):
    def __init__(self, attributes: AttributeMap, *, strict: bool, within: Many | None = None) -> None:
        self._attributes = attributes
        self._strict = strict
        self._within = within

    def visit_comparison(self, node: Comparison) -> ColumnElement[bool]:
        def compare(attribute: Attribute) -> ColumnElement[bool]:
            return attribute.compare(node.op, self._value(node, attribute))

        if self._within is None and isinstance(many := self._many(node.attr_path), Many):
            part = _part(many, node.attr_path.sub_attr or "value")
            if node.value is None and node.op in {CompareOperator.eq, CompareOperator.ne}:
                return not_(many.exists(true())) if node.op is CompareOperator.eq else many.exists(true())
            if node.op is CompareOperator.ne:
                # Of several values: none of them equals it, as scim2-models reads it.
                return not_(many.exists(part.compare(CompareOperator.eq, self._value(node, part))))
            return many.exists(compare(part))
        return compare(self._single(node.attr_path))

    def visit_present(self, node: Present) -> ColumnElement[bool]:
        if self._within is None:
            if isinstance(many := self._many(node.attr_path), Many):
                sub = node.attr_path.sub_attr
                return many.exists(true() if sub is None else _part(many, sub).present())
            if node.attr_path.sub_attr is None and (parts := self._parts(node.attr_path.attr)):
                return or_(*(part.present() for part in parts))
        return self._single(node.attr_path).present()

    def visit_not(self, node: Not) -> ColumnElement[bool]:
        return not_(self.visit(node.expr))

    def visit_logical_expr(self, node: LogicalExpr) -> ColumnElement[bool]:
        join = and_ if node.op is LogicalOperator.and_ else or_
        return join(*(self.visit(term) for term in node.terms))

    def visit_value_path(self, node: ValuePath) -> ColumnElement[bool]:
        many = self._many(node.attr_path)
        if self._within is not None or not isinstance(many, Many):
            if many is None and not self._strict:
                return false()
            raise InvalidFilterException(detail=f"'{node.attr_path}' holds no values to select from")
        return many.exists(_Conditions(self._attributes, strict=self._strict, within=many).visit(node.val_filter))

    def _many(self, path: AttrPath) -> Attribute | Many | None:
        return self._attributes.get(path.attr.lower())

    def _parts(self, name: str) -> list[Attribute]:
        prefix = f"{name.lower()}."
        return [
            found for key, found in self._attributes.items() if key.startswith(prefix) and isinstance(found, Attribute)
        ]

    def _single(self, path: AttrPath) -> Attribute:
        if self._within is not None:
            return _part(self._within, path.attr)
        name = path.attr if path.sub_attr is None else f"{path.attr}.{path.sub_attr}"
        found = self._attributes.get(name.lower())
        if found is None and not self._strict:
            return _NOTHING
        if not isinstance(found, Attribute):
            raise InvalidFilterException(detail=f"there is no filtering by '{path}'")
        return found

    @staticmethod
    def _value(node: Comparison, attribute: Attribute) -> Any:
        """The value as the column has it; the parser gives what JSON gives.

        Raises:
            InvalidFilterException: it cannot be one.
        """
        kind, value = attribute.kind, node.value
        if attribute is _NOTHING:
            return None if value is None else str(value)
        if kind is bool and isinstance(value, str):
            # Entra writes True and False as texts.
            value = {"true": True, "false": False}.get(value.lower(), value)
        if kind is datetime.datetime and isinstance(value, str):
            value = _moment(value)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool)):
            raise InvalidFilterException(detail=f"'{node.attr_path}' is not compared with {node.value!r}")
        return value


def _moment(text: str) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise InvalidFilterException(detail=f"{text!r} is no time") from None


def _part(many: Many, name: str) -> Attribute:
    found = many.parts.get(name.lower())
    if found is None:
        raise InvalidFilterException(detail=f"there is no filtering by '{name}' here")
    return found
