"""GET /api/vwap/today and /api/vwap/rolling."""

from __future__ import annotations

from decimal import Decimal

import psycopg
import pytest

from tests.httpd.conftest import Api, add_bar, set_watermark


@pytest.fixture(autouse=True)
def _minutes(database: psycopg.Connection) -> None:
    """A trade date that begins at 22:00 UTC on the eve, summer time in Chicago."""
    add_bar(database, "ES", "2013-10-07 21:59", "1000", "7", trade_date="2013-10-07")
    add_bar(database, "ES", "2013-10-07 22:00", "100", "1", trade_date="2013-10-08")
    add_bar(database, "ES", "2013-10-08 11:29", "110", "1", trade_date="2013-10-08")
    add_bar(database, "ES", "2013-10-08 11:31", "120", "1", trade_date="2013-10-08")
    add_bar(database, "ES", "2013-10-08 12:00", "130.5", "2", trade_date="2013-10-08")
    set_watermark(database, "2013-10-08 12:00:30")


def test_the_session_vwap_starts_with_the_trade_date_and_has_bands(api: Api) -> None:
    document = api.get("/api/vwap/today", symbols="es,XX").json
    assert document["anchor"] == "session"
    assert document["unknown"] == ["XX"]
    (value,) = document["values"]
    assert 0 <= value.pop("age_ms") < 5000
    sigma = Decimal(value.pop("sigma"))
    squares = (100**2 + 110**2 + 120**2 + 2 * Decimal("130.5") ** 2) / 5
    assert abs(sigma**2 - (squares - Decimal("118.2") ** 2)) < Decimal("1e-7")
    bands = {name: Decimal(value.pop(name)) for name in ("upper_1", "lower_1", "upper_2", "lower_2")}
    for name, times in (("upper_1", 1), ("lower_1", -1), ("upper_2", 2), ("lower_2", -2)):
        assert abs(bands[name] - (Decimal("118.2") + times * sigma)) < Decimal("1e-9")
    assert value == {
        "symbol": "ES", "trade_date": "2013-10-08", "vwap": "118.2", "volume": "5", "notional": "591",
        "as_of": "2013-10-08T12:00:30Z", "source": "vwap", "quality": "live",
    }  # fmt: skip


def test_the_utc_anchor_starts_at_midnight(api: Api) -> None:
    (value,) = api.get("/api/vwap/today", symbols="ES", anchor="utc").json["values"]
    assert (value["date"], value["volume"], value["notional"], value["vwap"]) == ("2013-10-08", "4", "491", "122.75")


def test_a_symbol_that_did_not_trade_has_no_vwap(api: Api) -> None:
    (value,) = api.get("/api/vwap/today", symbols="YM").json["values"]
    assert value["vwap"] is value["sigma"] is value["upper_1"] is None
    assert (value["volume"], value["notional"]) == ("0", "0")


def test_the_rolling_window_ends_with_the_running_minute_and_leaves_out_the_minute_before_it(api: Api) -> None:
    document = api.get("/api/vwap/rolling", symbols="ES").json
    assert document["minutes"] == 30
    (value,) = document["values"]
    assert (value["volume"], value["notional"], value["vwap"]) == ("3", "381", "127")
    (wider,) = api.get("/api/vwap/rolling", symbols="ES", minutes=32).json["values"]
    assert wider["volume"] == "4"


def test_the_rolling_window_of_an_earlier_instant_is_what_it_was(api: Api) -> None:
    (value,) = api.get("/api/vwap/rolling", symbols="ES", minutes=2, at="2013-10-08T11:30:59Z").json["values"]
    assert (value["volume"], value["vwap"], value["as_of"]) == ("1", "110", "2013-10-08T11:30:59Z")
    assert value["quality"] == "stale"


def test_a_recurring_quotient_is_rounded_half_even_to_ten_decimals(api: Api, database: psycopg.Connection) -> None:
    add_bar(database, "YM", "2013-10-08 11:59", "10", "1", trade_date="2013-10-08")
    add_bar(database, "YM", "2013-10-08 12:00", "11", "2", trade_date="2013-10-08")
    (value,) = api.get("/api/vwap/today", symbols="YM").json["values"]
    assert value["vwap"] == "10.6666666667"


def test_without_symbols_every_instrument_is_there(api: Api) -> None:
    for path in ("/api/vwap/today", "/api/vwap/rolling"):
        assert [value["symbol"] for value in api.get(path).json["values"]] == ["ES", "YM", "GC", "GCZ3"]


def test_before_the_first_commit_nothing_is_known(api: Api, database: psycopg.Connection) -> None:
    database.execute("DELETE FROM positions")
    (value,) = api.get("/api/vwap/today", symbols="ES").json["values"]
    assert value["vwap"] is value["as_of"] is value["age_ms"] is value["trade_date"] is None
    assert value["quality"] == "stale"


def test_values_grow_stale_when_nobody_commits(api: Api, database: psycopg.Connection) -> None:
    database.execute("UPDATE positions SET updated_at = clock_timestamp() - interval '5 minutes'")
    (value,) = api.get("/api/vwap/rolling", symbols="ES").json["values"]
    assert value["quality"] == "stale"
    assert 300_000 <= value["age_ms"] < 305_000


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/api/vwap/rolling", {"minutes": "0"}),
        ("/api/vwap/rolling", {"minutes": "1441"}),
        ("/api/vwap/rolling", {"minutes": "ten"}),
        ("/api/vwap/rolling", {"at": "2013-10-08T12:00:00"}),
        ("/api/vwap/today", {"anchor": "USA"}),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(api: Api, path: str, parameters: dict[str, str]) -> None:
    answer = api.get(path, **parameters)
    assert (answer.status, answer.json["type"]) == (400, "/problems/invalid-parameter")
    assert answer.json["parameter"] in parameters
