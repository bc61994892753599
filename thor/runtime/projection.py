"""The loop of every projection: read the log after one's own position, fold, commit rows and position together.

Nothing is kept that the tables do not hold: startup, a lost connection and a failed commit all begin again from the
position in Postgres (design.md, invariant 4). Quotes are committed in groups: soon when many come, seldom when few.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn, Protocol, TypeVar

import psycopg
import redis
from pydantic import BaseModel, ConfigDict, Field
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_when_event_set, wait_random_exponential
from tenacity.nap import sleep_using_event

from thor.domain.instruments import Instrument
from thor.domain.quotes import BadEntry, Entry, Head, Quotes, Unknown, concat, decode
from thor.runtime import instruments as configured
from thor.runtime.daemon import Context, Step
from thor.runtime.heartbeat import State
from thor.runtime.metrics import Counter, Gauge, Histogram
from thor.stores import db, positions
from thor.stores import instruments as registered
from thor.stores import log as quotes_log
from thor.stores.positions import Move, Position
from thor.stores.redis import RedisDown
from thor.stores.redis import connect as connect_redis

log = logging.getLogger(__name__)

#: Entries of one XREAD: an entry has at most 65,536 quotes, so that a read brings at most about 60 MB.
ENTRIES: Final = 8
#: A group is committed at this size even while more waits: 32 MB, or so many quotes.
GROUP_BYTES: Final = 32 << 20
GROUP_QUOTES: Final = 1 << 17
_BLOCK_MS: Final = 1000
_REDO: Final = 3
_PUBLISH_S: Final = 0.95  # a little less than the second between two watermarks
#: Exit code of a copy whose position another copy moved.
TWO_COPIES: Final = 4

#: What Postgres may do to a statement; a database that was never migrated is waited for as well.
_POSTGRES_DOWN: Final = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.UndefinedTable)
_COLLIDED: Final = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)

Rows = TypeVar("Rows")

_SECONDS: Final = Histogram(
    "thor_commit_seconds",
    "Time of one commit of rows and position",
    ["process"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
_COMMITTED: Final = Counter("thor_quotes_committed_total", "Quotes folded into tables since the start", ["process"])
_MISSED: Final = Counter("thor_missed_entries_total", "Entries gone before they were read, ever", ["process"])
_AGE: Final = Gauge("thor_watermark_age_seconds", "Wall clock less committed watermark", ["process"])


class Committing(BaseModel):
    """When waiting quotes are committed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quotes: int = Field(16, ge=1, le=GROUP_QUOTES)
    delay_ms: float = Field(200, gt=0, le=1000)
    gap_ms: float = Field(3, ge=0, le=1000)


class Projection(Protocol[Rows]):
    """What a daemon makes of the log."""

    name: str
    #: The columns of quotes that fold() looks at.
    columns: frozenset[str]

    def open(self, conn: psycopg.Connection[Any], instruments: Mapping[int, Instrument], position: Position) -> None:
        """Begin after ``position``; also called again after a lost connection, and when instruments were added."""

    def fold(self, quotes: Quotes, heads: Sequence[Head]) -> Rows:
        """Pure: the partial rows of some entries, whose quotes carry the numbers given to open()."""

    def write(self, conn: psycopg.Connection[Any], move: Move, rows: Rows) -> bool:
        """Rows and position in one transaction; False, with nothing written, where another copy moved it."""

    def committed(self, rows: Rows, position: Position) -> None:
        """After each commit: what is kept in memory follows the tables."""

    def publish(self, client: redis.Redis, position: Position) -> None:
        """After a commit, at most once a second: what readers are told in Redis."""


