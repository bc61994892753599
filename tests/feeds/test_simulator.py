"""The simulator: deterministic, on tick, in session, and never the same quote twice."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.feeds.playing import same
from tests.feeds.registry import REGISTRY
from thor.domain.prices import NANO
from thor.domain.quotes import POLLED, SNAPSHOT, Quotes, concat
from thor.feeds.market import Market, Sessions, Style
from thor.feeds.simulator import Simulator

MONDAY = int(datetime(2024, 6, 3, 12, 0, tzinfo=UTC).timestamp())
SATURDAY = int(datetime(2024, 6, 1, 12, 0, tzinfo=UTC).timestamp())


class Wall:
    """A wall clock that only sleeping moves."""

    def __init__(self, second: float = MONDAY) -> None:
        self.ns = round(second * NANO)

    def now(self) -> int:
        return self.ns

    def sleep(self, s: float) -> None:
        self.ns += round(s * NANO)


def market(style: Style = "trade", sessions: Sessions = "shape", seed: int = 1, rate: float = 20) -> Market:
    return Market(REGISTRY, None, seed, rate, style, sessions)


def live(wall: Wall, cursor: str | None = None) -> Simulator:
    feed = Simulator(REGISTRY, rate=50, now=wall.now, sleep=wall.sleep)
    feed.open(cursor)
    return feed


def watch(feed: Simulator, polls: int) -> tuple[list[Quotes], str]:
    parts, cursor = [], ""
    for _ in range(polls):
        arrival = feed.poll(0.25)
        if arrival is not None:
            parts.append(arrival.quotes)
            cursor = arrival.cursor
    return parts, cursor


@settings(deadline=None, max_examples=20)
@given(st.integers(MONDAY, MONDAY + 86_400), st.sampled_from(["trade", "snapshot"]))
def test_a_second_is_the_same_whatever_was_asked_before(second: int, style: Style) -> None:
    alone = market(style).second(second)
    walked = market(style)
    for earlier in (second - 120, second + 61, second - 1):
        walked.second(earlier)
    assert same(alone, walked.second(second))
    assert not np.array_equal(alone.columns["last"], market(style, seed=2).second(second).columns["last"])


@pytest.mark.parametrize("style", ["trade", "snapshot"])
def test_prices_are_on_tick_sizes_positive_and_time_runs_forward(style: Style) -> None:
    made = market(style)
    quotes = concat([made.second(MONDAY + i) for i in range(120)])
    ticks = np.array([i.tick_nano for i in REGISTRY])[quotes.instrument]
    for name in quotes.columns.keys() - {"last_size", "bid_size", "ask_size", "volume"}:
        assert not (quotes.columns[name] % ticks).any(), name
    for name in ("last_size", "bid_size", "ask_size"):
        assert quotes.columns[name].min() >= 1
    assert (np.diff(quotes.ts) >= 0).all()
    assert (quotes.columns["bid"] < quotes.columns["ask"]).all()
    assert set(quotes.flags.tolist()) == {0 if style == "trade" else SNAPSHOT | POLLED}


def test_the_price_path_is_continuous() -> None:
    ns = (MONDAY + np.arange(20_000)) * NANO
    path = market().ticks(np.zeros(len(ns), np.intp), ns)
    assert np.abs(np.diff(path)).max() <= 5
    assert path.max() - path.min() > 50


def test_the_rate_is_kept_over_a_day_and_quiet_symbols_stay_quiet() -> None:
    made = market(rate=200)
    quotes = concat([made.second(MONDAY + i * 97) for i in range(890)])
    assert 180 < len(quotes) / 890 < 230
    vx = REGISTRY.number("VX")
    assert 0.1 < np.count_nonzero(quotes.instrument == vx) / 890 < 0.5


def test_the_open_of_chicago_is_a_burst() -> None:
    opens = int(datetime(2024, 6, 3, 13, 30, tzinfo=UTC).timestamp())
    made = market(rate=200)
    assert len(made.second(opens)) > 4 * len(made.second(opens - 5))


def test_strict_sessions_are_silent_outside_hours_and_shaped_ones_never() -> None:
    for style in ("trade", "snapshot"):
        assert len(market(style, "strict").second(SATURDAY)) == 0
        assert len(market(style, "strict", rate=200).second(MONDAY)) > 0
        assert len(market(style, "shape", rate=200).second(SATURDAY)) > 0


@pytest.mark.parametrize("sessions", ["shape", "strict"])
def test_snapshots_keep_a_days_statistics_until_the_trade_date_turns(sessions: Sessions) -> None:
    made = market("snapshot", sessions)
    begins = int(datetime(2024, 6, 3, 22, 0, tzinfo=UTC).timestamp())  # 17:00 Chicago
    quotes = concat([made.second(begins + i) for i in range(200)])
    for number in range(len(REGISTRY)):
        mine = quotes.take(quotes.instrument == number)
        column = mine.columns
        assert (np.diff(column["volume"]) >= 0).all()
        assert (np.diff(column["high"]) >= 0).all()
        assert (np.diff(column["low"]) <= 0).all()
        assert len(np.unique(column["open"])) == 1
        assert ((column["low"] <= column["last"]) & (column["last"] <= column["high"])).all()
        assert column["volume"][0] == 0
        assert (column["change"] == column["last"] - column["close"]).all()
    before = made.second(begins - (1 if sessions == "shape" else 3_601))
    assert (before.columns["volume"] > 0).all()


def test_live_quotes_come_when_they_are_due_and_close_ones_together() -> None:
    wall = Wall()
    feed = live(wall)
    for _ in range(500):
        before = wall.ns
        arrival = feed.poll(0.25)
        assert wall.ns - before <= 0.25 * NANO
        if arrival is not None:
            assert int(arrival.quotes.ts.max()) <= wall.ns
            assert wall.ns - int(arrival.quotes.ts.min()) <= 0.02 * NANO
            assert arrival.clock is None
    made = market(rate=50)
    again, _ = watch(live(Wall()), 500)
    seen = concat(again)
    expected = concat([made.second(MONDAY + i) for i in range(60)])
    assert same(seen, expected.take(slice(0, len(seen))))


def test_after_a_short_restart_it_goes_on_with_the_same_quotes() -> None:
    wall = Wall()
    first, cursor = watch(live(wall), 301)
    wall.sleep(30)
    feed = live(wall, cursor)
    arrival = feed.poll(0)
    assert arrival is not None
    assert arrival.broken_since is None
    seen = concat([*first, arrival.quotes])
    made = market(rate=50)
    expected = concat([made.second(MONDAY + i) for i in range(120)])
    assert same(seen, expected.take(slice(0, len(seen))))
    assert wall.ns - int(seen.ts[-1]) < NANO


def test_after_a_long_restart_it_goes_on_from_now_and_says_since_when_nobody_watched() -> None:
    wall = Wall()
    first, cursor = watch(live(wall), 100)
    wall.sleep(3_600)
    feed, restarted = live(wall, cursor), wall.ns
    parts, broken = [], []
    for _ in range(20):
        arrival = feed.poll(0.25)
        if arrival is not None:
            parts.append(arrival.quotes)
            broken.append(arrival.broken_since)
    assert broken == [int(first[-1].ts[-1])] + [None] * (len(broken) - 1)
    assert int(parts[0].ts[0]) >= restarted


def test_virtual_time_is_a_recording_with_a_clock() -> None:
    start = (MONDAY + 7) * NANO + 5

    def virtual() -> Simulator:
        return Simulator(REGISTRY, rate=2_000, start=start, speed="max")

    one = virtual()
    one.open(None)
    assert one.recorded
    assert one.waits
    parts = []
    for _ in range(3):
        arrival = one.poll(0)
        assert arrival is not None
        assert arrival.clock is not None
        assert 0 < len(arrival.quotes) <= 65_536
        parts.append(arrival.quotes)
    two = virtual()
    two.open(None)
    first = two.poll(0)
    assert first is not None
    two = virtual()
    two.open(first.cursor)
    second = two.poll(0)
    assert second is not None
    assert same(concat(parts[:2]), concat([first.quotes, second.quotes]))
    assert int(parts[0].ts[0]) >= start


def test_virtual_time_runs_at_its_speed() -> None:
    wall = Wall(0)
    feed = Simulator(REGISTRY, rate=50, start=MONDAY * NANO, speed=10, now=wall.now, sleep=wall.sleep)
    feed.open(None)
    last = 0
    while wall.ns < 6 * NANO:
        arrival = feed.poll(0.1)
        if arrival is not None and len(arrival.quotes):
            last = int(arrival.quotes.ts[-1])
    assert last / NANO - MONDAY == pytest.approx(60, abs=2)


def test_an_unknown_symbol_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected symbols of the registry, found QQ"):
        Simulator(REGISTRY, symbols=["ES", "QQ"])
