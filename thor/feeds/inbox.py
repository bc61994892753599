"""``quotes:in``: flat entries that any program may XADD (domain.md §3), read in order behind a cursor.

Delivery: an entry is handed over again until a cursor behind it was stored with its quotes. What is stored may be
trimmed: ``committed`` does so, and keeps ``keep`` entries to look at.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Final

import redis

from thor.domain.instruments import Instruments
from thor.feeds import Arrival, Refused
from thor.feeds.text import NAMES, Kind, Text, cut
from thor.stores.inbox import Entry, InboxStream
from thor.stores.redis import RedisDown

logger = logging.getLogger(__name__)

SOURCE: Final = "INBOX"
MAX_ENTRIES: Final = 5_000
_FIRST: Final = 64  # entries of the first read; each next one may hold twice as many,
_BYTES: Final = 16 << 20  # as long as this much is not exceeded when they weigh like the last ones
_NAMES: Final = {name.encode(): name for name in NAMES}


class Inbox:
    """The feed of ``quotes:in``. ``kinds`` tells configured sources apart, ``default`` holds for the others.

    ``client`` answers bytes and waits for an answer longer than a second. ``ignored`` counts cells of fields that
    no quote has.
    """

    name = "inbox"
    waits = True
    recorded = False

    def __init__(
        self,
        client: redis.Redis,
        instruments: Instruments,
        *,
        kinds: Mapping[str, Kind] | None = None,
        default: Kind | None = None,
        keep: int = 10_000,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stream = InboxStream(client)
        self._text = Text(instruments, kinds, default, SOURCE)
        self._keep, self._sleep = keep, sleep
        self._cursor = "0"
        self._count = _FIRST
        self._batches: deque[tuple[str, int]] = deque()  # first ID and size of each batch behind the cursor
        self._behind = 0
        self.ignored = 0

    def open(self, cursor: str | None) -> None:
        """Go on after the entry ``cursor``; without one, begin with the oldest entry."""
        self._cursor = cursor or "0"
        self._batches.clear()
        self._behind = 0

    def close(self) -> None:
        """The connections belong to the client passed in."""

    def poll(self, timeout_s: float) -> Arrival | None:
        """The next entries; None where nothing came within ``timeout_s`` (one second at most) or Redis is away."""
        try:
            entries = self._stream.read(self._cursor, self._count, timeout_s)
        except RedisDown as error:
            logger.debug("the inbox waits for Redis: %s", error)
            self._sleep(min(timeout_s, 0.05))
            return None
        if not entries:
            return None
        self._cursor = entries[-1][0].decode()
        self._batches.append((entries[0][0].decode(), len(entries)))
        self._behind += len(entries)
        weight = sum(map(len, chain.from_iterable(fields for _, fields in entries))) // len(entries) + 1
        self._count = max(1, min(MAX_ENTRIES, 2 * self._count, _BYTES // weight))
        return self._arrival(entries)

    def committed(self, cursor: str) -> None:
        """``cursor`` is stored: drop what lies more than ``keep`` entries behind it."""
        trim = False
        while self._batches and self._behind - self._batches[0][1] >= self._keep:
            if _id(self._batches[0][0]) > _id(cursor):
                break
            self._behind -= self._batches.popleft()[1]
            trim = True
        if trim:
            first = self._batches[0][0] if self._batches else _after(cursor)
            first = min(first, _after(cursor), key=_id)
            try:
                self._stream.trim(first)
            except RedisDown as error:
                logger.debug("the inbox is trimmed another time: %s", error)

    def _arrival(self, entries: list[Entry]) -> Arrival:
        refused: list[tuple[int, Refused]] = []
        rows: list[dict[bytes, bytes]] = []
        at: list[int] = []
        for i, (_, fields) in enumerate(entries):
            row = dict(zip(fields[::2], fields[1::2], strict=True))
            if len(row) * 2 != len(fields):
                refused.append((i, _refuse("duplicate_field", "expected each field once", entries[i])))
            else:
                rows.append(row)
                at.append(i)
        self.ignored += sum(len(row.keys() - _NAMES.keys()) for row in rows)
        try:
            columns = _columns(rows)
        except UnicodeDecodeError:
            good = []
            for i, row in zip(at, rows, strict=True):
                try:
                    _columns([row])
                    good.append((i, row))
                except UnicodeDecodeError as error:
                    refused.append((i, _refuse("bad_encoding", f"expected UTF-8, found {error.reason}", entries[i])))
            at, rows = [i for i, _ in good], [row for _, row in good]
            columns = _columns(rows)
        parsed = self._text.quotes(columns, lambda row: entries[at[row]][0].decode())
        kept = [at[row] for row in parsed.rows.tolist()]
        refused += [
            (at[row], replace(one, raw=_raw(entries[at[row]])))
            for row, one in zip(parsed.refused_rows, parsed.refused, strict=True)
        ]
        return Arrival(
            parsed.quotes,
            entries[-1][0].decode(),
            [one for _, one in sorted(refused, key=lambda pair: pair[0])],
            origin=lambda i: (entries[kept[i]][0].decode(), _raw(entries[kept[i]])),
        )


def _columns(rows: list[dict[bytes, bytes]]) -> dict[str, list[str]]:
    """The fields of quotes as columns of text; raises UnicodeDecodeError."""
    present = set().union(*rows) & _NAMES.keys() | {b"symbol"}
    return {_NAMES[name]: [row.get(name, b"").decode() for row in rows] for name in present}


def _raw(entry: Entry) -> dict[str, str]:
    fields = [part[:8_192].decode(errors="backslashreplace") for part in entry[1][:128]]
    return cut(dict(zip(fields[::2], fields[1::2], strict=True)))


def _refuse(reason: str, detail: str, entry: Entry) -> Refused:
    raw = _raw(entry)
    return Refused(reason, detail, entry[0].decode(), raw.get("source", SOURCE)[:24], raw)


def _id(text: str) -> tuple[int, int]:
    ms, _, seq = text.partition("-")
    return int(ms), int(seq or 0)


def _after(text: str) -> str:
    ms, seq = _id(text)
    return f"{ms}-{seq + 1}"
