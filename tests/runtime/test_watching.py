"""When a future trades, as the watchdog knows it: from Postgres, or from the weekly hours. A real Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from thor.domain.calendars import build
from thor.domain.prices import NANO
from thor.runtime import instruments, markets
from thor.runtime.settings import ROOT, Settings
from thor.runtime.watching import Probes
from thor.stores import db
from thor.stores import markets as store
from thor.stores.events import Waiting

REGISTRY = instruments.load([ROOT / "config" / "instruments.yaml"])


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NANO


@pytest.fixture
def conn(dsn: str) -> Iterator[db.Connection]:
    with db.connect(dsn, "test") as connection:
        yield connection


def fill(conn: db.Connection, clockwork: markets.Clockwork, holiday: date, *years: int) -> None:
    """The table of the calendars of futures by the weekday rule, with one holiday for all."""
    built = []
    for name in clockwork.of_futures:
        rule = clockwork.calendars[name]
        sessions = [one for year in years for one in build(rule, date(year, 1, 1), date(year, 12, 31), None)]
        sessions = [one for one in sessions if one.date != holiday]
        built.append(store.Built(name, rule.zone, [0, 1, 2, 3, 4], None, years, sessions))
    store.write(conn, built, "d")


def test_a_holiday_of_the_table_closes_every_future_but_those_that_never_close(conn: db.Connection) -> None:
    clockwork, noon = markets.load(), at("2025-12-25T18:00:00")
    with pytest.raises(store.NotCovered):
        markets.trading(conn, clockwork, REGISTRY, noon)
    fill(conn, clockwork, date(2025, 12, 25), 2025, 2026)
    dated, weekly = markets.trading(conn, clockwork, REGISTRY, noon), markets.weekly(REGISTRY)
    follow = [one.symbol for one in REGISTRY if clockwork.calendar_of(one)]
    assert {"ES", "CL", "ZB"} <= set(follow)
    assert not any(dated.is_open(symbol, noon) for symbol in follow)
    assert all(weekly.is_open(symbol, noon) for symbol in follow)
    assert all(dated.is_open(symbol, noon - 86_400 * NANO) for symbol in follow)
    assert dated.dated.keys() == set(follow)


def test_the_watchdog_keeps_what_it_read_while_postgres_or_its_table_is_away(
    server_settings: Settings, dsn: str, redis_url: str, conn: db.Connection, tmp_path: Path
) -> None:
    named = replace(server_settings, db_name=str(conninfo_to_dict(dsn)["dbname"]), redis_url=redis_url)
    probes = Probes(named, Waiting(tmp_path / "events"), REGISTRY)
    try:
        probes._postgres()
        weekly = probes.trading
        assert not weekly.dated  # the markets process has not run yet
        today = datetime.now(UTC).date()
        fill(conn, markets.load(), today, today.year - 1, today.year, today.year + 1)
        probes._hours_at = 0.0  # an hour later
        probes._postgres()
        read = probes.trading
        assert "ES" in read.dated
        conn.execute("DELETE FROM calendar_years")
        probes._hours_at = 0.0
        probes._postgres()
        assert probes.trading is read
        conn.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'thor watchdog'"
        )
        with pytest.raises(psycopg.OperationalError):
            probes._postgres()
        assert probes.trading is read
    finally:
        probes.close()
