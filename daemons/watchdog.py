"""watchdog: reads heartbeats, supervisord, probes, latest quotes; restarts what hangs; writes supervision_events."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

from thor.domain.cadence import Finding, SourceRules, Sources
from thor.domain.watch import Watch
from thor.domain.watched import Around, Decision, Rules, Seen
from thor.runtime import instruments, metrics, source
from thor.runtime.daemon import Context, Step, main
from thor.runtime.supervisor import Frozen
from thor.runtime.watching import Eyes, Hands, Probes
from thor.stores.events import Event, Waiting

log = logging.getLogger(__name__)

_STRICT: Final = ConfigDict(extra="forbid")
_RULES, _SOURCES = (validated(one, config=_STRICT, frozen=True) for one in (Rules, SourceRules))
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_OPENING_NS: Final = 300_000_000_000
_LEARN_S: Final = 300
_LEVEL: Final = {"alert": logging.ERROR, "stop": logging.ERROR, "clear": logging.INFO, "noted": logging.INFO}


class Config(BaseModel):
    """config/watchdog.yaml"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    poll_s: float = Field(gt=0, le=5)
    rules: _RULES  # type: ignore[valid-type]
    sources: _SOURCES  # type: ignore[valid-type]


ACTIONS = metrics.Counter("thor_supervision_actions", "Decisions of the watchdog", ["process", "rule", "action"])
ALERT = metrics.Gauge("thor_watchdog_alert", "1 while an alert stands", ["process", "rule"])
QUARANTINED = metrics.Gauge("thor_watchdog_quarantined", "1 while a process is in quarantine", ["process"])
PAUSED = metrics.Gauge("thor_watchdog_paused", "1 while the watchdog leaves a process alone", ["process"])
DEPENDENCY = metrics.Gauge("thor_watchdog_dependency_up", "1 where the watchdog's own probe succeeds", ["dependency"])
RESIDENT = metrics.Gauge("thor_watchdog_resident_bytes", "Resident memory", ["process"])
DROPPED = metrics.Gauge("thor_watchdog_events_dropped", "Events that found the file of waiting ones full")


class Watchdog:
    """Sees, decides (thor.domain.watch, thor.domain.cadence), acts, tells (domain.md §16)."""

    name = "watchdog"

    def __init__(self, context: Context) -> None:
        self._context, settings = context, context.settings
        registry = instruments.load(instruments.files(settings))
        self._waiting = Waiting(settings.dir / "spool" / "events")
        self._probes = Probes(settings, self._waiting, registry)
        self._eyes = Eyes(settings, self._probes)
        self._hands = Hands(settings, self._eyes)
        self._watch = Watch(context.config.rules, random.random)
        self._sources = Sources(context.config.sources, lambda symbol, at: self._probes.trading.stretch(symbol, at))
        self._state, self._cadence = settings.run / "watchdog.json", settings.dir / "cadence.json"
        self._kept: dict[str, Any] = {}
        self._next = self._learnt_at = 0.0
        self._judged_at = self._event = 0
        self._opening = False

    def open(self) -> None:
        """Take back what must outlive us; needs nobody."""
        played = source.present(self._context.settings)
        #: A recording is silent where its market was, and at its end.
        self._live = played is None or played.kind != "recorded"
        held = _read(self._state)
        if held.get("boot") == _boot():
            self._kept = held["processes"]
            self._watch.remember(time.monotonic(), self._kept)
        self._sources.remember(_read(self._cadence))
        self._learnt_at = time.monotonic()
        self._probes.start()

    def step(self) -> Step:
        """One look at everything."""
        self._context.stopping.wait(max(0.0, self._next - time.monotonic()))
        now = time.monotonic()
        self._next = now + self._context.config.poll_s
        looked = self._eyes.look(now, self._opening)
        if looked is None:
            return Step("idle", why="supervisord is shutting down")
        seen, around = looked
        for decision in (*self._watch.look(now, seen, around), *self._judge(now, seen, around)):
            self._carry_out(decision)
        self._keep(now)
        self._show(seen, around)
        return Step("running")

    def close(self) -> None:
        """Keep what was learned."""
        source.write(self._cadence, json.dumps(self._sources.learned()))
        self._probes.close()

    def _judge(self, now: float, seen: list[Seen], around: Around) -> list[Decision]:
        """The sources, once a second, while Redis can say what they bring."""
        wall = time.time_ns()
        if not self._live or wall - self._judged_at < 1_000_000_000 or not around.probes.get("redis"):
            return []
        self._judged_at = wall
        self._opening = self._probes.trading.begins(wall, _OPENING_NS)
        ingester = next((one for one in seen if one.name == "ingester" and one.pid), None)
        findings = self._sources.look(wall, self._probes.quotes)
        return (
            []
            if ingester is None
            else [decision for finding in findings for decision in self._answer(now, finding, ingester, around)]
        )

    def _answer(self, now: float, finding: Finding, ingester: Seen, around: Around) -> Iterable[Decision]:
        stale = {name: since for name, since in self._probes.stale.items() if name != finding.source}
        if not finding.rule:
            self._probes.stale = stale
            yield Decision(finding.source, str(finding.evidence.get("was", "market_closed")), "clear")
            return
        if finding.rule == "frozen_source":
            self._probes.stale = {finding.source: self._probes.stale.get(finding.source, str(time.time_ns())), **stale}
        evidence = {"source": finding.source, **finding.evidence}
        if finding.evidence.get("try") == 1:
            yield Decision(finding.source, finding.rule, "alert", 0, evidence)
        asked = Decision("ingester", finding.rule, finding.stage or "alert", ingester.pid, evidence)
        if finding.stage == "restart":
            yield from self._watch.restart(now, asked, around)
        elif not {"*", "ingester"} & around.paused:
            yield asked

    def _carry_out(self, decision: Decision) -> None:
        """Say it, keep it, do it."""
        process, rule, do = decision.process, decision.rule, decision.do
        evidence = dict(decision.evidence)
        try:
            self._hands.do(decision)
        except Frozen as error:
            evidence["failed"] = str(error)[:200]
        log.log(_LEVEL.get(do, logging.WARNING), "%s: %s: %s %s", process, rule, do, json.dumps(evidence, default=str))
        self._event = max(self._event + 1, time.time_ns())
        self._waiting.put(Event(self._event, process, rule, do, evidence))
        ACTIONS.labels(process, rule, do).inc()
        if do in ("alert", "clear"):
            ALERT.labels(process, rule).set(do == "alert")

    def _keep(self, now: float) -> None:
        held = self._watch.memory()
        if held != self._kept:
            self._kept = held
            source.write(self._state, json.dumps({"boot": _boot(), "processes": held}))
        if now - self._learnt_at > _LEARN_S:
            self._learnt_at = now
            source.write(self._cadence, json.dumps(self._sources.learned()))

    def _show(self, seen: list[Seen], around: Around) -> None:
        quarantined, everybody = self._watch.quarantined, "*" in around.paused
        for one in seen:
            QUARANTINED.labels(one.name).set(one.name in quarantined)
            PAUSED.labels(one.name).set(everybody or one.name in around.paused)
            if one.resident_mib is not None:
                RESIDENT.labels(one.name).set(one.resident_mib * 2**20)
        for name, well in around.probes.items():
            DEPENDENCY.labels(name).set(well)
        DROPPED.set(self._waiting.dropped)


def _read(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _boot() -> str:
    return _BOOT.read_text().strip() if _BOOT.exists() else ""


if __name__ == "__main__":
    main(Watchdog, Watchdog.name, Config)
