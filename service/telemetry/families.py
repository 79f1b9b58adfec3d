"""Families: Prometheus' metrics, as cheap to count with as the library allows."""

from __future__ import annotations

import contextlib
import functools
from bisect import bisect_left
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client import values as library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client import CollectorRegistry

# The time at which a series began: one more series for each, which several processes cannot sum.
disable_created_metrics()

_choosing = Lock()


class _Histogram(Histogram):
    """prometheus_client's, with its bucket found by bisection: the walk over all took a third of a sample."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:  # noqa: ARG002
        self._sum.inc(amount)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)


_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class Families:
    """Makes metrics in one registry, with values of one kind.

    Each is given back as the function of its labels' values that answers with the series; without labels
    there is one series, which is there at once.
    """

    def __init__(self, registry: CollectorRegistry, place: Callable[..., object]) -> None:
        """`place` makes where the value of a new series is kept, as prometheus_client's values are made."""
        self._registry = registry
        self._place = place

    def counter(self, name: str, meaning: str, labels: Sequence[str]) -> Callable[..., Counter]:
        """What only grows."""
        with self._placing():
            counter = Counter(name, meaning, labels, registry=self._registry)
        return self._series(counter)

    def latest(self, name: str, meaning: str, labels: Sequence[str]) -> Callable[..., Gauge]:
        """A time; of several processes' the latest."""
        with self._placing():
            gauge = Gauge(name, meaning, labels, registry=self._registry, multiprocess_mode="max")
        return self._series(gauge)

    def histogram(
        self, name: str, meaning: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Callable[..., Histogram]:
        """What is observed, counted by its size; `buckets` are the upper ends."""
        with self._placing():
            histogram = _Histogram(name, meaning, labels, registry=self._registry, buckets=buckets)
        return self._series(histogram)

    def _series(self, metric: _Metric) -> Callable[..., _Metric]:
        """The metric's series by the values of its labels; cached, since to look one up takes its lock."""

        def one(*labels: object) -> _Metric:
            if not labels:
                return metric
            with self._placing():
                return metric.labels(*labels)

        return functools.cache(one)

    @contextlib.contextmanager
    def _placing(self) -> Iterator[None]:
        """Let new series keep their values where this telemetry's are; the library asks a global of its."""
        with _choosing:
            before = library.ValueClass
            library.ValueClass = self._place
            try:
                yield
            finally:
                library.ValueClass = before
