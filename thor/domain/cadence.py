"""Mute and frozen sources, judged in market time (domain.md §16): per symbol a learned cadence by hour of its session.

Pure: instants are ns UTC given by the caller. A source is mute when every symbol that it should bring now is silent
for longer than is usual for it at this hour; frozen when quotes come but their values stand still.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

_NS: Final = 1_000_000_000
_HOUR: Final = 3600 * _NS
_WEIGHT: Final = 0.05  # of the newest gap in the usual one
_MEMORY: Final = 24  # hours of a session

Stage = Literal["", "reconnect", "restart"]
#: The unbroken trading [from, to) of a symbol that an instant lies in, all in ns; None while it does not trade.
Stretch = Callable[[str, int], tuple[int, int] | None]


@dataclass(frozen=True, slots=True)
class SourceRules:
    """Seconds where nothing else is said."""

    liquid_s: float = 15
    usual_gaps: float = 20
    most_s: float = 900
    edge_s: float = 180
    frozen_s: float = 60
    frozen_pct: float = 80
    reconnects: int = 2
    retry_s: float = 20
    again_s: float = 900


@dataclass(frozen=True, slots=True)
class Quote:
    """The newest quote of a symbol: its time and source as told, and all its values in any form that compares."""

    ts: str
    source: str
    values: object


@dataclass(slots=True)
class Usual:
    """The usual gap, in seconds, by hour of the session; what was never seen is unknown."""

    gaps: dict[int, float] = field(default_factory=dict)

    def learn(self, hour: int, gap_s: float) -> None:
        known = self.gaps.get(hour)
        self.gaps[hour] = round(gap_s if known is None else known + _WEIGHT * (gap_s - known), 3)

    def allowed(self, hour: int, rules: SourceRules) -> float:
        """How long a silence is no news: 15 s for what is liquid, a multiple of the usual gap for what is thin."""
        known = self.gaps.get(hour)
        return rules.most_s if known is None else min(rules.most_s, max(rules.liquid_s, rules.usual_gaps * known))


@dataclass(slots=True)
class _Symbol:
    ts: str = ""
    values: object = None
    source: str = ""
    heard: int = 0  # ns, when a new time came
    moved: int = 0  # ns, when a new value came
    arrivals: Usual = field(default_factory=Usual)
    changes: Usual = field(default_factory=Usual)


@dataclass(frozen=True, slots=True)
class Finding:
    """One source that is wrong, or right again (rule empty). ``stage``: what to do about it now."""

    source: str
    rule: Literal["", "mute_source", "frozen_source"]
    stage: Stage
    evidence: Mapping[str, object]


@dataclass(slots=True)
class _Trouble:
    rule: Literal["mute_source", "frozen_source"]
    tries: int = 0
    next_at: int = 0


class Sources:
    """The sources of one stack; ``look`` once a second or so."""

    def __init__(self, rules: SourceRules, stretch: Stretch) -> None:
        self._rules, self._stretch = rules, stretch
        self._symbols: dict[str, _Symbol] = {}
        self._troubles: dict[str, _Trouble] = {}
        self._looked_at = 0

    def remember(self, usual: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
        """Take back what ``learned`` gave."""
        for symbol, kinds in usual.items():
            known = self._symbols.setdefault(symbol, _Symbol())
            for kind, gaps in kinds.items():
                getattr(known, kind).gaps.update({int(hour): float(gap) for hour, gap in gaps.items()})

    def learned(self) -> dict[str, dict[str, dict[str, float]]]:
        """The usual gaps, as JSON can hold them: at most 2 × 24 numbers a symbol."""
        return {
            name: {
                kind: {str(hour): gap for hour, gap in sorted(getattr(known, kind).gaps.items())}
                for kind in ("arrivals", "changes")
            }
            for name, known in self._symbols.items()
        }

    def look(self, now: int, quotes: Mapping[str, Quote], gap_s: float = 5) -> list[Finding]:
        """Judge the newest quotes at ``now``. After more than ``gap_s`` without a look everybody begins anew."""
        if now - self._looked_at > gap_s * _NS or now < self._looked_at:
            for known in self._symbols.values():
                known.heard = known.moved = 0
        self._looked_at = now
        for name, quote in quotes.items():
            self._hear(now, name, quote)
        sources: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
        for name in quotes:
            judged = self._judge(now, name)
            if judged is not None:
                sources[self._symbols[name].source].append((name, *judged))
        out = [self._verdict(now, source, judged) for source, judged in sources.items()]
        # Outside trading hours nobody is wrong.
        out += [Finding(s, "", "", {}) for s in self._troubles.keys() - sources.keys() if self._troubles.pop(s)]
        return [finding for finding in out if finding is not None]

    def _hear(self, now: int, name: str, quote: Quote) -> None:
        known = self._symbols.setdefault(name, _Symbol())
        session, known.source = self._stretch(name, now), quote.source
        hour = 0 if session is None else min(_MEMORY - 1, (now - session[0]) // _HOUR)
        if quote.ts != known.ts or not known.heard:
            # A gap counts where both its ends lie in one session.
            if quote.ts != known.ts and known.heard and session and known.heard >= session[0]:
                known.arrivals.learn(hour, (now - known.heard) / _NS)
            known.ts, known.heard = quote.ts, now
        if quote.values != known.values or not known.moved:
            if quote.values != known.values and known.moved and session and known.moved >= session[0]:
                known.changes.learn(hour, (now - known.moved) / _NS)
            known.values, known.moved = quote.values, now

    def _judge(self, now: int, name: str) -> tuple[float, float] | None:
        """How far (in allowances) a symbol is silent, and unchanged while it speaks; None while it need not speak."""
        known, session, edge = self._symbols.get(name), None, int(self._rules.edge_s * _NS)
        if known is not None:
            session = self._stretch(name, now)
        if known is None or session is None or not session[0] + edge <= now < session[1] - edge:
            return None
        hour = min(_MEMORY - 1, (now - session[0]) // _HOUR)
        since = session[0] + edge
        silent = (now - max(known.heard, since)) / _NS
        still = (now - max(known.moved, since)) / _NS
        quiet = silent / known.arrivals.allowed(hour, self._rules)
        frozen = still / max(self._rules.frozen_s, known.changes.allowed(hour, self._rules))
        return quiet, frozen if known.heard > known.moved and silent < self._rules.frozen_s else 0.0

    def _verdict(self, now: int, source: str, judged: list[tuple[str, float, float]]) -> Finding | None:
        rules = self._rules
        silent = [name for name, quiet, _ in judged if quiet > 1]
        frozen = [name for name, _, still in judged if still > 1]
        rule: Literal["", "mute_source", "frozen_source"] = ""
        if len(silent) == len(judged):
            rule = "mute_source"
        elif len(frozen) * 100 >= rules.frozen_pct * len(judged):
            rule = "frozen_source"
        trouble = self._troubles.get(source)
        if not rule:
            if trouble is None:
                return None
            del self._troubles[source]
            return Finding(source, "", "", {"was": trouble.rule, "tries": trouble.tries})
        if trouble is None or trouble.rule != rule:
            trouble = self._troubles[source] = _Trouble(rule)
        if now < trouble.next_at:
            return None
        trouble.tries += 1
        stage: Stage = "reconnect" if trouble.tries <= rules.reconnects else "restart"
        pause_s = rules.retry_s if stage == "reconnect" else rules.again_s
        trouble.next_at = now + int(pause_s * _NS)
        worst = max(judged, key=lambda row: row[1 if rule == "mute_source" else 2])
        known = self._symbols[worst[0]]
        since = (now - (known.heard if rule == "mute_source" else known.moved)) / _NS
        evidence = {"symbols": len(judged), "worst": worst[0], "for_s": round(since, 1), "try": trouble.tries}
        return Finding(source, rule, stage, evidence)
