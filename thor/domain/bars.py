"""One-minute bars, books, gaps and day statistics: quotes folded into partial rows (domain.md §4, §5, §7).

A fold is pure and knows nothing of what came before: it gives the rows that these quotes alone would make.
Tables merge partial rows (stores/bars.py), so any cut of the log into folds gives the same tables.
Exact sums: volume in 10⁻⁹, notional in 10⁻¹⁸.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from thor.domain.minutes import (
    MINUTE_NS,
    Exact,
    Rows,
    Sorted,
    Specs,
    arrange,
    bar_volume,
    boundaries,
    ends,
    exact_power,
    exact_volume,
    movers,
    newest,
    reduce,
)
from thor.domain.prices import NA
from thor.domain.quotes import LATE, SNAPSHOT, STACK_DOWN, Ints, Quotes

#: The columns of quotes that a fold looks at.
COLUMNS: Final = frozenset({"last", "traded", "bid", "ask", "volume", "close", "mark", "gap_from"})
#: Names of the numbers in ``Bars.basis``; partial rows that differ merge to "mixed".
BASIS: Final = ("trade", "snapshot", "mixed")
_LAST: Final = 2**63 - 1

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Bars:
    """Partial bars by (instrument, minute), sorted. Prices nano, times ns, ``minute`` minutes and ``trade_date`` days
    since 1970; ``revised_at`` NA where no late quote; ``basis`` numbers BASIS."""

    instrument: Ints
    minute: Ints
    trade_date: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    open_ns: Ints
    close_ns: Ints
    volume: Exact
    notional: Exact
    updates: Ints
    revision: Ints
    revised_at: Ints
    basis: Ints

    def __len__(self) -> int:
        return len(self.minute)


@dataclass(frozen=True, slots=True)
class Books:
    """The last bid and ask by (instrument, minute), sorted; NA on the side that no quote named."""

    instrument: Ints
    minute: Ints
    bid: Ints
    bid_ns: Ints
    ask: Ints
    ask_ns: Ints


@dataclass(frozen=True, slots=True)
class Gaps:
    """Silences of a feed inside trading hours: [starts, ends) in ns and the volume that belongs to no minute."""

    instrument: Ints
    starts: Ints
    ends: Ints
    stack_down: Ints
    volume: Exact
    trade_date: Ints


@dataclass(frozen=True, slots=True)
class Days:
    """Partial day statistics by (instrument, trade_date), sorted; NA (None in exact columns) where nothing is known.

    ``baseline`` is the feed's cumulative volume before the first counted quote, ``feed_volume`` its newest value.
    """

    instrument: Ints
    trade_date: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    open_ns: Ints
    close_ns: Ints
    volume: Exact
    notional: Exact
    gap_volume: Exact
    updates: Ints
    revision: Ints
    revised_at: Ints
    basis: Ints
    previous_close: Ints
    previous_close_ns: Ints
    baseline: Exact
    feed_volume: Exact
    feed_ns: Ints


@dataclass(frozen=True, slots=True)
class Folded:
    """What some quotes make of the four tables."""

    bars: Bars
    books: Books
    gaps: Gaps
    days: Days


def fold(quotes: Quotes, specs: Specs) -> Folded:
    """Partial rows of quotes in order of arrival, numbered as ``specs`` is."""
    line = arrange(quotes)
    bars = _bars(quotes, line, specs)
    gaps = _gaps(quotes, specs)
    return Folded(bars, _books(quotes, line), gaps, _days(quotes, line, bars, gaps, specs))


def _bars(quotes: Quotes, line: Sorted, specs: Specs) -> Bars:
    line = movers(quotes, line)
    starts = line.starts()
    last = ends(starts, len(line.ts))
    flags = quotes.flags[line.order]
    price = quotes.column("last")[line.order]
    volume = bar_volume(quotes, line.order)
    instrument, minute = line.instrument[starts].astype(np.int64), line.minute[starts]
    if not len(starts):
        none = np.empty(0, np.int64)
        return Bars(*([none] * 15))
    tick, step = specs.tick[instrument], specs.step[instrument].astype(object)
    high, low = np.maximum.reduceat(price, starts), np.minimum.reduceat(price, starts)
    total = exact_volume(volume, starts)
    largest = np.maximum(np.abs(high), np.abs(low))
    snapshot = (flags & SNAPSHOT != 0).astype(np.int64)
    some, every = np.maximum.reduceat(snapshot, starts), np.minimum.reduceat(snapshot, starts)
    revision, revised_at = _revisions(quotes, line, flags, starts)
    return Bars(
        instrument,
        minute,
        specs.trade_dates(instrument, minute * MINUTE_NS),
        price[starts],
        high,
        low,
        price[last],
        line.ts[starts],
        line.ts[last],
        total * step,
        exact_power(price, volume, starts, total, largest, tick, 1) * step,
        last - starts + 1,
        revision,
        revised_at,
        np.where(some == every, some, 2),
    )


def _revisions(quotes: Quotes, line: Sorted, flags: NDArray[np.uint8], starts: Rows) -> tuple[Ints, Ints]:
    late = flags & LATE != 0
    if not late.any():
        return np.zeros(len(starts), np.int64), np.full(len(starts), NA, np.int64)
    mark = np.where(late, quotes.column("mark")[line.order], NA)
    return np.add.reduceat(late.astype(np.int64), starts), np.maximum.reduceat(mark, starts)


def _books(quotes: Quotes, line: Sorted) -> Books:
    none = np.empty(0, np.int64)
    if not {"bid", "ask"} & quotes.columns.keys():
        return Books(*([none] * 6))
    bid, ask = quotes.column("bid")[line.order], quotes.column("ask")[line.order]
    known = (bid != NA) | (ask != NA)
    line = line.only(known)
    starts = line.starts()
    if not len(starts):
        return Books(*([none] * 6))
    return Books(
        line.instrument[starts].astype(np.int64),
        line.minute[starts],
        *newest(bid[known], line.ts, starts),
        *newest(ask[known], line.ts, starts),
    )


def _gaps(quotes: Quotes, specs: Specs) -> Gaps:
    none = np.empty(0, np.int64)
    gap_from = quotes.columns.get("gap_from")
    rows = np.flatnonzero(gap_from != NA) if gap_from is not None else none
    if gap_from is None or not len(rows):
        return Gaps(none, none, none, none, none.astype(object), none)
    instrument, flags, ts = quotes.instrument[rows].astype(np.int64), quotes.flags[rows], quotes.ts[rows]
    traded = quotes.column("traded")[rows]
    counts = (flags & SNAPSHOT != 0) & (traded != NA)
    order = np.lexsort((ts, gap_from[rows], instrument))
    columns = (
        instrument,
        gap_from[rows],
        ts,
        (flags & STACK_DOWN != 0).astype(np.int64),
        np.where(counts, traded, 0).astype(object) * specs.step[instrument],
        specs.trade_dates(instrument, ts),
    )
    return Gaps(*(column[order] for column in columns))


def _days(quotes: Quotes, line: Sorted, bars: Bars, gaps: Gaps, specs: Specs) -> Days:
    starts = boundaries(bars.instrument, bars.trade_date)
    feed = _feed(quotes, line, specs)
    # One number a day: trade dates fit 24 bits (until the year 47,000).
    keys = bars.instrument[starts] << 24 | bars.trade_date[starts]
    of_gaps = gaps.instrument << 24 | gaps.trade_date
    every = np.unique(np.concatenate([keys, of_gaps, feed.key])) if len(of_gaps) or len(feed.key) else keys
    at, of_feed = np.searchsorted(every, keys), np.searchsorted(every, feed.key)

    def spread(rows: Rows, values: NDArray[Any], otherwise: object = NA) -> NDArray[Any]:
        column = np.full(len(every), otherwise, values.dtype)
        column[rows] = values
        return column

    gap_volume = np.full(len(every), 0, object)
    np.add.at(gap_volume, np.searchsorted(every, of_gaps), gaps.volume)
    last = ends(starts, len(bars))
    some, most = reduce(np.minimum, bars.basis, starts), reduce(np.maximum, bars.basis, starts)
    return Days(
        every >> 24,
        every & 0xFFFFFF,
        spread(at, bars.open[starts]),
        spread(at, reduce(np.maximum, bars.high, starts)),
        spread(at, reduce(np.minimum, bars.low, starts)),
        spread(at, bars.close[last]),
        spread(at, bars.open_ns[starts]),
        spread(at, bars.close_ns[last]),
        spread(at, reduce(np.add, bars.volume, starts), 0),
        spread(at, reduce(np.add, bars.notional, starts), 0),
        gap_volume,
        spread(at, reduce(np.add, bars.updates, starts), 0),
        spread(at, reduce(np.add, bars.revision, starts), 0),
        spread(at, reduce(np.maximum, bars.revised_at, starts)),
        spread(at, np.where(some == most, some, 2)),
        *(spread(of_feed, column, None if column.dtype == object else NA) for column in feed.columns),
    )


@dataclass(frozen=True, slots=True)
class _Feed:
    key: Ints
    columns: tuple[NDArray[Any], ...]  # previous_close and its ns, baseline, feed_volume and its ns


def _feed(quotes: Quotes, line: Sorted, specs: Specs) -> _Feed:
    none = np.empty(0, np.int64)
    missing = _Feed(none, (none, none, none.astype(object), none.astype(object), none))
    if not {"close", "volume"} & quotes.columns.keys():
        return missing
    close = quotes.column("close")[line.order]
    volume = np.where(quotes.flags[line.order] & SNAPSHOT != 0, quotes.column("volume")[line.order], NA)
    known = (close != NA) | (volume != NA)
    line, close, volume = line.only(known), close[known], volume[known]
    if not len(close):
        return missing
    minutes = line.starts()
    dates = np.empty(len(close), np.int64)
    dates[:] = np.repeat(
        specs.trade_dates(line.instrument[minutes], line.minute[minutes] * MINUTE_NS),
        np.diff(minutes, append=len(close)),
    )
    starts = boundaries(line.instrument, dates)
    instrument = line.instrument[starts].astype(np.int64)
    step = specs.step[instrument].tolist()
    feed_volume, feed_ns = newest(volume, line.ts, starts)
    # Counting began with the first to arrive: what it counted itself lies above the baseline.
    first = np.minimum.reduceat(np.where(volume != NA, line.order, _LAST), starts)
    counted = first != _LAST
    rows = np.where(counted, first, 0)
    traded = quotes.column("traded")[rows]
    begun = np.where(counted, quotes.column("volume")[rows] - np.where(traded == NA, 0, traded), NA)
    return _Feed(
        instrument << 24 | dates[starts],
        (*newest(close, line.ts, starts), _scaled(begun, step), _scaled(feed_volume, step), feed_ns),
    )


def _scaled(values: Ints, step: list[int]) -> Exact:
    pairs = zip(values.tolist(), step, strict=True)
    return np.array([None if value == NA else value * unit for value, unit in pairs], object)


#: Why a minute has no bar, or that it has one; numbered as ``classify`` answers.
KINDS: Final = ("bar", "quiet", "gap", "closed", "not_watching")


def classify(
    minutes: Ints, made: Ints, gaps: Sequence[Span], watches: Sequence[Span], sessions: Sequence[Span]
) -> NDArray[np.int8]:
    """Of each of the consecutive ``minutes``: the number of its kind (domain.md §5).

    ``made`` are the minutes with a bar; the spans [start, end) in ns say when the feed was down, when the stack
    watched, when the market was open. A market that is closed the whole minute explains it before the rest does.
    """
    starts = minutes * MINUTE_NS
    stops = starts + MINUTE_NS
    newest = max((end for _, end in watches), default=0)

    def meets(spans: Sequence[Span]) -> NDArray[np.bool_]:
        found = np.zeros(len(minutes), np.bool_)
        for start, end in spans:
            found[np.searchsorted(stops, start, side="right") : np.searchsorted(starts, end)] = True
        return found

    watched = np.zeros(len(minutes), np.bool_)
    for since, until in watches:
        # Half a watched minute says nothing of the other half; the running one is only not over yet.
        last = np.searchsorted(stops, until, side="right") if until < newest else np.searchsorted(starts, until)
        watched[np.searchsorted(starts, since) : last] = True
    kinds = np.where(watched, KINDS.index("quiet"), KINDS.index("not_watching")).astype(np.int8)
    kinds[meets(gaps)] = KINDS.index("gap")
    kinds[~meets(sessions)] = KINDS.index("closed")
    kinds[np.isin(minutes, made)] = KINDS.index("bar")
    return kinds
