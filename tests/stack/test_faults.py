"""What must not go wrong: rivals, garbage, Redis away, bad input. Real processes, real servers."""

from __future__ import annotations

import gzip
import os
import random
import signal
import socket
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.stack.conftest import Stack
from thor.runtime.settings import ROOT
from thor.stores.log import writer_state

GARBAGE = ("nan", "inf", "-inf", "1e308", "abc", "-1", "0x10", "1,5", "１２", "4800.1234567891", "", "--", "1e-400")


def by_hand(stack: Stack, process: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start a copy of a process and wait for its end."""
    command = [sys.executable, "-m", f"daemons.{process}"]
    own = {"PATH": os.environ["PATH"], **stack.environment, **environment}
    return subprocess.run(command, env=own, cwd=ROOT, text=True, capture_output=True, timeout=60, check=False)


def elsewhere(stack: Stack, tmp_path: Path) -> dict[str, str]:
    """The environment of another host that shares the servers: no lock stops it."""
    settings = stack.settings
    (tmp_path / "other").mkdir(exist_ok=True)
    return {
        "THOR_DIR": str(tmp_path / "other"),
        "THOR_PORT_BASE": str(settings.port_base + 40),
        "DB_HOST": settings.db_host,
        "DB_PORT": str(settings.db_port),
        "DB_NAME": settings.db_name,
        "DB_USER": settings.db_user,
        "DB_PASSWORD": settings.db_password,
        "REDIS_URL": settings.redis_url,
    }


def balance(stack: Stack) -> None:
    """Per symbol and trade date, bars and gaps hold what the feed's own counter says."""
    days = stack.rows("SELECT instrument_id, feed_volume - baseline, volume + gap_volume FROM days")
    assert days
    for instrument, told, stored in days:
        assert told == stored, f"instrument {instrument}: the feed says {told}, the tables {stored}"


def test_a_second_copy_of_a_process_ends_with_one_clear_line_and_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    stack.environment |= {"THOR_INGESTER__SIMULATOR__RATE": "200", "THOR_INGESTER__SIMULATOR__STYLE": "snapshot"}
    stack.up()
    for process in ("ingester", "intraday", "vwap"):
        copy = by_hand(stack, process)
        assert copy.returncode == 3
        assert "already runs" in copy.stderr
    other = elsewhere(stack, tmp_path)
    copy = by_hand(stack, "ingester", **other)
    assert copy.returncode != 0
    assert "another ingester writes the log" in copy.stderr
    copies = [
        subprocess.Popen(
            [sys.executable, "-m", f"daemons.{process}"],
            env={"PATH": os.environ["PATH"], **stack.environment, **other},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in ("intraday", "vwap")
    ]
    time.sleep(5)
    for started in copies:
        started.send_signal(signal.SIGTERM)
        started.communicate(timeout=20)
    time.sleep(1)
    stack.thor("down")
    stack.up()
    balance(stack)
    assert stack.rows("SELECT sum(missed) FROM positions") == [(0,)]


@pytest.mark.slow
def test_100_000_malformed_entries_harm_nothing_and_the_good_ones_between_are_there(stack: Stack) -> None:
    seed = 100
    dice = random.Random(seed)
    stack.environment["DATA_PROVIDER"] = "inbox"
    stack.up()
    pids = {p["name"]: p["pid"] for p in stack.status()["processes"]}
    client = stack.redis()
    fields = ("last", "bid", "ask", "last_size", "bid_size", "volume", "open", "high", "low", "close", "ts")
    good, volume, sent = 0, 0, 0
    names = ["ES", "/ES", "es", "ZZTOP", "", "x" * 5000, "ES\n", "\udcff".encode("utf-8", "surrogateescape")]
    for _ in range(100):
        pipe = client.pipeline(transaction=False)
        for _ in range(1000):
            bad = {name: dice.choice(GARBAGE) for name in dice.sample(fields, dice.randint(0, 6))}
            entry: dict[Any, Any] = {"symbol": dice.choice(names), "source": "FUZZ", **bad}
            if dice.random() < 0.3:
                entry["ts"] = dice.choice(["yesterday", "2013-10-08T00:00:00Z", "1e30", "9999999999", "2024-01-01"])
            if dice.random() < 0.001:
                entry["last"] = "9" * 1_000_000
            pipe.xadd("quotes:in", entry)
            sent += 1
            if dice.random() < 0.05:
                size = dice.randint(1, 9)
                pipe.xadd("quotes:in", {"symbol": "NQ", "last": "17000.25", "last_size": size, "source": "GOOD"})
                good, volume, sent = good + 1, volume + size, sent + 1
        pipe.execute()
    until(
        lambda: sum(int(writer_state(client).get(f"count:{name}", 0)) for name in ("accepted", "rejected")) == sent,
        f"{sent} entries are accepted or refused",
        120,
    )

    def committed() -> bool:
        found = stack.rows(
            "SELECT sum(updates), sum(volume) FROM bars JOIN instruments i ON i.id = instrument_id WHERE symbol = 'NQ'"
        )
        return found == [(good, Decimal(volume))]

    until(committed, "every good quote is on a bar")
    assert {p["name"]: p["pid"] for p in stack.status()["processes"]} == pids
    held = writer_state(client)
    reasons = {name.split(":")[2]: int(n) for name, n in held.items() if name.startswith("count:rejected:")}
    assert sum(reasons.values()) == int(held["count:rejected"])
    assert {"unknown_symbol", "bad_number", "bad_ts", "bad_symbol"} <= reasons.keys()
    client.close()


def test_while_redis_is_away_nothing_of_a_feed_that_cannot_wait_is_lost(stack: Stack) -> None:
    stack.environment |= {"THOR_INGESTER__SIMULATOR__RATE": "300", "THOR_INGESTER__SIMULATOR__STYLE": "snapshot"}
    stack.up()
    for _ in range(3):
        time.sleep(1)
        assert stack.kill("redis")
    pid = stack.pid("redis")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(5)
    os.kill(pid, signal.SIGCONT)
    until(lambda: all(p["state"] in ("running", "idle") for p in stack.status()["processes"]), "all run again")
    stack.thor("down")
    stack.up()
    balance(stack)
    assert stack.rows("SELECT sum(missed) FROM positions") == [(0,)]
    client = stack.redis()
    assert "count:dropped" not in writer_state(client)
    client.close()


def refused(stack: Stack, *words: str) -> str:
    """The one line of an `up` that must fail, with nothing left running and nothing half done."""
    done = stack.thor("up", *words)
    assert done.returncode != 0
    line = done.stderr.strip()
    assert "\n" not in line, line
    assert "Traceback" not in line
    assert not (stack.settings.dir / "pg18").exists()
    return line


def test_bad_input_is_one_clear_line_before_anything_starts(stack: Stack, tmp_path: Path) -> None:
    recording = tmp_path / "r.csv"
    recording.write_text("ts,symbol,last,last_size\n2024-01-09T15:00:00Z,ESH4,4800,1\n")
    assert "missing.csv" in refused(stack, "--replay", str(tmp_path / "missing.csv"))
    assert "XX" in refused(stack, "--replay", str(recording), "--map", "ESH4=XX")
    assert "ESH4" in refused(stack, "--replay", str(recording))
    packed = gzip.compress(recording.read_bytes() * 500)
    torn = tmp_path / "torn.csv.gz"
    torn.write_bytes(packed[: len(packed) // 2])
    assert "torn.csv.gz" in refused(stack, "--replay", str(torn), "--map", "ESH4=ES")
    config = tmp_path / "config"
    config.mkdir()
    for file in (ROOT / "config").glob("*.yaml"):
        text = file.read_text()
        if file.name == "intraday.yaml":
            text += "surprise: 1\n"
        (config / file.name).write_text(text)
    stack.environment["THOR_CONFIG_DIR"] = str(config)
    line = refused(stack)
    assert "intraday.yaml" in line
    assert "surprise" in line
    del stack.environment["THOR_CONFIG_DIR"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", stack.settings.api_port))
        taken.listen()
        assert str(stack.settings.api_port) in refused(stack)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a disk that is full")
def test_a_full_disk_for_the_spool_is_said_once_and_costs_no_accepted_quote(stack: Stack) -> None:
    spool = stack.settings.dir / "spool"
    spool.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(spool)], check=False).returncode:
        pytest.skip("this sandbox allows no mount")
    try:
        stack.environment |= {"THOR_INGESTER__SIMULATOR__RATE": "500", "THOR_INGESTER__SIMULATOR__STYLE": "snapshot"}
        stack.up()
        pid = stack.pid("redis")
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: "the spool is full" in stack.logs(), "the full disk is told", 60)
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: "the spool is drained" in stack.logs(), "the spool drains", 30)
        time.sleep(1)
        stack.thor("down")
        stack.up()
        balance(stack)
        text = (stack.settings.log / "ingester.log").read_text()
        assert text.count("the spool is full") == 1
    finally:
        stack.thor("down")
        subprocess.run(["umount", str(spool)], check=False)


def test_a_recording_is_not_counted_twice_when_redis_was_emptied(stack: Stack, tmp_path: Path) -> None:
    rows = [f"2024-01-09T15:00:{n:02d}Z,ES,4800,1" for n in range(60)]
    file = tmp_path / "r.csv"
    file.write_text("\n".join(["ts,symbol,last,last_size", *rows, ""]))
    stack.up("--replay", str(file), "--speed", "max", "--wait")
    client = stack.redis()
    client.flushall()
    client.close()
    stack.down()
    done = stack.thor("up", "--replay", str(file), "--speed", "max", "--wait", timeout_s=180)
    assert done.returncode != 0
    assert "Redis was emptied" in done.stderr
    stack.up("--fresh", "--replay", str(file), "--speed", "max", "--wait")
    assert stack.rows("SELECT sum(volume) FROM bars") == [(60,)]
