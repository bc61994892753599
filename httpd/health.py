"""GET /api/health: every process by its heartbeat, Redis and Postgres by a probe."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from aiohttp import web

from httpd import params
from httpd.context import Context, answer, context
from httpd.problems import Problem
from thor.domain.stamps import rfc3339
from thor.runtime import heartbeat
from thor.runtime.process import holder
from thor.stores import readonly


async def health(request: web.Request) -> web.Response:
    """200 where every process and both servers are healthy, else 503; the body is the same."""
    params.read(request, params.Query)
    ctx = context(request)
    processes = [_process(ctx, name) for name in ctx.settings.processes]
    servers = await asyncio.gather(
        _probe("postgres", ctx.postgres.run(readonly.ping)),
        _probe("redis", ctx.redis.run(lambda client: client.ping())),
    )
    healthy = all(one["healthy"] for one in (*processes, *servers))
    document = {"status": "ok" if healthy else "unhealthy", "processes": processes, "servers": list(servers)}
    return answer(document, 200 if healthy else 503)


def _process(ctx: Context, name: str) -> dict[str, Any]:
    """What the heartbeat of a process says; without one, or where its pid is gone, it does not run."""
    beat = heartbeat.read(ctx.settings.run / "heartbeat" / name)
    if beat is None or holder(ctx.settings.run / f"{name}.lock") != beat.pid:
        return {"name": name, "healthy": False, "state": "stopped", "why": "no such process runs"} | dict.fromkeys(
            ("pid", "heartbeat_age_s", "deadline_in_s", "lag", "committed", "head", "source_ts")
        )
    overdue = beat.overdue_s() > 0
    return {
        "name": name,
        "healthy": beat.ready,
        "state": "stalled" if overdue else beat.state,
        "why": "its work loop is past the deadline" if overdue else beat.why,
        "pid": beat.pid,
        "heartbeat_age_s": round(beat.age_s(), 3),
        "deadline_in_s": round(-beat.overdue_s(), 3),
        "lag": beat.lag,
        "committed": beat.committed,
        "head": beat.head,
        "source_ts": None if beat.source_ts is None else rfc3339(beat.source_ts),
    }


async def _probe(name: str, ping: Awaitable[object]) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        await ping
    except Problem as problem:
        return {"name": name, "healthy": False, "state": "away", "why": problem.detail, "answered_ms": None}
    answered_ms = round((time.perf_counter() - began) * 1000, 3)
    return {"name": name, "healthy": True, "state": "running", "why": "", "answered_ms": answered_ms}
