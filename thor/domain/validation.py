"""Which quotes are refused, and why (domain.md §3)."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from thor.domain.instruments import Instruments
from thor.domain.prices import NA, NANO, text_of
from thor.domain.quotes import PRICES, SIZES, Ints, Quotes

#: A change may be zero or negative; every other price is a level.
_LEVELS: Final = PRICES[:-1]
#: How many sequence numbers of a source and symbol are remembered: one of them again is a duplicate.
REMEMBERED: Final = 256

#: (position, reason, detail)
Refusal = tuple[int, str, str]


class Validation:
    """The rules that look at one quote, with the sequence numbers of the sources that count theirs."""

    def __init__(self, instruments: Instruments, max_lateness_ns: int) -> None:
        self._symbols = instruments.symbols
        self._positive = np.array([not i.negative for i in instruments], bool)
        self._ticks = np.array([i.tick_nano for i in instruments], np.int64)
        self._max_lateness_ns = max_lateness_ns
        #: ``SOURCE:SYMBOL`` → the newest sequence numbers, oldest first.
        self.sequences: dict[str, deque[int]] = {}

    def forget_unloaded(self, q: Quotes) -> None:
        """A zero standing for "not loaded yet" beside live prices becomes "not known"."""
        zeros = [name for name in _LEVELS if name in q.columns and (q.columns[name] == 0).any()]
        if not zeros:
            return
        live = np.zeros(len(q), np.int64)
        for name in _LEVELS:
            if name in q.columns:
                column = q.columns[name]
                live = np.maximum(live, np.where(column == NA, 0, np.abs(column)))
        # Where an instrument can trade at zero, only a zero far from the other prices is an empty cell.
        near = np.where(self._positive[q.instrument], 0, 1000 * self._ticks[q.instrument])
        for name in zeros:
            column = q.columns[name]
            q.columns[name] = np.where((column == 0) & (live > near), NA, column)

    def refused(self, q: Quotes, before: Ints, newest: int | None) -> list[Refusal]:
        """Every quote that is not used, by position, with the first rule it breaks.

        ``before`` is the watermark (ns) at which each is judged, ``newest`` the latest event time allowed (live).
        """
        found: dict[int, tuple[str, str]] = {}
        # Looked at closely only where something may be wrong: most batches are small, and each array costs.
        for name in _LEVELS:
            column = q.columns.get(name)
            if column is not None and (low := column <= 0).any():
                for row in np.flatnonzero(low & (column != NA) & self._positive[q.instrument]):
                    value = text_of(int(column[row]))
                    found.setdefault(int(row), ("bad_price", f"{name}: expected a price above 0, found {value}"))
        for name in SIZES:
            column = q.columns.get(name)
            if column is not None and (low := column < 0).any():
                for row in np.flatnonzero(low & (column != NA)):
                    found.setdefault(int(row), ("bad_size", f"{name}: expected 0 or more, found {column[row]}"))
        limit = self._max_lateness_ns
        if len(q) and int(q.ts.min()) < int(before.max()) - limit:
            known = before != NA
            for row in np.flatnonzero(known & (q.ts < np.where(known, before, 0) - limit)):
                behind = f"ts is {(before[row] - q.ts[row]) / NANO:.3f} s behind the watermark"
                found.setdefault(int(row), ("too_late", f"{behind}, allowed are {limit / NANO:g} s"))
        if newest is not None and len(q) and int(q.ts.max()) > newest:
            for row in np.flatnonzero(q.ts > newest):
                ahead = f"ts is {(q.ts[row] - newest) / NANO:.3f} s too far ahead"
                found.setdefault(int(row), ("ts_ahead", f"{ahead}, allowed are 5 s ahead of the watermark"))
        if "seq" in q.columns:
            self._duplicates(q, found)
        return [(row, *why) for row, why in sorted(found.items())]

    def _duplicates(self, q: Quotes, found: dict[int, tuple[str, str]]) -> None:
        seq = q.columns["seq"]
        for row in np.flatnonzero(seq != NA).tolist():
            if row in found:
                continue
            name = f"{q.sources[q.source[row]]}:{self._symbols[q.instrument[row]]}"
            remembered = self.sequences.setdefault(name, deque(maxlen=REMEMBERED))
            if (number := int(seq[row])) in remembered:
                found[row] = ("duplicate", f"seq {number} of {name} came before")
            else:
                remembered.append(number)
