"""GET /api/session: a control market beside a future (domain.md §15)."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from aiohttp import web

from httpd import bars, markets, params
from httpd.context import AsOf, answer, context
from thor.domain.markets import Markets, World
from thor.stores import markets as store

_NO_HOURS: Final = "the world clock has no hours of this date yet"
_NO_CAPTURE: Final = "no capture is known"


class SessionQuery(params.Query):
    market: markets.Name
    future: params.Symbol


async def session(request: web.Request) -> web.Response:
    """The market's status, the newest one-minute bar of the future, today's captured row; ``why`` says what lacks."""
    query = params.read(request, SessionQuery)
    ctx = context(request)
    market = markets.find(ctx, query.market)
    future = ctx.instrument(query.future, "future")

    def read(conn: psycopg.Connection) -> dict[str, Any]:
        now = AsOf.read(conn, "intraday", ctx.config.max_quote_age_s)
        try:
            timelines = store.around(conn, now.ns, [market.calendar])
        except store.NotCovered:
            clock, why = None, f"{_NO_HOURS}; {_NO_CAPTURE}"
        else:
            clock, why = World.of(Markets([market]), timelines, now.ns).tell(market), _NO_CAPTURE
        status = None if clock is None else clock["status"]
        found = {"status": status, "clock": clock, "captured": None, "why": why}
        return found | {"intraday_latest": bars.newest(conn, future, now), **now.said}

    found = await ctx.postgres.run(read)
    return answer({"market": market.name, "future": future.symbol, **found})
