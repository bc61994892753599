"""What findings come to: pure, without a server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from thor.domain.calendars import Timeline
from thor.domain.diagnosis import judge, verdict
from thor.domain.findings import ApiLook, Bar, Elsewhere, Findings, Position, PostgresLook, Process, RedisLook
from thor.domain.stamps import rfc3339
from thor.domain.trading import Trading
from thor.runtime import instruments, markets
from thor.runtime.settings import ROOT

SECOND = 1_000_000_000
#: A Wednesday at noon in Chicago, and a Saturday.
OPEN = int(datetime(2026, 11, 18, 18, tzinfo=UTC).timestamp()) * SECOND
CLOSED = int(datetime(2026, 11, 21, 18, tzinfo=UTC).timestamp()) * SECOND
TODAY = date(2026, 11, 18)
FUTURES = list(instruments.load([ROOT / "config" / "instruments.yaml"]))
NAMES = ("ingester", "intraday", "vwap", "httpd")


def redis_at(now: int, n: int = 100, **writer: str) -> RedisLook:
    told = {"n": str(n), "generation": "7", "at": str(now), "watermark": str(now), "count:accepted": str(n), **writer}
    return RedisLook(now, told, {"ES": now - SECOND}, 10, 1 << 20, 1 << 30)


def tables_at(now: int, n: int = 100) -> PostgresLook:
    position = Position(7, n, now - SECOND, 0)
    minute = now // (60 * SECOND) * 60 * SECOND
    bars = {"ES": Bar(minute, now - SECOND, 5)}
    return PostgresLook({"intraday": position, "vwap": position}, bars, TODAY, {"XTKS": TODAY + timedelta(days=400)})


def well(now: int = OPEN) -> Findings:
    """A stack on which nothing is wrong."""
    return Findings(
        instruments=FUTURES,
        role="all",
        expected=NAMES,
        processes=[Process(name, 1, "running") for name in NAMES],
        redis=(redis_at(now - SECOND, 90), redis_at(now)),
        postgres=(tables_at(now - SECOND, 90), tables_at(now)),
        prints={"ES": now - 2 * SECOND},
        api=ApiLook({"ES": now - SECOND}, {"ES": 5}),
        elsewhere=[],
        free={"/state": (50 << 30, 100 << 30)},
        memory=(8 << 30, 16 << 30),
        offsets={"Redis": 0.0, "Postgres": 0.001},
        secrets={"DB_PASSWORD": "Ieph4aeLah3u"},
        exposed=[],
        trading=markets.weekly(FUTURES),
    )


def red(found: Findings, *, pre_open: bool = False) -> list[str]:
    return [line.name for line in judge(found, pre_open=pre_open) if line.verdict == "red"]


def later(found: Findings, **changes: object) -> Findings:
    """The same with the second look at Redis changed."""
    assert not isinstance(found.redis, str)
    return replace(found, redis=(found.redis[0], replace(found.redis[1], **changes)))  # type: ignore[arg-type]


def test_every_line_is_green_where_nothing_is_wrong() -> None:
    lines = judge(well())
    assert {line.verdict for line in lines} == {"green"}
    assert verdict(lines) == "green"


@pytest.mark.parametrize(
    ("confirmed", "said"),
    [
        ({}, "yellow"),
        ({"XTKS": TODAY + timedelta(days=400), "XBOM": TODAY + timedelta(days=43)}, "green"),
        ({"XTKS": TODAY + timedelta(days=400), "XBOM": TODAY + timedelta(days=20)}, "yellow"),
        ({"XTKS": TODAY + timedelta(days=400), "XBOM": TODAY - timedelta(days=1)}, "red"),
        ({"XTKS": TODAY + timedelta(days=400), "XBOM": None}, "yellow"),
    ],
    ids=["no world clock", "confirmed", "soon past", "past", "never"],
)
def test_the_calendar_says_until_when_it_is_confirmed(confirmed: dict[str, date | None], said: str) -> None:
    held = replace(tables_at(OPEN), confirmed=confirmed)
    lines = {line.name: line for line in judge(replace(well(), postgres=(held, held)))}
    assert lines["calendar"].verdict == said
    assert {name for name, line in lines.items() if line.verdict != "green"} <= {"calendar"}


def test_a_market_that_is_closed_may_be_silent() -> None:
    found = replace(later(well(CLOSED), latest={}), api=None)
    assert red(found) == []
    assert red(found, pre_open=True) == []


def test_a_holiday_of_the_calendar_is_a_market_that_is_closed() -> None:
    empty = Timeline("America/Chicago", range(5), [])
    holiday = Trading(
        {one.symbol: one.hours for one in FUTURES}, {one.symbol: empty for one in FUTURES}, OPEN, OPEN + 1
    )
    found = replace(later(well(), latest={}), trading=holiday)
    said = {line.name: line for line in judge(found)}
    assert said["quotes"].verdict == "green"
    assert "no future trades now" in said["quotes"].evidence


def test_open_futures_without_any_quote_are_red_but_one_that_comes_is_enough() -> None:
    asked_of_nobody = replace(well(), api=None)
    assert red(later(asked_of_nobody, latest={})) == ["quotes"]
    assert red(later(asked_of_nobody, latest={"DX": OPEN - 59 * SECOND})) == []


def test_a_log_that_stands_is_red_also_when_no_market_is_open() -> None:
    found = well(CLOSED)
    assert red(later(found, writer=dict(redis_at(CLOSED).writer) | {"at": str(CLOSED - 30 * SECOND)})) == ["quotes"]


def test_a_recording_that_ended_asks_for_no_more_quotes() -> None:
    ended = {"cursor:replay": "x", "ended": "100", "at": str(OPEN - 86_400 * SECOND)}
    assert red(later(well(), writer=dict(redis_at(OPEN).writer) | ended)) == []


def test_a_quiet_future_is_no_fault_and_a_print_without_its_bar_is() -> None:
    assert red(replace(well(), prints={})) == []
    assert red(replace(well(), prints={"ES": OPEN + SECOND})) == ["bars"]
    assert red(replace(well(), prints={"ES": OPEN - 2 * SECOND, "NQ": OPEN - 2 * SECOND})) == ["bars"]


def test_who_stands_is_red_and_who_catches_up_is_not() -> None:
    moving = (tables_at(OPEN - 30 * SECOND, 50), tables_at(OPEN - 20 * SECOND, 60))
    assert red(replace(well(), postgres=moving, prints={})) == []
    standing = (moving[1], moving[1])
    assert red(replace(well(), postgres=standing, prints={})) == ["lag"]
    far = (tables_at(OPEN - 90 * SECOND, 50), tables_at(OPEN - 80 * SECOND, 60))
    assert red(replace(well(), postgres=far, prints={})) == ["lag"]


@pytest.mark.parametrize(
    ("n", "first", "said"), [(100, 200, "trimmed past it"), (500, 10, "Redis lost entries")], ids=["trimmed", "lost"]
)
def test_a_place_that_the_log_does_not_have_is_red(n: int, first: int, said: str) -> None:
    held = tables_at(OPEN, n)
    found = replace(later(well(), first=first, writer=redis_at(OPEN, 300).writer), postgres=(held, held))
    lines = {line.name: line for line in judge(found)}
    assert lines["lag"].verdict == "red"
    assert said in lines["lag"].evidence
    assert lines["bars"].verdict == "yellow"


def test_missed_entries_are_worth_a_word_for_ever() -> None:
    held = tables_at(OPEN)
    missed = replace(held, positions={name: replace(one, missed=3) for name, one in held.positions.items()})
    lines = {line.name: line for line in judge(replace(well(), postgres=(missed, missed)))}
    assert (lines["lag"].verdict, "3 missed" in lines["lag"].evidence) == ("yellow", True)


@pytest.mark.parametrize(
    "api",
    [
        ApiLook({"ES": OPEN - 90 * SECOND}, {"ES": 5}),
        ApiLook({}, {"ES": 5}),
        ApiLook({"ES": OPEN - SECOND}, {"ES": 4}),
        ApiLook({"ES": OPEN - SECOND}, {"ES": None}),
        ApiLook(error="/api/quotes says 503"),
    ],
    ids=["older quote", "no quote", "older bar", "no bar", "no answer"],
)
def test_an_api_that_says_otherwise_than_its_servers_is_red(api: ApiLook) -> None:
    assert red(replace(well(), api=api)) == ["agreement"]


def test_what_the_servers_got_while_the_api_was_asked_is_no_disagreement() -> None:
    assert red(replace(well(), api=ApiLook({"ES": OPEN - 2 * SECOND}, {"ES": 5}))) == []


def test_another_stack_with_its_own_ingester_is_no_lost_producer() -> None:
    assert red(replace(well(), elsewhere=[Elsewhere("127.0.0.1:8079/0", 1.0, 0.5)])) == []
    assert red(replace(well(), elsewhere=[Elsewhere("127.0.0.1:6379/0", 1.0, None)])) == ["producer"]
    assert red(replace(well(), elsewhere=[Elsewhere("127.0.0.1:6379/0", 3600.0, None)])) == []


def test_a_process_that_waits_for_a_server_that_is_away_is_not_the_fault() -> None:
    waiting = [Process(name, 1, "waiting" if name != "httpd" else "running", "Postgres: gone") for name in NAMES]
    assert red(replace(well(), processes=waiting, postgres="refused")) == ["postgres"]
    assert red(replace(well(), processes=waiting)) == ["processes"]


@pytest.mark.parametrize("state", ["stopped", "failing", "stalled"])
def test_a_process_that_does_nothing_is_red_and_what_follows_is_not_judged(state: str) -> None:
    processes = [Process(name, 1, state if name == "intraday" else "running") for name in NAMES]
    found = replace(well(), processes=processes, postgres=(tables_at(OPEN, 50), tables_at(OPEN, 50)))
    assert red(found) == ["processes"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"free": {"/state": (500 << 20, 100 << 30)}}, "disk"),
        ({"memory": (100 << 20, 16 << 30)}, "memory"),
        ({"offsets": {"Redis": -1.5}}, "clock"),
        ({"secrets": {"DB_PASSWORD": "Change-Me"}}, "secrets"),
        ({"exposed": ["/state/secrets.json"]}, "secrets"),
        ({"expected": ("httpd",), "role": "web"}, "role"),
        ({"redis": "refused"}, "redis"),
        ({"postgres": "refused"}, "postgres"),
    ],
)
def test_each_finding_has_its_own_line(changes: dict[str, object], line: str) -> None:
    assert red(replace(well(), **changes)) == [line]  # type: ignore[arg-type]


def test_no_line_shows_a_secret() -> None:
    found = replace(well(), secrets={"DB_PASSWORD": "Ieph4aeLah3u", "SCHWAB_APP_SECRET": "changeme"})
    assert not any("Ieph4aeLah3u" in line.evidence for line in judge(found))


def test_before_the_open_each_future_needs_its_own_fresh_quote() -> None:
    lines = {line.name: line for line in judge(well(), pre_open=True)}
    assert lines["fresh"].verdict == "red"
    assert "NQ" in lines["fresh"].evidence
    assert "ES" not in lines["fresh"].evidence
    all_fresh = {one.symbol: OPEN for one in FUTURES}
    said = {line.name: line for line in judge(later(well(), latest=all_fresh), pre_open=True)}
    assert said["fresh"].verdict == "green"
    assert {said["contracts"].verdict, said["targets"].verdict} == {"yellow"}


def test_evidence_says_when_in_utc() -> None:
    lines = {line.name: line for line in judge(replace(well(), prints={"ES": OPEN + SECOND}))}
    assert rfc3339(OPEN + SECOND) in lines["bars"].evidence
