from __future__ import annotations

from pathlib import Path

import pytest

from thor.runtime import instruments, source
from thor.runtime.settings import ROOT, Settings
from thor.runtime.source import OtherTimeline, Source

S = 1_000_000_000


@pytest.fixture
def settings(thor_dir: Path) -> Settings:
    thor_dir.mkdir()
    return Settings.from_env({"THOR_DIR": str(thor_dir)})


def test_what_is_kept_is_read_back(settings: Settings) -> None:
    played = Source("replay", ("/a.csv", "/b.csv"), "max", {"ESH4": "ES"}, snapshot=True, identity="abc")
    source.keep(settings, played, 7)
    assert source.present(settings) == played
    assert source.timeline(settings) == source.Timeline("recorded", "abc", 7)


@pytest.mark.parametrize(
    ("held", "asked", "both"),
    [("simulator", "replay", ("simulated", "recorded")), ("replay", "inbox", ("recorded", "live"))],
)
def test_quotes_of_another_kind_are_refused_and_both_are_named(
    settings: Settings, held: str, asked: str, both: tuple[str, str]
) -> None:
    source.keep(settings, Source(held), 0)
    with pytest.raises(OtherTimeline, match=f"holds {both[0]} quotes and these are {both[1]}.*--fresh"):
        source.check(settings, Source(asked), 100)


def test_live_sources_go_on_from_one_another(settings: Settings) -> None:
    source.keep(settings, Source("inbox"), 0)
    source.check(settings, Source("schwab"), None)


def test_a_recording_goes_on_where_the_last_one_ended(settings: Settings) -> None:
    source.keep(settings, Source("replay", identity="a"), 100 * S)
    source.check(settings, Source("replay", identity="b"), 95 * S)
    source.check(settings, Source("replay", identity="a"), 0)
    with pytest.raises(OtherTimeline, match="holds a recording up to 1970-01-01T00:01:40Z"):
        source.check(settings, Source("replay", identity="b"), 94 * S)


def test_added_contracts_are_kept_beside_those_of_before(settings: Settings) -> None:
    seeded = instruments.load([ROOT / "config" / "instruments.yaml"])
    source.keep_instruments(settings, [], [seeded.contract("ESH4")])
    source.keep_instruments(settings, [], [seeded.contract("GCZ3")])
    assert instruments.load(instruments.files(settings)).symbols[-2:] == ["ESH4", "GCZ3"]
