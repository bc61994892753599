"""The application: routes, guards, and the servers it reads from."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import aiohttp.web_response
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import Histogram

from httpd import bars, health, markets, problems, quotes, session, vwap
from httpd.config import LOOPBACK, Config
from httpd.context import CONTEXT, Context
from httpd.lanes import Lanes
from httpd.problems import Problem
from thor.domain.instruments import Instruments
from thor.runtime.settings import Settings
from thor.stores import readonly
from thor.stores import redis as redis_store

_STATIC: Final = Path(__file__).with_name("static")
_SECONDS: Final = Histogram(
    "thor_http_request_seconds",
    "Time from the request's head to its answer",
    ["route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# aiohttp tells its own version and Python's, also where it refuses a request before any handler sees it.
aiohttp.web_response.SERVER_SOFTWARE = "thor"  # type: ignore[attr-defined]
# What is no HTTP is the client's error: it gets its 400, and no stack in our log.
logging.getLogger("aiohttp.server").addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
)


def make_app(settings: Settings, config: Config, instruments: Callable[[], Instruments]) -> web.Application:
    """The API. It starts without Postgres and Redis, and answers 503 for what needs them while they are away."""
    app = web.Application(middlewares=[_measure, problems.documents, _guard], client_max_size=config.max_body_bytes)
    pool = readonly.Pool(settings.dsn, config.postgres.connections, config.postgres.statement_timeout_s)
    client = redis_store.connect(settings.redis_url, config.redis.timeout_s)
    # Each read's wait ends in the client; one second later it is ended from here.
    postgres_s, redis_s = config.postgres.statement_timeout_s + 1, 2 * config.redis.timeout_s + 1
    context = Context(
        settings,
        config,
        Lanes("postgres", pool.connection, readonly.PostgresDown, config.postgres.connections, postgres_s),
        # It keeps a connection a thread, and makes a dead one anew before it is used.
        Lanes("redis", lambda _: nullcontext(client), redis_store.RedisDown, config.redis.connections, redis_s),
        instruments,
    )
    app[CONTEXT] = context

    async def servers(_: web.Application) -> AsyncIterator[None]:
        pool.open()
        yield
        context.postgres.close()
        context.redis.close()
        pool.close()
        client.close()

    app.cleanup_ctx.append(servers)
    app.on_response_prepare.append(_headers)
    app.router.add_get("/", _page)
    app.router.add_get("/favicon.ico", _no_icon)
    app.router.add_get("/static/{name}", _static)
    app.router.add_get("/problems/{kind}", problems.explain)
    app.router.add_get("/api/health", health.health)
    app.router.add_get("/api/quotes", quotes.quotes)
    app.router.add_get("/api/bars", bars.bars)
    app.router.add_get("/api/vwap/today", vwap.today)
    app.router.add_get("/api/vwap/rolling", vwap.rolling)
    app.router.add_get("/api/markets", markets.markets)
    app.router.add_get("/api/markets/composite", markets.composite)
    app.router.add_get("/api/session", session.session)
    return app


@web.middleware
async def _measure(request: web.Request, handler: Handler) -> web.StreamResponse:
    began = time.perf_counter()
    response = await handler(request)
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    _SECONDS.labels(route, str(response.status)).observe(time.perf_counter() - began)
    return response


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what no client of this server sends: a foreign Host (a page elsewhere whose name was pointed here), a
    body that is too large."""
    host = request.headers.get("Host", "")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name.strip("[]").lower() not in LOOPBACK:
        raise Problem("wrong-host", f"expected one of {', '.join(sorted(LOOPBACK))}, found {host[:80]!r}")
    limit = request.client_max_size
    if (request.content_length or 0) > limit:
        raise Problem("too-large", f"expected at most {limit} bytes, found {request.content_length}")
    return await handler(request)


async def _headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    response.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"


_PAGES: Final = {
    name: ((_STATIC / name).read_text(), kind)
    for name, kind in (("index.html", "text/html"), ("status.js", "text/javascript"), ("status.css", "text/css"))
}


async def _page(request: web.Request) -> web.Response:
    return _file("index.html")


async def _static(request: web.Request) -> web.Response:
    return _file(request.match_info["name"])


def _file(name: str) -> web.Response:
    if name not in _PAGES:
        raise web.HTTPNotFound
    text, kind = _PAGES[name]
    return web.Response(text=text, content_type=kind)


async def _no_icon(request: web.Request) -> web.Response:
    return web.Response(status=204)
