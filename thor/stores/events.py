"""Decisions of the watchdog in Postgres, and in a bounded file while Postgres is away."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.types.json import Jsonb

_INSERT: Final = (
    "INSERT INTO supervision_events (id, at, process, rule, action, evidence) "
    "VALUES (%s, to_timestamp(%s / 1e9), %s, %s, %s, %s) ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class Event:
    """One decision; ``id`` is its wall clock in ns, made unique."""

    id: int
    process: str
    rule: str
    action: str
    evidence: Mapping[str, Any]


class Waiting:
    """Events on their way: appended to a file at once, moved to Postgres when it answers. For several threads."""

    def __init__(self, path: Path, most_bytes: int = 1 << 20) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._most = path, most_bytes
        self._lock = threading.Lock()
        self.dropped = 0

    def put(self, event: Event) -> None:
        """Keep an event; past the bound the newest are dropped and counted: the first ones tell what began it."""
        words = [event.id, event.process, event.rule, event.action, event.evidence]
        line = json.dumps(words, default=str).encode() + b"\n"
        with self._lock:
            try:
                with self._path.open("ab") as file:
                    if file.tell() + len(line) > self._most:
                        self.dropped += 1
                        return
                    file.write(line)
            except OSError:  # the disk is full: the log line has been written, or not, before this
                self.dropped += 1

    def move(self, conn: psycopg.Connection[Any]) -> int:
        """Store what waits; how many. Sent again after a lost answer, a row is stored once. Raises psycopg.Error."""
        with self._lock:
            try:
                data = self._path.read_bytes()
            except FileNotFoundError:
                return 0
        events = [event for line in data.splitlines() if (event := _parse(line))]
        if events:
            with conn.transaction():
                conn.cursor().executemany(
                    _INSERT, [(e.id, e.id, e.process, e.rule, e.action, Jsonb(e.evidence)) for e in events]
                )
        with self._lock:
            rest = self._path.read_bytes()[len(data) :]
            scratch = self._path.with_suffix(".new")
            scratch.write_bytes(rest)
            scratch.replace(self._path)
        return len(events)


def _parse(line: bytes) -> Event | None:
    try:
        return Event(*json.loads(line))
    except (ValueError, TypeError):  # torn by a kill in the middle of a write
        return None


def probe(conn: psycopg.Connection[Any]) -> None:
    """Ask for an answer. Raises psycopg.Error."""
    conn.execute("SELECT 1")


def newest(conn: psycopg.Connection[Any], n: int) -> Sequence[tuple[datetime, str, str, str, dict[str, Any]]]:
    """The newest ``n`` as (at, process, rule, action, evidence), oldest first. Raises psycopg.Error."""
    rows = conn.execute(
        "SELECT at, process, rule, action, evidence FROM supervision_events ORDER BY id DESC LIMIT %s", [n]
    ).fetchall()
    return rows[::-1]
