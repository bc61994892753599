"""``python -m httpd``: one process among the others."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port_base, until
from thor.runtime.settings import ROOT


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A directory and ports of the test's own, with neither Postgres nor Redis."""
    return {**os.environ, "THOR_DIR": str(tmp_path), "THOR_PORT_BASE": str(free_port_base())}


@contextmanager
def running(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "httpd"]
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def get(port: int, path: str) -> tuple[int, Any] | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except OSError:
        return None
    finally:
        connection.close()
    return response.status, json.loads(body) if body.startswith(b"{") else body


def said(environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of a start that fails."""
    with running(environment) as process:
        output, _ = process.communicate(timeout=30)
        return process.returncode, output


def test_it_starts_without_servers_beats_measures_itself_and_ends_on_term(environment: dict[str, str]) -> None:
    base = int(environment["THOR_PORT_BASE"])
    with running(environment) as process:
        until(lambda: get(base + 1, "/favicon.ico"), "the API answers")
        until(lambda: (get(base + 14, "/readyz") or (0,))[0] == 200, "httpd is ready")
        answer = get(base + 1, "/api/health")
        assert answer is not None
        status, health = answer
        (own,) = (one for one in health["processes"] if one["name"] == "httpd")
        assert status == 503
        assert (own["name"], own["healthy"], own["state"], own["pid"]) == ("httpd", True, "running", process.pid)
        metrics = get(base + 14, "/metrics")
        assert metrics is not None
        assert b'thor_http_request_seconds_count{route="/api/health",status="503"} 1.0' in metrics[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_second_copy_is_refused(environment: dict[str, str]) -> None:
    base = int(environment["THOR_PORT_BASE"])
    with running(environment):
        until(lambda: get(base + 1, "/favicon.ico"), "the API answers")
        code, output = said(environment)
    assert code == 3
    assert "httpd already runs" in output


def test_a_port_in_use_is_one_clear_line(environment: dict[str, str]) -> None:
    port = int(environment["THOR_PORT_BASE"]) + 1
    with socket.create_server(("127.0.0.1", port)):
        code, output = said(environment)
    assert code == 1
    assert f"port {port} of 127.0.0.1 is in use" in output
    assert "Traceback" not in output


def test_another_bind_than_loopback_is_refused_in_one_line(environment: dict[str, str]) -> None:
    code, output = said(environment | {"THOR_HTTPD__HOST": "0.0.0.0"})
    assert code not in (0, 3)
    assert "host: must be a loopback address" in output
    assert "Traceback" not in output
