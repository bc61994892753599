"""The referee: domain.md §4–§7 done plainly, one quote at a time, in Decimal. Slow and obviously right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

MINUTE = 60 * 10**9
Row = dict[str, Any]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Plain:
    """One accepted quote, as the log has it: prices in points, sizes in whole units, times in ns."""

    symbol: str
    ts: int
    last: Decimal | None = None
    traded: Decimal | None = None
    bid: Decimal | None = None
    ask: Decimal | None = None
    volume: Decimal | None = None
    close: Decimal | None = None
    snapshot: bool = False
    moves: bool = True
    late: bool = False
    mark: int | None = None
    gap_from: int | None = None
    stack_down: bool = False


@dataclass
class Tables:
    """What the projections' tables must hold."""

    bars: dict[Key, Row] = field(default_factory=dict)
    books: dict[Key, Row] = field(default_factory=dict)
    gaps: dict[Key, Row] = field(default_factory=dict)
    days: dict[Key, Row] = field(default_factory=dict)
    vwap_minutes: dict[Key, Row] = field(default_factory=dict)


def tables(quotes: Sequence[Plain], trade_date: Callable[[str, int], date]) -> Tables:
    """The tables of quotes in order of arrival."""
    found = Tables()
    with localcontext(prec=200):
        for quote in quotes:
            _quote(found, quote, trade_date)
    return found


def _quote(found: Tables, quote: Plain, trade_date: Callable[[str, int], date]) -> None:
    day = trade_date(quote.symbol, quote.ts)
    minute = instant(quote.ts // MINUTE * MINUTE)
    _book(found, quote, minute)
    _feed(found, quote, day)
    volume = quote.traded or Decimal(0)
    if quote.gap_from is not None:
        _gap(found, quote, day, volume if quote.snapshot else Decimal(0))
        if quote.snapshot:
            volume = Decimal(0)
    if quote.moves:
        _bar(found.bars.setdefault((quote.symbol, minute), {"trade_date": day}), quote, volume)
        _bar(_day(found, quote.symbol, day), quote, volume)
        _minute(found.vwap_minutes.setdefault((quote.symbol, minute), {"trade_date": day}), quote, volume)


def _bar(row: Row, quote: Plain, volume: Decimal) -> None:
    assert quote.last is not None
    basis = "snapshot" if quote.snapshot else "trade"
    if row.get("open") is None:
        row |= dict.fromkeys(("open", "high", "low", "close"), quote.last)
        row |= {"open_ns": quote.ts, "close_ns": quote.ts, "basis": basis, "revised_at": None}
        row |= {"volume": Decimal(0), "notional": Decimal(0), "updates": 0, "revision": 0}
    if quote.ts < row["open_ns"]:
        row["open"], row["open_ns"] = quote.last, quote.ts
    if quote.ts >= row["close_ns"]:
        row["close"], row["close_ns"] = quote.last, quote.ts
    row["high"], row["low"] = max(row["high"], quote.last), min(row["low"], quote.last)
    row["volume"] += volume
    row["notional"] += quote.last * volume
    row["updates"] += 1
    if row["basis"] != basis:
        row["basis"] = "mixed"
    if quote.late:
        assert quote.mark is not None
        row["revision"] += 1
        row["revised_at"] = max(row["revised_at"] or instant(0), instant(quote.mark))


def _minute(row: Row, quote: Plain, volume: Decimal) -> None:
    assert quote.last is not None
    if "last_ns" not in row or quote.ts >= row["last_ns"]:
        row["last"], row["last_ns"] = quote.last, quote.ts
    for name, worth in (("volume", Decimal(1)), ("notional", quote.last), ("squares", quote.last**2)):
        row[name] = row.get(name, Decimal(0)) + worth * volume


def _book(found: Tables, quote: Plain, minute: datetime) -> None:
    if quote.bid is None and quote.ask is None:
        return
    unknown = {"bid": None, "bid_ns": None, "ask": None, "ask_ns": None}
    row = found.books.setdefault((quote.symbol, minute), unknown)
    for side, value in (("bid", quote.bid), ("ask", quote.ask)):
        if value is not None and (row[f"{side}_ns"] is None or quote.ts >= row[f"{side}_ns"]):
            row[side], row[f"{side}_ns"] = value, quote.ts


def _gap(found: Tables, quote: Plain, day: date, volume: Decimal) -> None:
    key = (quote.symbol, quote.gap_from, quote.ts)
    row = found.gaps.setdefault(key, {"cause": "feed silent", "volume": Decimal(0), "trade_date": day})
    row["volume"] += volume
    if quote.stack_down:
        row["cause"] = "stack down"
    _day(found, quote.symbol, day)["gap_volume"] += volume


def _feed(found: Tables, quote: Plain, day: date) -> None:
    if quote.close is not None:
        row = _day(found, quote.symbol, day)
        if row["previous_close_ns"] is None or quote.ts >= row["previous_close_ns"]:
            row["previous_close"], row["previous_close_ns"] = quote.close, quote.ts
    if quote.snapshot and quote.volume is not None:
        row = _day(found, quote.symbol, day)
        if row["baseline"] is None:
            row["baseline"] = quote.volume - (quote.traded or 0)
        if row["feed_ns"] is None or quote.ts >= row["feed_ns"]:
            row["feed_volume"], row["feed_ns"] = quote.volume, quote.ts


def _day(found: Tables, symbol: str, day: date) -> Row:
    names = (
        "open", "high", "low", "close", "open_ns", "close_ns", "basis", "revised_at", "previous_close",
        "previous_close_ns", "baseline", "feed_volume", "feed_ns",
    )  # fmt: skip
    zero = Decimal(0)
    counts = {"volume": zero, "notional": zero, "gap_volume": zero, "updates": 0, "revision": 0}
    return found.days.setdefault((symbol, day), dict.fromkeys(names) | counts)


def instant(ns: int) -> datetime:
    """What a timestamptz keeps of it."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)


def vwap(notional: Decimal, volume: Decimal) -> Decimal | None:
    """Ten places, half even."""
    if not volume:
        return None
    with localcontext(prec=200):
        return (notional / volume).quantize(Decimal("1e-10"), ROUND_HALF_EVEN)


def window(found: Tables, symbol: str, minutes: int, at: datetime) -> tuple[Decimal, Decimal]:
    """Volume and notional of the minutes (m − N, m], with m the minute of ``at``."""
    last = at.replace(second=0, microsecond=0)
    rows = [
        row for (name, minute), row in found.vwap_minutes.items()
        if name == symbol and last - timedelta(minutes=minutes) < minute <= last
    ]  # fmt: skip
    return sum((row["volume"] for row in rows), Decimal(0)), sum((row["notional"] for row in rows), Decimal(0))
