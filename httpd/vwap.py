"""GET /api/vwap/today and /api/vwap/rolling: exact sums of the VWAP minutes, rounded for display (domain.md §6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal

import psycopg
from aiohttp import web
from pydantic import Field

from httpd import params
from httpd.context import AsOf, Context, answer, context, text
from thor.domain.vwap import Sums
from thor.stores import vwap

_EPOCH = date(1970, 1, 1)


class TodayQuery(params.Query):
    symbols: params.Symbols = ()
    anchor: Literal["session", "utc"] = "session"


class RollingQuery(params.Query):
    symbols: params.Symbols = ()
    minutes: Annotated[int, Field(ge=1, le=1440)] = 30
    at: params.Instant | None = None


async def today(request: web.Request) -> web.Response:
    """Since the start of the trade date, or since midnight UTC, with bands."""
    query = params.read(request, TodayQuery)
    ctx = context(request)
    known, unknown = ctx.known(query.symbols)

    def read(conn: psycopg.Connection) -> list[dict[str, Any]]:
        now = AsOf.read(conn, "vwap", ctx.config.max_quote_age_s)
        at = now.instant
        if query.anchor == "utc":
            midnight = datetime.combine(at.date(), time(), UTC)
            dates = dict.fromkeys(known, at.date())
            sums = vwap.between(conn, known, midnight, at)
        else:
            hours = {symbol: ctx.instrument(symbol).hours for symbol in known}
            dates = {symbol: _EPOCH + timedelta(days=one.trade_date(now.ns)) for symbol, one in hours.items()}
            sums = vwap.session(conn, dates, at)
        name = "trade_date" if query.anchor == "session" else "date"
        begun = {symbol: day.isoformat() if now.ns else None for symbol, day in dates.items()}
        return [{"symbol": s, name: begun[s], **_sums(sums[s]), **_bands(sums[s]), **now.said} for s in known]

    return await _answer(ctx, read, unknown, anchor=query.anchor)


async def rolling(request: web.Request) -> web.Response:
    """The last minutes up to the watermark or to ``at``, the running minute included."""
    query = params.read(request, RollingQuery)
    ctx = context(request)
    known, unknown = ctx.known(query.symbols)

    def read(conn: psycopg.Connection) -> list[dict[str, Any]]:
        now = AsOf.read(conn, "vwap", ctx.config.max_quote_age_s, query.at)
        sums = vwap.rolling(conn, known, query.minutes, now.instant)
        return [{"symbol": symbol, **_sums(sums[symbol]), **now.said} for symbol in known]

    return await _answer(ctx, read, unknown, minutes=query.minutes)


async def _answer(
    ctx: Context, read: Callable[[psycopg.Connection], list[dict[str, Any]]], unknown: Sequence[str], **first: object
) -> web.Response:
    values = await ctx.postgres.run(read)
    return answer({**first, "values": values, "unknown": unknown})


def _sums(sums: Sums) -> dict[str, Any]:
    return {"vwap": text(sums.vwap), "volume": text(sums.volume), "notional": text(sums.notional)}


def _bands(sums: Sums) -> dict[str, Any]:
    bands = {f"{side}_{n}": text(sums.band(sign * n)) for n in (1, 2) for side, sign in (("upper", 1), ("lower", -1))}
    return {"sigma": text(sums.sigma), **bands}
