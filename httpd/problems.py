"""Every error that the API answers: RFC 9457 problem documents with a stable ``type``."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

log = logging.getLogger(__name__)

#: type → (status, title). The type is part of the contract: it is never renamed.
PROBLEMS: Final[dict[str, tuple[int, str]]] = {
    "unknown-parameter": (400, "The endpoint has no such parameter"),
    "missing-parameter": (400, "A required parameter is missing"),
    "invalid-parameter": (400, "A parameter is not of its type"),
    "invalid-range": (400, "The range is empty or reversed"),
    "invalid-cursor": (400, "The cursor does not belong to this request"),
    "unknown-symbol": (404, "Nobody registered this symbol"),
    "unknown-market": (404, "There is no such control market"),
    "not-found": (404, "There is no such resource"),
    "method-not-allowed": (405, "The resource does not answer this method"),
    "too-large": (413, "The body is larger than the API reads"),
    "wrong-host": (421, "The Host header does not name this server"),
    "internal": (500, "The request met a defect of the API; it is in the log"),
    "unavailable": (503, "A server that the answer needs is away"),
}


class Problem(Exception):
    """An answer that is not the one asked for. ``extra`` members go into the document as they are."""

    def __init__(self, kind: str, detail: str, parameter: str | None = None, **extra: object) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail, self.parameter, self.extra = kind, detail, parameter, extra

    def response(self) -> web.Response:
        """The problem document."""
        status, title = PROBLEMS[self.kind]
        document: dict[str, object] = {
            "type": f"/problems/{self.kind}",
            "title": title,
            "status": status,
            "detail": self.detail,
        }
        if self.parameter is not None:
            document["parameter"] = self.parameter
        headers = {"Retry-After": "1"} if status == 503 else {}
        text = json.dumps(document | self.extra)
        return web.Response(text=text, status=status, content_type="application/problem+json", headers=headers)


@web.middleware
async def documents(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn whatever goes wrong in a handler into a problem document."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPMethodNotAllowed as refused:
        allowed = sorted(refused.allowed_methods)
        response = Problem("method-not-allowed", f"expected {' or '.join(allowed)}, found {request.method}").response()
        response.headers["Allow"] = ", ".join(allowed)
        return response
    except web.HTTPNotFound:
        return Problem("not-found", f"{request.path[:200]}: docs/reference-api.md names every endpoint").response()
    except web.HTTPRequestEntityTooLarge:
        return Problem("too-large", f"expected at most {request.client_max_size} bytes").response()
    except web.HTTPException:
        raise
    except Exception:  # the last line of defence: one request fails, the API goes on
        log.exception("%s %s failed", request.method, request.path[:200])
        return Problem("internal", "see the log of httpd").response()


async def explain(request: web.Request) -> web.Response:
    """What a problem type means, for who follows its URI."""
    kind = request.match_info["kind"]
    if kind not in PROBLEMS:
        raise web.HTTPNotFound
    status, title = PROBLEMS[kind]
    return web.Response(text=f"{kind} ({status}): {title}.\n")
