"""``python3 -m thor …``: what a person types."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.markup import escape
from rich.table import Table
from typer.exceptions import TyperException

from thor import clock, commands
from thor.commands import Refused, console
from thor.domain.instruments import canonical
from thor.domain.quotes import BadEntry
from thor.feeds.replay import BadRecording, preflight
from thor.runtime import instruments, migrate, process, source, stack, status
from thor.runtime.almanac import NoAlmanac
from thor.runtime.config import BadConfig
from thor.runtime.embedded import postgres_bin
from thor.runtime.quotelog import QuoteLog
from thor.runtime.settings import ROOT, BadSetting, Settings
from thor.runtime.source import OtherTimeline, Source
from thor.runtime.stack import Plan, Stack, StackFailed
from thor.runtime.supervisor import Frozen
from thor.stores import schema, summary
from thor.stores.redis import RedisDown

_EXPECTED: Final = (
    *(BadConfig, BadSetting, BadRecording, OtherTimeline, StackFailed, Frozen, process.Taken),
    *(schema.BadMigration, schema.PostgresError, BadEntry, NoAlmanac, OSError),
)

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="The engine room of a trader."
)
app.add_typer(commands.app)
app.add_typer(clock.app)

Files = Annotated[list[Path] | None, typer.Option(help="A recording (.csv, .csv.gz, .dbn, .dbn.zst); may be repeated.")]
OwnInstruments = Annotated[
    Path | None, typer.Option("--instruments", help="Your own instruments, a YAML like config/instruments.yaml.")
]


@app.command()
def up(
    replay: Files = None,
    more: Annotated[list[Path] | None, typer.Argument(help="Further files of --replay.", metavar="[FILE]...")] = None,
    speed: Annotated[str, typer.Option(help="1, another factor, or max.")] = "1",
    map_: Annotated[list[str] | None, typer.Option("--map", help="ESH4=ES: read one symbol as another.")] = None,
    add_instruments: Annotated[
        bool, typer.Option("--add-instruments", help="Register the recording's contracts under their roots.")
    ] = False,
    snapshot: Annotated[bool, typer.Option("--snapshot", help="The recording was polled.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the recording's end is committed.")] = False,
    own: OwnInstruments = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard the quotes and tables of this THOR_DIR.")] = False,
    in_memory: Annotated[bool, typer.Option("--in-memory", help="Parse the whole recording before it plays.")] = False,
) -> None:
    """Start everything; return when all is ready and quotes flow."""
    settings = Settings.from_env()
    files = [*(replay or []), *(more or [])]
    if more and not replay:
        raise Refused(f"{more[0]}: expected --replay before a file")
    options = {"--speed": speed != "1", "--map": map_, "--add-instruments": add_instruments, "--snapshot": snapshot}
    options |= {"--wait": wait, "--in-memory": in_memory}
    if not files and (lonely := [name for name, given in options.items() if given]):
        raise Refused(f"{lonely[0]}: expected with --replay FILE")
    stack.check(settings)
    mapping = _mapping(map_ or [])
    own_files = () if own is None else (own,)
    registry = instruments.load([*instruments.files(settings), *own_files])
    if files:
        began = time.monotonic()
        recording = preflight(files, mapping, registry, add_instruments, snapshot)
        _tell("recording", f"{recording.rows:,} rows, {time.monotonic() - began:.1f} s")
        played = Source(
            provider="replay",
            files=tuple(str(path.resolve()) for path in recording.files),
            speed=_speed(speed),
            map=mapping,
            snapshot=snapshot,
            in_memory=in_memory,
            identity=recording.identity,
        )
        plan = Plan(
            played, recording.first_ts, recording.last_ts, recording.rows, own_files, tuple(recording.added), fresh
        )
    else:
        plan = Plan(_unrecorded(settings), own_instruments=own_files, fresh=fresh)
    settings.run.mkdir(parents=True, exist_ok=True)
    lock = process.hold(settings.run / "up.lock", wait_s=180)
    os.set_inheritable(lock, False)
    the_stack = Stack(settings, _tell)
    if the_stack.running() and not fresh:
        _already_runs(settings, plan)
    else:
        the_stack.up(plan)
        _addresses(settings)
    os.close(lock)
    if wait:
        _wait(the_stack, plan)


def _unrecorded(settings: Settings) -> Source:
    if settings.provider != "replay":
        return Source(settings.provider)
    present = source.present(settings)
    if present is None or present.provider != "replay":
        raise BadSetting("DATA_PROVIDER=replay: expected `up --replay FILE`")
    return present


def _already_runs(settings: Settings, plan: Plan) -> None:
    present = source.present(settings)
    same = present is not None and (present.kind, present.identity) == (plan.source.kind, plan.source.identity)
    if plan.own_instruments or (plan.source.provider == "replay" and not same):
        kind = present.kind if present else "other"
        raise StackFailed(f"already runs with {kind} quotes ({settings.dir}): python3 -m thor down first")
    console.print(f"Thor already runs ({settings.dir}).")
    _addresses(settings)


def _mapping(pairs: list[str]) -> dict[str, str]:
    mapping = {}
    for pair in pairs:
        name, equals, symbol = pair.partition("=")
        if not (name and equals and symbol):
            raise Refused(f"--map: expected RECORDED=SYMBOL such as ESH4=ES, found {pair!r}")
        mapping[name] = symbol
    return mapping


def _speed(text: str) -> float | str:
    if text == "max":
        return text
    try:
        speed = float(text)
    except ValueError:
        speed = 0
    if not 0 < speed < 1e9:
        raise Refused(f"--speed: expected max or a factor above 0, found {text!r}")
    return speed


def _wait(the_stack: Stack, plan: Plan) -> None:
    shown = 0.0

    def progress(log: status.Log) -> None:
        nonlocal shown
        if time.monotonic() - shown > 2:
            shown = time.monotonic()
            share = f" of {plan.rows:,}" if plan.rows else ""
            _tell("playing", f"{log.accepted:,}{share} accepted, entry {log.n:,}")

    log = the_stack.await_end(progress)
    with schema.connect(the_stack.settings.dsn) as conn:
        bars, first, last = summary.bars(conn)
    counts = {name[6:]: int(count) for name, count in log.writer.items() if name.startswith("count:")}
    table = Table.grid(padding=(0, 2))
    rows = {"rows read": f"{plan.rows:,}", "accepted": f"{counts.get('accepted', 0):,}"}
    rows["rejected"] = f"{counts.get('rejected', 0):,}"
    rows |= {f"  {name[9:]}": f"{count:,}" for name, count in sorted(counts.items()) if name.startswith("rejected:")}
    rows |= {name: f"{counts.get(name, 0):,}" for name in ("late", "duplicate")}
    rows |= {"bars": f"{bars:,}", "first minute": f"{first}", "last minute": f"{last}"}
    played = counts.get("accepted", 0) - the_stack.accepted_before
    if the_stack.playing_since and played:
        elapsed = time.monotonic() - the_stack.playing_since
        rows |= {
            "elapsed": f"{elapsed:.1f} s, start of the processes included",
            "quotes a second": f"{played / elapsed:,.0f}",
        }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print("\nThe recording is played to its end and committed.")
    console.print(table)


@app.command()
def down() -> None:
    """Stop everything; no process is left."""
    settings = Settings.from_env()
    if Stack(settings, _tell).down():
        console.print("Thor is down.")
    else:
        console.print(f"Thor does not run ({settings.dir}).")


@app.command()
def tail(
    symbol: Annotated[str, typer.Argument()] = "",
    follow: Annotated[bool, typer.Option("-f", help="Go on as quotes come.")] = False,
    n: Annotated[int, typer.Option("-n", help="Quotes.")] = 20,
) -> None:
    """The quote log, made readable."""
    settings = Settings.from_env()
    registry = instruments.load(instruments.files(settings))
    number = registry.number(symbol) if symbol else None
    if symbol and number is None:
        raise Refused(f"tail: expected a known symbol, found {canonical(symbol)[:24]!r}")
    wanted = None if number is None else registry[number].symbol
    quotes = QuoteLog(settings.redis_url, registry)
    for line in quotes.newest(n, wanted):
        sys.stdout.write(line + "\n")
    if follow:
        for line in quotes.follow(wanted):
            sys.stdout.write(line + "\n" if line else "")
            sys.stdout.flush()


_PASS_ON: Final = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings={**_PASS_ON, "help_option_names": []})
def psql(context: typer.Context) -> None:
    """psql on Thor's database; further arguments are psql's."""
    settings = Settings.from_env()
    program = str(postgres_bin() / "psql")
    given = {"PGHOST": settings.db_host, "PGPORT": str(settings.db_port), "PGDATABASE": settings.db_name}
    given |= {
        "PGUSER": settings.db_user,
        "PGPASSWORD": settings.db_password,
        "PSQL_HISTORY": str(settings.dir / "psql_history"),
    }
    os.execve(program, [program, *context.args], {**os.environ, **given})


@app.command(name="migrate")
def migrate_() -> None:
    """Apply the files of sql/ that the database lacks."""
    applied = migrate.migrate(Settings.from_env())
    console.print("\n".join(f"applied {name}" for name in applied) or "up to date")


@app.command()
def seed(own: OwnInstruments = None) -> None:
    """Bring the instruments into the database."""
    settings = Settings.from_env()
    own_files = () if own is None else (own,)
    instruments.load([*instruments.files(settings), *own_files])
    source.keep_instruments(settings, own_files, ())
    registry = instruments.load(instruments.files(settings))
    changed = migrate.seed(settings, list(registry))
    console.print(f"{len(registry)} instruments, {changed} new or changed")


@app.command(context_settings={**_PASS_ON, "help_option_names": []})
def test(context: typer.Context) -> None:
    """Run the tests; further arguments are pytest's."""
    scratch = Settings.from_env().dir / "tests"
    scratch.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    both = [] if context.args else ["-n", "2", "--dist", "loadfile"]
    command = [sys.executable, "-m", "pytest", *both, *context.args]
    os.execve(sys.executable, command, {**os.environ, "PYTEST_DEBUG_TEMPROOT": str(scratch)})


