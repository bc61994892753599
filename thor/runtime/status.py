"""Where every process stands, told from outside: locks, heartbeats, supervisord, the log's own positions."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path

from thor.runtime import heartbeat
from thor.runtime.process import holder
from thor.runtime.settings import PROJECTIONS, Settings
from thor.runtime.supervisor import Frozen, Program, Supervisor
from thor.stores import log
from thor.stores.redis import RedisDown, connect


@dataclass(frozen=True, slots=True)
class Row:
    """One process. ``state`` is its heartbeat's, or ``stalled`` past the deadline, or ``stopped``, ``failing``,
    ``quarantined``; ``lag`` counts entries of the log not yet committed."""

    name: str
    pid: int | None
    state: str
    heartbeat_age_s: float | None
    lag: int | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Log:
    """What Redis knows of the log and its readers."""

    writer: dict[str, str]
    positions: dict[str, int]

    @property
    def n(self) -> int:
        """Number of the newest entry."""
        return int(self.writer.get("n", 0))

    @property
    def accepted(self) -> int:
        """Quotes accepted so far."""
        return int(self.writer.get("count:accepted", 0))

    @property
    def ended(self) -> int:
        """Number of the entry that ended the recording; 0 while it has not."""
        return int(self.writer.get("ended") or 0)

    def committed(self, projection: str) -> int:
        """Newest entry that a projection has committed."""
        return self.positions.get(projection, 0)


def the_log(settings: Settings) -> Log | None:
    """None where Redis does not answer."""
    client = connect(settings.redis_url, 1.0)
    try:
        return Log(log.writer_state(client), log.positions(client))
    except (*RedisDown, OSError):
        return None
    finally:
        client.close()


def rows(settings: Settings) -> list[Row]:
    """Every program of this stack, in the order of the data flow."""
    try:
        programs = Supervisor(settings).programs()
    except Frozen:
        programs = {}
    known = the_log(settings)
    return [_row(settings, name, programs.get(name), known) for name in settings.programs]


def _row(settings: Settings, name: str, program: Program | None, known: Log | None) -> Row:
    pid = holder(settings.run / f"{name}.lock")
    if pid is None:
        state = "failing" if program and program.state in ("BACKOFF", "FATAL") else "stopped"
        if name in quarantined(settings):
            return Row(name, None, "quarantined", None, None, last_error(settings.log / f"{name}.log"))
        return Row(
            name, None, state, None, None, last_error(settings.log / f"{name}.log") if state == "failing" else ""
        )
    if name in ("postgres", "redis"):
        return Row(name, pid, "running", None, None)
    beat = heartbeat.read(settings.run / "heartbeat" / name)
    if beat is None or beat.pid != pid:
        return Row(name, pid, "starting", None, None)
    lag = beat.lag
    if name in PROJECTIONS and known is not None:
        # Its own word is the newer one: Redis is told now and then.
        lag = max(0, known.n - (known.committed(name) if beat.committed is None else beat.committed))
    state = "stalled" if beat.overdue_s() > 0 else beat.state
    return Row(name, pid, state, round(max(0.0, beat.age_s()), 3), lag, beat.why)


def quarantined(settings: Settings) -> list[str]:
    """Whom the watchdog has stopped because restarts did not help; it tries each again now and then."""
    try:
        held = json.loads((settings.run / "watchdog.json").read_text())["processes"]
        return sorted(name for name, kept in held.items() if kept["quarantined"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def is_ready(settings: Settings, process: str) -> bool:
    """Whether its /readyz says 200."""
    connection = http.client.HTTPConnection("127.0.0.1", settings.health_port(process), timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def last_error(path: Path, after: int = 0) -> str:
    """The last error in a process's log behind byte ``after``, else its last line, as one line."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0 if after > size else after, size - 65_536))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return f"no log at {path}"
    plain = ""
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            plain = plain or line.strip().removeprefix("thor: ")
            continue
        if isinstance(record, dict) and record.get("level") in ("ERROR", "CRITICAL"):
            return plain or str(record.get("message"))
    return plain or f"no error in {path}"
