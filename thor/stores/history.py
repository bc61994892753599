"""Bars read from Postgres: pages of any interval, and why minutes have none (domain.md §5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import psycopg

from thor.domain.bars import KINDS, classify
from thor.domain.hours import Hours
from thor.domain.minutes import MINUTE_NS, boundaries
from thor.domain.vwap import Sums
from thor.stores import instruments

Interval = Literal["1m", "5m", "15m", "1h", "1d"]
#: Lengths in minutes of the intervals that begin on a multiple of themselves since 1970 UTC.
MINUTES: Final = {"1m": 1, "5m": 5, "15m": 15, "1h": 60}
#: The most minutes that ``why`` explains at once.
MOST_MINUTES: Final = 366 * 1440
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_ZERO: Final = date(1970, 1, 1)


class Bar(NamedTuple):
    """One bar of any interval, labelled by its start ``ts``; ``spread`` None where the book is one-sided or crossed."""

    ts: datetime
    trade_date: date
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    notional: Decimal
    updates: int
    revision: int
    revised_at: datetime | None
    basis: str
    bid: Decimal | None
    ask: Decimal | None

    @property
    def vwap(self) -> Decimal | None:
        """Rounded for display; None where no volume traded."""
        return Sums(self.volume, self.notional).vwap

    @property
    def spread(self) -> Decimal | None:
        """Ask less bid."""
        return self.ask - self.bid if self.bid is not None and self.ask is not None and self.ask > self.bid else None


_ONE_MINUTE: Final = """
SELECT b.minute, b.trade_date, b.open, b.high, b.low, b.close, b.volume, b.notional, b.updates, b.revision,
    b.revised_at, b.basis, k.bid, k.ask
FROM bars b
LEFT JOIN books k USING (instrument_id, minute)
WHERE b.instrument_id = %(id)s AND b.minute >= %(since)s AND b.minute < %(until)s
ORDER BY b.minute
LIMIT %(limit)s
"""

_BINS: Final = """
SELECT date_bin(%(width)s, b.minute, 'epoch') AS bin, min(b.trade_date),
    (array_agg(b.open ORDER BY b.minute))[1], max(b.high), min(b.low), (array_agg(b.close ORDER BY b.minute DESC))[1],
    trim_scale(sum(b.volume)), trim_scale(sum(b.notional)), sum(b.updates)::bigint, sum(b.revision)::bigint,
    max(b.revised_at), CASE WHEN min(b.basis) = max(b.basis) THEN min(b.basis) ELSE 'mixed' END,
    (array_agg(k.bid ORDER BY b.minute DESC) FILTER (WHERE k.bid IS NOT NULL))[1],
    (array_agg(k.ask ORDER BY b.minute DESC) FILTER (WHERE k.ask IS NOT NULL))[1]
FROM bars b
LEFT JOIN books k USING (instrument_id, minute)
WHERE b.instrument_id = %(id)s AND b.minute >= %(since)s AND b.minute < %(until)s
GROUP BY bin
ORDER BY bin
LIMIT %(limit)s
"""

_DAYS: Final = """
SELECT d.trade_date, d.trade_date, d.open, d.high, d.low, d.close, d.volume, d.notional, d.updates, d.revision,
    d.revised_at, d.basis, k.bid, k.ask
FROM days d
LEFT JOIN LATERAL (
    SELECT max(b.minute) AS minute FROM bars b WHERE b.instrument_id = d.instrument_id AND b.trade_date = d.trade_date
) l ON true
LEFT JOIN books k ON k.instrument_id = d.instrument_id AND k.minute = l.minute
WHERE d.instrument_id = %(id)s AND d.open IS NOT NULL
    AND d.trade_date >= %(since)s AND d.trade_date < %(until)s
