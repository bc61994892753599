"""GET /api/markets and /api/markets/composite: the world clock (domain.md §8), at the log's watermark or ``at``."""

from __future__ import annotations

import time
from typing import Annotated, Any

import psycopg
from aiohttp import web
from pydantic import StringConstraints

from httpd import params
from httpd.context import Context, answer, context
from httpd.problems import Problem
from httpd.quotes import age
from thor.domain.markets import Market, World
from thor.stores import latest
from thor.stores import markets as store

Name = Annotated[str, StringConstraints(max_length=40)]


class CompositeQuery(params.Query):
    at: params.Instant | None = None


class MarketsQuery(CompositeQuery):
    market: Name | None = None


async def markets(request: web.Request) -> web.Response:
    """Every control market, or one; and the composite of them all."""
    query = params.read(request, MarketsQuery)
    ctx = context(request)
    wanted = list(ctx.clockwork.markets) if query.market is None else [find(ctx, query.market)]
    world, said = await _world(ctx, query.at)
    return answer({**world.told(), **said, "markets": [world.tell(market) for market in wanted]})


async def composite(request: web.Request) -> web.Response:
    """Σ weight × 100 of the markets now open, and the phase."""
    query = params.read(request, CompositeQuery)
    world, said = await _world(context(request), query.at)
    return answer({**world.told(), **said})


def find(ctx: Context, name: str) -> Market:
    """The market of a code, a country or a shown name. Raises Problem unknown-market, with the known ones."""
    market = ctx.clockwork.markets.find(name)
    if market is None:
        raise Problem("unknown-market", f"market: there is no {name!r}", "market", known=ctx.clockwork.markets.names)
    return market


async def _world(ctx: Context, at: int | None) -> tuple[World, dict[str, Any]]:
    """The world at the watermark, or ``at`` an instant, and what it says of itself."""
    age_ms = None
    if at is None:
        found = await ctx.redis.run(lambda client: latest.read(client, []))
        if found.watermark is None:
            raise Problem(
                "unavailable", "the log holds no entry yet, so nobody knows what time it is", needs="ingester"
            )
        at, age_ms = found.watermark, age(found.watermark, found.watermark, found.accepted_at, time.time_ns())
    instant, calendars = at, list({market.calendar for market in ctx.clockwork.markets})

    def read(conn: psycopg.Connection) -> World:
        return World.of(ctx.clockwork.markets, store.around(conn, instant, calendars), instant)

    try:
        world = await ctx.postgres.run(read)
    except store.NotCovered as error:
        if age_ms is None:
            raise Problem("invalid-parameter", f"at: {error}", "at") from None
        raise Problem("unavailable", str(error), needs="markets") from None
    live = age_ms is None or age_ms <= ctx.config.max_quote_age_s * 1000
    return world, {"age_ms": age_ms, "source": "markets", "quality": "live" if live else "stale"}
