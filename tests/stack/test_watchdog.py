"""What hangs is found, explained and restarted; what does not is left alone. Real processes, real servers."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.conftest import until
from tests.stack.conftest import Stack, left_behind
from tests.stack.faulty import DEADLINE_S, HANGS
from thor.runtime import heartbeat
from thor.runtime.process import alive, holder
from thor.runtime.supervisor import Program, Supervisor
from thor.stores.log import positions, writer_state

PROGRAM = """\
[program:{name}]
command = %(ENV_THOR_PYTHON)s -m tests.stack.faulty {name}
directory = %(here)s
autostart = false
autorestart = true
startretries = 1000000
stopwaitsecs = 20
redirect_stderr = true
stdout_logfile = %(ENV_THOR_DIR)s/log/{name}.log
"""
OURS = ("ingester", "intraday", "vwap", "httpd")
#: Everything but wall clocks and the log's own numbers.
TABLES = {
    "bars": "revised_at",
    "books": "",
    "gaps": "",
    "days": "",
    "vwap_minutes": "revised_at",
}


def also(stack: Stack, *names: str) -> None:
    """Programs of tests.stack.faulty beside the stack's own, before it starts."""
    folder = stack.settings.dir / "supervisord.d"
    folder.mkdir(parents=True)
    for name in names:
        text = PROGRAM.format(name=name).replace("%(here)s", str(Path(__file__).parents[2]))
        (folder / f"{name}.conf").write_text(text)


def pid_of(stack: Stack, name: str) -> int:
    """Who holds the lock of a process now, 0 for nobody."""
    return holder(stack.settings.run / f"{name}.lock") or 0


def events(stack: Stack, *rules: str) -> list[dict[str, Any]]:
    """What `python3 -m thor events` tells of these rules, else of everything that was done to a process."""
    done = stack.thor("events", "--json", "-n", "500")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    deeds = ("kill", "restart", "stop", "start", "reconnect")
    return [row for row in rows if (row["rule"] in rules if rules else row["action"] in deeds)]


def replaced(stack: Stack, name: str, pid: int, within_s: float) -> int:
    """Wait for another life of a process, at work; its pid."""

    def look() -> int:
        new = pid_of(stack, name)
        beat = heartbeat.read(stack.settings.run / "heartbeat" / name)
        return new if new not in (0, pid) and beat and beat.pid == new and beat.loops else 0

    return until(look, f"{name} is replaced and at work", within_s)


def supervisor(stack: Stack) -> Supervisor:
    return Supervisor(stack.settings)


def program(stack: Stack, name: str) -> Program:
    return supervisor(stack).programs()[name]


