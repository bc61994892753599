"""A process with a fault of the name given: ``python -m tests.stack.faulty deadlock``. Healthy until the file
THOR_DIR/fault-<name> appears, which it takes away; ``crash`` ends at once for as long as its file is there."""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from thor.runtime.daemon import Context, Step, main
from thor.runtime.settings import PROCESSES

DEADLINE_S: Final = 3.0


def deadlock() -> None:
    lock = threading.Lock()
    with lock:
        lock.acquire()


def busy() -> NoReturn:
    while True:
        pass


def held() -> None:
    """The interpreter lock, by a loop in C: no other thread runs."""
    sum(itertools.repeat(1, 10**13))


def blocked() -> None:
    ours, _theirs = socket.socketpair()
    ours.recv(1)


HANGS: Final[dict[str, Callable[[], None]]] = {"deadlock": deadlock, "busy": busy, "held": held, "blocked": blocked}
NAMES: Final = (*HANGS, "cancelled", "leak", "crash")


class Faulty:
    """A consumer in an event loop: its head grows all the time, its task follows."""

    def __init__(self, context: Context, name: str) -> None:
        self.name = name
        self._trigger = context.settings.dir / f"fault-{name}"
        self._loop = asyncio.new_event_loop()
        self._head = self._committed = 0
        self._leak: list[bytearray] = []
        self._leaking = False

    def open(self) -> None:
        if self.name == "crash" and self._trigger.exists():
            raise RuntimeError("as it was told")
        self._task = self._loop.create_task(self._consume())

    async def _consume(self) -> None:
        while True:
            self._committed = self._head
            await asyncio.sleep(0.01)

    def step(self) -> Step:
        self._loop.run_until_complete(asyncio.sleep(0.1))
        self._head += 1
        if self.name != "crash" and self._trigger.exists():
            self._trigger.unlink()
            if self.name == "cancelled":
                self._task.cancel()
            self._leaking = self.name == "leak"
            HANGS.get(self.name, int)()
        if self._leaking:
            self._leak.append(bytearray(b"x" * (2 << 20)))  # 20 MiB/s
        return Step("running", DEADLINE_S, committed=self._committed, head=self._head, source_ts=time.time_ns())

    def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()


if __name__ == "__main__":
    chosen = sys.argv[1]
    PROCESSES[chosen] = 40 + NAMES.index(chosen)
    main(lambda context: Faulty(context, chosen), chosen)
