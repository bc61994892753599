"""Instruments for the tests of the feeds: decimals, 32nds, eighths and a fractional size."""

from __future__ import annotations

from decimal import Decimal

from tests.columns import GLOBEX
from thor.domain.instruments import Instrument, Instruments
from thor.domain.prices import Notation


def instrument(symbol: str, tick: str = "0.25", step: str = "1", notation: Notation = "decimal") -> Instrument:
    return Instrument(
        symbol, symbol, "CME", "USA", Decimal(tick), Decimal(5), Decimal(step), 2, GLOBEX, notation=notation
    )


REGISTRY = Instruments(
    [
        instrument("ES"),
        instrument("GC", "0.1"),
        instrument("CL", "0.01"),
        instrument("ZB", "0.03125", notation="32nds"),
        instrument("ZC", "0.25", notation="8ths"),
        instrument("BTC", "0.01", "0.0001"),
        instrument("VX", "0.05"),
    ]
)
