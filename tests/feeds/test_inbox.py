"""The inbox on a real Redis: whatever producers write, the good quotes arrive and the rest is refused with a reason."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import redis as redislib

from tests.feeds.registry import REGISTRY
from thor.domain.prices import NA, NANO
from thor.domain.quotes import POLLED, SNAPSHOT
from thor.feeds import Arrival
from thor.feeds.inbox import Inbox
from thor.feeds.text import Kind
from thor.stores.keys import INBOX
from thor.stores.redis import connect

Fields = dict[bytes | str, bytes | str]


@pytest.fixture
def client(redis_url: str) -> Iterator[redislib.Redis]:
    one = connect(redis_url)
    yield one
    one.close()


def inbox(client: redislib.Redis, cursor: str | None = None, keep: int = 10_000) -> Inbox:
    feed = Inbox(client, REGISTRY, kinds={"EXCEL": Kind(True, True)}, keep=keep)
    feed.open(cursor)
    return feed


def add(client: redislib.Redis, *pairs: bytes | str) -> str:
    return str(client.execute_command("XADD", INBOX, "*", *pairs).decode())  # type: ignore[no-untyped-call]


def drain(feed: Inbox) -> list[Arrival]:
    return [a for a in iter(lambda: feed.poll(0), None) if a is not None]


def test_entries_become_quotes_behind_a_cursor(client: redislib.Redis) -> None:
    first = add(client, "symbol", "/es", "last", "4800.25", "source", "excel", "bid", "", "note", "hello")
    second = add(client, "symbol", "ZB", "ts", "1700000000", "last", "116'135", "seq", "9")
    feed = inbox(client)
    (arrival,) = drain(feed)
    quotes = arrival.quotes
    assert arrival.refused == []
    assert quotes.ts.tolist() == [NA, 1_700_000_000 * NANO]
    assert quotes.column("last").tolist() == [4_800_250_000_000, 116_421_875_000]
    assert quotes.column("seq").tolist() == [NA, 9]
    assert [quotes.sources[i] for i in quotes.source.tolist()] == ["EXCEL", "INBOX"]
    assert quotes.flags.tolist() == [SNAPSHOT | POLLED, 0]
    assert arrival.cursor == second
    assert feed.ignored == 1
    assert arrival.origin is not None
    assert arrival.origin(0) == (
        first, {"symbol": "/es", "last": "4800.25", "source": "excel", "bid": "", "note": "hello"}
    )  # fmt: skip
    assert drain(inbox(client, arrival.cursor)) == []
    assert len(drain(inbox(client, first))[0].quotes) == 1


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (("last", "1"), "bad_symbol"),
        (("symbol", "", "last", "1"), "bad_symbol"),
        (("symbol", "XX"), "unknown_symbol"),
        (("symbol", b"\xff\xfe"), "bad_encoding"),
        (("symbol", "ES", "last", b"\x80"), "bad_encoding"),
        (("symbol", "ES", "last", "1", "last", "2"), "duplicate_field"),
        (("symbol", "ES", "last", "nan"), "bad_number"),
        (("symbol", "ES", "last", "-inf"), "bad_number"),
        (("symbol", "ES", "last", "1e308"), "bad_number"),
        (("symbol", "ES", "last", "null"), "bad_number"),
        (("symbol", "ES", "last", "1" * 1_000_000), "bad_number"),
        (("symbol", "ES" * 500_000), "bad_symbol"),
        (("symbol", "ES", "ts", "yesterday"), "bad_ts"),
        (("symbol", "ES", "source", "x" * 25), "bad_source"),
    ],
)
def test_a_bad_entry_is_refused_beside_good_ones(client: redislib.Redis, pairs: tuple[str, ...], reason: str) -> None:
    add(client, "symbol", "ES", "last", "1")
    bad = add(client, *pairs)
    add(client, "symbol", "ES", "last", "2", b"\xff", b"\xff")
    (arrival,) = drain(inbox(client))
    assert arrival.quotes.column("last").tolist() == [NANO, 2 * NANO]
    (one,) = arrival.refused
    assert (one.reason, one.where) == (reason, bad)
    assert sum(map(len, one.raw.values())) < 2_000
    assert one.detail


def test_a_field_may_be_anything_at_all_and_nothing_good_is_lost(client: redislib.Redis) -> None:
    rng = random.Random(11)
    pool = [b"", b"ES", b"GC", b"1.5", b"\xff", b"nan", b"\0", b"1e999", b"EXCEL", b"x" * 3_000, "ß".encode(), b"-"]
    names = [b"symbol", b"last", b"bid", b"ts", b"source", b"volume", b"", b"foo", b"\xfe", b"Symbol", b"seq"]
    pipe, good = client.pipeline(transaction=False), 0
    for i in range(3_000):
        if i % 10 == 0:
            pipe.xadd(INBOX, {"symbol": "ES", "last_size": str(i), "last": "7", "source": "GOOD"})
            good += 1
        else:
            flat = [rng.choice(pool if k % 2 else names) for k in range(2 * rng.randrange(1, 8))]
            pipe.execute_command("XADD", INBOX, "*", *flat)  # type: ignore[no-untyped-call]
    pipe.execute()
    arrivals = drain(inbox(client))
    assert sum(len(a.quotes) + len(a.refused) for a in arrivals) == 3_000
    seen = [
        size
        for a in arrivals
        for size, s in zip(a.quotes.column("last_size").tolist(), a.quotes.source.tolist(), strict=True)
        if a.quotes.sources[s] == "GOOD"
    ]
    assert seen == list(range(0, 3_000, 10))
    assert len(seen) == good


def test_what_is_committed_is_trimmed_and_nothing_else(client: redislib.Redis) -> None:
    pipe = client.pipeline(transaction=False)
    for i in range(5_000):
        pipe.xadd(INBOX, {"symbol": "ES", "last": str(i)})
    pipe.execute()
    feed = inbox(client, keep=1_000)
    cursors = []
    for _ in range(4):
        arrival = feed.poll(0)
        assert arrival is not None
        cursors.append(arrival.cursor)
    assert client.xlen(INBOX) == 5_000
    feed.committed(cursors[0])
    rest = drain(inbox(client, cursors[0]))
    assert sum(len(a.quotes) for a in rest) == 5_000 - 64
    last = drain(feed)[-1].cursor
    feed.committed(last)
    assert 1_000 <= client.xlen(INBOX) < 4_000
    assert drain(inbox(client, last)) == []


def test_large_entries_are_read_a_few_at_a_time(client: redislib.Redis) -> None:
    for _ in range(100):
        add(client, "symbol", "ES", "last", "9" * 1_000_000)
    sizes = [len(a.refused) for a in drain(inbox(client))]
    assert sizes[0] == 64
    assert max(sizes[1:]) <= 17


def test_without_redis_the_inbox_waits(client: redislib.Redis) -> None:
    slept: list[float] = []
    feed = Inbox(connect("redis://127.0.0.1:1/0", 0.2), REGISTRY, sleep=slept.append)
    feed.open(None)
    assert feed.poll(0.01) is None
    assert slept == [0.01]
    feed.committed("1-0")


def test_a_poll_waits_no_longer_than_asked(client: redislib.Redis) -> None:
    assert inbox(client).poll(0) is None
    assert inbox(client).poll(0.0001) is None
    assert inbox(client).poll(0.02) is None
