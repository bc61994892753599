"""VWAP: folds, windows, rounding, bands (domain.md §6)."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.columns import instrument, ns, recording, rows_of, to_quotes, trades
from tests.referee import MINUTE, Plain
from thor.domain.minutes import Specs
from thor.domain.quotes import empty
from thor.domain.vwap import Rolling, Sums, fold, price_of, ratio

FILES = ["gc_20131008/trades.csv.gz", "esh4_20231225/quotes_and_trades.csv.gz"]


@pytest.mark.parametrize("file", FILES)
def test_session_and_thirty_minutes_of_the_reference_come_out_exactly(file: str) -> None:
    plain = trades(recording(file))
    tick = "0.1" if file.startswith("gc") else "0.25"
    known = {i: instrument(symbol, tick) for i, symbol in enumerate(sorted({quote.symbol for quote in plain}))}
    minutes = fold(to_quotes(plain, known), Specs(known))
    held = {
        (known[row[0]].symbol, row[1]): row
        for row in zip(*(getattr(minutes, name).tolist() for name in (
            "instrument", "minute", "trade_date", "volume", "notional")), strict=True)
    }  # fmt: skip
    reference = rows_of(recording(f"{file.split('/', maxsplit=1)[0]}/reference_bars_1m.csv"))
    assert {(row["symbol"], ns(row["bar_start_utc"]) // MINUTE) for row in reference} == held.keys()
    rolling = Rolling([30])
    session: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for row in sorted(reference, key=lambda row: row["bar_start_utc"]):
        number, minute, trade_date, volume, notional = held[row["symbol"], ns(row["bar_start_utc"]) // MINUTE]
        rolling.add(number, minute, volume, notional)
        rolling.advance(minute * MINUTE)
        sums = session[row["symbol"], trade_date]
        sums[0] += volume
        sums[1] += notional
        windows: dict[str, tuple[int, int]] = {
            "": (volume, notional),
            "session_": (sums[0], sums[1]),
            "roll30_": rolling.sums(30).get(number, (0, 0)),
        }
        for name, found in windows.items():
            expected = (int(Decimal(row[f"{name}volume"]) * 10**9), int(Decimal(row[f"{name}notional"]) * 10**18))
            assert found == expected
            value = row[f"{name}vwap_10dp"]
            assert price_of(*found) == (Decimal(value) if value else None)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2), st.integers(0, 9)), max_size=40), st.data())
def test_running_sums_equal_sums_over_the_window(rows: list[tuple[int, int, int]], data: st.DataObject) -> None:
    rolling = Rolling([1, 5, 30])
    now = 0
    for at, (minute, number, volume) in enumerate(rows):
        rolling.add(number, minute, volume, volume * 7)
        if data.draw(st.booleans()):
            now = max(now, data.draw(st.integers(0, 60)))
            rolling.advance(now * MINUTE + 5)
            for window in rolling.windows:
                # A minute that had left the longest window before its quote came is in none.
                expected: dict[int, int] = defaultdict(int)
                for m, i, v in rows[: at + 1]:
                    if now - window < m <= now:
                        expected[i] += v
                assert rolling.sums(window) == {i: (v, v * 7) for i, v in expected.items() if v}


def test_the_watermark_never_goes_back() -> None:
    rolling = Rolling([5])
    rolling.advance(100 * MINUTE)
    rolling.add(1, 99, 3, 30)
    rolling.advance(90 * MINUTE)
    assert rolling.sums(5) == {1: (3, 30)}


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [(1, 3, "0.3333333333"), (2, 3, "0.6666666667"), (1, 2 * 10**10, "0"), (3, 2 * 10**10, "0.0000000002"),
     (-1, 3, "-0.3333333333"), (-1, 2 * 10**10, "0"), (4000, 1, "4000"), (0, 5, "0")],
)  # fmt: skip
def test_a_quotient_is_rounded_half_even_to_ten_places(numerator: int, denominator: int, expected: str) -> None:
    found = ratio(numerator, denominator)
    assert found is not None
    assert f"{found:f}" == expected


def test_nothing_traded_has_no_vwap_and_no_bands() -> None:
    assert ratio(5, 0) is None
    assert (Sums().vwap, Sums().sigma, Sums().band(2)) == (None, None, None)


@given(st.lists(st.tuples(st.integers(-10_000, 10_000), st.integers(1, 99)), min_size=1, max_size=20))
def test_bands_are_the_weighted_standard_deviation_around_the_vwap(trades: list[tuple[int, int]]) -> None:
    with localcontext(prec=120):
        zero = Decimal(0)
        prices = [(Decimal(price) / 4, Decimal(volume)) for price, volume in trades]
        volume = sum((v for _, v in prices), zero)
        mean = sum((p * v for p, v in prices), zero) / volume
        sigma = (sum((v * (p - mean) ** 2 for p, v in prices), zero) / volume).sqrt()
        sums = Sums(volume, sum((p * v for p, v in prices), zero), sum((p * p * v for p, v in prices), zero))
        assert sums.sigma is not None
        assert abs(sums.sigma - sigma) <= Decimal("0.5e-10")
        for deviations in (-2, -1, 1, 2):
            band = sums.band(deviations)
            assert band is not None
            assert abs(band - (mean + deviations * sigma)) <= Decimal("0.50000000000001e-10")


def test_volume_of_a_snapshot_after_a_silence_has_no_price() -> None:
    known = {0: instrument("ES")}
    quiet = Plain("ES", MINUTE * 3, Decimal(4000), Decimal(50), snapshot=True, gap_from=MINUTE)
    minutes = fold(to_quotes([quiet], known), Specs(known))
    assert (minutes.last.tolist(), minutes.volume.tolist()) == ([4000 * 10**9], [0])


def test_no_quotes_give_no_minutes() -> None:
    assert len(fold(empty(), Specs({}))) == 0


def test_sums_that_pass_int64_stay_exact() -> None:
    known = {0: instrument("BTC", "0.01", "0.00000001")}
    size, price = Decimal("90000000000.00000001"), Decimal("98765.43")
    plain = [Plain("BTC", at, price, size) for at in range(3)]
    minutes = fold(to_quotes(plain, known), Specs(known))
    with localcontext(prec=100):
        assert minutes.volume.tolist() == [int(3 * size * 10**9)]
        assert minutes.notional.tolist() == [int(3 * size * price * 10**18)]
        assert minutes.squares.tolist() == [int(3 * size * price * price * 10**27)]
    assert minutes.volume.dtype == np.dtype(object)
