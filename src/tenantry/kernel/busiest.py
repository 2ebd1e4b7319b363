"""Who asks for most: the heaviest keys of a stream, counted in bounded memory.

A metric with a label for each tenant grows with the tenants, and a monitoring system dies of it. So each process counts
with the Space-Saving algorithm (Metwally, Agrawal, El Abbadi, "Efficient computation of frequent and top-k elements in
data streams", 2005): of a fixed number of counters, a new key takes over the smallest one, and remembers how much of it
was not its own. Whoever has more than a counter's share of all is among the keys for certain, and no count is too low,
nor too high by more than that share.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ("OTHERS", "WINDOW", "Busiest", "BusiestTenants", "Heavy", "Window")

WINDOW = 60
"""Seconds. They begin with the minutes of the clock, so that all processes' windows are the same."""
OTHERS = "_other"
"""The label of everybody else together; no tenant's, since slugs have no underscore."""
_COUNTERS = 1000
"""As long as fewer tenants than that ask in a minute, all counts are exact."""
_FILE = "tenantry-busiest"


class Heavy(NamedTuple):
    """One key; its true weight is at most `weight`, and at least that without `error`."""

    key: str
    weight: float
    error: float


class Busiest:
    """The heaviest keys of one stream."""

    __slots__ = ("_capacity", "_errors", "_heap", "_weights", "total")

    def __init__(self, capacity: int) -> None:
        """`capacity` keys are counted at a time, at least 1."""
        if capacity < 1:
            raise ValueError("expected room for one key at least")
        self._capacity = capacity
        self._weights: dict[str, float] = {}
        self._errors: dict[str, float] = {}
        # Smallest first, and behind the times: a weight there is the one of when it was put there, never a larger one.
        self._heap: list[tuple[float, str]] = []
        self.total = 0.0
        """The weight of everything that was added."""

    def add(self, key: str, weight: float = 1.0) -> None:
        """Count `weight`, which is not negative, to a key."""
        self.total += weight
        weights = self._weights
        known = weights.get(key)
        if known is not None:
            weights[key] = known + weight
            return
        inherited = 0.0
        if len(weights) >= self._capacity:
            inherited = self._evict()
            self._errors[key] = inherited
        weights[key] = inherited + weight
        heapq.heappush(self._heap, (inherited + weight, key))

    def _evict(self) -> float:
        while True:
            weight, key = heapq.heappop(self._heap)
            now = self._weights[key]
            if now == weight:
                del self._weights[key]
                self._errors.pop(key, None)
                return now
            heapq.heappush(self._heap, (now, key))

    def top(self, count: int) -> list[Heavy]:
        """The heaviest so many keys, heaviest first, equal ones by name."""
        # A copy: the thread of a scrape may ask while requests are counted.
        first = heapq.nsmallest(count, dict(self._weights).items(), key=lambda item: (-item[1], item[0]))
        return [Heavy(key, weight, self._errors.get(key, 0.0)) for key, weight in first]


class Window(msgspec.Struct, frozen=True):
    """What one process has counted in one window that is over."""

    begun: int
    """Seconds since 1970; a multiple of `WINDOW`."""
    requests: dict[str, float]
    """By the tenants' slugs."""
    seconds: dict[str, float]
    all_requests: float
    all_seconds: float


_EMPTY = Window(0, {}, {}, 0.0, 0.0)
_decoder = msgspec.json.Decoder(Window)


class BusiestTenants:
    """Requests and their time by tenant, as a collector of Prometheus' library.

    Where several processes answer a scrape together, each leaves its last window in the folder that they share.
    """

    def __init__(self, *, most: int = 20, clock: Callable[[], float] = time.time) -> None:
        """`most` tenants have series of their own."""
        self.most = most
        self._clock = clock
        self._begun = 0
        self._ends = 0.0
        self._requests = Busiest(_COUNTERS)
        self._seconds = Busiest(_COUNTERS)
        self._last = _EMPTY
        self._turning = threading.Lock()

    def observe(self, tenant: str, seconds: float) -> None:
        """Count one request that took so long."""
        if self._clock() >= self._ends:
            self._turn()
        self._requests.add(tenant)
        self._seconds.add(tenant, seconds)

    def _turn(self) -> None:
        """Close the window, if it is over, and begin the next."""
        with self._turning:
            begun = int(self._clock()) // WINDOW * WINDOW
            if begun == self._begun:
                return
            ended, requests, seconds = self._begun, self._requests, self._seconds
            self._requests, self._seconds = Busiest(_COUNTERS), Busiest(_COUNTERS)
            self._begun, self._ends = begun, float(begun + WINDOW)
            self._last = Window(
                begun=ended,
                requests={heavy.key: heavy.weight for heavy in requests.top(_COUNTERS)},
                seconds={heavy.key: heavy.weight for heavy in seconds.top(_COUNTERS)},
                all_requests=requests.total,
                all_seconds=seconds.total,
            )
        if directory := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            self._leave(Path(directory))

    def _leave(self, directory: Path) -> None:
        target = directory / f"{_FILE}-{os.getpid()}.json"
        made = target.with_suffix(".new")
        # The folder may be gone when the process is about to end; the figures of a minute are worth no error.
        with contextlib.suppress(OSError):
            made.write_bytes(msgspec.json.encode(self._last))
            made.replace(target)

    def _windows(self) -> Iterable[Window]:
        """All processes' last whole window; of a process that asked nobody since, none."""
        if self._clock() >= self._ends:
            self._turn()
        latest = int(self._clock()) // WINDOW * WINDOW - WINDOW
        found = [self._last]
        if directory := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            own = f"{_FILE}-{os.getpid()}.json"
            for path in Path(directory).glob(f"{_FILE}-*.json"):
                if path.name != own:
                    # Written anew each minute by another process, which may have just ended.
                    with contextlib.suppress(OSError, msgspec.MsgspecError):
                        found.append(_decoder.decode(path.read_bytes()))
        return [window for window in found if window.begun == latest]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The two series, in the form of Prometheus' library."""
        rate = GaugeMetricFamily(
            "tenantry_tenant_requests_per_second",
            "Requests of the busiest tenants a second, over the last whole minute; of all others together as _other.",
            labels=("tenant",),
        )
        at_once = GaugeMetricFamily(
            "tenantry_tenant_requests_at_once",
            "Requests of the busiest tenants that were being served at a time, on average over the last whole minute.",
            labels=("tenant",),
        )
        windows = list(self._windows()) if self.most else []
        _fill(rate, self.most, [(window.requests, window.all_requests) for window in windows])
        _fill(at_once, self.most, [(window.seconds, window.all_seconds) for window in windows])
        yield rate
        yield at_once


def _fill(family: GaugeMetricFamily, most: int, windows: list[tuple[dict[str, float], float]]) -> None:
    sums: dict[str, float] = {}
    total = 0.0
    for weights, everything in windows:
        total += everything
        for tenant, weight in weights.items():
            sums[tenant] = sums.get(tenant, 0.0) + weight
    # Of the sums and not of each process: a tenant may be far from the first everywhere, and the first of all.
    first = heapq.nsmallest(most, sums.items(), key=lambda item: (-item[1], item[0]))
    for tenant, weight in first:
        family.add_metric([tenant], weight / WINDOW)
    if windows:
        # Rounding may leave a hair less than nothing.
        family.add_metric([OTHERS], max(0.0, total - sum(weight for _, weight in first)) / WINDOW)
