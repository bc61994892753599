"""Metrics that every process has; a daemon adds its own with Counter, Gauge, Histogram from here.

Names are ``thor_<thing>_<unit>[_total]``, labels bounded (process, source, symbol, reason), never an id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from thor.runtime.heartbeat import Beat

__all__ = ["CONTENT_TYPE", "REGISTRY", "Counter", "Gauge", "Histogram", "Progress", "exposition"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
disable_created_metrics()  # type: ignore[no-untyped-call]


class Progress(Collector):
    """What the heartbeat says, read when somebody asks."""

    def __init__(self, process: str, beat: Callable[[], Beat], dropped: Callable[[], int]) -> None:
        self._process, self._beat, self._dropped = process, beat, dropped

    def collect(self) -> Iterable[Metric]:
        """One family a figure; those that the process does not have are left out."""
        beat = self._beat()
        yield self._gauge("thor_heartbeat_age_seconds", "Since the work loop ended a step", beat.age_s())
        yield self._gauge("thor_ready", "1 where the process does its work, and in time", int(beat.ready))
        yield self._gauge("thor_committed_entry", "Newest log entry committed", beat.committed)
        yield self._gauge("thor_lag_entries", "Log entries known but not committed", beat.lag)
        source = None if beat.source_ts is None else beat.source_ts / 1e9
        yield self._gauge("thor_source_timestamp_seconds", "Newest event time seen, Unix time", source)
        yield self._counter("thor_loop_steps", "Steps of the work loop", beat.loops)
        yield self._counter("thor_log_lines_dropped", "Log lines dropped because nobody read them", self._dropped())

    def _gauge(self, name: str, text: str, value: float | None) -> Metric:
        family = GaugeMetricFamily(name, text, labels=["process"])
        if value is not None:
            family.add_metric([self._process], value)
        return family

    def _counter(self, name: str, text: str, value: int) -> Metric:
        family = CounterMetricFamily(name, text, labels=["process"])
        family.add_metric([self._process], value)
        return family


def exposition() -> bytes:
    """Everything, in Prometheus's text form."""
    return generate_latest(REGISTRY)
