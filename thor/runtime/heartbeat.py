"""Proof of progress: one fixed record a process, written by its work loop, read by everybody (supervision.md).

The record lies in a mapped file, so that a beat is a few stores into memory: no system call, no dependency on
Redis or Postgres. It stands between two copies of a counter: a reader who finds them different looks again.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

State = Literal["starting", "waiting", "catching_up", "running", "idle", "draining", "paused"]
#: States in which a process does what it is there for.
READY: Final = frozenset({"running", "idle", "catching_up"})

_BODY: Final = struct.Struct("<QQqqQqqq16s200s")
_COUNT: Final = struct.Struct("<Q")
_SIZE: Final = _COUNT.size + _BODY.size + _COUNT.size
_NONE: Final = -(2**63)


@dataclass(frozen=True, slots=True)
class Beat:
    """One record. ``at`` and ``deadline`` (of the next beat) are monotonic ns, ``source_ts`` ns UTC; ``committed``
    and ``head`` are numbers of log entries; ``start_id`` tells two lives of one pid apart."""

    pid: int
    start_id: int
    at: int
    deadline: int
    loops: int
    committed: int | None
    head: int | None
    source_ts: int | None
    state: str
    why: str

    def age_s(self, now: int | None = None) -> float:
        """Seconds since the beat."""
        return ((time.monotonic_ns() if now is None else now) - self.at) / 1e9

    def overdue_s(self, now: int | None = None) -> float:
        """Seconds past the deadline; negative before it."""
        return ((time.monotonic_ns() if now is None else now) - self.deadline) / 1e9

    @property
    def ready(self) -> bool:
        """Whether the process does its work, and in time."""
        return self.state in READY and self.overdue_s() <= 0

    @property
    def lag(self) -> int | None:
        """Entries known but not committed."""
        return None if self.head is None or self.committed is None else max(0, self.head - self.committed)


class Heartbeat:
    """The writer's side, for one thread."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_bytes(bytes(_SIZE))
        with scratch.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._count, self._loops = 0, 0
        self._start_id = time.time_ns()
        self.beat("starting", 60)
        scratch.replace(path)  # a reader finds a whole record or the one of the life before

    def beat(
        self,
        state: State,
        deadline_s: float,
        committed: int | None = None,
        head: int | None = None,
        source_ts: int | None = None,
        why: str = "",
        *,
        step: bool = False,
    ) -> None:
        """Stamp the record; the next stamp is due in ``deadline_s``. ``step``: a step of work is done."""
        now = time.monotonic_ns()
        self._count += 1
        self._loops += step
        _COUNT.pack_into(self._map, 0, self._count)
        _BODY.pack_into(
            self._map,
            _COUNT.size,
            os.getpid(),
            self._start_id,
            now,
            now + int(deadline_s * 1e9),
            self._loops,
            *(_NONE if value is None else value for value in (committed, head, source_ts)),
            state.encode(),
            why.encode()[:200],
        )
        _COUNT.pack_into(self._map, _COUNT.size + _BODY.size, self._count)

    def read(self) -> Beat:
        """The own record, for another thread of the process."""
        beat = _parse(lambda: bytes(self._map))
        assert beat is not None
        return beat


def read(path: Path) -> Beat | None:
    """The record of a process; None where there is none. Whether its pid still lives is another question."""
    try:
        return _parse(path.read_bytes)
    except OSError:
        return None


def _parse(source: Callable[[], bytes]) -> Beat | None:
    for attempt in itertools.count():
        data = source()
        if len(data) != _SIZE:
            return None
        if data[: _COUNT.size] == data[-_COUNT.size :] or attempt == 50:
            break
    pid, start_id, at, deadline, loops, *numbers, state, why = _BODY.unpack_from(data, _COUNT.size)
    committed, head, source_ts = (None if number == _NONE else number for number in numbers)
    return Beat(pid, start_id, at, deadline, loops, committed, head, source_ts, _text(state), _text(why))


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode(errors="replace")
