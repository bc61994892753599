"""Connections of the projections to Postgres: numpy columns in, every wait bounded.

A column travels as one array in Postgres's binary form, made without a loop over its values.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.abc import PQGen
from psycopg.adapt import Dumper
from psycopg.pq import Format

from thor.domain.prices import NA
from thor.domain.quotes import Ints

#: No answer is worth more than this: a frozen server heeds no statement_timeout.
ANSWER_S: Final = 8.0
_SETTINGS: Final = {
    "statement_timeout": "6s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "5s",
    # The arrays differ in length, not in shape: one plan serves them all.
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "timezone": "UTC",
}
#: 2000-01-01, from which Postgres counts, in µs and in days since 1970.
_EPOCH_US: Final = 946_684_800_000_000
_EPOCH_DAYS: Final = 10_957
_HEADER: Final = struct.Struct(">iiIii")


class NoAnswer(psycopg.OperationalError):
    """Postgres did not answer in time; the connection is of no more use."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose every call ends within ANSWER_S. Raises NoAnswer."""

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ANN401
        return super().wait(_until(gen, time.monotonic() + ANSWER_S), interval, timeout)


def _until(gen: PQGen[Any], deadline: float) -> PQGen[Any]:
    """The same steps, given up at the deadline: psycopg comes back at every interval."""
    try:
        waits = next(gen)
        while True:
            ready = yield waits
            if not ready and time.monotonic() > deadline:
                raise NoAnswer(f"expected an answer of Postgres within {ANSWER_S:g} s, found none")
            waits = gen.send(ready)
    except StopIteration as stop:
        return stop.value


def connect(dsn: str, name: str) -> Connection:
    """A connection in autocommit for a writer named ``name``. Raises psycopg.OperationalError."""
    conn = Connection.connect(
        dsn,
        autocommit=True,
        connect_timeout=3,
        tcp_user_timeout=5000,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
        application_name=f"thor {name}",
        options=" ".join(f"-c {key}={value}" for key, value in _SETTINGS.items()),
    )
    for column, dumper in _DUMPERS.items():
        conn.adapters.register_dumper(column, dumper)
    return conn


@dataclass(frozen=True, slots=True, eq=False)
class Bigints:
    """int8[]; NA becomes NULL."""

    values: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Instants:
    """timestamptz[] of instants in ns; NA becomes NULL. Less than a microsecond is cut off."""

    values: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Dates:
    """date[] of days since 1970-01-01."""

    values: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Numerics:
    """numeric[] of integers of any length in units of 10^exponent; None becomes NULL."""

    values: NDArray[Any]
    exponent: int


def _array(values: NDArray[Any], oid: int, known: NDArray[np.bool_] | None = None) -> bytes:
    """The binary form of a one-dimensional array of big-endian integers."""
    n, width = len(values), values.dtype.itemsize
    if not n:
        return _HEADER.pack(0, 0, oid, 0, 0)[:12]
    cells = np.empty(n, np.dtype([("length", ">i4"), ("value", values.dtype)]))
    cells["length"], cells["value"] = width, values
    if known is None or known.all():
        return _HEADER.pack(1, 0, oid, n, 1) + cells.tobytes()
    cells["length"][~known] = -1
    rows = cells.view(np.uint8).reshape(n, 4 + width)
    kept = np.ones((n, 4 + width), np.bool_)
    kept[~known, 4:] = False  # a NULL has no bytes
    return _HEADER.pack(1, 1, oid, n, 1) + rows[kept].tobytes()


class _BigintsDumper(Dumper):
    format = Format.BINARY
    oid = 1016

    def dump(self, obj: Bigints) -> bytes:
        return _array(obj.values.astype(">i8"), 20, obj.values != NA)


class _InstantsDumper(Dumper):
    format = Format.BINARY
    oid = 1185

    def dump(self, obj: Instants) -> bytes:
        return _array((obj.values // 1000 - _EPOCH_US).astype(">i8"), 1184, obj.values != NA)


class _DatesDumper(Dumper):
    format = Format.BINARY
    oid = 1182

    def dump(self, obj: Dates) -> bytes:
        return _array((obj.values - _EPOCH_DAYS).astype(">i4"), 1082)


class _NumericsDumper(Dumper):
    format = Format.TEXT
    oid = 1231

    def dump(self, obj: Numerics) -> bytes:
        unit = f"e{obj.exponent}"
        values = obj.values.tolist()
        return ("{" + ",".join(["NULL" if value is None else f"{value}{unit}" for value in values]) + "}").encode()


_DUMPERS: Final = cast(
    "dict[type, type[Dumper]]",
    {Bigints: _BigintsDumper, Instants: _InstantsDumper, Dates: _DatesDumper, Numerics: _NumericsDumper},
)
