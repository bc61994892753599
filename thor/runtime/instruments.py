"""The instruments as the files say: config/instruments.yaml, then THOR_DIR/instruments.d/*.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from thor.domain.hours import Hours
from thor.domain.instruments import Instrument, Instruments, canonical, well_formed
from thor.domain.prices import Notation, to_nano
from thor.runtime.config import BadConfig, Document, directory, read, validate
from thor.runtime.settings import Settings


def _exact(value: Decimal) -> Decimal:
    to_nano(value)
    return value


def known_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (OSError, ValueError, LookupError) as error:
        raise ValueError("must be a zone such as America/Chicago") from error
    return value


Step = Annotated[Decimal, Field(gt=0), AfterValidator(_exact)]
Clock = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Hours(_Strict):
    zone: Annotated[str, AfterValidator(known_zone)]
    roll: Clock
    opens: Clock
    closes: Clock
    eve: bool = True
    weekdays: list[Annotated[int, Field(ge=0, le=6)]] = Field(default=[0, 1, 2, 3, 4], min_length=1)


class _Instrument(_Strict):
    name: str
    exchange: str
    tick_size: Step
    tick_value: Step | None = None
    size_step: Step = Decimal(1)
    decimals: Annotated[int, Field(ge=0, le=9)] | None = None
    hours: str = "Always"
    notation: Notation = "decimal"
    safe_haven: bool = False
    negative: bool = False
    country: str = "USA"
    aliases: list[str] = []
    root: str | None = None


class _File(_Strict):
    hours: dict[str, _Hours] = {}
    instruments: dict[str, _Instrument] = {}


def files(settings: Settings) -> list[Path]:
    """The files that hold for this THOR_DIR, in the order in which a later one adds to and replaces the others."""
    return [directory() / "instruments.yaml", *sorted((settings.dir / "instruments.d").glob("*.yaml"))]


def load(paths: Iterable[Path]) -> Instruments:
    """The registry; a symbol given again in a later file is replaced. Raises BadConfig.

    A file may also be the bare table ``symbol: {name: …}``.
    """
    hours: dict[str, Hours] = {}
    rows: dict[str, Instrument] = {}
    last: Document | None = None
    for path in paths:
        last = read(path)
        if isinstance(last.data, dict) and last.data and not last.data.keys() & {"hours", "instruments"}:
            marks = {("instruments", *at): mark for at, mark in last.marks.items()}
            last = Document(last.name, {"instruments": last.data}, marks)
        file = validate(last, _File)
        hours |= {name: _hours(name, row) for name, row in file.hours.items()}
        for name, row in file.instruments.items():
            instrument = _instrument(last, name, row, hours)
            rows[instrument.symbol] = instrument
    try:
        return Instruments(rows.values())
    except ValueError as error:
        raise BadConfig(f"{last.name if last else 'instruments'}: {error}") from error


def _hours(name: str, row: _Hours) -> Hours:
    roll, opens, closes = (time.fromisoformat(at) for at in (row.roll, row.opens, row.closes))
    return Hours(name, row.zone, roll, opens, closes, row.eve, frozenset(row.weekdays))


def _instrument(document: Document, name: str, row: _Instrument, hours: dict[str, Hours]) -> Instrument:
    at = ("instruments", name)
    if row.hours not in hours:
        document.refuse((*at, "hours"), f"must be one of {', '.join(hours)} (got {row.hours})")
    for text, where in [(name, at), *((alias, (*at, "aliases", i)) for i, alias in enumerate(row.aliases))]:
        if not well_formed(text):
            document.refuse(where, f"must be 1 to 24 of A-Z 0-9 / $ . _ : - and space (got {text[:40]!r})")
    places = -int(row.tick_size.normalize().as_tuple().exponent)
    return Instrument(
        symbol=canonical(name),
        name=row.name,
        exchange=row.exchange,
        country=row.country,
        tick_size=row.tick_size,
        tick_value=row.tick_size if row.tick_value is None else row.tick_value,
        size_step=row.size_step,
        decimals=max(0, places) if row.decimals is None else row.decimals,
        hours=hours[row.hours],
        notation=row.notation,
        safe_haven=row.safe_haven,
        negative=row.negative,
        aliases=tuple(row.aliases),
        root=row.root,
    )


def dump(instruments: Sequence[Instrument]) -> str:
    """A file of these instruments, for ``load``; their hours are named, not repeated."""
    rows: dict[str, dict[str, Any]] = {
        one.symbol: {
            "name": one.name,
            "exchange": one.exchange,
            "country": one.country,
            "tick_size": str(one.tick_size),
            "tick_value": str(one.tick_value),
            "size_step": str(one.size_step),
            "decimals": one.decimals,
            "hours": one.hours.name,
            "notation": one.notation,
            "safe_haven": one.safe_haven,
            "negative": one.negative,
            "aliases": list(one.aliases),
            "root": one.root,
        }
        for one in instruments
    }
    return yaml.safe_dump({"instruments": rows}, sort_keys=False, allow_unicode=True)