ORDER BY d.trade_date
LIMIT %(limit)s
"""


def page(
    conn: psycopg.Connection[Any],
    symbol: str,
    interval: Interval,
    start: datetime,
    end: datetime,
    limit: int,
    after: datetime | None = None,
) -> list[Bar]:
    """At most ``limit`` bars, oldest first, whose start lies in [start, end) and past ``after``, the last one seen.

    A day begins with its trade date. Raises LookupError for a symbol that is not registered.
    """
    number, hours = _instrument(conn, symbol)
    if after is not None:
        start = max(start, after + timedelta(microseconds=1))
    if interval == "1d":
        return _days(conn, number, hours, start, end, limit)
    width = timedelta(minutes=MINUTES[interval])
    params = {"id": number, "since": _ceil(start, width), "until": _ceil(end, width), "width": width, "limit": limit}
    return [Bar(*row) for row in conn.execute(_ONE_MINUTE if interval == "1m" else _BINS, params)]


def latest(conn: psycopg.Connection[Any], symbol: str) -> Bar | None:
    """The newest one-minute bar. Raises LookupError for a symbol that is not registered."""
    number, _ = _instrument(conn, symbol)
    row = conn.execute("SELECT max(minute) FROM bars WHERE instrument_id = %s", [number]).fetchone()
    if row is None or row[0] is None:
        return None
    return page(conn, symbol, "1m", row[0], row[0] + timedelta(minutes=1), 1)[0]


def _days(
    conn: psycopg.Connection[Any], number: int, hours: Hours, start: datetime, end: datetime, limit: int
) -> list[Bar]:
    if start >= end:
        return []
    params = {"id": number, "since": _first_day(hours, start), "until": _first_day(hours, end), "limit": limit}
    rows = conn.execute(_DAYS, params).fetchall()
    return [Bar(_instant(hours.begins((row[0] - _DAY_ZERO).days)), *row[1:]) for row in rows]


def _first_day(hours: Hours, start: datetime) -> date:
    """The first trade date that begins at ``start`` or later."""
    ns = ns_of(start)
    day = hours.trade_date(ns)
    # The day after may be no trade date; then no row has it and the comparison holds all the same.
    return _DAY_ZERO + timedelta(days=day if hours.begins(day) >= ns else day + 1)


def _ceil(at: datetime, width: timedelta) -> datetime:
    return at + (_EPOCH - at) % width


def ns_of(at: datetime) -> int:
    """An instant in ns since 1970 UTC."""
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000


def _instant(ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=ns // 1000)


def _instrument(conn: psycopg.Connection[Any], symbol: str) -> tuple[int, Hours]:
    found = instruments.find(conn, symbol)
    if found is None:
        raise LookupError(f"expected a registered symbol, found {symbol!r}")
    return found[0], found[1].hours


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive minutes of one kind, [start, end): bar, quiet, gap, closed or not_watching."""

    start: datetime
    end: datetime
    kind: str

    @property
    def minutes(self) -> int:
        """How many."""
        return (self.end - self.start) // timedelta(minutes=1)


_MADE: Final = """
SELECT extract(epoch FROM minute)::bigint / 60 FROM bars
WHERE instrument_id = %(id)s AND minute >= %(since)s AND minute < %(until)s
"""

_GAPS: Final = """
SELECT starts_ns, ends_ns FROM gaps WHERE instrument_id = %(id)s AND ends_ns > %(from_ns)s AND starts_ns < %(to_ns)s
"""


def why(conn: psycopg.Connection[Any], symbol: str, start: datetime, end: datetime) -> list[Run]:
    """Every minute that starts in [start, end), in runs of one kind, so that the kinds add up to all minutes.

    Raises LookupError for a symbol that is not registered, ValueError for more than MOST_MINUTES.
    """
    number, hours = _instrument(conn, symbol)
    since, until = (ns_of(_ceil(at, timedelta(minutes=1))) // MINUTE_NS for at in (start, end))
    if until - since > MOST_MINUTES:
        raise ValueError(f"expected at most {MOST_MINUTES} minutes, found {until - since}")
    if until <= since:
        return []
    minutes = np.arange(since, until)
    from_ns, to_ns = since * MINUTE_NS, until * MINUTE_NS
    span = {
        "id": number, "since": _instant(from_ns), "until": _instant(to_ns), "from_ns": from_ns, "to_ns": to_ns,
    }  # fmt: skip
    made = np.array([row[0] for row in conn.execute(_MADE, span)], np.int64)
    gaps: Sequence[tuple[int, int]] = conn.execute(_GAPS, span).fetchall()
    # All of them: the newest one is still running.
    watches: Sequence[tuple[int, int]] = conn.execute("SELECT since_ns, until_ns FROM watches").fetchall()
    kinds = classify(minutes, made, gaps, watches, hours.sessions(from_ns, to_ns))
    starts = boundaries(kinds)
    edges = np.append(starts, len(minutes)) * MINUTE_NS + from_ns
    return [
        Run(_instant(int(low)), _instant(int(high)), KINDS[kinds[row]])
        for low, high, row in zip(edges[:-1], edges[1:], starts, strict=True)
    ]
