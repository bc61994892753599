"""Forward-only migrations: every sql/NNNN_name.sql once, in order, each in its own transaction."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_LOCK: Final = 7_404_817_300_113  # any number, the same for all who migrate

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    text PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE schema_migrations IS 'Files of sql/ that this database has seen';
COMMENT ON COLUMN schema_migrations.version IS 'Number of the file';
COMMENT ON COLUMN schema_migrations.name IS 'Rest of its name';
COMMENT ON COLUMN schema_migrations.sha256 IS 'Of its text: a file never changes once it was applied';
COMMENT ON COLUMN schema_migrations.applied_at IS 'Wall clock';
"""


PostgresError = psycopg.Error


class BadMigration(RuntimeError):
    """A file that cannot be applied, or no longer is what was applied; one line."""


class Unreachable(ConnectionError):
    """No Postgres answers; one line, without the password."""


@dataclass(frozen=True)
class Migration:
    """One file of sql/."""

    version: str
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations(directory: Path) -> list[Migration]:
    """The files in order. Raises BadMigration for a name or a number that is wrong."""
    found: dict[str, Migration] = {}
    for path in sorted(directory.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise BadMigration(f"{path}: expected a name like 0002_what_it_does.sql")
        if match[1] in found:
            raise BadMigration(f"{path}: expected one file numbered {match[1]}, found also {found[match[1]].name}")
        found[match[1]] = Migration(match[1], match[2], path.read_text())
    if not found:
        raise BadMigration(f"{directory}: expected NNNN_name.sql files, found none")
    return list(found.values())


def connect(dsn: str, wait_s: float = 0, alive: Callable[[], None] = lambda: None) -> psycopg.Connection:
    """A connection in autocommit, tried again for ``wait_s``; ``alive`` is called between tries and may raise.

    Raises Unreachable, at once where the server answers but refuses the user.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            return psycopg.connect(dsn, autocommit=True)
        except psycopg.OperationalError as error:
            text = " ".join(str(error).split())
            refused = "authentication" in text or "does not exist" in text
            if refused or time.monotonic() >= until:
                raise Unreachable(text) from error
        alive()
        time.sleep(0.05)


def create_database(server: psycopg.Connection, name: str, template: str = "template0") -> None:
    """Make the database where it is missing; two at once are safe."""
    if server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
        return
    try:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
        return


def migrate(conn: psycopg.Connection, directory: Path) -> list[str]:
    """Apply what is missing; the file names applied. ``conn`` is in autocommit.

    A second caller waits for the first. Killed at any moment, a file is applied whole or not at all.
    Raises BadMigration.
    """
    wanted = migrations(directory)
    conn.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    try:
        conn.execute(_TABLE)
        rows = conn.execute("SELECT version, sha256, name FROM schema_migrations").fetchall()
        _compare(wanted, rows, directory)
        applied = {row[0] for row in rows}
        return [_apply(conn, migration) for migration in wanted if migration.version not in applied]
    finally:
        if not conn.closed:
            conn.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _compare(wanted: list[Migration], rows: Iterable[tuple[str, str, str]], directory: Path) -> None:
    known = {migration.version: migration for migration in wanted}
    for version, digest, name in rows:
        file = known.get(version)
        if file is None:
            raise BadMigration(
                f"the database has migration {version}_{name}, {directory} has not: this code is older than its data"
            )
        if file.sha256 != digest:
            raise BadMigration(
                f"{directory}/{version}_{file.name}.sql: changed after it was applied (expected sha256 {digest[:12]}…, "
                f"found {file.sha256[:12]}…): restore it and put the change into a new file"
            )


def _apply(conn: psycopg.Connection, migration: Migration) -> str:
    file = f"{migration.version}_{migration.name}.sql"
    try:
        with conn.transaction():
            conn.execute(migration.text.encode())
            conn.execute(
                "INSERT INTO schema_migrations (version, name, sha256) VALUES (%s, %s, %s)",
                [migration.version, migration.name, migration.sha256],
            )
    except psycopg.Error as error:
        raise BadMigration(f"{file}: {' '.join(str(error).split())}") from error
    return file
