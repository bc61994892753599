"""Partial rows merged in Postgres: any cut, any order of arrival, and the recordings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.columns import ALWAYS, instrument, ns, recording, rows_of, snapshots, tables_in, trade_date_of, trades
from tests.referee import Plain, instant, tables
from tests.stores.conftest import Tables

# A minute before a Chicago trade date begins: a handful of instants crosses minutes and the date.
BEGINS = 1_381_183_200_000_000_000
KNOWN = (
    instrument("ES"),
    instrument("CL", "0.01", negative=True),
    instrument("BTC", "0.01", "0.00000001", ALWAYS),
)
#: On and off the tick, negative, and so large that no int64 holds price² × volume.
PRICES = {
    "ES": ("4800.25", "4800.5", "4799.75", "4800.3"),
    "CL": ("-37.63", "0", "0.01", "21.005"),
    "BTC": ("98765.43", "98765.44", "1.000000001", "9000000000"),
}
SIZES = {"ES": ("0", "1", "3", "900000000"), "CL": ("0", "2"), "BTC": ("0", "0.00000001", "12.5", "90000000000")}


@st.composite
def plain_quotes(draw: st.DrawFn) -> Plain:
    symbol = draw(st.sampled_from(list(PRICES)))
    ts = BEGINS + draw(st.integers(-3, 3)) * 25_000_000_000 + draw(st.integers(0, 1))
    price = st.sampled_from(PRICES[symbol]).map(Decimal)
    size = st.sampled_from(SIZES[symbol]).map(Decimal)
    moves, snapshot = draw(st.booleans()), draw(st.booleans())
    late = moves and draw(st.booleans())
    silent = draw(st.integers(0, 5)) == 0
    return Plain(
        symbol,
        ts,
        draw(price) if moves else None,
        draw(st.none() | size) if moves else None,
        draw(st.none() | price),
        draw(st.none() | price),
        draw(st.none() | size) if snapshot else None,
        draw(st.none() | price),
        snapshot,
        moves,
        late,
        ts + 60_000_000_000 if late else None,
        ts - 90_000_000_000 if silent else None,
        silent and draw(st.booleans()),
    )


@pytest.fixture
def three(make_tables: Callable[..., Tables]) -> Tables:
    return make_tables(*KNOWN)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_cut_gives_the_tables_of_the_referee(three: Tables, data: st.DataObject) -> None:
    plain = data.draw(st.lists(plain_quotes(), max_size=25))
    cuts = data.draw(st.lists(st.integers(0, len(plain)), max_size=4))
    three.clear()
    three.commit(plain, *cuts)
    assert tables_in(three.conn) == tables(plain, trade_date_of(three.instruments))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_of_arrival_gives_the_same_tables(three: Tables, data: st.DataObject) -> None:
    # Where counting began is a matter of arrival, by domain.md §4; ties are decided by arrival, so they keep theirs.
    ordered = sorted((replace(quote, volume=None) for quote in data.draw(st.lists(plain_quotes(), max_size=25))),
                     key=lambda quote: quote.ts)  # fmt: skip
    turn = data.draw(st.permutations(sorted({quote.ts for quote in ordered})))
    arrived = sorted(ordered, key=lambda quote: turn.index(quote.ts))
    cuts = data.draw(st.lists(st.integers(0, len(arrived)), max_size=4))
    three.clear()
    three.commit(arrived, *cuts)
    assert tables_in(three.conn) == tables(ordered, trade_date_of(three.instruments))


@pytest.mark.parametrize("chunk", [1_000_000, 4_096, 997])
def test_a_day_of_gold_gives_every_bar_of_the_vendor_and_nothing_else(
    make_tables: Callable[..., Tables], chunk: int
) -> None:
    plain = trades(recording("gc_20131008/trades.csv.gz"))
    held = make_tables(*(instrument(symbol, "0.1") for symbol in sorted({quote.symbol for quote in plain})))
    held.commit(plain, *range(chunk, len(plain), chunk))
    bars = tables_in(held.conn).bars
    vendor = rows_of(recording("gc_20131008/vendor_bars_1m.csv"))
    reference = {(r["symbol"], r["bar_start_utc"]): r for r in rows_of(recording("gc_20131008/reference_bars_1m.csv"))}
    assert len(bars) == len(vendor) == len(reference)
    for row in vendor:
        bar = bars[row["symbol"], _at(row["bar_start_utc"])]
        assert {name: bar[name] for name in ("open", "high", "low", "close", "volume")} == {
            name: Decimal(row[name]) for name in ("open", "high", "low", "close", "volume")
        }
        more = reference[row["symbol"], row["bar_start_utc"]]
        assert (bar["notional"], bar["updates"]) == (Decimal(more["notional"]), int(more["trades"]))


def test_an_hour_of_the_s_and_p_gives_the_reference_bars(make_tables: Callable[..., Tables]) -> None:
    plain = trades(recording("esh4_20231225/quotes_and_trades.csv.gz"))
    held = make_tables(instrument("ESH4"))
    held.commit(plain, *range(1000, len(plain), 1000))
    found = tables_in(held.conn)
    assert found == tables(plain, trade_date_of(held.instruments))
    _equals_reference(found.bars, "esh4_20231225/reference_bars_1m.csv", "trades")


def test_the_same_hour_as_a_poller_sees_it_gives_its_own_reference(make_tables: Callable[..., Tables]) -> None:
    plain = snapshots(recording("esh4_20231225/snapshots_1hz.csv.gz"))
    held = make_tables(instrument("ESH4"))
    held.commit(plain, *range(100, len(plain), 100))
    found = tables_in(held.conn)
    assert found == tables(plain, trade_date_of(held.instruments))
    _equals_reference(found.bars, "esh4_20231225/reference_bars_1m_from_snapshots.csv", "updates")
    for day in found.days.values():
        assert day["volume"] + day["gap_volume"] == day["feed_volume"] - day["baseline"]
    assert {bar["basis"] for bar in found.bars.values()} == {"snapshot"}


def _at(text: str) -> object:
    return instant(ns(text))


def _equals_reference(bars: dict[tuple[object, ...], dict[str, object]], file: str, count: str) -> None:
    reference = rows_of(recording(file))
    assert len(bars) == len(reference)
    for row in reference:
        bar = bars[row["symbol"], _at(row["bar_start_utc"])]
        names = ("open", "high", "low", "close", "volume", "notional")
        assert {name: bar[name] for name in names} == {name: Decimal(row[name]) for name in names}
        assert bar["updates"] == int(row[count])
