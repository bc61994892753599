"""Decisions of the watchdog: each stored once, kept while Postgres is away."""

from __future__ import annotations

from pathlib import Path

import psycopg

from thor.stores.events import Event, Waiting, newest


def event(number: int) -> Event:
    return Event(1_700_000_000_000_000_000 + number, "vwap", "dead_loop", "kill", {"loops": number})


def test_events_wait_in_a_file_and_are_stored_once_also_when_sent_twice(dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "spool" / "events"
    waiting = Waiting(path)
    for number in range(3):
        waiting.put(event(number))
    sent = path.read_bytes()
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert waiting.move(conn) == 3
        path.write_bytes(sent + b'[17, "torn')  # the answer was lost, and a kill came in the middle of a write
        assert Waiting(path).move(conn) == 3
        rows = newest(conn, 2)
    assert path.read_bytes() == b""
    assert [(process, rule, action, evidence) for _, process, rule, action, evidence in rows] == [
        ("vwap", "dead_loop", "kill", {"loops": 1}),
        ("vwap", "dead_loop", "kill", {"loops": 2}),
    ]


def test_past_the_bound_the_first_events_stay_and_the_others_are_counted(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path / "events", most_bytes=200)
    for number in range(10):
        waiting.put(event(number))
    kept = (tmp_path / "events").read_bytes().splitlines()
    assert len(kept) + waiting.dropped == 10
    assert b'"loops": 0' in kept[0]
    assert (tmp_path / "events").stat().st_size <= 200
