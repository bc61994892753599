"""GET /api/session: a control market beside a future (domain.md §15)."""

from __future__ import annotations

from typing import Annotated, Any, Final

import psycopg
from aiohttp import web
from pydantic import StringConstraints

from httpd import bars, params
from httpd.context import AsOf, answer, context
from httpd.problems import Problem

#: Code → country and shown name (domain.md §8).
MARKETS: Final = {
    "JP": ("Japan", "Tokyo"),
    "CN": ("China", "Shanghai"),
    "IN": ("India", "Bombay"),
    "DE": ("Germany", "Frankfurt"),
    "UK": ("United Kingdom", "London"),
    "PRE": ("Pre_USA", "Pre_USA"),
    "US": ("USA", "USA"),
    "CA": ("Canada", "Toronto"),
    "MX": ("Mexico", "Mexico"),
}
_NAMES: Final = {
    name.casefold(): shown for code, (country, shown) in MARKETS.items() for name in (code, country, shown)
}
_NO_CLOCK: Final = "no world clock runs: whether the market is open, and what it captured, is not known"


class SessionQuery(params.Query):
    market: Annotated[str, StringConstraints(max_length=40)]
    future: params.Symbol


async def session(request: web.Request) -> web.Response:
    """The newest one-minute bar of the future; the market's own fields are null, and ``why`` says so."""
    query = params.read(request, SessionQuery)
    ctx = context(request)
    market = _NAMES.get(query.market.strip().casefold())
    if market is None:
        known = [shown for _, shown in MARKETS.values()]
        raise Problem("unknown-market", f"market: there is no {query.market!r}", "market", known=known)
    future = ctx.instrument(query.future, "future")

    def read(conn: psycopg.Connection) -> dict[str, Any]:
        now = AsOf.read(conn, "intraday", ctx.config.max_quote_age_s)
        return {"intraday_latest": bars.newest(conn, future, now), **now.said}

    found = await ctx.postgres.run(read)
    return answer(
        {"market": market, "future": future.symbol, "status": None, "captured": None, "why": _NO_CLOCK, **found}
    )
