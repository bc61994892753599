"""Commands that look at a stack which runs, and steer it; ``thor.cli`` takes them in."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from thor.domain import diagnosis
from thor.runtime import doctor, pauses, status
from thor.runtime.config import BadConfig
from thor.runtime.settings import PROCESSES, BadSetting, Settings
from thor.runtime.supervisor import Frozen, Supervisor
from thor.stores import events as decided
from thor.stores import schema

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


@app.command()
def events(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    n: Annotated[int, typer.Option("-n", help="The newest so many.")] = 30,
) -> None:
    """What the watchdog decided: when, about whom, by which rule, what it saw and did."""
    with schema.connect(Settings.from_env().dsn) as conn:
        rows = decided.newest(conn, n)
    if as_json:
        for at, process, rule, action, evidence in rows:
            row = {"at": at.isoformat(), "process": process, "rule": rule, "action": action, "evidence": evidence}
            sys.stdout.write(json.dumps(row) + "\n")
        return
    table = Table("at", "process", "rule", "action", "evidence")
    for at, process, rule, action, evidence in rows:
        seen = ", ".join(f"{name} {value}" for name, value in evidence.items() if value not in ("", None))
        table.add_row(at.isoformat(sep=" ", timespec="milliseconds"), process, rule, action, escape(seen))
    console.print(table)


_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command()
def pause(
    process: Annotated[str, typer.Argument(metavar="[PROCESS]", help="Every one where none is named.")] = "",
    for_: Annotated[str, typer.Option("--for", help="90s, 10m, 2h, 1d.")] = "10m",
) -> None:
    """Have the watchdog leave a process alone for a while; it goes on to work."""
    number, unit = for_[:-1], _UNITS.get(for_[-1:], 0)
    if not (number.isascii() and number.isdigit() and int(number) and unit):
        raise Refused(f"--for: expected a number and s, m, h or d, found {for_!r}")
    pauses.pause(Settings.from_env(), _watched(process), time.time(), int(number) * unit)
    console.print(f"The watchdog leaves {process or 'every process'} alone for {for_}.")


@app.command()
def resume(process: Annotated[str, typer.Argument(metavar="[PROCESS]")] = "") -> None:
    """End a pause, or all of them."""
    if pauses.resume(Settings.from_env(), _watched(process), time.time()):
        console.print(f"The watchdog watches {process or 'every process'} again.")
    else:
        console.print("There was no such pause.")


def _watched(process: str) -> str:
    if process and process not in PROCESSES:
        raise Refused(f"expected one of {', '.join(PROCESSES)}, found {process!r}")
    return process or pauses.ALL


_COLOURS: Final = {"green": "green", "yellow": "yellow", "red": "bold red"}
_EVERY_S: Final = 5


@app.command(name="doctor")
def doctor_(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every five seconds.")] = False,
    pre_open: Annotated[bool, typer.Option("--pre-open", help="Also what must hold before a market opens.")] = False,
) -> None:
    """What is wrong, on one page: exit code 0 nothing, 1 something, 2 cannot be judged."""
    try:
        settings = Settings.from_env()
        while True:
            lines = diagnosis.judge(doctor.look(settings), pre_open=pre_open)
            if as_json:
                said = {"verdict": diagnosis.verdict(lines), "lines": [asdict(line) for line in lines]}
                sys.stdout.write(json.dumps(said) + "\n")
                sys.stdout.flush()
            else:
                if watch:
                    console.clear()
                _show_lines(lines)
            if not watch:
                raise typer.Exit(1 if diagnosis.verdict(lines) == "red" else 0)
            time.sleep(_EVERY_S)
    except (BadSetting, BadConfig) as error:
        sys.stderr.write(f"thor: cannot judge: {' '.join(str(error).split())}\n")
        raise typer.Exit(2) from None


def _show_lines(lines: Sequence[diagnosis.Line]) -> None:
    table = Table.grid(padding=(0, 2))
    for line in lines:
        colour = _COLOURS[line.verdict]
        table.add_row(f"[{colour}]{line.verdict}[/{colour}]", line.name, escape(line.evidence))
        if line.advice:
            more = f"; docs/operations.md#doctor-{line.name}" if line.verdict == "red" else ""
            table.add_row("", "", f"[dim]→ {escape(line.advice)}{more}[/dim]")
    console.print(table)


@app.command()
def serve() -> None:
    """For containers: up, show the logs, stay while it runs, down on TERM."""
    from thor.cli import up  # which takes in this module

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    settings = Settings.from_env()
    supervisor = Supervisor(settings)
    ends: dict[Path, int] = {path: path.stat().st_size for path in settings.log.glob("*.log")}
    try:
        up()
        while supervisor.pid() is not None:
            for path in sorted(settings.log.glob("*.log")):
                ends[path] = _show_from(path, ends.get(path, 0))
            time.sleep(0.5)
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        supervisor.shut_down(lambda what: console.print(what))
        raise typer.Exit(0) from None
    raise Frozen("supervisord ended by itself")
