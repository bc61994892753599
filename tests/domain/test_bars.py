"""Folds of quotes into partial rows (domain.md §4, §5). That they merge rightly is shown in tests/stores."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.columns import GLOBEX, instrument, to_quotes
from tests.referee import MINUTE, Plain
from thor.domain.bars import KINDS, Folded, classify, fold
from thor.domain.minutes import Specs
from thor.domain.quotes import empty

KNOWN = {3: instrument("ES"), 70_000: instrument("NQ")}


def folded(*plain: Plain) -> Folded:
    return fold(to_quotes(plain, KNOWN), Specs(KNOWN))


def print_at(ts: int, last: str = "4000", traded: int = 1, symbol: str = "ES", **other: object) -> Plain:
    return Plain(symbol, ts, Decimal(last), Decimal(traded), **other)  # type: ignore[arg-type]


def test_a_quote_on_the_minute_belongs_to_the_minute_it_begins() -> None:
    found = folded(print_at(5 * MINUTE), print_at(6 * MINUTE - 1), print_at(6 * MINUTE))
    assert (found.bars.minute.tolist(), found.bars.updates.tolist()) == ([5, 6], [2, 1])


def test_event_time_decides_open_and_close_and_arrival_decides_ties() -> None:
    found = folded(
        print_at(20, "2"), print_at(10, "1"), print_at(10, "9"), print_at(30, "3"), print_at(30, "4"), print_at(25, "5")
    ).bars
    assert (found.open.tolist(), found.close.tolist()) == ([10**9], [4 * 10**9])
    assert (found.open_ns.tolist(), found.close_ns.tolist()) == ([10], [30])


def test_a_print_of_size_zero_makes_a_bar() -> None:
    found = folded(print_at(0, traded=0)).bars
    assert (len(found), found.volume.tolist(), found.updates.tolist()) == (1, [0], [1])


def test_a_quote_that_moves_no_bar_feeds_only_the_book() -> None:
    found = folded(Plain("ES", 7, bid=Decimal(1), moves=False), Plain("ES", 9, ask=Decimal(2), moves=False))
    assert len(found.bars) == len(found.days.instrument) == 0
    assert (found.books.bid_ns.tolist(), found.books.ask_ns.tolist()) == ([7], [9])


def test_late_quotes_are_counted_with_the_newest_mark() -> None:
    found = folded(print_at(1), print_at(2, late=True, mark=99), print_at(3, late=True, mark=98)).bars
    assert (found.revision.tolist(), found.revised_at.tolist()) == ([2], [99])


def test_a_trade_after_a_silence_keeps_its_volume_and_a_snapshot_gives_it_to_the_gap() -> None:
    found = folded(
        print_at(3 * MINUTE, traded=4, gap_from=MINUTE),
        print_at(3 * MINUTE, traded=5, symbol="NQ", gap_from=MINUTE, snapshot=True, stack_down=True),
    )
    assert (found.bars.volume / 10**9).tolist() == [4, 0]
    assert (found.gaps.volume / 10**9).tolist() == [0, 5]
    assert found.gaps.stack_down.tolist() == [0, 1]
    assert (found.days.gap_volume / 10**9).tolist() == [0, 5]


def test_instruments_beyond_16_bits_are_kept_apart_and_sorted() -> None:
    found = folded(print_at(2, symbol="NQ"), print_at(1), print_at(0, symbol="NQ")).bars
    assert (found.instrument.tolist(), found.updates.tolist()) == ([3, 70_000], [1, 2])


def test_no_quotes_fold_to_no_rows() -> None:
    found = fold(empty(), Specs({}))
    assert len(found.bars) == len(found.books.bid) == len(found.gaps.starts) == len(found.days.instrument) == 0


def test_every_minute_has_one_reason() -> None:
    monday = 15_986 * 1440 + 22 * 60  # 2013-10-08 22:00 UTC is 17:00 in Chicago: the open
    minutes = np.arange(monday - 3, monday + 10)
    span = (monday - 3) * MINUTE, (monday + 10) * MINUTE
    kinds = classify(
        minutes,
        made=np.array([monday]),
        gaps=[((monday + 3) * MINUTE + 5, (monday + 5) * MINUTE + 1)],
        watches=[
            ((monday - 10) * MINUTE, (monday + 2) * MINUTE + 7),
            ((monday + 6) * MINUTE, (monday + 8) * MINUTE + 1),
        ],
        sessions=GLOBEX.sessions(*span),
    )
    assert [KINDS[kind] for kind in kinds] == [
        "closed", "closed", "closed", "bar", "quiet", "not_watching", "gap", "gap", "gap", "quiet", "quiet", "quiet",
        "not_watching",
    ]  # fmt: skip


HALF = MINUTE // 2
span = st.tuples(st.integers(0, 40), st.integers(1, 10)).map(lambda s: (s[0] * HALF, (s[0] + s[1]) * HALF))


@given(st.sets(st.integers(0, 20)), st.lists(span, max_size=3), st.lists(span, max_size=3), st.lists(span, max_size=3))
def test_the_reasons_follow_from_each_minute_alone(
    made: set[int], gaps: list[tuple[int, int]], watches: list[tuple[int, int]], sessions: list[tuple[int, int]]
) -> None:
    minutes = np.arange(21)
    # The running watch ends past everything, as its newest minute is not over.
    watches = [*watches, (100 * MINUTE, 101 * MINUTE)]
    found = classify(minutes, np.array(sorted(made), np.int64), gaps, watches, sessions)
    for minute, kind in enumerate(found):
        low, high = minute * MINUTE, (minute + 1) * MINUTE

        def meets(spans: list[tuple[int, int]], low: int = low, high: int = high) -> bool:
            return any(start < high and end > low and start < end for start, end in spans)

        if minute in made:
            expected = "bar"
        elif not meets(sessions):
            expected = "closed"
        elif meets(gaps):
            expected = "gap"
        else:
            expected = "quiet" if any(a <= low and b >= high for a, b in watches) else "not_watching"
        assert KINDS[kind] == expected
