"""`python3 -m thor markets` and `sessions` where no stack runs: the libraries answer instead of the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from thor.runtime.settings import ROOT


def thor(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "THOR_DIR": str(directory), "DB_HOST": "127.0.0.1", "DB_PORT": "1"}
    environment["REDIS_URL"] = "redis://127.0.0.1:1/0"
    command = [sys.executable, "-m", "thor", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def answered(directory: Path, *words: str) -> Any:  # noqa: ANN401
    done = thor(directory, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_any_instant_is_told_without_a_stack(tmp_path: Path) -> None:
    told = answered(tmp_path, "markets", "--at", "2024-11-05T06:16:00Z")
    assert (told["as_of"], told["composite"], told["phase"]) == ("2024-11-05T06:16:00Z", "40", "ASIAN")
    assert told["markets"][0]["status"] == "PRECLOSE"
    assert told["markets"][0]["session"]["source"] == "exchange-calendars 4.13.2"


def test_without_an_instant_and_without_a_log_it_is_now(tmp_path: Path) -> None:
    assert len(answered(tmp_path, "markets")["markets"]) == 9


def test_sessions_are_listed_with_their_source(tmp_path: Path) -> None:
    rows = answered(tmp_path, "sessions", "--market", "India", "--from", "2024-11-01", "--to", "2024-11-04")
    assert [(row["date"], row["kind"], row["note"], row["opens"]) for row in rows] == [
        ("2024-11-01", "special", "Muhurat", "2024-11-01T12:30:00Z")
    ]
    shown = thor(tmp_path, "sessions", "--market", "CFE", "--from", "2026-11-23", "--to", "2026-11-28")
    assert "pandas-market-calendars 5.5.0" in shown.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("markets", "--at", "yesterday"), "--at: expected RFC 3339"),
        (("sessions", "--market", "Atlantis"), "expected one of Tokyo"),
        (("sessions", "--from", "soon"), "--from: expected a date such as"),
        (("sessions", "--from", "9999-12-25"), "--from: expected a date from"),
        (("sessions", "--from", "2024-02-01", "--to", "2024-01-01"), "--to: expected a date after 2024-02-01"),
    ],
)
def test_a_slip_is_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = thor(tmp_path, *words)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
