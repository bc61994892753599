"""A market that never was: the quotes of any second as a pure function of (seed, instruments, rate, second).

Prices follow value noise: hashed values on lattices of a few periods, interpolated and added, so that the path is
continuous and any second can be computed alone. Floats only ever choose a number of ticks; prices are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal
from zlib import crc32
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from thor.domain.hours import Hours
from thor.domain.instruments import Instruments
from thor.domain.prices import NANO
from thor.domain.quotes import POLLED, SNAPSHOT, Ints, Quotes

Style = Literal["trade", "snapshot"]
Sessions = Literal["shape", "strict"]
Floats = NDArray[np.float64]
_Hashes = NDArray[np.uint64]

SOURCE: Final = "SIMULATOR"
#: symbol → (price around which it moves, in ticks; share of all quotes). Others: 20,000 ticks and a share of 1.
_KNOWN: Final = {
    "YM": (42_000, 1.5), "ES": (23_200, 3.0), "NQ": (82_000, 2.5), "RTY": (22_000, 1.2), "CL": (7_200, 1.5),
    "SI": (6_100, 0.8), "HG": (8_600, 0.6), "GC": (26_500, 1.5), "VX": (340, 0.1), "DX": (20_800, 0.1),
    "ZB": (3_740, 1.0),
}  # fmt: skip
_QUIET: Final = 0.3  # quotes a second, at most, of a symbol with a share below a fifth
#: Periods (s) and heights (fraction of the price) of the noise.
_OCTAVES: Final = ((86_400 * 3, 0.012), (14_400, 0.004), (900, 0.0012), (60, 0.0003), (7, 0.0001))
#: When the day is busy: zone, hour, minute, height, width in minutes.
_OPENS: Final = (
    ("Asia/Tokyo", 9, 0, 0.8, 60), ("Europe/London", 8, 0, 1.5, 60), ("America/Chicago", 8, 30, 4.0, 60),
    ("America/Chicago", 14, 45, 2.0, 30),
)  # fmt: skip
_BURST_S: Final = 15  # after each open
_BURST: Final = 6.0
_U64: Final = np.uint64


def mix(*words: int | NDArray[np.int64] | _Hashes) -> _Hashes:
    """A hash of integers, elementwise (splitmix64 over the words)."""
    h = np.asarray(0x9E3779B97F4A7C15, _U64)
    with np.errstate(over="ignore"):
        for word in words:
            h = (h ^ np.asarray(word).astype(_U64)) * _U64(0xBF58476D1CE4E5B9)
            h = (h ^ (h >> _U64(30))) * _U64(0x94D049BB133111EB)
            h ^= h >> _U64(31)
    return h


def unit(h: _Hashes) -> Floats:
    """Hashes as numbers in [0, 1)."""
    return (h >> _U64(11)).astype(np.float64) * 2.0**-53


@dataclass(slots=True)
class _Day:
    """What a snapshot says of one trade date that began at ``begin`` (s): shape (symbols,), in ticks and sizes.

    The extremes are rolled forward to ``upto`` (s), the volume to the beginning of ``minute``.
    """

    trade_date: int
    begin: int
    upto: int
    minute: int
    open: Ints
    high: Ints
    low: Ints
    volume: Ints


class Market:
    """The made-up market of some instruments. ``rate`` is quotes a second over all of them, averaged over a day."""

    def __init__(
        self, instruments: Instruments, symbols: Sequence[str] | None, seed: int, rate: float, style: Style,
        sessions: Sessions,
    ) -> None:  # fmt: skip
        names = list(symbols) if symbols is not None else instruments.symbols
        numbers = [instruments.number(name) for name in names]
        if None in numbers or not numbers:
            unknown = [name for name, number in zip(names, numbers, strict=True) if number is None]
            raise ValueError(f"simulator: expected symbols of the registry, found {', '.join(unknown) or 'none'}")
        self.numbers = np.array(numbers, np.int32)
        chosen = [instruments[number] for number in numbers if number is not None]
        self.style, self._strict = style, sessions == "strict"
        self._keys = np.array([crc32(i.symbol.encode()) ^ (seed << 32) % 2**63 for i in chosen], np.int64)
        self._ticks = np.array([i.tick_nano for i in chosen], np.int64)
        known = [_KNOWN.get(i.root or i.symbol, (20_000, 1.0)) for i in chosen]
        self._base = np.array([base for base, _ in known], np.float64)
        share = np.array([share for _, share in known], np.float64)
        self._rate = rate * share / share.sum()
        quiet = share < 0.2
        self._rate[quiet] = np.minimum(self._rate[quiet], _QUIET)
        if (~quiet).any():
            self._rate[~quiet] *= (rate - self._rate[quiet].sum()) / self._rate[~quiet].sum()
        self._hold = np.where(quiet, 5, 1).astype(np.int64)  # seconds for which a polled price stands still
        self._hours = [i.hours for i in chosen]
        self._distinct = list({id(h): h for h in self._hours}.values())
        self._polls = max(1, round(rate / len(chosen)))
        self._activities: dict[int, Floats] = {}
        self._days: dict[str, _Day] = {}

    def second(self, second: int) -> Quotes:
        """The quotes of one second since 1970, in order of ts."""
        live = self._live(second)
        return self._snapshots(second, live) if self.style == "snapshot" else self._trades(second, live)

    def _live(self, second: int) -> NDArray[np.bool_]:
        if not self._strict:
            return np.ones(len(self.numbers), bool)
        is_open = {hours.name: hours.is_open(second * NANO) for hours in self._distinct}
        return np.array([is_open[hours.name] for hours in self._hours], bool)

    def activity(self, second: int) -> float:
        """How busy the market is, 1 on average over a day."""
        day = second // 86_400
        table = self._activities.get(day)
        if table is None:
            if len(self._activities) >= 8:
                self._activities.clear()
            table = self._activities[day] = _activity(day)
        return float(table[second % 86_400 // 60]) * (_BURST if _bursting(second) else 1.0)

    def ticks(self, which: NDArray[np.intp], ns: Ints) -> Ints:
        """The price path in ticks, of the chosen symbols at these instants (ns)."""
        x = np.zeros(len(ns))
        for octave, (period_s, height) in enumerate(_OCTAVES):
            cell, inside = np.divmod(ns, period_s * NANO)
            u = inside / (period_s * NANO)
            u = u * u * (3 - 2 * u)
            key = self._keys[which]
            before, after = unit(mix(key, octave, cell)), unit(mix(key, octave, cell + 1))
            x += height * (2 * (before + (after - before) * u) - 1)
        return np.rint(self._base[which] * (1 + x)).astype(np.int64)

    def _trades(self, second: int, live: NDArray[np.bool_]) -> Quotes:
        expected = np.where(live, self._rate * self.activity(second), 0)
        count = np.floor(expected + unit(mix(self._keys, 101, second))).astype(np.int64)
        which = np.repeat(np.arange(len(count)), count)
        at = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        h = mix(self._keys[which], 102, second, at)
        ns = second * NANO + (mix(h, 1) % _U64(NANO)).astype(np.int64)
        order = np.argsort(ns, kind="stable")
        which, h, ns = which[order], h[order], ns[order]
        mid = self.ticks(which, ns)
        wide = (h & _U64(15)) == 0
        buy = ((h >> _U64(4)) & _U64(1)).astype(np.int64)
        columns = self._book(which, mid, mid + 1 + wide, h)
        columns["last"] = (mid + buy * (1 + wide)) * self._ticks[which]
        columns["last_size"] = _size(h >> _U64(8), 5)
        return self._quotes(which, ns, 0, columns)

    def _book(self, which: NDArray[np.intp], bid: Ints, ask: Ints, h: _Hashes) -> dict[str, Ints]:
        ticks = self._ticks[which]
        sizes = {"bid_size": _size(h >> _U64(16), 40), "ask_size": _size(h >> _U64(32), 40)}
        return {"bid": bid * ticks, "ask": ask * ticks, **sizes}

    def _quotes(self, which: NDArray[np.intp], ns: Ints, flags: int, columns: dict[str, Ints]) -> Quotes:
        n = len(ns)
        return Quotes(self.numbers[which], ns, np.full(n, flags, np.uint8), np.zeros(n, np.uint8), (SOURCE,), columns)

    def _snapshots(self, second: int, live: NDArray[np.bool_]) -> Quotes:
        every = np.flatnonzero(live)
        which = np.tile(every, self._polls)
        poll = np.repeat(np.arange(self._polls), len(every))
        ns = second * NANO + poll * (NANO // self._polls)
        states = self._states(second)
        h = mix(self._keys[which], 103, ns // (self._hold[which] * NANO))
        last = self.ticks(np.arange(len(self.numbers)), self._held(second))
        bid = last[which] - (h & _U64(1)).astype(np.int64)
        columns = self._book(which, bid, bid + 1, h)
        columns |= {"last": last[which] * self._ticks[which], "last_size": _size(h >> _U64(8), 5)}
        for name, values in states.items():
            columns[name] = values[which] * (1 if name == "volume" else self._ticks[which])
        columns["change"] = columns["last"] - columns["close"]
        return self._quotes(which, ns, SNAPSHOT | POLLED, columns)

    def _held(self, second: int) -> Ints:
        """The instant (ns) at which each symbol's polled price was made."""
        return second // self._hold * self._hold * NANO

    def _states(self, second: int) -> dict[str, Ints]:
        """Day statistics of all symbols at a second, in ticks and sizes."""
        out = {name: np.zeros(len(self.numbers), np.int64) for name in ("volume", "open", "high", "low", "close")}
        minute = second // 60
        for hours in self._distinct:
            rows = np.array([i for i, mine in enumerate(self._hours) if mine is hours], np.intp)
            day = self._day(hours, rows, second)
            # A held price is never older than its minute, which every hold divides.
            into = self._held(second)[rows] // NANO - minute * 60
            found = {"volume": day.volume + self._minute_volume(hours, rows, minute) * into // 60}
            found |= {"open": day.open, "high": day.high, "low": day.low}
            found["close"] = self.ticks(rows, np.full(len(rows), (day.begin - 3_600) * NANO))
            for name, values in found.items():
                out[name][rows] = values
        return out

    def _day(self, hours: Hours, rows: NDArray[np.intp], second: int) -> _Day:
        trade_date = hours.trade_date(second * NANO)
        day = self._days.get(hours.name)
        if day is None or day.trade_date != trade_date or day.upto > second + 1:
            begin = hours.begins(trade_date) // NANO
            first = self.ticks(rows, self._held(begin)[rows])
            day = _Day(trade_date, begin, begin, begin // 60, first, first, first, np.zeros(len(rows), np.int64))
            self._days[hours.name] = day
        while day.upto <= second:
            end = min(day.upto + max(60, 200_000 // len(rows)), second + 1)
            marks = np.arange(day.upto, end)
            if self._strict:
                inside = np.zeros(len(marks), bool)
                for opens, closes in hours.sessions(day.upto * NANO, end * NANO):
                    inside |= (marks * NANO >= opens) & (marks * NANO < closes)
                marks = marks[inside]
            if len(marks):
                held = np.concatenate([marks // hold * hold for hold in self._hold[rows]])
                path = self.ticks(np.repeat(rows, len(marks)), held * NANO).reshape(len(rows), len(marks))
                day.high, day.low = np.maximum(day.high, path.max(axis=1)), np.minimum(day.low, path.min(axis=1))
            day.upto = end
        while day.minute < second // 60:
            day.volume = day.volume + self._minute_volume(hours, rows, day.minute)
            day.minute += 1
        return day

    def _minute_volume(self, hours: Hours, rows: NDArray[np.intp], minute: int) -> Ints:
        if self._strict and not hours.is_open(minute * 60 * NANO):
            return np.zeros(len(rows), np.int64)
        size = 180 * self.activity(minute * 60 + 30) * self._rate[rows]
        jitter = 0.5 + unit(mix(self._keys[rows], 104, minute))
        return np.asarray(np.floor(size * jitter), np.int64)


def _size(h: _Hashes, typical: int) -> Ints:
    """Sizes from 1 on, small ones often, large ones rarely."""
    u = unit(mix(h)) + 2.0**-20
    size: Ints = 1 + np.minimum(typical * (1 / np.sqrt(u) - 1), 50 * typical).astype(np.int64)
    return size


def _activity(day: int) -> Floats:
    """Activity by minute of one UTC day, 1 on average."""
    minutes = np.arange(1440, dtype=np.float64)
    table = np.full(1440, 0.4)
    noon = datetime.fromtimestamp(day * 86_400 + 43_200, UTC)
    for zone, hour, minute, height, width in _OPENS:
        offset = noon.astimezone(ZoneInfo(zone)).utcoffset()
        start = hour * 60 + minute - (offset.total_seconds() / 60 if offset else 0)
        table += height / (1 + ((minutes - start) % 1440 / width) ** 2)
    return np.asarray(table / table.mean())


def _bursting(second: int) -> bool:
    """Whether a control market opened a moment ago."""
    if second % 1_800 >= _BURST_S:  # every open is at a full or half hour
        return False
    return any(
        (local := datetime.fromtimestamp(second, ZoneInfo(zone))).hour == hour and local.minute == minute
        for zone, hour, minute, _, _ in _OPENS[:3]
    )
