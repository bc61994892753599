"""``python3 -m thor markets`` and ``sessions``: the world clock on a terminal."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from thor.commands import Refused, console
from thor.domain.calendars import Timeline
from thor.domain.markets import World, tell_session
from thor.domain.prices import NANO
from thor.domain.stamps import BadStamp, parse_stamp
from thor.runtime import almanac, markets
from thor.runtime.settings import Settings
from thor.stores import latest, schema
from thor.stores import markets as store
from thor.stores.redis import RedisDown, connect

app = typer.Typer()

_MARGIN: Final = 20  # days
_WIDTH: Final = 120  # a narrower terminal wraps lines; cut cells would say the wrong thing
_MOST: Final = timedelta(days=1100)
_FIRST, _LAST = date(1990, 1, 1), date(2200, 1, 1)
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command(name="markets")
def markets_(
    at: Annotated[str, typer.Option(help="An instant, RFC 3339 with its zone; none: the log's watermark.")] = "",
    as_json: AsJson = False,
) -> None:
    """The world clock: which markets are open, and what comes next."""
    settings, clockwork = Settings.from_env(), markets.load()
    instant = _instant(at) if at else _now(settings)
    first, last = (_day(instant) + timedelta(days=days) for days in (-_MARGIN, _MARGIN))
    world = World.of(
        clockwork.markets, _timelines(settings, first, last, set(range(first.year, last.year + 1))), instant
    )
    told = world.told() | {"markets": [world.tell(market) for market in world.markets]}
    if as_json:
        sys.stdout.write(json.dumps(told) + "\n")
        return
    table = _table("market", "status", "local time", "next", "next open", "next close", "")
    for one in told["markets"]:
        left = one["seconds_to_next_event"]
        table.add_row(
            *(one["name"], one["status"], f"{datetime.fromisoformat(one['local_time']):%a %H:%M} {one['utc_offset']}"),
            "" if left is None else f"{one['next_event']} in {timedelta(seconds=left)}",
            *(_short(one["next_open"]), _short(one["next_close"]), "" if one["quality"] == "live" else one["quality"]),
        )
    Console(width=max(console.width, _WIDTH), highlight=False).print(table)
    phase = told["phase"] or "nothing is open"
    console.print(f"{told['as_of']}: composite {told['composite']} of {told['composite_of']}, {phase}")


@app.command()
def sessions(
    market: Annotated[str, typer.Option(help="Code, country, shown name, or a calendar; none: every market.")] = "",
    from_: Annotated[str, typer.Option("--from", help="First date; none: the date of the watermark.")] = "",
    to: Annotated[str, typer.Option(help="Date after the last; none: a fortnight later.")] = "",
    as_json: AsJson = False,
) -> None:
    """The sessions of a market: open, close, break, and who says so."""
    settings, clockwork = Settings.from_env(), markets.load()
    found = clockwork.markets.find(market)
    if market and found is None and market not in clockwork.calendars:
        known = ", ".join((*clockwork.markets.names, *clockwork.calendars))
        raise Refused(f"--market: expected one of {known}, found {market!r}")
    wanted = {one.calendar for one in clockwork.markets} if not market else {found.calendar if found else market}
    first = _date("--from", from_) if from_ else _day(_now(settings))
    last = (_date("--to", to) if to else first + timedelta(days=14)) - timedelta(days=1)
    if not first <= last <= first + _MOST:
        raise Refused(
            f"--to: expected a date after {first}, at most {_MOST.days} days, found {last + timedelta(days=1)}"
        )
    timelines = _timelines(settings, first, last, set(range(first.year, last.year + 1)))
    rows = [
        {"calendar": name, **tell_session(one)}
        for name in clockwork.calendars
        if name in wanted
        for one in timelines[name].sessions
        if first <= one.date <= last
    ]
    if as_json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    table = _table("calendar", "date", "opens", "closes", "break", "kind", "source", "")
    for row in rows:
        pause = f"{_short(row['break_starts'])[6:]} – {_short(row['break_ends'])[6:]}" if row["break_starts"] else ""
        table.add_row(
            *(row["calendar"], f"{date.fromisoformat(row['date']):%a} {row['date']}"),
            *(_short(row["opens"]), _short(row["closes"]), pause, row["kind"]),
            *(row["source"] + (f" ({row['note']})" if row["note"] else ""), "" if row["confirmed"] else "unconfirmed"),
        )
    Console(width=max(console.width, _WIDTH), highlight=False).print(table)
    console.print("Times are UTC.")


def _table(*heads: str) -> Table:
    table = Table(box=box.SIMPLE)
    for head in heads:
        table.add_column(head, no_wrap=head != "source", overflow="fold")
    return table


def _timelines(settings: Settings, first: date, last: date, years: set[int]) -> dict[str, Timeline]:
    """From the table; from the libraries where it is not there, or holds other dates."""
    try:
        with schema.connect(settings.dsn) as conn:
            return store.timelines(conn, first, last)
    except (schema.Unreachable, schema.PostgresError, store.NotCovered):
        return almanac.timelines(years)


def _now(settings: Settings) -> int:
    """The log's watermark; the clock of this machine where there is no log."""
    client = connect(settings.redis_url, 1.0)
    try:
        watermark = latest.read(client, []).watermark
    except RedisDown:
        watermark = None
    finally:
        client.close()
    return time.time_ns() if watermark is None else watermark


def _instant(text: str) -> int:
    try:
        return parse_stamp(text)
    except BadStamp:
        raise Refused(f"--at: expected RFC 3339 with a zone such as 2024-11-05T06:15:00Z, found {text!r}") from None


def _date(option: str, text: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise Refused(f"{option}: expected a date such as 2024-11-05, found {text!r}") from None
    if not _FIRST <= found <= _LAST:
        raise Refused(f"{option}: expected a date from {_FIRST} to {_LAST}, found {text}")
    return found


def _day(at: int) -> date:
    return datetime.fromtimestamp(at // NANO, UTC).date()


def _short(instant: Any) -> str:  # noqa: ANN401
    return "" if instant is None else str(instant)[5:16].replace("T", " ")
