"""How far each projection has committed the log, moved in one statement with its rows (design.md, invariant 4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import psycopg


@dataclass(frozen=True, slots=True)
class Position:
    """The last entry committed. ``generation`` names the log (0: none read yet), ``missed`` counts entries that were
    gone before they were read."""

    generation: int = 0
    n: int = 0
    watermark: int | None = None
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """From one position to the next, for the projection ``name``."""

    name: str
    before: Position
    after: Position

    def params(self) -> dict[str, object]:
        """Values of the fence."""
        return {
            "name": self.name,
            "old_generation": self.before.generation,
            "old_n": self.before.n,
            "generation": self.after.generation,
            "n": self.after.n,
            "watermark_ns": self.after.watermark,
            "missed": self.after.missed,
        }


#: The compare-and-swap. Rows are written FROM moved, so a second copy, whose swap finds nothing, writes nothing:
#: position and rows are one statement, one transaction and one round trip.
_FENCE: Final = """
WITH moved AS (
    UPDATE positions
    SET generation = %(generation)s::bigint, n = %(n)s::bigint, watermark_ns = %(watermark_ns)s::bigint,
        missed = %(missed)s::bigint, updated_at = clock_timestamp()
    WHERE name = %(name)s AND n = %(old_n)s::bigint AND generation = %(old_generation)s::bigint
    RETURNING 1
)"""
_PARAMETER: Final = re.compile(r"%\((\w+)\)s")


@lru_cache
def _fenced(parts: tuple[str, ...]) -> tuple[bytes, tuple[str, ...]]:
    """The whole statement with $n for its parameters, and their names in that order."""
    rows = [f"rows{number} AS ({part})" for number, part in enumerate(parts)]
    query = "\n".join([", ".join([_FENCE, *rows]), "SELECT count(*) FROM moved"])
    names = tuple(dict.fromkeys(_PARAMETER.findall(query)))
    return _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", query).encode(), names


def commit(conn: psycopg.Connection[Any], move: Move, parts: dict[str, dict[str, object]]) -> bool:
    """Move the position and write the rows of ``parts`` (INSERT … SELECT … FROM moved → its values), or neither.

    False where another copy has moved the position since. Raises psycopg.Error.
    """
    params = move.params()
    for values in parts.values():
        params |= values
    query, names = _fenced(tuple(parts))
    # Raw: psycopg would parse a statement of this length anew at each execution.
    cursor = psycopg.RawCursor(conn).execute(query, [params[name] for name in names], prepare=True)
    row = cursor.fetchone()
    return row is not None and row[0] == 1


def read(conn: psycopg.Connection[Any], name: str) -> Position:
    """The position of a projection; its row is made where it never ran. Raises psycopg.Error."""
    conn.execute("INSERT INTO positions (name, generation, n) VALUES (%s, 0, 0) ON CONFLICT (name) DO NOTHING", [name])
    row = conn.execute("SELECT generation, n, watermark_ns, missed FROM positions WHERE name = %s", [name]).fetchone()
    assert row is not None
    return Position(*row)


def watermark(conn: psycopg.Connection[Any], name: str) -> int | None:
    """The watermark (ns) up to which a projection's tables are complete; None before its first entry."""
    row = conn.execute("SELECT watermark_ns FROM positions WHERE name = %s", [name]).fetchone()
    return row[0] if row else None
