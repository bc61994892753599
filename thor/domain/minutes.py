"""What every fold by minute stands on: order, groups and exact sums over columns of quotes (domain.md §5, §6).

Exact sums are Python ints in object arrays: volume in 10⁻⁹, notional in 10⁻¹⁸, squares in 10⁻²⁷.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from thor.domain.instruments import Instrument
from thor.domain.prices import NA
from thor.domain.quotes import MOVES, SNAPSHOT, Ints, Quotes

MINUTE_NS: Final = 60_000_000_000
VOLUME_EXP: Final = -9
NOTIONAL_EXP: Final = -18
SQUARES_EXP: Final = -27
_SAFE: Final = 2.0**62  # half of what int64 holds: the margin is far above the error of a float bound

Exact = NDArray[Any]  # dtype object, Python ints
Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]


class Specs:
    """What a fold needs of the instruments, by their number: tick and size step in nano, trading hours."""

    def __init__(self, instruments: Mapping[int, Instrument]) -> None:
        size = max(instruments, default=-1) + 1
        self.tick: Ints = np.ones(size, np.int64)
        self.step: Ints = np.ones(size, np.int64)
        self._hours = list({instrument.hours.name: instrument.hours for instrument in instruments.values()}.values())
        self._pattern = np.zeros(size, np.intp)
        place = {hours.name: i for i, hours in enumerate(self._hours)}
        for number, instrument in instruments.items():
            self.tick[number], self.step[number] = instrument.tick_nano, instrument.step_nano
            self._pattern[number] = place[instrument.hours.name]

    def trade_dates(self, instrument: NDArray[Any], ts: Ints) -> Ints:
        """The trade date of each (instrument, instant), in days since 1970-01-01."""
        pattern = self._pattern[instrument]
        dates = np.empty(len(ts), np.int64)
        for number, hours in enumerate(self._hours):
            rows = pattern == number
            if rows.any():
                dates[rows] = hours.trade_dates(ts[rows])
        return dates


@dataclass(frozen=True, slots=True)
class Sorted:
    """Rows of quotes by (instrument, ts), ties by arrival: ``order`` their places in arrival, and three columns."""

    order: Rows
    instrument: NDArray[Any]
    ts: Ints
    minute: Ints

    def only(self, mask: Mask) -> Sorted:
        """The rows where ``mask`` (in this order) holds."""
        if mask.all():
            return self
        return Sorted(self.order[mask], self.instrument[mask], self.ts[mask], self.minute[mask])

    def starts(self) -> Rows:
        """Where each (instrument, minute) begins."""
        return boundaries(self.instrument, self.minute)


def arrange(quotes: Quotes) -> Sorted:
    """Quotes in the order in which events decide opens and closes (domain.md §5)."""
    # A radix sort on 16 bits is several times faster than a merge sort on 32; both are stable.
    small = not len(quotes) or int(quotes.instrument.max()) < 65_536
    instrument = quotes.instrument.astype(np.uint16 if small else np.int64)
    ts = quotes.ts
    if len(ts) < 2 or bool((ts[1:] >= ts[:-1]).all()):
        order = np.argsort(instrument, kind="stable")
    else:
        order = np.argsort(ts, kind="stable")
        order = order[np.argsort(instrument[order], kind="stable")]
    ts = ts[order]
    return Sorted(order, instrument[order], ts, ts // MINUTE_NS)


def boundaries(*keys: NDArray[Any]) -> Rows:
    """The first row of each run of equal keys."""
    if not len(keys[0]):
        return np.empty(0, np.intp)
    change = np.ones(len(keys[0]), np.bool_)
    change[1:] = keys[0][1:] != keys[0][:-1]
    for key in keys[1:]:
        change[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(change)


def ends(starts: Rows, n: int) -> Rows:
    """The last row of each run."""
    last = np.empty_like(starts)
    last[:-1], last[-1:] = starts[1:] - 1, n - 1
    return last


def exact_volume(volume: Ints, starts: Rows) -> NDArray[Any]:
    """Σ volume of each group in size steps, int64 where it provably fits, else Python ints."""
    if len(volume) and float(volume.max()) * len(volume) >= _SAFE:
        return np.add.reduceat(volume.astype(object), starts)
    return np.add.reduceat(volume, starts)


def exact_power(
    price: Ints, volume: Ints, starts: Rows, total: NDArray[Any], largest: Ints, tick: Ints, power: int
) -> Exact:
    """Σ priceᵖ × volume of each group, in (nano price)ᵖ × size steps, as Python ints.

    ``total`` is Σ volume, ``largest`` the greatest |price| and ``tick`` the price step of each group. Sums run in ticks
    in int64; a group that is off its tick, or could pass 2⁶², is summed in Python ints.
    """
    lengths = np.diff(starts, append=len(price))
    ticks = price // np.repeat(tick, lengths)
    off = np.logical_or.reduceat(ticks * np.repeat(tick, lengths) != price, starts)
    slow = off | ((largest / tick) ** power * total.astype(float) >= _SAFE)
    # A slow group may wrap around here; its sum is replaced below.
    sums = np.add.reduceat(ticks * volume if power == 1 else ticks * ticks * volume, starts)
    exact = [value * unit**power for value, unit in zip(sums.tolist(), tick.tolist(), strict=True)]
    for group in np.flatnonzero(slow).tolist():
        rows = slice(starts[group], starts[group] + lengths[group])
        pairs = zip(price[rows].tolist(), volume[rows].tolist(), strict=True)
        exact[group] = sum(p**power * v for p, v in pairs)
    return np.array(exact, object)


def bar_volume(quotes: Quotes, rows: Rows) -> Ints:
    """The traded volume that belongs to the minute of each row, in size steps.

    What a snapshot feed reports after a silence belongs to the gap instead (domain.md §4).
    """
    traded = quotes.column("traded")[rows]
    volume = np.where(traded == NA, 0, traded)
    if "gap_from" in quotes.columns:
        volume[(quotes.columns["gap_from"][rows] != NA) & (quotes.flags[rows] & SNAPSHOT != 0)] = 0
    return volume


def movers(quotes: Quotes, line: Sorted) -> Sorted:
    """The rows that make or move a bar."""
    return line.only(quotes.flags[line.order] & MOVES != 0)


def newest(values: Ints, ts: Ints, starts: Rows) -> tuple[Ints, Ints]:
    """The last known value of each group and its time; NA and NA where none is known."""
    place = np.where(values != NA, np.arange(len(values)), -1)
    at = np.maximum.reduceat(place, starts)
    known = at >= 0
    return np.where(known, values[at], NA), np.where(known, ts[at], NA)


def reduce(ufunc: np.ufunc, values: NDArray[Any], starts: Rows) -> NDArray[Any]:
    # reduceat refuses no groups at all.
    return np.asarray(ufunc.reduceat(values, starts)) if len(starts) else values
