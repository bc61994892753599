"""The skeleton of every process: one work loop, a heartbeat after each step, health from a thread.

Crash-only (design.md, invariant 8): what a daemon cannot handle ends it, supervisord starts it again, and its
``open`` is the recovery.
"""

from __future__ import annotations

import atexit
import faulthandler
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn, Protocol

from pydantic import BaseModel

from thor.runtime import logs, metrics, process
from thor.runtime.config import BadConfig, load_config
from thor.runtime.health import Health
from thor.runtime.heartbeat import READY, Heartbeat, State
from thor.runtime.settings import BadSetting, Settings

log = logging.getLogger(__name__)

#: Past so many deadlines the process ends itself with its stacks in the log, interpreter lock held or not.
_GIVE_UP: Final = 3
_ALREADY_RUNS: Final = 3
_MISCONFIGURED: Final = 2


@dataclass(frozen=True, slots=True)
class Step:
    """What one step came to. ``deadline_s`` is when the next must have ended, ``source_ts`` ns UTC."""

    state: State
    deadline_s: float = 10
    committed: int | None = None
    head: int | None = None
    source_ts: int | None = None
    why: str = ""


class Daemon(Protocol):
    """What a file in daemons/ implements."""

    @property
    def name(self) -> str:
        """The process's name, as in supervisord.conf."""

    def open(self) -> None:
        """Connect and recover. May raise: then the process ends and is started again."""

    def step(self) -> Step:
        """One bounded piece of work, at most a second of waiting included."""

    def close(self) -> None:
        """Let go, after the last step."""


class Context:
    """What a process is given: settings, its configuration, its heartbeat, and whether it shall stop."""

    def __init__(self, name: str, settings: Settings, config: Any, heartbeat: Heartbeat) -> None:  # noqa: ANN401
        self.name, self.settings, self.config = name, settings, config
        self.heartbeat = heartbeat
        self.stopping = threading.Event()
        #: HUP: the watchdog asks for the sources to be connected anew.
        self.reconnect = threading.Event()
        self._last = Step("starting", 60)
        self._armed = self._armed_for = 0.0

    def beat(self, state: State, deadline_s: float = 10, why: str = "") -> None:
        """Extend the deadline within a step: in long work, or while waiting for Postgres or Redis."""
        self._stamp(replace(self._last, state=state, deadline_s=deadline_s, why=why), step_done=False)

    def done(self, step: Step) -> None:
        """Stamp the heartbeat after a step of work."""
        self._stamp(step, step_done=True)

    def _stamp(self, step: Step, *, step_done: bool) -> None:
        self._last = step
        self.heartbeat.beat(
            step.state, step.deadline_s, step.committed, step.head, step.source_ts, step.why, step=step_done
        )
        now = time.monotonic()
        if now - self._armed > 1 or step.deadline_s != self._armed_for:  # not at each beat: it costs a thread
            self._armed, self._armed_for = now, step.deadline_s
            faulthandler.dump_traceback_later(_GIVE_UP * step.deadline_s, exit=True)


def start(name: str, model: type[BaseModel] | None) -> Context:
    """Make this process a Thor process: log, lock, configuration, heartbeat, health, signals.

    Ends it with one line in the log: 3 where it already runs, 2 where something is configured wrongly.
    """
    lines = logs.start(name)
    atexit.register(lines.drain)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    try:
        settings = Settings.from_env()
        process.die_with_supervisor(settings.run, signal.SIGKILL)  # at once, frozen or not; startup is recovery
        process.hold(settings.run / f"{name}.lock", wait_s=0.5)  # a reader of the lock holds it for a moment
        config = None if model is None else load_config(name, model)
        heartbeat = Heartbeat(settings.run / "heartbeat" / name)
        port = settings.health_port(name)
        try:
            Health(name, port, heartbeat.read, threading.get_ident())
        except OSError as error:
            raise BadSetting(f"port {port} (health of {name}) cannot be had: {error.strerror}") from error
    except process.Taken as error:
        log.error("%s", error)
        sys.exit(_ALREADY_RUNS)
    except (BadSetting, BadConfig) as error:
        log.error("%s", error)
        sys.exit(_MISCONFIGURED)
    metrics.REGISTRY.register(metrics.Progress(name, heartbeat.read, lambda: lines.dropped))
    context = Context(name, settings, config, heartbeat)
    context.beat("starting", 60)

    def heard(number: int, _frame: object) -> None:
        event = context.reconnect if number == signal.SIGHUP else context.stopping
        # From a thread: set() would wait for a lock that the interrupted code may hold.
        threading.Thread(target=event.set, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, heard)
    log.info("%s starts", name)
    return context


def main(make: Callable[[Context], Daemon], name: str, model: type[BaseModel] | None = None) -> NoReturn:
    """Run a daemon until TERM or INT; exits 0 then, 1 after an error, and as ``start`` says.

    ``model`` describes config/<name>.yaml; without it, the ``Config`` of the module that runs.
    """
    context = start(name, model or getattr(sys.modules["__main__"], "Config", None))
    try:
        daemon = make(context)
        daemon.open()
        state = ""
        while not context.stopping.is_set():
            step = daemon.step()
            context.done(step)
            # Between running, idle and catching up it may go to and fro all day.
            seen = "at work" if step.state in READY else step.state
            if seen != state:
                state = seen
                log.info("%s is %s%s", name, state, f": {step.why}" if step.why else "")
        context.beat("draining", 30)
        daemon.close()
    except Exception as error:
        log.exception("%s ends: %s: %s", name, type(error).__name__, " ".join(str(error).split())[:500])
        code = 1
    else:
        log.info("%s stopped", name)
        code = 0
    faulthandler.cancel_dump_traceback_later()
    logging.shutdown()
    sys.exit(code)
