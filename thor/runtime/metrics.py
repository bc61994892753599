"""Metrics that every process has; a daemon adds its own with Counter, Gauge, Histogram from here.

Names are ``thor_<thing>_<unit>[_total]``, labels bounded (process, source, symbol, reason), never an id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from thor.runtime.heartbeat import Beat

__all__ = ["CONTENT_TYPE", "REGISTRY", "Counter", "Figures", "Gauge", "Histogram", "Ingested", "Progress", "exposition"]

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


@dataclass(frozen=True, slots=True)
class Figures:
    """What the ingester holds anyway; ``counts`` as in ingester:writer, times in ns UTC, None before the first."""

    counts: Mapping[str, int]
    entries: int
    written_bytes: int
    ahead_bytes: int
    spool_bytes: int
    watermark: int | None
    quotes: Mapping[str, int]


#: Counts of quotes that have a metric of their own; the reasons of refusals are labels.
_QUOTES: Final = {
    "accepted": "Quotes accepted into the log",
    "late": "Accepted quotes whose minute was final when they came",
    "duplicate": "Quotes that came twice and count once",
    "refresh": "Snapshots equal to the one before",
    "crossed": "Quotes whose bid is not below their ask",
    "dropped": "Quotes that could not be kept",
}


class Ingested(Collector):
    """The ingester's own figures, read when somebody asks: no quote is counted twice for a metric."""

    def __init__(self, look: Callable[[], Figures]) -> None:
        self._look = look

    def collect(self) -> Iterable[Metric]:
        """One family a figure. Counters go on where the log's own counts stood, over restarts."""
        now = self._look()
        for name, text in _QUOTES.items():
            yield CounterMetricFamily(f"thor_quotes_{name}", text, value=now.counts.get(name, 0))
        refused = CounterMetricFamily("thor_quotes_rejected", "Quotes refused, by reason", labels=["reason"])
        for name, count in now.counts.items():
            if name.startswith("rejected:"):
                refused.add_metric([name.removeprefix("rejected:")], count)
        yield refused
        yield CounterMetricFamily("thor_log_entries", "Entries of quotes:log ever written", value=now.entries)
        yield CounterMetricFamily("thor_log_bytes", "Bytes of entries this process made", value=now.written_bytes)
        yield GaugeMetricFamily(
            "thor_log_ahead_bytes", "Bytes of entries that the slowest projection lacks", value=now.ahead_bytes
        )
        yield GaugeMetricFamily("thor_spool_bytes", "Bytes that wait on disk for Redis", value=now.spool_bytes)
        age = GaugeMetricFamily("thor_watermark_age_seconds", "Wall clock less watermark", labels=["process"])
        if now.watermark is not None:
            age.add_metric(["ingester"], time.time() - now.watermark / 1e9)
        yield age
        newest = GaugeMetricFamily(
            "thor_quote_timestamp_seconds", "Event time of a symbol's newest quote, Unix time", labels=["symbol"]
        )
        for symbol, ts in now.quotes.items():
            newest.add_metric([symbol], ts / 1e9)
        yield newest


def exposition() -> bytes:
    """Everything, in Prometheus's text form."""
    return generate_latest(REGISTRY)
