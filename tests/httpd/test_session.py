"""GET /api/session."""

from __future__ import annotations

import psycopg
import pytest

from tests.httpd.conftest import Api, add_bar, set_watermark


@pytest.mark.parametrize("market", ["USA", "us", "Pre_USA", "Tokyo", "united kingdom"])
def test_the_newest_bar_of_the_future_stands_beside_the_market(
    api: Api, database: psycopg.Connection, market: str
) -> None:
    add_bar(database, "YM", "2013-10-08 12:00", "15000")
    add_bar(database, "YM", "2013-10-08 12:02", "15010")
    add_bar(database, "ES", "2013-10-08 12:03", "1650")
    set_watermark(database, "2013-10-08 12:02:30")
    document = api.get("/api/session", market=market, future="/ym").json
    assert document["market"].casefold() in {market.casefold(), "usa", "london"}
    assert document["future"] == "YM"
    assert document["status"] is document["captured"] is None
    assert "world clock" in document["why"]
    latest = document["intraday_latest"]
    assert (latest["ts"], latest["close"], latest["final"]) == ("2013-10-08T12:02:00Z", "15010", False)
    assert document["as_of"] == "2013-10-08T12:02:30Z"
    assert document["quality"] == "live"


def test_before_its_first_bar_a_future_has_none(api: Api, database: psycopg.Connection) -> None:
    assert api.get("/api/session", market="USA", future="ES").json["intraday_latest"] is None


def test_a_future_that_was_never_seeded_says_so(api: Api) -> None:
    answer = api.get("/api/session", market="USA", future="ES")
    assert (answer.status, answer.json["needs"]) == (503, "postgres")
    assert "seed" in answer.json["detail"]


def test_an_unknown_market_or_future_is_not_found(alone: Api) -> None:
    market = alone.get("/api/session", market="Atlantis", future="ES")
    assert (market.status, market.json["type"], market.json["parameter"]) == (404, "/problems/unknown-market", "market")
    assert "Tokyo" in market.json["known"]
    future = alone.get("/api/session", market="USA", future="XX")
    assert (future.status, future.json["type"], future.json["parameter"]) == (404, "/problems/unknown-symbol", "future")


def test_both_parameters_are_required(alone: Api) -> None:
    answer = alone.get("/api/session", market="USA")
    assert (answer.status, answer.json["type"], answer.json["parameter"]) == (
        400,
        "/problems/missing-parameter",
        "future",
    )
