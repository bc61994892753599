"""The projection loop over a real log: exactly once, whatever happens between two commits."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
import pytest

from tests.columns import instrument, tables_in, trade_date_of
from tests.conftest import Server, until
from tests.daemons.conftest import ES, NQ, Log
from tests.referee import MINUTE, Plain, instant, tables, vwap, window
from thor.runtime.projection import Committing, Projector
from thor.runtime.settings import Settings
from thor.stores import db, instruments, positions
from thor.stores import vwap as vwap_store
from thor.stores.log import positions as told

START = 1_381_233_600_000_000_000  # 2013-10-08 12:00 UTC, a whole minute
Start = Callable[..., Projector]


def prints(count: int, seed: int = 1) -> list[Plain]:
    """Trades some seconds apart, a few of them out of order."""
    draw = random.Random(seed)
    return [
        Plain(
            draw.choice(("ES", "NQ")),
            START + i * 3_000_000_000 + draw.randint(-5, 5) * 10**9,
            Decimal(draw.randint(16_000, 16_040)) / 4,
            Decimal(draw.randint(0, 9)),
            Decimal("4000.25"),
            Decimal("4000.50"),
        )
        for i in range(count)
    ]  # fmt: skip


def run(*projectors: Projector, to: int) -> None:
    """Step until each has committed entry ``to``."""
    for projector in projectors:
        until(lambda p=projector: (p.step().committed or 0) >= to, f"{projector.name} commits entry {to}")  # type: ignore[misc]


def expected(conn: db.Connection, plain: list[Plain]) -> object:
    return tables(plain, trade_date_of(instruments.load(conn)))


def test_entries_become_the_tables_of_the_referee(log: Log, conn: db.Connection, start: Start) -> None:
    plain = prints(300)
    for at in range(0, 300, 7):
        log.add(plain[at : at + 7])
    run(start("intraday"), start("vwap"), to=log.n)
    assert tables_in(conn) == expected(conn, plain)
    assert told(log.client) == {"intraday": log.n, "vwap": log.n}


def test_a_projector_thrown_away_at_any_moment_loses_and_doubles_nothing(
    log: Log, conn: db.Connection, start: Start
) -> None:
    plain = prints(200)
    for at, quote in enumerate(plain):
        log.add([quote])
        if at % 20 == 0:
            start("intraday").step()
            start("vwap").step()
    run(start("intraday"), start("vwap"), to=log.n)
    assert tables_in(conn) == expected(conn, plain)


def test_of_two_copies_one_stops_with_4_and_nothing_is_counted_twice(
    log: Log, conn: db.Connection, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    plain = prints(40)
    one, two = start("intraday"), start("intraday")
    log.add(plain[:20])
    run(one, to=1)
    log.add(plain[20:])
    with pytest.raises(SystemExit) as stopped:
        two.step()
    assert stopped.value.code == 4
    assert "another copy of intraday commits" in caplog.text
    run(one, start("vwap"), to=2)
    assert tables_in(conn) == expected(conn, plain)


def test_a_connection_killed_before_the_commit_is_made_again_from_the_table(
    log: Log, conn: db.Connection, start: Start
) -> None:
    plain = prints(60)
    projector = start("intraday")
    for at in range(0, 60, 10):
        log.add(plain[at : at + 10])
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'thor intraday'")
        assert projector.step().state == "waiting"
        run(projector, to=log.n)
    run(start("vwap"), to=log.n)
    assert tables_in(conn) == expected(conn, plain)


def test_a_commit_that_waits_for_a_lock_gives_up_and_is_done_later(
    settings: Settings, log: Log, conn: db.Connection, start: Start
) -> None:
    projector = start("vwap")
    log.add(prints(5))
    with psycopg.connect(settings.dsn) as other:
        other.execute("SELECT * FROM positions WHERE name = 'vwap' FOR UPDATE")
        step = projector.step()
    assert (step.state, step.committed) == ("waiting", 0)
    assert "lock timeout" in step.why
    run(projector, to=1)


def test_a_frozen_server_is_given_up_by_the_client(
    monkeypatch: pytest.MonkeyPatch, log: Log, postgres: Server, conn: db.Connection, start: Start
) -> None:
    monkeypatch.setattr(db, "ANSWER_S", 0.5)
    projector = start("vwap")
    row = conn.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'thor vwap'").fetchone()
    assert row
    log.add(prints(5))
    os.kill(row[0], signal.SIGSTOP)
    try:
        step = projector.step()
    finally:
        os.kill(row[0], signal.SIGCONT)
    assert step.state == "waiting"
    assert "within 0.5 s" in step.why
    run(projector, to=1)


def test_missing_entries_are_counted_and_logged(
    log: Log, conn: db.Connection, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    plain = prints(5)
    for quote in plain:
        log.add([quote])
    log.client.xtrim("quotes:log", minid="4-0", approximate=False)
    run(start("intraday"), to=5)
    position = positions.read(conn, "intraday")
    assert (position.n, position.missed) == (5, 3)
    assert "expected entry 1, found 4: 3 entries are missed" in caplog.text
    assert sum(bar["updates"] for bar in tables_in(conn).bars.values()) == 2


def test_an_entry_that_cannot_be_read_is_missed_and_the_rest_goes_on(
    log: Log, conn: db.Connection, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    plain = prints(2)
    log.add(plain[:1])
    log.n += 1
    log.put(b"no entry of ours")
    log.add(plain[1:])
    run(start("intraday"), start("vwap"), to=3)
    assert positions.read(conn, "intraday").missed == 1
    assert "entry 2 cannot be read" in caplog.text
    assert tables_in(conn) == expected(conn, plain)


def test_a_new_log_is_read_from_its_start(
    log: Log, conn: db.Connection, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    plain = prints(30)
    projectors = [start("intraday"), start("vwap")]
    for quote in plain[:10]:
        log.add([quote])
    run(*projectors, to=10)
    log.client.flushall()
    other = Log(_url(log), [ES, NQ], generation=8)
    for quote in plain[10:13]:
        other.add([quote])
    for projector in projectors:
        until(lambda p=projector: p.step().committed == 3, "the new log is committed")  # type: ignore[misc]
    for quote in plain[13:]:
        other.add([quote])
    run(*projectors, to=other.n)
    assert positions.read(conn, "vwap") == positions.Position(8, other.n, other.watermark, 0)
    assert "is gone: intraday goes on from the start of log 8" in caplog.text
    assert tables_in(conn) == expected(conn, plain)


def test_a_new_log_that_grew_past_the_position_meanwhile_is_told_by_its_generation(
    log: Log, conn: db.Connection, start: Start
) -> None:
    plain = prints(20)
    first = start("intraday")
    for quote in plain[:3]:
        log.add([quote])
    run(first, to=3)
    log.client.flushall()
    other = Log(_url(log), [ES, NQ], generation=8)
    for quote in plain[3:]:
        other.add([quote])
    run(start("intraday"), start("vwap"), to=other.n)
    assert tables_in(conn).bars == expected(conn, plain).bars  # type: ignore[attr-defined]


def test_an_instrument_added_while_running_is_found_in_the_table(log: Log, conn: db.Connection, start: Start) -> None:
    plain = prints(4)
    projectors = [start("intraday"), start("vwap")]
    log.add(plain)
    run(*projectors, to=1)
    zz = instrument("ZZ", "0.5")
    instruments.seed(conn, [zz])
    with_zz = Log(_url(log), [ES, NQ, zz])
    with_zz.n, with_zz.watermark = log.n, log.watermark
    more = [*plain, *prints(9, 2)[4:], Plain("ZZ", START + 30 * 10**9, Decimal("7.5"), Decimal(2))]
    with_zz.add(more[4:])
    run(*projectors, to=2)
    assert tables_in(conn) == expected(conn, more)


def test_an_instrument_of_the_files_is_seeded_and_an_unknown_one_stops_the_process(
    log: Log, conn: db.Connection, start: Start
) -> None:
    projector = start("vwap")
    other = Log(_url(log), [instrument("GC", "0.1"), instrument("NOBODY")])
    other.add([Plain("GC", START, Decimal("1318.1"), Decimal(1))])
    run(projector, to=1)
    assert instruments.find(conn, "GC") is not None
    other.add([Plain("NOBODY", START, Decimal(1), Decimal(1))])
    with pytest.raises(LookupError, match="found NOBODY"):
        projector.step()


def test_watermarks_alone_move_the_position_and_stretch_the_watch(log: Log, conn: db.Connection, start: Start) -> None:
    for second in range(20):
        log.add(watermark=START + second * 10**9, watching=START - 10**9)
    run(start("intraday"), to=20)
    assert conn.execute("SELECT since_ns, until_ns FROM watches").fetchall() == [(START - 10**9, log.watermark)]
    assert positions.watermark(conn, "intraday") == log.watermark


def test_few_quotes_wait_for_each_other_and_many_do_not(log: Log, conn: db.Connection, start: Start) -> None:
    patient = Committing(quotes=50, delay_ms=1000, gap_ms=5)
    projector = start("intraday", patient)
    log.add(prints(60))
    now = datetime.now(UTC)
    assert projector.step().committed == 1
    assert (datetime.now(UTC) - now).total_seconds() < 0.5
    log.add(prints(3))
    now = datetime.now(UTC)
    assert projector.step().committed == 2
    assert (datetime.now(UTC) - now).total_seconds() > 0.9


def test_redis_gone_is_waited_for(log: Log, redis: Server, conn: db.Connection, start: Start) -> None:
    plain = prints(10)
    projector = start("intraday")
    log.add(plain[:5])
    run(projector, to=1)
    redis.kill()
    try:
        assert projector.step().state == "waiting"
    finally:
        redis.start()
    other = Log(_url(log), [ES, NQ], generation=9)
    until(lambda: projector.step().state != "waiting", "Redis is back")
    assert other.generation == 9


@pytest.mark.parametrize("minutes", [5, 30])
def test_the_rolling_vwap_in_redis_is_what_the_table_says(
    log: Log, conn: db.Connection, start: Start, minutes: int
) -> None:
    plain = prints(1200)
    projector = start("vwap")
    found = expected(conn, plain)
    for at in range(0, 1200, 300):
        log.add(plain[at : at + 300])
        run(projector, to=log.n)
        projector = start("vwap")  # what it remembers comes from the table
        log.add(watermark=log.watermark + MINUTE)
        run(projector, to=log.n)
        document = json.loads(log.client.get(f"vwap:rolling:{minutes}") or b"")
        assert 0 < log.client.ttl(f"vwap:rolling:{minutes}") <= 120
        read = vwap_store.rolling(conn, ["ES", "NQ"], minutes, instant(log.watermark))
        for symbol, sums in read.items():
            value = document["values"][symbol]
            assert Decimal(value["vwap"]) == sums.vwap == vwap(sums.notional, sums.volume)
            assert (Decimal(value["volume"]), Decimal(value["notional"])) == (sums.volume, sums.notional)
    final = vwap_store.rolling(conn, ["ES"], minutes, instant(log.watermark))["ES"]
    assert (final.volume, final.notional) == window(found, "ES", minutes, instant(log.watermark))  # type: ignore[arg-type]


def _url(log: Log) -> str:
    where = log.client.connection_pool.connection_kwargs
    return f"redis://{where['host']}:{where['port']}/0"