class Projector:
    """A daemon that runs one projection."""

    def __init__(self, context: Context, projection: Projection[Any], committing: Committing) -> None:
        self.name = projection.name
        self._context = context
        self._projection = projection
        self._committing = committing
        gap, delay = committing.gap_ms / 1000, committing.delay_ms / 1000
        #: How long after the first waiting quote one looks whether many have come: in a rush not again, what is there
        #: is committed; in a quiet market seldom, for each look costs as much as the commit it waits for.
        self._eager, self._calm = [gap], [delay / 4, delay]
        #: Quotes a second that are a rush.
        self._rush = committing.quotes / (delay / 4)
        self._looks = self._calm
        self._redis = connect_redis(context.settings.redis_url, _BLOCK_MS / 1000 + 2)
        self._conn: db.Connection | None = None
        self._position = Position()  # committed
        self._front = Position()  # read
        self._reader = quotes_log.Reader(self._redis, 0)
        self._registry: dict[str, int] = {}
        self._limit = GROUP_QUOTES
        self._committed_at = self._published_at = 0.0
        self._head = 0
        self._head_at = 0.0
        self._source_ts: int | None = None
        self._other_log: int | None = None
        self._went_back = False
        self._forget()
        self._seconds, self._committed_quotes = _SECONDS.labels(self.name), _COMMITTED.labels(self.name)
        self._missed, self._missed_told = _MISSED.labels(self.name), 0
        _AGE.labels(self.name).set_function(self._age_s)

    def _tell_missed(self) -> None:
        if self._position.missed > self._missed_told:
            self._missed.inc(self._position.missed - self._missed_told)
            self._missed_told = self._position.missed

    def _age_s(self) -> float:
        watermark = self._position.watermark
        return math.nan if watermark is None else time.time() - watermark / 1e9

    def open(self) -> None:
        """Wait for Postgres and Redis, then begin after the position in the table."""
        down = (*_POSTGRES_DOWN, *RedisDown)
        retrying = Retrying(
            retry=retry_if_exception_type(down),
            wait=wait_random_exponential(0.2, max=2),
            stop=stop_when_event_set(self._context.stopping),
            sleep=sleep_using_event(self._context.stopping),
            before_sleep=self._wait,
            reraise=True,
        )
        try:
            retrying(self._connect)
        except down:
            if not self._context.stopping.is_set():
                raise

    def step(self) -> Step:
        """Read, and commit when it is time. Bounded by one block of a second and one commit."""
        try:
            if self._conn is None:
                self._connect()
            return self._advance()
        except RedisDown as error:
            return self._waiting("Redis", error)
        except _POSTGRES_DOWN as error:
            if isinstance(error, psycopg.errors.QueryCanceled | db.NoAnswer):
                self._limit = max(self._limit // 2, self._committing.quotes)
            self.close()
            return self._waiting("Postgres", error)

    def close(self) -> None:
        """Let go of Postgres; what was not committed is read again."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _wait(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._context.beat("waiting", why=_said(error))

    def _waiting(self, server: str, error: Exception) -> Step:
        self._context.stopping.wait(0.3)
        return Step("waiting", committed=self._position.n, head=self._head, why=f"{server}: {_said(error)}")

    def _connect(self) -> None:
        self._redis.ping()
        conn = db.connect(self._context.settings.dsn, self.name)
        try:
            position = positions.read(conn, self.name)
            self._know(conn, position)
        except BaseException:
            conn.close()
            raise
        self._conn = conn
        self._position = self._front = position
        self._tell_missed()
        self._reader = quotes_log.Reader(self._redis, position.n)
        self._forget()
        log.info("%s goes on after entry %d of log %d", self.name, position.n, position.generation)

    def _know(self, conn: psycopg.Connection[Any], position: Position) -> None:
        instruments = registered.load(conn)
        self._registry = {instrument.symbol: number for number, instrument in instruments.items()}
        self._projection.open(conn, instruments, position)

    def _forget(self) -> None:
        self._group: list[Entry] = []
        self._quotes, self._bytes, self._full = 0, 0, False
        self._first_at = 0.0

    def _advance(self) -> Step:
        try:
            self._gather()
        except RedisDown:
            self._commit()  # Postgres may have what was read
            raise
        moved = self._front != self._position
        if self._quotes or self._full or (moved and time.monotonic() > self._committed_at + _PUBLISH_S):
            self._commit()
        if self._other_log is not None:
            self._commit()
            self._begin(self._other_log)
        self._look_ahead()
        state: State = "catching_up" if self._full else "running" if moved else "idle"
        return Step(state, committed=self._position.n, head=self._head, source_ts=self._source_ts)

    def _gather(self) -> None:
        """Read until it is time to commit."""
        self._take(_BLOCK_MS)
        for look in self._looks:
            if not self._quotes or self._full or self._quotes >= self._committing.quotes:
                break
            self._take_at(self._first_at + look)
        if self._quotes and not self._full:
            self._take_at(self._committed_at + self._committing.gap_ms / 1000)
        while self._full and self._quotes < self._limit and self._bytes < GROUP_BYTES:
            self._take(0)

    def _take_at(self, at: float) -> None:
        rest = at - time.monotonic()
        if rest > 0:
            time.sleep(rest)
            self._take(0)

    def _take(self, block_ms: int) -> None:
        found = self._reader.read(block_ms, ENTRIES)
        if not found and block_ms:
            self._silent()
        self._full = len(found) == ENTRIES
        for n, data in found:
            if not self._receive(n, data):
                self._full = False
                break

    def _receive(self, n: int, data: bytes) -> bool:
        """Put one entry to the group; False where it belongs to another log."""
        front, missed = self._front, n - self._front.n - 1
        try:
            entry = self._decode(n, data)
        except BadEntry as error:
            log.error("entry %d cannot be read and is missed: %s", n, error)
            self._front = replace(front, n=n, missed=front.missed + missed + 1)
            return True
        if front.generation not in (0, entry.head.generation):
            self._other_log = entry.head.generation
            return False
        if missed:
            log.error("expected entry %d, found %d: %d entries are missed", front.n + 1, n, missed)
        self._front = Position(entry.head.generation, n, entry.head.watermark, front.missed + missed)
        self._group.append(Entry(entry.head, self._needed(entry.quotes)))
        self._bytes += len(data)
        if len(entry.quotes):
            if not self._quotes:
                self._first_at = time.monotonic()
            self._quotes += len(entry.quotes)
            self._source_ts = int(entry.quotes.ts[-1])
        return True

    def _needed(self, quotes: Quotes) -> Quotes:
        columns = {name: column for name, column in quotes.columns.items() if name in self._projection.columns}
        return replace(quotes, columns=columns)

    def _decode(self, n: int, data: bytes) -> Entry:
        try:
            return decode(data, self._registry)
        except Unknown as unknown:
            self._learn(n, unknown)
            return decode(data, self._registry)

    def _learn(self, n: int, unknown: Unknown) -> None:
        """Find instruments that were added since: in the table, else in the files."""
        conn = self._open_conn()
        # Numbers never change, so that what waits in the group keeps its own.
        self._know(conn, self._position)
        if set(unknown.symbols) <= self._registry.keys():
            return
        added = registered.seed(conn, configured.load(configured.files(self._context.settings)))
        log.warning("entry %d names instruments that the table lacked: %d seeded from the files", n, added)
        self._know(conn, self._position)
        if missing := [symbol for symbol in unknown.symbols if symbol not in self._registry]:
            raise LookupError(
                f"entry {n} of the log: expected registered instruments, found {', '.join(missing[:10])}: "
                "add them to instruments.d and run `python3 -m thor seed`"
            )

    def _commit(self) -> None:
        if self._front == self._position:
            return
        move = Move(self.name, self._position, self._front)
        rows = self._projection.fold(concat([entry.quotes for entry in self._group]), [e.head for e in self._group])
        began = time.perf_counter()
        for redo in range(_REDO, -1, -1):
            try:
                if not self._projection.write(self._open_conn(), move, rows):
                    self._yield()
                break
            except _COLLIDED:
                if not redo:
                    raise
                log.warning("%s: the commit collided with another and is redone", self.name)
        self._seconds.observe(time.perf_counter() - began)
        self._committed_quotes.inc(self._quotes)
        self._position = self._front
        self._tell_missed()
        self._limit = min(self._limit * 2, GROUP_QUOTES)
        rate = self._quotes / max(time.monotonic() - self._committed_at, 1e-6)
        self._looks = self._eager if rate >= self._rush else self._calm
        full = self._full
        self._forget()
        self._full, self._committed_at = full, time.monotonic()
        # First what the projection remembers: telling Redis may fail, and the rows are committed already.
        self._projection.committed(rows, self._position)
        quotes_log.tell_position(self._redis, self.name, self._position.n)
        if self._committed_at > self._published_at + _PUBLISH_S:
            self._published_at = self._committed_at
            self._projection.publish(self._redis, self._position)

    def _yield(self) -> NoReturn:
        log.error("another copy of %s commits: expected position %d, this one stops", self.name, self._position.n)
        self.close()
        sys.exit(TWO_COPIES)

    def _silent(self) -> None:
        """Nothing came for a block: is it still the same log?"""
        held = quotes_log.writer_state(self._redis)
        if "generation" not in held:
            return
        generation, n = int(held["generation"]), int(held.get("n", 0))
        self._head = n
        if self._front.generation not in (0, generation):
            self._other_log = generation
        elif n < self._front.n and not self._went_back:
            self._went_back = True
            log.error("the log ends at entry %d, expected %d or more: Redis lost entries", n, self._front.n)

    def _begin(self, generation: int) -> None:
        """Go on from the start of another log; the position follows with its first entries."""
        log.warning(
            "log %d was followed to entry %d and is gone: %s goes on from the start of log %d",
            self._front.generation, self._front.n, self.name, generation,
        )  # fmt: skip
        self._front = replace(self._front, generation=generation, n=0)
        self._reader = quotes_log.Reader(self._redis, 0)
        self._other_log, self._head, self._went_back = None, 0, False

    def _look_ahead(self) -> None:
        """How long the log is: of use only where one is behind, and then once a second."""
        now = time.monotonic()
        if self._full and now > self._head_at + 1:
            self._head_at = now
            self._head = int(quotes_log.writer_state(self._redis).get("n", 0))
        self._head = max(self._head, self._front.n)

    def _open_conn(self) -> db.Connection:
        if self._conn is None:
            raise psycopg.OperationalError("not connected")
        return self._conn


def _said(error: BaseException | None) -> str:
    return " ".join(str(error).split())[:150]
