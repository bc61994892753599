"""What happens to a quote between a feed and the log (domain.md §3–§5): attribute its volume, mark what it does.

Pure: the ingester brings arrivals and the time, and stores what comes out. Vectorised over the batch; only symbols
whose counter did something unusual (reset, new trade date) are walked quote by quote.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from thor.domain.instruments import Instruments
from thor.domain.prices import NA, NANO
from thor.domain.quotes import FIELDS, LATE, MOVES, POLLED, REFRESH, SNAPSHOT, STACK_DOWN, Ints, Quotes
from thor.domain.validation import Refusal, Validation
from thor.domain.volume import Counter

MINUTE_NS: Final = 60 * NANO
AHEAD_NS: Final = 5 * NANO

Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]

#: The cells kept of each symbol: the latest value of every field, then these.
_TS, _DAY, _HIGH, _HIGH_TS, _PEAK, _CARRIED, _SILENT_FROM, _SILENT_OURS, _SOURCE, _POLLED_TS = range(12, 22)
CELLS: Final = 22
_AT: Final = {name: i for i, name in enumerate(FIELDS)}
_LAST: Final = _AT["last"]


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits of the intake, in ns: how late a quote may come, and how long a feed may be silent before its volume
    cannot be said to belong to one minute (domain.md §3, §4)."""

    max_lateness_ns: int = 3600 * NANO
    silence_ns: int = 60 * NANO


@dataclass(slots=True)
class Accepted:
    """What came of one arrival. ``rows`` are the positions of the accepted quotes in it, ``refused`` (position,
    reason, detail) the others, ``touched`` the instruments whose cells changed."""

    quotes: Quotes
    rows: Rows
    refused: list[Refusal]
    touched: NDArray[np.int32]
    counts: Tally[str] = field(default_factory=Tally)


