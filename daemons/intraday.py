"""intraday: reads quotes:log; writes one-minute bars, books, gaps, day statistics and watches to Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import redis
from pydantic import BaseModel, ConfigDict

from thor.domain.bars import COLUMNS, Folded, fold
from thor.domain.instruments import Instrument
from thor.domain.minutes import Specs
from thor.domain.quotes import Head, Quotes
from thor.runtime.daemon import Context, main
from thor.runtime.projection import Committing, Projector
from thor.stores import bars
from thor.stores.positions import Move, Position


class Config(BaseModel):
    """config/intraday.yaml"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    commit: Committing


@dataclass(frozen=True, slots=True)
class Rows:
    """Partial rows of some entries (None where they hold no quotes) and how far each watch reached."""

    folded: Folded | None
    watches: Mapping[int, int]


class Intraday:
    """Quotes → bars (domain.md §4, §5, §7)."""

    name = "intraday"
    columns = COLUMNS

    def open(self, conn: psycopg.Connection[Any], instruments: Mapping[int, Instrument], position: Position) -> None:
        self._specs = Specs(instruments)

    def fold(self, quotes: Quotes, heads: Sequence[Head]) -> Rows:
        watches = {head.watching: head.watermark for head in heads}
        return Rows(fold(quotes, self._specs) if len(quotes) else None, watches)

    def write(self, conn: psycopg.Connection[Any], move: Move, rows: Rows) -> bool:
        return bars.commit(conn, move, rows.folded, rows.watches)

    def committed(self, rows: Rows, position: Position) -> None:
        """Nothing is kept: the tables say everything."""

    def publish(self, client: redis.Redis, position: Position) -> None:
        """Nothing is told: the tables say everything."""


def make(context: Context) -> Projector:
    """The daemon."""
    return Projector(context, Intraday(), context.config.commit)


if __name__ == "__main__":
    main(make, Intraday.name, Config)
