"""Which feeds the ingester plays: what `up` was asked for (source.json), else DATA_PROVIDER, and its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from thor.domain.instruments import Instruments
from thor.feeds import Feed
from thor.feeds.inbox import Inbox
from thor.feeds.replay import Replay
from thor.feeds.simulator import Simulator
from thor.feeds.text import Kind
from thor.runtime import source
from thor.runtime.settings import Settings
from thor.runtime.source import Source
from thor.stores.redis import connect


class Strict(BaseModel):
    """A section of a configuration file: a key that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceKind(Strict):
    snapshot: bool
    polled: bool


class InboxBounds(Strict):
    keep: int = Field(ge=0)


class Simulated(Strict):
    seed: int
    rate: float = Field(gt=0, le=1_000_000)
    style: Literal["trade", "snapshot"]
    sessions: Literal["shape", "strict"]
    catch_up_s: float = Field(ge=0)


class Feeding(Strict):
    """The part of config/ingester.yaml that is about sources."""

    sources: dict[str, SourceKind]
    default_source: SourceKind
    inbox: InboxBounds
    simulator: Simulated


class RecordingLost(RuntimeError):
    """Redis no longer knows how far this recording was played, but the tables hold a part of it."""


def feeds(settings: Settings, config: Feeding, instruments: Instruments) -> list[Feed]:
    """What to poll; what cannot wait comes last: the loop waits on that one, and only looks at the others."""
    asked = source.present(settings) or Source(settings.provider)
    if asked.provider == "replay":
        return [_replay(asked, instruments)]
    kinds = {name: Kind(kind.snapshot, kind.polled) for name, kind in config.sources.items()}
    default = Kind(config.default_source.snapshot, config.default_source.polled)
    inbox = Inbox(connect(settings.redis_url), instruments, kinds=kinds, default=default, keep=config.inbox.keep)
    if asked.provider == "simulator":
        return [inbox, Simulator(instruments, **config.simulator.model_dump())]
    return [inbox]


def _replay(asked: Source, instruments: Instruments) -> Replay:
    return Replay(
        [Path(file) for file in asked.files],
        instruments,
        mapping=asked.map,
        snapshot=asked.snapshot,
        speed="max" if asked.speed == "max" else float(asked.speed),
        in_memory=asked.in_memory,
        identity=asked.identity,
    )


class Begun:
    """A note beside the spool of the recordings that were begun here, made once their first quotes are in the log."""

    def __init__(self, settings: Settings) -> None:
        asked = source.present(settings)
        self._asked = asked if asked and asked.provider == "replay" else None
        self._note = settings.dir / "spool" / "begun"
        self._begun = self._note.read_text().split() if self._note.exists() else []

    def check(self, *, known: bool) -> None:
        """``known``: Redis knows how far it was played. Raises RecordingLost where it should but does not: playing
        it again would count every quote twice."""
        if self._asked and self._asked.identity in self._begun and not known:
            raise RecordingLost(
                f"{self._asked.files[0]} was begun here, but Redis was emptied and does not know how far it came: "
                "play it again with `python3 -m thor up --fresh --replay …`"
            )

    def keep(self) -> None:
        """Quotes are in the log."""
        if self._asked and self._asked.identity not in self._begun:
            self._begun.append(self._asked.identity)
            source.write(self._note, "\n".join([*self._begun, ""]))
