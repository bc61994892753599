"""The whole stack of real processes, brought up, hurt and taken down."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port_base, until
from thor.runtime import process
from thor.runtime.settings import PROCESSES, ROOT
from thor.runtime.supervisor import LOCKS

pytestmark = pytest.mark.stack

RECORDING = "ts,symbol,last,last_size\n" + "".join(
    f"2024-01-02T15:{n // 60:02}:{n % 60:02}Z,ESH4,{4800 + n % 7}.25,1\n" for n in range(600)
)


@dataclass
class Thor:
    """``python -m thor`` with a directory and ports of its own."""

    dir: Path
    base: int

    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "THOR_DIR": str(self.dir), "THOR_PORT_BASE": str(self.base)}
        command = [sys.executable, "-c", "from thor.cli import main; main()", *args]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False
        )

    def ok(self, *args: str) -> str:
        done = self(*args)
        assert done.returncode == 0, done.stdout + done.stderr
        return re.sub(" +", " ", done.stdout)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ok("status", "--json"))
        return found

    def pids(self) -> dict[str, int]:
        return {row["name"]: row["pid"] for row in self.status()["processes"]}

    def processes_left(self) -> list[str]:
        left = [name for name in LOCKS if process.holder(self.dir / "run" / f"{name}.lock")]
        pidfile = self.dir / "run" / "supervisord.pid"
        if pidfile.exists() and process.alive(int(pidfile.read_text())):
            left.append("supervisord")
        return left


@pytest.fixture
def thor(tmp_path: Path) -> Iterator[Thor]:
    made = Thor(tmp_path / "v", free_port_base())
    yield made
    made("down")


def test_up_is_ready_a_second_says_so_and_down_leaves_nothing(thor: Thor) -> None:
    said = thor.ok("up")
    assert f"http://127.0.0.1:{thor.base + 1}/api/health" in said
    for name, offset in PROCESSES.items():
        with urllib.request.urlopen(f"http://127.0.0.1:{thor.base + offset}/readyz", timeout=5) as answer:
            assert answer.status == 200, name
    status = thor.status()
    assert status["running"] is True
    assert status["api"] == f"http://127.0.0.1:{thor.base + 1}"
    assert [row["name"] for row in status["processes"]] == ["postgres", "redis", *PROCESSES]
    assert "already runs" in thor.ok("up")
    assert "SIMULATOR" in thor.ok("tail", "-n", "5")
    assert thor.ok("psql", "-Atc", "SELECT count(*) FROM instruments") == "11\n"
    control = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(thor.dir / "supervisord.conf"), "status"]
    shown = subprocess.run(control, capture_output=True, text=True, timeout=30, check=False)
    assert shown.stdout.count("RUNNING") == 2 + len(PROCESSES), shown
    thor.ok("down")
    assert thor.processes_left() == []
    assert thor.status()["running"] is False


def test_down_works_when_supervisord_was_killed_or_frozen(thor: Thor) -> None:
    for number in (signal.SIGKILL, signal.SIGSTOP):
        thor.ok("up")
        os.kill(int((thor.dir / "run" / "supervisord.pid").read_text()), number)
        thor.ok("down")
        assert thor.processes_left() == []


def test_what_is_killed_comes_back(thor: Thor) -> None:
    thor.ok("up")
    before = thor.pids()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def healed() -> bool:
        rows = thor.status()["processes"]
        return all(
            row["pid"] and row["pid"] != before[row["name"]] and row["state"] in ("running", "idle", "catching_up")
            for row in rows
        )

    until(healed, "six new processes at work", 60)


def test_a_recording_is_played_to_its_end_and_recognised_again(thor: Thor, tmp_path: Path) -> None:
    path = tmp_path / "es.csv"
    path.write_text(RECORDING)
    play = ("up", "--replay", str(path), "--map", "ESH4=ES", "--speed", "max", "--wait")
    said = thor.ok(*play)
    assert "accepted 600" in said
    assert "bars 10" in said
    assert "already runs" in thor.ok(*play)
    thor.ok("down")
    again = thor.ok(*play)
    assert "accepted 600" in again
    thor.ok("down")
    other = thor("up")
    assert other.returncode != 0
    assert "holds recorded quotes and these are simulated" in other.stderr
    assert thor.processes_left() == []
    assert "quotes" in thor.ok("up", "--fresh")


def test_a_process_that_cannot_start_is_quoted_and_nothing_stays(thor: Thor) -> None:
    secrets = thor.dir / "run"
    secrets.mkdir(parents=True)
    (secrets / "heartbeat").write_text("in the way of a directory")
    done = thor("up")
    assert done.returncode == 1
    assert done.stderr.startswith("thor: ")
    assert "heartbeat" in done.stderr
    assert done.stderr.count("\n") == 1
    assert thor.processes_left() == []
