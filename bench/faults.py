"""How fast each fault is found and healed: one JSON line a fault, then the table of docs/operations.md.

    python3 -m bench.faults [--base 20400] [--long]

Injects every fault into a running stack of its own. ``--long`` adds Postgres away for five minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import psycopg

from bench.stack import machine, stack
from tests.stack.faulty import DEADLINE_S, HANGS
from thor.runtime import heartbeat
from thor.runtime.process import holder
from thor.runtime.settings import ROOT, Settings
from thor.runtime.supervisor import Supervisor
from thor.stores.events import newest
from thor.stores.log import writer_state
from thor.stores.redis import connect

_OURS: Final = ("ingester", "intraday", "vwap", "httpd")
_BUDGET: Final = "100"  # restarts: the bench spends more than a day's
_HARD_MIB: Final = 160
_PROGRAM: Final = """\
[program:{name}]
command = {python} -m tests.stack.faulty {name}
directory = {root}
autostart = false
autorestart = true
startretries = 1000000
redirect_stderr = true
stdout_logfile = {log}/{name}.log
"""


@dataclass
class Row:
    """One fault: how soon it was ended, and how soon another life was at work, in seconds from the fault."""

    fault: str
    process: str
    due: str
    found_s: float | None
    healed_s: float | None
    how: str


class Bench:
    """A running stack and what was measured on it."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.rows = settings, list[Row]()
        self.supervisor = Supervisor(settings)

    def pid(self, name: str) -> int:
        return holder(self.settings.run / f"{name}.lock") or 0

    def at_work(self, name: str, but: int) -> bool:
        pid, beat = self.pid(name), heartbeat.read(self.settings.run / "heartbeat" / name)
        return pid not in (0, but) and beat is not None and beat.pid == pid and beat.loops > 0

    def told(self, since: float, process: str) -> str:
        """The newest decision about a process, as rule and action."""
        with psycopg.connect(self.settings.dsn) as conn:
            rows = [row for row in newest(conn, 50) if row[0].timestamp() >= since and row[1] == process]
        return f"{rows[-1][2]}: {rows[-1][3]}" if rows else "supervisord"

    def say(self, row: Row) -> None:
        self.rows.append(row)
        print(json.dumps({"bench": "faults", **row.__dict__, "machine": machine()}), flush=True)

    def inflict(self, fault: str, name: str, due: str, strike: Callable[[int], object]) -> None:
        """Strike, and wait for the end of that life and the work of the next."""
        since, pid = time.time(), self.pid(name)
        began = time.monotonic()
        strike(pid)
        _until(lambda: self.pid(name) != pid, 60)
        found = time.monotonic() - began
        _until(lambda: self.at_work(name, pid), 60)
        healed = time.monotonic() - began
        time.sleep(3)  # its events reach Postgres; the next restart is another one
        self.say(Row(fault, name, due, round(found, 2), round(healed, 2), self.told(since, name)))

    def nothing(self, what: str, for_s: float) -> None:
        """Nobody is restarted meanwhile."""
        before = {name: self.pid(name) for name in _OURS}
        since = time.time()
        time.sleep(for_s)
        replaced = [name for name in _OURS if self.pid(name) != before[name]]
        with psycopg.connect(self.settings.dsn) as conn:
            deeds = [r for r in newest(conn, 100) if r[0].timestamp() >= since and r[3] in ("kill", "restart", "stop")]
        self.say(Row(what, "all", f"{for_s:g} s", None, None, f"{len(deeds) + len(replaced)} restarts"))


def _until(look: Callable[[], object], within_s: float) -> None:
    end = time.monotonic() + within_s
    while not look():
        if time.monotonic() > end:
            raise SystemExit("faults: a fault was not found in time")
        time.sleep(0.01)


@contextmanager
def _hogs(n: int) -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    yield
    for one in started:
        one.kill()
        one.wait()


def crashes(bench: Bench) -> None:
    """What ends, and what is frozen."""
    for name in _OURS:
        bench.inflict("kill -9", name, "", lambda pid: os.kill(pid, signal.SIGKILL))
    for name in _OURS:
        bench.inflict("SIGSTOP", name, "10 s", lambda pid: os.kill(pid, signal.SIGSTOP))


