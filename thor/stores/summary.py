"""What a replay left in the tables, for people."""

from __future__ import annotations

from datetime import datetime

import psycopg


def bars(conn: psycopg.Connection) -> tuple[int, datetime | None, datetime | None]:
    """How many one-minute bars there are, and the first and last of their minutes. Raises psycopg.Error."""
    row = conn.execute("SELECT count(*), min(minute), max(minute) FROM bars").fetchone()
    assert row is not None
    return row[0], row[1], row[2]
