"""Blocking clients beside the event loop: a few threads, every wait bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from httpd.problems import Problem
from thor.stores.readonly import Held

C = TypeVar("C")
T = TypeVar("T")


class Lanes(Generic[C]):
    """Runs at most ``size`` reads of the server ``name`` at once, each on a ``connection`` of its own.

    The synchronous clients serve daemons and API alike, so each query exists once. ``down`` are the errors that mean
    the server is away. A request waits at most ``deadline_s`` for a free lane and at most that long for its answer.
    """

    def __init__(
        self,
        name: str,
        connection: Callable[[Held], AbstractContextManager[C]],
        down: tuple[type[Exception], ...],
        size: int,
        deadline_s: float,
    ) -> None:
        self._name, self._connection, self._down, self._deadline_s = name, connection, down, deadline_s
        self._free = asyncio.Semaphore(size)
        self._threads = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._reading: set[Held] = set()

    async def run(self, read: Callable[[C], T]) -> T:
        """What ``read`` returns. Raises Problem ``unavailable`` where the server is away or too slow."""
        try:
            await asyncio.wait_for(self._free.acquire(), self._deadline_s)
        except TimeoutError:
            raise self._unavailable(f"every connection is busy for {self._deadline_s:g} s") from None
        held = Held()
        self._reading.add(held)
        call = asyncio.get_running_loop().run_in_executor(self._threads, self._read, read, held)
        # The lane is free when its thread is, also where the client went away in the meantime.
        call.add_done_callback(lambda done: self._release(held, done))
        await asyncio.wait({call}, timeout=self._deadline_s)
        if not call.done():
            held.cut()
            raise self._unavailable(f"no answer within {self._deadline_s:g} s")
        try:
            return call.result()
        except self._down as error:
            raise self._unavailable(_line(error)) from error

    def _read(self, read: Callable[[C], T], held: Held) -> T:
        with self._connection(held) as connection:
            return read(connection)

    def _release(self, held: Held, done: asyncio.Future[T]) -> None:
        if not done.cancelled():
            done.exception()  # seen: nobody may be left to take it
        self._reading.discard(held)
        self._free.release()

    def _unavailable(self, why: str) -> Problem:
        return Problem("unavailable", f"{self._name}: {why}", needs=self._name)

    def close(self) -> None:
        """End every read, and its thread."""
        for held in self._reading:
            held.cut()
        self._threads.shutdown(wait=True, cancel_futures=True)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
