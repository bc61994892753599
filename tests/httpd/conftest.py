"""The API as a real server in a thread, over real Postgres and Redis."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from aiohttp import web
from psycopg.conninfo import conninfo_to_dict

from httpd.app import make_app
from httpd.config import Config, PostgresConfig, RedisConfig
from thor.domain.hours import Hours
from thor.domain.instruments import Instrument, Instruments
from thor.runtime.settings import Settings
from thor.stores import instruments

GLOBEX = Hours("CME Globex", "America/Chicago", time(17), time(17), time(16))


def instrument(symbol: str, *aliases: str) -> Instrument:
    """A future on Globex hours."""
    one = Decimal(1)
    tick = Decimal("0.25")
    return Instrument(symbol, f"{symbol} future", "CME", "USA", tick, one, one, 2, GLOBEX, aliases=aliases)


INSTRUMENTS = Instruments([instrument("ES", "/ES:XCME"), instrument("YM"), instrument("GC"), instrument("GCZ3")])


def ns(text: str) -> int:
    """``2013-10-08 12:00`` UTC in ns."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401
        """The body as JSON."""
        return json.loads(self.body)


class Api:
    """One running application."""

    def __init__(self, settings: Settings, config: Config) -> None:
        self._loop = asyncio.new_event_loop()
        self._runner = web.AppRunner(
            make_app(settings, config, lambda: INSTRUMENTS),
            access_log=None,
            keepalive_timeout=config.idle_timeout_s,
            shutdown_timeout=1,
        )
        self.port = self._loop.run_until_complete(self._listen())
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def _listen(self) -> int:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return int(self._runner.addresses[0][1])

    def get(self, path: str, /, **parameters: object) -> Answer:
        """The answer to GET; ``from_`` stands for ``from``."""
        return self.request("GET", path, {}, parameters)

    def request(
        self, method: str, path: str, headers: Mapping[str, str], parameters: Mapping[str, object] | None = None
    ) -> Answer:
        """The answer to any request."""
        query = urlencode({name.rstrip("_"): value for name, value in (parameters or {}).items()})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, f"{path}?{query}" if query else path, headers=dict(headers))
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def close(self) -> None:
        """Stop and wait."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(15)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(15)
        self._loop.close()


CONFIG = Config(postgres=PostgresConfig(connections=2, statement_timeout_s=1), redis=RedisConfig(timeout_s=0.5))


@pytest.fixture
def settings(server_settings: Settings, dsn: str, redis_url: str, thor_dir: Path) -> Settings:
    """Settings that point at this test's database, Redis and directory."""
    return replace(server_settings, dir=thor_dir, db_name=str(conninfo_to_dict(dsn)["dbname"]), redis_url=redis_url)


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    """The API over them."""
    running = Api(settings, CONFIG)
    yield running
    running.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Api]:
    """The API with neither Postgres nor Redis."""
    away = {"THOR_DIR": str(tmp_path), "DB_HOST": "127.0.0.1", "DB_PORT": "1", "REDIS_URL": "redis://127.0.0.1:1/0"}
    running = Api(Settings.from_env(away), CONFIG.model_copy(update={"idle_timeout_s": 0.5}))
    yield running
    running.close()


@pytest.fixture
def database(dsn: str) -> Iterator[psycopg.Connection]:
    """The test's own writing connection, with the instruments seeded."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        instruments.seed(conn, INSTRUMENTS)
        yield conn


def add_bar(
    conn: psycopg.Connection, symbol: str, minute: str, close: str, volume: str = "10", **other: object
) -> None:
    """One bar whose four prices are ``close``, with its VWAP minute; ``other`` replaces columns of the bar."""
    bar = (
        {
            "instrument_id": conn.execute("SELECT id FROM instruments WHERE symbol = %s", [symbol]).fetchone()[0],  # type: ignore[index]
            "minute": f"{minute}+00",
            "trade_date": minute[:10],
            **dict.fromkeys(("open", "high", "low", "close"), Decimal(close)),
            "volume": Decimal(volume),
            "notional": Decimal(close) * Decimal(volume),
            "updates": 3,
            "revision": 0,
            "revised_at": None,
            "basis": "trade",
            "open_ns": ns(minute),
            "close_ns": ns(minute) + 59_000_000_000,
        }
        | other
    )
    conn.execute(f"INSERT INTO bars ({', '.join(bar)}) VALUES ({', '.join(f'%({name})s' for name in bar)})", bar)
    keys = ("instrument_id", "minute", "trade_date", "volume", "notional")
    row = {key: bar[key] for key in keys} | {"last": bar["close"], "last_ns": bar["close_ns"]}
    row["squares"] = Decimal(close) ** 2 * Decimal(volume)
    conn.execute(
        f"INSERT INTO vwap_minutes ({', '.join(row)}) VALUES ({', '.join(f'%({name})s' for name in row)})", row
    )


def set_watermark(conn: psycopg.Connection, instant: str) -> None:
    """Both projections have committed up to this watermark, just now."""
    for name in ("intraday", "vwap"):
        conn.execute(
            "INSERT INTO positions (name, generation, n, watermark_ns) VALUES (%s, 1, 5, %s)"
            " ON CONFLICT (name) DO UPDATE SET watermark_ns = excluded.watermark_ns",
            [name, ns(instant)],
        )
