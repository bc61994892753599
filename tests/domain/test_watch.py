"""The watchdog's rules: seen, decided. Nothing here waits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thor.domain.watch import Watch
from thor.domain.watched import Around, Decision, Pulse, Rules, Seen

RULES = Rules(progress_of={"intraday": 10}, hard_mib={"leaky": 100}, soft_mib={"leaky": 50})
DEEDS = ("kill", "restart", "start", "stop")
WELL = {"postgres": True, "redis": True}


@dataclass
class World:
    """Programs that beat as told, and a supervisord that obeys."""

    rules: Rules = RULES
    now: float = 1000.0
    around: Around = field(default_factory=lambda: Around(probes=WELL, head=0))
    programs: dict[str, Seen] = field(default_factory=dict)
    beating: set[str] = field(default_factory=set)
    done: list[tuple[float, Decision]] = field(default_factory=list)
    obeys: bool = True

    def __post_init__(self) -> None:
        self.watch = Watch(self.rules, lambda: 0.5)
        self._pids = 100

    def start(self, name: str, *, beats: bool = True, server: bool = False, committed: int | None = None) -> None:
        self._pids += 1
        follows = name == "intraday"
        pulse = None if server else Pulse(self.now, self.now + 10, 0, committed, committed, "running")
        self.programs[name] = Seen(name, "RUNNING", self._pids, self.now, pulse, server=server, follows=follows)
        (self.beating.add if beats else self.beating.discard)(name)

    def change(self, name: str, **values: object) -> None:
        self.programs[name] = replace(self.programs[name], **values)  # type: ignore[arg-type]

    def pulse(self, name: str, **values: object) -> None:
        pulse = self.programs[name].pulse
        assert pulse
        self.change(name, pulse=replace(pulse, **values))  # type: ignore[arg-type]

    def look(self) -> list[Decision]:
        decisions = self.watch.look(self.now, list(self.programs.values()), self.around)
        for one in decisions:
            self.done.append((self.now, one))
            if self.obeys and one.do in ("kill", "restart", "start"):
                self.start(one.process, beats=one.process in self.beating or one.do != "start")
            elif self.obeys and one.do == "stop":
                self.change(one.process, state="STOPPED", pid=0, pulse=None)
        return decisions

    def run(self, for_s: float, step_s: float = 0.5) -> list[Decision]:
        """Look every half second for so long; what was decided."""
        before, until = len(self.done), self.now + for_s
        while self.now < until:
            self.now += step_s
            for name in self.beating & self.programs.keys():
                if self.programs[name].pid and self.programs[name].pulse:
                    pulse = self.programs[name].pulse
                    assert pulse
                    self.pulse(name, at=self.now, deadline=self.now + 10, loops=pulse.loops + 1)
            self.look()
        return [one for _, one in self.done[before:]]

    def deeds(self) -> list[tuple[str, str, str]]:
        return [(one.process, one.rule, one.do) for _, one in self.done if one.do in DEEDS]


@pytest.fixture
def world() -> World:
    made = World()
    made.start("postgres", server=True)
    made.start("ingester", committed=0)
    made.start("intraday", committed=0)
    made.run(2)
    return made


def test_a_loop_past_its_deadline_is_killed_within_a_look(world: World) -> None:
    world.beating.discard("intraday")
    stopped = world.now
    world.run(12)
    at, decision = next((at, one) for at, one in world.done if one.do == "kill")
    assert decision.rule == "dead_loop"
    assert decision.process == "intraday"
    assert at - stopped <= 10.5


def test_a_process_without_a_record_has_a_grace(world: World) -> None:
    world.start("slow")
    world.change("slow", pulse=None)
    world.run(59)
    assert world.deeds() == []
    world.run(3)
    assert world.deeds() == [("slow", "dead_loop", "kill")]


def test_a_slow_start_that_says_so_is_left_alone(world: World) -> None:
    world.start("slow", beats=False)
    world.pulse("slow", state="starting", deadline=world.now + 60)
    world.run(59)
    assert world.deeds() == []


def test_a_consumer_that_stands_still_before_waiting_work_is_restarted(world: World) -> None:
    world.around = replace(world.around, head=5)
    world.run(9)
    assert world.deeds() == []
    world.run(2)
    assert world.deeds()[0] == ("intraday", "no_progress", "restart")


def test_a_consumer_that_commits_is_left_alone_however_far_behind(world: World) -> None:
    world.around = replace(world.around, head=10_000)
    for n in range(60):
        world.pulse("intraday", committed=n)
        world.run(1)
    assert world.deeds() == []


def test_what_does_not_end_when_asked_is_killed(world: World) -> None:
    world.around = replace(world.around, head=5)
    world.run(9)
    world.obeys = False
    world.run(10)
    assert world.deeds()[:2] == [("intraday", "no_progress", "restart"), ("intraday", "does_not_end", "kill")]


def test_nobody_is_restarted_while_a_dependency_is_down(world: World) -> None:
    world.around = replace(world.around, head=5, probes={"postgres": False, "redis": True})
    world.beating.clear()
    told = world.run(200)
    assert world.deeds() == []
    assert ("postgres", "dependency_down") in [(one.process, one.rule) for one in told if one.do == "alert"]
    world.around = replace(world.around, probes=WELL)
    world.beating |= {"intraday", "ingester"}
    world.pulse("intraday", committed=5)
    world.run(30)
    assert world.deeds() == []


def test_a_gap_of_its_own_is_an_amnesty(world: World) -> None:
    world.now += 20
    assert [one.do for one in world.look()] == ["amnesty"]
    world.run(9)
    assert world.deeds() == []


def test_several_at_once_are_restarted_one_every_two_seconds(world: World) -> None:
    for name in ("a", "b", "c"):
        world.start(name)
    world.run(1)
    world.beating -= {"a", "b", "c"}
    world.run(20)
    kills = [at for at, one in world.done if one.do == "kill"]
    assert len(kills) == 3
    assert min(b - a for a, b in pairwise(kills)) >= 2


def test_several_at_once_on_a_starved_host_wait_and_one_does_not(world: World) -> None:
    world.around = replace(world.around, starved=True)
    for name in ("a", "b"):
        world.start(name)
    world.run(1)
    world.beating -= {"a", "b"}
    world.run(12)
    assert world.deeds() == []
    world.run(35)
    assert len(world.deeds()) == 2


def test_who_is_paused_is_left_alone(world: World) -> None:
    world.around = replace(world.around, paused=frozenset({"intraday"}))
    world.beating -= {"intraday"}
    world.run(60)
    assert world.deeds() == []
    world.around = replace(world.around, paused=frozenset())
    world.run(1)
    assert world.deeds() == [("intraday", "dead_loop", "kill")]


def test_stopped_by_the_operator_stays_stopped_and_fatal_is_revived(world: World) -> None:
    world.change("intraday", state="STOPPED", pid=0, pulse=None)
    world.run(600)
    assert world.deeds() == []
    world.change("ingester", state="FATAL", pid=0, pulse=None)
    world.run(5)
    assert world.deeds() == [("ingester", "down", "start")]


def test_the_fourth_restart_in_five_minutes_is_a_quarantine_with_one_try_each_five_minutes(world: World) -> None:
    def hang() -> None:
        world.beating.discard("intraday")

    for _ in range(4):
        hang()
        world.run(15)
        world.beating.add("intraday")
        world.run(15)
    assert [do for *_, do in world.deeds()] == ["kill", "kill", "kill", "stop"]
    assert world.watch.quarantined == ["intraday"]
    hang()
    began = world.now
    world.run(1000)
    tries = [at for at, one in world.done if one.do == "start" and at > began]
    assert len(tries) == 3
    assert all(b - a >= 300 for a, b in pairwise(tries))
    world.beating.add("intraday")
    world.run(320)
    assert world.watch.quarantined == []
    assert world.programs["intraday"].state == "RUNNING"


def crash(world: World, name: str) -> None:
    """A life that supervisord began and that ended within the same second."""
    world.now += 1
    world.change(name, state="BACKOFF", pid=0, pulse=None, started=world.now)
    world.look()


def test_a_crash_loop_ends_in_quarantine(world: World) -> None:
    for _ in range(6):
        crash(world, "intraday")
    assert world.deeds() == [("intraday", "quarantine", "stop")]


def test_lives_that_come_to_something_between_the_others_are_no_crash_loop(world: World) -> None:
    for n in range(10):
        for _ in range(4):
            crash(world, "intraday")
        world.start("intraday", committed=n + 1)
        world.run(1)
    assert world.deeds() == []


def test_a_process_killed_again_and_again_that_goes_on_is_no_crash_loop(world: World) -> None:
    for n in range(25):
        world.start("intraday", committed=n)
        world.run(1)
    assert world.deeds() == []


def test_a_server_that_is_killed_is_no_crash_loop(world: World) -> None:
    for _ in range(10):
        world.start("postgres", server=True)
        world.run(1)
    assert world.deeds() == []


def test_memory_is_told_at_soft_and_restarted_at_hard_but_not_before_an_open(world: World) -> None:
    world.start("leaky")
    world.change("leaky", resident_mib=60.0)
    assert [(one.rule, one.do) for one in world.run(1)] == [("memory_soft", "alert")]
    world.around = replace(world.around, opening=True)
    world.change("leaky", resident_mib=101.0)
    world.run(10)
    assert world.deeds() == []
    world.around = replace(world.around, opening=False)
    world.run(1)
    assert world.deeds() == [("leaky", "memory", "restart")]


def test_a_slope_that_reaches_hard_within_ten_minutes_is_told(world: World) -> None:
    world.start("leaky")
    told = []
    for second in range(100):
        world.change("leaky", resident_mib=20.0 + second * 0.2)
        told += world.run(1)
    assert ("memory_slope", "alert") in [(one.rule, one.do) for one in told]
    assert world.deeds() == []


def test_falling_behind_is_told_and_never_restarted(world: World) -> None:
    told = []
    for n in range(400):
        world.around = replace(world.around, head=3 * n)
        world.pulse("intraday", committed=n)
        told += world.run(1)
    assert [(one.rule, one.do) for one in told] == [("falling_behind", "alert")]


def test_what_must_outlive_the_watchdog_does() -> None:
    first = World()
    first.start("intraday", committed=0)
    for _ in range(6):
        crash(first, "intraday")
    assert first.watch.quarantined == ["intraday"]
    second = World(now=first.now)
    second.watch.remember(first.now, first.watch.memory())
    second.programs = dict(first.programs)
    second.beating.add("intraday")
    second.run(299)
    assert second.deeds() == []
    second.run(2)
    assert second.deeds() == [("intraday", "quarantine", "start")]


def test_a_frozen_supervisord_is_told_and_a_hung_process_is_killed_all_the_same(world: World) -> None:
    world.around = replace(world.around, supervised=False)
    for name in world.programs:
        world.change(name, state="")
    world.obeys = False
    world.beating.discard("intraday")
    told = world.run(12)
    assert ("supervisord", "frozen", "alert") in [(one.process, one.rule, one.do) for one in told]
    assert world.deeds()[0] == ("intraday", "dead_loop", "kill")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["hang", "beat", "crash", "fatal", "stop", "run"])),
        max_size=60,
    )
)
def test_whatever_happens_the_budget_the_spacing_and_the_operator_are_respected(story: list[tuple[str, str]]) -> None:
    world = World()
    by_hand: set[str] = set()
    for name in ("a", "b", "c"):
        world.start(name)
    for name, what in story:
        if what == "hang":
            world.beating.discard(name)
        elif what == "beat":
            world.beating.add(name)
        elif what == "crash" and name not in by_hand:
            world.change(name, state="BACKOFF", pid=0, pulse=None, started=world.now)
        elif what == "fatal" and name not in by_hand:
            world.change(name, state="FATAL", pid=0, pulse=None)
        elif what == "stop" and name not in world.watch.quarantined:
            world.change(name, state="STOPPED", pid=0, pulse=None)
            by_hand.add(name)
        elif what == "run" and name in by_hand:
            world.start(name, beats=name in world.beating)
            by_hand.discard(name)
        before = len(world.done)
        world.run(7)
        assert not [one for _, one in world.done[before:] if one.do == "start" and one.process in by_hand]
    restarts = [
        (at, one) for at, one in world.done if one.do in DEEDS and one.rule not in ("quarantine", "does_not_end")
    ]
    for (a, _), (b, _) in pairwise(restarts):
        assert b - a >= RULES.spacing_s
    for name in ("a", "b", "c"):
        times = [at for at, one in restarts if one.process == name]
        for at in times:
            assert sum(1 for other in times if at <= other < at + RULES.few_within_s) <= RULES.few
            assert sum(1 for other in times if at <= other < at + RULES.many_within_s) <= RULES.many
