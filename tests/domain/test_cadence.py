"""Mute and frozen sources, in market time. Nothing here waits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta

import pytest

from thor.domain.cadence import Finding, Quote, SourceRules, Sources
from thor.domain.calendars import Calendar, Change, Timeline, build
from thor.domain.calendars import Hours as Local
from thor.domain.hours import DAY_NS, Hours
from thor.domain.trading import Trading

NS = 1_000_000_000
GLOBEX = Hours("CME Globex", "America/Chicago", time(17), time(17), time(16))
TOKYO = Hours("lunch", "Asia/Tokyo", time(0), time(9), time(11, 30), eve=False)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS


class Day:
    """Sources looked at every ``step_s``; each symbol speaks every so many seconds, with values that move or not."""

    def __init__(self, start: str, step_s: int = 1, **every_s: float) -> None:
        self.step = step_s * NS
        self.now = at(start)
        self.every = every_s
        self.moving = set(every_s)
        self.quotes: dict[str, Quote] = {}
        self.trading = Trading(dict.fromkeys(every_s, GLOBEX))
        self.sources = Sources(SourceRules(), lambda symbol, now: self.trading.stretch(symbol, now))
        self.found: list[tuple[int, Finding]] = []
        self._due = dict.fromkeys(every_s, self.now)

    def run(self, until: str | int, speaks: Callable[[str], bool] = lambda _: True) -> list[Finding]:
        end, before = at(until) if isinstance(until, str) else self.now + until * NS, len(self.found)
        while self.now < end:
            self.now += self.step
            for name, every_s in self.every.items():
                if self.now >= self._due[name] and speaks(name):
                    self._due[name] = self.now + int(every_s * NS)
                    held = self.quotes.get(name)
                    value = self.now if name in self.moving or held is None else held.values
                    self.quotes[name] = Quote(str(self.now), "EXCEL", value)
            self.found += [(self.now, one) for one in self.sources.look(self.now, self.quotes)]
        return [one for _, one in self.found[before:]]


def silent(_: str) -> bool:
    return False


def test_a_liquid_source_is_mute_after_fifteen_seconds_reconnected_twice_then_the_ingester_restarted() -> None:
    day = Day("2024-01-09T15:00:00", ES=1, NQ=1)
    assert day.run(600) == []
    stopped = day.now
    found = day.run(120, silent)
    assert [(one.rule, one.stage) for one in found] == [
        ("mute_source", "reconnect"),
        ("mute_source", "reconnect"),
        ("mute_source", "restart"),
    ]
    times = [(when - stopped) / NS for when, _ in day.found]
    assert times[0] == pytest.approx(20, abs=2)  # 20 × the usual second
    healed = day.run(5)
    assert [(one.rule, one.evidence["was"]) for one in healed] == [("", "mute_source")]


def test_a_thin_symbol_may_be_silent_for_twenty_usual_gaps_but_never_for_more_than_a_quarter_of_an_hour() -> None:
    day = Day("2024-01-09T15:00:00", ZB=10)
    day.run(1800)
    assert day.run(190, silent) == []
    assert [one.stage for one in day.run(20, silent)] == ["reconnect"]
    rare = Day("2024-01-09T15:00:00", ZB=120)
    rare.run(3000)
    assert rare.run(770, silent) == []
    assert [one.stage for one in rare.run(20, silent)] == ["reconnect"]


def test_one_silent_symbol_among_speaking_ones_is_no_mute_source() -> None:
    day = Day("2024-01-09T15:00:00", ES=1, NQ=1)
    day.run(300)
    assert day.run(1200, lambda name: name == "ES") == []


@pytest.mark.parametrize(
    ("start", "until"),
    [
        ("2024-01-05T21:50:00", "2024-01-07T23:02:50"),  # a weekend, from ten minutes before the close
        ("2024-01-09T21:50:00", "2024-01-09T23:02:50"),  # the hour between two sessions
        ("2024-03-08T21:50:00", "2024-03-10T22:02:50"),  # clocks go forward on Sunday
        ("2024-11-01T20:50:00", "2024-11-03T23:02:50"),  # and back
    ],
)
def test_silence_while_the_market_is_closed_is_no_news(start: str, until: str) -> None:
    day = Day(start, 5, ES=5)
    close = day.trading.stretch("ES", day.now)
    assert close
    day.run((close[1] - day.now) // NS)
    assert day.run(until, silent) == []
    assert day.run(120) == []


def test_silence_after_the_open_is_found_once_the_edge_is_past() -> None:
    day = Day("2024-01-09T21:00:00", ES=1)
    day.run("2024-01-09T21:57:00")
    assert day.run("2024-01-09T23:02:00", silent) == []
    assert [one.rule for one in day.run(1200, silent)][:1] == ["mute_source"]


def test_a_lunch_break_is_silent() -> None:
    sources = Sources(SourceRules(), Trading({"NK": TOKYO}).stretch)
    for second in range(600):
        now = at("2024-01-09T02:20:00") + second * NS
        sources.look(now, {"NK": Quote(str(now), "X", now)})
    now = at("2024-01-09T02:30:00")
    assert all(not sources.look(now + second * NS, {"NK": Quote("x", "X", 0)}) for second in range(3600))


def test_quotes_whose_values_stand_still_are_a_frozen_source_and_a_moving_one_is_not() -> None:
    day = Day("2024-01-09T15:00:00", ES=1, NQ=1, YM=1, RTY=1, CL=1)
    day.run(300)
    day.moving -= {"ES", "NQ", "YM"}
    assert day.run(300) == []  # three of five
    day.moving.clear()
    found = day.run(70)
    assert [(one.rule, one.stage) for one in found][:1] == [("frozen_source", "reconnect")]


def test_after_a_gap_of_the_watchdog_everybody_begins_anew() -> None:
    day = Day("2024-01-09T15:00:00", ES=1)
    day.run(300)
    day.now += 300 * NS
    assert day.sources.look(day.now, day.quotes) == []
    assert day.run(10, silent) == []


def test_what_was_learned_survives_and_stays_small() -> None:
    day = Day("2024-01-09T00:00:00", 5, ES=30)
    day.run("2024-01-09T20:00:00")
    held = day.sources.learned()
    assert len(held["ES"]["arrivals"]) <= 24
    again = Sources(SourceRules(), Trading({"ES": GLOBEX}).stretch)
    again.remember(held)
    assert again.learned() == held


#: As the exchanges announced: no session, a halt at noon of Thanksgiving, and one at 12:15 on the day after.
CME = Calendar("CME equity", "America/Chicago", (Local(date(2021, 6, 28), time(17), time(16), eve=True),))
CME_CHANGES = [
    Change(date(2025, 12, 24), Local(date(2025, 12, 24), time(17), time(12, 15), eve=True), "CME", "Christmas Eve"),
    Change(date(2025, 12, 25), None, "CME", "Christmas"),
    Change(date(2026, 11, 26), Local(date(2026, 11, 26), time(17), time(12), eve=True), "CME", "Thanksgiving"),
]
XTKS = Calendar("XTKS", "Asia/Tokyo", (Local(date(2011, 11, 21), time(9), time(15), (time(11, 30), time(12, 30))),))


def dated(calendar: Calendar, around: str) -> Trading:
    """The symbol S by a calendar, ten days around an instant; its weekly hours are those of Globex."""
    now, day = at(around), datetime.fromisoformat(around).date()
    sessions = build(calendar, day - timedelta(days=20), day + timedelta(days=20), None, CME_CHANGES)
    line = Timeline(calendar.zone, calendar.weekdays, sessions)
    return Trading({"S": GLOBEX}, {"S": line}, now - 10 * DAY_NS, now + 10 * DAY_NS)


@pytest.mark.parametrize(
    ("calendar", "stops", "until"),
    [
        (CME, "2026-11-26T18:00:00", "2026-11-26T23:02:50"),  # Thanksgiving: a halt at noon, trading again at 17:00
        (CME, "2025-12-24T18:15:00", "2025-12-25T23:02:50"),  # a half day, then a holiday
        (XTKS, "2026-11-20T02:30:00", "2026-11-20T03:32:50"),  # lunch in Tokyo
    ],
)
def test_silence_on_a_holiday_a_half_day_or_at_lunch_is_no_news(calendar: Calendar, stops: str, until: str) -> None:
    day = Day("2024-01-01T00:00:00", 5, S=5)
    day.now = day._due["S"] = at(stops) - 600 * NS
    day.trading = dated(calendar, stops)
    assert day.run(600) == []
    assert day.run(until, silent) == []
    assert day.run(120) == []
    # By the weekly hours alone the same silence is a false alarm.
    weekly = Day(stops, 5, S=5)
    weekly.run(600)
    assert [one.rule for one in weekly.run(1800, silent)][:1] == ["mute_source"]


def test_on_an_ordinary_day_of_the_calendar_and_after_a_break_silence_is_found() -> None:
    for calendar, start in ((CME, "2026-11-24T15:00:00"), (XTKS, "2026-11-20T03:30:00")):
        day = Day(start, 1, S=1)
        day.trading = dated(calendar, start)
        assert day.run(600) == []
        assert [(one.rule, one.stage) for one in day.run(30, silent)][:1] == [("mute_source", "reconnect")]


def test_where_the_calendar_ends_the_weekly_hours_hold() -> None:
    trading = dated(CME, "2026-11-20T12:00:00")
    thanksgiving = at("2026-11-26T19:00:00")
    assert not trading.is_open("S", thanksgiving)
    assert trading.is_open("S", thanksgiving + 7 * DAY_NS)  # 13 days on
    assert trading.is_open("S", at("2025-12-25T15:00:00"))  # long before: weekly hours know no holiday
    opens = at("2026-11-26T23:00:00")
    assert trading.begins(opens - 60 * NS, 300 * NS)
    assert not trading.begins(opens, 300 * NS)
    assert not trading.begins(thanksgiving, 300 * NS)
