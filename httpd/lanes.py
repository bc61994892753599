"""Blocking clients beside the event loop: a few threads with a connection each, every wait bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from httpd.problems import Problem


class Connection(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Connection)
T = TypeVar("T")


class Lanes(Generic[C]):
    """Runs reads on at most ``size`` connections to the server ``name``.

    The synchronous clients serve daemons and API alike, so each query exists once. A connection is opened when first
    needed and replaced as soon as it fails: no pool's back-off delays the first answer after an outage.
    ``down`` are the errors that mean the server is away, ``slow`` those among them that a second try would only
    repeat, ``cut`` ends a call that is under way, from outside.
    A request waits at most ``deadline_s`` for a free lane and at most that long for its answer.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], C],
        down: tuple[type[Exception], ...],
        slow: tuple[type[Exception], ...],
        size: int,
        deadline_s: float,
        cut: Callable[[C], None] = lambda _: None,
    ) -> None:
        self._name, self._down, self._deadline_s = name, down, deadline_s
        self._lanes = [_Lane(connect, down, slow, cut) for _ in range(size)]
        # Last in, first out: a quiet API keeps one connection warm instead of four half cold.
        self._free: asyncio.LifoQueue[_Lane[C]] = asyncio.LifoQueue()
        for lane in self._lanes:
            self._free.put_nowait(lane)
        self._threads = ThreadPoolExecutor(size, thread_name_prefix=name)

    async def run(self, read: Callable[[C], T]) -> T:
        """What ``read`` returns. Raises Problem ``unavailable`` where the server is away or too slow."""
        try:
            lane = await asyncio.wait_for(self._free.get(), self._deadline_s)
        except TimeoutError:
            raise self._unavailable(f"every connection is busy for {self._deadline_s:g} s") from None
        call = asyncio.get_running_loop().run_in_executor(self._threads, lane.run, read)
        # The lane is free when its thread is, also where the client went away in the meantime.
        call.add_done_callback(lambda done: self._release(lane, done))
        await asyncio.wait({call}, timeout=self._deadline_s)
        if not call.done():
            lane.cut()
            raise self._unavailable(f"no answer within {self._deadline_s:g} s")
        try:
            return call.result()
        except self._down as error:
            raise self._unavailable(_line(error)) from error

    def _release(self, lane: _Lane[C], done: asyncio.Future[T]) -> None:
        if not done.cancelled():
            done.exception()  # seen: nobody may be left to take it
        self._free.put_nowait(lane)

    def _unavailable(self, why: str) -> Problem:
        return Problem("unavailable", f"{self._name}: {why}", needs=self._name)

    def close(self) -> None:
        """Let go of every connection and thread."""
        for lane in self._lanes:
            lane.cut()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for lane in self._lanes:
            lane.drop()


class _Lane(Generic[C]):
    def __init__(
        self,
        connect: Callable[[], C],
        down: tuple[type[Exception], ...],
        slow: tuple[type[Exception], ...],
        cut: Callable[[C], None],
    ) -> None:
        self._connect, self._down, self._slow, self._cut = connect, down, slow, cut
        self._connection: C | None = None
        self._abandoned = False

    def run(self, read: Callable[[C], T]) -> T:
        self._abandoned = False
        if self._connection is not None:
            try:
                return read(self._connection)
            except self._down as error:
                self.drop()
                # A connection that lay idle dies with its server: one try on a fresh one.
                if self._abandoned or isinstance(error, self._slow):
                    raise
        self._connection = self._connect()
        try:
            return read(self._connection)
        except self._down:
            self.drop()
            raise

    def cut(self) -> None:
        self._abandoned = True
        if self._connection is not None:
            self._cut(self._connection)

    def drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
