"""Bars read from Postgres: pages of any interval, and why minutes have none (domain.md §5)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import psycopg

from thor.domain.bars import KINDS, classify
from thor.domain.hours import Hours
from thor.domain.minutes import MINUTE_NS, boundaries
from thor.stores import instruments

Interval = Literal["1m", "5m", "15m", "1h", "1d"]
#: Lengths in minutes of the intervals that begin on a multiple of themselves since 1970 UTC.
MINUTES: Final = {"1m": 1, "5m": 5, "15m": 15, "1h": 60}
#: The most minutes that ``why`` explains at once.
MOST_MINUTES: Final = 366 * 1440
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_ZERO: Final = date(1970, 1, 1)


class Bar(NamedTuple):
    """One bar of any interval that covers [``ts``, ``end``); numbers are exact decimal strings, as short as they go.

    ``vwap`` has ten decimals, rounded half even, None where no volume traded; ``spread`` is None where the book is
    one-sided or crossed. ``gap``: a feed was down in a part of it, so there may have been more.
    """

    ts: datetime
    end: datetime
    gap: bool
    trade_date: date
    open: str
    high: str
    low: str
    close: str
    volume: str
    notional: str
    vwap: str | None
    updates: int
    revision: int
    revised_at: datetime | None
    basis: str
    bid: str | None
    ask: str | None
    spread: str | None


_ONE_MINUTE: Final = """
WITH page AS (
    SELECT b.minute AS starts, b.trade_date, b.open, b.high, b.low, b.close, b.volume, b.notional, b.updates,
        b.revision, b.revised_at, b.basis, k.bid, k.ask
    FROM bars b
    LEFT JOIN books k USING (instrument_id, minute)
    WHERE b.instrument_id = %(id)s AND b.minute >= %(since)s AND b.minute < %(until)s
    ORDER BY b.minute
    LIMIT %(limit)s
)
"""

# So many minutes hold as many bins, all of them whole: what lies behind them is not looked at.
_BINS: Final = """
WITH minutes AS (
    SELECT b.*, k.bid, k.ask
    FROM bars b
    LEFT JOIN books k USING (instrument_id, minute)
    WHERE b.instrument_id = %(id)s AND b.minute >= %(since)s AND b.minute < %(until)s
    ORDER BY b.minute
    LIMIT %(within)s
), page AS (
    SELECT date_bin(%(width)s, minute, 'epoch') AS starts, min(trade_date) AS trade_date,
        (array_agg(open ORDER BY minute))[1] AS open, max(high) AS high, min(low) AS low,
        (array_agg(close ORDER BY minute DESC))[1] AS close, sum(volume) AS volume, sum(notional) AS notional,
        sum(updates)::bigint AS updates, sum(revision)::bigint AS revision, max(revised_at) AS revised_at,
        CASE WHEN min(basis) = max(basis) THEN min(basis) ELSE 'mixed' END AS basis,
        (array_agg(bid ORDER BY minute DESC) FILTER (WHERE bid IS NOT NULL))[1] AS bid,
        (array_agg(ask ORDER BY minute DESC) FILTER (WHERE ask IS NOT NULL))[1] AS ask
    FROM minutes
    GROUP BY starts
    ORDER BY starts
    LIMIT %(limit)s
)
"""

_DAYS: Final = """
WITH page AS (
    SELECT NULL::timestamptz AS starts, d.trade_date, d.open, d.high, d.low, d.close, d.volume, d.notional, d.updates,
        d.revision, d.revised_at, d.basis, k.bid, k.ask
    FROM days d
    LEFT JOIN LATERAL (
        SELECT max(b.minute) AS minute FROM bars b
        WHERE b.instrument_id = d.instrument_id AND b.trade_date = d.trade_date
    ) l ON true
    LEFT JOIN books k ON k.instrument_id = d.instrument_id AND k.minute = l.minute
    WHERE d.instrument_id = %(id)s AND d.open IS NOT NULL
        AND d.trade_date >= %(since)s AND d.trade_date < %(until)s
    ORDER BY d.trade_date
    LIMIT %(limit)s
)
"""

# Text is what readers are shown; made here, a page of 1,380 bars costs a fifth of what Decimals in Python do.
# VWAP to ten decimals: a quotient cut off, and a remainder that decides; numeric's own round() is not half even.
_SHOWN: Final = """
SELECT starts, trade_date, trim_scale(open)::text, trim_scale(high)::text, trim_scale(low)::text,
    trim_scale(close)::text, trim_scale(volume)::text, trim_scale(notional)::text,
    trim_scale(1e-10 * (cut + CASE
        WHEN 2 * abs(rest) > volume OR (2 * abs(rest) = volume AND mod(cut, 2) <> 0) THEN sign(notional) ELSE 0
    END))::text,
    updates, revision, revised_at, basis, trim_scale(bid)::text, trim_scale(ask)::text,
    CASE WHEN ask > bid THEN trim_scale(ask - bid)::text END
FROM page
CROSS JOIN LATERAL (SELECT div(notional * 1e10, nullif(volume, 0)) AS cut) q
CROSS JOIN LATERAL (SELECT notional * 1e10 - cut * volume AS rest) r
ORDER BY starts, trade_date
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
    if start >= end:
        return []
    if interval == "1d":
        days = {"id": number, "since": _first_day(hours, start), "until": _first_day(hours, end), "limit": limit}
        rows = conn.execute(_DAYS + _SHOWN, days).fetchall()
        starts = [_begins(hours, row[1]) for row in rows]
        ends = [_begins(hours, row[1] + timedelta(days=1)) for row in rows]
    else:
        minutes = MINUTES[interval]
        width = timedelta(minutes=minutes)
        span = {"id": number, "since": _ceil(start, width), "until": _ceil(end, width), "limit": limit}
        wide = {"width": width, "within": limit * minutes}
        rows = conn.execute((_ONE_MINUTE if minutes == 1 else _BINS) + _SHOWN, span | wide).fetchall()
        starts = [row[0] for row in rows]
        ends = [at + width for at in starts]
    gaps = _in_gaps(conn, number, starts, ends)
    return [Bar._make((at, until, gap, *row[1:])) for at, until, gap, row in zip(starts, ends, gaps, rows, strict=True)]


def _in_gaps(conn: psycopg.Connection[Any], number: int, starts: list[datetime], ends: list[datetime]) -> list[bool]:
    """Of each of the spans [start, end), which do not overlap and go up: whether a gap meets it."""
    found = [False] * len(starts)
    if starts:
        within = {"id": number, "from_ns": ns_of(starts[0]), "to_ns": ns_of(ends[-1])}
        for since, until in conn.execute(_GAPS, within):
            met = range(bisect_right(ends, _instant(since)), bisect_left(starts, _instant(until + 999)))
            for row in met:
                found[row] = True
    return found


def latest(conn: psycopg.Connection[Any], symbol: str) -> Bar | None:
    """The newest one-minute bar. Raises LookupError for a symbol that is not registered."""
    number, _ = _instrument(conn, symbol)
    row = conn.execute("SELECT max(minute) FROM bars WHERE instrument_id = %s", [number]).fetchone()
    if row is None or row[0] is None:
        return None
    return page(conn, symbol, "1m", row[0], row[0] + timedelta(minutes=1), 1)[0]


def _begins(hours: Hours, trade_date: date) -> datetime:
    return _instant(hours.begins((trade_date - _DAY_ZERO).days))


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
