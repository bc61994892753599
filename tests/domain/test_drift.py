"""The calendar checked against the market (domain.md §8)."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

from thor.domain.calendars import Calendar, Hours, Timeline, build
from thor.domain.drift import Drift, Seen, seen
from thor.domain.prices import NANO

GLOBEX = Calendar("CME", "America/Chicago", (Hours(date(2015, 9, 21), time(17), time(16), eve=True),))
LINES = {"CME": Timeline(GLOBEX.zone, GLOBEX.weekdays, build(GLOBEX, date(2024, 1, 8), date(2024, 1, 19), None))}


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NANO


def look(drift: Drift, at: str, watermark: str = "", **lasts: str) -> list[str]:
    quotes = {symbol: Seen(ns(at), (last, "")) for symbol, last in lasts.items()}
    return [alarm.kind for alarm in drift.look(LINES, ns(watermark or at), quotes)]


def make() -> Drift:
    return Drift({"ES": "CME", "NQ": "CME"}, 120 * NANO, 600 * NANO)


def test_trades_inside_closed_hours_raise_an_alarm_that_ends() -> None:
    drift = make()
    assert look(drift, "2024-01-13 12:00", ES="1") == []  # a Saturday
    assert look(drift, "2024-01-13 12:01", ES="2") == ["trades while closed"]
    assert look(drift, "2024-01-13 12:01", "2024-01-13 12:05", ES="2") == ["trades while closed"]
    assert look(drift, "2024-01-13 12:01", "2024-01-13 12:12", ES="2") == []


def test_quotes_that_trade_nothing_are_no_alarm() -> None:
    drift = make()
    assert [look(drift, f"2024-01-13 12:0{minute}", ES="1") for minute in range(3)] == [[], [], []]


def test_trades_near_an_open_or_a_close_are_no_alarm() -> None:
    drift = make()
    looks = [("2024-01-09 22:00", "1"), ("2024-01-09 22:01", "2"), ("2024-01-09 22:59", "3")]
    assert [look(drift, at, ES=last) for at, last in looks] == [[], [], []]


def test_a_fast_replay_that_skips_a_session_between_two_looks_is_no_alarm() -> None:
    drift = make()
    assert look(drift, "2024-01-09 22:30", ES="1") == []
    assert look(drift, "2024-01-10 22:30", ES="2") == []


def test_silence_of_all_symbols_while_open_raises_an_alarm() -> None:
    drift = make()
    assert look(drift, "2024-01-09 15:00", "2024-01-09 15:09", ES="1", NQ="1") == []
    assert look(drift, "2024-01-09 15:00", "2024-01-09 15:11", ES="1", NQ="1") == ["silence while open"]
    assert look(drift, "2024-01-09 15:11", ES="2") == []


def test_silence_over_a_close_or_before_any_quote_is_no_alarm() -> None:
    drift = make()
    assert look(drift, "2024-01-09 21:59", "2024-01-09 23:05", ES="1") == []
    assert look(drift, "2024-01-09 21:59", "2024-01-09 23:05") == []


def test_the_simulator_is_not_looked_at() -> None:
    quotes = {
        "ES": {"ts": "2024-01-09T15:00:00Z", "last": "1", "volume": "2", "source": "SIMULATOR"},
        "NQ": {"ts": "2024-01-09T15:00:00Z", "last": "1", "source": "EXCEL"},
        "YM": {},
    }
    assert seen(quotes, "SIMULATOR") == {"NQ": Seen(ns("2024-01-09 15:00"), ("1", ""))}
