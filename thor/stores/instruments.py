"""Instruments and trading hours in Postgres."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

import psycopg

from thor.domain.hours import Hours
from thor.domain.instruments import Instrument
from thor.domain.prices import Notation

_HOURS: Final = """
INSERT INTO hours (name, zone, roll, opens, closes, eve, weekdays)
VALUES (%(name)s, %(zone)s, %(roll)s, %(opens)s, %(closes)s, %(eve)s, %(weekdays)s)
ON CONFLICT (name) DO UPDATE SET zone = excluded.zone, roll = excluded.roll, opens = excluded.opens,
    closes = excluded.closes, eve = excluded.eve, weekdays = excluded.weekdays
WHERE (hours.zone, hours.roll, hours.opens, hours.closes, hours.eve, hours.weekdays)
    IS DISTINCT FROM (excluded.zone, excluded.roll, excluded.opens, excluded.closes, excluded.eve, excluded.weekdays)
"""

_COLUMNS: Final = (
    "symbol", "name", "exchange", "country", "tick_size", "tick_value", "size_step", "decimals", "notation",
    "safe_haven", "negative", "aliases", "root",
)  # fmt: skip

# An id is drawn only for a symbol that is new: ids stay dense however often one seeds.
_ADD: Final = """
INSERT INTO instruments (symbol, name, exchange, country, tick_size, tick_value, size_step, decimals, notation,
    safe_haven, negative, hours, aliases, root)
SELECT %(symbol)s, %(name)s, %(exchange)s, %(country)s, %(tick_size)s, %(tick_value)s, %(size_step)s, %(decimals)s,
    %(notation)s, %(safe_haven)s, %(negative)s, %(hours)s, %(aliases)s, %(root)s
WHERE NOT EXISTS (SELECT 1 FROM instruments WHERE symbol = %(symbol)s)
ON CONFLICT (symbol) DO NOTHING
"""

_CHANGE: Final = """
UPDATE instruments SET name = %(name)s, exchange = %(exchange)s, country = %(country)s, tick_size = %(tick_size)s,
    tick_value = %(tick_value)s, size_step = %(size_step)s, decimals = %(decimals)s, notation = %(notation)s,
    safe_haven = %(safe_haven)s, negative = %(negative)s, hours = %(hours)s, aliases = %(aliases)s, root = %(root)s
WHERE symbol = %(symbol)s
"""

_LOAD: Final = """
SELECT i.id, i.symbol, i.name, i.exchange, i.country, i.tick_size, i.tick_value, i.size_step, i.decimals, i.notation,
    i.safe_haven, i.negative, i.aliases, i.root, h.name, h.zone, h.roll, h.opens, h.closes, h.eve, h.weekdays
FROM instruments i JOIN hours h ON h.name = i.hours
"""
_ALL: Final = _LOAD + "ORDER BY i.id"
_ONE: Final = _LOAD + "WHERE i.symbol = %s"


def seed(conn: psycopg.Connection[Any], instruments: Iterable[Instrument]) -> int:
    """Bring instruments and their hours into the tables; how many are new or changed. Raises psycopg.Error."""
    held = {instrument.symbol: instrument for instrument in load(conn).values()}
    wanted = sorted(instruments, key=lambda instrument: instrument.symbol)
    changed = [instrument for instrument in wanted if held.get(instrument.symbol) != instrument]
    with conn.transaction():
        for hours in {instrument.hours.name: instrument.hours for instrument in changed}.values():
            conn.execute(_HOURS, _of_hours(hours))
        for instrument in changed:
            params = {name: getattr(instrument, name) for name in _COLUMNS}
            params |= {"hours": instrument.hours.name, "aliases": list(instrument.aliases)}
            if not conn.execute(_ADD, params).rowcount:
                conn.execute(_CHANGE, params)
    return len(changed)


def _of_hours(hours: Hours) -> dict[str, object]:
    return {
        "name": hours.name, "zone": hours.zone, "roll": hours.roll, "opens": hours.opens, "closes": hours.closes,
        "eve": hours.eve, "weekdays": sorted(hours.weekdays),
    }  # fmt: skip


def load(conn: psycopg.Connection[Any]) -> dict[int, Instrument]:
    """Every instrument by its id. Raises psycopg.Error."""
    return _read(conn.execute(_ALL).fetchall())


def find(conn: psycopg.Connection[Any], symbol: str) -> tuple[int, Instrument] | None:
    """One instrument and its id by canonical symbol. Raises psycopg.Error."""
    return next(iter(_read(conn.execute(_ONE, [symbol]).fetchall()).items()), None)


def _read(rows: list[tuple[Any, ...]]) -> dict[int, Instrument]:
    known: dict[str, Hours] = {}
    found = {}
    for row in rows:
        fields, (name, zone, roll, opens, closes, eve, weekdays) = row[1:14], row[14:]
        if name not in known:
            known[name] = Hours(name, zone, roll, opens, closes, eve, frozenset(weekdays))
        values: dict[str, Any] = dict(zip(_COLUMNS, fields, strict=True))
        values |= {"aliases": tuple(values["aliases"]), "notation": cast("Notation", values["notation"])}
        found[row[0]] = Instrument(hours=known[name], **values)
    return found
