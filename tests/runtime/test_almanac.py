"""Hard dates, each with the source that says so. The libraries run in their own process, as in the stack."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from thor.domain.calendars import Session, Timeline
from thor.domain.markets import World
from thor.domain.prices import NANO
from thor.runtime import almanac, instruments
from thor.runtime.config import BadConfig
from thor.runtime.markets import Clockwork, load
from thor.runtime.settings import ROOT

YEARS = (2013, 2023, 2024, 2025, 2026, 2027)


@pytest.fixture(scope="module")
def lines() -> dict[str, Timeline]:
    return almanac.timelines(YEARS)


@pytest.fixture(scope="module")
def clockwork() -> Clockwork:
    return load()


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NANO


def local(session: Session | None, zone: str) -> tuple[str, ...]:
    assert session is not None
    ends = (session.opens, session.break_starts, session.break_ends, session.closes)
    return tuple(f"{datetime.fromtimestamp(at // NANO, ZoneInfo(zone)):%d %H:%M}" for at in ends if at is not None)


JPX = "market-news-insights-jpx.com/tse/article005790: the afternoon ends 15:30 from 5 November 2024"
SSE = "english.sse.com.cn, trading schedule: 09:30–11:30 and 13:00–15:00"
NYSE = "NYSE Group, 2022-12-21: 1:00 p.m. on 28 November 2025 and on 24 December 2025"
BMV = "expansion.mx, 2025-10-31: 07:30–14:00 Mexico City while New York has summer time"
MUHURAT = "deccanherald.com, 2025-10-21: Muhurat 1:45 pm to 2:45 pm"
MUHURAT_2024 = "ndtvprofit.com, 2024-10-20: Muhurat 6:00 p.m. to 7:00 p.m. on Friday, 1 November 2024"
MUHURAT_2023 = (
    "eastcoastdaily.in, 2023-10-28: Muhurat to 7:15pm on Sunday, 12 November 2023, after 15 minutes of pre-market"
)
BUDGET = "business-standard.com, 2026-01-16: regular hours on Sunday, 1 February 2026"
SITE_2 = "zeenews.india.com, 2024-05: 9:15–10 and 11:30–12:30 on Saturday, 18 May 2024"
CME = "the exchange's own quotes: no trade of ESH4 on 25 December 2023 before 23:00 UTC"
THANKSGIVING = "daytradetowin.com, 2023: 1:00 p.m. Eastern on Thanksgiving, 1:15 p.m. the day after"


@pytest.mark.parametrize(
    ("calendar", "day", "zone", "expected", "kind", "source"),
    [
        ("XTKS", "2024-11-01", "Asia/Tokyo", ("01 09:00", "01 11:30", "01 12:30", "01 15:00"), "regular", JPX),
        ("XTKS", "2024-11-05", "Asia/Tokyo", ("05 09:00", "05 11:30", "05 12:30", "05 15:30"), "regular", JPX),
        ("XSHG", "2026-11-20", "Asia/Shanghai", ("20 09:30", "20 11:30", "20 13:00", "20 15:00"), "regular", SSE),
        ("XNYS", "2025-11-28", "America/New_York", ("28 09:30", "28 13:00"), "early close", NYSE),
        ("XNYS", "2025-12-24", "America/New_York", ("24 09:30", "24 13:00"), "early close", NYSE),
        ("XMEX", "2026-07-01", "America/Mexico_City", ("01 07:30", "01 14:00"), "regular", BMV),
        ("XMEX", "2026-01-07", "America/Mexico_City", ("07 08:30", "07 15:00"), "regular", BMV),
        ("XBOM", "2025-10-21", "Asia/Kolkata", ("21 13:45", "21 14:45"), "special", MUHURAT),
        ("XBOM", "2024-11-01", "Asia/Kolkata", ("01 18:00", "01 19:00"), "special", MUHURAT_2024),
        ("XBOM", "2023-11-12", "Asia/Kolkata", ("12 18:15", "12 19:15"), "special", MUHURAT_2023),
        ("XBOM", "2026-02-01", "Asia/Kolkata", ("01 09:15", "01 15:30"), "special", BUDGET),
        ("XBOM", "2024-05-18", "Asia/Kolkata", ("18 09:15", "18 10:00", "18 11:30", "18 12:30"), "special", SITE_2),
        ("CME equity", "2023-12-26", "America/Chicago", ("25 17:00", "26 16:00"), "regular", CME),
        ("CME equity", "2023-11-23", "America/New_York", ("22 18:00", "23 13:00"), "early close", THANKSGIVING),
        ("CME equity", "2023-11-24", "America/New_York", ("23 18:00", "24 13:15"), "early close", THANKSGIVING),
        ("Pre_USA", "2025-11-28", "America/New_York", ("28 06:00", "28 09:30"), "regular", "domain.md §8"),
    ],
)  # fmt: skip
def test_the_session_is_the_one_its_source_names(
    lines: Mapping[str, Timeline],
    calendar: str,
    day: str,
    zone: str,
    expected: tuple[str, ...],
    kind: str,
    source: str,
) -> None:
    session = lines[calendar].on(date.fromisoformat(day))
    assert local(session, zone) == expected, source
    assert session is not None
    assert (session.kind, session.confirmed) == (kind, True), source


HOLIDAYS = "NYSE Group, 2022-12-21: Good Friday, 18 April 2025, and Thanksgiving Day, 27 November 2025"


@pytest.mark.parametrize(
    ("calendar", "day", "source"),
    [
        ("XNYS", "2025-04-18", HOLIDAYS),
        ("XLON", "2025-04-18", "Good Friday is a bank holiday in England: gov.uk/bank-holidays"),
        ("XFRA", "2025-04-18", "Good Friday is a holiday in Hesse: § 1 HFeiertagsG"),
        ("Pre_USA", "2025-11-27", HOLIDAYS),
        ("XNYS", "2025-11-27", HOLIDAYS),
        ("XTKS", "2024-11-04", "nippon.com, 2024-11-05: closed on Monday for a national holiday"),
        ("XBOM", "2025-10-22", "deccanherald.com, 2025-10-21: Balipratipada"),
        ("XBOM", "2026-01-15", "rsheftel/pandas_market_calendars#474: municipal elections"),
        ("CME equity", "2023-12-25", "the trade date of 25 December 2023 does not exist: " + CME),
    ],
)
def test_a_holiday_has_no_session_and_is_called_one(
    lines: Mapping[str, Timeline], calendar: str, day: str, source: str
) -> None:
    line = lines[calendar]
    assert line.on(date.fromisoformat(day)) is None, source
    noon = int(datetime.fromisoformat(f"{day} 12:00").replace(tzinfo=line.zone).timestamp()) * NANO
    assert line.at(noon).status == "HOLIDAY_CLOSED", source


def test_the_late_open_of_christmas_2023_is_the_next_event_all_day(lines: Mapping[str, Timeline]) -> None:
    moment = lines["CME equity"].at(ns("2023-12-25 15:00"))
    assert moment.next_open == ns("2023-12-25 23:00")
    assert lines["CME equity"].at(ns("2023-12-25 22:30")).status == "PREOPEN"


# America changes on 9 March and 2 November 2025, Europe on 30 March and 26 October (Energy Policy Act of 2005;
# Directive 2000/84/EC): in between London opens an hour nearer to New York.
@pytest.mark.parametrize(
    ("day", "london", "new_york", "hours"),
    [
        ("2025-03-07", "08:00", "14:30", 6.5),
        ("2025-03-10", "08:00", "13:30", 5.5),
        ("2025-03-28", "08:00", "13:30", 5.5),
        ("2025-03-31", "07:00", "13:30", 6.5),
        ("2025-10-24", "07:00", "13:30", 6.5),
        ("2025-10-27", "08:00", "13:30", 5.5),
        ("2025-10-31", "08:00", "13:30", 5.5),
        ("2025-11-03", "08:00", "14:30", 6.5),
    ],
)
def test_the_weeks_in_which_america_and_europe_differ_in_daylight_saving(
    lines: Mapping[str, Timeline], day: str, london: str, new_york: str, hours: float
) -> None:
    opens = [line.opens for name in ("XLON", "XNYS") if (line := lines[name].on(date.fromisoformat(day)))]
    assert opens == [ns(f"{day} {london}"), ns(f"{day} {new_york}")]
    assert (opens[1] - opens[0]) / NANO / 3600 == hours


@pytest.mark.parametrize("calendar", ["XSHG", "XBOM"])
def test_past_confirmed_until_the_weekday_rule_holds_unconfirmed(lines: Mapping[str, Timeline], calendar: str) -> None:
    new_year, last = lines[calendar].on(date(2027, 1, 1)), lines[calendar].on(date(2026, 12, 31))
    assert last is not None
    assert last.confirmed
    assert new_year is not None  # a holiday in China, which nobody has announced yet
    assert (new_year.confirmed, new_year.source, new_year.kind) == (False, "weekday rule", "regular")
    assert not lines[calendar].at(ns("2027-01-06 02:00")).confirmed


def test_a_year_far_away_is_all_weekday_rule() -> None:
    far = almanac.timelines([2060])
    assert all(not session.confirmed for line in far.values() for session in line.sessions)
    assert all(len(line.sessions) == 262 for line in far.values())


def test_every_session_is_whole_and_apart_from_the_next(lines: Mapping[str, Timeline]) -> None:
    for name, line in lines.items():
        for one, following in zip(line.sessions, line.sessions[1:], strict=False):
            assert one.closes <= following.opens, f"{name} {one.date}"
            assert one.date < following.date


def test_a_replay_has_the_hours_of_its_own_dates(lines: Mapping[str, Timeline], clockwork: Clockwork) -> None:
    world = World.of(clockwork.markets, lines, ns("2013-10-08 13:00"))
    assert {code: moment.status for code, moment in world.moments.items()} == {
        "JP": "CLOSED",
        "CN": "CLOSED",
        "IN": "CLOSED",
        "DE": "OPEN",
        "UK": "OPEN",
        "PRE": "OPEN",
        "US": "PREOPEN",
        "CA": "PREOPEN",
        "MX": "PREOPEN",
    }
    assert (f"{world.composite:f}", world.phase) == ("30", "OVERLAP")


def test_the_nine_weights_are_those_of_the_specification(clockwork: Clockwork) -> None:
    text = (ROOT / "docs" / "domain.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.count("|") == 8]
    told = {
        row[0]: (row[1], row[2], row[4], row[5], row[6]) for row in rows if len(row[0]) in (2, 3) and row[0].isupper()
    }
    assert told == {
        one.code: (one.country, one.name, one.zone, f"{one.weight}", "yes" if one.captures else "no")
        for one in clockwork.markets
    }
    assert sum(one.weight for one in clockwork.markets) == 1


def test_every_future_has_its_calendar(clockwork: Clockwork) -> None:
    registry = instruments.load([ROOT / "config" / "instruments.yaml"])
    assert {one.symbol: clockwork.calendar_of(one) for one in registry} == {
        **dict.fromkeys(("YM", "ES", "NQ", "RTY"), "CME equity"),
        **dict.fromkeys(("CL", "SI", "HG", "GC"), "CME energy and metals"),
        "ZB": "CME rates",
        "VX": "CFE",
        "DX": "ICE US",
    }


def test_the_table_covers_a_month_back_and_a_year_ahead(clockwork: Clockwork) -> None:
    assert clockwork.years(ns("2026-11-20 12:00")) == {2026, 2027}
    assert clockwork.years(ns("2026-01-05 12:00"), ns("2013-10-08 12:00")) == {2013, 2014, 2025, 2026, 2027}


GIVEN = "why: a, source: b, checked: 2026-11-20"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (f"{{calendar: XXXX, date: 2026-11-08, do: remove, {GIVEN}}}", "must be one of XTKS"),
        (f"{{calendar: XBOM, date: 2026-11-08, do: drop, {GIVEN}}}", "'add', 'replace' or"),
        (f"{{calendar: XBOM, date: 2026-11-08, do: add, closes: '09:00', {GIVEN}}}", "open < "),
        ("{calendar: XBOM, date: 2026-11-08, do: add, why: a, checked: 2026-11-20}", "source: expected"),
    ],
)
def test_a_wrong_overlay_is_one_line_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, said: str
) -> None:
    (tmp_path / "markets.yaml").write_text((ROOT / "config" / "markets.yaml").read_text())
    (tmp_path / "calendars.yaml").write_text(f"changes:\n  - {change}\n")
    monkeypatch.setenv("THOR_CONFIG_DIR", str(tmp_path))
    with pytest.raises(BadConfig) as refused:
        load()
    assert "calendars.yaml:2:" in str(refused.value)
    assert said in str(refused.value)


def test_nothing_but_its_own_process_imports_the_libraries() -> None:
    code = "import sys, daemons.markets, httpd.app, thor.cli; print(*(m for m in sys.modules if 'calendars' in m))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "thor.domain.calendars"


def test_the_process_dies_with_the_one_that_started_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "thor.runtime.almanac", "2026", "--print", "--parent", "1"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")


def test_the_overlay_says_when_somebody_looked(clockwork: Clockwork) -> None:
    assert sum(map(len, clockwork.changes.values())) >= 15
    assert all(change.source.startswith("https://") for changes in clockwork.changes.values() for change in changes)
    assert clockwork.calendars["XBOM"].on(date(2026, 2, 1)).since + timedelta(1) < date(2026, 2, 1)
