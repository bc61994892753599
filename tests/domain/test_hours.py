"""Trade dates and trading hours against plain datetimes, across both changes of the clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.columns import ALWAYS, GLOBEX
from thor.domain.hours import DAY_NS, Hours

ICE = Hours("ICE US", "America/New_York", time(18), time(20), time(17))
STOCKS = Hours("Stocks", "America/New_York", time(0), time(9, 30), time(16), eve=False)
ALL = [GLOBEX, ICE, ALWAYS, STOCKS]

#: Around the changes of 2024 and 2026 in Chicago, and any second of many years.
seconds = st.one_of(
    st.integers(1_709_900_000, 1_710_200_000),
    st.integers(1_730_500_000, 1_730_800_000),
    st.integers(1_772_800_000, 1_773_100_000),
    st.integers(0, 4_000_000_000),
)


def roll(hours: Hours, day: date) -> datetime:
    """When the trade date ``day`` begins: for an eve, the day after the trade date before."""
    if hours.eve:
        day -= timedelta(days=1)
        while day.weekday() not in hours.weekdays:
            day -= timedelta(days=1)
    return datetime.combine(day, hours.roll, ZoneInfo(hours.zone))


def trade_date(hours: Hours, at: datetime) -> date:
    """The last trade date that has begun."""
    day = at.astimezone(ZoneInfo(hours.zone)).date() + timedelta(days=5)
    while day.weekday() not in hours.weekdays or roll(hours, day).astimezone(UTC) > at:
        day -= timedelta(days=1)
    return day


def is_open(hours: Hours, at: datetime) -> bool:
    local = at.astimezone(ZoneInfo(hours.zone))
    for day in (local.date() + timedelta(days=d) for d in (-1, 0, 1)):
        if day.weekday() in hours.weekdays:
            opens = datetime.combine(day - timedelta(days=hours.eve), hours.opens, ZoneInfo(hours.zone))
            end = day + timedelta(days=hours.closes == time(0))
            closes = datetime.combine(end, hours.closes, ZoneInfo(hours.zone))
            if opens.astimezone(UTC) <= at < closes.astimezone(UTC):
                return True
    return False


@pytest.mark.parametrize("hours", ALL, ids=lambda h: h.name)
@given(second=seconds)
@example(second=1_710_108_000)  # Sunday 2024-03-10, 17:00 Chicago, the day the clock changed
@example(second=1_730_671_200 + 3600)  # Sunday 2024-11-03
def test_the_trade_date_is_the_last_that_began(hours: Hours, second: int) -> None:
    for at in (second - 1, second, second + 1):
        expected = trade_date(hours, datetime.fromtimestamp(at, UTC))
        assert date(1970, 1, 1) + timedelta(days=hours.trade_date(at * 10**9)) == expected


@pytest.mark.parametrize("hours", ALL, ids=lambda h: h.name)
@given(second=seconds)
def test_a_trade_date_begins_at_its_roll(hours: Hours, second: int) -> None:
    day = hours.trade_date(second * 10**9)
    begins = hours.begins(day)
    assert begins <= second * 10**9
    assert begins == int(roll(hours, date(1970, 1, 1) + timedelta(days=day)).timestamp()) * 10**9
    assert hours.trade_date(begins) == day
    assert hours.trade_date(begins - 1) < day


@pytest.mark.parametrize("hours", ALL, ids=lambda h: h.name)
@given(second=seconds)
def test_open_means_between_open_and_close(hours: Hours, second: int) -> None:
    assert hours.is_open(second * 10**9) == is_open(hours, datetime.fromtimestamp(second, UTC))


@pytest.mark.parametrize("hours", ALL, ids=lambda h: h.name)
@given(start=seconds, length=st.integers(0, 20 * 86_400))
def test_trading_time_is_what_the_sessions_sum_to(hours: Hours, start: int, length: int) -> None:
    low, high = start * 10**9, (start + length) * 10**9
    sessions = hours.sessions(low, high)
    assert all(low <= a < b <= high for a, b in sessions)
    assert all(before[1] <= after[0] for before, after in pairwise(sessions))
    assert hours.trading_ns(low, high) == sum(b - a for a, b in sessions)


def test_a_week_of_globex_has_five_days_of_23_hours() -> None:
    monday = int(datetime(2024, 6, 3, tzinfo=UTC).timestamp()) * 10**9
    assert GLOBEX.trading_ns(monday - DAY_NS * 2, monday + DAY_NS * 5) == 5 * 23 * 3_600 * 10**9


def test_friday_evening_belongs_to_monday() -> None:
    evening = datetime(2024, 6, 7, 17, 0, tzinfo=ZoneInfo("America/Chicago"))
    day = GLOBEX.trade_date(int(evening.timestamp()) * 10**9)
    assert date(1970, 1, 1) + timedelta(days=day) == date(2024, 6, 10)


@pytest.mark.parametrize("hours", ALL, ids=lambda h: h.name)
@given(st.lists(st.integers(1_600_000_000, 1_800_000_000), max_size=20))
def test_many_instants_are_dated_as_each_alone(hours: Hours, at: list[int]) -> None:
    ts = np.array(at, np.int64) * 10**9
    assert hours.trade_dates(ts).tolist() == [hours.trade_date(int(one)) for one in ts]
