"""What the whole stack does on this machine, one JSON line a run.

    python3 -m bench.stack throughput [--symbols 11] [--quotes 5000000]   quotes a second, memory to committed tables
    python3 -m bench.stack latency [--rate 5000] [--seconds 30]           accepted quote to committed bar, ms
    python3 -m bench.stack idle [--rate 100] [--seconds 60]               CPU of all processes, memory of ours
    python3 -m bench.stack start                                          seconds from `up` to all ready

Each runs a stack of its own in a temporary folder and takes it down again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import psycopg
import redis
import yaml

from thor.domain.quotes import count_of, decode_head
from thor.runtime.settings import PROCESSES, ROOT, Settings
from thor.stores import keys
from thor.stores.log import Reader, positions, writer_state
from thor.stores.redis import connect

_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def stack(base: int, *words: str, **environment: str) -> Iterator[tuple[Settings, float]]:
    """A running stack: its settings and how long `up` took."""
    with tempfile.TemporaryDirectory(prefix="thor-bench-") as folder:
        own = {"THOR_DIR": f"{folder}/var", "THOR_PORT_BASE": str(base), "THOR_ENV_FILE": os.devnull, **environment}
        thor = [sys.executable, "-m", "thor"]
        whole = {**os.environ, **own}
        Path(folder).chmod(0o755)  # an embedded Postgres of root's runs as another user
        begun = time.monotonic()
        try:
            subprocess.run([*thor, "up", *words], cwd=ROOT, env=whole, check=True, stdout=sys.stderr)
            yield Settings.from_env(own), time.monotonic() - begun
        finally:
            subprocess.run([*thor, "down"], cwd=ROOT, env=whole, check=True, stdout=sys.stderr)


def machine() -> dict[str, Any]:
    """Facts a figure is worth nothing without."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "?")
    return {"cores": os.cpu_count(), "cpu": model, "python": platform.python_version(), "kernel": platform.release()}


def say(bench: str, **figures: object) -> None:
    """One line."""
    print(json.dumps({"bench": bench, **figures, "machine": machine()}))


