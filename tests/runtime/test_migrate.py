from __future__ import annotations

import threading
from pathlib import Path

import pytest

from thor.runtime.settings import ROOT
from thor.stores import schema
from thor.stores.schema import BadMigration


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for path in (ROOT / "sql").glob("*.sql"):
        (tmp_path / path.name).write_text(path.read_text())
    return tmp_path


def test_a_migrated_database_needs_nothing(dsn: str) -> None:
    with schema.connect(dsn) as conn:
        assert schema.migrate(conn, ROOT / "sql") == []


def test_what_is_missing_is_applied_in_order(dsn: str, directory: Path) -> None:
    (directory / "9002_b.sql").write_text("INSERT INTO t VALUES (2);")
    (directory / "9001_a.sql").write_text("CREATE TABLE t (n int); INSERT INTO t VALUES (1);")
    with schema.connect(dsn) as conn:
        assert schema.migrate(conn, directory) == ["9001_a.sql", "9002_b.sql"]
        assert conn.execute("SELECT n FROM t ORDER BY n").fetchall() == [(1,), (2,)]


def test_a_file_that_fails_leaves_nothing_and_is_named(dsn: str, directory: Path) -> None:
    (directory / "9001_a.sql").write_text("CREATE TABLE t (n int); SELECT nonsense;")
    with schema.connect(dsn) as conn:
        with pytest.raises(BadMigration, match=r'9001_a\.sql: column "nonsense" does not exist'):
            schema.migrate(conn, directory)
        assert conn.execute("SELECT to_regclass('t')").fetchone() == (None,)


def test_a_file_changed_after_it_was_applied_is_an_error(dsn: str, directory: Path) -> None:
    first = sorted(directory.glob("*.sql"))[0]
    first.write_text(first.read_text() + "\n-- changed\n")
    with schema.connect(dsn) as conn, pytest.raises(BadMigration, match="changed after it was applied"):
        schema.migrate(conn, directory)


def test_a_database_newer_than_the_code_is_an_error(dsn: str, directory: Path, tmp_path: Path) -> None:
    (directory / "9001_a.sql").write_text("SELECT 1;")
    with schema.connect(dsn) as conn:
        schema.migrate(conn, directory)
        (directory / "9001_a.sql").unlink()
        with pytest.raises(BadMigration, match="this code is older than its data"):
            schema.migrate(conn, directory)


def test_two_who_migrate_at_once_apply_each_file_once(dsn: str, directory: Path) -> None:
    (directory / "9001_a.sql").write_text("CREATE TABLE t (n int); SELECT pg_sleep(0.3);")
    applied: list[list[str]] = []

    def migrate() -> None:
        with schema.connect(dsn) as conn:
            applied.append(schema.migrate(conn, directory))

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [[], [], [], ["9001_a.sql"]]


def test_a_migrator_killed_in_the_middle_leaves_the_file_to_the_next(dsn: str, directory: Path) -> None:
    (directory / "9001_a.sql").write_text("CREATE TABLE t (n int); SELECT pg_terminate_backend(pg_backend_pid());")
    with pytest.raises(BadMigration, match=r"9001_a\.sql"), schema.connect(dsn) as conn:
        schema.migrate(conn, directory)
    (directory / "9001_a.sql").write_text("CREATE TABLE t (n int);")
    with schema.connect(dsn) as conn:
        assert schema.migrate(conn, directory) == ["9001_a.sql"]


def test_every_table_view_and_column_says_what_it_is(dsn: str) -> None:
    with schema.connect(dsn) as conn:
        bare = conn.execute(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace "
            "LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
            "AND c.relkind = 'r' WHERE s.nspname = 'public' AND c.relkind IN ('r', 'v') "
            "AND (obj_description(c.oid) IS NULL OR (c.relkind = 'r' AND col_description(c.oid, a.attnum) IS NULL))"
        ).fetchall()
    assert bare == []
