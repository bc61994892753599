"""The nine control markets beside each other: lookup, composite, phase, and how an instant is told (domain.md §8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

from thor.domain.calendars import Moment, Session, Timeline
from thor.domain.prices import NANO
from thor.domain.stamps import rfc3339

Region = Literal["ASIAN", "EUROPEAN", "AMERICAN"]
Phase = Literal["ASIAN", "EUROPEAN", "AMERICAN", "OVERLAP"]


@dataclass(frozen=True, slots=True)
class Market:
    """One control market. ``evaluation_s`` is how long a capture is graded; None: until the close (domain.md §12).

    A market that is not ``enabled`` takes no part in composite, phase and captures.
    """

    code: str
    country: str
    name: str
    calendar: str
    zone: str
    weight: Decimal
    region: Region
    captures: bool = True
    metrics: bool = True
    enabled: bool = True
    evaluation_s: int | None = None


class Markets:
    """The control markets in their order, found by code, country or shown name, whatever the case."""

    def __init__(self, markets: Iterable[Market]) -> None:
        """Raises ValueError where a name could mean two markets."""
        self._markets = {market.code: market for market in markets}
        self._names: dict[str, Market] = {}
        for market in self:
            for name in (market.code, market.country, market.name):
                other = self._names.setdefault(name.casefold(), market)
                if other is not market:
                    raise ValueError(f"{name} names two markets: {other.code} and {market.code}")

    def __iter__(self) -> Iterator[Market]:
        return iter(self._markets.values())

    def __len__(self) -> int:
        return len(self._markets)

    def __getitem__(self, code: str) -> Market:
        return self._markets[code]

    def find(self, name: str) -> Market | None:
        """The market of a code, a country or a shown name."""
        return self._names.get(name.strip().casefold())

    @property
    def names(self) -> list[str]:
        """The shown names."""
        return [market.name for market in self]


@dataclass(frozen=True, slots=True)
class World:
    """Every market at one instant."""

    at: int
    markets: Markets
    moments: Mapping[str, Moment]

    @classmethod
    def of(cls, markets: Markets, timelines: Mapping[str, Timeline], at: int) -> World:
        """From the timelines by calendar. Raises KeyError where one is missing."""
        return cls(at, markets, {market.code: timelines[market.calendar].at(at) for market in markets})

    @property
    def open(self) -> list[Market]:
        """The enabled markets that trade now."""
        return [market for market in self.markets if market.enabled and self.moments[market.code].is_open]

    @property
    def composite(self) -> Decimal:
        """Σ weight × 100 of the markets now open."""
        return sum((market.weight * 100 for market in self.open), Decimal(0)).normalize() + 0

    @property
    def phase(self) -> Phase | None:
        """The region that trades, OVERLAP where several do, None where none does."""
        regions = {market.region for market in self.open}
        return "OVERLAP" if len(regions) > 1 else next(iter(regions), None)

    def told(self) -> dict[str, Any]:
        """The composite as the API and Redis tell it."""
        enabled = [market for market in self.markets if market.enabled]
        return {
            "as_of": rfc3339(self.at),
            "composite": f"{self.composite:f}",
            "composite_of": f"{sum((market.weight * 100 for market in enabled), Decimal(0)).normalize() + 0:f}",
            "phase": self.phase,
            "open": [market.code for market in self.open],
        }

    def tell(self, market: Market) -> dict[str, Any]:
        """One market as the API and Redis tell it."""
        return {
            "code": market.code,
            "country": market.country,
            "name": market.name,
            "calendar": market.calendar,
            "weight": f"{market.weight:f}",
            "region": market.region,
            "enabled": market.enabled,
            "captures": market.captures,
            "metrics": market.metrics,
            "evaluation_s": market.evaluation_s,
            **tell(self.moments[market.code], market.zone),
        }


def tell(moment: Moment, zone: str) -> dict[str, Any]:
    """A moment of any calendar, with the local time of ``zone``."""
    local = datetime.fromtimestamp(moment.at // NANO, ZoneInfo(zone))
    event = moment.next_event
    return {
        "status": moment.status,
        "is_open": moment.is_open,
        "zone": zone,
        "local_time": local.isoformat(),
        "local_date": local.date().isoformat(),
        "utc_offset": f"{local:%z}"[:3] + ":" + f"{local:%z}"[3:5],
        "dst": local.dst() not in (None, timedelta(0)),
        "session": None if moment.session is None else tell_session(moment.session),
        "next_open": _instant(moment.next_open),
        "next_close": _instant(moment.next_close),
        "next_event": None if event is None else event.kind,
        "next_event_at": None if event is None else _instant(event.at),
        "seconds_to_next_event": None if event is None else -(-(event.at - moment.at) // NANO),
        "quality": "live" if moment.confirmed else "unconfirmed",
    }


def tell_session(session: Session) -> dict[str, Any]:
    """A session as the API and the command line tell it."""
    return {
        "date": session.date.isoformat(),
        "opens": _instant(session.opens),
        "closes": _instant(session.closes),
        "break_starts": _instant(session.break_starts),
        "break_ends": _instant(session.break_ends),
        "kind": session.kind,
        "source": session.source,
        "confirmed": session.confirmed,
        "note": session.note or None,
    }


def _instant(ns: int | None) -> str | None:
    return None if ns is None else rfc3339(ns)
