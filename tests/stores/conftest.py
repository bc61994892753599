"""A database of the projections' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pytest

from tests.columns import to_quotes
from tests.referee import Plain
from thor.domain import bars as bar_domain
from thor.domain import vwap as vwap_domain
from thor.domain.instruments import Instrument
from thor.domain.minutes import Specs
from thor.stores import bars, db, instruments, positions, vwap
from thor.stores.positions import Move, Position


@pytest.fixture
def conn(dsn: str) -> Iterator[db.Connection]:
    """A projection's connection to an empty database."""
    with db.connect(dsn, "test") as connection:
        yield connection


class Tables:
    """Commits as the two projections do, without a log."""

    def __init__(self, conn: db.Connection, known: Sequence[Instrument]) -> None:
        self.conn = conn
        instruments.seed(conn, known)
        self.instruments = instruments.load(conn)
        self.specs = Specs(self.instruments)

    def clear(self) -> None:
        self.conn.execute("TRUNCATE bars, books, gaps, days, vwap_minutes, positions, watches")

    def commit(self, plain: Sequence[Plain], *cuts: int) -> None:
        """Fold and commit the quotes, cut before each of the places given."""
        edges = [0, *sorted(cuts), len(plain)]
        for low, high in pairwise(edges):
            quotes = to_quotes(plain[low:high], self.instruments)
            self._move("intraday", lambda move, q=quotes: bars.commit(  # type: ignore[misc]
                self.conn, move, bar_domain.fold(q, self.specs), {}))  # fmt: skip
            self._move("vwap", lambda move, q=quotes: vwap.commit(  # type: ignore[misc]
                self.conn, move, vwap_domain.fold(q, self.specs)))  # fmt: skip

    def _move(self, name: str, commit: Callable[[Move], bool]) -> None:
        before = positions.read(self.conn, name)
        assert commit(Move(name, before, Position(1, before.n + 1, None, 0)))


@pytest.fixture
def make_tables(conn: db.Connection) -> Callable[..., Tables]:
    """Tables over some instruments."""
    return lambda *known: Tables(conn, known)
