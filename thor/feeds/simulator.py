"""The simulator as a feed: a made-up market, live by the wall clock or in virtual time.

It cannot wait: quotes come when they are due. After a restart within ``catch_up_s`` it goes on where it was, with the
same quotes; after longer it goes on from now and says since when nobody watched.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np

from thor.domain.instruments import Instruments
from thor.domain.prices import NANO
from thor.domain.quotes import MAX_QUOTES, Quotes, concat, empty
from thor.feeds import Arrival
from thor.feeds.market import SOURCE, Market, Sessions, Style

_COALESCE_S: Final = 0.02  # quotes due this close together arrive together
_SECONDS: Final = 600  # simulated in one poll, at most


class Simulator:
    """Quotes of ``symbols`` (default: every instrument), ``rate`` a second on average over a day.

    ``style``: every print with its size and the book, or a poller's snapshots with day statistics. ``sessions``:
    "shape" follows the world's day and never falls silent, "strict" is silent outside the instruments' hours.
    With ``start`` (ns) time is virtual, ``speed`` times the wall's or "max", and the feed counts as recorded.
    """

    name = "simulator"

    def __init__(
        self,
        instruments: Instruments,
        *,
        symbols: Sequence[str] | None = None,
        seed: int = 1,
        rate: float = 20,
        style: Style = "trade",
        sessions: Sessions = "shape",
        catch_up_s: float = 60,
        start: int | None = None,
        speed: float | Literal["max"] = 1,
        now: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._market = Market(instruments, symbols, seed, rate, style, sessions)
        self.waits = self.recorded = start is not None
        self._start, self._speed, self._catch_up_ns = start, speed, round(catch_up_s * NANO)
        self._now, self._sleep = now, sleep
        self._of = f"{seed} {rate:g} {style} {sessions} {len(self._market.numbers)}"
        self._second, self._index = 0, 0  # the next quote's second and place in it
        self._block = empty((SOURCE,))
        self._broken_since: int | None = None
        self._origin = (0, 0)  # the wall's ns, and the virtual ns at it
        self._told = 0  # the clock last told without quotes

    def open(self, cursor: str | None) -> None:
        """Begin now (or at ``start``), or go on behind the cursor."""
        self._broken_since = None
        now = self._now()
        if cursor is None:
            self._begin_at(now if self._start is None else self._start)
        else:
            at = json.loads(cursor)
            # With other settings a second holds other quotes: only whole seconds can be gone on from.
            self._set(at["second"], at["index"]) if at["of"] == self._of else self._set(at["second"] + 1, 0)
        self._origin = now, self._last_ts()

    def committed(self, cursor: str) -> None:
        """Nothing is kept for it."""

    def close(self) -> None:
        """Nothing is held."""

    def poll(self, timeout_s: float) -> Arrival | None:
        """All quotes that are due, waiting at most ``timeout_s`` for the next."""
        clock = self._clock()
        if clock is not None:
            if not self.recorded:
                self._skip_to(clock)
            due = int(self._block.ts[self._index]) if self._index < len(self._block) else (self._second + 1) * NANO
            if due > clock:
                pace = float(self._speed) if self.recorded else 1.0
                self._sleep(max(0.0, min(timeout_s, (due - clock) / NANO / pace + _COALESCE_S)))
                clock = self._clock()
        quotes = self._take(clock)
        clock = self._second * NANO if clock is None else clock
        if not len(quotes) and (not self.recorded or clock - self._told < NANO):
            return None
        self._told = clock
        broken, self._broken_since = self._broken_since, None
        cursor = json.dumps({"of": self._of, "second": self._second, "index": self._index})
        return Arrival(quotes, cursor, clock=clock if self.recorded else None, broken_since=broken)

    def _clock(self) -> int | None:
        """The time (ns) up to which quotes are due; None where all are."""
        if not self.recorded:
            return self._now()
        if self._speed == "max":
            return None
        wall, virtual = self._origin
        return virtual + round((self._now() - wall) * float(self._speed))

    def _take(self, until: int | None) -> Quotes:
        parts: list[Quotes] = []
        total = 0
        for _ in range(_SECONDS):
            due = len(self._block) if until is None else int(np.searchsorted(self._block.ts, until, side="right"))
            end = min(due, self._index + MAX_QUOTES - total)
            if end > self._index:
                parts.append(self._block.take(slice(self._index, end)))
                total += end - self._index
                self._index = end
            if self._index < len(self._block) or (until is not None and (self._second + 1) * NANO > until):
                break
            self._set(self._second + 1, 0)
        return concat(parts) if parts else empty((SOURCE,))

    def _set(self, second: int, index: int) -> None:
        self._second, self._index, self._block = second, index, self._market.second(second)

    def _begin_at(self, ns: int) -> None:
        self._set(ns // NANO, 0)
        self._index = int(np.searchsorted(self._block.ts, ns))

    def _last_ts(self) -> int:
        return int(self._block.ts[self._index - 1]) if self._index else self._second * NANO

    def _skip_to(self, now: int) -> None:
        last = self._last_ts()
        if now - last > self._catch_up_ns:
            self._broken_since = last if self._broken_since is None else self._broken_since
            self._begin_at(now)
