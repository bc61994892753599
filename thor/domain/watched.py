"""The words of supervision: what the watchdog sees, by which numbers it judges, what it decides.

Instants are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: kill: continue, dump the stacks, KILL. restart: dump the stacks, TERM, and KILL where that does not help.
Do = Literal["kill", "restart", "start", "stop", "reconnect", "alert", "clear", "hold", "amnesty", "noted"]
Evidence = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Rules:
    """Every number of the table, in seconds where nothing else is said; memory in MiB."""

    grace_s: float = 60
    progress_s: float = 30
    progress_of: Mapping[str, float] = field(default_factory=dict)
    rising_s: float = 300
    lag_s: float = 60
    lag_entries: int = 50_000
    dependency_s: float = 60
    soft_mib: Mapping[str, float] = field(default_factory=dict)
    hard_mib: Mapping[str, float] = field(default_factory=dict)
    default_soft_mib: float = 512
    default_hard_mib: float = 1024
    slope_s: float = 600
    gap_s: float = 3
    amnesty_s: float = 10
    spacing_s: float = 2
    hold_s: float = 30
    stop_s: float = 5
    settled_s: float = 10
    crashes: int = 5
    few: int = 3
    few_within_s: float = 300
    many: int = 10
    many_within_s: float = 3600
    backoff_s: float = 1
    backoff_most_s: float = 300
    retry_s: float = 300
    supervisor_s: float = 5


@dataclass(frozen=True, slots=True)
class Pulse:
    """A heartbeat record; ``at`` and ``deadline`` in monotonic seconds."""

    at: float
    deadline: float
    loops: int
    committed: int | None
    head: int | None
    state: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """One program at one look. ``state`` is supervisord's word, empty while it does not answer; ``started`` tells two
    lives apart; ``pulse`` is the record of this pid, None where it has not written one. A server has no heartbeat; who
    ``follows`` the log is measured against its head."""

    name: str
    state: str
    pid: int
    started: float = 0
    pulse: Pulse | None = None
    resident_mib: float | None = None
    server: bool = False
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Around:
    """What holds for all: the watchdog's own probes of the dependencies, whether the processors are contended, whether
    supervisord answers, the head of the log, whether a market opens soon, and who is paused (``*``: all)."""

    probes: Mapping[str, bool] = field(default_factory=dict)
    starved: bool = False
    supervised: bool = True
    head: int | None = None
    opening: bool = False
    paused: frozenset[str] = frozenset()

    @property
    def down(self) -> list[str]:
        """Dependencies whose probe fails."""
        return sorted(name for name, well in self.probes.items() if not well)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, by which rule, and what was seen."""

    process: str
    rule: str
    do: Do
    pid: int = 0
    evidence: Evidence = field(default_factory=dict)