@app.command()
def check() -> None:
    """For developers: format, lint, types and the fast tests."""
    steps = (
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy"],
        ["pytest", "-q", "-m", "not stack and not slow"],
    )
    failed = []
    for step in steps:
        console.print(f"[bold]{' '.join(step)}[/bold]")
        if subprocess.run([sys.executable, "-m", *step], cwd=ROOT, check=False).returncode:
            failed.append(step[0])
    if failed:
        _fail(f"check: failed: {', '.join(failed)}")


def _tell(what: str, how: str) -> None:
    console.print(f"  [green]✓[/green] {what:<11} {escape(how)}")


def _addresses(settings: Settings) -> None:
    lines = {
        "API": f"{settings.api}/api/health",
        "metrics": ", ".join(
            f"{name} http://127.0.0.1:{settings.health_port(name)}/metrics" for name in settings.processes
        ),
        "Postgres": f"{settings.db_host}:{settings.db_port}, database {settings.db_name} (python3 -m thor psql)",
        "Redis": f"127.0.0.1:{settings.redis_port}" if settings.embedded_redis else "as REDIS_URL says",
        "state": str(settings.dir),
        "look": "python3 -m thor status · tail [symbol] -f · logs [process] -f · down",
    }
    for name, value in lines.items():
        console.print(f"  {name:<9} {escape(value)}")


def _fail(message: str, code: int = 1) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write("thor: " + " ".join(message.split()) + "\n")
    sys.exit(code)


def main() -> None:
    """Run the command line; every expected error is one line and a code that is not 0."""
    try:
        code = app(standalone_mode=False)
    except RedisDown as error:
        _fail(f"Redis does not answer: {error} (python3 -m thor status)")
    except schema.Unreachable as error:
        _fail(f"Postgres does not answer: {error} (python3 -m thor status)")
    except (*_EXPECTED, Refused) as error:
        _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except TyperException as error:
        # A command without arguments asks for its help; any other is a slip of the fingers.
        said = error.format_message() if hasattr(error, "format_message") else str(error)
        _fail(f"{said} (python3 -m thor --help)", 2) if said else sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)
