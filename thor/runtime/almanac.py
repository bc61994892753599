"""The only code that imports the calendar libraries: a short-lived process that makes sessions and ends.

    python -m thor.runtime.almanac 2013 2026 2027           writes these years into Postgres, in one transaction
    python -m thor.runtime.almanac 2013 2026 2027 --print   prints them as JSON

The libraries keep 100 MB; so markets calls this once a day, and stays small itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, time
from importlib.metadata import version
from typing import Any, Final

from thor.domain.calendars import Calendar, Session, Timeline, Vouched, build
from thor.domain.prices import NANO
from thor.runtime import process
from thor.runtime.config import BadConfig
from thor.runtime.markets import CalendarRule, Clockwork, load
from thor.runtime.settings import ROOT, BadSetting, Settings
from thor.stores import markets as store
from thor.stores import schema
from thor.stores.markets import Built

#: The libraries give any later year; nobody has said yet that it will be so.
_YEARS_AHEAD: Final = 1
_PRINT_S: Final = 60


class NoAlmanac(RuntimeError):
    """The sessions could not be made; one line."""


def make(clockwork: Clockwork, years: Iterable[int], today: date) -> list[Built]:
    """Every calendar for whole years. Imports the libraries."""
    years = sorted(years)
    horizon = date(today.year + _YEARS_AHEAD, 12, 31)
    made: dict[str, Built] = {}
    rules = clockwork.config.calendars
    for name in sorted(rules, key=lambda name: rules[name].days_of is not None):  # those with days of their own first
        calendar, rule = clockwork.calendars[name], rules[name]
        found: list[Session] = []
        confirmed: date | None = None
        for first, last in _stretches(years):
            if rule.days_of is not None:
                base = made[rule.days_of]
                taken = [_timed(calendar, day.date, day) for day in base.sessions if first <= day.date <= last]
                confirmed = base.confirmed_until
                vouched: Vouched | None = Vouched(
                    first, min(last, confirmed or date.min), {one.date: one for one in taken}
                )
            else:
                vouched, confirmed = _vouched(calendar, rule, first, last, horizon)
            found += build(calendar, first, last, vouched, clockwork.changes[name])
        made[name] = Built(name, calendar.zone, sorted(calendar.weekdays), confirmed, tuple(years), found)
    return list(made.values())


def _timed(calendar: Calendar, day: date, like: Session) -> Session:
    """The calendar's own hours on a day of another."""
    own = calendar.session(day)
    return Session(day, own.opens, own.closes, own.break_starts, own.break_ends, source=f"{like.source}, days of")


def _stretches(years: Sequence[int]) -> list[tuple[date, date]]:
    stretches: list[tuple[int, int]] = []
    for year in years:
        if stretches and stretches[-1][1] == year - 1:
            stretches[-1] = (stretches[-1][0], year)
        else:
            stretches.append((year, year))
    return [(date(first, 1, 1), date(last, 12, 31)) for first, last in stretches]


def _vouched(
    calendar: Calendar, rule: CalendarRule, first: date, last: date, horizon: date
) -> tuple[Vouched | None, date | None]:
    """What the library says of [first, last], and the last date that it vouches for."""
    if rule.library == "none":
        return None, None
    source = f"{rule.library} {version(rule.library)}"
    if rule.library == "exchange-calendars":
        rows, low, high = _exchange(rule.id, first, min(last, horizon))
    else:
        rows, low, high = _pandas(rule.id, first, min(last, horizon))
    confirmed = min(horizon, high or horizon)
    sessions = {}
    for day, opens, closes, starts, ends in rows:
        session = Session(day, opens, closes, starts, ends, source=source)
        sessions[day] = _own_hours(calendar, rule, session) if rule.days_only else session
    # A library that has nothing to say of a whole year says so by silence.
    silent = [year for year in range(first.year, last.year + 1) if not any(day.year == year for day in sessions)]
    known = [year for year in range(first.year, confirmed.year + 1) if year not in silent]
    if not known:
        return None, confirmed
    confirmed = min(confirmed, date(max(known), 12, 31))
    return Vouched(max(first, low or first, date(min(known), 1, 1)), min(last, confirmed), sessions), confirmed


