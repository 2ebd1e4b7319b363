"""Which quotas and features there are: what the packages' manifests declare, for plans to say something of."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from tenantry.kernel.current import Current

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import ColumnExpressionArgument, Select

    from tenantry.kernel.feature import Feature, Quota, Switch

__all__ = ("Entitlements", "current_entitlements", "parse_amount", "rows_of", "use_entitlements")

MOST = 2**53 - 1
"""The largest number that every client of JSON reads as it is (RFC 8259 §6)."""
UNLIMITED = "unlimited"

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_UNITS = {"B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}


class Entitlements:
    """The quotas and switches of all manifests, by name."""

    def __init__(self, features: Iterable[Feature]) -> None:
        """
        Raises:
            ValueError: two have one name, or a name is none.
        """
        features = tuple(features)
        self.quotas: Mapping[str, Quota] = _by_name(quota for feature in features for quota in feature.quotas)
        self.switches: Mapping[str, Switch] = _by_name(switch for feature in features for switch in feature.switches)

    def quota(self, name: str) -> Quota:
        """
        Raises:
            LookupError: no manifest declares it.
        """
        if (found := self.quotas.get(name)) is None:
            raise LookupError(f"no manifest declares a quota {name!r}")
        return found

    def switch(self, name: str) -> Switch:
        """
        Raises:
            LookupError: no manifest declares it.
        """
        if (found := self.switches.get(name)) is None:
            raise LookupError(f"no manifest declares a switch {name!r}")
        return found

    def check(
        self, quotas: Mapping[str, Any], features: Mapping[str, Any]
    ) -> tuple[dict[str, int | None], list[tuple[str, str]]]:
        """What somebody has written of quotas and features: the amounts as numbers, and what is wrong.

        An amount is a number, None or `unlimited` for no limit, or text such as `10 GB` where bytes are counted. Of
        what is wrong: where it stands (`quotas.seets`), and what was expected.
        """
        amounts: dict[str, int | None] = {}
        wrong: list[tuple[str, str]] = []
        for name, value in quotas.items():
            if (quota := self.quotas.get(name)) is None:
                wrong.append((f"quotas.{name}", _unknown("quota", name, self.quotas)))
                continue
            try:
                amounts[name] = parse_amount(quota, value)
            except ValueError as error:
                wrong.append((f"quotas.{name}", str(error)))
        for name, value in features.items():
            if name not in self.switches:
                wrong.append((f"features.{name}", _unknown("feature", name, self.switches)))
            elif not isinstance(value, bool):
                wrong.append((f"features.{name}", "Expected true or false"))
        return amounts, wrong


_entitlements: Current[Entitlements] = Current("catalogue of quotas and features")
use_entitlements = _entitlements.use
current_entitlements = _entitlements.get


def rows_of(model: type[Any], *conditions: ColumnExpressionArgument[bool]) -> Select[Any]:
    """The usual count of a quota: the rows of a table, or those of them that fulfil the conditions."""
    return select(func.count()).select_from(model).where(*conditions)


def parse_amount(quota: Quota, value: object) -> int | None:
    """An amount as somebody has written it; None is no limit.

    Raises:
        ValueError: it is none; the text says what was expected.
    """
    if value is None or value == UNLIMITED:
        return None
    expected = "Expected a whole number from 0, or 'unlimited'"
    if quota.unit == "bytes":
        expected = "Expected bytes as a whole number, a size such as '10 GB', or 'unlimited'"
        if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
            value = round(float(match[1]) * _UNITS[match[2]])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
        raise ValueError(expected)
    return value


def _by_name(declared: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in declared:
        if not _NAME.fullmatch(item.name):
            raise ValueError(f"{item.name!r} is no name of a quota or feature: lower-case words, joined by _")
        if found.setdefault(item.name, item) is not item:
            raise ValueError(f"two manifests declare {item.name!r}")
    return found


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    nearest = get_close_matches(name, known)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"there are {', '.join(known) or 'none'}"
    return f"There is no {what} of that name; {hint}"