def hangs(bench: Bench) -> None:
    """What is alive and does nothing."""
    due = {"cancelled": "10 s", "leak": f"{_HARD_MIB} MiB"}
    said = {"held": "interpreter lock held", "blocked": "blocked socket", "busy": "endless loop"}
    said |= {"cancelled": "cancelled consumer, live loop", "leak": "leak of 20 MiB/s"}
    for name in (*HANGS, "cancelled", "leak"):
        bench.supervisor.start_one(bench.supervisor.programs()[name])
        _until(lambda name=name: bench.at_work(name, 0), 30)  # type: ignore[misc]
        trigger = bench.settings.dir / f"fault-{name}"
        time.sleep(1)
        bench.inflict(said.get(name, name), name, due.get(name, f"{DEADLINE_S:g} s"), partial(_touch, trigger))


def _touch(file: Path, _: int) -> None:
    file.touch()


def servers(bench: Bench, away_s: float) -> None:
    """A host that is slow, a server that is away, a watchdog that is frozen as well."""
    with _hogs(10):
        bench.nothing("ten CPU hogs", 20)
    pids = [bench.pid("watchdog"), bench.pid("vwap")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(20)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    bench.nothing("watchdog and vwap frozen together for 20 s", 15)
    postgres = bench.supervisor.programs()["postgres"]
    bench.supervisor.stop_one(postgres)
    before = {name: bench.pid(name) for name in _OURS}
    time.sleep(away_s)
    bench.supervisor.start_one(postgres)
    began = time.monotonic()
    _until(lambda: _ready(bench.settings.health_port("intraday")), 60)
    healed = time.monotonic() - began
    same = sum(bench.pid(name) != pid for name, pid in before.items())
    bench.say(Row(f"Postgres away for {away_s:g} s", "all", "", None, round(healed, 2), f"{same} restarts"))


def _ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def supervisord(bench: Bench) -> None:
    """The one who starts everybody, frozen and killed."""
    pid = bench.supervisor.pid()
    assert pid
    client = connect(bench.settings.redis_url)
    os.kill(pid, signal.SIGSTOP)
    before = int(writer_state(client)["n"])
    time.sleep(30)
    came = int(writer_state(client)["n"]) - before
    client.close()
    os.kill(pid, signal.SIGCONT)
    bench.say(Row("supervisord frozen for 30 s", "all", "", None, None, f"{came} entries went on"))
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    locks = [path for path in bench.settings.run.glob("*.lock") if path.stem != "up"]
    _until(lambda: not any(holder(path) for path in locks), 30)
    bench.say(Row("kill -9 of supervisord", "all", "", round(time.monotonic() - began, 2), None, "every child gone"))


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=int, default=20_400)
    parser.add_argument("--long", action="store_true")
    given = parser.parse_args()
    rules = {
        "FEW": _BUDGET,
        "MANY": _BUDGET,
        "PROGRESS_OF__CANCELLED": "10",
        "HARD_MIB__LEAK": str(_HARD_MIB),
        "BACKOFF_MOST_S": "1",
    }
    environment = {f"THOR_WATCHDOG__RULES__{name}": value for name, value in rules.items()}
    with stack(given.base, **environment) as (settings, _):
        _add_programs(settings)
        time.sleep(3)
        bench = Bench(settings)
        crashes(bench)
        hangs(bench)
        servers(bench, 300 if given.long else 30)
        supervisord(bench)
    print("\n| fault | process | due | ended after | at work again after | by |\n|---|---|---|---|---|---|")
    for row in bench.rows:
        found, healed = (("" if s is None else f"{s:.1f} s") for s in (row.found_s, row.healed_s))
        print(f"| {row.fault} | {row.process} | {row.due} | {found} | {healed} | {row.how} |")


def _add_programs(settings: Settings) -> None:
    folder = settings.dir / "supervisord.d"
    folder.mkdir()
    for name in (*HANGS, "cancelled", "leak"):
        text = _PROGRAM.format(name=name, python=sys.executable, root=ROOT, log=settings.log)
        (folder / f"{name}.conf").write_text(text)
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(settings.dir / "supervisord.conf"), "update"]
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
