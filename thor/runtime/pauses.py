"""Whom the watchdog leaves alone, and until when: a small file in THOR_DIR/run."""

from __future__ import annotations

import json
from pathlib import Path

from thor.runtime.settings import Settings
from thor.runtime.source import write

#: Stands for every process.
ALL = "*"


def _path(settings: Settings) -> Path:
    return settings.run / "pauses.json"


def paused(settings: Settings, now: float) -> dict[str, float]:
    """Process → Unix time at which its pause ends; those that ended are left out. An unreadable file pauses nobody."""
    try:
        held = json.loads(_path(settings).read_text())
        return {str(name): float(until) for name, until in held.items() if float(until) > now}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def pause(settings: Settings, process: str, now: float, for_s: float) -> None:
    """Leave a process alone for so long, whatever happens to it."""
    settings.run.mkdir(parents=True, exist_ok=True)
    write(_path(settings), json.dumps({**paused(settings, now), process: now + for_s}))


def resume(settings: Settings, process: str, now: float) -> bool:
    """End a pause, for ALL every one; False where there was none."""
    held = paused(settings, now)
    left = {} if process == ALL else {name: until for name, until in held.items() if name != process}
    if len(left) == len(held):
        return False
    write(_path(settings), json.dumps(left))
    return True
