"""Exact numbers: text of a feed → integers, integers → text (domain.md §1, §2).

A price is an int in units of 10⁻⁹ (``nano``), a size an int in steps of its instrument.
``NA`` stands for "not known" in every int64 column; no binary float is ever involved.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal

NANO = 1_000_000_000
NA = -(2**63)
#: The largest magnitude; beyond it lie NA and the marks that feeds and formats keep at the ends of int64.
LIMIT = 2**63 - 2

Notation = Literal["decimal", "32nds", "8ths"]

#: Longer than any number a feed writes; longer text is refused before it costs anything.
MAX_TEXT = 64

#: What a feed shows in a cell whose value it does not know (domain.md §2).
UNKNOWN = frozenset({"", "n/a", "--", "#n/a", "loading"})

_DECIMAL = re.compile(r"([+-]?)(\d{0,18})(?:\.(\d*))?(?:[eE]([+-]?\d{1,3}))?", re.ASCII)
_FRACTION = re.compile(r"([+-]?)(\d{1,9})[-:'](\d{1,3})(\+?)", re.ASCII)
#: A third digit counts quarters of a 32nd, printed without its second decimal.
_QUARTERS = {"0": 0, "2": 1, "5": 2, "7": 3}


class BadNumber(ValueError):
    """A cell that is neither a number nor one of the marks for "not known"."""


def parse_scaled(text: str, digits: int) -> int:
    """The decimal ``text`` in units of 10^-digits, exactly; NA where it means "not known".

    Raises BadNumber for anything else: NaN, infinities, more than ``digits`` decimals, overflow.
    """
    text = text.strip()
    if text.lower() in UNKNOWN:
        return NA
    match = _DECIMAL.fullmatch(text) if len(text) <= MAX_TEXT else None
    if match is None or not (match[2] or match[3]):
        raise BadNumber(f"expected a decimal number, found {text[:40]!r}")
    sign, whole, fraction, exponent = match[1], match[2], match[3] or "", int(match[4] or 0)
    shift = digits + exponent - len(fraction)
    value = int(whole + fraction)
    if shift >= 0:
        # A huge exponent must not build a huge integer before it is refused.
        scaled = value * int(10 ** min(shift, 40))
    else:
        scaled, rest = divmod(value, 10 ** min(-shift, 400))
        if rest:
            raise BadNumber(f"expected at most {digits} decimals, found {text[:40]!r}")
    if scaled > LIMIT:
        raise BadNumber(f"expected a number below {LIMIT // 10**digits}, found {text[:40]!r}")
    return -scaled if sign == "-" else scaled


def parse_price(text: str, notation: Notation = "decimal") -> int:
    """A price cell in nano, in the notation of its instrument (domain.md §2); NA where not known.

    An instrument quoted in fractions may also be sent in decimals: the separator tells.
    """
    if notation == "decimal":
        return parse_scaled(text, 9)
    match = _FRACTION.fullmatch(text.strip())
    if match is None:
        return parse_scaled(text, 9)
    sign, whole, digits, plus = match[1], int(match[2]), match[3], match[4]
    if notation == "8ths":
        if len(digits) != 1 or plus or digits > "7":
            raise BadNumber(f"expected eighths 0 to 7, found {text[:40]!r}")
        nano = whole * NANO + int(digits) * (NANO // 8)
    else:
        quarters = _quarters_of_32nds(digits, plus, text)
        nano = whole * NANO + quarters * (NANO // 128)
        # NANO/128 is 7,812,500 exactly, so no rounding is possible here.
    if nano > LIMIT:
        raise BadNumber(f"expected a number below {LIMIT // NANO}, found {text[:40]!r}")
    return -nano if sign == "-" else nano


def _quarters_of_32nds(digits: str, plus: str, text: str) -> int:
    thirds = digits[2:]
    if len(digits) < 2 or int(digits[:2]) > 31 or (thirds and (plus or thirds not in _QUARTERS)):
        raise BadNumber(f"expected 32nds as 00 to 31 with an optional quarter 0, 2, 5, 7 or +, found {text[:40]!r}")
    return int(digits[:2]) * 4 + (_QUARTERS[thirds] if thirds else 2 if plus else 0)


def parse_size(text: str, step: Decimal = Decimal(1)) -> int:
    """A size or volume cell in steps of ``step`` (domain.md §2); NA where not known."""
    nano = parse_scaled(text, 9)
    if nano == NA:
        return NA
    units, rest = divmod(nano, to_nano(step))
    if rest:
        raise BadNumber(f"expected a multiple of the size step {step}, found {text[:40]!r}")
    return units


def to_nano(value: Decimal) -> int:
    """A decimal of at most nine places as nano. Raises BadNumber where it has more."""
    return parse_scaled(format(value, "f"), 9)


_NANO_UNIT = Decimal(1).scaleb(-9)


def to_decimal(value: int, unit: Decimal = _NANO_UNIT) -> Decimal | None:
    """``value`` units of ``unit`` as a Decimal for a NUMERIC column; None for NA."""
    return None if value == NA else value * unit


def text_of(value: int) -> str:
    """A nano price as the shortest decimal string: ``1318``, ``4800.25``, ``-0.28125``."""
    whole, fraction = divmod(abs(value), NANO)
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{fraction:09d}".rstrip("0") if fraction else f"{sign}{whole}"


def text_of_size(value: int, step_nano: int = NANO) -> str:
    """A size in steps as a decimal string in whole units."""
    return str(value) if step_nano == NANO else text_of(value * step_nano)
