"""Adapters in: each brings quotes from one kind of source behind one small interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from thor.domain.quotes import Quotes


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry that is not used: ``reason`` is a stable code, ``detail`` says expected and found, ``where`` the
    place (file:line, stream ID), ``raw`` the entry as it came."""

    reason: str
    detail: str
    where: str
    source: str
    raw: Mapping[str, str]


@dataclass(slots=True)
class Arrival:
    """What one poll of a feed brought, in order of arrival: at most MAX_QUOTES quotes.

    ``quotes.instrument`` numbers the ingester's registry, ``quotes.flags`` carries SNAPSHOT and POLLED, ``ts`` may
    be NA.
    ``cursor`` tells the feed where to go on after these; it is stored with them, in the same step.
    ``clock``, where not None, is the recording's own time: the watermark may follow it while no quote comes.
    ``origin``, where given, answers (where, the entry as it came) for the quote at a position.
    ``broken_since`` (ns), where not None: the feed was not watching from then until these quotes.
    """

    quotes: Quotes
    cursor: str
    refused: list[Refused] = field(default_factory=list)
    origin: Callable[[int], tuple[str, Mapping[str, str]]] | None = None
    clock: int | None = None
    broken_since: int | None = None
    ended: bool = False


class Feed(Protocol):
    """One source of quotes. A feed that can wait (a file, a stream) is not polled while the log cannot take more;
    one that cannot (a broker, the simulator) is polled on and its quotes go to the spool."""

    name: str
    waits: bool
    #: Whether time is the recording's (watermark follows the quotes) or the wall's.
    recorded: bool

    def open(self, cursor: str | None) -> None:
        """Begin, or go on after the quotes that ``cursor`` was stored with."""

    def poll(self, timeout_s: float) -> Arrival | None:
        """What has come, waiting at most ``timeout_s`` for it; None for nothing."""

    def committed(self, cursor: str) -> None:
        """Told when what came up to ``cursor`` is in the log: it will not be asked for again."""

    def close(self) -> None:
        """Let go of files and sockets."""
