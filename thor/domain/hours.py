"""Trading hours and trade dates of futures (domain.md §1, §8), as arrays of instants.

A weekly pattern: the trade date rolls at a local time on the eve of each trading weekday, trading runs from
``opens`` to ``closes`` around it. Holidays and halts belong to the world clock, not to this pattern.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from thor.domain.quotes import Ints

DAY_NS = 86_400_000_000_000
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Hours:
    """One weekly pattern. ``roll`` and ``opens`` lie on the eve of the trade date unless ``eve`` is False.

    Weekends: the trade date of a Monday begins with the roll on Friday, so that every instant has one.
    """

    name: str
    zone: str
    roll: time
    opens: time
    closes: time
    eve: bool = True
    weekdays: frozenset[int] = frozenset(range(5))  # Monday is 0
    _cache: dict[tuple[int, int], _Table] = field(default_factory=dict, compare=False, repr=False)

    def trade_dates(self, ts: Ints) -> Ints:
        """The trade date of each instant (ns UTC), as days since 1970-01-01."""
        if not len(ts):
            return np.empty(0, np.int64)
        table = self._table(int(ts.min()), int(ts.max()))
        return table.dates[np.searchsorted(table.rolls, ts, side="right") - 1]

    def trade_date(self, ts: int) -> int:
        """The trade date of one instant."""
        return int(self.trade_dates(np.array([ts], np.int64))[0])

    def begins(self, trade_date: int) -> int:
        """When a trade date begins, ns UTC."""
        noon = trade_date * DAY_NS + DAY_NS // 2
        table = self._table(noon, noon)
        return int(table.rolls[np.searchsorted(table.dates, trade_date)])

    def sessions(self, start: int, end: int) -> list[tuple[int, int]]:
        """Trading sessions [open, close) in ns that meet [start, end), clipped to it."""
        table = self._table(start, max(start, end))
        low, high = np.maximum(table.opens, start), np.minimum(table.closes, end)
        return [(int(a), int(b)) for a, b in zip(low, high, strict=True) if a < b]

    def trading_ns(self, start: int, end: int) -> int:
        """How much of [start, end) lies inside trading hours, in ns."""
        return sum(b - a for a, b in self.sessions(start, end))

    def is_open(self, ts: int) -> bool:
        """Whether the instant lies inside trading hours."""
        return bool(self.sessions(ts, ts + 1))

    def _table(self, start: int, end: int) -> _Table:
        # Whole years with a margin, so that a running stack builds one table a year.
        first, last = _year(start - 14 * DAY_NS), _year(end + 14 * DAY_NS)
        found = self._cache.get((first, last))
        if found is None:
            found = self._cache[(first, last)] = self._build(first, last)
        return found

    def _build(self, first: int, last: int) -> _Table:
        zone = ZoneInfo(self.zone)

        def ns(day: date, at: time) -> int:
            local = datetime.combine(day, at, tzinfo=zone)
            return int(local.astimezone(UTC).timestamp()) * 1_000_000_000

        dates, rolls, opens, closes = [], [], [], []
        day, previous = date(first, 1, 1), None
        while day.year <= last:
            if day.weekday() in self.weekdays:
                eve = day - timedelta(days=1) if self.eve else day
                dates.append((day - _EPOCH).days)
                # The day after the trade date before: over a weekend that is Friday evening.
                rolls.append(ns(previous if previous and self.eve else eve, self.roll))
                opens.append(ns(eve, self.opens))
                closing = self.closes
                at_midnight = closing == time(0)
                closes.append(ns(day + timedelta(days=1) if at_midnight else day, closing))
                previous = day
            day += timedelta(days=1)
        return _Table(*(np.array(x, np.int64) for x in (dates, rolls, opens, closes)))


@dataclass(frozen=True, slots=True)
class _Table:
    dates: NDArray[np.int64]
    rolls: NDArray[np.int64]
    opens: NDArray[np.int64]
    closes: NDArray[np.int64]


def _year(ns: int) -> int:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).year
