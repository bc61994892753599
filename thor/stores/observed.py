"""Redis and Postgres as `thor doctor` looks at them: small reads that change nothing, each bounded by its client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, cast

import psycopg
import redis

from thor.domain.findings import Bar, Position, PostgresLook, RedisLook
from thor.domain.stamps import parse_stamp
from thor.stores import keys, latest, markets
from thor.stores.log import number_of, writer_state

_BARS: Final = """
SELECT i.symbol, extract(epoch FROM b.minute)::bigint * 1000000000, b.close_ns, b.updates
FROM instruments i, LATERAL (
    SELECT minute, close_ns, updates FROM bars WHERE instrument_id = i.id ORDER BY minute DESC LIMIT 1
) b
"""


def look_at_redis(client: redis.Redis, symbols: Sequence[str]) -> RedisLook:
    """Redis now. Raises redis.RedisError."""
    oldest = cast("list[tuple[bytes, object]]", client.xrange(keys.LOG, count=1))
    memory = cast("dict[str, int]", client.info("memory"))
    quotes = latest.read(client, symbols).quotes
    return RedisLook(
        now=_clock(client),
        writer=writer_state(client),
        latest={symbol: parse_stamp(fields["ts"]) for symbol, fields in quotes.items() if fields.get("ts")},
        first=number_of(oldest[0][0]) if oldest else None,
        used_bytes=int(memory["used_memory"]),
        limit_bytes=int(memory.get("maxmemory", 0)),
    )


def look_at_postgres(conn: psycopg.Connection[Any]) -> PostgresLook:
    """Postgres now. Raises psycopg.Error."""
    rows = conn.execute("SELECT name, generation, n, watermark_ns, missed FROM positions").fetchall()
    bars = {row[0]: Bar(*row[1:]) for row in conn.execute(_BARS).fetchall()}
    today = conn.execute("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date").fetchone()
    assert today is not None
    return PostgresLook({row[0]: Position(*row[1:]) for row in rows}, bars, today[0], markets.confirmed_until(conn))


def offset_of_redis(client: redis.Redis) -> float:
    """Seconds by which its clock is ahead of ours; what the way there took is not counted as offset."""
    client.ping()  # not the connecting
    before = time.time()
    there = _clock(client) / 1e9
    return _offset(before, there, time.time())


def offset_of_postgres(conn: psycopg.Connection[Any]) -> float:
    """Seconds by which its clock is ahead of ours."""
    before = time.time()
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    there: datetime = row[0]
    return _offset(before, there.timestamp(), time.time())


def inboxes(client: redis.Redis) -> dict[int, tuple[float | None, float | None]]:
    """Per database of this server: seconds since the newest entry of quotes:in and since the last word of an ingester,
    None for never. Only databases that hold quotes:in. Raises redis.RedisError."""
    found: dict[int, tuple[float | None, float | None]] = {}
    for name in cast("dict[str, object]", client.info("keyspace")):
        number = int(name.removeprefix("db"))
        there = redis.Redis(connection_pool=_pool_of(client, number))
        try:
            newest = cast("list[tuple[bytes, object]]", there.xrevrange(keys.INBOX, count=1))
            if newest:
                now = _clock(there)
                at = cast("bytes | None", there.hget(keys.WRITER, "at"))
                entry_ms = int(newest[0][0].split(b"-")[0])
                found[number] = (now / 1e9 - entry_ms / 1e3, None if at is None else (now - int(at)) / 1e9)
        finally:
            there.close()
            there.connection_pool.disconnect()
    return found


def identity(client: redis.Redis) -> str:
    """Which server this is, by whatever address it was reached."""
    return str(cast("dict[str, object]", client.info("server"))["run_id"])


def database_of(client: redis.Redis) -> int:
    """The number of the database that a client is connected to."""
    return int(client.connection_pool.connection_kwargs.get("db") or 0)


def _pool_of(client: redis.Redis, database: int) -> redis.ConnectionPool:
    pool = client.connection_pool
    return redis.ConnectionPool(
        connection_class=pool.connection_class, max_connections=1, **{**pool.connection_kwargs, "db": database}
    )


def _clock(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return seconds * 1_000_000_000 + micros * 1_000


def _offset(before: float, there: float, after: float) -> float:
    if before <= there <= after:
        return 0.0
    return there - after if there > after else there - before


def recent(client: redis.Redis, entries: int, most_bytes: int) -> list[tuple[int, bytes]]:
    """The newest entries of the log, newest first: so many, or as many as ``most_bytes`` hold. Raises RedisError."""
    found: list[tuple[int, bytes]] = []
    held, before = 0, "+"
    while len(found) < entries and held < most_bytes:
        page = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrevrange(keys.LOG, max=before, count=50))
        found += [(number_of(entry), fields[b"b"]) for entry, fields in page]
        if len(page) < 50:
            break
        held += sum(len(fields[b"b"]) for _, fields in page)
        before = f"({page[-1][0].decode()}"
    return found
