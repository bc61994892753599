"""Connections to Postgres that only read: one snapshot a transaction, every wait bounded."""

from __future__ import annotations

import contextlib
import os
import socket

import psycopg

#: What Postgres and the network can do to a read; UndefinedTable is a database that was never migrated.
PostgresDown = (psycopg.OperationalError, psycopg.errors.UndefinedTable)
#: Those of them that trying again would only repeat.
PostgresSlow = (psycopg.errors.QueryCanceled, psycopg.errors.UndefinedTable)


def connect(dsn: str, statement_timeout_s: float) -> psycopg.Connection:
    """A connection whose transactions are read only and see one snapshot. Raises psycopg.OperationalError."""
    timeout_ms = int(statement_timeout_s * 1000)
    connection = psycopg.connect(
        dsn,
        connect_timeout=3,
        tcp_user_timeout=5000,
        application_name="thor httpd",
        options=f"-c statement_timeout={timeout_ms} -c idle_in_transaction_session_timeout=5000 -c timezone=UTC",
    )
    connection.read_only = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    return connection


def cut(connection: psycopg.Connection) -> None:
    """End a call that waits in another thread: a frozen server heeds no statement_timeout."""
    # Closing the descriptor under a waiting thread could hit whoever gets its number next; shutting down cannot.
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


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
