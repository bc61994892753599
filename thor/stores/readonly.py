"""Reads from Postgres on a pool's connections: one snapshot a read, every wait bounded."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Final

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

#: What Postgres and the network can do to a read; UndefinedTable is a database that was never migrated.
PostgresDown: Final = (psycopg.OperationalError, psycopg.errors.UndefinedTable)

# It says of each request what it does, and of each attempt that it failed: an answer and /api/health say that once.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class Held:
    """The connection that a read has at the moment, so that another thread can end the read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: psycopg.Connection | None = None
        self._over = False

    def take(self, connection: psycopg.Connection | None) -> None:
        """Have another connection, or none. Raises PoolTimeout once the read is over."""
        with self._lock:
            self._connection = connection
            if self._over and connection is not None:
                raise PoolTimeout("the read was ended")

    def cut(self) -> None:
        """End what waits for the server: a frozen one heeds no statement_timeout."""
        with self._lock:
            self._over = True
            if self._connection is None:
                return
            # Closing the descriptor under a waiting thread could hit whoever gets its number; shutting down cannot.
            with (
                contextlib.suppress(OSError, psycopg.Error),
                socket.socket(fileno=os.dup(self._connection.fileno())) as line,
            ):
                line.shutdown(socket.SHUT_RDWR)


class _Candid(ConnectionPool[psycopg.Connection]):
    """Tells those who wait for a connection at once that there will be none, and why; they would wait in vain."""

    _why = "no connection could be made"

    def _connect(self, timeout: float | None = None) -> psycopg.Connection:
        try:
            return super()._connect(timeout)
        except psycopg.OperationalError as error:
            self._why = str(error)
            raise

    def reconnect_failed(self) -> None:
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        for client in waiting:
            client.fail(psycopg.OperationalError(self._why))


class Pool:
    """At most ``size`` connections whose transactions are read only and see one snapshot each.

    ``open`` does not wait for Postgres. A failed attempt to connect is not repeated behind a back-off: the next read
    makes the next one, so the first read after an outage is answered.
    """

    def __init__(self, dsn: str, size: int, statement_timeout_s: float) -> None:
        self._reading = threading.local()
        timeout_ms = int(statement_timeout_s * 1000)
        self._pool = _Candid(
            dsn,
            kwargs={
                "autocommit": True,  # `connection` opens the transaction itself, and ends it while it can be cut
                "connect_timeout": 3,
                "tcp_user_timeout": 5000,
                "application_name": "thor httpd",
                "options": f"-c statement_timeout={timeout_ms} -c idle_in_transaction_session_timeout=5000"
                " -c timezone=UTC",
            },
            min_size=1,
            max_size=size,
            open=False,
            configure=_configure,
            check=self._check,
            name="postgres",
            timeout=statement_timeout_s + 1,
            max_lifetime=600,
            max_idle=60,
            reconnect_timeout=0,
            num_workers=1,
        )

    def open(self) -> None:
        """Begin to connect; return at once."""
        self._pool.open()

    def close(self) -> None:
        """Let go of every connection."""
        self._pool.close()

    @contextlib.contextmanager
    def connection(self, held: Held) -> Iterator[psycopg.Connection]:
        """A connection inside a transaction; ``held`` can end it. Raises one of PostgresDown."""
        self._reading.held = held
        with self._pool.connection() as connection:
            try:
                with connection.transaction():
                    yield connection
            finally:
                held.take(None)

    def _check(self, connection: psycopg.Connection) -> None:
        held: Held = self._reading.held
        held.take(connection)
        try:
            ConnectionPool.check_connection(connection)
        except psycopg.Error:
            held.take(None)
            self._pool.drain()  # they died together: to find that out one by one takes the pool seconds
            raise


def _configure(connection: psycopg.Connection) -> None:
    connection.read_only = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ


def ping(connection: psycopg.Connection) -> None:
    """Whether the server answers. Raises psycopg.OperationalError."""
    connection.execute("SELECT 1")


def progress(connection: psycopg.Connection, projection: str) -> tuple[int | None, int]:
    """The watermark (ns) that a projection has committed, None before its first entry, and the ms since that commit."""
    row = connection.execute(
        "SELECT watermark_ns, greatest(0, extract(epoch FROM clock_timestamp() - updated_at) * 1000)::bigint"
        " FROM positions WHERE name = %s",
        [projection],
    ).fetchone()
    return (None, 0) if row is None else (row[0], row[1])
