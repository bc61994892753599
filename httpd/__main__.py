"""``python -m httpd``: the API as one process among the others."""

from __future__ import annotations

import asyncio
import errno

from aiohttp import web

from httpd.app import make_app
from httpd.config import Config
from httpd.registry import Registry
from thor.runtime.daemon import Context, Daemon, Step, main

_SLICE_S = 0.25  # how long TERM may have to wait
_SHUTDOWN_S = 2


class Httpd:
    """Serves from the event loop; a step is a slice of that loop, so the heartbeat stops when the loop hangs."""

    name = "httpd"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None

    def open(self) -> None:
        """Listen. Raises OSError where the port is taken."""
        settings, config = self._context.settings, self._context.config
        app = make_app(settings, config, Registry(settings))
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=config.idle_timeout_s, shutdown_timeout=_SHUTDOWN_S
        )
        self._loop.run_until_complete(self._listen(self._runner, config.host, settings.api_port))

    async def _listen(self, runner: web.AppRunner, host: str, port: int) -> None:
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=512).start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise SystemExit(
                f"httpd: port {port} of {host} is in use: free it, or move Thor by THOR_PORT_BASE"
            ) from None

    def step(self) -> Step:
        """A slice of the event loop."""
        self._loop.run_until_complete(asyncio.sleep(_SLICE_S))
        return Step("running")

    def close(self) -> None:
        """Answer what is under way, then let go."""
        if self._runner is not None:
            self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()


def make(context: Context) -> Daemon:
    """The process, for the runtime."""
    return Httpd(context)


if __name__ == "__main__":
    main(make, "httpd", Config)
