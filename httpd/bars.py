"""GET /api/bars: bars of any interval, paged, and why a minute has none (domain.md §5)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import psycopg
from aiohttp import web
from pydantic import Field

from httpd import params
from httpd.context import AsOf, answer, context, datetime_of, dumps
from httpd.problems import Problem
from thor.domain.instruments import Instrument
from thor.domain.stamps import rfc3339
from thor.stores import history
from thor.stores.history import Bar, Interval

_MINUTE: Final = timedelta(minutes=1)
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2261, 1, 1, tzinfo=UTC)


class BarsQuery(params.Query):
    symbol: params.Symbol
    interval: Interval = "1m"
    from_: Annotated[params.Instant | None, Field(alias="from")] = None
    to: params.Instant | None = None
    limit: Annotated[int, Field(ge=1, le=5000)] = 1000
    cursor: Annotated[str | None, Field(max_length=80)] = None
    fill: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Which bars are asked for: those that start in [start, end)."""

    instrument: Instrument
    interval: Interval
    start: datetime
    end: datetime
    limit: int


async def bars(request: web.Request) -> web.Response:
    """One page, oldest first."""
    query = params.read(request, BarsQuery)
    ctx = context(request)
    page = _page(query, ctx.instrument(query.symbol))

    def read(conn: psycopg.Connection) -> bytes:
        now = AsOf.read(conn, "intraday", ctx.config.max_quote_age_s)
        try:
            listed, following = _filled(conn, page, now) if query.fill else _listed(conn, page, now)
        except LookupError as error:
            raise not_seeded(page.instrument) from error
        document = {"symbol": page.instrument.symbol, "interval": page.interval, **now.said, "bars": listed}
        return dumps(document | {"next": None if following is None else _cursor(page, following)})

    return answer(await ctx.postgres.run(read))


def newest(conn: psycopg.Connection, instrument: Instrument, now: AsOf) -> dict[str, Any] | None:
    """The newest one-minute bar of an instrument."""
    try:
        bar = history.latest(conn, instrument.symbol)
    except LookupError as error:
        raise not_seeded(instrument) from error
    return None if bar is None else _object(bar, now)


def not_seeded(instrument: Instrument) -> Problem:
    """The files have it, the database has not yet."""
    detail = f"postgres: {instrument.symbol} is not in the database: python3 -m thor seed"
    return Problem("unavailable", detail, needs="postgres")


def _page(query: BarsQuery, instrument: Instrument) -> Page:
    if query.from_ is not None and query.to is not None and query.from_ >= query.to:
        raise Problem("invalid-range", "from: expected an instant before to", "from")
    if query.fill and query.interval != "1m":
        raise Problem("invalid-parameter", "fill: expected with interval=1m only", "fill")
    start = _FIRST if query.from_ is None else datetime_of(query.from_, up=True)
    end = _LAST if query.to is None else datetime_of(query.to, up=True)
    page = Page(instrument, query.interval, start, end, query.limit)
    if query.cursor is None:
        return page
    return Page(instrument, query.interval, max(start, _following(query.cursor, page)), end, query.limit)


def _cursor(page: Page, following: datetime) -> str:
    told = f"{page.instrument.symbol} {page.interval} {int(following.timestamp())}"
    return base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")


def _following(cursor: str, page: Page) -> datetime:
    """The start of the page that a cursor stands for. Raises Problem invalid-cursor."""
    try:
        told = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        told = ""
    what, _, seconds = told.rpartition(" ")
    digits = seconds.isascii() and seconds.isdigit() and len(seconds) <= 10
    if what != f"{page.instrument.symbol} {page.interval}" or not digits:
        raise Problem("invalid-cursor", "cursor: expected the next of a page of this symbol and interval", "cursor")
    return _FIRST + timedelta(seconds=int(seconds))


def _listed(conn: psycopg.Connection, page: Page, now: AsOf) -> tuple[list[dict[str, Any]], datetime | None]:
    """The bars of a page, and where the next begins."""
    # One more than asked for tells whether there is a next page.
    found = history.page(conn, page.instrument.symbol, page.interval, page.start, page.end, page.limit + 1)
    following = found[page.limit].ts if len(found) > page.limit else None
    return [_object(bar, now) for bar in found[: page.limit]], following


def _filled(conn: psycopg.Connection, page: Page, now: AsOf) -> tuple[list[dict[str, Any]], datetime | None]:
    """Every minute of a page that has begun, with its bar or with why it has none."""
    symbol, start = page.instrument.symbol, page.start
    if start == _FIRST:  # without `from`: from the first bar
        first = history.page(conn, symbol, "1m", start, page.end, 1)
        start = first[0].ts if first else page.end
    start += (_FIRST - start) % _MINUTE
    whole = min(page.end, now.instant + timedelta(microseconds=1))
    end = min(whole, start + page.limit * _MINUTE)
    if start >= end:
        return [], None
    bars = history.page(conn, symbol, "1m", start, end, page.limit)
    listed = {bar.ts: _object(bar, now) for bar in bars}
    for run in history.why(conn, symbol, start, end):
        if run.kind != "bar":
            for at in (run.start + minute * _MINUTE for minute in range(run.minutes)):
                listed[at] = {"ts": at, "why": run.kind}
    return [listed[at] for at in sorted(listed)], end if end < whole else None


def _object(bar: Bar, now: AsOf) -> dict[str, Any]:
    final = bar.end <= now.instant
    return {
        "ts": bar.ts,
        "open": bar.open,
        "high": bar.high,
        "low": bar.low,
        "close": bar.close,
        "volume": bar.volume,
        "notional": bar.notional,
        "vwap": bar.vwap,
        "updates": bar.updates,
        "revision": bar.revision,
        "revised_at": None if bar.revised_at is None else rfc3339(history.ns_of(bar.revised_at)),
        "basis": bar.basis,
        "bid": bar.bid,
        "ask": bar.ask,
        "spread": bar.spread,
        "final": final,
        "quality": _quality(bar, final, now),
    }


def _quality(bar: Bar, final: bool, now: AsOf) -> str:
    """What restricts the bar most: something is missing, nothing comes any more, something came late."""
    if bar.gap:
        return "gap"
    if not final and now.stale:
        return "stale"
    return "revised" if bar.revision else "live"
