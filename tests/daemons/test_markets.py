"""The markets process over real servers: the watermark is its clock, its table is whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from daemons.markets import Markets
from tests.conftest import until
from tests.daemons.conftest import Beats, Log
from thor.domain.prices import NANO
from thor.runtime.daemon import Context, Step
from thor.runtime.settings import Settings
from thor.stores import db, keys
from thor.stores import markets as store


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NANO


@pytest.fixture
def clock(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Markets]:
    # The builder is a process of its own and finds the servers as every process does.
    for name, value in {
        "DB_HOST": settings.db_host,
        "DB_PORT": str(settings.db_port),
        "DB_NAME": settings.db_name,
        "DB_USER": settings.db_user,
        "DB_PASSWORD": settings.db_password,
        "REDIS_URL": settings.redis_url,
    }.items():
        monkeypatch.setenv(name, value)
    made = Markets(cast("Context", Beats(settings)))
    made.open()
    yield made
    made.close()


@pytest.fixture
def at(log: Log) -> Callable[..., None]:
    """Move the watermark, with a quote or without."""

    def move(instant: str, **fields: str) -> None:
        log.client.hset(keys.WRITER, mapping={"watermark": ns(instant), "at": ns(instant)})
        if fields:
            ts = f"{datetime.fromisoformat(instant):%Y-%m-%dT%H:%M:%SZ}"
            for name, value in {**fields, "ts": ts, "source": "EXCEL"}.items():
                log.client.hset(keys.LATEST + "ES", name, value)

    return move


def step(clock: Markets) -> Step:
    """Steps until the clock does its work."""
    taken: list[Step] = []

    def works() -> bool:
        taken.append(clock.step())
        return taken[-1].state in ("running", "idle")

    until(works, "the clock works", 60)
    return taken[-1]


def told(log: Log) -> dict[str, Any]:
    found = store.published(log.client)
    assert found is not None
    return found


def test_the_clock_shows_the_watermark_of_a_replay_and_fills_the_table_for_it(
    clock: Markets, log: Log, at: Callable[..., None], conn: db.Connection
) -> None:
    assert step(clock).state == "idle"
    at("2013-10-08 13:00:00")
    until(lambda: clock.step().state == "running" and store.published(log.client), "it is told", 60)
    document = told(log)
    assert document["as_of"] == "2013-10-08T13:00:00Z"
    assert document["open"] == ["DE", "UK", "PRE"]
    years = {year for (year,) in conn.execute("SELECT DISTINCT year FROM calendar_years")}
    assert {2013, 2014, datetime.now(UTC).year} <= years
    at("2013-10-08 13:30:00")
    clock.step()
    assert told(log)["open"] == ["DE", "UK", "US", "CA", "MX"]
    assert conn.execute("SELECT count(*) FROM markets").fetchone() == (9,)


def test_trades_on_a_saturday_are_a_warning_once_and_a_metric(
    clock: Markets, log: Log, at: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    at("2026-11-14 12:00:00", last="6000")
    step(clock)
    with caplog.at_level(logging.WARNING):
        for second in (10, 20):
            at(f"2026-11-14 12:00:{second}", last=f"60{second}")
            clock.step()
    assert [record.message[:27] for record in caplog.records if "traded" in record.message] == [
        "CME equity is closed, and E"
    ]
    assert told(log)["alarms"] != []


def test_a_table_that_cannot_be_made_is_an_error_and_the_process_goes_on(
    clock: Markets, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "wrong")
    monkeypatch.setenv("DB_PORT", "1")
    until(lambda: clock.step().why == "the hours could not be made", "it says so", 60)
    assert any("could not be made" in record.message for record in caplog.records if record.levelno == logging.ERROR)
