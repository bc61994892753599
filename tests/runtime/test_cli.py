"""What a slip of the user's costs: one line, a code that is not 0, nothing started."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import free_port_base
from thor.runtime.config import shown
from thor.runtime.settings import ROOT

HEADER = "ts,symbol,last,last_size\n"


def thor(directory: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "THOR_DIR": str(directory), "THOR_PORT_BASE": str(free_port_base()), **env}
    command = [sys.executable, "-c", "from thor.cli import main; main()", *args]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def refused(directory: Path, *args: str, **env: str) -> str:
    done = thor(directory, *args, **env)
    assert done.returncode != 0
    assert done.stderr.startswith("thor: ")
    assert done.stderr.count("\n") == 1
    assert not (directory / "run" / "supervisord.pid").exists()
    assert not (directory / "source.json").exists()
    return done.stderr.strip().removeprefix("thor: ")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "es.csv"
    path.write_text(f"{HEADER}2024-01-02T15:00:00Z,ESH4,4800.25,1\n")
    return path


def test_a_missing_recording(thor_dir: Path) -> None:
    assert "nowhere.csv" in refused(thor_dir, "up", "--replay", "nowhere.csv")


def test_a_truncated_gz(thor_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "es.csv.gz"
    rows = "".join(f"2024-01-02T15:00:{n % 60:02}Z,ES,{4800 + n % 7},1\n" for n in range(5000))
    path.write_bytes(gzip.compress((HEADER + rows).encode())[:-200])
    assert str(path) in refused(thor_dir, "up", "--replay", str(path))


def test_an_unknown_symbol_in_map(thor_dir: Path, recorded: Path) -> None:
    said = refused(thor_dir, "up", "--replay", str(recorded), "--map", "ESH4=NOPE")
    assert "--map ESH4=NOPE" in said


def test_a_recording_of_unknown_symbols(thor_dir: Path, recorded: Path) -> None:
    assert "--add-instruments" in refused(thor_dir, "up", "--replay", str(recorded))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--map", "ESH4"], "--map: expected with --replay FILE"),
        (["--wait"], "--wait: expected with --replay FILE"),
        (["--replay", "{}", "--map", "ESH4"], "--map: expected RECORDED=SYMBOL such as ESH4=ES, found 'ESH4'"),
        (
            ["--replay", "{}", "--map", "ESH4=ES", "--speed", "-1"],
            "--speed: expected max or a factor above 0, found '-1'",
        ),
    ],
)
def test_options_that_make_no_sense(thor_dir: Path, recorded: Path, args: list[str], said: str) -> None:
    assert refused(thor_dir, "up", *[arg.format(recorded) for arg in args]) == said


def test_a_wrong_configuration(thor_dir: Path) -> None:
    said = refused(thor_dir, "up", THOR_INGESTER__NONSENSE="1")
    assert said == "THOR_INGESTER__NONSENSE: nonsense: unknown key"


def test_a_wrong_file_of_instruments(thor_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("BTC: {name: Bitcoin}\n")
    said = refused(thor_dir, "up", "--instruments", str(path))
    assert said == f"{shown(path)}:1:6: instruments.BTC.exchange: expected, found nothing"


def test_a_port_in_use_is_named_before_anything_starts(thor_dir: Path) -> None:
    base = free_port_base()
    with socket.create_server(("127.0.0.1", base + 13)):
        said = refused(thor_dir, "up", THOR_PORT_BASE=str(base))
    assert said.startswith(f"port {base + 13} (health of vwap) is in use: ")


def test_a_database_that_does_not_answer(thor_dir: Path) -> None:
    said = refused(thor_dir, "migrate", DB_HOST="127.0.0.1", DB_PORT="1", DB_PASSWORD="hush-hush")
    assert said.startswith("Postgres does not answer: ")
    assert "hush" not in said


def test_a_command_that_does_not_exist(thor_dir: Path) -> None:
    assert refused(thor_dir, "upp").startswith("No such command 'upp'")


def test_nothing_runs_and_down_says_so(thor_dir: Path) -> None:
    done = thor(thor_dir, "down")
    assert (done.returncode, done.stdout) == (0, f"Thor does not run ({thor_dir}).\n")