def recording(folder: Path, symbols: int, quotes: int) -> tuple[Path, Path]:
    """A recording of prints as CSV columns in memory order, and the instruments it needs: one hour of trading."""
    names = [f"B{i:04d}" for i in range(symbols)]
    spec = {
        name: {"name": name, "exchange": "BENCH", "tick_size": "0.25", "tick_value": "1", "decimals": 2}
        for name in names
    }
    instruments = folder / "instruments.yaml"
    instruments.write_text(yaml.safe_dump({"instruments": spec}))
    dice = np.random.default_rng(1)
    which = dice.integers(0, symbols, quotes)
    price = 4000 + np.cumsum(dice.integers(-1, 2, quotes)) * 0.25 % 500
    size = dice.integers(1, 20, quotes)
    ts = np.datetime64("2024-01-09T15:00:00", "ns") + (np.arange(quotes) * (3_600_000_000_000 // quotes))
    file = folder / "recording.csv"
    with file.open("w") as out:
        out.write("ts,symbol,last,last_size\n")
        for at in range(0, quotes, 100_000):
            part = slice(at, at + 100_000)
            rows = zip(
                ts[part].astype(str), which[part].tolist(), price[part].tolist(), size[part].tolist(), strict=True
            )
            out.writelines(f"{t}Z,{names[i]},{p},{v}\n" for t, i, p, v in rows)
    return file, instruments


def throughput(base: int, symbols: int, quotes: int) -> None:
    """From the acceptance of the first entry to the commit of the last by every projection."""
    with tempfile.TemporaryDirectory() as folder:
        file, instruments = recording(Path(folder), symbols, quotes)
        watcher = _Watcher(base)
        words = ("--replay", str(file), "--speed", "max", "--in-memory", "--wait", "--instruments", str(instruments))
        watcher.start()
        with stack(base, *words) as (settings, _):
            watcher.join(60)
            with psycopg.connect(settings.dsn) as conn:
                stored = conn.execute("SELECT sum(volume), sum(updates), count(*) FROM bars").fetchone()
        if not stored or stored[1] != quotes:
            raise SystemExit(f"expected {quotes} quotes on the bars, found {stored}")
        seconds = watcher.seconds
        say("throughput", symbols=symbols, quotes=quotes, seconds=round(seconds, 3), rate=round(quotes / seconds))


class _Watcher(threading.Thread):
    """Sees from outside when the first entry was accepted and when the last was committed."""

    def __init__(self, base: int) -> None:
        super().__init__(daemon=True)
        self._client = connect(f"redis://127.0.0.1:{base + 79}/0", 30)
        self.seconds = float("nan")

    def run(self) -> None:
        begun = 0
        while True:
            try:
                if not begun:
                    for _, data in Reader(self._client, 0).read(0, 50):
                        if count_of(data):
                            begun = decode_head(data).accepted_at
                            break
                else:
                    ended = self._client.hget(keys.WRITER, "ended")
                    if ended and min(positions(self._client).values()) >= int(cast("bytes", ended)):
                        self.seconds = (time.time_ns() - begun) / 1e9
                        return
            except redis.RedisError:
                pass
            time.sleep(0.005)


def latency(base: int, rate: int, seconds: int) -> None:
    """How old each accepted entry is when another connection sees its commit, weighted by its quotes."""
    with stack(base, THOR_INGESTER__SIMULATOR__RATE=str(rate)) as (settings, _):
        client = connect(settings.redis_url)
        with psycopg.connect(settings.dsn, autocommit=True) as conn:
            ages = dict(_ages(client, conn, seconds))
        client.close()
    for name, found in ages.items():
        found.sort()
        cut = statistics.quantiles(found, n=100)
        say("latency", projection=name, rate=rate, quotes=len(found), p50_ms=cut[49], p99_ms=cut[98], max_ms=found[-1])


def _ages(client: redis.Redis, conn: psycopg.Connection, seconds: int) -> Iterator[tuple[str, list[float]]]:
    ages: dict[str, list[float]] = {"intraday": [], "vwap": []}
    waiting: dict[str, list[tuple[int, int, int]]] = {name: [] for name in ages}
    after, until = b"$", time.monotonic() + seconds
    while time.monotonic() < until:
        answer = cast("Any", client.xread({keys.LOG: after}, count=1000, block=2 if after != b"$" else 1000))
        for entry, fields in answer[0][1] if answer else []:
            after, head = entry, decode_head(fields[b"b"])
            for queue in waiting.values():
                queue.append((head.n, head.accepted_at, count_of(fields[b"b"])))
        now_done: dict[str, int] = dict(conn.execute("SELECT name, n FROM positions").fetchall())
        now = time.time_ns()
        for name, queue in waiting.items():
            while queue and queue[0][0] <= now_done.get(name, 0):
                _, at, count = queue.pop(0)
                ages[name] += [(now - at) / 1e6] * count
    yield from ages.items()


def idle(base: int, rate: int, seconds: int) -> None:
    """CPU of every process of the stack while quotes come, and the resident memory of ours."""
    with stack(base, THOR_INGESTER__SIMULATOR__RATE=str(rate)) as (settings, _):
        time.sleep(5)
        client = connect(settings.redis_url)
        accepted = -int(writer_state(client)["count:accepted"])
        before, begun = _cpu(settings.dir), time.monotonic()
        time.sleep(seconds)
        after, took = _cpu(settings.dir), time.monotonic() - begun
        accepted += int(writer_state(client)["count:accepted"])
        client.close()
        used = {name: round(100 * (after[name] - before.get(name, 0)) / took, 2) for name in after}
        say(
            "idle",
            rate=round(accepted / took, 1),
            cpu_percent_of_one_core=round(sum(used.values()), 2),
            by_process=used,
            rss_mb=_rss(settings),
        )


def _processes(directory: Path) -> Iterator[tuple[Path, str]]:
    """supervisord and everything below it."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(stat.parent.name))
    waiting = [int((directory / "run" / "supervisord.pid").read_text())]
    while waiting:
        pid = waiting.pop()
        waiting += parents.get(pid, [])
        process = Path("/proc") / str(pid)
        try:
            yield process, (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue


def _name(command: str) -> str:
    known = [*(f"daemons.{name}" for name in PROCESSES), "httpd", "supervisord", "postgres", "valkey", "redis"]
    return next((name.removeprefix("daemons.") for name in known if name in command), command[:30])


def _cpu(directory: Path) -> dict[str, float]:
    used: dict[str, float] = {}
    for process, command in _processes(directory):
        fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
        used[_name(command)] = used.get(_name(command), 0) + (int(fields[11]) + int(fields[12])) / _TICKS
    return used


def _rss(settings: Settings) -> dict[str, float]:
    found = {}
    for process, command in _processes(settings.dir):
        if (name := _name(command)) in PROCESSES:
            lines = (process / "status").read_text().splitlines()
            found[name] = round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024, 1)
    return found


def start(base: int) -> None:
    """`up` on an installed machine, twice: with an empty folder, and the second time."""
    with stack(base) as (_, took):
        say("start", seconds=round(took, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=("throughput", "latency", "idle", "start"))
    parser.add_argument("--base", type=int, default=26_000, help="THOR_PORT_BASE of the stack")
    parser.add_argument("--symbols", type=int, default=11)
    parser.add_argument("--quotes", type=int, default=5_000_000)
    parser.add_argument("--rate", type=int)
    parser.add_argument("--seconds", type=int)
    given = parser.parse_args()
    if given.bench == "throughput":
        throughput(given.base, given.symbols, given.quotes)
    elif given.bench == "latency":
        latency(given.base, given.rate or 5_000, given.seconds or 30)
    elif given.bench == "idle":
        idle(given.base, given.rate or 100, given.seconds or 60)
    else:
        start(given.base)


if __name__ == "__main__":
    main()
