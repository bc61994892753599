"""GET /api/health."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.conftest import Server
from tests.httpd.conftest import Api
from thor.runtime.heartbeat import Heartbeat
from thor.runtime.process import hold
from thor.runtime.settings import PROCESSES, Settings


@pytest.fixture
def beats(settings: Settings) -> Iterator[dict[str, Heartbeat]]:
    """A heartbeat and a lock of every process, all held by this one."""
    locks = [hold(settings.run / f"{name}.lock") for name in PROCESSES]
    found = {name: Heartbeat(settings.run / "heartbeat" / name) for name in PROCESSES}
    for beat in found.values():
        beat.beat("running", 10, committed=7, head=9, source_ts=1_381_233_600_000_000_000)
    yield found
    for lock in locks:
        os.close(lock)


def test_all_is_well_when_every_process_beats_and_both_servers_answer(api: Api, beats: dict[str, Heartbeat]) -> None:
    answer = api.get("/api/health")
    document = answer.json
    assert (answer.status, document["status"]) == (200, "ok")
    assert [one["name"] for one in document["processes"]] == list(PROCESSES) == list(beats)
    intraday = document["processes"][1]
    assert 0 <= intraday.pop("heartbeat_age_s") < 5
    assert 5 < intraday.pop("deadline_in_s") <= 10
    assert intraday == {
        "name": "intraday", "healthy": True, "state": "running", "why": "", "pid": os.getpid(), "lag": 2,
        "committed": 7, "head": 9, "source_ts": "2013-10-08T12:00:00Z",
    }  # fmt: skip
    assert [(one["name"], one["healthy"]) for one in document["servers"]] == [("postgres", True), ("redis", True)]


@pytest.mark.parametrize(
    ("state", "deadline_s", "shown"),
    [
        ("waiting", 10, "waiting"),
        ("draining", 10, "draining"),
        ("running", -1, "stalled"),
        ("starting", 60, "starting"),
    ],
)
def test_one_process_that_does_not_do_its_work_makes_it_503(
    api: Api, beats: dict[str, Heartbeat], state: str, deadline_s: float, shown: str
) -> None:
    beats["vwap"].beat(state, deadline_s)  # type: ignore[arg-type]
    answer = api.get("/api/health")
    assert (answer.status, answer.json["status"]) == (503, "unhealthy")
    told = {one["name"]: (one["healthy"], one["state"]) for one in answer.json["processes"]}
    assert told == dict.fromkeys(PROCESSES, (True, "running")) | {"vwap": (False, shown)}


@pytest.mark.usefixtures("beats")
def test_a_process_without_its_lock_is_stopped_whatever_its_last_record_says(api: Api, settings: Settings) -> None:
    (settings.run / "vwap.lock").unlink()
    told = {one["name"]: one["state"] for one in api.get("/api/health").json["processes"]}
    assert told == dict.fromkeys(PROCESSES, "running") | {"vwap": "stopped"}


@pytest.mark.usefixtures("beats")
def test_a_server_that_is_away_is_told_with_its_reason(api: Api, redis: Server) -> None:
    redis.kill()
    try:
        answer = api.get("/api/health")
    finally:
        redis.start()
    assert answer.status == 503
    postgres, away = answer.json["servers"]
    assert postgres["healthy"]
    assert (away["healthy"], away["state"]) == (False, "away")
    assert "redis" in away["why"]


def test_before_anything_ran_every_process_is_stopped(alone: Api) -> None:
    answer = alone.get("/api/health")
    assert answer.status == 503
    assert {one["state"] for one in answer.json["processes"]} == {"stopped"}
    assert {one["state"] for one in answer.json["servers"]} == {"away"}
