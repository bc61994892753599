"""Projections over a real log, Redis and Postgres, stepped by the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import redis
from psycopg.conninfo import conninfo_to_dict

from daemons.intraday import Intraday
from daemons.vwap import Vwap
from tests.columns import instrument, to_quotes
from tests.referee import Plain
from thor.domain.instruments import Instrument
from thor.domain.quotes import Head, encode
from thor.runtime.daemon import Context
from thor.runtime.projection import Committing, Projector
from thor.runtime.settings import Settings
from thor.stores import db, instruments, keys
from thor.stores.redis import connect

ES, NQ = instrument("ES"), instrument("NQ")


class Log:
    """Writes entries as the ingester does."""

    def __init__(self, url: str, known: Sequence[Instrument], generation: int = 7) -> None:
        self.client: redis.Redis = connect(url)
        self._instruments = dict(enumerate(known))
        self.generation, self.n, self.watermark = generation, 0, 0

    def add(self, plain: Sequence[Plain] = (), watermark: int | None = None, watching: int = 0) -> int:
        """One entry; its number."""
        self.n += 1
        before = self.watermark
        self.watermark = watermark or max([before, *(quote.ts for quote in plain)])
        head = Head(self.generation, 1, self.n, 0, self.watermark, before, watching, 0)
        quotes = to_quotes(plain, self._instruments)
        self.put(encode(head, quotes, [one.symbol for one in self._instruments.values()]))
        return self.n

    def put(self, data: bytes) -> None:
        """Any bytes as entry n."""
        self.client.xadd(keys.LOG, {"b": data}, id=f"{self.n}-0")
        self.client.hset(keys.WRITER, mapping={"generation": self.generation, "n": self.n})


class Beats:
    """What a projector needs of a process: its settings, and somebody to tell that it lives."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = threading.Event()
        self.states: list[str] = []

    def beat(self, state: str, deadline_s: float = 10, why: str = "") -> None:
        self.states.append(state)


FAST = Committing(quotes=1, delay_ms=1, gap_ms=0)


@pytest.fixture
def settings(server_settings: Settings, dsn: str, redis_url: str) -> Settings:
    """Settings that point at this test's database and Redis."""
    return replace(server_settings, db_name=str(conninfo_to_dict(dsn)["dbname"]), redis_url=redis_url)


@pytest.fixture
def conn(settings: Settings) -> Iterator[db.Connection]:
    """The test's own connection; ES and NQ are registered."""
    with db.connect(settings.dsn, "test") as connection:
        instruments.seed(connection, [ES, NQ])
        yield connection


@pytest.fixture
def log(redis_url: str, conn: db.Connection) -> Log:
    """A new log."""
    return Log(redis_url, [ES, NQ])


@pytest.fixture
def start(settings: Settings, conn: db.Connection) -> Iterator[Callable[..., Projector]]:
    """Starts a projector by name; all are closed in the end."""
    running: list[Projector] = []

    def make(name: str, committing: Committing = FAST) -> Projector:
        projection: Any = Intraday() if name == "intraday" else Vwap([5, 30])
        projector = Projector(cast("Context", Beats(settings)), projection, committing)
        projector.open()
        running.append(projector)
        return projector

    yield make
    for projector in running:
        projector.close()