class Intake:
    """The state of the ingester that decides about quotes: watermark, and cells of each symbol."""

    def __init__(self, instruments: Instruments, rules: Rules) -> None:
        self._instruments = instruments
        self._rules = rules
        self.cells = np.full((len(instruments), CELLS), NA, np.int64)
        self.cells[:, [_HIGH, _PEAK, _CARRIED, _SILENT_OURS]] = 0
        self.watermark = NA
        self.watching = NA
        #: source → newest event time, for level-one streams whose silence is the source's, not a symbol's.
        self.seen: dict[str, int] = {}
        self.validation = Validation(instruments, rules.max_lateness_ns)

    def accept(self, quotes: Quotes, now: int, *, recorded: bool, broken_since: int | None = None) -> Accepted:
        """Decide about every quote of one arrival and move the watermark.

        ``now`` is the watermark the clock allows (live), or the recording's clock (recorded, NA where it has none).
        """
        counts: Tally[str] = Tally()
        if not recorded:
            self._advance(now)
        q = _with_arrival_time(quotes, now if self.watermark == NA else max(now, self.watermark))
        self.validation.forget_unloaded(q)
        before = self._watermarks(q.ts, recorded)
        refused = self.validation.refused(q, before, None if recorded else self.watermark + AHEAD_NS)
        bad = {row for row, _, _ in refused}
        rows = np.flatnonzero(~np.isin(np.arange(len(q)), list(bad))) if bad else np.arange(len(q))
        if bad:
            q, before = q.take(rows), before[rows]
        if recorded:
            # A silent market: the recording's clock may be ahead of its last quote.
            self._advance(max(now, int(q.ts.max(initial=NA))))
        if not len(q):
            return Accepted(q, rows, refused, np.empty(0, np.int32), counts)
        if self.watching == NA:
            self.watching = int(q.ts.min()) if recorded else self.watermark
        self._mark_late(q, before)
        if broken_since is not None:
            self._silence(q.sources, broken_since, ours=True)
        self._notice_silent_sources(q)
        order, starts = _groups(q.instrument)
        self._move_trades(q)
        if (q.flags & SNAPSHOT).any():
            self._move_snapshots(q)
        self._close_silences(q, order, starts)
        touched = q.instrument[order[starts]]
        self._remember(q, order, starts)
        for name, flag in (("late", LATE), ("refresh", REFRESH)):
            counts[name] = int(np.count_nonzero(q.flags & flag))
        if "bid" in q.columns and "ask" in q.columns:
            bid, ask = q.columns["bid"], q.columns["ask"]
            counts["crossed"] = int(np.count_nonzero((bid != NA) & (ask != NA) & (bid >= ask)))
        return Accepted(q, rows, refused, touched, counts)

    def _advance(self, to: int) -> None:
        self.watermark = max(self.watermark, to)

    def _watermarks(self, ts: Ints, recorded: bool) -> Ints:
        """The watermark at which each quote is judged: of a recording, the newest event time before it."""
        if not recorded or not len(ts):
            return np.full(len(ts), self.watermark, np.int64)
        before = np.empty(len(ts), np.int64)
        before[0] = self.watermark
        before[1:] = ts[:-1]
        return np.maximum.accumulate(before)

    def _mark_late(self, q: Quotes, before: Ints) -> None:
        late = (q.ts // MINUTE_NS + 1) * MINUTE_NS <= before
        if late.any():
            q.flags[late] |= LATE
            q.columns["mark"] = np.where(late, before, NA)

    def _move_trades(self, q: Quotes) -> None:
        last = q.columns.get("last")
        if last is None:
            return
        prints = (q.flags & SNAPSHOT == 0) & (last != NA)
        if prints.any():
            q.flags[prints] |= MOVES
            q.columns["traded"] = np.where(prints, np.maximum(q.column("last_size"), 0), NA)

    def _move_snapshots(self, q: Quotes) -> None:
        """Which snapshots move a bar, what they traded, which only refresh, which end a silence of their symbol."""
        rows = np.flatnonzero(q.flags & SNAPSHOT)
        rows = rows[np.argsort(q.instrument[rows], kind="stable")]
        instrument = q.instrument[rows]
        first = np.r_[True, instrument[1:] != instrument[:-1]]
        group = np.cumsum(first) - 1
        cells = self.cells[instrument[first]]
        fresh = np.zeros(len(rows), bool)  # differs from the snapshot before in any field
        price = cells[group, _LAST]
        moved = np.zeros(len(rows), bool)
        for name in FIELDS:
            if name not in q.columns:
                continue
            here, former = _carried(q.columns[name][rows], cells[:, _AT[name]], first, group)
            differs = here != former
            fresh |= differs
            if name == "last":
                price, moved = here, moved | differs
        unseen = self._end_polled_silences(q, rows, instrument, cells, first, group)
        traded = np.zeros(len(rows), np.int64)
        if "volume" in q.columns:
            told = self._count(q, rows, price, unseen, traded)
            moved |= told
        moved &= price != NA
        q.flags[rows[moved]] |= MOVES
        q.flags[rows[~fresh & ~moved]] |= REFRESH
        q.columns["traded"] = q.column("traded").copy()
        q.columns["traded"][rows] = traded
        # A bar needs the price that the volume was traded at, which a torn snapshot may leave out.
        filled = q.column("last").copy()
        filled[rows[moved]] = price[moved]
        q.columns["last"] = filled

    def _count(self, q: Quotes, rows: Rows, price: Ints, unseen: Mask, traded: Ints) -> Mask:
        """Fill ``traded`` from the cumulative volumes; True where a snapshot's volume differs from the one before."""
        told = np.flatnonzero(q.columns["volume"][rows] != NA)
        differs = np.zeros(len(rows), bool)
        if not len(told):
            return differs
        value, ts, instrument = q.columns["volume"][rows][told], q.ts[rows][told], q.instrument[rows][told]
        day = self._days(instrument, ts)
        first = np.r_[True, instrument[1:] != instrument[:-1]]
        starts = np.flatnonzero(first)
        group = np.cumsum(first) - 1
        cells = self.cells[instrument[first]]
        former = np.r_[0, value[:-1]]
        former[starts] = np.where(cells[:, _AT["volume"]] == NA, value[starts] - 1, cells[:, _AT["volume"]])
        differs[told] = value != former
        gain = np.r_[0, np.diff(value)]
        gain[starts] = value[starts] - cells[:, _HIGH]
        plain = (gain >= 0) & (day == cells[group, _DAY]) & (price[told] != NA)
        plain &= (cells[group, _CARRIED] == 0) & (cells[group, _PEAK] <= cells[group, _HIGH])
        simple = np.logical_and.reduceat(plain, starts)
        traded[told] = np.where(simple[group], gain, 0)
        ends = np.r_[starts[1:], len(told)] - 1
        done = instrument[ends[simple]]
        self.cells[done, _HIGH] = value[ends[simple]]
        self.cells[done, _HIGH_TS] = ts[ends[simple]]
        for g in np.flatnonzero(~simple):
            self._walk(range(starts[g], ends[g] + 1), told, value, ts, day, instrument, price, unseen, traded)
        return differs

    def _walk(
        self,
        span: range,
        told: Rows,
        value: Ints,
        ts: Ints,
        day: Ints,
        instrument: NDArray[np.int32],
        price: Ints,
        unseen: Mask,
        traded: Ints,
    ) -> None:
        """One symbol quote by quote: its counter was reset, or its trade date changed."""
        number = int(instrument[span[0]])
        cells, hours = self.cells[number], self._instruments[number].hours
        counter = Counter(
            int(cells[_DAY]), int(cells[_HIGH]), int(cells[_HIGH_TS]), int(cells[_PEAK]), bool(cells[_CARRIED])
        )
        for i in span:
            if price[told[i]] == NA and counter.day != NA:
                continue  # no price to put the volume to yet: the next snapshot brings both
            watched = self.watching < hours.begins(int(day[i])) if counter.day != day[i] else True
            traded[told[i]] = counter.traded(
                int(value[i]), int(ts[i]), int(day[i]), watched=watched, unseen=bool(unseen[told[i]])
            )
            if price[told[i]] == NA:
                traded[told[i]] = 0
        cells[_DAY], cells[_HIGH], cells[_HIGH_TS] = counter.day, counter.high, counter.high_ts
        cells[_PEAK], cells[_CARRIED] = counter.peak, counter.carried

    def _days(self, instrument: NDArray[np.int32], ts: Ints) -> Ints:
        days = np.empty(len(ts), np.int64)
        by_hours: dict[str, list[int]] = {}
        for number in np.unique(instrument):
            by_hours.setdefault(self._instruments[int(number)].hours.name, []).append(int(number))
        for numbers in by_hours.values():
            hours = self._instruments[numbers[0]].hours
            if len(by_hours) == 1:
                return hours.trade_dates(ts)
            mine = np.isin(instrument, numbers)
            days[mine] = hours.trade_dates(ts[mine])
        return days

    def _end_polled_silences(
        self, q: Quotes, rows: Rows, instrument: NDArray[np.int32], cells: Ints, first: Mask, group: Rows
    ) -> Mask:
        """A polled symbol that was not reported for too long inside its hours ends a gap (domain.md §4).

        True where a symbol was not seen for so long, inside its hours or not.
        """
        ts = q.ts[rows]
        former = np.r_[0, ts[:-1]]
        former[first] = np.where(cells[:, _POLLED_TS] == NA, ts[first], cells[:, _POLLED_TS])
        polled = q.flags[rows] & POLLED != 0
        unseen: Mask = ts - former > self._rules.silence_ns
        unseen[first] |= cells[:, _SILENT_FROM] != NA
        silent = polled & (ts - former > self._rules.silence_ns)
        for row in np.flatnonzero(silent):
            silent[row] = self._was_open(int(instrument[row]), int(former[row]), int(ts[row]))
        if silent.any():
            gap_from = q.column("gap_from").copy()
            gap_from[rows[silent]] = former[silent]
            q.columns["gap_from"] = gap_from
        ends = np.r_[np.flatnonzero(first)[1:], len(rows)] - 1
        ended = polled[ends]
        self.cells[instrument[ends[ended]], _POLLED_TS] = np.maximum(
            self.cells[instrument[ends[ended]], _POLLED_TS], ts[ends[ended]]
        )
        return unseen

    def _was_open(self, number: int, start: int, end: int) -> bool:
        return self._instruments[number].hours.trading_ns(start, end) > self._rules.silence_ns

    def _notice_silent_sources(self, q: Quotes) -> None:
        """A level-one stream tells only changes, so a quiet symbol is no silence; a quiet stream is."""
        for i, name in enumerate(q.sources):
            mine = (q.source == i) & (q.flags & SNAPSHOT != 0) & (q.flags & POLLED == 0)
            if not mine.any():
                continue
            start, end = int(q.ts[mine].min()), int(q.ts[mine].max())
            former = self.seen.get(name, NA)
            if former != NA and start - former > self._rules.silence_ns:
                self._silence((name,), former, ours=False)
            self.seen[name] = max(former, end)

    def _silence(self, sources: tuple[str, ...], since: int, *, ours: bool) -> None:
        theirs = np.isin(self.cells[:, _SOURCE], [crc32(name.encode()) for name in sources])
        theirs &= self.cells[:, _SILENT_FROM] == NA
        self.cells[theirs, _SILENT_FROM] = since
        self.cells[theirs, _SILENT_OURS] = ours

    def _close_silences(self, q: Quotes, order: Rows, starts: Rows) -> None:
        """The first quote of a symbol after a silence of its source carries the gap."""
        firsts = order[starts]
        numbers = q.instrument[firsts]
        since = self.cells[numbers, _SILENT_FROM]
        for row, number, start in zip(firsts[since != NA], numbers[since != NA], since[since != NA], strict=True):
            if q.ts[row] > start and self._was_open(int(number), int(start), int(q.ts[row])):
                q.columns.setdefault("gap_from", np.full(len(q), NA, np.int64))[row] = start
                if self.cells[number, _SILENT_OURS]:
                    q.flags[row] |= STACK_DOWN
        self.cells[numbers, _SILENT_FROM] = NA

    def _remember(self, q: Quotes, order: Rows, starts: Rows) -> None:
        """The latest value of each field by event time, and the newest event time, of each symbol."""
        if np.any(np.diff(q.ts) < 0):
            order = np.lexsort((q.ts, q.instrument))
        numbers = q.instrument[order[starts]]
        newest = self.cells[q.instrument[order], _TS]
        current = q.ts[order] >= newest
        rank = np.arange(len(q))
        for name in FIELDS:
            column = q.columns.get(name)
            if column is None:
                continue
            sorted_column = column[order]
            at = np.maximum.reduceat(np.where((sorted_column != NA) & current, rank, -1), starts)
            found = at >= 0
            self.cells[numbers[found], _AT[name]] = sorted_column[at[found]]
        ends = np.r_[starts[1:], len(q)] - 1
        self.cells[numbers, _TS] = np.maximum(self.cells[numbers, _TS], q.ts[order[ends]])
        sources = np.array([crc32(name.encode()) for name in q.sources] or [0], np.int64)
        self.cells[numbers, _SOURCE] = sources[q.source[order[ends]]]

    def latest(self, number: int) -> Iterator[tuple[str, int]]:
        """Every known field of an instrument with its value, and its event time as ``ts``."""
        row = self.cells[number].tolist()
        yield "ts", row[_TS]
        for name, value in zip(FIELDS, row, strict=False):
            if value != NA:
                yield name, value

    def restore(self, states: Mapping[str, bytes]) -> None:
        """Take back the cells stored with the last entry; a symbol that is registered no more is left out."""
        for symbol, state in states.items():
            number = self._instruments.number(symbol)
            if number is not None and len(state) == 8 * CELLS:
                self.cells[number] = np.frombuffer(state, "<i8")


def _with_arrival_time(quotes: Quotes, now: int) -> Quotes:
    """A copy whose arrays may be written to, arrival time where the feed gave none."""
    ts = np.where(quotes.ts == NA, now, quotes.ts)
    columns = dict(quotes.columns)
    return Quotes(quotes.instrument, ts, quotes.flags.copy(), quotes.source, quotes.sources, columns)


def _groups(instrument: NDArray[np.int32]) -> tuple[Rows, Rows]:
    """Rows ordered by instrument, arrival kept, and where each instrument starts."""
    order = np.argsort(instrument.astype(np.uint16), kind="stable")
    ordered = instrument[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _carried(column: Ints, state: Ints, first: Mask, group: Rows) -> tuple[Ints, Ints]:
    """A column with missing cells filled by the value before, and that value before, per group of rows."""
    rank = np.arange(len(column))
    known = np.where(column != NA, rank, -1)
    start = np.maximum.accumulate(np.where(first, rank, 0))
    at = np.maximum.accumulate(known)
    here = np.where(at >= start, column[at], state[group])
    former = np.r_[NA, here[:-1]]
    former[first] = state
    return here, former
