"""supervisord from outside: start it, ask it over its Unix socket with a time-out, end it and all it left."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from thor.runtime import process
from thor.runtime.settings import ROOT, BadSetting, Settings

_ASK_S: Final = 5
_STOP_S: Final = 90  # above the longest stopwaitsecs of supervisord.conf
_PROC: Final = Path("/proc/self/cwd")
_SOCKET: Final = 107  # bytes of a Unix socket's path, of which supervisord wants some for a temporary name

#: Locks in run/ that only programs of the stack hold, in the order in which they are ended.
LOCKS: Final = ("watchdog", "markets", "ingester", "intraday", "vwap", "httpd", "redis", "postgres")


class Frozen(ConnectionError):
    """supervisord does not answer."""


class Refused(Frozen):
    """supervisord answers, and refuses: it is shutting down, or knows no such program, or that is done already."""


@dataclass(frozen=True, slots=True)
class Program:
    """What supervisord says of one program."""

    name: str
    state: str  # STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL, UNKNOWN
    pid: int
    exit_status: int
    said: str
    started: int = 0  # when its newest life began, Unix seconds
    group: str = ""


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path, ask_s: float) -> None:
        super().__init__()
        self._path, self._ask_s = path, ask_s

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ANN401
        path, ask_s = self._path, self._ask_s

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self.sock.settimeout(ask_s)
                with _short(path) as name:
                    self.sock.connect(name)

        made = Connection("supervisord")
        self._connection = host, made  # where close() looks
        return made


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of at most 107 bytes for a socket that may lie deeper: through a descriptor of its directory."""
    if not _PROC.exists():
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class Supervisor:
    """The supervisord of one THOR_DIR."""

    def __init__(self, settings: Settings, ask_s: float = _ASK_S) -> None:
        self._settings, self._ask_s = settings, ask_s
        self._socket = settings.run / "supervisor.sock"

    def start(self) -> None:
        """Start supervisord in a session of its own; the servers come up with it. Raises BadSetting."""
        settings = self._settings
        deep = len(os.fsencode(self._socket)) + 12 > _SOCKET
        if deep and not _PROC.exists():
            raise BadSetting(f"THOR_DIR: expected a path below {_SOCKET - 32} bytes, found {settings.dir}")
        self._socket.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "THOR_DIR": str(settings.dir),
            "THOR_PORT_BASE": str(settings.port_base),
            "THOR_PYTHON": sys.executable,
            "THOR_EMBEDDED_POSTGRES": str(settings.embedded_postgres).lower(),
            "THOR_EMBEDDED_REDIS": str(settings.embedded_redis).lower(),
            "THOR_AUTOSTART": "false",
            "PYTHONPATH": str(ROOT),
            # It works in run/, so that its socket has a short name there however deep THOR_DIR lies.
            "THOR_SOCKET": f"{_PROC}/{self._socket.name}" if _PROC.exists() else str(self._socket),
        }
        with (settings.log / "supervisord.out").open("wb") as out:
            child = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(ROOT / "supervisord.conf")],
                cwd=settings.run,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        near = f"/proc/{child.pid}/cwd/{self._socket.name}" if deep else "%(here)s/run/supervisor.sock"
        (settings.dir / "supervisord.conf").write_text(
            f"; for supervisorctl -c; the process tree is in the checkout\n[supervisorctl]\nserverurl = unix://{near}\n"
        )
        until = time.monotonic() + 20
        while not self.answers():
            if child.poll() is not None or time.monotonic() > until:
                said = (settings.log / "supervisord.out").read_text(errors="replace").strip().splitlines()
                child.kill()
                raise Frozen(f"supervisord did not start: {said[-1] if said else 'no output'}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it is there and answers."""
        try:
            return bool(self._ask("supervisor.getPID"))
        except Frozen:
            return False

    def programs(self) -> dict[str, Program]:
        """Every program by name. Raises Frozen."""
        rows: Any = self._ask("supervisor.getAllProcessInfo")
        return {
            row["name"]: Program(
                *(row["name"], row["statename"], row["pid"], row["exitstatus"], row["spawnerr"]),
                *(row["start"], row["group"]),
            )
            for row in rows
        }

    def start_all(self) -> None:
        """Start our own processes, those of this role. Raises Frozen."""
        for name in self._settings.processes:
            self._ask("supervisor.startProcess", f"thor:{name}", False)

    def start_one(self, program: Program) -> None:
        """Start a program. Raises Frozen, Refused."""
        self._ask("supervisor.startProcess", f"{program.group}:{program.name}", False)

    def stop_one(self, program: Program) -> None:
        """Have a program ended and not started again; does not wait. Raises Frozen, Refused."""
        self._ask("supervisor.stopProcess", f"{program.group}:{program.name}", False)

    def signal_one(self, program: Program, name: str) -> None:
        """Signal a program by the signal's name. Raises Frozen, Refused."""
        self._ask("supervisor.signalProcess", f"{program.group}:{program.name}", name)

    def pid(self) -> int | None:
        """Its pid, from its pid file, where that process lives and is a supervisord."""
        try:
            pid = int((self._settings.run / "supervisord.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if process.alive(pid) and "supervisor" in process.command(pid) else None

    def shut_down(self, tell: Callable[[str], None]) -> None:
        """End everything of this THOR_DIR and wait until the last process is gone: by supervisord where it answers,
        else whoever holds a lock in run/. Raises Frozen where something will not end."""
        pid = self.pid()
        if pid is not None:
            try:
                self._ask("supervisor.shutdown")
                tell("stopping")
            except Frozen:
                tell(f"supervisord (pid {pid}) does not answer: ending it")
                _signal(pid, signal.SIGKILL)
            if not _gone([pid], _STOP_S):
                _signal(pid, signal.SIGKILL)
        for name in LOCKS:
            self._end(name, tell)
        if pid is not None and not _gone([pid], 5):
            raise Frozen(f"supervisord (pid {pid}) does not end")
        self._socket.unlink(missing_ok=True)

    def _end(self, name: str, tell: Callable[[str], None]) -> None:
        lock = self._settings.run / f"{name}.lock"
        # INT is the fast stop of Postgres; a frozen process hears nothing until it is continued.
        for wait_s, number in (
            (0, 0),
            (20, signal.SIGINT if name == "postgres" else signal.SIGTERM),
            (5, signal.SIGKILL),
        ):
            holder = process.holder(lock)
            if holder is None:
                return
            if number:
                tell(f"ending {name} (pid {holder})")
                _signal(holder, number)
                _signal(holder, signal.SIGCONT)
            until = time.monotonic() + wait_s
            while process.holder(lock) is not None and time.monotonic() < until:
                time.sleep(0.05)
        if process.holder(lock) is not None:
            raise Frozen(f"{name} (pid {process.holder(lock)}) does not end")

    def _ask(self, method: str, *args: str | bool) -> object:
        try:
            with xmlrpc.client.ServerProxy("http://supervisord", _Transport(self._socket, self._ask_s)) as proxy:
                return getattr(proxy, method)(*args)
        except xmlrpc.client.Fault as fault:
            raise Refused(f"supervisord refuses {method}: {fault.faultString}") from fault
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise Frozen(f"supervisord does not answer at {self._socket}: {error}") from error


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _gone(pids: Iterable[int], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while any(process.alive(pid) for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
