from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from thor.runtime import instruments
from thor.runtime.config import BadConfig, shown
from thor.runtime.settings import ROOT

SEED = ROOT / "config" / "instruments.yaml"


def problem(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(BadConfig) as raised:
        instruments.load([SEED, path])
    return str(raised.value).removeprefix(f"{shown(path.parent)}/")


def test_the_seed_is_the_table_of_the_domain() -> None:
    registry = instruments.load([SEED])
    assert registry.symbols == ["YM", "ES", "NQ", "RTY", "CL", "SI", "HG", "GC", "VX", "DX", "ZB"]
    assert [one.symbol for one in registry if one.negative] == ["CL"]
    assert [one.symbol for one in registry if one.safe_haven] == ["GC", "VX", "DX", "ZB"]


def test_a_users_own_file_adds_fractional_sizes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("BTC-USD: {name: Bitcoin, exchange: CB, tick_size: 0.01, size_step: 0.00000001, aliases: [XBT]}\n")
    registry = instruments.load([SEED, path])
    number = registry.number("/xbt")
    assert number == 11
    found = registry[number]
    assert (found.tick_size, found.size_step, found.decimals) == (Decimal("0.01"), Decimal("1E-8"), 2)
    assert found.hours.name == "Always"


def test_what_is_dumped_loads_as_it_was(tmp_path: Path) -> None:
    seeded = instruments.load([SEED])
    contract = seeded.contract("ESH4")
    path = tmp_path / "added.yaml"
    path.write_text(instruments.dump([contract]))
    assert list(instruments.load([SEED, path])) == [*seeded, contract]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "A: {name: a, exchange: x, tick_size: '1', hours: Nope}",
            "mine.yaml:1:50: instruments.A.hours: must be one of",
        ),
        ("A: {name: a, exchange: x}", "mine.yaml:1:4: instruments.A.tick_size: expected, found nothing"),
        (
            "A: {name: a, exchange: x, tick_size: '0'}",
            "mine.yaml:1:38: instruments.A.tick_size: must be above 0 (got 0)",
        ),
        ("A: {name: a, exchange: x, tick_size: '1', tik: 1}", "mine.yaml:1:43: instruments.A.tik: unknown key"),
        ("'A;B': {name: a, exchange: x, tick_size: '1'}", "mine.yaml:1:8: instruments.A;B: must be 1 to 24 of"),
        ("A: {name: a, exchange: x, tick_size: '1', aliases: [ES]}", "mine.yaml: 'ES' names both ES and A"),
    ],
)
def test_a_wrong_instrument_is_shown_where_it_stands(tmp_path: Path, text: str, expected: str) -> None:
    assert problem(tmp_path / "mine.yaml", text + "\n").startswith(expected)