def _own_hours(calendar: Calendar, rule: CalendarRule, session: Session) -> Session:
    """The library's day at our hours; its close where it is an early one."""
    own = calendar.session(session.date)
    closes = own.closes
    if rule.early_before is not None:
        limit = calendar.instant(session.date, time.fromisoformat(rule.early_before))
        closes = session.closes if session.closes < limit else closes
    return Session(session.date, own.opens, closes, own.break_starts, own.break_ends, source=session.source)


Row = tuple[date, int, int, int | None, int | None]


def _exchange(name: str, first: date, last: date) -> tuple[list[Row], date | None, date | None]:
    import exchange_calendars as library

    try:
        found = library.get_calendar(name, start=first, end=last)
    except ValueError:  # beyond its bounds, or the wrong way round: its own default is always inside of them
        found = library.get_calendar(name)
    low, high = (None if bound is None else bound.date() for bound in (found.bound_min(), found.bound_max()))
    first, last = max(first, low or first), min(last, high or last)
    if first >= last:
        return [], low, high
    table = library.get_calendar(name, start=first, end=last).schedule
    rows = [
        (day.date(), _ns(row.open), _ns(row.close), _some(row.break_start), _some(row.break_end))
        for day, row in zip(table.index, table.itertuples(index=False), strict=True)
    ]
    return rows, low, high


def _pandas(name: str, first: date, last: date) -> tuple[list[Row], date | None, date | None]:
    import pandas_market_calendars as library

    if first > last:
        return [], None, None
    table = library.get_calendar(name).schedule(first, last)
    rows: list[Row] = [
        (day.date(), _ns(row.market_open), _ns(row.market_close), None, None)
        for day, row in zip(table.index, table.itertuples(index=False), strict=True)
    ]
    return rows, None, None


def _ns(stamp: Any) -> int:  # noqa: ANN401
    return int(stamp.timestamp()) * NANO


def _some(stamp: Any) -> int | None:  # noqa: ANN401
    return None if stamp != stamp else _ns(stamp)  # NaT is not itself


def start(years: Iterable[int], *words: str) -> subprocess.Popen[str]:
    """The process for these years; it dies with its parent."""
    command = [sys.executable, "-m", "thor.runtime.almanac", *map(str, sorted(years))]
    command += ["--parent", str(os.getpid()), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def timelines(years: Iterable[int]) -> dict[str, Timeline]:
    """Every calendar for the years, from the libraries, without Postgres. Raises NoAlmanac."""
    child = start(years, "--print")
    try:
        out, err = child.communicate(timeout=_PRINT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        raise NoAlmanac(f"expected the sessions within {_PRINT_S} s, found none") from None
    if child.returncode:
        raise NoAlmanac(last_line(err))
    return {
        one["name"]: Timeline(
            one["zone"],
            one["weekdays"],
            [Session(**row | {"date": date.fromisoformat(row["date"])}) for row in one["sessions"]],
        )
        for one in json.loads(out)
    }


def last_line(text: str) -> str:
    """What an ended process said last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("thor: ") if lines else "no output"


def main(words: Sequence[str]) -> None:
    """The process itself."""
    parser = argparse.ArgumentParser(prog="python -m thor.runtime.almanac")
    parser.add_argument("years", nargs="+", type=int)
    parser.add_argument("--print", action="store_true", dest="printed")
    parser.add_argument("--parent", type=int)
    given = parser.parse_args(words)
    if given.parent is not None:
        process.die_with(given.parent)
    warnings.simplefilter("ignore")  # of libraries about each other
    clockwork = load()
    built = make(clockwork, set(given.years), datetime.now(UTC).date())
    if given.printed:
        json.dump([asdict(one) for one in built], sys.stdout, default=str)
        return
    with schema.connect(Settings.from_env().dsn) as conn:
        store.write(conn, built, clockwork.digest)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (
        BadConfig,
        BadSetting,
        ConnectionError,
        schema.PostgresError,
        ValueError,
        LookupError,
        ImportError,
    ) as error:
        sys.exit(f"thor: {' '.join(str(error).split())}")
