"""What readers get from the tables: pages of bars, reasons, sums (domain.md §5, §6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from tests.columns import instrument, ns, recording, rows_of, snapshots, tables_in, trades
from tests.referee import MINUTE, Plain, instant, vwap
from tests.stores.conftest import Tables
from thor.stores import history, positions
from thor.stores import vwap as vwap_store
from thor.stores.positions import Move, Position

NOON = 1_381_233_600_000_000_000  # 2013-10-08 12:00 UTC
Make = Callable[..., Tables]


@pytest.fixture
def gold(make_tables: Make) -> Tables:
    plain = trades(recording("gc_20131008/demo_1200_1330.csv.gz"))
    held = make_tables(instrument("GCZ3", "0.1"))
    held.commit(plain)
    return held


def at(minute: int) -> datetime:
    return instant(NOON) + timedelta(minutes=minute)


def test_pages_follow_each_other_without_a_seam(gold: Tables) -> None:
    whole = history.page(gold.conn, "GCZ3", "1m", at(0), at(90), 1000)
    assert [bar.ts for bar in whole] == sorted(minute for _, minute in tables_in(gold.conn).bars)
    paged: list[history.Bar] = []
    while got := history.page(gold.conn, "GCZ3", "1m", at(0), at(90), 7, paged[-1].ts if paged else None):
        paged += got
    assert paged == whole


def test_a_range_is_half_open(gold: Tables) -> None:
    assert [bar.ts for bar in history.page(gold.conn, "GCZ3", "1m", at(3), at(5), 9)] == [at(3), at(4)]
    inside = at(3) + timedelta(seconds=1)
    assert [bar.ts for bar in history.page(gold.conn, "GCZ3", "1m", inside, inside + timedelta(minutes=1), 9)] == [
        at(4)
    ]


@pytest.mark.parametrize(("interval", "minutes"), [("5m", 5), ("15m", 15), ("1h", 60)])
def test_larger_bars_derive_from_those_of_a_minute(gold: Tables, interval: history.Interval, minutes: int) -> None:
    ones = history.page(gold.conn, "GCZ3", "1m", at(0), at(90), 1000)
    for big in history.page(gold.conn, "GCZ3", interval, at(0), at(90), 1000):
        mine = [bar for bar in ones if big.ts <= bar.ts < big.ts + timedelta(minutes=minutes)]
        assert (big.open, big.close) == (mine[0].open, mine[-1].close)
        assert Decimal(big.high) == max(Decimal(bar.high) for bar in mine)
        assert Decimal(big.low) == min(Decimal(bar.low) for bar in mine)
        assert Decimal(big.volume) == sum(Decimal(bar.volume) for bar in mine)
        assert Decimal(big.notional) == sum(Decimal(bar.notional) for bar in mine)
        assert big.updates == sum(bar.updates for bar in mine)
        assert Decimal(big.vwap or 0) == (vwap(Decimal(big.notional), Decimal(big.volume)) or 0)
    found = history.page(gold.conn, "GCZ3", interval, at(0), at(90), 1000)
    assert len(found) == len({int((bar.ts - at(0)).total_seconds()) // (60 * minutes) for bar in ones})


def test_a_day_is_a_trade_date_and_starts_where_it_begins(gold: Tables) -> None:
    begins = datetime(2013, 10, 7, 22, tzinfo=UTC)
    (day,) = history.page(gold.conn, "GCZ3", "1d", begins, begins + timedelta(days=1), 9)
    ones = history.page(gold.conn, "GCZ3", "1m", at(0), at(90), 1000)
    assert (day.ts, day.trade_date.isoformat()) == (begins, "2013-10-08")
    assert (day.open, day.close, day.volume) == (
        ones[0].open, ones[-1].close, str(sum(Decimal(bar.volume) for bar in ones)),
    )  # fmt: skip
    late = begins + timedelta(seconds=1)
    assert history.page(gold.conn, "GCZ3", "1d", late, late + timedelta(days=9), 9) == []
    assert history.page(gold.conn, "GCZ3", "1d", begins - timedelta(days=9), begins, 9) == []


def test_the_newest_bar_is_found_and_an_unknown_symbol_is_an_error(gold: Tables) -> None:
    newest = history.latest(gold.conn, "GCZ3")
    assert newest is not None
    assert newest.ts == at(89)
    with pytest.raises(LookupError, match="NOBODY"):
        history.latest(gold.conn, "NOBODY")


def test_a_crossed_locked_or_one_sided_book_has_no_spread(make_tables: Make) -> None:
    books = [("1", "2"), ("2", "1"), ("1", "1"), ("1", None), (None, None)]
    one = Decimal(1)
    held = make_tables(instrument("ES", "1"))
    held.commit([
        Plain("ES", NOON + i * MINUTE, one, one, bid and Decimal(bid), ask and Decimal(ask))  # type: ignore[arg-type]
        for i, (bid, ask) in enumerate(books)
    ])  # fmt: skip
    spreads = [bar.spread for bar in history.page(held.conn, "ES", "1m", at(0), at(9), 9)]
    assert spreads == ["1", None, None, None, None]
    view = held.conn.execute('SELECT spread FROM "ThorTrading_marketintraday" ORDER BY timestamp_minute').fetchall()
    assert [row[0] for row in view] == [one, None, None, None, None]


def test_the_kinds_of_minutes_add_up_to_all_minutes(make_tables: Make) -> None:
    held = make_tables(instrument("ESH4"))
    plain = snapshots(recording("esh4_20231225/snapshots_1hz.csv.gz"))
    held.commit(plain)
    held.conn.execute("INSERT INTO watches VALUES (%s, %s)", [plain[0].ts, plain[-1].ts])
    start, end = instant(ns("2023-12-25T22:00:00Z")), instant(ns("2023-12-26T02:00:00Z"))
    runs = history.why(held.conn, "ESH4", start, end)
    counts: Counter[str] = Counter()
    for run in runs:
        counts[run.kind] += run.minutes
    assert counts.total() == 240
    assert counts["bar"] == len(tables_in(held.conn).bars)
    assert counts["closed"] == 60
    assert [run.start for run in runs[1:]] == [run.end for run in runs[:-1]]


def test_too_many_minutes_are_refused(gold: Tables) -> None:
    with pytest.raises(ValueError, match="at most 527040"):
        history.why(gold.conn, "GCZ3", at(0), at(600_000))


@pytest.mark.parametrize("file", ["gc_20131008/trades.csv.gz", "esh4_20231225/quotes_and_trades.csv.gz"])
def test_session_and_rolling_vwap_of_the_reference_come_out_of_the_table_exactly(make_tables: Make, file: str) -> None:
    plain = trades(recording(file))
    symbols = sorted({quote.symbol for quote in plain})
    held = make_tables(*(instrument(symbol, "0.1" if file.startswith("gc") else "0.25") for symbol in symbols))
    held.commit(plain)
    minutes = tables_in(held.conn).vwap_minutes
    for row in rows_of(recording(f"{file.split('/', maxsplit=1)[0]}/reference_bars_1m.csv"))[::7]:
        symbol, minute = row["symbol"], instant(ns(row["bar_start_utc"]))
        session = vwap_store.session(held.conn, {symbol: minutes[symbol, minute]["trade_date"]}, minute)[symbol]
        roll = vwap_store.rolling(held.conn, [symbol], 30, minute)[symbol]
        for name, sums in (("session", session), ("roll30", roll)):
            assert (sums.volume, sums.notional) == (Decimal(row[f"{name}_volume"]), Decimal(row[f"{name}_notional"]))
            value = row[f"{name}_vwap_10dp"]
            assert sums.vwap == (Decimal(value) if value else None)


def test_any_instant_can_be_the_anchor(gold: Tables) -> None:
    ones = history.page(gold.conn, "GCZ3", "1m", at(10), at(21), 1000)
    sums = vwap_store.between(gold.conn, ["GCZ3", "NOBODY"], at(10), at(20) + timedelta(seconds=30))
    assert (sums["GCZ3"].volume, sums["GCZ3"].notional) == (
        sum(Decimal(bar.volume) for bar in ones), sum(Decimal(bar.notional) for bar in ones),
    )  # fmt: skip
    assert sums["NOBODY"].vwap is None


def test_a_transaction_killed_before_its_end_leaves_neither_rows_nor_position(dsn: str, gold: Tables) -> None:
    before, row = positions.read(gold.conn, "vwap"), tables_in(gold.conn)
    plain = trades(recording("gc_20131008/demo_1200_1330.csv.gz"))
    with gold.conn.transaction(), pytest.raises(psycopg.OperationalError):  # noqa: PT012
        gold.commit(plain[:100])
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [gold.conn.info.backend_pid])
        gold.conn.execute("SELECT 1")
    with psycopg.connect(dsn, autocommit=True) as other:
        assert positions.read(other, "vwap") == before
        assert tables_in(other) == row


def test_a_move_from_a_position_that_was_left_writes_nothing(gold: Tables) -> None:
    before = positions.read(gold.conn, "vwap")
    stale = Move("vwap", Position(before.generation, before.n - 1), Position(before.generation, before.n + 5))
    assert not vwap_store.commit(gold.conn, stale, None)
    assert positions.read(gold.conn, "vwap") == before
