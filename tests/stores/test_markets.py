"""The world clock's tables: whole or not there, whatever dies (domain.md §8)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time
from typing import Any

import psycopg
import pytest

from thor.domain.calendars import Calendar, Hours, Session, build
from thor.domain.prices import NANO
from thor.runtime.markets import load
from thor.stores import markets
from thor.stores.markets import Built, NotCovered
from thor.stores.redis import connect

TOKYO = Calendar("XTKS", "Asia/Tokyo", (Hours(date(2011, 11, 21), time(9), time(15), (time(11, 30), time(12, 30))),))


def built(*years: int, name: str = "XTKS", confirmed: date | None = None) -> Built:
    sessions = [one for year in years for one in build(TOKYO, date(year, 1, 1), date(year, 12, 31), None)]
    return Built(name, TOKYO.zone, [0, 1, 2, 3, 4], confirmed, years, sessions)


@pytest.fixture
def conn(dsn: str) -> Any:  # noqa: ANN401
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def test_what_is_read_is_what_was_written(conn: psycopg.Connection) -> None:
    one = built(2024, 2025, confirmed=date(2025, 12, 31))
    odd = Session(
        date(2024, 2, 10), 1707526800 * NANO, 1707530400 * NANO, None, None, "special", "a notice", True, "why"
    )
    one = replace(one, sessions=sorted([*one.sessions, odd], key=lambda session: session.date))
    markets.write(conn, [one], "d")
    line = markets.timelines(conn, date(2024, 1, 1), date(2025, 12, 31))["XTKS"]
    assert line.sessions == list(one.sessions)
    assert str(line.zone) == "Asia/Tokyo"
    assert markets.confirmed_until(conn) == {"XTKS": date(2025, 12, 31)}


def test_a_year_written_again_is_replaced_and_the_others_stay(conn: psycopg.Connection) -> None:
    markets.write(conn, [built(2024, 2025)], "d")
    few = replace(built(2025), sessions=built(2025).sessions[:3])
    markets.write(conn, [few], "d")
    line = markets.timelines(conn, date(2024, 1, 1), date(2025, 12, 31))["XTKS"]
    assert [sum(one.date.year == year for one in line.sessions) for year in (2024, 2025)] == [262, 3]


def test_dates_that_were_never_made_are_refused_and_not_empty(conn: psycopg.Connection) -> None:
    with pytest.raises(NotCovered, match="no hours yet"):
        markets.timelines(conn, date(2024, 1, 1), date(2024, 1, 2))
    markets.write(conn, [built(2024)], "d")
    with pytest.raises(NotCovered, match="XTKS from 2024-12-26 to 2025-01-04"):
        markets.timelines(conn, date(2024, 12, 26), date(2025, 1, 4))
    with pytest.raises(NotCovered, match="XNYS"):
        markets.around(conn, int(datetime(2024, 6, 1, tzinfo=UTC).timestamp()) * NANO, ["XNYS"])


def test_missing_are_the_years_absent_old_or_made_from_another_configuration(conn: psycopg.Connection) -> None:
    assert markets.missing(conn, ["XTKS"], {2024}, "d", 60) == {2024}
    markets.write(conn, [built(2023, 2024)], "d")
    assert markets.missing(conn, ["XTKS"], {2024}, "d", 60) == set()
    assert markets.missing(conn, ["XTKS"], {2024, 2025}, "d", 60) == {2025}
    assert markets.missing(conn, ["XTKS", "XNYS"], {2024}, "d", 60) == {2024}
    assert markets.missing(conn, ["XTKS"], {2024}, "d", 0) == {2024}
    assert markets.missing(conn, ["XTKS"], {2024}, "other", 60) == {2023, 2024}


def test_a_writer_that_dies_in_the_middle_leaves_the_table_as_it_was(conn: psycopg.Connection, dsn: str) -> None:
    markets.write(conn, [built(2024)], "before")
    seen = conn.execute("SELECT count(*), min(opens), max(closes) FROM trading_sessions").fetchone()
    broken = replace(built(2024), sessions=[*built(2024).sessions[:9], replace(built(2024).sessions[9], kind="odd")])  # type: ignore[arg-type]
    with psycopg.connect(dsn, autocommit=True) as other, pytest.raises(psycopg.Error):
        markets.write(other, [broken], "after")
    assert conn.execute("SELECT count(*), min(opens), max(closes) FROM trading_sessions").fetchone() == seen
    assert conn.execute("SELECT digest FROM calendar_years").fetchall() == [("before",)]


def test_a_calendar_that_went_away_goes_with_its_sessions(conn: psycopg.Connection) -> None:
    markets.write(conn, [built(2024), built(2024, name="XOLD")], "d")
    markets.write(conn, [built(2024)], "d")
    assert conn.execute("SELECT DISTINCT calendar FROM trading_sessions").fetchall() == [("XTKS",)]


def test_the_control_markets_are_seeded_once_and_follow_the_file(conn: psycopg.Connection) -> None:
    wanted = list(load().markets)
    markets.seed(conn, wanted)
    markets.seed(conn, [replace(wanted[0], captures=False), *wanted[1:5]])
    rows = conn.execute("SELECT code, captures, weight::text FROM markets ORDER BY place").fetchall()
    assert rows == [
        ("JP", False, "0.25"),
        ("CN", True, "0.10"),
        ("IN", True, "0.05"),
        ("DE", False, "0.20"),
        ("UK", True, "0.05"),
    ]


def test_the_status_expires_so_that_a_clock_that_stands_still_is_seen(redis_url: str) -> None:
    client = connect(redis_url)
    assert markets.published(client) is None
    markets.publish(client, {"as_of": "2024-01-01T00:00:00Z"})
    assert markets.published(client) == {"as_of": "2024-01-01T00:00:00Z"}
    assert 0 < int(client.ttl("markets:status")) <= markets.EXPIRES_S
    client.close()
