"""The intake: what is refused, what traded, what moves a bar (domain.md §3–§5)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import time
from decimal import Decimal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from thor.domain.hours import Hours
from thor.domain.instruments import Instrument, Instruments
from thor.domain.intake import Accepted, Intake, Rules
from thor.domain.prices import NA, NANO
from thor.domain.quotes import LATE, MOVES, POLLED, REFRESH, SNAPSHOT, STACK_DOWN, Quotes, concat

CME = Hours("CME Globex", "America/Chicago", time(17), time(17), time(16))
#: Tuesday 2024-01-09, 17:00 in Chicago: a trade date begins.
ROLL = 1_704_841_200 * NANO
S = NANO


def instrument(symbol: str, *, negative: bool = False) -> Instrument:
    return Instrument(symbol, symbol, "X", "USA", Decimal("0.25"), Decimal(1), Decimal(1), 2, CME, negative=negative)


REGISTRY = Instruments([instrument("ES"), instrument("CL", negative=True), instrument("NQ")])


def quotes(rows: Sequence[dict[str, int]], flags: int = 0, source: str = "TEST") -> Quotes:
    """Rows of {symbol number, ts, field: value}; prices in points."""
    names = dict.fromkeys(name for row in rows for name in row if name not in ("i", "ts"))
    levels = ("last", "bid", "ask", "open", "high", "low", "close", "change")
    return Quotes(
        np.array([row.get("i", 0) for row in rows], np.int32),
        np.array([row.get("ts", NA) for row in rows], np.int64),
        np.full(len(rows), flags, np.uint8),
        np.zeros(len(rows), np.uint8),
        (source,),
        {
            name: np.array(
                [NA if (v := row.get(name)) is None else v * S if name in levels else v for row in rows], np.int64
            )
            for name in names
        },
    )


def fresh(**rules: int) -> Intake:
    return Intake(REGISTRY, Rules(**rules))


def reasons(done: Accepted) -> list[tuple[int, str]]:
    return [(row, reason) for row, reason, _ in done.refused]


def test_every_equal_print_of_a_trade_feed_is_a_trade() -> None:
    row = {"ts": ROLL, "last": 4800, "last_size": 2}
    done = fresh().accept(quotes([row, row, row]), NA, recorded=True)
    assert done.quotes.columns["traded"].tolist() == [2, 2, 2]
    assert (done.quotes.flags & MOVES != 0).all()


def test_a_print_of_unknown_size_makes_a_bar_and_trades_nothing() -> None:
    done = fresh().accept(quotes([{"ts": ROLL, "last": 4800}]), NA, recorded=True)
    assert done.quotes.columns["traded"].tolist() == [0]
    assert done.quotes.flags.tolist() == [MOVES]


def test_a_book_without_a_print_moves_no_bar() -> None:
    done = fresh().accept(quotes([{"ts": ROLL, "bid": 4800, "ask": 4801}]), NA, recorded=True)
    assert done.quotes.flags.tolist() == [0]


def test_prices_at_or_below_zero_are_refused_where_the_instrument_cannot_trade_there() -> None:
    rows = [{"ts": ROLL, "last": -1}, {"ts": ROLL, "last": 0}, {"i": 1, "ts": ROLL, "last": -37}]
    done = fresh().accept(quotes(rows), NA, recorded=True)
    assert reasons(done) == [(0, "bad_price"), (1, "bad_price")]
    assert done.quotes.column("last").tolist() == [-37 * S]


def test_a_zero_beside_live_prices_is_not_known() -> None:
    rows = [{"ts": ROLL, "last": 0, "open": 0, "bid": 118, "ask": 119}]
    done = fresh().accept(quotes(rows, SNAPSHOT), NA, recorded=True)
    assert not done.refused
    assert done.quotes.columns["last"].tolist() == [NA]
    assert done.quotes.flags.tolist() == [SNAPSHOT]


def test_a_zero_of_an_instrument_that_trades_at_zero_counts_when_its_book_is_near() -> None:
    rows = [{"i": 1, "ts": ROLL, "last": 0, "bid": 1}, {"i": 1, "ts": ROLL + S, "last": 0, "bid": 9000}]
    done = fresh().accept(quotes(rows), NA, recorded=True)
    assert done.quotes.columns["last"].tolist() == [0, NA]


def test_negative_sizes_are_refused() -> None:
    rows = [{"ts": ROLL, "last": 1, "last_size": -1}, {"ts": ROLL, "volume": -5}]
    assert reasons(fresh().accept(quotes(rows), NA, recorded=True)) == [(0, "bad_size"), (1, "bad_size")]


def test_a_live_quote_is_refused_too_far_ahead_of_or_behind_the_watermark() -> None:
    rows = [{"ts": ROLL + 5 * S, "last": 1}, {"ts": ROLL + 5 * S + 1, "last": 1}, {"ts": ROLL - 3601 * S, "last": 1}]
    done = fresh().accept(quotes(rows), ROLL, recorded=False)
    assert reasons(done) == [(1, "ts_ahead"), (2, "too_late")]


def test_in_a_recording_lateness_is_measured_against_the_quotes_before() -> None:
    rows = [{"ts": ROLL + 7200 * S, "last": 1}, {"ts": ROLL, "last": 1}, {"ts": ROLL + 7200 * S, "last": 1}]
    done = fresh().accept(quotes(rows), NA, recorded=True)
    assert reasons(done) == [(1, "too_late")]
    assert done.rows.tolist() == [0, 2]


def test_a_quote_without_ts_gets_the_time_of_arrival() -> None:
    done = fresh().accept(quotes([{"last": 1}]), ROLL, recorded=False)
    assert done.quotes.ts.tolist() == [ROLL]


def test_a_quote_is_late_when_the_watermark_had_passed_the_end_of_its_minute() -> None:
    rows = [{"ts": ROLL + 59 * S, "last": 1}, {"ts": ROLL + 60 * S, "last": 1}, {"ts": ROLL + 59 * S, "last": 1}]
    done = fresh().accept(quotes(rows), NA, recorded=True)
    assert (done.quotes.flags & LATE != 0).tolist() == [False, False, True]
    assert done.quotes.columns["mark"].tolist() == [NA, NA, ROLL + 60 * S]


def test_an_equal_snapshot_only_refreshes_and_a_new_book_moves_no_bar() -> None:
    rows = [
        {"ts": ROLL, "last": 5, "bid": 4, "volume": 7},
        {"ts": ROLL + S, "last": 5, "bid": 4, "volume": 7},
        {"ts": ROLL + 2 * S, "last": 5, "bid": 3, "volume": 7},
        {"ts": ROLL + 3 * S, "last": 5, "bid": 3, "volume": 9},
    ]
    intake = fresh()
    done = intake.accept(quotes(rows, SNAPSHOT), NA, recorded=True)
    assert (done.quotes.flags & MOVES != 0).tolist() == [True, False, False, True]
    assert (done.quotes.flags & REFRESH != 0).tolist() == [False, True, False, False]
    assert done.quotes.columns["traded"].tolist() == [0, 0, 0, 2]


def test_a_torn_snapshot_puts_its_volume_to_the_last_price_known() -> None:
    rows = [{"ts": ROLL, "last": 5, "volume": 7}, {"ts": ROLL + S, "volume": 9}]
    done = fresh().accept(quotes(rows, SNAPSHOT), NA, recorded=True)
    assert done.quotes.columns["last"].tolist() == [5 * S, 5 * S]
    assert done.quotes.columns["traded"].tolist() == [0, 2]


def test_volume_before_any_price_waits_for_the_price() -> None:
    rows = [{"ts": ROLL, "volume": 7}, {"ts": ROLL + S, "volume": 9}, {"ts": ROLL + 2 * S, "last": 5, "volume": 12}]
    done = fresh().accept(quotes(rows, SNAPSHOT), NA, recorded=True)
    assert done.quotes.columns["traded"].tolist() == [0, 0, 5]


def test_a_repeated_sequence_number_is_a_duplicate_and_another_source_may_use_it() -> None:
    intake = fresh()
    row = {"ts": ROLL, "last": 1, "last_size": 1, "seq": 7}
    assert reasons(intake.accept(quotes([row, row]), NA, recorded=True)) == [(1, "duplicate")]
    assert not intake.accept(quotes([row], source="OTHER"), NA, recorded=True).refused


def test_the_first_volume_of_a_trade_date_counts_whole_only_when_watched() -> None:
    seen = fresh()
    rows = [{"ts": ROLL - S, "last": 5, "volume": 1000}, {"ts": ROLL + S, "last": 5, "volume": 30}]
    assert seen.accept(quotes(rows, SNAPSHOT), NA, recorded=True).quotes.columns["traded"].tolist() == [0, 30]
    late = fresh()
    assert late.accept(quotes(rows[1:], SNAPSHOT), NA, recorded=True).quotes.columns["traded"].tolist() == [0]


def test_a_counter_that_the_feed_has_not_reset_yet_is_not_counted_again() -> None:
    rows = [
        {"ts": ROLL - S, "last": 5, "volume": 1000},
        {"ts": ROLL + S, "last": 5, "volume": 1000},
        {"ts": ROLL + 2 * S, "last": 5, "volume": 3},
    ]
    done = fresh().accept(quotes(rows, SNAPSHOT), NA, recorded=True)
    assert done.quotes.columns["traded"].tolist() == [0, 0, 3]


def test_a_counter_that_falls_and_comes_back_is_not_counted_twice() -> None:
    volumes = [1000, 1010, 4, 1012]
    rows = [{"ts": ROLL + n * S, "last": 5, "volume": v} for n, v in enumerate(volumes)]
    done = fresh().accept(quotes(rows, SNAPSHOT), NA, recorded=True)
    assert done.quotes.columns["traded"].tolist() == [0, 10, 0, 2]


def test_a_polled_symbol_that_was_silent_inside_its_hours_ends_a_gap() -> None:
    rows = [{"ts": ROLL, "last": 5, "volume": 1}, {"ts": ROLL + 61 * S, "last": 6, "volume": 9}]
    done = fresh().accept(quotes(rows, SNAPSHOT | POLLED), NA, recorded=True)
    assert done.quotes.columns["gap_from"].tolist() == [NA, ROLL]
    assert done.quotes.columns["traded"].tolist() == [0, 8]


def test_the_daily_break_is_no_gap() -> None:
    rows = [{"ts": ROLL - 3630 * S, "last": 5, "volume": 1}, {"ts": ROLL + 5 * S, "last": 6, "volume": 9}]
    done = fresh().accept(quotes(rows, SNAPSHOT | POLLED), NA, recorded=True)
    assert "gap_from" not in done.quotes.columns


def test_a_quiet_symbol_of_a_level_one_stream_is_no_gap_but_a_quiet_stream_is() -> None:
    intake = fresh()
    first = quotes([{"ts": ROLL, "last": 5}, {"i": 2, "ts": ROLL, "last": 5}], SNAPSHOT)
    intake.accept(first, ROLL + S, recorded=False)
    for n in range(30, 120, 30):
        done = intake.accept(quotes([{"ts": ROLL + n * S, "last": 5 + n}], SNAPSHOT), ROLL + n * S, recorded=False)
        assert "gap_from" not in done.quotes.columns
    done = intake.accept(quotes([{"i": 2, "ts": ROLL + 100 * S, "last": 6}], SNAPSHOT), ROLL + 100 * S, recorded=False)
    assert "gap_from" not in done.quotes.columns
    done = intake.accept(quotes([{"ts": ROLL + 300 * S, "last": 6}], SNAPSHOT), ROLL + 300 * S, recorded=False)
    assert done.quotes.columns["gap_from"].tolist() == [ROLL + 100 * S]


def test_an_absence_of_our_own_is_said_to_be_ours() -> None:
    intake = fresh()
    intake.accept(quotes([{"ts": ROLL, "last": 5}]), ROLL, recorded=False)
    later = ROLL + 300 * S
    done = intake.accept(quotes([{"ts": later, "last": 5}]), later, recorded=False, broken_since=ROLL)
    assert done.quotes.columns["gap_from"].tolist() == [ROLL]
    assert done.quotes.flags.tolist() == [MOVES | STACK_DOWN]


def test_latest_keeps_former_values_and_ignores_older_quotes() -> None:
    intake = fresh()
    rows = [{"ts": ROLL + S, "last": 5, "bid": 4}, {"ts": ROLL, "last": 3, "ask": 6}, {"ts": ROLL + 2 * S, "last": 7}]
    intake.accept(quotes(rows), NA, recorded=True)
    intake.accept(quotes([{"ts": ROLL + S, "last": 1, "bid": 1}]), NA, recorded=True)
    assert dict(intake.latest(0)) == {"ts": ROLL + 2 * S, "last": 7 * S, "bid": 4 * S, "ask": 6 * S}


# A day of a market as its poller sees it: per symbol seconds with the volume traded since the poll before.
polls = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 90), st.integers(0, 50)), min_size=1, max_size=60)


@settings(max_examples=300, deadline=None)
@given(polls, st.data())
def test_bars_and_gaps_hold_the_feeds_own_total_for_any_chunks_and_restarts(
    steps: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """Across the roll, whatever the silences: Σ traded = Σ over trade dates of what the counter showed."""
    start = ROLL - 20 * 60 * S
    # 16:40 to 17:00 in Chicago is the break; the counter starts anew with the roll.
    at, counters, expected, rows = start, [0, 0], [0, 0], []
    rows += [{"i": i, "ts": start, "last": 9, "volume": 0} for i in (0, 1)]
    day = [0, 0]
    for i, wait, volume in steps:
        at += wait * S
        if at >= ROLL and not day[i]:
            day[i], counters[i] = 1, 0
        counters[i] += volume
        expected[i] += volume
        rows.append({"i": i, "ts": at, "last": 9 + at % 3, "volume": counters[i]})
    whole = fresh().accept(quotes(rows, SNAPSHOT | POLLED), NA, recorded=True)
    numbers, traded = whole.quotes.instrument, whole.quotes.columns["traded"]
    assert [int(traded[numbers == i].sum()) for i in (0, 1)] == expected

    intake, parts, done = fresh(), [], 0
    while done < len(rows):
        upto = data.draw(st.integers(done + 1, len(rows)))
        parts.append(intake.accept(quotes(rows[done:upto], SNAPSHOT | POLLED), NA, recorded=True).quotes)
        done = upto
        if data.draw(st.booleans()):
            again = fresh()
            again.restore({REGISTRY[i].symbol: intake.cells[i].tobytes() for i in range(3)})
            again.watermark, again.watching = intake.watermark, intake.watching
            intake = again
    same = concat(parts)
    for name in ("traded", "last", "gap_from"):
        assert same.column(name).tolist() == whole.quotes.column(name).tolist()
    assert same.flags.tolist() == whole.quotes.flags.tolist()
