"""The table of all metrics in docs/observability.md, as the code has them: `python -m tests.docs.metrics_table`."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

import tenantry.asgi
import tenantry.provisioner
import tenantry.worker  # noqa: F401 - whatever a process of ours imports has its metrics registered
from tenantry.kernel.metrics import BUSIEST

__all__ = ("Documented", "documented", "series", "table")


@dataclass(frozen=True, order=True)
class Documented:
    """One metric."""

    name: str
    """As it is scraped, without the endings of a histogram's series."""
    kind: str
    labels: tuple[str, ...]
    text: str

    @property
    def row(self) -> str:
        labels = ", ".join(f"`{label}`" for label in self.labels) or "none"
        return f"| `{self.name}` | {self.kind} | {labels} | {self.text} |"

    @property
    def series(self) -> set[str]:
        if self.kind == "histogram":
            return {f"{self.name}_{ending}" for ending in ("bucket", "count", "sum")}
        return {self.name}


def documented() -> list[Documented]:
    """All metrics of ours, by name."""
    found = []
    for collector in list(REGISTRY._collector_to_names):
        if isinstance(collector, MetricWrapperBase):
            [family] = collector.describe()
            if family.name.startswith("tenantry_"):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                found.append(Documented(name, family.type, tuple(collector._labelnames), family.documentation))
    found += [Documented(family.name, family.type, ("tenant",), family.documentation) for family in BUSIEST.collect()]
    return sorted(found)


def series() -> set[str]:
    """The names of all series of ours."""
    return {name for metric in documented() for name in metric.series}


def table() -> str:
    return "\n".join(
        ("| metric | type | labels | meaning |", "|---|---|---|---|", *(metric.row for metric in documented()))
    )


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
