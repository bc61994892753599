"""A whole stack of a test's own: ports, folders and processes, driven as a user drives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import psycopg
import pytest
import redis

from tests.conftest import free_port_base, until
from thor.runtime.process import holder
from thor.runtime.settings import ROOT, Settings
from thor.stores.redis import connect

DATA = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Everything here drives whole stacks."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.stack)


@pytest.fixture
def recordings() -> Path:
    """The folder of real recordings; they are not part of this project."""
    if not DATA.is_dir():
        pytest.skip(f"the recordings are not here: {DATA}")
    return DATA


@dataclass
class Stack:
    """One stack; every command is what a user types."""

    environment: dict[str, str]

    @property
    def settings(self) -> Settings:
        return Settings.from_env(self.environment)

    def thor(self, *words: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """``python3 -m thor …``; the caller looks at the exit code."""
        command = [sys.executable, "-m", "thor", *words]
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **self.environment}
        return subprocess.run(
            command, env=environment, cwd=ROOT, text=True, capture_output=True, timeout=timeout_s, check=False
        )

    def up(self, *words: str, timeout_s: float = 120) -> str:
        """Start it; what it printed."""
        done = self.thor("up", *words, timeout_s=timeout_s)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def down(self) -> None:
        done = self.thor("down")
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    def logs(self) -> str:
        """The end of every log, for a failure."""
        folder = self.settings.log
        files = sorted(folder.glob("*.log")) if folder.is_dir() else []
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)

    def status(self) -> dict[str, Any]:
        done = self.thor("status", "--json")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def pid(self, process: str) -> int:
        """The pid of a process, as the status tells it; 0 while it is not running."""
        return next((p["pid"] or 0 for p in self.status()["processes"] if p["name"] == process), 0)

    def kill(self, process: str, with_signal: int = signal.SIGKILL) -> bool:
        """Signal a process found by its heartbeat or pid file; False where it was not there."""
        pid = self.pid(process)
        if not pid:
            return False
        try:
            os.kill(pid, with_signal)
        except ProcessLookupError:
            return False
        return True

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a query gives."""
        with psycopg.connect(self.settings.dsn) as conn:
            return conn.execute(query.encode(), values).fetchall()

    def redis(self) -> redis.Redis:
        return connect(self.settings.redis_url)

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of an API request."""
        try:
            with urlopen(f"{self.settings.api}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    def committed(self) -> bool:
        """Whether every projection has committed the end of the recording."""
        client = self.redis()
        try:
            ended = client.hget("ingester:writer", "ended")
            told = client.hgetall("log:positions")
        except redis.RedisError:
            return False
        finally:
            client.close()
        return ended is not None and len(told) >= 2 and min(map(int, told.values())) >= int(ended)

    def finish(self, within_s: float = 120) -> None:
        """Wait for the end of the recording."""
        until(self.committed, "every process has committed the end of the recording", within_s)


def left_behind(directory: Path) -> list[str]:
    """Processes that hold a lock of this THOR_DIR, or whose environment names it."""
    found = [lock.name for lock in (directory / "run").glob("*.lock") if holder(lock) is not None]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"THOR_DIR={directory}\0".encode() in (process / "environ").read_bytes() + b"\0":
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack that nothing shares; down and without a trace of processes afterwards."""
    made = Stack(
        {
            "THOR_DIR": str(tmp_path / "var"),
            "THOR_PORT_BASE": str(free_port_base()),
            "THOR_ENV_FILE": os.devnull,
        }
    )
    yield made
    made.thor("down")
    assert left_behind(tmp_path / "var") == []
