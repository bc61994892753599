"""Commands that look at a stack which runs, and steer it; ``thor.cli`` takes them in."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from thor.runtime import status
from thor.runtime.settings import PROCESSES, Settings
from thor.runtime.supervisor import Supervisor

app = typer.Typer()
console = Console(highlight=False, soft_wrap=True)


class Refused(ValueError):
    """Options that do not go together."""


@app.command(name="status")
def status_(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Every process: state, age of its heartbeat, lag."""
    settings = Settings.from_env()
    running = Supervisor(settings).answers()
    rows = status.rows(settings)
    if as_json:
        keys = ("name", "pid", "state", "heartbeat_age_s", "lag")
        processes = [{key: getattr(row, key) for key in keys} for row in rows]
        sys.stdout.write(json.dumps({"api": settings.api, "running": running, "processes": processes}) + "\n")
        return
    table = Table("process", "pid", "state", "heartbeat", "lag", "")
    for row in rows:
        age = "" if row.heartbeat_age_s is None else f"{row.heartbeat_age_s:.1f} s"
        table.add_row(row.name, str(row.pid or ""), row.state, age, "" if row.lag is None else str(row.lag), row.why)
    console.print(table)
    console.print(f"{'API ' + settings.api if running else 'Thor does not run'} ({settings.dir})")


@app.command()
def logs(
    process_name: Annotated[str, typer.Argument(metavar="[PROCESS]")] = "",
    follow: Annotated[bool, typer.Option("-f", help="Go on as lines come.")] = False,
    n: Annotated[int, typer.Option("-n", help="Lines of each.")] = 30,
) -> None:
    """What the processes say."""
    settings = Settings.from_env()
    names = ("supervisord", "postgres", "redis", *PROCESSES)
    if process_name and process_name not in names:
        raise Refused(f"logs: expected one of {', '.join(names)}, found {process_name!r}")
    paths = {name: settings.log / f"{name}.log" for name in names if process_name in ("", name)}
    ends = {name: _show_end(path, n) for name, path in paths.items() if path.exists()}
    if not ends:
        raise Refused(f"logs: expected {settings.log}/{process_name or '*'}.log, found none")
    while follow:
        time.sleep(0.2)
        for name, end in ends.items():
            ends[name] = _show_from(paths[name], end)


def _show_end(path: Path, n: int) -> int:
    with path.open("rb") as file:
        for line in deque(file, maxlen=n):
            _show(line)
        return file.tell()


def _show_from(path: Path, end: int) -> int:
    try:
        with path.open("rb") as file:
            file.seek(end if end <= file.seek(0, os.SEEK_END) else 0)  # a shorter file is a new one: it was rotated
            for line in file:
                _show(line)
            sys.stdout.flush()
            return file.tell()
    except FileNotFoundError:  # in the middle of its rotation
        return 0


def _show(line: bytes) -> None:
    text = line.decode(errors="replace").rstrip()
    try:
        record = json.loads(text)
        text = f"{record['ts']} {record['level']:<7} {record['process']:<8} {record['message']}"
        text += "\n" + record["traceback"] if record.get("traceback") else ""
    except (ValueError, KeyError, TypeError):
        pass
    sys.stdout.write(text + "\n")
