from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port_base, until
from thor.runtime import heartbeat
from thor.runtime.settings import ROOT

PROGRAM = """
import time
from pathlib import Path
from thor.runtime.daemon import Context, Step, main

class Toy:
    name = "vwap"
    def __init__(self, context: Context) -> None:
        self.context, self.dir, self.n = context, context.settings.dir, 0
    def open(self) -> None:
        (self.dir / "opened").touch()
    def step(self) -> Step:
        time.sleep(0.01)
        self.n += 1
        if (self.dir / "raise").exists():
            raise RuntimeError("the toy\\nis broken")
        if (self.dir / "hang").exists():
            self.context.beat("running", 0.3)
            time.sleep(600)
        if (self.dir / "wait").exists():
            return Step("waiting", why="Postgres does not answer")
        return Step("running", committed=self.n, head=self.n + 2)
    def close(self) -> None:
        (self.dir / "closed").touch()

main(Toy, "vwap")
"""


class Toy:
    """The toy daemon as a process."""

    def __init__(self, directory: Path, base: int) -> None:
        self.dir, self.base = directory, base
        directory.mkdir(parents=True, exist_ok=True)
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        env = {**os.environ, "THOR_DIR": str(self.dir), "THOR_PORT_BASE": str(self.base)}
        with (self.dir / "log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, env=env, stderr=log)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.base + 13}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def until_status(self, path: str, status: int) -> str:
        return until(lambda: next((body for code, body in [self.get(path)] if code == status), ""), f"{path} {status}")

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.dir / "log").read_text().splitlines() if line.startswith("{")]


@pytest.fixture
def toy(thor_dir: Path) -> Iterator[Toy]:
    started = Toy(thor_dir, free_port_base())
    yield started
    started.process.kill()
    started.process.wait()


def test_a_working_daemon_is_healthy_ready_and_measured(toy: Toy) -> None:
    toy.until_status("/readyz", 200)
    health = json.loads(toy.until_status("/healthz", 200))
    assert (health["process"], health["state"], health["lag"]) == ("vwap", "running", 2)
    metrics = toy.get("/metrics")[1]
    for name in ("thor_heartbeat_age_seconds", "thor_loop_steps_total", "thor_lag_entries", "thor_committed_entry"):
        assert f'{name}{{process="vwap"}}' in metrics
    assert "process_resident_memory_bytes" in metrics
    assert "_created" not in metrics
    assert toy.get("/else")[0] == 404


def test_one_that_waits_is_alive_but_not_ready(toy: Toy) -> None:
    toy.until_status("/readyz", 200)
    (toy.dir / "wait").touch()
    assert json.loads(toy.until_status("/readyz", 503))["why"] == "Postgres does not answer"
    assert toy.get("/healthz")[0] == 200


def test_one_that_hangs_is_unhealthy_says_where_and_ends_itself(toy: Toy) -> None:
    toy.until_status("/readyz", 200)
    (toy.dir / "hang").touch()
    said = json.loads(toy.until_status("/healthz", 503))
    assert said["status"] == "stalled"
    assert any("in step" in frame for frame in said["stands_at"])
    assert toy.process.wait(10) == 1  # three deadlines
    assert "in step" in (toy.dir / "log").read_text()


def test_term_ends_the_step_closes_and_exits_0(toy: Toy) -> None:
    toy.until_status("/readyz", 200)
    toy.process.send_signal(signal.SIGTERM)
    assert toy.process.wait(10) == 0
    assert (toy.dir / "closed").exists()
    assert toy.lines()[-1]["message"] == "vwap stopped"


def test_an_error_ends_it_with_one_line_and_exit_1(toy: Toy) -> None:
    toy.until_status("/readyz", 200)
    (toy.dir / "raise").touch()
    assert toy.process.wait(10) == 1
    last = toy.lines()[-1]
    assert last["message"] == "vwap ends: RuntimeError: the toy is broken"
    assert "in step" in last["traceback"]


def test_a_second_one_says_that_the_first_runs_and_exits_3(toy: Toy) -> None:
    toy.until_status("/readyz", 200)
    second = toy.start()
    assert second.wait(10) == 3
    assert toy.lines()[-1]["message"].startswith(f"vwap already runs, pid {toy.process.pid} ")


def test_after_kill_the_next_one_starts_and_is_another_life(toy: Toy) -> None:
    toy.until_status("/readyz", 200)
    before = heartbeat.read(toy.dir / "run" / "heartbeat" / "vwap")
    toy.process.kill()
    toy.process.wait()
    toy.process = toy.start()

    def another() -> bool:
        now = heartbeat.read(toy.dir / "run" / "heartbeat" / "vwap")
        return bool(before and now and now.start_id != before.start_id and now.ready)

    until(another, "the next life")


def test_a_signal_asks_for_the_stacks(toy: Toy) -> None:
    toy.until_status("/readyz", 200)
    toy.process.send_signal(signal.SIGUSR1)
    wanted: Callable[[], bool] = lambda: "Current thread" in (toy.dir / "log").read_text()  # noqa: E731
    until(wanted, "a dump in the log")
    assert toy.get("/readyz")[0] == 200
