"""The calendar checked against the market (domain.md §8): trades while it says closed, silence while it says open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from thor.domain.calendars import Timeline
from thor.domain.stamps import parse_stamp, rfc3339

Drifting = Literal["trades while closed", "silence while open"]


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest quote of a symbol: its event time (ns), and what a trade changes in it."""

    ts: int
    trade: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Calendar and market disagree."""

    kind: Drifting
    calendar: str
    text: str

    @property
    def key(self) -> tuple[Drifting, str]:
        """What makes it the same alarm as before."""
        return self.kind, self.calendar


def seen(quotes: Mapping[str, Mapping[str, str]], ignored: str) -> dict[str, Seen]:
    """The latest quotes (domain.md §3) as a look, without those of the source ``ignored``: it trades at any hour."""
    return {
        symbol: Seen(parse_stamp(fields["ts"]), (fields.get("last", ""), fields.get("volume", "")))
        for symbol, fields in quotes.items()
        if fields.get("ts") and fields.get("source") != ignored
    }


class Drift:
    """Compares looks at the newest quotes with the timelines.

    ``calendars`` maps a symbol to its calendar. A trade counts as one inside closed hours only where the look before
    it fell into the same closed hours, and ``grace_ns`` from their ends: looks may be far apart in a fast replay.
    """

    def __init__(self, calendars: Mapping[str, str], grace_ns: int, silence_ns: int) -> None:
        self._calendars, self._grace, self._silence = calendars, grace_ns, silence_ns
        self._before: dict[str, Seen] = {}
        self._traded: dict[str, dict[str, int]] = {}

    def look(self, timelines: Mapping[str, Timeline], watermark: int, seen: Mapping[str, Seen]) -> list[Alarm]:
        """The alarms that hold at the watermark (ns)."""
        for symbol, quote in seen.items():
            calendar = self._calendars.get(symbol)
            before = self._before.get(symbol)
            self._before[symbol] = quote
            if calendar is None or before is None or before.trade == quote.trade or quote.ts <= before.ts:
                continue
            if self._inside_closed(timelines[calendar], before.ts, quote.ts):
                self._traded.setdefault(calendar, {})[symbol] = quote.ts
        return [*self._closed(watermark), *self._silent(timelines, watermark, seen)]

    def _inside_closed(self, timeline: Timeline, before: int, at: int) -> bool:
        if timeline.is_open(at) or timeline.is_open(before) or timeline.edge(at, self._grace):
            return False
        reopens = timeline.resumes(before)
        return reopens is None or reopens > at

    def _closed(self, watermark: int) -> list[Alarm]:
        alarms = []
        for calendar, symbols in self._traded.items():
            recent = {symbol: ts for symbol, ts in symbols.items() if watermark - ts <= self._silence}
            self._traded[calendar] = recent
            if recent:
                named, last = ", ".join(sorted(recent)), rfc3339(max(recent.values()))
                text = f"{calendar} is closed, and {named} traded at {last}: is a session missing in calendars.yaml?"
                alarms.append(Alarm("trades while closed", calendar, text))
        return alarms

    def _silent(self, timelines: Mapping[str, Timeline], watermark: int, seen: Mapping[str, Seen]) -> list[Alarm]:
        newest = max((quote.ts for quote in seen.values()), default=None)
        if newest is None or watermark - newest <= self._silence:
            return []
        alarms = []
        for calendar in sorted(set(self._calendars.values())):
            if timelines[calendar].open_since(watermark, self._silence):
                text = f"{calendar} is open, and no symbol had a quote since {rfc3339(newest)}: a holiday, or no feed?"
                alarms.append(Alarm("silence while open", calendar, text))
        return alarms
