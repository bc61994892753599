"""Traded volume from a feed's cumulative counter (domain.md §4)."""

from __future__ import annotations

from dataclasses import dataclass

from thor.domain.prices import NA


@dataclass(slots=True)
class Counter:
    """One symbol's cumulative volume as its snapshot feed tells it, in size steps.

    ``day`` the trade date it was last seen on (days since 1970, NA: never), ``high`` the highest value of the running
    counter and ``high_ts`` when that was, ``peak`` the highest of the trade date before a reset in the middle of it,
    ``carried`` whether the counter still shows the trade date before.
    """

    day: int = NA
    high: int = 0
    high_ts: int = NA
    peak: int = 0
    carried: bool = False

    def traded(self, value: int, ts: int, day: int, *, watched: bool, unseen: bool) -> int:
        """The volume that ``value`` adds, never negative and never counted twice.

        ``watched``: the stack was watching when trade date ``day`` began. ``unseen``: the symbol was not
        seen for so long before that its counter may have been reset and have grown past ``high`` again.
        """
        if self.day == NA:
            return self._restart(value, ts, day, whole=watched)
        if day < self.day:
            return 0
        if day > self.day:
            return self._next_day(value, ts, day, watched=watched, unseen=unseen)
        if value >= self.high:
            # A fall may have been a glitch: when the old counter comes back, what it had shown is not traded again.
            gain = value - max(self.high, self.peak if value >= self.peak else self.high)
            self.high, self.high_ts = value, ts
            return gain
        if ts < self.high_ts:
            # Out of order, no reset.
            return 0
        if self.carried:
            return self._restart(value, ts, day, whole=True)
        self.peak = max(self.peak, self.high)
        self.high, self.high_ts = value, ts
        return 0

    def _next_day(self, value: int, ts: int, day: int, *, watched: bool, unseen: bool) -> int:
        if value == self.high or (value > self.high > 0 and not unseen):
            # The feed has not reset its counter yet: it goes on where the old trade date ended.
            gain = value - self.high
            self.day, self.high, self.high_ts, self.peak, self.carried = day, value, ts, 0, value > 0
            return gain
        return self._restart(value, ts, day, whole=watched)

    def _restart(self, value: int, ts: int, day: int, *, whole: bool) -> int:
        self.day, self.high, self.high_ts, self.peak, self.carried = day, value, ts, 0, False
        return value if whole else 0
