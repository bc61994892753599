"""When each future trades (domain.md §8): by the dated sessions of its calendar, else by its weekly hours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from thor.domain.calendars import Timeline
from thor.domain.hours import DAY_NS, Hours

_REACH: Final = 2 * DAY_NS  # a weekly stretch is told no farther than this


@dataclass(frozen=True, slots=True)
class Trading:
    """``hours`` and ``dated`` are by symbol; what is dated holds for instants (ns UTC) of [since, until)."""

    hours: Mapping[str, Hours]
    dated: Mapping[str, Timeline] = field(default_factory=dict)
    since: int = 0
    until: int = 0

    def stretch(self, symbol: str, at: int) -> tuple[int, int] | None:
        """The unbroken trading [from, to) that the instant lies in; None where the symbol does not trade."""
        if self.since <= at < self.until and symbol in self.dated:
            return self.dated[symbol].stretch(at)
        found = self.hours[symbol].sessions(at - _REACH, at + _REACH)
        return next(((begins, ends) for begins, ends in found if begins <= at < ends), None)

    def is_open(self, symbol: str, at: int) -> bool:
        """Whether the symbol trades at the instant."""
        return self.stretch(symbol, at) is not None

    def begins(self, at: int, span: int) -> bool:
        """Whether any symbol begins to trade after the instant and until ``span`` after it."""
        later = (self.stretch(symbol, at + span) for symbol in self.hours)
        return any(one is not None and one[0] > at for one in later)
