"""ingester: reads feeds; writes quotes:log, quotes:latest:*, quotes:rejected. The only writer of the log."""

from __future__ import annotations

import secrets
import socket
import time
from typing import Literal

import redis
from pydantic import Field

from thor.domain.intake import Intake, Rules
from thor.domain.prices import NA, NANO
from thor.runtime import instruments, metrics
from thor.runtime.daemon import Context, Step, main
from thor.runtime.feeding import Begun, Feeding, Strict, feeds
from thor.runtime.ingestion import Ingestion, Limits
from thor.stores.log import Rival, Writer, rival
from thor.stores.redis import RedisDown, connect
from thor.stores.spool import Spool

_MEBI = 1 << 20


class Log(Strict):
    projections: list[str]
    keep_mb: int = Field(ge=1)
    ahead_mb: int = Field(ge=1)


class Rejected(Strict):
    keep: int = Field(ge=100)


class SpoolBounds(Strict):
    max_mb: int = Field(ge=1)


class Gather(Strict):
    calm_ms: float = Field(ge=0, le=1_000)
    busy_ms: float = Field(ge=0, le=1_000)
    busy_quotes: int = Field(ge=1)


class Config(Feeding):
    """config/ingester.yaml"""

    watermark_delay_ms: int = Field(ge=0, le=60_000)
    max_lateness_s: int = Field(ge=0)
    silence_s: int = Field(ge=1)
    gather: Gather
    log: Log
    rejected: Rejected
    spool: SpoolBounds


class Ingester:
    """Feeds → the one log (domain.md §3, §4)."""

    name = "ingester"

    def __init__(self, context: Context) -> None:
        self._context, self._config = context, context.config
        self._registry = instruments.load(instruments.files(context.settings))
        self._began, self._came = 0.0, 0

    def open(self) -> None:
        """Claim the log and take the state back; waits for Redis."""
        config, settings = self._config, self._context.settings
        client = connect(settings.redis_url)
        owner = f"{socket.gethostname()}:{settings.dir}"
        self._wait_for_the_log(client, owner)
        limits = Limits(
            config.watermark_delay_ms * NANO // 1000,
            config.log.ahead_mb * _MEBI,
            config.log.keep_mb * _MEBI,
            config.silence_s * NANO,
        )
        writer = Writer(client, config.rejected.keep)
        writer.expect(config.log.projections)
        rules = Rules(config.max_lateness_s * NANO, config.silence_s * NANO)
        spool = Spool(settings.dir / "spool" / "entries", config.spool.max_mb * _MEBI)
        self._feeds = feeds(settings, config, self._registry)
        self._live = not any(feed.recorded for feed in self._feeds)
        intake = Intake(self._registry, rules)
        self._ingestion = Ingestion(writer, spool, intake, self._registry, self._feeds, limits)
        self._begun = Begun(settings)
        self._begun.check(known=writer.knows(self._feeds[0].name))
        self._ingestion.recover(time.time_ns(), secrets.randbits(48), owner)
        metrics.REGISTRY.register(metrics.Ingested(self._ingestion.figures))

    def _wait_for_the_log(self, client: redis.Redis, owner: str) -> None:
        """Wait for Redis; give up where an ingester elsewhere goes on writing (the lock tells one here)."""
        patience = time.monotonic() + 10
        while not self._context.stopping.is_set():
            try:
                other = rival(client, owner, time.time_ns())
                why = f"another ingester writes the log: {other}"
                if not other:
                    return
                if time.monotonic() > patience:
                    raise Rival(f"{why}; expected to be the only one: stop it, or let this one use another Redis")
            except RedisDown as error:
                why = f"Redis is away: {type(error).__name__}"
            self._context.beat("waiting", why=why)
            self._context.stopping.wait(0.2)

    def step(self) -> Step:
        """One round: poll, decide, store."""
        if self._context.reconnect.is_set():
            self._context.reconnect.clear()
            self._ingestion.reconnect()
        ingestion, gather = self._ingestion, self._config.gather
        if self._live and self._came:
            pause = gather.busy_ms if self._came >= gather.busy_quotes else gather.calm_ms
            time.sleep(max(0, self._began + pause / 1000 - time.monotonic()))
        self._began = time.monotonic()
        self._came = came = ingestion.step(0.05 if len(self._feeds) > 1 else 0.5)
        if came:
            self._begun.keep()
        watermark = None if ingestion.watermark == NA else ingestion.watermark
        state: Literal["waiting", "running", "idle"] = "waiting" if ingestion.why else "running" if came else "idle"
        return Step(state, head=ingestion.n, committed=ingestion.n, source_ts=watermark, why=ingestion.why)

    def close(self) -> None:
        """Everything accepted is stored or spooled already."""
        self._ingestion.close()


if __name__ == "__main__":
    main(Ingester, Ingester.name, Config)
