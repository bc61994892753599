"""One place where a feed's name becomes a symbol."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.columns import GLOBEX
from thor.domain.instruments import Instrument, Instruments, canonical, root_of, well_formed


def instrument(symbol: str, *aliases: str) -> Instrument:
    tick = Decimal("0.1")
    return Instrument(symbol, symbol, "COMEX", "USA", tick, Decimal(10), Decimal(1), 1, GLOBEX, aliases=aliases)


REGISTRY = Instruments([instrument("GC", "/GC", "/GC:XCEC"), instrument("ZB", "30Yr T-BOND"), instrument("DX", "$DXY")])


@pytest.mark.parametrize("name", ["GC", "gc", "/GC", "/gc:xcec", " GC "])
def test_case_slash_and_outer_space_do_not_matter(name: str) -> None:
    assert REGISTRY.number(name) == 0


def test_aliases_lead_to_their_instrument() -> None:
    assert REGISTRY.number("30YR T-bond") == 1
    assert REGISTRY.number("$dxy") == 2
    assert REGISTRY.number("XX") is None


def test_one_name_for_two_instruments_is_refused() -> None:
    with pytest.raises(ValueError, match="'/gc' names both GC and XX"):
        Instruments([instrument("GC"), instrument("XX", "/gc")])


def test_a_contract_has_its_roots_specification() -> None:
    contract = REGISTRY.contract("GCZ3")
    assert (contract.symbol, contract.root, contract.tick_size) == ("GCZ3", "GC", Decimal("0.1"))
    assert contract.aliases == ()


@pytest.mark.parametrize("name", ["ESZ3", "GCA3", "GC", "GCZ", "", "GCZ345"])
def test_what_is_no_contract_of_a_known_root_is_refused(name: str) -> None:
    with pytest.raises(LookupError, match="expected a contract"):
        REGISTRY.contract(name)


@given(st.text(max_size=40))
def test_a_well_formed_name_is_short_plain_ascii(name: str) -> None:
    if well_formed(name):
        symbol = canonical(name)
        assert symbol.isascii()
        assert len(symbol) <= 24
        assert "\n" not in symbol
        assert name.strip().isascii()


@pytest.mark.parametrize("name", ["", " ", "E\nS", "eſ", "ES*", "{ES}", "x" * 25, "ES\0"])
def test_a_name_that_could_hurt_a_key_is_not_well_formed(name: str) -> None:
    assert not well_formed(name)


@given(st.from_regex(r"[A-Z0-9]{1,4}[FGHJKMNQUVXZ][0-9]{1,2}", fullmatch=True))
def test_a_contracts_root_is_what_stands_before_month_and_year(name: str) -> None:
    root = root_of(name)
    assert root is not None
    assert name.startswith(root)
    assert 2 <= len(name) - len(root) <= 3
