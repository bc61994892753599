"""What was looked at before anything is judged (thor/domain/diagnosis.py): plain values, times in ns UTC."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from thor.domain.instruments import Instrument
from thor.domain.trading import Trading


@dataclass(frozen=True, slots=True)
class Process:
    """One process of this container. ``state`` as `thor status` says it; ``frozen``: stopped by a signal."""

    name: str
    pid: int | None
    state: str
    why: str = ""
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """How far a projection has committed: number of the entry, its log, its watermark (ns), entries missed ever."""

    generation: int
    n: int
    watermark: int | None
    missed: int


@dataclass(frozen=True, slots=True)
class Bar:
    """The newest bar of a symbol. Times in ns UTC."""

    minute: int
    close_ns: int
    updates: int


@dataclass(frozen=True, slots=True)
class RedisLook:
    """Redis at one instant, ``now`` (ns) on its own clock; ``latest`` is symbol → event time of its newest quote,
    ``first`` the number of the oldest entry of the log."""

    now: int
    writer: Mapping[str, str]
    latest: Mapping[str, int]
    first: int | None
    used_bytes: int
    limit_bytes: int

    @property
    def n(self) -> int:
        """Number of the newest entry."""
        return int(self.writer.get("n", 0))

    @property
    def recorded(self) -> bool:
        """Whether the log holds a recording, whose times are not now."""
        return "cursor:replay" in self.writer

    @property
    def ended(self) -> bool:
        """Whether the recording has ended."""
        return bool(int(self.writer.get("ended") or 0))


@dataclass(frozen=True, slots=True)
class PostgresLook:
    """Postgres at one instant; ``confirmed`` is calendar → last date it vouches for, None for none."""

    positions: Mapping[str, Position]
    bars: Mapping[str, Bar]
    today: date
    confirmed: Mapping[str, date | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApiLook:
    """What the API said between two looks at the servers: event times of quotes; of the newest bars before it the
    number of updates, None where it has no such bar. ``error``: it did not answer."""

    quotes: Mapping[str, int] = field(default_factory=dict)
    updates: Mapping[str, int | None] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A stream quotes:in that is not the one Thor reads. Ages in seconds, None for never."""

    where: str
    entry_age_s: float | None
    ingester_age_s: float | None


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything looked at. ``redis`` and ``postgres`` are two looks about a second apart, or why there are none;
    ``prints`` is symbol → event time (ns) of the newest print of the log that the tables should hold by now."""

    instruments: Sequence[Instrument]
    role: str
    expected: Collection[str]
    processes: Sequence[Process]
    redis: tuple[RedisLook, RedisLook] | str
    postgres: tuple[PostgresLook, PostgresLook] | str
    prints: Mapping[str, int]
    api: ApiLook | None
    elsewhere: Sequence[Elsewhere]
    free: Mapping[str, tuple[int, int]]  # directory → bytes free, bytes in all
    memory: tuple[int, int] | None  # bytes available, bytes in all
    offsets: Mapping[str, float]  # server → seconds by which its clock is ahead of ours
    secrets: Mapping[str, str]
    exposed: Sequence[str]  # files with secrets that others may read
    trading: Trading
