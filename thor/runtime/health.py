"""/healthz, /readyz and /metrics on a process's own loopback port, from a thread that reads the heartbeat."""

from __future__ import annotations

import json
import sys
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from thor.runtime import metrics
from thor.runtime.heartbeat import Beat


def report(process: str, beat: Beat, where: Callable[[], list[str]]) -> dict[str, object]:
    """What /healthz says; ``where`` gives the stack of the work loop, asked only past the deadline."""
    overdue = beat.overdue_s()
    said: dict[str, object] = {
        "process": process,
        "status": "stalled" if overdue > 0 else "ok",
        "ready": beat.ready,
        "state": beat.state,
        "why": beat.why,
        "pid": beat.pid,
        "heartbeat_age_s": round(beat.age_s(), 3),
        "deadline_in_s": round(-overdue, 3),
        "loops": beat.loops,
        "committed": beat.committed,
        "head": beat.head,
        "lag": beat.lag,
        "source_ts": beat.source_ts,
    }
    if overdue > 0:
        said["stands_at"] = where()
    return said


class Health:
    """The server of one process. ``thread`` is the work loop's, whose stack is shown when it stalls."""

    def __init__(self, process: str, port: int, beat: Callable[[], Beat], thread: int) -> None:
        def where() -> list[str]:
            frame = sys._current_frames().get(thread)
            summary = traceback.extract_stack(frame)[-8:] if frame else []
            return [f"{f.filename}:{f.lineno} in {f.name}: {f.line}" for f in summary]

        class Handler(BaseHTTPRequestHandler):
            timeout = 5
            protocol_version = "HTTP/1.1"
            server_version = "thor"
            sys_version = ""

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    return self._answer(200, metrics.exposition(), metrics.CONTENT_TYPE)
                now = beat()
                status = {"/healthz": now.overdue_s() <= 0, "/readyz": now.ready}.get(path)
                if status is None:
                    return self._answer(404, b'{"expected": ["/healthz", "/readyz", "/metrics"]}\n')
                body = json.dumps(report(process, now, where)).encode() + b"\n"
                return self._answer(200 if status else 503, body)

            def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """No line a request."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that hangs up is nobody's concern."""

            def server_bind(self) -> None:
                # Not HTTPServer's, which asks the resolver for our name.
                TCPServer.server_bind(self)
                self.server_name, self.server_port = "127.0.0.1", port

        self._server = Server(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.5,), name="health", daemon=True).start()

    def close(self) -> None:
        """Let the port go."""
        self._server.server_close()
