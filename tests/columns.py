"""Plain quotes ↔ columns, recordings → plain quotes, tables of Postgres → the referee's form."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.referee import Plain, Tables
from thor.domain.hours import Hours
from thor.domain.instruments import Instrument
from thor.domain.prices import NA
from thor.domain.quotes import LATE, MOVES, SNAPSHOT, STACK_DOWN, Ints, Quotes
from thor.runtime.settings import ROOT

GLOBEX = Hours("CME Globex", "America/Chicago", time(17), time(17), time(16))
ALWAYS = Hours("Always", "UTC", time(0), time(0), time(0), eve=False, weekdays=frozenset(range(7)))
DATA = ROOT.parent / "shared" / "data"


def recording(name: str) -> Path:
    """A file of the recorded market data, which is not part of this project: skips where it is not there."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the recordings are not here: {path}")
    return path


def instrument(
    symbol: str, tick: str = "0.25", step: str = "1", hours: Hours = GLOBEX, *, negative: bool = False
) -> Instrument:
    """An instrument of which only tick, size step and hours matter."""
    one = Decimal(1)
    return Instrument(
        symbol, symbol, "X", "USA", Decimal(tick), one, Decimal(step), 2, hours, negative=negative
    )  # fmt: skip


def to_quotes(plain: Sequence[Plain], instruments: Mapping[int, Instrument]) -> Quotes:
    """Columns in order of arrival, numbered as ``instruments`` is."""
    numbers = {one.symbol: number for number, one in instruments.items()}
    step = {one.symbol: one.size_step for one in instruments.values()}

    def column(value: Callable[[Plain], int | None]) -> Ints:
        return np.array([NA if (found := value(quote)) is None else found for quote in plain], np.int64)

    def price(name: str) -> Ints:
        return column(lambda quote: None if (value := getattr(quote, name)) is None else int(value * 10**9))

    def size(name: str) -> Ints:
        return column(lambda q: None if (value := getattr(q, name)) is None else int(value / step[q.symbol]))

    flags = [
        SNAPSHOT * quote.snapshot | MOVES * quote.moves | LATE * quote.late | STACK_DOWN * quote.stack_down
        for quote in plain
    ]
    columns = {name: price(name) for name in ("last", "bid", "ask", "close")}
    columns |= {name: size(name) for name in ("traded", "volume")}
    columns |= {name: column(lambda quote, name=name: getattr(quote, name)) for name in ("mark", "gap_from")}  # type: ignore[misc]
    return Quotes(
        np.array([numbers[quote.symbol] for quote in plain], np.int32),
        np.array([quote.ts for quote in plain], np.int64),
        np.array(flags, np.uint8),
        np.zeros(len(plain), np.uint8),
        ("TEST",),
        # As the log does: a column of which nobody knows anything is not there.
        {name: values for name, values in columns.items() if (values != NA).any()},
    )


def trade_date_of(instruments: Mapping[int, Instrument]) -> Callable[[str, int], date]:
    """For the referee."""
    hours = {one.symbol: one.hours for one in instruments.values()}
    return lambda symbol, ts: date(1970, 1, 1) + timedelta(days=hours[symbol].trade_date(ts))


def ns(text: str) -> int:
    """An RFC 3339 instant with nine decimals, in ns."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * 10**9 + int(fraction.ljust(9, "0") or 0)


def rows_of(path: Path) -> list[dict[str, str]]:
    """A CSV file, .gz or plain."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return list(csv.DictReader(file))


def trades(path: Path) -> list[Plain]:
    """A recording of a trade feed."""
    known = [(row, {name: Decimal(text) for name, text in row.items() if text and name not in ("ts", "symbol")})
             for row in rows_of(path)]  # fmt: skip
    return [
        Plain(
            row["symbol"], ns(row["ts"]), found.get("last"), found.get("last_size"), found.get("bid"), found.get("ask"),
            moves="last" in found,
        )
        for row, found in known
    ]  # fmt: skip


def snapshots(path: Path) -> list[Plain]:
    """A recording of a snapshot feed of one symbol without reset or silence: volume is what the counter gained."""
    found, before = [], Plain("", 0)
    for plain in [_snapshot(row) for row in rows_of(path)]:
        moves = plain.last is not None and (plain.last, plain.volume) != (before.last, before.volume)
        gained = (plain.volume or 0) - (before.volume or 0) if before.symbol else 0
        before = plain
        found.append(Plain(**{**plain.__dict__, "traded": Decimal(gained), "moves": moves}))
    return found


def _snapshot(row: Mapping[str, str]) -> Plain:
    last, bid, ask, volume = (Decimal(row[name]) if row[name] else None for name in ("last", "bid", "ask", "volume"))
    return Plain(row["symbol"], ns(row["ts"]), last, None, bid, ask, volume, snapshot=True)


def tables_in(conn: psycopg.Connection[Any]) -> Tables:
    """The tables as they are."""
    found = Tables()
    for name, keys in (
        ("bars", ("minute",)), ("books", ("minute",)), ("vwap_minutes", ("minute",)), ("days", ("trade_date",)),
        ("gaps", ("starts_ns", "ends_ns")),
    ):  # fmt: skip
        cursor = conn.execute(f"SELECT i.symbol, t.* FROM {name} t JOIN instruments i ON i.id = t.instrument_id")
        names = [column.name for column in cursor.description or ()]
        for values in cursor:
            row = dict(zip(names, values, strict=True))
            key = (row.pop("symbol"), *(row.pop(part) for part in keys))
            del row["instrument_id"]
            getattr(found, name)[key] = row
    return found
