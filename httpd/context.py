"""What every handler stands on, and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson
import psycopg
import redis
from aiohttp import web

from httpd.config import Config
from httpd.lanes import Lanes
from httpd.problems import Problem
from thor.domain.instruments import Instrument, Instruments
from thor.domain.stamps import rfc3339
from thor.runtime.markets import Clockwork, load
from thor.runtime.settings import Settings
from thor.stores import readonly


@dataclass(frozen=True)
class Context:
    """One application's servers and registry; ``instruments`` reads the files anew when they changed."""

    settings: Settings
    config: Config
    postgres: Lanes[psycopg.Connection]
    redis: Lanes[redis.Redis]
    instruments: Callable[[], Instruments]
    clockwork: Clockwork = field(default_factory=load)

    def known(self, symbols: Sequence[str]) -> tuple[list[str], list[str]]:
        """Canonical symbols of the instruments named (of all where none is), and the names nobody registered."""
        registry = self.instruments()
        if not symbols:
            return registry.symbols, []
        numbers = {name: registry.number(name) for name in symbols}
        known = dict.fromkeys(registry[number].symbol for number in numbers.values() if number is not None)
        return list(known), [name for name, number in numbers.items() if number is None]

    def instrument(self, symbol: str, parameter: str = "symbol") -> Instrument:
        """The instrument a parameter names. Raises Problem unknown-symbol, with the known ones."""
        registry = self.instruments()
        number = registry.number(symbol)
        if number is None:
            detail = f"{parameter}: nobody registered {symbol}"
            raise Problem("unknown-symbol", detail, parameter, known=registry.symbols[:100])
        return registry[number]


CONTEXT: Final = web.AppKey("context", Context)


def context(request: web.Request) -> Context:
    """The application's context."""
    return request.app[CONTEXT]


def dumps(document: object) -> bytes:
    """Compact JSON; a datetime in UTC becomes RFC 3339 with ``Z``. A Decimal in it is an error of ours: TypeError."""
    return orjson.dumps(document, option=orjson.OPT_UTC_Z)


def answer(document: object, status: int = 200) -> web.Response:
    """A JSON answer; bytes are taken as JSON already."""
    body = document if isinstance(document, bytes) else dumps(document)
    return web.Response(body=body, status=status, content_type="application/json", charset="utf-8")


def text(value: Decimal | None) -> str | None:
    """An exact number as the shortest plain decimal string."""
    if value is None:
        return None
    plain = str(value)  # half the time of format(), for ten numbers a bar
    if "E" in plain:
        plain = format(value, "f")
    return plain.rstrip("0").rstrip(".") if plain[-1] == "0" and "." in plain else plain


@dataclass(frozen=True, slots=True)
class AsOf:
    """The instant that derived numbers are true at, in ns UTC and as a datetime, and what they say of themselves."""

    ns: int
    instant: datetime
    said: dict[str, Any]

    @property
    def stale(self) -> bool:
        """Whether the log has not grown for longer than ``max_age_s``."""
        return bool(self.said["quality"] == "stale")

    @classmethod
    def read(cls, conn: psycopg.Connection, projection: str, max_age_s: float, at: int | None = None) -> AsOf:
        """Of the rows that ``projection`` has committed, or as they were ``at`` an earlier instant.

        Reads in the transaction of ``conn``, so that the rows read beside it are of the same commit. A projection
        that has committed nothing is at 1970, and stale.
        """
        watermark, behind_ms = readonly.progress(conn, projection)
        if watermark is None:
            return cls(0, _EPOCH, {"as_of": None, "age_ms": None, "source": projection, "quality": "stale"})
        ns = watermark if at is None else min(at, watermark)
        age_ms = (watermark - ns) // 1_000_000 + behind_ms
        live = age_ms <= max_age_s * 1000
        said = {"as_of": rfc3339(ns), "age_ms": age_ms, "source": projection, "quality": "live" if live else "stale"}
        return cls(ns, datetime_of(ns), said)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def datetime_of(ns: int, *, up: bool = False) -> datetime:
    """ns UTC as a datetime; less than a microsecond is cut off, or counted as one (``up``)."""
    return _EPOCH + timedelta(microseconds=-(-ns // 1000) if up else ns // 1000)
