"""The world clock as the files say: config/markets.yaml, and the dated overlay config/calendars.yaml."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from importlib.metadata import version
from typing import Annotated, Any, Final, Literal

import psycopg
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from thor.domain import markets as domain
from thor.domain.calendars import Calendar, Change, Hours
from thor.domain.instruments import Instrument
from thor.domain.trading import Trading
from thor.runtime.config import directory, load_config, read, validate
from thor.runtime.instruments import Clock, known_zone
from thor.stores import markets as store

LIBRARIES: Final = ("exchange-calendars", "pandas-market-calendars")
#: Raised where the same configuration comes to mean other rows.
_FORM: Final = 1
#: How far from its instant ``trading`` trusts what it read, which is farther on both sides.
_DATED: Final = 10 * 86_400 * 10**9

Zone = Annotated[str, AfterValidator(known_zone)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class _Hours(_Strict):
    since: dt.date
    opens: Clock
    closes: Clock
    break_: tuple[Clock, Clock] | None = Field(None, alias="break")
    eve: bool = False


class CalendarRule(_Strict):
    """One calendar of markets.yaml."""

    zone: Zone
    hours: list[_Hours] = Field(min_length=1)
    weekdays: list[Annotated[int, Field(ge=0, le=6)]] = [0, 1, 2, 3, 4]
    library: Literal["exchange-calendars", "pandas-market-calendars", "none"] = "none"
    id: str = ""
    days_of: str | None = None
    days_only: bool = False
    early_before: Clock | None = None

    @model_validator(mode="after")
    def _whole(self) -> CalendarRule:
        if (self.library != "none") != bool(self.id) or (self.days_of and self.id):
            raise ValueError("expected library and id, or days_of, or neither")
        if [one.since for one in self.hours] != sorted({one.since for one in self.hours}):
            raise ValueError("hours: expected the oldest first, each date once")
        return self


class _Futures(_Strict):
    symbols: dict[str, str] = {}
    hours: dict[str, str] = {}


class _Market(_Strict):
    country: str
    name: str
    calendar: str
    zone: Zone
    weight: Annotated[Decimal, Field(ge=0, le=1)]
    region: domain.Region
    captures: bool = True
    metrics: bool = True
    enabled: bool = True
    evaluation_s: Annotated[int, Field(gt=0)] | None = None


class Drift(_Strict):
    grace_s: int = Field(ge=0, le=3600)
    silence_s: int = Field(ge=1)


class Config(_Strict):
    """config/markets.yaml"""

    refresh_hours: Annotated[float, Field(gt=0, le=168)]
    days_back: Annotated[int, Field(ge=1, le=366)]
    days_ahead: Annotated[int, Field(ge=1, le=1100)]
    drift: Drift
    calendars: dict[str, CalendarRule]
    futures: _Futures
    markets: dict[str, _Market] = Field(min_length=1)

    @field_validator("calendars")
    @classmethod
    def _bases(cls, found: dict[str, CalendarRule]) -> dict[str, CalendarRule]:
        for name, rule in found.items():
            if rule.days_of is not None and (rule.days_of not in found or found[rule.days_of].days_of is not None):
                raise ValueError(f"{name}.days_of: expected a calendar with days of its own, found {rule.days_of}")
        return found

    @field_validator("futures")
    @classmethod
    def _futures(cls, found: _Futures, info: ValidationInfo) -> _Futures:
        for calendar in (*found.symbols.values(), *found.hours.values()):
            _known(calendar, info)
        return found

    @field_validator("markets")
    @classmethod
    def _markets(cls, found: dict[str, _Market], info: ValidationInfo) -> dict[str, _Market]:
        for market in found.values():
            _known(market.calendar, info)
        _domain(found)
        return found


def _known(calendar: str, info: ValidationInfo) -> None:
    known = info.data.get("calendars", {})
    if known and calendar not in known:
        raise ValueError(f"expected one of the calendars {', '.join(known)}, found {calendar}")


def _domain(markets: dict[str, _Market]) -> domain.Markets:
    return domain.Markets(domain.Market(code, **dict(market)) for code, market in markets.items())


class _Change(_Strict):
    calendar: str
    date: dt.date
    do: Literal["add", "replace", "remove"]
    opens: Clock | None = None
    closes: Clock | None = None
    break_: tuple[Clock, Clock] | None = Field(None, alias="break")
    eve: bool | None = None
    why: str
    source: str = Field(min_length=1)
    checked: dt.date


class _Overlay(_Strict):
    changes: list[_Change] = []


@dataclass(frozen=True)
class Clockwork:
    """Everything the world clock is made of. ``digest`` names the configuration, overlay and library versions."""

    config: Config
    markets: domain.Markets
    calendars: dict[str, Calendar]
    changes: dict[str, list[Change]]
    digest: str

    def calendar_of(self, instrument: Instrument) -> str | None:
        """The calendar that a future follows; None where it never closes. A contract follows its root."""
        futures = self.config.futures
        for symbol in (instrument.symbol, instrument.root):
            if symbol in futures.symbols:
                return futures.symbols[symbol]
        return futures.hours.get(instrument.hours.name)

    @property
    def of_futures(self) -> list[str]:
        """The calendars that futures follow."""
        futures = self.config.futures
        return list(dict.fromkeys((*futures.hours.values(), *futures.symbols.values())))

    def years(self, *instants: int) -> set[int]:
        """The years that must be in the table: days_back before to days_ahead after each instant (ns)."""
        found: set[int] = set()
        for at in instants:
            day = datetime.fromtimestamp(at // 10**9, UTC).date()
            first = day - timedelta(days=self.config.days_back)
            found |= set(range(first.year, (day + timedelta(days=self.config.days_ahead)).year + 1))
        return found


def weekly(instruments: Iterable[Instrument]) -> Trading:
    """When each instrument trades by its weekly hours alone, without holidays."""
    return Trading({one.symbol: one.hours for one in instruments})


def trading(conn: psycopg.Connection[Any], clockwork: Clockwork, instruments: Iterable[Instrument], at: int) -> Trading:
    """When each instrument trades, dated for ten days on both sides of the instant (ns).

    Raises store.NotCovered and psycopg.Error.
    """
    listed = list(instruments)
    calendars = {one.symbol: name for one in listed if (name := clockwork.calendar_of(one)) is not None}
    lines = store.around(conn, at, sorted(set(calendars.values())))
    dated = {symbol: lines[name] for symbol, name in calendars.items()}
    return Trading(weekly(listed).hours, dated, at - _DATED, at + _DATED)


def load() -> Clockwork:
    """From the files below the environment's overrides. Raises BadConfig."""
    config = load_config("markets", Config)
    document = read(directory() / "calendars.yaml")
    overlay = validate(document, _Overlay)
    calendars = {name: _calendar(name, rule) for name, rule in config.calendars.items()}
    changes: dict[str, list[Change]] = {name: [] for name in calendars}
    for i, change in enumerate(overlay.changes):
        if change.calendar not in calendars:
            known = ", ".join(calendars)
            document.refuse(("changes", i, "calendar"), f"must be one of {known} (got {change.calendar})")
        if any(other.date == change.date for other in changes[change.calendar]):
            document.refuse(("changes", i, "date"), f"{change.calendar} has a change of {change.date} already")
        try:
            changes[change.calendar].append(_changed(calendars[change.calendar], change))
        except ValueError as error:
            document.refuse(("changes", i), str(error))
    said = config.model_dump_json(include={"calendars"}) + overlay.model_dump_json()
    said += f"{_FORM} " + " ".join(version(name) for name in (*LIBRARIES, "tzdata"))
    digest = hashlib.sha256(said.encode()).hexdigest()[:16]
    return Clockwork(config, _domain(config.markets), calendars, changes, digest)


def _calendar(name: str, rule: CalendarRule) -> Calendar:
    hours = tuple(
        Hours(one.since, _time(one.opens), _time(one.closes), _pair(one.break_), one.eve) for one in rule.hours
    )
    return Calendar(name, rule.zone, hours, frozenset(rule.weekdays))


def _changed(calendar: Calendar, change: _Change) -> Change:
    if change.do == "remove":
        return Change(change.date, None, change.source, change.why)
    regular = calendar.on(change.date)
    timed = change.opens is not None or change.closes is not None
    hours = Hours(
        change.date,
        regular.opens if change.opens is None else _time(change.opens),
        regular.closes if change.closes is None else _time(change.closes),
        _pair(change.break_) if timed or change.break_ else regular.break_,
        regular.eve if change.eve is None else change.eve,
    )
    calendar.session(change.date, hours)  # in order, or a ValueError
    return Change(change.date, hours, change.source, change.why)


def _time(text: str) -> time:
    return time.fromisoformat(text)


def _pair(texts: tuple[str, str] | None) -> tuple[time, time] | None:
    return None if texts is None else (_time(texts[0]), _time(texts[1]))
