from __future__ import annotations

import threading
from pathlib import Path

from thor.runtime.heartbeat import Heartbeat, read


def test_a_beat_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat" / "vwap"
    writer = Heartbeat(path)
    writer.beat("running", 10, committed=5, head=9, source_ts=1_700_000_000_000_000_000, why="x", step=True)
    beat = read(path)
    assert beat is not None
    assert (beat.state, beat.committed, beat.head, beat.lag, beat.loops, beat.why) == ("running", 5, 9, 4, 1, "x")
    assert beat.ready
    assert beat == writer.read()


def test_past_its_deadline_a_process_is_not_ready(tmp_path: Path) -> None:
    writer = Heartbeat(tmp_path / "x")
    writer.beat("running", -1)
    beat = writer.read()
    assert beat.overdue_s() >= 1
    assert not beat.ready


def test_a_process_that_waits_is_alive_but_not_ready(tmp_path: Path) -> None:
    writer = Heartbeat(tmp_path / "x")
    writer.beat("waiting", 10, why="Postgres does not answer")
    beat = writer.read()
    assert beat.overdue_s() < 0
    assert not beat.ready


def test_without_a_record_there_is_no_beat(tmp_path: Path) -> None:
    assert read(tmp_path / "nobody") is None
    (tmp_path / "short").write_bytes(b"x")
    assert read(tmp_path / "short") is None


def test_a_reader_never_sees_half_a_beat(tmp_path: Path) -> None:
    path = tmp_path / "x"
    writer = Heartbeat(path)
    done = threading.Event()

    def write() -> None:
        for n in range(20_000):
            writer.beat("running", 10, committed=n, head=n, source_ts=n)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = 0
    while not done.is_set():
        beat = read(path)
        assert beat is not None
        assert beat.committed == beat.head == beat.source_ts
        seen += 1
    thread.join()
    assert seen
