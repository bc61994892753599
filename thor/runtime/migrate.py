"""The database as this checkout wants it: present, migrated, seeded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from thor.domain.instruments import Instrument
from thor.runtime import markets as clockwork
from thor.runtime.settings import ROOT, Settings
from thor.stores import instruments, markets, schema

SQL: Final = ROOT / "sql"


def migrate(
    settings: Settings, wait_s: float = 0, alive: Callable[[], None] = lambda: None, directory: Path = SQL
) -> list[str]:
    """Make the database where it is embedded and missing, and apply the migrations it lacks.

    Returns the names of the files applied. Raises BadMigration, Unreachable.
    """
    if settings.embedded_postgres:
        with schema.connect(settings.dsn_of("postgres"), wait_s, alive) as server:
            schema.create_database(server, settings.db_name)
    with schema.connect(settings.dsn, wait_s, alive) as conn:
        return schema.migrate(conn, directory)


def seed(settings: Settings, wanted: list[Instrument]) -> int:
    """Bring the instruments and the control markets into the database; how many instruments are new or changed."""
    with schema.connect(settings.dsn) as conn:
        markets.seed(conn, clockwork.load().markets)
        return instruments.seed(conn, wanted)
