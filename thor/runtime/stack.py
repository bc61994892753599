"""The whole stack: bring it up so that it is ready or not there at all, and take it down to the last process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from thor.domain.instruments import Instrument
from thor.runtime import instruments, migrate, process, source, status
from thor.runtime.config import BadConfig
from thor.runtime.embedded import make_password, postgres_bin, redis_server
from thor.runtime.settings import PROJECTIONS, ROOT, BadSetting, Settings
from thor.runtime.source import Source
from thor.runtime.supervisor import Frozen, Supervisor

Tell = Callable[[str, str], None]  # what, and how it went

_SERVERS_S: Final = 60
_READY_S: Final = 60
_QUOTES_S: Final = 30
_PATIENCE: Final = 3  # failed starts of one program before up gives up on it


class StackFailed(RuntimeError):
    """The stack did not come up, and nothing of it was left; one line."""


@dataclass(frozen=True)
class Plan:
    """What `up` shall play, checked before anything starts."""

    source: Source
    first_ts: int | None = None  # ns, of a recording
    last_ts: int = 0
    rows: int = 0
    own_instruments: tuple[Path, ...] = ()
    added: tuple[Instrument, ...] = ()
    fresh: bool = False


@dataclass
class Stack:
    """The stack of one THOR_DIR; ``tell`` is told of each step done."""

    settings: Settings
    tell: Tell
    supervisor: Supervisor = field(init=False)
    #: When our processes were started by this ``up`` (monotonic), and how many quotes the log had accepted before.
    playing_since: float = 0.0
    accepted_before: int = 0

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.settings)

    def running(self) -> bool:
        """Whether supervisord is there."""
        return self.supervisor.answers()

    def up(self, plan: Plan) -> None:
        """Start everything and return when all is ready and quotes flow; else stop what was started.

        Raises StackFailed, OtherTimeline, BadSetting, BadConfig.
        """
        if plan.fresh:
            self._discard()
        else:
            source.check(self.settings, plan.source, plan.first_ts)
        self._clear_remains()
        self._check_ports()
        for directory in (self.settings.run, self.settings.log):
            directory.mkdir(parents=True, exist_ok=True)
        self.settings = make_password(self.settings)
        ends = {name: _size(self.settings.log / f"{name}.log") for name in self.settings.programs}
        try:
            self._start(plan, ends)
        except BaseException as error:
            try:
                self.supervisor.shut_down(lambda _: None)
            except Frozen as frozen:
                raise StackFailed(f"{error}; and {frozen}") from error
            if isinstance(error, (Frozen, ConnectionError)):
                raise StackFailed(str(error)) from error
            raise

    def _start(self, plan: Plan, ends: dict[str, int]) -> None:
        began = time.monotonic()

        def took() -> str:
            nonlocal began
            before, began = began, time.monotonic()
            return f"{began - before:.1f} s"

        watch = _Watch(self.supervisor, self.settings, ends)
        self.supervisor.start()
        applied = migrate.migrate(self.settings, _SERVERS_S, watch.look)
        self._await_redis(watch)
        self.tell("servers", f"Postgres and Redis answer, {took()}")
        self.tell("migrations", f"{len(applied)} applied" if applied else "up to date")
        source.keep_instruments(self.settings, plan.own_instruments, plan.added)
        registry = instruments.load(instruments.files(self.settings))
        migrate.seed(self.settings, list(registry))
        self.tell("seed", f"{len(registry)} instruments, {took()}")
        before = status.the_log(self.settings)
        self.accepted_before = before.accepted if before else 0
        source.keep(self.settings, plan.source, plan.last_ts)
        self.playing_since = time.monotonic()
        self.supervisor.start_all()
        self._await_ready(watch)
        self.tell("processes", f"{', '.join(self.settings.processes)}: ready, {took()}")
        if "ingester" in self.settings.processes:
            self._await_quotes(plan.source, watch)

    def _await_redis(self, watch: _Watch) -> None:
        until = time.monotonic() + _SERVERS_S
        while status.the_log(self.settings) is None:
            watch.look()
            if time.monotonic() > until:
                raise StackFailed(f"expected Redis to answer within {_SERVERS_S} s, found none")
            time.sleep(0.05)

    def _await_ready(self, watch: _Watch) -> None:
        until = time.monotonic() + _READY_S
        waiting = list(self.settings.processes)
        while waiting := [name for name in waiting if not status.is_ready(self.settings, name)]:
            watch.look()
            if time.monotonic() > until:
                name = waiting[0]
                said = status.last_error(self.settings.log / f"{name}.log", watch.ends[name])
                raise StackFailed(f"{name} is not ready after {_READY_S} s: {said}")
            time.sleep(0.05)

    def _await_quotes(self, wanted: Source, watch: _Watch) -> None:
        if wanted.kind == "live":
            self.tell("quotes", f"waiting for a producer ({wanted.provider})")
            return
        until = time.monotonic() + _QUOTES_S
        while True:
            log = status.the_log(self.settings)
            if log is not None and (log.accepted > self.accepted_before or log.ended):
                self.tell("quotes", f"{log.accepted:,} accepted")
                return
            watch.look()
            if time.monotonic() > until:
                said = status.last_error(self.settings.log / "ingester.log", watch.ends["ingester"])
                raise StackFailed(f"no quote was accepted within {_QUOTES_S} s: {said}")
            time.sleep(0.05)

    def await_end(self, progress: Callable[[status.Log], None]) -> status.Log:
        """Wait until every projection has committed the end of the recording. Raises StackFailed."""
        failed_since = 0.0
        while True:
            log = status.the_log(self.settings)
            if log is not None:
                progress(log)
                if log.ended and all(log.committed(name) >= log.ended for name in PROJECTIONS):
                    return log
            # Crashes on the way are healed by supervisord; only its own end is final.
            if self.running():
                failed_since = 0.0
            elif failed_since and time.monotonic() - failed_since > 5:
                raise StackFailed("the stack was stopped before the recording ended")
            else:
                failed_since = failed_since or time.monotonic()
            time.sleep(0.1)

    def down(self) -> bool:
        """End every process of this THOR_DIR; False where none was there. Raises Frozen."""
        there = self.supervisor.pid() is not None or any(
            process.holder(path) for path in self.settings.run.glob("*.lock") if path.stem != "up"
        )
        self.supervisor.shut_down(lambda what: self.tell("down", what))
        return there

    def _clear_remains(self) -> None:
        # A supervisord killed a moment ago may have left programs that are still ending.
        self.supervisor.shut_down(lambda what: self.tell("remains", what))

    def _discard(self) -> None:
        settings = self.settings
        if not (settings.embedded_postgres and settings.embedded_redis):
            raise BadSetting("--fresh: expected the embedded servers; with DB_HOST or REDIS_URL empty them yourself")
        self.down()
        for name in ("redis", "spool", "run/heartbeat"):
            shutil.rmtree(settings.dir / name, ignore_errors=True)
        for path in settings.dir.glob("pg*"):
            shutil.rmtree(path)
        for name in ("source.json", "timeline.json"):
            (settings.dir / name).unlink(missing_ok=True)

    def _check_ports(self) -> None:
        settings = self.settings
        wanted = {f"health of {name}": settings.health_port(name) for name in settings.processes}
        if "httpd" in settings.processes:
            wanted["api"] = settings.api_port
        if settings.embedded_postgres:
            wanted["postgres"] = settings.db_port
        if settings.embedded_redis:
            wanted["redis"] = settings.redis_port
        for what, port in wanted.items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise StackFailed(
                        f"port {port} ({what}) is in use: stop the program that listens there, or set THOR_PORT_BASE "
                        f"to another base than {settings.port_base}"
                    ) from error


@dataclass
class _Watch:
    """Notices a program that keeps failing, so that nobody waits a minute for what will not come."""

    supervisor: Supervisor
    settings: Settings
    ends: dict[str, int]  # of the logs, before this start
    failures: dict[str, int] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        """Raises StackFailed with the program's own words."""
        for name, program in self.supervisor.programs().items():
            failed = program.state in ("BACKOFF", "FATAL") and self.states.get(name) != program.state
            # On a slow host a life may outlast startsecs before it fails: then there is no BACKOFF between two.
            before = self.pids.get(name) or program.pid
            again = program.pid not in (0, before) and self.states.get(name) != "BACKOFF"
            if failed or again:
                self.failures[name] = self.failures.get(name, 0) + 1
            self.states[name] = program.state
            self.pids[name] = program.pid or self.pids.get(name, 0)
            if self.failures.get(name, 0) >= _PATIENCE or program.state == "FATAL":
                said = status.last_error(self.settings.log / f"{name}.log", self.ends.get(name, 0))
                raise StackFailed(f"{name} does not start: {said}")


def check(settings: Settings) -> None:
    """What can be known before anything starts: binaries there, every configuration right.

    Raises BadConfig, BadSetting.
    """
    if settings.role == "web" and (settings.embedded_postgres or settings.embedded_redis):
        raise BadSetting("THOR_STACK_AUTO_START=0: expected DB_HOST and REDIS_URL, the servers that the worker uses")
    if settings.embedded_postgres:
        postgres_bin()
    if settings.embedded_redis:
        redis_server()
    command: Sequence[str] = (sys.executable, "-m", "thor.runtime.config")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no output"]
        raise BadConfig(said[-1].removeprefix("thor: "))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
