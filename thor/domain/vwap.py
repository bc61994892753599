"""Volume-weighted average price: minutes folded from quotes, windows, bands (domain.md §6).

Everything is kept as exact sums; only ``ratio`` and ``Sums`` round, for display.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from math import isqrt
from typing import Final

import numpy as np

from thor.domain.minutes import (
    MINUTE_NS,
    Exact,
    Specs,
    arrange,
    bar_volume,
    ends,
    exact_power,
    exact_volume,
    movers,
)
from thor.domain.quotes import Ints, Quotes

#: The columns of quotes that a fold looks at.
COLUMNS: Final = frozenset({"last", "traded", "gap_from"})
PLACES: Final = 10
_WIDE: Final = Context(prec=400)
#: Turns Σ price × volume in 10⁻¹⁸ over Σ volume in 10⁻⁹ into a price.
_NANO: Final = 10**9


@dataclass(frozen=True, slots=True)
class Minutes:
    """Partial VWAP minutes by (instrument, minute), sorted: last price in nano with its time in ns, exact sums."""

    instrument: Ints
    minute: Ints
    trade_date: Ints
    last: Ints
    last_ns: Ints
    volume: Exact
    notional: Exact
    squares: Exact

    def __len__(self) -> int:
        return len(self.minute)


def fold(quotes: Quotes, specs: Specs) -> Minutes:
    """Partial minutes of quotes in order of arrival, numbered as ``specs`` is."""
    line = movers(quotes, arrange(quotes))
    starts = line.starts()
    if not len(starts):
        return Minutes(*([np.empty(0, np.int64)] * 8))
    last = ends(starts, len(line.ts))
    price = quotes.column("last")[line.order]
    volume = bar_volume(quotes, line.order)
    instrument, minute = line.instrument[starts].astype(np.int64), line.minute[starts]
    tick, step = specs.tick[instrument], specs.step[instrument].astype(object)
    total = exact_volume(volume, starts)
    largest = np.maximum.reduceat(np.abs(price), starts)
    return Minutes(
        instrument,
        minute,
        specs.trade_dates(instrument, minute * MINUTE_NS),
        price[last],
        line.ts[last],
        total * step,
        exact_power(price, volume, starts, total, largest, tick, 1) * step,
        exact_power(price, volume, starts, total, largest, tick, 2) * step,
    )


def ratio(numerator: int, denominator: int, places: int = PLACES) -> Decimal | None:
    """The quotient rounded half even to ``places``, without trailing zeros; None over zero."""
    if not denominator:
        return None
    whole, rest = divmod(numerator * 10**places, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and whole & 1):
        whole += 1
    return plain(Decimal(whole).scaleb(-places, _WIDE))


def plain(value: Decimal) -> Decimal:
    """The same number without trailing zeros and without an exponent."""
    short = value.normalize(_WIDE)
    return short if int(short.as_tuple().exponent) <= 0 else short.quantize(Decimal(1), context=_WIDE)


@dataclass(frozen=True, slots=True)
class Sums:
    """Exact sums over some minutes: Σ volume, Σ price × volume, Σ price² × volume."""

    volume: Decimal = Decimal(0)
    notional: Decimal = Decimal(0)
    squares: Decimal = Decimal(0)

    @property
    def vwap(self) -> Decimal | None:
        """Rounded for display to ten places, half even; None where no volume traded."""
        (price, per), (size, parts) = self.notional.as_integer_ratio(), self.volume.as_integer_ratio()
        return ratio(price * parts, per * size)

    @property
    def sigma(self) -> Decimal | None:
        """The volume-weighted standard deviation of price around the VWAP, rounded like it."""
        root = self._root(PLACES)
        return None if root is None else plain(root)

    def band(self, deviations: int) -> Decimal | None:
        """VWAP plus so many σ (negative: below it), rounded once; None where no volume traded."""
        root = self._root(3 * PLACES)
        if root is None:
            return None
        exact = Fraction(self.notional) / Fraction(self.volume) + deviations * Fraction(root)
        return ratio(exact.numerator, exact.denominator)

    def _root(self, places: int) -> Decimal | None:
        if not self.volume:
            return None
        volume = Fraction(self.volume)
        # Exactly what the squares say: the difference of two large numbers must not lose its digits.
        variance = Fraction(self.squares) / volume - (Fraction(self.notional) / volume) ** 2
        scaled = variance * 100**places
        # √(a/b) = √(ab)/b, rounded by one guard digit's worth: round(2√x) / 2 up.
        root = (isqrt(4 * (scaled.numerator // scaled.denominator)) + 1) // 2
        return Decimal(root).scaleb(-places, _WIDE)


class Rolling:
    """Running sums of the last minutes of every instrument, for several windows at once.

    A window of N minutes is (m − N, m], with m the minute of the watermark: the running minute is part of it.
    Work is per minute that came or went, never per window × symbol × minute.
    """

    def __init__(self, windows: Iterable[int]) -> None:
        self.windows = tuple(windows)
        self._longest = max(self.windows)
        self._minutes: dict[int, dict[int, list[int]]] = {}  # minute → instrument → [volume, notional]
        self._sums: dict[int, dict[int, list[int]]] = {window: {} for window in self.windows}
        self._now: int | None = None

    def add(self, instrument: int, minute: int, volume: int, notional: int) -> None:
        """More volume (10⁻⁹) and notional (10⁻¹⁸) in a minute."""
        if self._now is not None and minute <= self._now - self._longest:
            return
        _grow(self._minutes.setdefault(minute, {}), instrument, volume, notional)
        if self._now is not None and minute <= self._now:
            for window in self.windows:
                if minute > self._now - window:
                    _grow(self._sums[window], instrument, volume, notional)

    def add_all(self, minutes: Minutes) -> None:
        """Every row of a fold."""
        columns = (minutes.instrument, minutes.minute, minutes.volume, minutes.notional)
        for row in zip(*(column.tolist() for column in columns), strict=True):
            self.add(*row)

    def advance(self, watermark: int) -> None:
        """The watermark (ns) has come: minutes up to it enter every window, those behind leave. Never goes back."""
        now = watermark // MINUTE_NS
        before = self._now
        if before is not None and now <= before:
            return
        self._now = now
        for minute in sorted(self._minutes):
            for window in self.windows:
                was_in = before is not None and before - window < minute <= before
                is_in = now - window < minute <= now
                if was_in != is_in:
                    sign = 1 if is_in else -1
                    for instrument, (volume, notional) in self._minutes[minute].items():
                        _grow(self._sums[window], instrument, sign * volume, sign * notional)
            if minute <= now - self._longest:
                del self._minutes[minute]

    def sums(self, window: int) -> dict[int, tuple[int, int]]:
        """Instrument → (volume in 10⁻⁹, notional in 10⁻¹⁸) of those that traded inside the window."""
        return {number: (volume, notional) for number, (volume, notional) in self._sums[window].items() if volume}


def _grow(sums: dict[int, list[int]], instrument: int, volume: int, notional: int) -> None:
    held = sums.get(instrument)
    if held is None:
        sums[instrument] = [volume, notional]
    else:
        held[0] += volume
        held[1] += notional


def price_of(volume: int, notional: int) -> Decimal | None:
    """The VWAP of sums in units of 10⁻⁹ and 10⁻¹⁸, rounded for display; None where no volume traded."""
    return ratio(notional, volume * _NANO)
