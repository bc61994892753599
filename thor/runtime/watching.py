"""The watchdog's eyes and hands: what it sees of processes, servers and sources, and what it can do to them.

Nothing here waits for what may be frozen: supervisord is asked with a time-out of a second, Postgres and Redis from
threads whose newest answer is what counts.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg
import redis

from thor.domain.cadence import Quote
from thor.domain.instruments import Instruments
from thor.domain.watched import Around, Decision, Pulse, Seen
from thor.runtime import heartbeat, markets, pauses
from thor.runtime.config import BadConfig
from thor.runtime.process import holder
from thor.runtime.settings import PROJECTIONS, Settings
from thor.runtime.supervisor import Frozen, Program, Refused, Supervisor
from thor.stores import db, events, latest
from thor.stores import log as quotes_log
from thor.stores.markets import NotCovered
from thor.stores.redis import connect

log = logging.getLogger(__name__)

SERVERS: Final = ("postgres", "redis")
_ASK_S: Final = 1.0
_ASK_AGAIN_S: Final = 5.0
_PROBE_S: Final = 1.0
_ANSWERED_S: Final = 5.0  # an older answer is none
_DUMP_S: Final = 0.2  # what the stacks of a hung process take to reach its log
_HOURS_S: Final = 3600.0  # after so long the dated hours are read again, sooner where they could not be
_HOURS_AGAIN_S: Final = 60.0
_RUNNABLE: Final = 4  # tasks a processor that want to run: above, the host is starved


@dataclass(slots=True)
class Answer:
    """Whether a server answered lately."""

    asked: bool = False
    at: float = float("-inf")

    def well(self, now: float) -> bool:
        return now - self.at < _ANSWERED_S


@dataclass
class Probes:
    """Asks Postgres and Redis once a second; moves waiting events; reads what the log, quotes and calendars say."""

    settings: Settings
    waiting: events.Waiting
    instruments: Instruments
    head: int | None = None
    quotes: Mapping[str, Quote] = field(default_factory=dict)
    #: Sources whose values stand still, and since when.
    stale: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._answers = {"postgres": Answer(), "redis": Answer()}
        self._conn: db.Connection | None = None
        self._redis = connect(self.settings.redis_url, 2.0)
        self._marked: Mapping[str, str] | None = None
        #: When each symbol trades. While Postgres cannot say it anew the last holds, where that ends the weekly hours.
        self.trading = markets.weekly(self.instruments)
        self._hours_at = float("-inf")
        try:
            self._clockwork: markets.Clockwork | None = markets.load()
        except BadConfig as error:  # no reason to watch nothing
            log.warning("holidays are not known: %s", error)
            self._clockwork = None

    def start(self) -> None:
        """Begin to ask."""
        for name, ask in (("postgres", self._postgres), ("redis", self._ask_redis)):
            threading.Thread(target=self._repeat, args=(name, ask), name=f"probe {name}", daemon=True).start()

    def close(self) -> None:
        """Ask no more."""
        self._stopping.set()

    def well(self, now: float) -> dict[str, bool]:
        """Which servers answered lately; one that was not asked yet is left out."""
        return {name: answer.well(now) for name, answer in self._answers.items() if answer.asked}

    def _repeat(self, name: str, ask: Callable[[], None]) -> None:
        answer, began = self._answers[name], time.monotonic()
        while not self._stopping.wait(_PROBE_S):
            try:
                ask()
                answer.at = time.monotonic()
            except (psycopg.Error, redis.RedisError, OSError, ValueError) as error:
                log.debug("%s: %s", name, error)
            answer.asked = answer.asked or answer.well(time.monotonic()) or time.monotonic() - began > _ANSWERED_S

    def _postgres(self) -> None:
        try:
            if self._conn is None:
                self._conn = db.connect(self.settings.dsn, "watchdog")
            events.probe(self._conn)
            with suppress(psycopg.errors.UndefinedTable):
                self.waiting.move(self._conn)
            if time.monotonic() >= self._hours_at:
                self._read_hours(self._conn)
        except psycopg.Error:
            if self._conn is not None:
                self._conn.close()
            self._conn = None
            raise

    def _read_hours(self, conn: db.Connection) -> None:
        if self._clockwork is None:
            return
        self._hours_at = time.monotonic() + _HOURS_AGAIN_S
        # Whether Postgres is well the probe says, not this.
        with suppress(NotCovered, psycopg.Error):
            self.trading = markets.trading(conn, self._clockwork, self.instruments, time.time_ns())
            self._hours_at = time.monotonic() + _HOURS_S

    def _ask_redis(self) -> None:
        self.head = int(quotes_log.writer_state(self._redis).get("n", 0))
        found = latest.read(self._redis, self.instruments.symbols).quotes
        self.quotes = {
            symbol: Quote(fields.get("ts", ""), fields.get("source", ""), _values(fields))
            for symbol, fields in found.items()
        }
        if self.stale != self._marked:
            latest.mark_stale(self._redis, self.stale)
            self._marked = self.stale


def _values(fields: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in fields.items() if name not in ("ts", "source", "symbol")))


class Eyes:
    """What there is to see at one look."""

    def __init__(self, settings: Settings, probes: Probes) -> None:
        self._settings, self._probes = settings, probes
        self._supervisor = Supervisor(settings, _ASK_S)
        self._ask_at = float("-inf")
        self.programs: dict[str, Program] = {}
        self._supervised = False
        self._lives: dict[str, float] = {}

    def look(self, now: float, opening: bool) -> tuple[list[Seen], Around] | None:
        """Every program but the watchdog; None while supervisord is shutting down, when nothing is to be done."""
        if now >= self._ask_at:
            try:
                self.programs, self._supervised = self._supervisor.programs(), True
            except Refused:
                return None
            except Frozen:
                self._supervised, self._ask_at = False, time.monotonic() + _ASK_AGAIN_S
        seen = [self._see(program) for name, program in self.programs.items() if name != "watchdog"]
        around = Around(
            probes=self._probes.well(now),
            starved=_starved(),
            supervised=self._supervised,
            head=self._probes.head,
            opening=opening,
            paused=frozenset(pauses.paused(self._settings, time.time())),
        )
        return seen, around

    def _see(self, program: Program) -> Seen:
        name = program.name
        pid = program.pid if self._supervised else holder(self._settings.run / f"{name}.lock") or 0
        beat = heartbeat.read(self._settings.run / "heartbeat" / name) if pid and name not in SERVERS else None
        pulse = None
        if beat is not None and beat.pid == pid:
            pulse = Pulse(
                *(beat.at / 1e9, beat.deadline / 1e9, beat.loops, beat.committed, beat.head, beat.state, beat.why)
            )
        return Seen(
            name,
            program.state if self._supervised else "",
            pid,
            program.started,
            pulse,
            None if name in SERVERS or not pid else resident_mib(pid),
            name in SERVERS,
            name in PROJECTIONS,
        )


class Hands:
    """What can be done; through supervisord, and where it is frozen to the process itself."""

    def __init__(self, settings: Settings, eyes: Eyes) -> None:
        self._supervisor, self._eyes = Supervisor(settings, _ASK_S), eyes

    def do(self, decision: Decision) -> None:
        """Carry a decision out. Raises Frozen where only supervisord could have done it."""
        program, pid = self._eyes.programs.get(decision.process), decision.pid
        if program is None:
            return
        if decision.do in ("kill", "stop", "restart") and pid:
            _signal(pid, signal.SIGCONT)
            _signal(pid, signal.SIGUSR1)  # its stacks, into its log
            time.sleep(_DUMP_S)
        match decision.do:
            case "kill":
                self._end(program, pid, "KILL")
            case "restart":
                self._end(program, pid, "TERM")  # supervisord starts it again
            case "stop":
                self._supervisor.stop_one(program)
                if pid:
                    _signal(pid, signal.SIGKILL)
            case "start":
                self._supervisor.start_one(program)
            case "reconnect":
                _signal(pid, signal.SIGHUP)

    def _end(self, program: Program, pid: int, name: str) -> None:
        try:
            self._supervisor.signal_one(program, name)
        except Frozen:
            _signal(pid, signal.Signals[f"SIG{name}"])


def resident_mib(pid: int) -> float | None:
    """Resident memory of a process, None where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:")), None)


def _starved() -> bool:
    try:
        runnable = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return False
    return runnable > _RUNNABLE * (os.cpu_count() or 1)


def _signal(pid: int, number: signal.Signals) -> None:
    if pid > 1:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
