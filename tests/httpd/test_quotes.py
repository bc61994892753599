"""GET /api/quotes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.conftest import Server
from tests.httpd.conftest import CONFIG, Api, ns
from thor.runtime.settings import Settings
from thor.stores import keys, latest
from thor.stores.redis import connect

SECOND_NS = 1_000_000_000


def put(redis_url: str, symbol: str, at: int | None = None, **fields: str) -> None:
    """A latest hash as the ingester leaves it, and its watermark stored ``at`` (default: now)."""
    client = connect(redis_url)
    for name, value in fields.items():
        client.hset(keys.LATEST + symbol, name, value)
    client.hset(keys.WRITER, mapping={"watermark": str(ns("2013-10-08 12:00:05")), "at": str(at or time.time_ns())})
    client.close()


@pytest.fixture
def without_postgres(settings: Settings) -> Iterator[Api]:
    """The API where no Postgres answers."""
    running = Api(replace(settings, db_port=1), CONFIG)
    yield running
    running.close()


def test_a_quote_is_the_hash_with_its_age_source_and_quality(api: Api, redis_url: str) -> None:
    put(redis_url, "ES", ts="2013-10-08T12:00:04.750000000Z", last="1650.25", bid="1650", ask="1650.25", spread="0.25",
        source="REPLAY", last_size="3")  # fmt: skip
    answer = api.get("/api/quotes", symbols="ES")
    assert answer.status == 200
    document = answer.json
    assert document["as_of"] == "2013-10-08T12:00:05Z"
    assert document["unknown"] == []
    (quote,) = document["quotes"]
    assert 250 <= quote.pop("age_ms") < 5000
    assert quote == {
        "symbol": "ES", "last": "1650.25", "bid": "1650", "ask": "1650.25", "open": None, "high": None, "low": None,
        "close": None, "change": None, "last_size": "3", "bid_size": None, "ask_size": None, "volume": None,
        "spread": "0.25", "as_of": "2013-10-08T12:00:04.75Z", "source": "REPLAY", "quality": "live",
    }  # fmt: skip


def test_a_quote_far_behind_the_watermark_is_stale(api: Api, redis_url: str) -> None:
    put(redis_url, "ES", ts="2013-10-08T11:58:00.000000000Z", last="1650.25")
    (quote,) = api.get("/api/quotes", symbols="ES").json["quotes"]
    assert quote["quality"] == "stale"
    assert 125_000 <= quote["age_ms"] < 130_000


def test_a_quote_of_a_source_that_stands_still_is_stale_until_it_moves_again(api: Api, redis_url: str) -> None:
    put(redis_url, "ES", ts="2013-10-08T12:00:05Z", last="1650.25", source="EXCEL")
    put(redis_url, "YM", ts="2013-10-08T12:00:05Z", last="14800", source="SCHWAB")

    def told() -> list[str]:
        return [quote["quality"] for quote in api.get("/api/quotes", symbols="ES,YM").json["quotes"]]

    client = connect(redis_url)
    latest.mark_stale(client, {"EXCEL": str(time.time_ns())})
    assert told() == ["stale", "live"]
    latest.mark_stale(client, {})
    assert told() == ["live", "live"]
    client.close()


def test_every_quote_grows_stale_when_nobody_writes_the_log(api: Api, redis_url: str) -> None:
    put(redis_url, "ES", at=time.time_ns() - 300 * SECOND_NS, ts="2013-10-08T12:00:05.000000000Z", last="1650.25")
    (quote,) = api.get("/api/quotes", symbols="ES").json["quotes"]
    assert quote["quality"] == "stale"
    assert 300_000 <= quote["age_ms"] < 305_000


def test_unknown_symbols_are_named_and_the_others_answered_once(api: Api, redis_url: str) -> None:
    put(redis_url, "ES", ts="2013-10-08T12:00:05Z", last="1650.25")
    document = api.get("/api/quotes", symbols="/es:xcme,ES,XX,$Q").json
    assert [quote["symbol"] for quote in document["quotes"]] == ["ES"]
    assert document["unknown"] == ["XX", "$Q"]


def test_without_symbols_every_instrument_is_there_also_before_its_first_quote(api: Api, redis_url: str) -> None:
    put(redis_url, "ES", ts="2013-10-08T12:00:05Z", last="1650.25", source="REPLAY")
    quotes = {quote["symbol"]: quote for quote in api.get("/api/quotes").json["quotes"]}
    assert list(quotes) == ["ES", "YM", "GC", "GCZ3"]
    assert quotes["YM"]["last"] is quotes["YM"]["as_of"] is quotes["YM"]["age_ms"] is quotes["YM"]["source"] is None
    assert quotes["YM"]["quality"] == "stale"


def test_an_empty_log_has_no_time(api: Api) -> None:
    assert api.get("/api/quotes").json["as_of"] is None


def test_quotes_need_no_postgres(without_postgres: Api, redis_url: str) -> None:
    put(redis_url, "ES", ts="2013-10-08T12:00:05Z", last="1650.25")
    assert without_postgres.get("/api/quotes", symbols="ES").json["quotes"][0]["last"] == "1650.25"


def test_without_redis_quotes_are_unavailable_until_it_is_back(api: Api, redis: Server) -> None:
    assert api.get("/api/quotes").status == 200
    redis.kill()
    try:
        answer = api.get("/api/quotes")
        assert answer.status == 503
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        assert answer.headers["Retry-After"] == "1"
        assert answer.json["type"] == "/problems/unavailable"
        assert answer.json["needs"] == "redis"
    finally:
        redis.start()
    assert api.get("/api/quotes").status == 200


@pytest.mark.parametrize("symbols", ["ES,<script>", "A" * 25, "ES;DROP TABLE bars", "\N{SNOWMAN}"])
def test_what_could_be_no_symbol_is_refused(alone: Api, symbols: str) -> None:
    answer = alone.get("/api/quotes", symbols=symbols)
    assert (answer.status, answer.json["type"]) == (400, "/problems/invalid-parameter")
    assert answer.json["parameter"] == "symbols"
