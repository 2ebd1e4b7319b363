"""Queries of Prometheus, evaluated at one moment over figures that a test makes up.

promtool, which does so for real, is a Go program that no package registry of ours has. This knows what the alerts use:
selectors, aggregations, arithmetic, comparisons, `and`, `or`, quantiles of histograms. A counter's figure is what its
`rate` is (or its `changes`), and the time is 1,000,000.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import promql_parser as promql

__all__ = ("NOW", "Figures", "evaluate", "metrics_of", "walk")

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Figures = dict[str, list[tuple[dict[str, str], float]]]
"""By the metric's name: label sets and figures."""

NOW = 1_000_000.0

_MATCH: dict[str, Callable[[str, str], bool]] = {
    "MatchOp.Equal": lambda value, wanted: value == wanted,
    "MatchOp.NotEqual": lambda value, wanted: value != wanted,
    "MatchOp.Re": lambda value, wanted: re.fullmatch(wanted, value) is not None,
    "MatchOp.NotRe": lambda value, wanted: re.fullmatch(wanted, value) is None,
}
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": lambda one, other: one > other,
    "<": lambda one, other: one < other,
    ">=": lambda one, other: one >= other,
    "==": lambda one, other: one == other,
}
_COUNT: dict[str, Callable[[float, float], float]] = {
    "-": lambda one, other: one - other,
    "*": lambda one, other: one * other,
    "+": lambda one, other: one + other,
    # Of nothing, no share: not a number, which is greater than nothing.
    "/": lambda one, other: one / other if other else math.nan,
}


def evaluate(query: str, figures: Figures) -> list[tuple[dict[str, str], float]]:
    """What the query answers: for an alert, one entry for each that fires.

    Raises:
        ValueError: the query is none.
        NotImplementedError: it uses what this does not know.
    """
    found = _evaluate(promql.parse(query), figures)
    if isinstance(found, float):
        return [({}, found)]
    return [(dict(labels), value) for labels, value in found.items()]


def walk(expression: Any) -> Iterator[Any]:
    """The expression, and all that it is made of."""
    yield expression
    inner: Iterable[Any] = ()
    if isinstance(expression, promql.BinaryExpr):
        inner = (expression.lhs, expression.rhs)
    elif isinstance(expression, promql.Call):
        inner = expression.args
    elif isinstance(expression, promql.MatrixSelector):
        inner = (expression.vector_selector,)
    elif isinstance(expression, (promql.AggregateExpr, promql.ParenExpr, promql.UnaryExpr, promql.SubqueryExpr)):
        inner = (expression.expr,)
    for part in inner:
        yield from walk(part)


def metrics_of(query: str) -> set[str]:
    """The names of the series that a query reads.

    Raises:
        ValueError: it is none.
    """
    return {str(part.name) for part in walk(promql.parse(query)) if isinstance(part, promql.VectorSelector)}


def _evaluate(expression: Any, figures: Figures) -> Vector | float:
    if isinstance(expression, promql.NumberLiteral):
        return float(expression.val)
    if isinstance(expression, promql.ParenExpr):
        return _evaluate(expression.expr, figures)
    if isinstance(expression, promql.VectorSelector):
        return _select(expression, figures)
    if isinstance(expression, promql.MatrixSelector):
        return _select(expression.vector_selector, figures)
    if isinstance(expression, promql.Call):
        return _call(expression, figures)
    if isinstance(expression, promql.AggregateExpr):
        return _aggregate(expression, figures)
    if isinstance(expression, promql.BinaryExpr):
        return _combine(expression, _evaluate(expression.lhs, figures), _evaluate(expression.rhs, figures))
    raise NotImplementedError(type(expression).__name__)


def _select(selector: Any, figures: Figures) -> Vector:
    return {
        frozenset(labels.items()): value
        for labels, value in figures.get(selector.name, [])
        if all(
            _MATCH[str(matcher.op)](labels.get(matcher.name, ""), matcher.value)
            for matcher in selector.matchers.matchers
        )
    }


def _call(call: Any, figures: Figures) -> Vector | float:
    name = call.func.name
    if name == "time":
        return NOW
    if name in {"rate", "changes"}:
        return _vector(_evaluate(call.args[0], figures))
    if name == "absent":
        return {} if _evaluate(call.args[0], figures) else {frozenset(): 1.0}
    if name == "histogram_quantile":
        return _quantile(call.args[0].val, _vector(_evaluate(call.args[1], figures)))
    raise NotImplementedError(name)


def _quantile(quantile: float, buckets: Vector) -> Vector:
    """As Prometheus': linear between the bounds of the bucket in which it falls."""
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, value in buckets.items():
        bound = float(dict(labels)["le"])
        groups.setdefault(frozenset(label for label in labels if label[0] != "le"), []).append((bound, value))
    found: Vector = {}
    for labels, steps in groups.items():
        steps.sort()
        rank, low, below = quantile * steps[-1][1], 0.0, 0.0
        for bound, count in steps:
            if count >= rank:
                found[labels] = low if math.isinf(bound) else low + (bound - low) * (rank - below) / (count - below)
                break
            low, below = bound, count
    return found


def _aggregate(aggregate: Any, figures: Figures) -> Vector:
    kept = set(aggregate.modifier.labels) if aggregate.modifier is not None else set()
    groups: dict[Labels, list[float]] = {}
    for labels, value in _vector(_evaluate(aggregate.expr, figures)).items():
        groups.setdefault(frozenset(label for label in labels if label[0] in kept), []).append(value)
    combine: dict[str, Callable[[list[float]], float]] = {"sum": sum, "max": max, "min": min}
    return {labels: combine[str(aggregate.op)](values) for labels, values in groups.items()}


def _combine(expression: Any, one: Vector | float, other: Vector | float) -> Vector | float:
    verb = str(expression.op)
    if verb == "or":
        return {**_vector(other), **_vector(one)}
    if verb == "and":
        return {labels: value for labels, value in _vector(one).items() if labels in _vector(other)}
    if isinstance(one, float) and isinstance(other, float):
        return _COUNT[verb](one, other)
    on_nothing = expression.modifier is not None and expression.modifier.matching is not None
    pairs: dict[Labels, tuple[float, float]]
    if isinstance(other, float):
        pairs = {labels: (value, other) for labels, value in _vector(one).items()}
    elif isinstance(one, float):
        pairs = {labels: (one, value) for labels, value in other.items()}
    elif on_nothing:
        [single] = other.values() or [math.nan]
        pairs = {labels: (value, single) for labels, value in one.items()}
    else:
        pairs = {labels: (value, other[labels]) for labels, value in one.items() if labels in other}
    if verb in _COMPARE:
        return {labels: left for labels, (left, right) in pairs.items() if _COMPARE[verb](left, right)}
    return {labels: _COUNT[verb](left, right) for labels, (left, right) in pairs.items()}


def _vector(value: Vector | float) -> Vector:
    if isinstance(value, float):
        raise NotImplementedError("a number where a vector is expected")
    return value
