"""Status, next events and the weekday rule, from sessions alone (domain.md §8)."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thor.domain.calendars import (
    PRECLOSE_NS,
    PREOPEN_NS,
    Calendar,
    Change,
    Hours,
    Session,
    Timeline,
    Vouched,
    build,
)
from thor.domain.markets import Market, Markets, World
from thor.domain.prices import NANO

MINUTE = 60 * NANO
TOKYO = Calendar(
    "XTKS",
    "Asia/Tokyo",
    (
        Hours(date(2011, 11, 21), time(9), time(15), (time(11, 30), time(12, 30))),
        Hours(date(2024, 11, 5), time(9), time(15, 30), (time(11, 30), time(12, 30))),
    ),
)
GLOBEX = Calendar("CME", "America/Chicago", (Hours(date(2015, 9, 21), time(17), time(16), eve=True),))


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NANO


def timeline(calendar: Calendar, first: date, last: date, *changes: Change) -> Timeline:
    return Timeline(calendar.zone, calendar.weekdays, build(calendar, first, last, None, changes))


NOVEMBER = timeline(TOKYO, date(2024, 11, 1), date(2024, 11, 30))


@pytest.mark.parametrize(
    ("at", "status", "event", "event_at"),
    [
        ("2024-11-04 22:59:59", "CLOSED", "PREOPEN", "2024-11-04 23:00"),
        ("2024-11-04 23:00", "PREOPEN", "OPEN", "2024-11-05 00:00"),
        ("2024-11-05 00:00", "OPEN", "BREAK", "2024-11-05 02:30"),
        ("2024-11-05 02:30", "BREAK", "RESUME", "2024-11-05 03:30"),
        ("2024-11-05 03:30", "OPEN", "PRECLOSE", "2024-11-05 06:15"),
        ("2024-11-05 06:15", "PRECLOSE", "CLOSE", "2024-11-05 06:30"),
        ("2024-11-05 06:30", "CLOSED", "PREOPEN", "2024-11-05 23:00"),
        ("2024-11-09 01:00", "CLOSED", "PREOPEN", "2024-11-10 23:00"),
    ],
)
def test_each_instant_of_a_day_has_its_status_and_what_comes_next(
    at: str, status: str, event: str, event_at: str
) -> None:
    moment = NOVEMBER.at(ns(at))
    assert moment.status == status
    assert moment.next_event is not None
    assert (moment.next_event.kind, moment.next_event.at) == (event, ns(event_at))


def test_the_day_begins_open_and_ends_closed_to_the_nanosecond() -> None:
    opens, closes = ns("2024-11-05 00:00"), ns("2024-11-05 06:30")
    assert [NOVEMBER.at(at).is_open for at in (opens - 1, opens, closes - 1, closes)] == [False, True, True, False]


def test_hours_hold_from_their_date_on() -> None:
    assert [TOKYO.on(date(2024, 11, day)).closes for day in (4, 5)] == [time(15), time(15, 30)]
    assert TOKYO.on(date(1999, 1, 4)).closes == time(15)


def test_a_weekday_without_a_session_is_a_holiday_and_a_weekend_is_not() -> None:
    removed = Change(date(2024, 11, 4), None, "the exchange", "Culture Day")
    line = timeline(TOKYO, date(2024, 11, 1), date(2024, 11, 8), removed)
    assert line.at(ns("2024-11-04 03:00")).status == "HOLIDAY_CLOSED"
    assert line.at(ns("2024-11-03 03:00")).status == "CLOSED"


def test_a_break_is_not_open_and_next_close_is_still_todays() -> None:
    moment = NOVEMBER.at(ns("2024-11-05 03:00"))
    assert (moment.is_open, moment.next_close) == (False, ns("2024-11-05 06:30"))
    assert moment.next_open == ns("2024-11-06 00:00")


def test_between_two_sessions_an_hour_apart_a_future_is_preopen_from_its_close_on() -> None:
    line = timeline(GLOBEX, date(2024, 1, 8), date(2024, 1, 12))
    before, after = line.at(ns("2024-01-09 21:59")), line.at(ns("2024-01-09 22:00"))
    assert before.next_event is not None
    assert before.next_event.kind == "CLOSE"
    assert after.status == "PREOPEN"


def test_past_the_last_session_nothing_comes_next_and_nothing_breaks() -> None:
    moment = NOVEMBER.at(ns("2024-12-24 00:00"))
    assert (moment.next_open, moment.next_close, moment.next_event) == (None, None, None)


def test_where_nobody_vouches_the_weekday_rule_holds_unconfirmed() -> None:
    known = TOKYO.session(date(2024, 11, 7))
    vouched = Vouched(date(2024, 11, 5), date(2024, 11, 7), {known.date: known})
    made = build(TOKYO, date(2024, 11, 4), date(2024, 11, 10), vouched)
    assert [(one.date.day, one.confirmed, one.source) for one in made] == [
        (4, False, "weekday rule"),
        (7, True, "weekday rule"),
        (8, False, "weekday rule"),
    ]


def test_the_overlay_adds_replaces_and_removes_above_everything() -> None:
    short = Hours(date(2024, 11, 5), time(9), time(11), None)
    changes = [
        Change(date(2024, 11, 9), TOKYO.on(date(2024, 11, 9)), "a notice", "a Saturday"),
        Change(date(2024, 11, 5), short, "a notice", "half a day"),
        Change(date(2024, 11, 6), None, "a notice", "a storm"),
    ]
    made = {one.date.day: one for one in build(TOKYO, date(2024, 11, 4), date(2024, 11, 10), None, changes)}
    assert sorted(made) == [4, 5, 7, 8, 9]
    assert (made[9].kind, made[5].kind, made[5].confirmed, made[5].note) == (
        "special",
        "early close",
        True,
        "half a day",
    )


@pytest.mark.parametrize("breaks", [(5, None), (5, 20), (0, 5), (7, 6)])
def test_a_session_out_of_order_is_refused(breaks: tuple[int, int | None]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Session(date(2024, 1, 1), 0, 10, *breaks)


@st.composite
def lines(draw: st.DrawFn) -> Timeline:
    """A fortnight with holidays, odd hours and breaks, all of whole minutes."""
    zone = draw(st.sampled_from(["Asia/Tokyo", "America/New_York", "Europe/London"]))
    calendar = Calendar("any", zone, (Hours(date(2000, 1, 1), time(9), time(15)),))
    sessions = []
    for day in range(14):
        if draw(st.booleans()):
            start = calendar.instant(date(2025, 3, 3) + timedelta(days=day), time(draw(st.integers(4, 10))))
            cuts = sorted(draw(st.lists(st.integers(1, 700), min_size=3, max_size=3, unique=True)))
            lunch = [start + cut * MINUTE for cut in cuts[:2]] if draw(st.booleans()) else [None, None]
            sessions.append(Session(date(2025, 3, 3) + timedelta(days=day), start, start + cuts[2] * MINUTE, *lunch))
    return Timeline(zone, range(5), sessions)


START = ns("2025-03-02 00:00")
INSTANTS = st.integers(START, START + 16 * 1440 * MINUTE)


@settings(max_examples=300, deadline=None)
@given(lines(), INSTANTS)
def test_the_next_event_lies_in_the_future_and_until_it_the_status_stays(line: Timeline, at: int) -> None:
    moment = line.at(at)
    event = moment.next_event
    if event is None:
        assert moment.status in ("CLOSED", "HOLIDAY_CLOSED")
        return
    assert event.at > at
    closed = {"CLOSED", "HOLIDAY_CLOSED"}  # which of the two changes with the local date
    for between in {at, (at + event.at) // 2, event.at - 1}:
        later = line.at(between)
        assert later.status == moment.status or {later.status, moment.status} <= closed
        assert later.next_event == event
    assert line.at(event.at).status != moment.status


@settings(max_examples=300, deadline=None)
@given(lines(), INSTANTS)
def test_every_instant_has_exactly_the_status_that_the_sessions_say(line: Timeline, at: int) -> None:
    moment = line.at(at)
    inside = [one for one in line.sessions if one.opens <= at < one.closes]
    resting = [one for one in inside if (one.break_starts or at + 1) <= at < (one.break_ends or 0)]
    soon = [one for one in line.sessions if 0 < one.opens - at <= PREOPEN_NS]
    if resting:
        expected = "BREAK"
    elif inside:
        expected = "PRECLOSE" if inside[0].closes - at <= PRECLOSE_NS else "OPEN"
    elif soon:
        expected = "PREOPEN"
    else:
        local = line.local(at)
        traded = any(one.date == local.date() for one in line.sessions)
        expected = "CLOSED" if traded or local.weekday() > 4 else "HOLIDAY_CLOSED"
    assert moment.status == expected
    assert moment.is_open == line.is_open(at) == (expected in ("OPEN", "PRECLOSE"))
    assert moment.next_open == min((one.opens for one in line.sessions if one.opens > at), default=None)
    assert moment.next_close == min((one.closes for one in line.sessions if one.closes > at), default=None)


def market(code: str, region: str, weight: str, enabled: bool = True) -> Market:
    return Market(code, f"{code}land", f"{code}town", code, "UTC", Decimal(weight), region, enabled=enabled)  # type: ignore[arg-type]


def world(*markets: Market, closed: str = "") -> World:
    day = Calendar("any", "UTC", (Hours(date(2000, 1, 1), time(9), time(15)),))
    hours = {one.code: timeline(day, date(2025, 3, 3), date(2025, 3, 7)) for one in markets}
    if closed:
        hours[closed] = Timeline("UTC", range(5), [])
    return World.of(Markets(markets), hours, ns("2025-03-04 12:00"))


def test_the_composite_is_the_weight_of_the_open_markets() -> None:
    found = world(
        market("A", "ASIAN", "0.25"), market("B", "ASIAN", "0.075"), market("C", "EUROPEAN", "0.4"), closed="C"
    )
    assert (found.composite, found.phase, found.told()["composite"]) == (Decimal("32.5"), "ASIAN", "32.5")


def test_phases_come_from_the_regions_that_are_open() -> None:
    both = world(market("A", "EUROPEAN", "0.5"), market("B", "AMERICAN", "0.5"))
    assert (both.phase, both.told()["composite"]) == ("OVERLAP", "100")
    none = world(market("A", "EUROPEAN", "0.5"), closed="A")
    assert (none.phase, none.told()["composite"]) == (None, "0")


def test_a_market_that_is_switched_off_takes_no_part() -> None:
    found = world(market("A", "ASIAN", "0.5"), market("B", "EUROPEAN", "0.5", enabled=False))
    assert (found.phase, found.told()["composite"], found.told()["composite_of"]) == ("ASIAN", "50", "50")


def test_a_market_is_found_by_code_country_and_shown_name_whatever_the_case() -> None:
    markets = Markets([market("A", "ASIAN", "1"), market("B", "ASIAN", "0")])
    assert [markets.find(name) for name in ("a", " ALAND", "atown", "C")] == [markets["A"]] * 3 + [None]


def test_a_name_of_two_markets_is_refused() -> None:
    with pytest.raises(ValueError, match="two markets"):
        Markets([market("A", "ASIAN", "1"), market("ALAND", "ASIAN", "0")])
