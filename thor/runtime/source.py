"""What this THOR_DIR plays, and that it stays one timeline: simulated, live and recorded quotes never meet."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from thor.domain.instruments import Instrument
from thor.runtime import instruments
from thor.runtime.settings import Settings

_KINDS: Final = {"simulator": "simulated", "replay": "recorded"}  # every other provider is live
#: A recording that begins so little before the end of the last one still goes on from it.
_OVERLAP_NS: Final = 5_000_000_000


class OtherTimeline(ValueError):
    """These quotes do not belong behind those that the database holds; one line that says what to do."""


@dataclass(frozen=True)
class Source:
    """What source.json tells the ingester. ``speed`` is "max" or a factor; ``identity`` names contents and options,
    so that the same recording is recognised."""

    provider: str
    files: tuple[str, ...] = ()
    speed: str | float = 1
    map: Mapping[str, str] | None = None
    snapshot: bool = False
    in_memory: bool = False
    identity: str = ""

    @property
    def kind(self) -> str:
        """simulated, live or recorded."""
        return _KINDS.get(self.provider, "live")


@dataclass(frozen=True)
class Timeline:
    """What timeline.json remembers; for recorded quotes the last recording and its end (ns)."""

    kind: str
    identity: str = ""
    last_ts: int = 0


def check(settings: Settings, source: Source, first_ts: int | None) -> None:
    """Refuse a source that does not go on from what this THOR_DIR holds. Raises OtherTimeline."""
    held = timeline(settings)
    if held is None or (held.kind == source.kind and source.kind != "recorded"):
        return
    way_out = "use another THOR_DIR, or --fresh to discard what is there"
    if held.kind != source.kind:
        raise OtherTimeline(
            f"{settings.dir} holds {held.kind} quotes and these are {source.kind} ({source.provider}): {way_out}"
        )
    if source.identity == held.identity or first_ts is None or first_ts >= held.last_ts - _OVERLAP_NS:
        return
    raise OtherTimeline(
        f"{settings.dir} holds a recording up to {_time(held.last_ts)}; expected one that begins there, "
        f"found {_time(first_ts)}: {way_out}"
    )


def timeline(settings: Settings) -> Timeline | None:
    """What this THOR_DIR holds, None where it is new. Raises OtherTimeline for a file that is none."""
    data = _read(settings.dir / "timeline.json")
    return None if data is None else Timeline(**data)


def present(settings: Settings) -> Source | None:
    """What `up` was asked to play last."""
    data = _read(settings.dir / "source.json")
    return None if data is None else Source(**{**data, "files": tuple(data.get("files", ()))})


def keep(settings: Settings, source: Source, last_ts: int) -> None:
    """Write source.json and timeline.json."""
    write(settings.dir / "timeline.json", json.dumps(asdict(Timeline(source.kind, source.identity, last_ts))))
    write(settings.dir / "source.json", json.dumps(asdict(source), indent=1))


def keep_instruments(settings: Settings, own: Sequence[Path], added: Sequence[Instrument]) -> None:
    """Keep the user's files and the contracts added from a recording in instruments.d."""
    directory = settings.dir / "instruments.d"
    directory.mkdir(parents=True, exist_ok=True)
    for path in own:
        if path.parent.resolve() != directory.resolve():
            write(directory / f"user-{path.stem}.yaml", path.read_text(encoding="utf-8"))
    if added:
        known = {one.symbol: one for one in instruments.load(instruments.files(settings)) if one.root}
        known |= {one.symbol: one for one in added}
        write(directory / "added.yaml", instruments.dump(list(known.values())))


def write(path: Path, text: str) -> None:
    """Replace a file whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OtherTimeline(f"{path}: expected what `up` wrote there: {error}") from error
    if not isinstance(data, dict):
        raise OtherTimeline(f"{path}: expected an object, found {type(data).__name__}")
    return data


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
