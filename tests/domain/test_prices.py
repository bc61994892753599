"""Numbers of a feed against exact arithmetic of another kind."""

from __future__ import annotations

import re
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from thor.domain.prices import (
    LIMIT,
    NA,
    NANO,
    BadNumber,
    Notation,
    parse_price,
    parse_scaled,
    parse_size,
    text_of,
    text_of_size,
    to_decimal,
    to_nano,
)

NUMBER = re.compile(r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")

texts = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="0123456789.+-eE' :_", max_size=24),
    st.from_regex(NUMBER, fullmatch=True),
    st.sampled_from(["nan", "NaN", "inf", "-Infinity", "1e308", "null", "1_000", "1,5", "１２", "0x10", "1e999", "-0"]),
)


def referee(text: str, digits: int = 9) -> int | None:
    """None where it is no number, else its value by fractions."""
    text = text.strip()
    if text.lower() in ("", "n/a", "--", "#n/a", "loading"):
        return NA
    if not NUMBER.fullmatch(text) or len(text) > 64:
        return None
    mantissa, _, exponent = text.lower().partition("e")
    scaled = Fraction(mantissa) * Fraction(10) ** (int(exponent or 0) + digits)
    return int(scaled) if scaled.denominator == 1 and abs(scaled) <= LIMIT else None


@given(texts)
@example("9223372036.854775806")
@example("9223372036.854775807")
@example("-9223372036.854775807")
@example("1" + "." + "0" * 410 + "e-999")
@example("0." + "1" * 5000)
@example("1e-9")
@example("1e-10")
@example(".")
@example("+")
@example("5.")
def test_a_decimal_is_exact_or_refused(text: str) -> None:
    expected = referee(text)
    if expected is None:
        with pytest.raises(BadNumber):
            parse_price(text)
    else:
        assert parse_price(text) == expected


@given(st.text(max_size=2_000_000) | st.just("9" * 1_000_000) | st.just("x" * 1_000_000))
def test_nothing_but_bad_number_is_ever_raised(text: str) -> None:
    for notation in ("decimal", "32nds", "8ths"):
        with suppress(BadNumber):
            parse_price(text, notation)


@given(
    st.sampled_from(["", "+", "-"]),
    st.integers(0, 999_999_999),
    st.integers(0, 31),
    st.sampled_from([("", 0), ("0", 0), ("2", 1), ("5", 2), ("7", 3), ("+", 2)]),
    st.sampled_from("-:'"),
)
def test_32nds_and_their_quarters_are_exact(
    sign: str, whole: int, n32: int, quarter: tuple[str, int], separator: str
) -> None:
    value = (whole + Fraction(n32, 32) + Fraction(quarter[1], 128)) * NANO
    expected = -value if sign == "-" else value
    assert Fraction(parse_price(f"{sign}{whole}{separator}{n32:02}{quarter[0]}", "32nds")) == expected


@pytest.mark.parametrize(
    ("text", "notation", "value"),
    [
        ("116'13", "32nds", "116.40625"),
        ("116'135", "32nds", "116.421875"),
        ("116'132", "32nds", "116.4140625"),
        ("116'137", "32nds", "116.4296875"),
        ("116'13+", "32nds", "116.421875"),
        ("-0'09", "32nds", "-0.28125"),
        ("+0'14", "32nds", "0.4375"),
        ("442'6", "8ths", "442.75"),
        ("116.5", "32nds", "116.5"),
    ],
)
def test_the_notations_of_the_specification(text: str, notation: Notation, value: str) -> None:
    assert to_decimal(parse_price(text, notation)) == Decimal(value)


@pytest.mark.parametrize(
    ("text", "notation"),
    [("116'32", "32nds"), ("116'133", "32nds"), ("116'135+", "32nds"), ("116'1", "32nds"), ("442'8", "8ths"),
     ("442'6+", "8ths"), ("442'65", "8ths"), ("116'13", "decimal"), ("116'13", "8ths")],
)  # fmt: skip
def test_fractions_that_do_not_exist_are_refused(text: str, notation: Notation) -> None:
    with pytest.raises(BadNumber):
        parse_price(text, notation)


@given(texts, st.sampled_from(["1", "0.1", "0.5", "0.0001", "0.000000001", "100"]))
def test_a_size_counts_whole_steps(text: str, step: str) -> None:
    nano = referee(text)
    if nano == NA:
        assert parse_size(text, Decimal(step)) == NA
        return
    steps = None if nano is None else Fraction(nano, NANO) / Fraction(step)
    if steps is None or steps.denominator != 1:
        with pytest.raises(BadNumber):
            parse_size(text, Decimal(step))
    else:
        assert parse_size(text, Decimal(step)) == steps


@given(st.integers(-LIMIT, LIMIT))
def test_a_price_survives_its_own_text(value: int) -> None:
    assert parse_price(text_of(value)) == value
    assert to_nano(to_decimal(value) or Decimal(0)) == value


@given(st.integers(0, 10**9), st.sampled_from(["1", "0.5", "0.0001"]))
def test_a_size_survives_its_own_text(steps: int, step: str) -> None:
    assert parse_size(text_of_size(steps, to_nano(Decimal(step))), Decimal(step)) == steps


def test_the_ends_of_int64_stay_free_for_marks() -> None:
    assert LIMIT < 2**63 - 1
    assert -LIMIT > NA + 1
    assert parse_scaled("--", 0) == NA
