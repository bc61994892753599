"""From feeds to the log on a real Redis: exactly once, in order, whatever stops in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import redis

from tests.domain.test_intake import REGISTRY, ROLL, S, quotes
from thor.domain.intake import Intake, Rules
from thor.domain.prices import NANO
from thor.domain.quotes import Entry, decode
from thor.feeds import Arrival
from thor.runtime.ingestion import Ingestion, Limits
from thor.stores import keys
from thor.stores import log as thelog
from thor.stores.redis import connect
from thor.stores.spool import Spool, SpoolFull

NUMBERS = {symbol: i for i, symbol in enumerate(REGISTRY.symbols)}


class Script:
    """A feed that plays numbered prints, some a poll; its cursor is how many it has handed over."""

    name = "script"

    def __init__(self, total: int, each: int = 3, waits: bool = True) -> None:
        self.total, self.each, self.waits, self.recorded, self.done = total, each, waits, True, 0

    def open(self, cursor: str | None) -> None:
        self.done = int(cursor or 0)

    def poll(self, timeout_s: float) -> Arrival | None:
        rows = [
            {"i": n % 3, "ts": ROLL + n * S, "last": 100 + n, "last_size": n}
            for n in range(self.done, min(self.done + self.each, self.total))
        ]
        if not rows:
            return None
        self.done += len(rows)
        return Arrival(quotes(rows), str(self.done), ended=self.done == self.total)

    def committed(self, cursor: str) -> None:
        pass

    def close(self) -> None:
        pass


_opened: list[Ingestion | Spool] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


def spool_at(path: Path, max_bytes: int) -> Spool:
    spool = Spool(path, max_bytes)
    _opened.append(spool)
    return spool


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    found = connect(redis_url)
    yield found
    found.close()


def ingestion(client: redis.Redis, path: Path, feed: Script, epoch: int, **limits: int) -> Ingestion:
    bounds = {"watermark_delay_ns": 0, "ahead_bytes": 1 << 20, "keep_bytes": 1 << 20, "silence_ns": 60 * NANO}
    made = Ingestion(
        thelog.Writer(client),
        spool_at(path / "spool", limits.pop("spool_bytes", 1 << 20)),
        Intake(REGISTRY, Rules()),
        REGISTRY,
        [feed],
        Limits(**{**bounds, **limits}),
    )
    made.recover(epoch, 77, "here")
    return made


def entries(client: redis.Redis) -> list[Entry]:
    return [decode(data, NUMBERS) for _, data in thelog.newest(client, 10_000)]


def sizes(client: redis.Redis) -> list[int]:
    return [int(v) for entry in entries(client) for v in entry.quotes.column("last_size")]


def test_every_quote_is_in_the_log_once_and_in_order(client: redis.Redis, tmp_path: Path) -> None:
    feed = Script(20)
    running = ingestion(client, tmp_path, feed, 1)
    while feed.done < 20:
        running.step(0)
    found = entries(client)
    assert sizes(client) == list(range(20))
    assert [entry.head.n for entry in found] == list(range(1, len(found) + 1))
    assert found[-1].head.ended
    assert thelog.writer_state(client)["count:accepted"] == "20"


def test_a_writer_that_was_killed_goes_on_behind_its_last_entry(client: redis.Redis, tmp_path: Path) -> None:
    for epoch in range(1, 8):
        running = ingestion(client, tmp_path, Script(20), epoch)
        running.step(0)
    assert sizes(client) == list(range(20))


def test_a_write_whose_answer_was_lost_is_stored_once(client: redis.Redis, tmp_path: Path) -> None:
    feed = Script(20)
    running = ingestion(client, tmp_path, feed, 1)
    append, lost = running._writer.append, [False]

    def losing(words: list[str | int | bytes]) -> None:
        append(words)
        if words[0] == 3 and not lost[0]:
            lost[0] = True
            raise redis.exceptions.TimeoutError

    running._writer.append = losing  # type: ignore[method-assign,assignment]
    while feed.done < 20:
        running.step(0)
    assert lost == [True]
    assert sizes(client) == list(range(20))


def test_a_second_writer_stops_the_first(client: redis.Redis, tmp_path: Path) -> None:
    first = ingestion(client, tmp_path / "a", Script(20), 1)
    first.step(0)
    second = ingestion(client, tmp_path / "b", Script(20), 2)
    with pytest.raises(thelog.Rival, match="another ingester"):
        first.step(0)
    second.step(0)
    assert sizes(client) == list(range(6))


def test_while_redis_is_away_quotes_wait_in_the_spool_and_survive_a_kill(
    client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    feed = Script(20, waits=False)
    running = ingestion(client, tmp_path, feed, 1)
    running.step(0)
    away = connect("redis://127.0.0.1:1/0", 0.2)
    running._writer._client, running._writer._script.registered_client = away, away
    while feed.done < 12:
        running.step(0)
    assert running.why.startswith("Redis is away")
    assert sizes(client) == [0, 1, 2]
    running = ingestion(client, tmp_path, Script(20), 2)
    assert sizes(client) == list(range(12))
    for _ in range(4):
        running.step(0)
    assert sizes(client) == list(range(20))


def test_a_feed_that_can_wait_is_not_polled_while_redis_is_away(client: redis.Redis, tmp_path: Path) -> None:
    feed = Script(20)
    running = ingestion(client, tmp_path, feed, 1)
    away = connect("redis://127.0.0.1:1/0", 0.2)
    running._writer._client, running._writer._script.registered_client = away, away
    for _ in range(5):
        running.step(0)
    assert feed.done == 3
    running._writer._client = running._writer._script.registered_client = client
    running._next_probe_s = 0
    while feed.done < 20:
        running.step(0)
    assert sizes(client) == list(range(20))


def test_a_full_spool_takes_no_quote_and_loses_none(client: redis.Redis, tmp_path: Path) -> None:
    feed = Script(20, waits=False)
    running = ingestion(client, tmp_path, feed, 1, spool_bytes=2_000)
    away = connect("redis://127.0.0.1:1/0", 0.2)
    running._writer._client, running._writer._script.registered_client = away, away
    for _ in range(8):
        running.step(0)
    assert "spool.max_bytes" in running.why
    assert feed.done < 20
    running._writer._client = running._writer._script.registered_client = client
    running._next_probe_s = 0
    while feed.done < 20:
        running.step(0)
    assert sizes(client) == list(range(20))


def test_what_a_crash_left_half_written_in_the_spool_is_no_entry(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "spool", 1 << 20)
    spool.put([1, "a", b"whole"])
    spool.put([2, "b", b"torn"])
    spool.close()
    file = tmp_path / "spool"
    file.write_bytes(file.read_bytes()[:-2])
    again = spool_at(file, 1 << 20)
    again.put([2, "b", b"written again"])
    assert [words[2] for words in again.waiting()] == [b"whole", b"written again"]
    assert not again


def test_an_entry_that_finds_no_room_leaves_nothing_behind(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "spool", 40)
    spool.put([1, b"fits"])
    with pytest.raises(SpoolFull, match=r"spool\.max_bytes"):
        spool.put([2, b"x" * 40])
    assert [words[0] for words in spool.waiting()] == [b"1"]


def test_the_log_is_never_trimmed_past_a_projection_that_needs_it(client: redis.Redis, tmp_path: Path) -> None:
    feed = Script(60_000, each=1_000)
    running = ingestion(client, tmp_path, feed, 1, keep_bytes=100_000, ahead_bytes=1 << 30)
    running._writer.expect(["intraday"])
    while feed.done < 60_000:
        running.step(0)
    assert client.xlen(keys.LOG) == 60
    thelog.tell_position(client, "intraday", 50)
    feed.total = 120_000
    while feed.done < 120_000:
        running.step(0)
    first = thelog.newest(client, 1_000)[0][0]
    assert 1 < first <= 51


def test_a_feed_that_can_wait_waits_for_projections_that_are_far_behind(client: redis.Redis, tmp_path: Path) -> None:
    feed = Script(30_000, each=1_000)
    running = ingestion(client, tmp_path, feed, 1, ahead_bytes=100_000)
    running._writer.expect(["intraday"])
    for _ in range(20):
        running.step(0)
    assert feed.done < 10_000
    thelog.tell_position(client, "intraday", running.n)
    held = feed.done
    running.step(0)
    assert feed.done == held + 1_000


def test_the_latest_hash_holds_the_newest_of_each_field_as_text(client: redis.Redis, tmp_path: Path) -> None:
    class Books(Script):
        def poll(self, timeout_s: float) -> Arrival | None:
            if self.done:
                return None
            self.done = 1
            rows = [
                {"ts": ROLL, "bid": 4, "ask": 6},
                {"ts": ROLL + S // 2, "last": 5},
                {"i": 1, "ts": ROLL, "bid": 9, "ask": 8},
            ]
            return Arrival(quotes(rows), "1")

    ingestion(client, tmp_path, Books(1), 1).step(0)
    assert client.hgetall(keys.LATEST + "ES") == {
        b"symbol": b"ES",
        b"ts": b"2024-01-09T23:00:00.5Z",
        b"last": b"5",
        b"bid": b"4",
        b"ask": b"6",
        b"spread": b"2",
        b"source": b"TEST",
    }
    assert client.hget(keys.LATEST + "CL", "spread") == b""


def test_a_refused_quote_is_listed_with_reason_source_and_entry(client: redis.Redis, tmp_path: Path) -> None:
    class Bad(Script):
        def poll(self, timeout_s: float) -> Arrival | None:
            self.done += 1
            return Arrival(quotes([{"ts": ROLL, "last": -1}]), str(self.done)) if self.done == 1 else None

    ingestion(client, tmp_path, Bad(1), 1).step(0)
    ((_, fields),) = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(keys.REJECTED))
    assert (fields[b"reason"], fields[b"source"]) == (b"bad_price", b"TEST")
    assert b'"last": "-1"' in fields[b"entry"]
    assert thelog.writer_state(client)["count:rejected:bad_price"] == "1"


def test_a_silent_feed_still_gives_an_entry_a_second_that_carries_the_watermark(
    client: redis.Redis, tmp_path: Path
) -> None:
    running = ingestion(client, tmp_path, Script(3), 1)
    running.step(0)
    running._last_entry_s = 0
    running.step(0)
    first, second = entries(client)
    assert len(second.quotes) == 0
    assert second.head.watermark == first.head.watermark == ROLL + 2 * S
    assert first.head.watching == ROLL
    assert np.array_equal(second.quotes.ts, [])
