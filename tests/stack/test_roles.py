"""The API alone in one place, everything else in another, over servers that both share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.conftest import free_port_base, until
from tests.stack.conftest import Stack, left_behind
from tests.stack.test_doctor import lines, red, supervisorctl
from thor.runtime.settings import PROCESSES, ROOT


@dataclass
class Pair:
    """Two supervisord, as in two containers."""

    web: Stack
    worker: Stack


@pytest.fixture
def pair(dsn: str, redis_url: str, tmp_path: Path) -> Iterator[Pair]:
    told = conninfo_to_dict(dsn)
    base = free_port_base()
    shared = {
        "DB_HOST": str(told["host"]),
        "DB_PORT": str(told["port"]),
        "DB_NAME": str(told["dbname"]),
        "DB_USER": str(told["user"]),
        "DB_PASSWORD": str(told["password"]),
        "REDIS_URL": redis_url,
        "THOR_ENV_FILE": os.devnull,
    }
    web = {"THOR_DIR": str(tmp_path / "web"), "THOR_PORT_BASE": str(base), "THOR_STACK_AUTO_START": "0"}
    worker = {"THOR_DIR": str(tmp_path / "worker"), "THOR_PORT_BASE": str(base + 20), "THOR_STACK_AUTO_START": "1"}
    made = Pair(Stack(shared | web), Stack(shared | worker))
    yield made
    for stack in (made.web, made.worker):
        stack.thor("down")
        assert left_behind(stack.settings.dir) == []


def running(stack: Stack) -> set[str]:
    """The processes that run there."""
    return {p["name"] for p in stack.status()["processes"] if p["pid"]}


def test_web_and_worker_make_one_stack_over_shared_servers(pair: Pair) -> None:
    pair.worker.up()
    pair.web.up()
    assert running(pair.web) == {"httpd"}
    assert running(pair.worker) == PROCESSES.keys() - {"httpd"}

    def quotes() -> bool:
        status, body = pair.web.get("/api/quotes")
        return status == 200 and any(quote["last"] for quote in body["quotes"])

    until(quotes, "the API gives the worker's quotes")
    until(lambda: pair.web.get("/api/bars?symbol=ES&limit=5")[1]["bars"], "the API gives the worker's bars", 60)
    assert pair.web.get("/api/health")[0] == 200, "the API's own container is healthy"
    until(lambda: not red(pair.web) and not red(pair.worker), "both doctors are content")
    assert lines(pair.worker)["agreement"]["verdict"] == "yellow"
    assert lines(pair.web)["agreement"]["verdict"] == "green"


def test_a_container_that_runs_what_is_not_its_role_is_told(pair: Pair) -> None:
    pair.worker.up()
    pair.web.up()
    supervisorctl(pair.worker, "start", "thor:httpd")
    found = until(lambda: red(pair.worker), "the worker's doctor tells")
    assert list(found) == ["role"]
    assert "httpd" in found["role"]
    supervisorctl(pair.worker, "stop", "thor:httpd")
    supervisorctl(pair.web, "start", "thor:watchdog")
    found = until(lambda: red(pair.web), "the API's doctor tells")
    assert list(found) == ["role"]
    assert "watchdog" in found["role"]
    supervisorctl(pair.web, "stop", "thor:watchdog")


def test_an_api_container_without_servers_named_is_refused(tmp_path: Path) -> None:
    alone = Stack(
        {
            "THOR_DIR": str(tmp_path / "web"),
            "THOR_PORT_BASE": str(free_port_base()),
            "THOR_STACK_AUTO_START": "0",
            "THOR_ENV_FILE": os.devnull,
        }
    )
    done = alone.thor("up")
    assert done.returncode == 1
    assert "THOR_STACK_AUTO_START=0: expected DB_HOST and REDIS_URL" in done.stderr


def test_a_served_container_ends_clean_on_term(pair: Pair) -> None:
    """What the image runs: it stays in the foreground, says its log, and TERM leaves nothing behind."""
    environment = {"PATH": os.environ["PATH"], **pair.worker.environment}
    command = [sys.executable, "-m", "thor", "serve"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as served:
        until(lambda: running(pair.worker) == PROCESSES.keys() - {"httpd"}, "all run", 60)
        ready = [sys.executable, "-m", "thor.runtime.ready"]
        until(
            lambda: not subprocess.run(ready, cwd=ROOT, env=environment, check=False).returncode,
            "the container is ready",
            60,
        )
        served.terminate()
        said, _ = served.communicate(timeout=30)
        assert served.returncode == 0
    assert "ingester starts" in said
    assert left_behind(pair.worker.settings.dir) == []
