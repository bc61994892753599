"""The world clock's tables in Postgres, and its status in Redis (domain.md §8)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, cast

import psycopg
import redis

from thor.domain.calendars import Session, Timeline
from thor.domain.markets import Market
from thor.domain.prices import NANO
from thor.stores import keys

#: So that a reader can tell a clock that stands still.
EXPIRES_S: Final = 120
#: How far a reader looks beside its instant: longer than any market is closed.
MARGIN: Final = timedelta(days=20)
_LOCK: Final = 7_404_817_300_114  # any number, the same for all who write


@dataclass(frozen=True, slots=True)
class Built:
    """One calendar for whole years."""

    name: str
    zone: str
    weekdays: Sequence[int]
    confirmed_until: date | None
    years: tuple[int, ...]
    sessions: Sequence[Session]


class NotCovered(LookupError):
    """The table does not hold the dates asked for; one line."""


_MARKET: Final = """
INSERT INTO markets
    (code, country, name, calendar, zone, weight, region, captures, metrics, enabled, evaluation_s, place)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (code) DO UPDATE SET country = excluded.country, name = excluded.name, calendar = excluded.calendar,
    zone = excluded.zone, weight = excluded.weight, region = excluded.region, captures = excluded.captures,
    metrics = excluded.metrics, enabled = excluded.enabled, evaluation_s = excluded.evaluation_s, place = excluded.place
"""


def seed(conn: psycopg.Connection[Any], markets: Iterable[Market]) -> None:
    """Bring the control markets into their table; those gone are removed. Raises psycopg.Error."""
    rows = [(*astuple(market), place) for place, market in enumerate(markets)]
    with conn.transaction():
        conn.execute("DELETE FROM markets WHERE NOT code = ANY(%s)", [[row[0] for row in rows]])
        conn.cursor().executemany(_MARKET, rows)


def write(conn: psycopg.Connection[Any], built: Sequence[Built], digest: str) -> None:
    """Replace the built years of each calendar, all in one transaction; two writers follow each other.

    Raises psycopg.Error.
    """
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        conn.execute("DELETE FROM calendars WHERE NOT name = ANY(%s)", [[one.name for one in built]])
        for one in built:
            conn.execute(
                "INSERT INTO calendars (name, zone, weekdays, confirmed_until) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (name) DO UPDATE SET zone = excluded.zone, weekdays = excluded.weekdays,"
                " confirmed_until = excluded.confirmed_until",
                [one.name, one.zone, list(one.weekdays), one.confirmed_until],
            )
            years = list(one.years)
            conn.execute(
                "DELETE FROM trading_sessions WHERE calendar = %s AND extract(year FROM date) = ANY(%s)",
                [one.name, years],
            )
            conn.execute(
                "INSERT INTO calendar_years (calendar, year, digest) SELECT %s, unnest(%s::smallint[]), %s"
                " ON CONFLICT (calendar, year) DO UPDATE SET digest = excluded.digest, built_at = clock_timestamp()",
                [one.name, years, digest],
            )
        columns = "calendar, date, opens, closes, break_starts, break_ends, kind, source, confirmed, note"
        with conn.cursor().copy(f"COPY trading_sessions ({columns}) FROM STDIN".encode()) as copy:
            for one in built:
                for row in one.sessions:
                    copy.write_row(
                        (
                            *(one.name, row.date, _datetime(row.opens), _datetime(row.closes)),
                            *(_datetime(row.break_starts), _datetime(row.break_ends)),
                            *(row.kind, row.source, row.confirmed, row.note),
                        )
                    )


def missing(
    conn: psycopg.Connection[Any], calendars: Sequence[str], years: set[int], digest: str, max_age_s: float
) -> set[int]:
    """The years to be made: those wanted that are not there for every calendar or are older than ``max_age_s``, and
    those there that were made from another configuration. Raises psycopg.Error."""
    rows = conn.execute(
        "SELECT calendar, year, digest = %s, built_at > clock_timestamp() - make_interval(secs => %s)"
        " FROM calendar_years",
        [digest, max_age_s],
    ).fetchall()
    fresh = {(calendar, year) for calendar, year, same, young in rows if same and young}
    other = {year for _, year, same, _ in rows if not same}
    return other | {year for year in years if any((name, year) not in fresh for name in calendars)}


def confirmed_until(conn: psycopg.Connection[Any]) -> dict[str, date | None]:
    """The last date that each calendar's library vouches for. Raises psycopg.Error."""
    return dict(conn.execute("SELECT name, confirmed_until FROM calendars").fetchall())


def timelines(
    conn: psycopg.Connection[Any], first: date, last: date, calendars: Sequence[str] | None = None
) -> dict[str, Timeline]:
    """The sessions of [first, last] by calendar (all of them where none is named).

    Raises NotCovered where a year of a calendar is not there, and psycopg.Error.
    """
    rows = conn.execute(
        "SELECT c.name, c.zone, c.weekdays, (SELECT count(*) FROM calendar_years y"
        " WHERE y.calendar = c.name AND y.year BETWEEN %s AND %s) FROM calendars c ORDER BY c.name",
        [first.year, last.year],
    ).fetchall()
    known = {name: (zone, weekdays, years) for name, zone, weekdays, years in rows}
    wanted = list(known) if calendars is None else list(calendars)
    for name in wanted:
        if name not in known or known[name][2] != last.year - first.year + 1:
            raise NotCovered(f"the hours of {name} from {first} to {last} are not there")
    if not wanted:
        raise NotCovered("there are no hours yet: markets makes them when it starts")
    sessions: dict[str, list[Session]] = {name: [] for name in wanted}
    for name, day, *instants, kind, source, confirmed, note in conn.execute(
        "SELECT calendar, date, opens, closes, break_starts, break_ends, kind, source, confirmed, note"
        " FROM trading_sessions WHERE calendar = ANY(%s) AND date BETWEEN %s AND %s ORDER BY calendar, date",
        [wanted, first, last],
    ):
        opens, closes, starts, ends = (_ns(at) for at in instants)
        assert opens is not None
        assert closes is not None
        sessions[name].append(Session(day, opens, closes, starts, ends, kind, source, confirmed, note))
    return {name: Timeline(known[name][0], known[name][1], sessions[name]) for name in wanted}


def around(
    conn: psycopg.Connection[Any], at: int, calendars: Sequence[str] | None = None, margin: timedelta = MARGIN
) -> dict[str, Timeline]:
    """The sessions around an instant (ns), enough to tell what comes next. Raises NotCovered, psycopg.Error."""
    day = datetime.fromtimestamp(at // NANO, UTC).date()
    return timelines(conn, day - margin, day + margin, calendars)


def publish(client: redis.Redis, document: Mapping[str, Any]) -> None:
    """Tell the status of every market. Raises redis.RedisError."""
    client.set(keys.MARKETS, json.dumps(document, separators=(",", ":")), ex=EXPIRES_S)


def published(client: redis.Redis) -> dict[str, Any] | None:
    """What was told last; None where the clock stands still. Raises redis.RedisError."""
    text = cast("bytes | None", client.get(keys.MARKETS))
    return None if text is None else cast("dict[str, Any]", json.loads(text))


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _datetime(ns: int | None) -> datetime | None:
    return None if ns is None else _EPOCH + timedelta(seconds=ns // NANO)


def _ns(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp()) * NANO
