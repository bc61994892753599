"""A recording played as a feed: in file order, or put back into event order, at any speed, exactly once.

Rows are numbered over all files. A row is handed over in the order of its key: for a trade feed its number (bars do
not depend on the order of prints of different instants, and a feed's order is the truth for equal ones); for a
snapshot feed max(ts, newest ts before it − reorder), then its number. So rows out of order by up to ``reorder_s``
come in event order, the key never depends on how the file was cut into chunks, and a cursor is one key.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from thor.domain.instruments import Instruments
from thor.domain.prices import NA, NANO, text_of, text_of_size
from thor.domain.quotes import FIELDS, MAX_QUOTES, PRICES, Ints, Quotes, concat, empty
from thor.feeds import Arrival, Refused
from thor.feeds.preflight import Recording, open_file, preflight
from thor.feeds.recordings import SOURCE, BadRecording, Block, RecordedFile

__all__ = ["BadRecording", "Recording", "Replay", "preflight"]

logger = logging.getLogger(__name__)

Speed = float | Literal["max"]

_BLOCK: Final = 16_384  # rows read at once, at least
_HELD: Final = 16 * MAX_QUOTES  # rows that may wait for their place in event order
_BEAT_S: Final = 1.0  # how often an arrival without quotes tells the recording's clock


@dataclass(slots=True)
class _Rows:
    """Quotes read and not yet handed over, with their numbers, keys (ns) and the newest ts before each (ns)."""

    quotes: Quotes
    rows: Ints
    keys: Ints
    before: Ints

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: NDArray[np.intp] | NDArray[np.bool_] | slice) -> _Rows:
        return _Rows(self.quotes.take(which), self.rows[which], self.keys[which], self.before[which])

    def then(self, other: _Rows) -> _Rows:
        if not len(self):
            return other
        joined = (np.concatenate(pair) for pair in zip(self._arrays(), other._arrays(), strict=True))
        return _Rows(concat([self.quotes, other.quotes]), *joined)

    def _arrays(self) -> tuple[Ints, Ints, Ints]:
        return self.rows, self.keys, self.before


_NONE: Final = np.empty(0, np.int64)


class Replay:
    """The feed of a recording. ``speed`` is a multiple of the recording's own clock or "max"; ``in_memory`` reads
    everything in ``open``; ``chunk`` bounds one arrival; ``identity`` (of the preflight) ties cursors to it."""

    name = "replay"
    waits = True
    recorded = True

    def __init__(
        self,
        files: Sequence[Path],
        instruments: Instruments,
        *,
        mapping: Mapping[str, str] | None = None,
        snapshot: bool = False,
        speed: Speed = "max",
        in_memory: bool = False,
        chunk: int = MAX_QUOTES,
        reorder_s: float | None = None,
        identity: str = "",
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if speed != "max" and not speed > 0:
            raise ValueError(f"speed: expected a number above 0 or max, found {speed}")
        if not 0 < chunk <= MAX_QUOTES:
            raise ValueError(f"chunk: expected 1 to {MAX_QUOTES}, found {chunk}")
        self._paths, self._instruments, self._mapping = list(files), instruments, dict(mapping or {})
        self._snapshot, self._speed, self._in_memory = snapshot, speed, in_memory
        self._chunk, self._identity = chunk, identity
        self._reorder_ns = round((reorder_s if reorder_s is not None else 2 if snapshot else 0) * NANO)
        self._now_s, self._sleep = now_s, sleep
        self._reset()

    def _reset(self) -> None:
        nothing = _Rows(empty((SOURCE,)), _NONE, _NONE, _NONE)
        self._held, self._ready = nothing, nothing
        self._blocks: Iterator[tuple[int, int, Block]] = iter(())
        self._starts: list[tuple[int, int]] = []  # (first row, file) of each file begun
        self._read = 0  # rows ever read, refused ones included
        self._peak = NA  # newest ts read
        self._told = (NA, -1)  # key and number of the last row handed over
        self._known = 0  # rows read before a restart: of them, those up to ``_told`` were handed over
        self._exhausted = self._ended = False
        self._refused: list[Refused] = []
        self._due = _NONE  # when each row of ``_ready`` is due on the recording's clock
        self._clock: tuple[float, int] | None = None  # monotonic s, and the recording's ns at it
        self._beat_s = 0.0

    def open(self, cursor: str | None) -> None:
        """Begin, or go on exactly behind ``cursor``; a cursor of another recording begins anew."""
        self._reset()
        at = json.loads(cursor) if cursor else {}
        if at and at["of"] != self._identity:
            logger.info("the cursor belongs to another recording: playing this one from its beginning")
            at = {}
        file, base, row = at.get("file", 0), at.get("base", 0), at.get("row", 0)
        self._read, self._known = base + row, at.get("read", 0)
        self._peak, self._told = at.get("before", NA), (at.get("key", NA), at.get("told", -1))
        self._ended = at.get("ended", False)
        if self._ended:
            return
        self._starts = [(base, file)]
        self._blocks = self._files(file, base, row)
        if self._in_memory:
            started = self._now_s()
            blocks = list(self._blocks)
            rows = sum(len(block.rows) for _, _, block in blocks)
            self._blocks = iter(blocks)
            logger.info("%d quotes in memory after %.1f s", rows, self._now_s() - started)

    def committed(self, cursor: str) -> None:
        """Nothing is kept for it."""

    def close(self) -> None:
        """Forget the recording."""
        self._reset()

    def poll(self, timeout_s: float) -> Arrival | None:
        """The next rows that are due, at most ``chunk``; at the end one arrival that says so."""
        if self._ended:
            self._sleep(timeout_s)
            return None
        while not len(self._ready) and not self._exhausted and len(self._refused) < self._chunk:
            self._fill()
        if not len(self._ready):
            # Nothing to hand over: the end, or a long stretch of refused rows.
            self._ended = self._exhausted
            return self._arrival(self._ready, None, ended=self._ended)
        if self._speed == "max":
            return self._hand_over(min(self._chunk, len(self._ready)), None)
        return self._paced(timeout_s, float(self._speed))

    def _paced(self, timeout_s: float, speed: float) -> Arrival | None:
        due = self._due
        if self._clock is None:
            self._clock = self._now_s(), int(due[0])
        clock = self._time(speed)
        if clock < due[0]:
            self._sleep(min(timeout_s, (int(due[0]) - clock) / NANO / speed))
            clock = self._time(speed)
        n = min(int(np.searchsorted(due, clock, side="right")), self._chunk)
        if not n and self._now_s() - self._beat_s < _BEAT_S:
            return None
        self._beat_s = self._now_s()
        # Not past the next row; where that is not read yet, not past this one.
        bound = int(due[n]) - 1 if n < len(due) else int(due[-1])
        return self._hand_over(n, min(clock, bound))

    def _time(self, speed: float) -> int:
        assert self._clock is not None
        return self._clock[1] + round((self._now_s() - self._clock[0]) * speed * NANO)

    def _hand_over(self, n: int, clock: int | None) -> Arrival:
        rows, self._ready = self._ready.take(slice(0, n)), self._ready.take(slice(n, None))
        self._due = self._due[n:]
        if n:
            self._told = int(rows.keys[-1]), int(rows.rows[-1])
        return self._arrival(rows, clock)

    def _arrival(self, rows: _Rows, clock: int | None, *, ended: bool = False) -> Arrival:
        refused, self._refused = self._refused, []
        return Arrival(
            rows.quotes,
            self._cursor(ended),
            refused,
            origin=lambda i: self._origin(rows, i),
            clock=clock,
            ended=ended,
        )

    def _cursor(self, ended: bool) -> str:
        """Where to read from, what was newest before it, how many rows were ever read, and the last one handed over."""
        row, before = self._read, self._peak
        for waiting in (self._ready, self._held):
            if len(waiting) and int(waiting.rows.min()) < row:
                first = int(waiting.rows.argmin())
                row, before = int(waiting.rows[first]), int(waiting.before[first])
        base, file = max(start for start in self._starts if start[0] <= row) if self._starts else (0, 0)
        key, told = self._told
        told_of = {"key": key, "told": told, "read": max(self._read, self._known), "ended": ended}
        return json.dumps(
            {"of": self._identity, "file": file, "base": base, "row": row - base, "before": before} | told_of
        )

    def _fill(self) -> None:
        """Read one block and make ready what no later row can come before."""
        found = next(self._blocks, None)
        if found is None:
            self._exhausted = True
            self._set_ready(len(self._held))
            return
        file, base, block = found
        if self._starts[-1] != (base, file):
            self._starts.append((base, file))
        self._refused += [one for row, one in block.refused if base + row >= self._known]
        self._read = base + block.end
        new = self._keyed(block.quotes, base + block.rows)
        if len(new) and int(new.rows[0]) < self._known:
            key, told = self._told
            old = (new.rows < self._known) & ((new.keys < key) | ((new.keys == key) & (new.rows <= told)))
            new = new.take(~old)
        self._held = self._held.then(new)
        if not self._reorder_ns:
            self._set_ready(len(self._held))
        elif len(self._held):
            self._held = self._held.take(np.lexsort((self._held.rows, self._held.keys)))
            self._set_ready(int(np.searchsorted(self._held.keys, self._peak - self._reorder_ns, side="right")))
        if len(self._held) > _HELD:
            span = f"{self._reorder_ns / NANO:g} s"
            raise BadRecording(f"{self._paths[file]}: expected at most {_HELD} snapshots within {span}, found more")

    def _set_ready(self, n: int) -> None:
        self._ready, self._held = self._held.take(slice(0, n)), self._held.take(slice(n, None))
        # A print that comes late is due with the newest before it: what is due never waits behind what is not.
        ready = self._ready
        self._due = ready.keys if self._reorder_ns else np.maximum(ready.quotes.ts, ready.before)

    def _keyed(self, quotes: Quotes, rows: Ints) -> _Rows:
        newest = np.maximum.accumulate(np.concatenate(([self._peak], quotes.ts)))
        before, self._peak = newest[:-1], int(newest[-1])
        if not self._reorder_ns:
            return _Rows(quotes, rows, np.zeros(len(rows), np.int64), before)
        floor = np.where(before == NA, NA, before - self._reorder_ns)
        return _Rows(quotes, rows, np.maximum(quotes.ts, floor), before)

    def _files(self, file: int, base: int, row: int) -> Iterator[tuple[int, int, Block]]:
        for number in range(file, len(self._paths)):
            reader = self._reader(number)
            end = row
            for block in reader.blocks(row, max(self._chunk, _BLOCK)):
                end = block.end
                yield number, base, block
            base, row = base + end, 0

    def _reader(self, number: int) -> RecordedFile:
        return open_file(self._paths[number], self._instruments, self._mapping, snapshot=self._snapshot)

    def _origin(self, rows: _Rows, i: int) -> tuple[str, Mapping[str, str]]:
        quotes, row = rows.quotes, int(rows.rows[i])
        base, file = max(start for start in self._starts if start[0] <= row)
        instrument = self._instruments[int(quotes.instrument[i])]
        raw = {"symbol": instrument.symbol, "ts": str(quotes.ts[i])}
        for name in FIELDS:
            value = int(quotes.column(name)[i])
            if value != NA:
                raw[name] = text_of(value) if name in PRICES else text_of_size(value, instrument.step_nano)
        return f"{self._paths[file]}:{row - base + self._reader(file).first_line}", raw
