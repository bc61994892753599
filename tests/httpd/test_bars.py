"""GET /api/bars: shapes, ranges, paging, larger intervals, minutes without a bar."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.httpd.conftest import Api, add_bar, ns, set_watermark


def add_book(conn: psycopg.Connection, minute: str, bid: str | None, ask: str | None) -> None:
    conn.execute(
        "INSERT INTO books (instrument_id, minute, bid, ask)"
        " SELECT id, %s, %s, %s FROM instruments WHERE symbol = 'ES'",
        [f"{minute}+00", bid, ask],
    )


def pages(api: Api, **parameters: object) -> list[list[dict[str, Any]]]:
    """Every page, by following ``next``."""
    found: list[list[dict[str, Any]]] = []
    cursor: dict[str, object] = {}
    while True:
        answer = api.get("/api/bars", **parameters, **cursor)
        assert answer.status == 200, answer.body
        found.append(answer.json["bars"])
        if answer.json["next"] is None:
            return found
        cursor = {"cursor": answer.json["next"]}


def starts(bars: list[dict[str, Any]]) -> list[str]:
    return [bar["ts"][11:16] for bar in bars]


@pytest.fixture
def _hour(database: psycopg.Connection) -> None:
    """ES from 12:00 to 12:59 but for every seventh minute, closes 1000, 1001 …"""
    for minute in range(60):
        if minute % 7 != 6:
            add_bar(database, "ES", f"2013-10-08 12:{minute:02}", str(1000 + minute), str(minute))
    set_watermark(database, "2013-10-08 12:59:30")


def test_a_bar_says_everything_in_decimal_strings(api: Api, database: psycopg.Connection) -> None:
    add_bar(database, "ES", "2013-10-08 12:00", "1650.25", "3", open="1650", high="1651.5", low="1649.75",
            notional="4951", revision=2, revised_at="2013-10-08 12:02:01.5+00", basis="mixed")  # fmt: skip
    add_book(database, "2013-10-08 12:00", "1650.25", "1650.75")
    set_watermark(database, "2013-10-08 12:05")
    document = api.get("/api/bars", symbol="ES").json
    assert 0 <= document.pop("age_ms") < 5000
    assert document == {
        "symbol": "ES", "interval": "1m", "as_of": "2013-10-08T12:05:00Z", "source": "intraday", "quality": "live",
        "bars": [
            {
                "ts": "2013-10-08T12:00:00Z", "open": "1650", "high": "1651.5", "low": "1649.75", "close": "1650.25",
                "volume": "3", "notional": "4951", "vwap": "1650.3333333333", "updates": 3, "revision": 2,
                "revised_at": "2013-10-08T12:02:01.5Z", "basis": "mixed", "bid": "1650.25", "ask": "1650.75",
                "spread": "0.5", "final": True, "quality": "revised",
            }
        ],
        "next": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("notional", "volume", "vwap"),
    [
        ("0", "0", None),
        ("10", "4", "2.5"),
        ("-37.63", "1", "-37.63"),
        ("1", "3", "0.3333333333"),
        ("0.00000000005", "1", "0"),
        ("0.00000000015", "1", "0.0000000002"),
        ("0.00000000025", "1", "0.0000000002"),
        ("123456789012345678901234567890.5", "1", "123456789012345678901234567890.5"),
    ],
)
def test_vwap_is_rounded_half_even_to_ten_decimals(
    api: Api, database: psycopg.Connection, notional: str, volume: str, vwap: str | None
) -> None:
    add_bar(database, "ES", "2013-10-08 12:00", "1", volume, notional=notional)
    (bar,) = api.get("/api/bars", symbol="ES").json["bars"]
    assert bar["vwap"] == vwap


def test_a_bar_without_a_book_has_no_bid_and_a_crossed_one_no_spread(api: Api, database: psycopg.Connection) -> None:
    for minute in ("12:00", "12:01", "12:02"):
        add_bar(database, "ES", f"2013-10-08 {minute}", "1650")
    add_book(database, "2013-10-08 12:01", "1651", "1650")
    add_book(database, "2013-10-08 12:02", "1651", None)
    found = [(bar["bid"], bar["ask"], bar["spread"]) for bar in api.get("/api/bars", symbol="ES").json["bars"]]
    assert found == [(None, None, None), ("1651", "1650", None), ("1651", None, None)]


@pytest.mark.usefixtures("_hour")
def test_a_range_is_half_open_whatever_form_its_ends_have(api: Api) -> None:
    for start, end in (
        ("2013-10-08T12:10:00Z", "2013-10-08T12:12:00Z"),
        ("2013-10-08T07:10:00-05:00", "2013-10-08T12:12:00+00:00"),
        (ns("2013-10-08 12:10") // 10**9, f"{ns('2013-10-08 12:12') // 10**9}.0"),
        ("2013-10-08T12:09:00.000000001Z", "2013-10-08T12:11:00.000000001Z"),
    ):
        assert starts(api.get("/api/bars", symbol="ES", from_=start, to=end).json["bars"]) == ["12:10", "12:11"]
    edge = api.get("/api/bars", symbol="ES", from_="2013-10-08T11:00:00Z", to="2013-10-08T12:00:00Z").json
    assert (edge["bars"], edge["next"]) == ([], None)


@pytest.mark.usefixtures("_hour")
@pytest.mark.parametrize("interval", ["1m", "5m", "15m", "1h"])
@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
def test_pages_have_no_seam_and_no_repeat(api: Api, interval: str, limit: int) -> None:
    whole = api.get("/api/bars", symbol="ES", interval=interval).json["bars"]
    found = pages(api, symbol="ES", interval=interval, limit=limit)
    assert [bar for page in found for bar in page] == whole
    assert all(len(page) == limit for page in found[:-1])
    assert 1 <= len(found[-1]) <= limit


@pytest.mark.usefixtures("_hour")
def test_pages_keep_to_the_range(api: Api) -> None:
    found = pages(api, symbol="ES", from_="2013-10-08T12:10:00Z", to="2013-10-08T12:16:00Z", limit=2)
    assert [starts(page) for page in found] == [["12:10", "12:11"], ["12:12", "12:14"], ["12:15"]]


@pytest.mark.usefixtures("_hour")
def test_a_filled_page_has_every_minute_up_to_the_watermark(api: Api, database: psycopg.Connection) -> None:
    database.execute("INSERT INTO watches VALUES (%s, %s)", [ns("2013-10-08 11:00"), ns("2013-10-08 12:59:30")])
    found = pages(api, symbol="ES", fill=1, limit=13)
    assert starts([bar for page in found for bar in page]) == [f"12:{minute:02}" for minute in range(60)]
    assert {bar["ts"][11:16] for page in found for bar in page if bar.get("why") == "quiet"} == {
        f"12:{minute:02}" for minute in range(6, 60, 7)
    }


def test_why_a_minute_has_no_bar_is_always_known(api: Api, database: psycopg.Connection) -> None:
    add_bar(database, "ES", "2013-10-08 20:56", "1650")
    database.execute("INSERT INTO watches VALUES (%s, %s)", [ns("2013-10-08 20:55"), ns("2013-10-08 22:04:30")])
    database.execute(
        "INSERT INTO gaps SELECT id, %s, %s, 'feed silent', 0, '2013-10-08' FROM instruments WHERE symbol = 'ES'",
        [ns("2013-10-08 20:57:10"), ns("2013-10-08 22:02")],
    )
    set_watermark(database, "2013-10-08 22:04:30")
    bars = api.get("/api/bars", symbol="ES", fill="true", from_="2013-10-08T20:54:00Z", to="2013-10-09T00:00:00Z").json
    why = {bar["ts"][11:16]: bar.get("why", "bar") for bar in bars["bars"]}
    expected = {
        "20:54": "not_watching",
        "20:55": "quiet",
        "20:56": "bar",
        "20:57": "gap",
        "20:58": "gap",
        "20:59": "gap",
    }
    expected |= {f"21:{minute:02}": "closed" for minute in range(60)}
    expected |= {"22:00": "gap", "22:01": "gap", "22:02": "quiet", "22:03": "quiet", "22:04": "quiet"}
    assert why == expected
    assert bars["next"] is None


def test_five_minutes_are_made_of_whole_minutes(api: Api, database: psycopg.Connection) -> None:
    add_bar(database, "ES", "2013-10-08 12:04", "10", "1")
    add_bar(database, "ES", "2013-10-08 12:05", "12", "2", open="11", low="9", revision=1,
            revised_at="2013-10-08 12:30+00")  # fmt: skip
    add_bar(database, "ES", "2013-10-08 12:07", "20", "3", high="30")
    add_bar(database, "ES", "2013-10-08 12:09", "15", "0", basis="snapshot")
    add_book(database, "2013-10-08 12:07", "14", "14.5")
    add_book(database, "2013-10-08 12:09", None, "15.5")
    set_watermark(database, "2013-10-08 12:09:59")
    first, second = api.get("/api/bars", symbol="ES", interval="5m").json["bars"]
    assert (first["ts"], first["final"]) == ("2013-10-08T12:00:00Z", True)
    assert second == {
        "ts": "2013-10-08T12:05:00Z", "open": "11", "high": "30", "low": "9", "close": "15", "volume": "5",
        "notional": "84", "vwap": "16.8", "updates": 9, "revision": 1, "revised_at": "2013-10-08T12:30:00Z",
        "basis": "mixed", "bid": "14", "ask": "15.5", "spread": "1.5", "final": False, "quality": "revised",
    }  # fmt: skip
    inside = api.get("/api/bars", symbol="ES", interval="5m", from_="2013-10-08T12:00:01Z", to="2013-10-08T12:05:01Z")
    assert inside.json["bars"] == [second]


def add_day(conn: psycopg.Connection, trade_date: str, close: str) -> None:
    conn.execute(
        "INSERT INTO days (instrument_id, trade_date, open, high, low, close, volume, gap_volume, notional, updates,"
        " revision, basis, open_ns, close_ns)"
        " SELECT id, %s, 1, 9, 1, %s, 2, 5, 4, 7, 0, 'trade', 0, %s FROM instruments WHERE symbol = 'ES'",
        [trade_date, close, ns(f"{trade_date} 12:00")],
    )


def test_days_go_by_trade_date_and_begin_on_the_eve(api: Api, database: psycopg.Connection) -> None:
    for trade_date, close in (("2013-10-04", "3"), ("2013-10-07", "4"), ("2013-10-08", "5")):
        add_day(database, trade_date, close)
    set_watermark(database, "2013-10-08 21:59")
    bars = api.get("/api/bars", symbol="ES", interval="1d").json["bars"]
    assert [(bar["ts"], bar["close"], bar["vwap"], bar["final"]) for bar in bars] == [
        ("2013-10-03T22:00:00Z", "3", "2", True),
        ("2013-10-04T22:00:00Z", "4", "2", True),
        ("2013-10-07T22:00:00Z", "5", "2", False),
    ]
    found = pages(api, symbol="ES", interval="1d", limit=1)
    assert [page[0]["close"] for page in found] == ["3", "4", "5"]
    one = api.get("/api/bars", symbol="ES", interval="1d", from_="2013-10-03T22:00:01Z", to="2013-10-07T22:00:00Z")
    assert [bar["close"] for bar in one.json["bars"]] == ["4"]


def add_gap(conn: psycopg.Connection, start: int, end: int) -> None:
    conn.execute(
        "INSERT INTO gaps SELECT id, %s, %s, 'feed silent', 0, '2013-10-08' FROM instruments WHERE symbol = 'ES'",
        [start, end],
    )


def test_a_bar_that_a_gap_meets_says_so_and_a_revised_one_too(api: Api, database: psycopg.Connection) -> None:
    for minute in range(6):
        add_bar(database, "ES", f"2013-10-08 12:0{minute}", "1650", revision=int(minute in (2, 5)))
    noon = ns("2013-10-08 12:00")
    add_gap(database, noon + 110 * 10**9, noon + 180 * 10**9)  # 12:01:50 to 12:03:00, which it does not touch
    add_gap(database, noon + 299_999_999_999, noon + 300_000_000_001)  # a nanosecond each of 12:04 and 12:05
    set_watermark(database, "2013-10-08 12:06")
    document = api.get("/api/bars", symbol="ES").json
    assert [bar["quality"] for bar in document["bars"]] == ["live", "gap", "gap", "live", "gap", "gap"]
    (big,) = api.get("/api/bars", symbol="ES", interval="15m").json["bars"]
    assert (big["quality"], big["revision"]) == ("gap", 2)
    (early,) = api.get("/api/bars", symbol="ES", to="2013-10-08T12:01:00Z").json["bars"]
    assert early["quality"] == "live"


def test_a_day_with_a_gap_says_so(api: Api, database: psycopg.Connection) -> None:
    for trade_date in ("2013-10-07", "2013-10-08"):
        add_day(database, trade_date, "5")
    add_gap(database, ns("2013-10-08 12:00"), ns("2013-10-08 12:05"))
    set_watermark(database, "2013-10-08 23:00")
    bars = api.get("/api/bars", symbol="ES", interval="1d").json["bars"]
    assert [bar["quality"] for bar in bars] == ["live", "gap"]


def test_only_the_running_bar_of_a_log_that_stopped_is_stale(api: Api, database: psycopg.Connection) -> None:
    for minute in ("12:00", "12:01"):
        add_bar(database, "ES", f"2013-10-08 {minute}", "1650")
    set_watermark(database, "2013-10-08 12:01:30")
    database.execute("UPDATE positions SET updated_at = now() - interval '10 minutes'")
    document = api.get("/api/bars", symbol="ES").json
    assert (document["quality"], [bar["quality"] for bar in document["bars"]]) == ("stale", ["live", "stale"])


def test_each_answer_sees_what_was_committed_before_it(api: Api, database: psycopg.Connection) -> None:
    for minute in range(5):
        add_bar(database, "ES", f"2013-10-08 12:0{minute}", "1650")
        assert len(api.get("/api/bars", symbol="ES").json["bars"]) == minute + 1


def test_a_page_of_large_bars_looks_at_no_more_minutes_than_it_can_hold(api: Api, database: psycopg.Connection) -> None:
    for hour in range(3):
        for minute in range(60):
            add_bar(database, "ES", f"2013-10-08 1{hour}:{minute:02}", "1650", "1")
    found = pages(api, symbol="ES", interval="1h", limit=1)
    assert [(bar["ts"][11:13], bar["volume"]) for page in found for bar in page] == [
        ("10", "60"), ("11", "60"), ("12", "60"),
    ]  # fmt: skip


def test_a_contract_and_an_alias_are_symbols_too(api: Api, database: psycopg.Connection) -> None:
    add_bar(database, "GCZ3", "2013-10-08 12:00", "1320.1")
    assert api.get("/api/bars", symbol="gcz3").json["bars"][0]["close"] == "1320.1"
    assert api.get("/api/bars", symbol="/es:xcme").json["symbol"] == "ES"


def test_an_empty_value_counts_as_absent(api: Api, database: psycopg.Connection) -> None:
    add_bar(database, "ES", "2013-10-08 12:00", "1650")
    assert len(api.get("/api/bars?symbol=ES&interval=&from=&to=&cursor=").json["bars"]) == 1


def test_an_unknown_symbol_is_not_found_and_the_known_ones_are_told(alone: Api) -> None:
    answer = alone.get("/api/bars", symbol="XX")
    assert (answer.status, answer.json["type"]) == (404, "/problems/unknown-symbol")
    assert (answer.json["parameter"], answer.json["known"]) == ("symbol", ["ES", "YM", "GC", "GCZ3"])


@pytest.mark.parametrize(
    ("parameters", "kind", "parameter"),
    [
        ({"symbol": ""}, "missing-parameter", "symbol"),
        ({"interval": "2m"}, "invalid-parameter", "interval"),
        ({"limit": "0"}, "invalid-parameter", "limit"),
        ({"limit": "5001"}, "invalid-parameter", "limit"),
        ({"limit": "many"}, "invalid-parameter", "limit"),
        ({"fill": "perhaps"}, "invalid-parameter", "fill"),
        ({"fill": "1", "interval": "5m"}, "invalid-parameter", "fill"),
        ({"from": "2013-10-08T12:00:00"}, "invalid-parameter", "from"),
        ({"from": "yesterday"}, "invalid-parameter", "from"),
        ({"to": "1e400"}, "invalid-parameter", "to"),
        ({"to": "NaN"}, "invalid-parameter", "to"),
        ({"to": "-5"}, "invalid-parameter", "to"),
        ({"from": "10", "to": "10"}, "invalid-range", "from"),
        ({"from": "11", "to": "10"}, "invalid-range", "from"),
        ({"cursor": "!"}, "invalid-cursor", "cursor"),
        ({"cursor": "RVMgMW0gLTE"}, "invalid-cursor", "cursor"),
        ({"cursor": "WU0gMW0gNjA"}, "invalid-cursor", "cursor"),
        ({"cursor": "x" * 100}, "invalid-parameter", "cursor"),
        ({"symbol": "ES' OR 1=1--"}, "invalid-parameter", "symbol"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    alone: Api, parameters: dict[str, str], kind: str, parameter: str
) -> None:
    answer = alone.get("/api/bars", **{"symbol": "ES"} | parameters)
    assert (answer.status, answer.json["type"]) == (400, f"/problems/{kind}")
    assert answer.json["parameter"] == parameter


def test_the_plus_of_a_zone_that_became_a_space_is_explained(alone: Api) -> None:
    answer = alone.get("/api/bars?symbol=ES&from=2013-10-08T12:00:00+02:00")
    assert "%2B" in answer.json["detail"]


def test_a_day_of_bars_comes_in_milliseconds(api: Api, database: psycopg.Connection) -> None:
    first = datetime(2013, 10, 7, 22, tzinfo=UTC)
    for minute in range(1380):
        add_bar(database, "ES", f"{first + timedelta(minutes=minute):%Y-%m-%d %H:%M}", "1650.25", "123")
    took = []
    for _ in range(9):
        began = time.perf_counter()
        document = api.get("/api/bars", symbol="ES", limit=1380).json
        took.append(time.perf_counter() - began)
    assert len(document["bars"]) == 1380
    assert sorted(took)[4] < 0.1  # a bound for a busy machine; docs/benchmarks.md has the figure
