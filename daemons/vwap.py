"""vwap: reads quotes:log; writes vwap_minutes to Postgres and the rolling VWAP to Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import psycopg
import redis
from pydantic import BaseModel, ConfigDict, Field

from thor.domain.instruments import Instrument
from thor.domain.minutes import Specs
from thor.domain.quotes import Head, Quotes
from thor.domain.vwap import COLUMNS, Minutes, Rolling, fold
from thor.runtime.daemon import Context, main
from thor.runtime.projection import Committing, Projector
from thor.stores import vwap
from thor.stores.positions import Move, Position
from thor.stores.rolling import Publisher


class Config(BaseModel):
    """config/vwap.yaml"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    commit: Committing
    windows: list[Annotated[int, Field(ge=1, le=1440)]] = Field(min_length=1, max_length=16)


class Vwap:
    """Quotes → VWAP minutes and windows (domain.md §6)."""

    name = "vwap"
    columns = COLUMNS

    def __init__(self, windows: Sequence[int]) -> None:
        self._windows = windows

    def open(self, conn: psycopg.Connection[Any], instruments: Mapping[int, Instrument], position: Position) -> None:
        self._specs = Specs(instruments)
        self._rolling = Rolling(self._windows)
        if position.watermark is not None:
            vwap.recall(conn, self._rolling, position.watermark)
        self._publisher = Publisher({number: instrument.symbol for number, instrument in instruments.items()})

    def fold(self, quotes: Quotes, heads: Sequence[Head]) -> Minutes:
        return fold(quotes, self._specs)

    def write(self, conn: psycopg.Connection[Any], move: Move, rows: Minutes) -> bool:
        return vwap.commit(conn, move, rows)

    def committed(self, rows: Minutes, position: Position) -> None:
        self._rolling.add_all(rows)
        if position.watermark is not None:
            self._rolling.advance(position.watermark)

    def publish(self, client: redis.Redis, position: Position) -> None:
        if position.watermark is not None:
            self._publisher.publish(client, self._rolling, position.watermark)


def make(context: Context) -> Projector:
    """The daemon."""
    return Projector(context, Vwap(context.config.windows), context.config.commit)


if __name__ == "__main__":
    main(make, Vwap.name, Config)
