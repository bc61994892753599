"""The rules of the watchdog: what is seen of each process, and when, goes in; decisions come out.

Pure: instants are monotonic seconds given by the caller. The table of rules and their defaults is in
docs/operations.md; ``config/watchdog.yaml`` holds every number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from thor.domain.watched import Around, Decision, Evidence, Rules, Seen

_DOWN: Final = frozenset({"EXITED", "FATAL", "UNKNOWN"})
_GONE_S: Final = 2.0  # supervisord itself starts what exited within a tick


@dataclass(slots=True)
class Track:
    """What is remembered of one process."""

    pid: int = 0
    started: float = 0
    since: float = 0
    down_since: float | None = None
    committed: int | None = None
    moved_at: float = 0
    reached: int | None = None  # the newest position of any life before
    expected: bool = False  # its end is our doing
    ending: float | None = None  # when it was asked to end
    restarts: deque[float] = field(default_factory=deque)  # those that count against the budget
    crashes: int = 0  # lives in a row that came to nothing
    next_at: float = 0
    quarantined: bool = False
    tried_at: float = 0
    alerts: set[str] = field(default_factory=set)
    waiting_since: float | None = None
    resident: deque[tuple[float, float]] = field(default_factory=deque)
    lag_low: tuple[float, int] | None = None  # when the lag last fell, and to what


class Watch:
    """The state machine. ``dice`` gives jitter in [0, 1)."""

    def __init__(self, rules: Rules, dice: Callable[[], float]) -> None:
        self._rules, self._dice = rules, dice
        self.tracks: dict[str, Track] = {}
        self._looked_at: float | None = None
        self._amnesty_until = self._restarted_at = float("-inf")
        self._held_since: float | None = None
        self._unsupervised_since: float | None = None
        self._heads: deque[tuple[float, int]] = deque(maxlen=600)

    def look(self, now: float, seen: Sequence[Seen], around: Around) -> list[Decision]:
        """Decide about everything seen at ``now``."""
        out = list(self._own_gap(now))
        self._looked_at = now
        if around.head is not None and (not self._heads or now - self._heads[-1][0] >= 1):
            self._heads.append((now, around.head))
        out += self._dependencies(now, around)
        out += self._supervisor(now, around)
        stale: list[Decision] = []
        for one in seen:
            track = self.tracks.setdefault(one.name, Track(since=now, moved_at=now))
            failed = self._lives(now, one, track)
            if {"*", one.name} & around.paused:
                continue
            if failed:
                out.append(self._crashed(now, one, track))
            out += self._program(now, one, track)
            if one.pid and not track.quarantined and not one.server and one.state in ("STARTING", "RUNNING", ""):
                wrong, told = self._process(now, one, track, around)
                out += told
                stale += wrong
        out += self._restarts(now, stale, around)
        return out

    def restart(self, now: float, decision: Decision, around: Around) -> list[Decision]:
        """Restart a process for a reason found elsewhere, within budget, spacing, amnesty and pause."""
        if {"*", decision.process} & around.paused or now < self._amnesty_until:
            return []
        return self._restarts(now, [decision], around)

    def memory(self) -> dict[str, dict[str, object]]:
        """What must outlive the watchdog: budgets and quarantines, as JSON can hold them."""
        return {
            name: {"restarts": list(track.restarts), "quarantined": track.quarantined, "tried_at": track.tried_at}
            for name, track in self.tracks.items()
            if track.restarts or track.quarantined
        }

    def remember(self, now: float, memory: Mapping[str, Mapping[str, Any]]) -> None:
        """Take back what ``memory`` gave within the same run of the host."""
        for name, held in memory.items():
            track = self.tracks[name] = Track(since=now, moved_at=now)
            track.restarts = deque(at for at in held["restarts"] if at <= now)
            track.quarantined, track.tried_at = bool(held["quarantined"]), min(now, held["tried_at"])

    @property
    def quarantined(self) -> list[str]:
        """Who is in quarantine."""
        return sorted(name for name, track in self.tracks.items() if track.quarantined)

    def _own_gap(self, now: float) -> Iterable[Decision]:
        gap = 0.0 if self._looked_at is None else now - self._looked_at
        if gap > self._rules.gap_s:
            self._amnesty_until = now + self._rules.amnesty_s
            for track in self.tracks.values():
                track.moved_at = max(track.moved_at, now)
            yield Decision("watchdog", "own_gap", "amnesty", evidence={"gap_s": round(gap, 1)})

    def _restarts(self, now: float, wanted: Sequence[Decision], around: Around) -> list[Decision]:
        """Of those that should be restarted, at most one now; none while the whole host is the likelier culprit."""
        if not wanted:
            self._held_since = None
            return []
        if now < self._amnesty_until:
            return []
        if around.down or (len(wanted) > 1 and around.starved):
            first = self._held_since is None
            held_since = self._held_since = now if self._held_since is None else self._held_since
            if around.down or now - held_since < self._rules.hold_s:
                names = ",".join(sorted(one.process for one in wanted))
                why = {"stale": names, "down": ",".join(around.down), "starved": around.starved}
                return [Decision("watchdog", "together", "hold", evidence=why)] if first else []
        if now - self._restarted_at < self._rules.spacing_s:
            return []
        for one in wanted:
            track = self.tracks[one.process]
            if now < track.next_at:
                continue
            self._restarted_at = now
            return [self._spend(now, track, one)]
        return []

    def _spend(self, now: float, track: Track, wanted: Decision) -> Decision:
        """One restart out of the budget; where that is spent, quarantine."""
        rules = self._rules
        if self._spent(now, track):
            return self._quarantine(now, track, wanted)
        track.restarts.append(now)
        streak = sum(1 for at in track.restarts if now - at < rules.many_within_s)
        wait = min(rules.backoff_most_s, rules.backoff_s * 2 ** (streak - 1))
        track.next_at = now + wait * (0.8 + 0.4 * self._dice())
        track.expected = True
        track.ending = now if wanted.do == "restart" else None
        return wanted

    def _spent(self, now: float, track: Track) -> bool:
        rules = self._rules
        while track.restarts and now - track.restarts[0] >= rules.many_within_s:
            track.restarts.popleft()
        lately = sum(1 for at in track.restarts if now - at < rules.few_within_s)
        return lately >= rules.few or len(track.restarts) >= rules.many

    def _quarantine(self, now: float, track: Track, cause: Decision) -> Decision:
        track.quarantined, track.tried_at, track.expected = True, now, True
        evidence = {**cause.evidence, "cause": cause.rule, "restarts": len(track.restarts)}
        return Decision(cause.process, "quarantine", "stop", cause.pid, evidence)

    def _lives(self, now: float, one: Seen, track: Track) -> bool:
        """Notice that a life ended or began; whether one ended of itself and had come to nothing."""
        if not one.state and not one.pid:
            return False
        other = bool(one.state) and one.started != track.started
        changed = one.pid != track.pid or (other and one.pid != 0)
        ended = track.pid != 0 and changed
        unseen = track.pid == 0 and one.pid == 0 and other and one.state == "BACKOFF"
        asked = track.expected or one.state in ("STOPPED", "STOPPING")
        fruitless = unseen or (ended and now - track.since < self._rules.settled_s and not self._advanced(track))
        if ended and not fruitless:
            track.crashes = 0
        if ended and track.committed is not None:
            track.reached = max(track.committed, track.reached or 0)
        if other or changed:
            track.started, track.pid, track.since, track.moved_at = one.started, one.pid, now, now
            track.committed = track.lag_low = track.waiting_since = track.ending = None
            track.resident.clear()
            track.expected = track.expected and not one.pid
        return fruitless and not asked and not one.server

    @staticmethod
    def _advanced(track: Track) -> bool:
        return track.committed is not None and track.committed > (track.reached or 0)

    def _crashed(self, now: float, one: Seen, track: Track) -> Decision:
        """A life that came to nothing; supervisord starts the next by itself. Some in a row are a crash loop."""
        track.crashes += 1
        evidence = {"state": one.state, "in_a_row": track.crashes}
        if track.quarantined or track.crashes > self._rules.crashes:
            return self._quarantine(now, track, Decision(one.name, "crash_loop", "stop", one.pid, evidence))
        return Decision(one.name, "crashed", "noted", one.pid, evidence)

    def _program(self, now: float, one: Seen, track: Track) -> list[Decision]:
        """Revive what nobody stopped; try what is in quarantine."""
        rules = self._rules
        if track.quarantined:
            return self._quarantined(now, one, track)
        if one.state not in _DOWN:
            track.down_since = None
            return []
        track.down_since = now if track.down_since is None else track.down_since
        if now - track.down_since < _GONE_S or now < max(track.next_at, self._amnesty_until):
            return []
        if now - self._restarted_at < rules.spacing_s:
            return []
        self._restarted_at = now
        track.down_since = now
        return [self._spend(now, track, Decision(one.name, "down", "start", evidence={"state": one.state}))]

    def _quarantined(self, now: float, one: Seen, track: Track) -> list[Decision]:
        rules, pulse = self._rules, one.pulse
        if one.pid and one.state in ("STARTING", "RUNNING"):
            well = pulse is not None and pulse.deadline >= now and pulse.state != "starting"
            if well and now - track.since >= rules.settled_s:
                track.quarantined = False
                track.next_at = now
                return [Decision(one.name, "quarantine", "clear", one.pid, {"lived_s": round(now - track.since)})]
            late = now - track.since > rules.grace_s if pulse is None else pulse.deadline < now
            if late and now >= self._amnesty_until and not track.expected:
                return [self._quarantine(now, track, Decision(one.name, "dead_loop", "stop", one.pid, {}))]
            return []
        if one.state in ("STOPPED", *_DOWN) and now - track.tried_at >= rules.retry_s:
            track.tried_at, track.expected = now, False
            return [Decision(one.name, "quarantine", "start", evidence={"state": one.state})]
        return []

    def _process(self, now: float, one: Seen, track: Track, around: Around) -> tuple[list[Decision], list[Decision]]:
        """What should be restarted, and what is only told."""
        told = [*self._memory_alert(now, one, track), *self._behind(now, one, track, around)]
        wrong = (
            self._unending(now, one, track)
            if track.ending is not None
            else (
                self._dead(now, one, track)
                or self._stuck(now, one, track, around)
                or self._too_big(now, one, track, around)
            )
        )
        return ([wrong] if wrong else []), told

    def _unending(self, now: float, one: Seen, track: Track) -> Decision | None:
        if track.ending is None or now - track.ending < self._rules.stop_s:
            return None
        # Asked to end and still here: no second restart, the same one by force.
        track.ending, track.next_at = None, now
        if track.restarts:
            track.restarts.pop()
        return Decision(one.name, "does_not_end", "kill", one.pid, {"asked_s": self._rules.stop_s})

    def _dead(self, now: float, one: Seen, track: Track) -> Decision | None:
        pulse = one.pulse
        if pulse is None:
            if now - track.since <= self._rules.grace_s:
                return None
            return Decision(one.name, "dead_loop", "kill", one.pid, {"no_record_s": round(now - track.since, 1)})
        if now <= pulse.deadline:
            return None
        evidence = {
            "overdue_s": round(now - pulse.deadline, 2),
            "silent_s": round(now - pulse.at, 2),
            "state": pulse.state,
            "why": pulse.why,
            "loops": pulse.loops,
        }
        return Decision(one.name, "dead_loop", "kill", one.pid, evidence)

    def _stuck(self, now: float, one: Seen, track: Track, around: Around) -> Decision | None:
        pulse, rules = one.pulse, self._rules
        if pulse is None or pulse.committed is None:
            return None
        head = max(pulse.head or 0, around.head or 0) if one.follows else pulse.head
        at_rest = head is None or head <= pulse.committed or pulse.state in ("waiting", "paused", "draining")
        if pulse.committed != track.committed or at_rest or around.down:
            track.committed, track.moved_at = pulse.committed, now
            return None
        if now - track.moved_at < rules.progress_of.get(one.name, rules.progress_s):
            return None
        evidence = {"committed": pulse.committed, "head": head, "unchanged_s": round(now - track.moved_at, 1)}
        return Decision(one.name, "no_progress", "restart", one.pid, evidence)

    def _too_big(self, now: float, one: Seen, track: Track, around: Around) -> Decision | None:
        hard = self._rules.hard_mib.get(one.name, self._rules.default_hard_mib)
        if one.resident_mib is None or one.resident_mib < hard or around.opening:
            return None
        return Decision(one.name, "memory", "restart", one.pid, {"resident_mib": one.resident_mib, "hard_mib": hard})

    def _memory_alert(self, now: float, one: Seen, track: Track) -> list[Decision]:
        rules, size = self._rules, one.resident_mib
        if size is None:
            return []
        soft = rules.soft_mib.get(one.name, rules.default_soft_mib)
        hard = rules.hard_mib.get(one.name, rules.default_hard_mib)
        if not track.resident or now - track.resident[-1][0] >= 5:
            track.resident.append((now, size))
        while now - track.resident[0][0] > 120:
            track.resident.popleft()
        (began, first), steep = track.resident[0], False
        if now - began >= 60 and size > max(first, soft / 2):
            steep = (hard - size) / ((size - first) / (now - began)) < rules.slope_s
        evidence = {"resident_mib": size, "soft_mib": soft, "hard_mib": hard}
        return self._alert(one, track, "memory_soft", size >= soft, evidence) + self._alert(
            one, track, "memory_slope", steep, {**evidence, "from_mib": first, "in_s": round(now - began)}
        )

    def _behind(self, now: float, one: Seen, track: Track, around: Around) -> list[Decision]:
        pulse, rules = one.pulse, self._rules
        waiting = pulse is not None and pulse.state == "waiting"
        track.waiting_since = (now if track.waiting_since is None else track.waiting_since) if waiting else None
        long = track.waiting_since is not None and now - track.waiting_since >= rules.dependency_s
        out = self._alert(one, track, "waiting", long, {"why": pulse.why if pulse else ""})
        if pulse is None or pulse.committed is None or not one.follows:
            return out
        head = max(pulse.head or 0, around.head or 0)
        lag = max(0, head - pulse.committed)
        if track.lag_low is None or lag <= track.lag_low[1] or lag == 0:
            track.lag_low = (now, lag)
        rising = lag > track.lag_low[1] and now - track.lag_low[0] >= rules.rising_s
        old = next((at for at, n in self._heads if n > pulse.committed), now)
        over = lag > 0 and (now - old > rules.lag_s or lag > rules.lag_entries)
        evidence = {"lag": lag, "behind_s": round(now - old, 1), "rising": rising}
        return out + self._alert(one, track, "falling_behind", rising or over, evidence)

    def _dependencies(self, now: float, around: Around) -> list[Decision]:
        out: list[Decision] = []
        for name, well in around.probes.items():
            track = self.tracks.setdefault(f"probe of {name}", Track(since=now))
            if well:
                track.since = now
            evidence = {"down_s": round(now - track.since)}
            out += self._alert(
                Seen(name, "", 0), track, "dependency_down", now - track.since >= self._rules.dependency_s, evidence
            )
        return out

    def _supervisor(self, now: float, around: Around) -> list[Decision]:
        track = self.tracks.setdefault("supervisord", Track(since=now))
        if around.supervised:
            track.since = now
        frozen = now - track.since >= self._rules.supervisor_s
        return self._alert(Seen("supervisord", "", 0), track, "frozen", frozen, {"silent_s": round(now - track.since)})

    def _alert(self, one: Seen, track: Track, rule: str, on: bool, evidence: Evidence) -> list[Decision]:
        """Told when it begins and when it ends."""
        if on == (rule in track.alerts):
            return []
        (track.alerts.add if on else track.alerts.discard)(rule)
        return [Decision(one.name, rule, "alert" if on else "clear", one.pid, evidence)]
