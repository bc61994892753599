"""GET /api/markets, /api/markets/composite, and what /api/session takes from them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import psycopg
import pytest

from tests.httpd.conftest import Api, ns, set_watermark
from thor.domain.calendars import build
from thor.runtime.markets import load
from thor.runtime.settings import Settings
from thor.stores import keys, markets
from thor.stores.redis import connect


@pytest.fixture
def hours(database: psycopg.Connection, settings: Settings) -> Callable[[str], None]:
    """Every calendar of 2024 by its weekday rule; called, it moves the watermark."""
    clockwork = load()
    first, last = date(2024, 1, 1), date(2024, 12, 31)
    built = [
        markets.Built(name, one.zone, sorted(one.weekdays), None, (2024,), build(one, first, last, None))
        for name, one in clockwork.calendars.items()
    ]
    markets.write(database, built, "d")

    def move(instant: str) -> None:
        set_watermark(database, instant)
        with connect(settings.redis_url) as client:
            client.hset(keys.WRITER, mapping={"watermark": ns(instant), "at": ns(instant)})

    return move


def test_nine_markets_are_told_at_the_watermark(api: Api, hours: Callable[[str], None]) -> None:
    hours("2024-06-04 13:45")
    document = api.get("/api/markets").json
    assert [one["code"] for one in document["markets"]] == ["JP", "CN", "IN", "DE", "UK", "PRE", "US", "CA", "MX"]
    assert (document["as_of"], document["composite"], document["phase"]) == ("2024-06-04T13:45:00Z", "55", "OVERLAP")
    assert document["quality"] == "stale"  # the log has not grown since 2024
    tokyo, usa = document["markets"][0], document["markets"][6]
    assert (usa["status"], usa["local_time"], usa["utc_offset"], usa["dst"]) == (
        "OPEN",
        "2024-06-04T09:45:00-04:00",
        "-04:00",
        True,
    )
    assert (usa["next_event"], usa["next_event_at"], usa["seconds_to_next_event"]) == (
        "PRECLOSE",
        "2024-06-04T19:45:00Z",
        21_600,
    )
    assert (tokyo["next_open"], tokyo["next_close"]) == ("2024-06-05T00:00:00Z", "2024-06-05T06:00:00Z")
    assert (tokyo["dst"], tokyo["quality"]) == (False, "unconfirmed")


@pytest.mark.parametrize("name", ["US", "usa", "USA"])
def test_one_market_is_found_by_code_or_name(api: Api, hours: Callable[[str], None], name: str) -> None:
    hours("2024-06-04 13:45")
    document = api.get("/api/markets", market=name).json
    assert [one["code"] for one in document["markets"]] == ["US"]
    assert document["composite"] == "55"


def test_the_composite_stands_alone(api: Api, hours: Callable[[str], None]) -> None:
    hours("2024-06-04 02:00")
    document = api.get("/api/markets/composite").json
    assert (document["composite"], document["composite_of"], document["phase"]) == ("35", "100", "ASIAN")
    assert document["open"] == ["JP", "CN"]
    assert "markets" not in document


def test_another_instant_may_be_asked_for_inside_the_table_only(api: Api, hours: Callable[[str], None]) -> None:
    hours("2024-06-04 13:45")
    asked = api.get("/api/markets/composite", at="2024-06-08T13:45:00Z").json
    assert (asked["as_of"], asked["composite"], asked["phase"]) == ("2024-06-08T13:45:00Z", "0", None)
    far = api.get("/api/markets", at="2031-06-04T13:45:00Z")
    assert (far.status, far.json["type"], far.json["parameter"]) == (400, "/problems/invalid-parameter", "at")


def test_before_the_first_entry_of_the_log_nobody_knows_the_time(api: Api) -> None:
    answer = api.get("/api/markets")
    assert (answer.status, answer.json["needs"]) == (503, "ingester")


def test_before_the_hours_are_made_the_clock_is_unavailable(
    api: Api, settings: Settings, database: psycopg.Connection
) -> None:
    with connect(settings.redis_url) as client:
        client.hset(keys.WRITER, mapping={"watermark": ns("2024-06-04 13:45"), "at": ns("2024-06-04 13:45")})
    answer = api.get("/api/markets")
    assert (answer.status, answer.json["needs"]) == (503, "markets")


def test_a_session_has_the_status_of_its_market(api: Api, hours: Callable[[str], None]) -> None:
    hours("2024-06-04 19:50")
    document = api.get("/api/session", market="USA", future="ES").json
    assert (document["market"], document["status"], document["captured"]) == ("USA", "PRECLOSE", None)
    assert document["clock"]["next_close"] == "2024-06-04T20:00:00Z"
    assert document["clock"]["session"]["opens"] == "2024-06-04T13:30:00Z"
