"""VWAP minutes in Postgres: partial rows merged in, exact sums read out (domain.md §6)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

import psycopg

from thor.domain.minutes import MINUTE_NS, NOTIONAL_EXP, SQUARES_EXP, VOLUME_EXP
from thor.domain.vwap import Minutes, Rolling, Sums
from thor.stores import positions
from thor.stores.db import Bigints, Dates, Instants, Numerics
from thor.stores.positions import Move

_MINUTES: Final = """
INSERT INTO vwap_minutes AS v (instrument_id, minute, trade_date, last, last_ns, volume, notional, squares)
SELECT p.id, p.minute, p.trade_date, trim_scale(p.last * 1e-9), p.last_ns, trim_scale(p.volume),
    trim_scale(p.notional), trim_scale(p.squares)
FROM moved, unnest(%(id)s, %(minute)s, %(trade_date)s, %(last)s, %(last_ns)s, %(volume)s, %(notional)s, %(squares)s)
    AS p (id, minute, trade_date, last, last_ns, volume, notional, squares)
ON CONFLICT (instrument_id, minute) DO UPDATE SET
    last = CASE WHEN excluded.last_ns >= v.last_ns THEN excluded.last ELSE v.last END,
    last_ns = greatest(v.last_ns, excluded.last_ns),
    volume = trim_scale(v.volume + excluded.volume),
    notional = trim_scale(v.notional + excluded.notional),
    squares = trim_scale(v.squares + excluded.squares)
"""


def commit(conn: psycopg.Connection[Any], move: Move, minutes: Minutes | None) -> bool:
    """Merge partial minutes and move the position in one transaction.

    False, with nothing written, where another copy has moved the position. Raises psycopg.Error.
    """
    if minutes is None or not len(minutes):
        return positions.commit(conn, move, {})
    params = {
        "id": Bigints(minutes.instrument),
        "minute": Instants(minutes.minute * MINUTE_NS),
        "trade_date": Dates(minutes.trade_date),
        "last": Bigints(minutes.last),
        "last_ns": Bigints(minutes.last_ns),
        "volume": Numerics(minutes.volume, VOLUME_EXP),
        "notional": Numerics(minutes.notional, NOTIONAL_EXP),
        "squares": Numerics(minutes.squares, SQUARES_EXP),
    }
    # "name" and "n" belong to the fence; no other name is shared.
    return positions.commit(conn, move, {_MINUTES: params})


# An instrument at a time: the key begins with it, and years of minutes lie before the last hour.
_RECENT: Final = """
SELECT i.id, extract(epoch FROM v.minute)::bigint / 60, (v.volume * 1e9)::numeric(60, 0),
    (v.notional * 1e18)::numeric(60, 0)
FROM instruments i
CROSS JOIN LATERAL (
    SELECT minute, volume, notional FROM vwap_minutes WHERE instrument_id = i.id AND minute > to_timestamp(%s) OFFSET 0
) v
"""


def recall(conn: psycopg.Connection[Any], rolling: Rolling, watermark: int) -> None:
    """Fill the windows of ``rolling`` with what the table holds at ``watermark`` (ns). Raises psycopg.Error."""
    since = watermark // MINUTE_NS - max(rolling.windows)
    rows = conn.execute(_RECENT, [since * 60])
    for number, minute, volume, notional in rows:
        rolling.add(number, minute, int(volume), int(notional))
    rolling.advance(watermark)


_SUMS: Final = """
SELECT i.symbol, sum(v.volume), sum(v.notional), sum(v.squares)
FROM vwap_minutes v JOIN instruments i ON i.id = v.instrument_id
WHERE i.symbol = ANY(%(symbols)s) AND v.minute >= %(since)s AND v.minute <= %(at)s
GROUP BY i.symbol
"""

_SESSION: Final = """
SELECT i.symbol, sum(v.volume), sum(v.notional), sum(v.squares)
FROM unnest(%(symbols)s::text[], %(trade_dates)s::date[]) AS w (symbol, trade_date)
JOIN instruments i ON i.symbol = w.symbol
JOIN vwap_minutes v ON v.instrument_id = i.id AND v.trade_date = w.trade_date
WHERE v.minute <= %(at)s
GROUP BY i.symbol
"""


def session(conn: psycopg.Connection[Any], trade_dates: dict[str, date], at: datetime) -> dict[str, Sums]:
    """Symbol → sums of its trade date up to and including the minute of ``at``; nothing traded: an empty Sums."""
    params = {"symbols": list(trade_dates), "trade_dates": list(trade_dates.values()), "at": at}
    return _named(list(trade_dates), conn.execute(_SESSION, params).fetchall())


def rolling(conn: psycopg.Connection[Any], symbols: Sequence[str], minutes: int, at: datetime) -> dict[str, Sums]:
    """Symbol → sums of the minutes (m − N, m], with m the minute of ``at``."""
    minute = at.replace(second=0, microsecond=0)
    return between(conn, symbols, minute - timedelta(minutes=minutes - 1), at)


def between(conn: psycopg.Connection[Any], symbols: Sequence[str], since: datetime, at: datetime) -> dict[str, Sums]:
    """Symbol → sums of the minutes that start in [since, at], for any anchor: a market's open, UTC midnight …

    An anchor inside a minute leaves that minute out: its quotes are no longer apart.
    """
    params = {"symbols": list(symbols), "since": since, "at": at}
    return _named(symbols, conn.execute(_SUMS, params).fetchall())


def _named(symbols: Sequence[str], rows: list[tuple[Any, ...]]) -> dict[str, Sums]:
    found = {row[0]: Sums(*row[1:]) for row in rows}
    return {symbol: found.get(symbol, Sums()) for symbol in symbols}
