"""GET /api/quotes: the latest quote of each symbol, from Redis alone."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from aiohttp import web

from httpd import params
from httpd.context import answer, context
from thor.domain.quotes import FIELDS
from thor.domain.stamps import rfc3339
from thor.stores import latest


class QuotesQuery(params.Query):
    symbols: params.Symbols = ()


async def quotes(request: web.Request) -> web.Response:
    """One object a symbol; unknown symbols are named, a symbol without a quote yet has nulls."""
    ctx = context(request)
    known, unknown = ctx.known(params.read(request, QuotesQuery).symbols)
    found = await ctx.redis.run(partial(latest.read, symbols=known))
    now = time.time_ns()
    listed = [_quote(symbol, found, now, ctx.config.max_quote_age_s) for symbol in known]
    as_of = None if found.watermark is None else rfc3339(found.watermark)
    return answer({"as_of": as_of, "quotes": listed, "unknown": unknown})


def _quote(symbol: str, found: latest.Latest, now: int, max_age_s: float) -> dict[str, Any]:
    fields = found.quotes.get(symbol, {})
    ts = params.parse_instant(fields["ts"]) if fields.get("ts") else None
    age_ms = None if ts is None else age(ts, found.watermark, found.accepted_at, now)
    fresh = age_ms is not None and age_ms <= max_age_s * 1000
    return {
        "symbol": symbol,
        **{name: fields.get(name) or None for name in (*FIELDS, "spread")},
        "as_of": None if ts is None else rfc3339(ts),
        "age_ms": age_ms,
        "source": fields.get("source") or None,
        "quality": "live" if fresh and fields.get("source") not in found.stale else "stale",
    }


def age(ts: int, watermark: int | None, known_at: int | None, now: int) -> int:
    """How old a thing of event time ``ts`` is, in ms: its distance to the watermark, and what the wall clock went
    since that watermark was known. So a replay's quotes are as old as they were, and grow old once it ends."""
    if watermark is None or known_at is None:
        return max(0, now - ts) // 1_000_000
    return (max(0, watermark - ts) + max(0, now - known_at)) // 1_000_000