@contextmanager
def hogs(n: int) -> Iterator[None]:
    """So many processes that want a processor each."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()


def recording(path: Path, seed: int, minutes: int = 10) -> Path:
    """Prints of three symbols, in order."""
    dice, at = random.Random(seed), datetime(2024, 1, 9, 15, tzinfo=UTC)
    prices = {"ES": 4800.0, "NQ": 17000.0, "YM": 37500.0}
    rows = ["ts,symbol,last,last_size"]
    for _ in range(minutes * 600):
        at += timedelta(milliseconds=dice.randint(20, 180))
        symbol = dice.choice(list(prices))
        prices[symbol] += dice.choice((-1, 0, 1))
        rows.append(f"{at.isoformat().replace('+00:00', 'Z')},{symbol},{prices[symbol]},{dice.randint(1, 9)}")
    path.write_text("\n".join(rows) + "\n")
    return path


def tables(stack: Stack) -> dict[str, list[tuple[Any, ...]]]:
    """Every derived table, row by row."""
    found = {}
    for table, without in TABLES.items():
        names = stack.rows(
            "SELECT column_name::text FROM information_schema.columns WHERE table_name = %s ORDER BY 1", table
        )
        columns = ", ".join(name for (name,) in names if name not in (without, "revision"))
        found[table] = sorted(stack.rows(f"SELECT {columns} FROM {table}"), key=str)
    return found


def test_every_way_to_hang_is_found_explained_and_restarted(stack: Stack) -> None:
    names = (*HANGS, "cancelled", "leak")
    also(stack, *names)
    stack.environment |= {
        "THOR_WATCHDOG__RULES__PROGRESS_OF__CANCELLED": "3",
        "THOR_WATCHDOG__RULES__HARD_MIB__LEAK": "120",
    }
    stack.up()
    for name in names:
        supervisor(stack).start_one(program(stack, name))
    for name in names:
        until(lambda name=name: pid_of(stack, name), f"{name} runs")  # type: ignore[misc]
    time.sleep(1)
    for name in names:
        pid = pid_of(stack, name)
        began = time.monotonic()
        (stack.settings.dir / f"fault-{name}").touch()
        until(lambda name=name, pid=pid: pid_of(stack, name) != pid, f"{name} is ended", 15)  # type: ignore[misc]
        took = time.monotonic() - began
        leaked_s = (120 - 30) / 20
        assert took < (leaked_s if name == "leak" else DEADLINE_S) + 2, f"{name}: {took:.1f} s"
        replaced(stack, name, pid, 10)
        log = (stack.settings.log / f"{name}.log").read_text()
        assert "Current thread" in log or "most recent call first" in log
        if name in HANGS:
            assert f"in {name}" in log
    until(lambda: len(events(stack)) >= len(names), "every decision is a row")
    told = {row["process"]: (row["rule"], row["action"]) for row in events(stack)}
    assert told == dict.fromkeys(HANGS, ("dead_loop", "kill")) | {
        "cancelled": ("no_progress", "restart"),
        "leak": ("memory", "restart"),
    }


def test_each_process_frozen_in_turn_is_replaced_and_the_tables_are_those_of_a_quiet_run(
    stack: Stack, tmp_path: Path
) -> None:
    seed = int(time.time())
    print(f"seed {seed}")  # noqa: T201
    file = recording(tmp_path / "r.csv", seed)
    stack.up("--replay", str(file), "--speed", "max", "--wait")
    quiet = tables(stack)
    assert len(quiet["bars"]) >= 30
    stack.up("--fresh", "--replay", str(file), "--speed", "24")
    frozen: dict[str, tuple[int, float]] = {}
    deadline_s = 10
    for name in OURS:
        time.sleep(2.5)
        pid = pid_of(stack, name)
        os.kill(pid, signal.SIGSTOP)
        frozen[name] = pid, time.monotonic()
    for name, (pid, at) in frozen.items():
        until(lambda name=name, pid=pid: pid_of(stack, name) != pid, f"{name} is ended", 20)  # type: ignore[misc]
        assert time.monotonic() - at < deadline_s + 2, name
        replaced(stack, name, pid, 10)
        assert "daemon.py" in (stack.settings.log / f"{name}.log").read_text()
    stack.finish()
    assert tables(stack) == quiet
    assert stack.rows("SELECT sum(missed) FROM positions") == [(0,)]
    assert [row["process"] for row in events(stack)] == list(OURS)


LONG = pytest.mark.skipif(not os.environ.get("TEST_LONG"), reason="takes five minutes; TEST_LONG=1 runs it")


@pytest.mark.parametrize(
    "away_s",
    [30, pytest.param(300, marks=[pytest.mark.timeout(700), LONG])],
)
def test_a_starved_host_and_postgres_away_restart_nobody(stack: Stack, away_s: float) -> None:
    stack.up()
    before = {name: pid_of(stack, name) for name in OURS}
    postgres = program(stack, "postgres")
    with hogs(10):
        supervisor(stack).stop_one(postgres)
        until(lambda: program(stack, "postgres").state == "STOPPED", "Postgres is away", 20)
        gone = time.monotonic()
        time.sleep(20)
    assert not_ready(stack, "intraday") == (200, 503)
    time.sleep(away_s - (time.monotonic() - gone))
    assert program(stack, "postgres").state == "STOPPED"  # what the operator stopped stays stopped
    supervisor(stack).start_one(postgres)
    until(lambda: not_ready(stack, "intraday") == (200, 200), "intraday is ready again", 8)
    assert {name: pid_of(stack, name) for name in OURS} == before
    assert events(stack) == []


def not_ready(stack: Stack, name: str) -> tuple[int, int]:
    """Liveness and readiness of a process."""
    found = []
    for path in ("/healthz", "/readyz"):
        connection = http.client.HTTPConnection("127.0.0.1", stack.settings.health_port(name), timeout=5)
        connection.request("GET", path)
        found.append(connection.getresponse().status)
        connection.close()
    return found[0], found[1]


def test_what_was_frozen_together_with_the_watchdog_is_left_alone(stack: Stack) -> None:
    stack.up()
    names = ("watchdog", "intraday")
    before = {name: pid_of(stack, name) for name in (*OURS, "watchdog")}
    for name in names:
        os.kill(before[name], signal.SIGSTOP)
    time.sleep(20)
    for name in names:
        os.kill(before[name], signal.SIGCONT)
    until(lambda: events(stack, "own_gap"), "the watchdog tells its gap")
    time.sleep(11)
    assert {name: pid_of(stack, name) for name in before} == before
    assert events(stack) == []


def test_a_crash_loop_ends_in_quarantine_and_heals_by_itself_once_its_cause_is_gone(stack: Stack) -> None:
    also(stack, "crash")
    stack.environment |= {"THOR_WATCHDOG__RULES__RETRY_S": "4", "THOR_WATCHDOG__RULES__SETTLED_S": "3"}
    stack.up()
    before = {name: pid_of(stack, name) for name in OURS}
    broken = stack.settings.dir / "fault-crash"
    broken.touch()
    supervisor(stack).start_one(program(stack, "crash"))
    until(lambda: program(stack, "crash").state == "STOPPED", "it is in quarantine", 60)
    until(lambda: len(events(stack, "quarantine")) >= 3, "it was tried again, and stopped again", 20)
    assert metric(stack, 'thor_watchdog_quarantined{process="crash"}') == 1
    broken.unlink()
    until(lambda: events(stack, "quarantine")[-1]["action"] == "clear", "it is healed", 20)
    assert program(stack, "crash").state == "RUNNING"
    # What the operator stops stays stopped, and what he pauses is left alone.
    supervisor(stack).stop_one(program(stack, "crash"))
    assert stack.thor("pause", "vwap", "--for", "1h").returncode == 0
    os.kill(before["vwap"], signal.SIGSTOP)
    time.sleep(12)
    assert pid_of(stack, "vwap") == before["vwap"]
    assert program(stack, "crash").state == "STOPPED"
    assert stack.thor("resume", "vwap").returncode == 0
    replaced(stack, "vwap", before["vwap"], 8)
    assert {name: pid_of(stack, name) for name in OURS if name != "vwap"} == {
        name: pid for name, pid in before.items() if name != "vwap"
    }


def metric(stack: Stack, name: str) -> float:
    """One figure of the watchdog's /metrics."""
    with urlopen(f"http://127.0.0.1:{stack.settings.health_port('watchdog')}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_a_frozen_supervisord_stops_no_quote_and_a_killed_one_leaves_nobody(stack: Stack) -> None:
    stack.environment |= {"THOR_INGESTER__SIMULATOR__RATE": "300"}
    stack.up()
    client = stack.redis()
    found = supervisor(stack).pid()
    assert found
    hung = pid_of(stack, "vwap")
    for pid in (found, hung):
        os.kill(pid, signal.SIGSTOP)
    until(lambda: not alive(hung), "a hung process is ended without supervisord", 25)
    until(lambda: events(stack, "frozen"), "the frozen supervisord is told", 20)
    before = int(writer_state(client)["n"])
    time.sleep(8)
    n = int(writer_state(client)["n"])
    assert n > before + 10
    assert positions(client)["intraday"] > before
    os.kill(found, signal.SIGCONT)
    replaced(stack, "vwap", hung, 10)
    client.close()
    os.kill(found, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: left_behind(stack.settings.dir) == [], "every child is gone", 3)
    assert time.monotonic() - killed < 1
    stack.up()
    assert stack.rows("SELECT sum(missed) FROM positions") == [(0,)]


def test_term_of_the_whole_stack_under_load_takes_less_than_10_s_and_loses_nothing(stack: Stack) -> None:
    stack.environment |= {"THOR_INGESTER__SIMULATOR__RATE": "5000", "THOR_INGESTER__SIMULATOR__STYLE": "snapshot"}
    stack.up()
    time.sleep(2)
    pid = supervisor(stack).pid()
    assert pid
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    until(lambda: left_behind(stack.settings.dir) == [], "every process is gone", 20)
    assert time.monotonic() - began < 10
    stack.up()
    days = stack.rows("SELECT feed_volume - baseline - volume - gap_volume FROM days")
    assert days
    assert {row[0] for row in days} == {0}
    assert stack.rows("SELECT sum(missed) FROM positions") == [(0,)]
    assert events(stack) == []


def test_a_mute_source_is_connected_anew_twice_before_the_ingester_is_restarted(stack: Stack, tmp_path: Path) -> None:
    instruments = tmp_path / "own.yaml"
    instruments.write_text("instruments:\n  BTC: {name: Bitcoin, exchange: X, tick_size: 1, hours: Always}\n")
    rules = {"LIQUID_S": "2", "USUAL_GAPS": "2", "EDGE_S": "0", "RETRY_S": "2"}
    stack.environment |= {f"THOR_WATCHDOG__SOURCES__{name}": value for name, value in rules.items()}
    stack.environment["DATA_PROVIDER"] = "inbox"
    stack.up("--instruments", str(instruments))
    client, before = stack.redis(), {name: pid_of(stack, name) for name in OURS}

    def speak(for_s: float) -> None:
        until_s = time.monotonic() + for_s
        while time.monotonic() < until_s:
            client.xadd("quotes:in", {"symbol": "BTC", "last": "50000", "last_size": "1", "source": "DESK"})
            time.sleep(0.2)

    speak(8)
    assert events(stack, "mute_source") == []
    replaced(stack, "ingester", before["ingester"], 30)
    done = [row["action"] for row in events(stack, "mute_source") if row["process"] == "ingester"]
    assert done == ["reconnect", "reconnect", "restart"]
    assert (stack.settings.log / "ingester.log").read_text().count("connected anew") == 2
    speak(4)
    until(lambda: events(stack, "mute_source")[-1]["action"] == "clear", "it is heard again", 10)
    client.close()
    assert {name: pid_of(stack, name) for name in OURS[1:]} == {name: before[name] for name in OURS[1:]}
