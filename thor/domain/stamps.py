"""Instants: text of a feed → ns UTC, one or a column at a time, and back to text (domain.md §3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import numpy as np
from numpy.typing import NDArray

from thor.domain.prices import NA, NANO, BadNumber, parse_scaled
from thor.domain.quotes import Ints

#: Stands in a column for a cell that does not parse; no number of a feed has this value (prices.LIMIT).
BAD: Final = NA + 1

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_FIRST_YEAR, _LAST_YEAR = 1970, 2261  # what int64 ns can hold, whole years
_END_NS = 9_214_646_400_000_000_000  # 2262-01-01
_MS_FROM = 10**11  # an epoch this large is in milliseconds
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)
_Digits = NDArray[np.uint8]
_Mask = NDArray[np.bool_]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class BadStamp(ValueError):
    """A time that is no RFC 3339 instant with a zone and no epoch seconds or milliseconds."""


def parse_stamp(text: str) -> int:
    """One time in ns UTC; NA where the cell is empty.

    RFC 3339 with a zone and up to nine decimals, or epoch seconds, or epoch milliseconds from 1e11 on, both exact
    decimals. Raises BadStamp for anything else, a time without a zone or outside 1970 to 2261 included.
    """
    text = text.strip()
    if not text:
        return NA
    match = _RFC3339.fullmatch(text) if len(text) <= 64 else None
    if match is None:
        return _epoch(text)
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    offset = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
    if not _FIRST_YEAR <= year <= _LAST_YEAR or int(match[9] or 0) > 23 or int(match[10] or 0) > 59:
        raise _bad(text)
    try:
        local = datetime(
            year, month, day, hour, minute, second, tzinfo=timezone(-offset if match[8] == "-" else offset)
        )
    except ValueError:
        raise _bad(text) from None
    seconds = (local - _EPOCH) // timedelta(seconds=1)
    ns = seconds * NANO + int((match[7] or "0").ljust(9, "0"))
    if not 0 <= ns < _END_NS:
        raise _bad(text)
    return ns


def rfc3339(ns: int) -> str:
    """ns UTC as RFC 3339, with as many decimals as there are: ``2013-10-08T12:00:00Z``."""
    seconds, rest = divmod(ns, NANO)
    whole = (_EPOCH + timedelta(seconds=seconds)).isoformat()[:-6]
    return f"{whole}.{rest:09d}".rstrip("0") + "Z" if rest else f"{whole}Z"


def _epoch(text: str) -> int:
    try:
        ns = parse_scaled(text, 9)
    except BadNumber:
        # Milliseconds of any date after 1973 overflow as seconds, so the magnitude decides.
        try:
            ns = parse_scaled(text, 6)
        except BadNumber:
            raise _bad(text) from None
        if ns < _MS_FROM * 1_000_000:
            raise _bad(text) from None
    if not 0 <= ns < _END_NS:  # NA too: "--" is no time
        raise _bad(text)
    return ns


def _bad(text: str) -> BadStamp:
    return BadStamp(f"expected RFC 3339 with a zone, epoch seconds or ms, 1970 to 2261, found {text[:40]!r}")


def parse_stamps(texts: Sequence[str]) -> Ints:
    """``parse_stamp`` of every cell, shape (n,); BAD where it raises."""
    out = np.full(len(texts), BAD, np.int64)
    lengths = set(map(len, texts))
    if len(lengths) == 1:
        _group(texts, lengths.pop(), out)
    else:
        each = np.fromiter(map(len, texts), np.int64, len(texts))
        for length in lengths:
            rows = np.flatnonzero(each == length)
            values = np.full(len(rows), BAD, np.int64)
            if length and length <= 64:
                _group([texts[i] for i in rows.tolist()], length, values)
            out[rows] = values if length else NA
    rest = np.flatnonzero(out == BAD).tolist()
    if rest:
        out[rest] = list(map(_Distinct().__getitem__, [texts[i] for i in rest]))
    return out


class _Distinct(dict[str, int]):
    def __missing__(self, text: str) -> int:
        try:
            value = parse_stamp(text)
        except BadStamp:
            value = BAD
        self[text] = value
        return value


def _group(texts: Sequence[str], length: int, out: Ints) -> None:
    """Fill in ``out`` where a row is plain RFC 3339; all texts have ``length`` characters."""
    if not 20 <= length <= 35 or not texts:
        return
    # A character beyond ASCII becomes one "?", which no position allows.
    chars = np.frombuffer("".join(texts).encode("ascii", "replace"), np.uint8).reshape(-1, length)
    zulu = (chars[:, -1] | 32) == ord("z")
    for tail, rows in ((1, np.flatnonzero(zulu)), (6, np.flatnonzero(~zulu))):
        if len(rows) and length - 19 - tail in (0, *range(2, 11)):
            part = chars if len(rows) == len(chars) else chars[rows]
            ns, good = _rfc3339(part, length - tail, tail == 6)
            out[rows] = np.where(good, ns, BAD)


def _rfc3339(chars: _Digits, end: int, offset: bool) -> tuple[Ints, _Mask]:
    digits = chars - np.uint8(48)
    at = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, *range(20, end)]
    tail = [end + 1, end + 2, end + 4, end + 5] if offset else []
    good = (digits[:, at + tail] <= 9).all(axis=1)
    marks = [(4, "-"), (7, "-"), (13, ":"), (16, ":")] + ([(19, ".")] if end > 19 else [])
    for position, mark in marks + ([(end + 3, ":")] if offset else []):
        good &= chars[:, position] == ord(mark)
    good &= ((chars[:, 10] | 32) == ord("t")) | (chars[:, 10] == 32)

    def number(*places: int) -> Ints:
        value = digits[:, places[0]].astype(np.int64)
        for place in places[1:]:
            value = value * 10 + digits[:, place]
        return value

    year, month, day = number(0, 1, 2, 3), number(5, 6), number(8, 9)
    hour, minute, second = number(11, 12), number(14, 15), number(17, 18)
    good &= (year >= _FIRST_YEAR) & (year <= _LAST_YEAR) & (hour < 24) & (minute < 60) & (second < 60)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    good &= (month >= 1) & (month <= 12) & (day >= 1)
    month = np.where(good, month, 1)
    good &= day <= _MONTH_DAYS[month] + (leap & (month == 2))
    seconds = _days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second
    if offset:
        sign, ahead, aside = chars[:, end], number(end + 1, end + 2), number(end + 4, end + 5)
        good &= ((sign == ord("+")) | (sign == ord("-"))) & (ahead < 24) & (aside < 60)
        seconds -= np.where(sign == ord("-"), -1, 1) * (ahead * 3_600 + aside * 60)
    good &= (seconds >= 0) & (seconds < _END_NS // NANO)
    ns = np.where(good, seconds, 0) * NANO
    if end > 20:
        ns += number(*range(20, end)) * 10 ** (29 - end)
    return ns, good


def _days(year: Ints, month: Ints, day: Ints) -> Ints:
    """Days since 1970-01-01 in the Gregorian calendar; years begin in March, so that leap days come last."""
    year = year - (month <= 2)
    days = year * 365 + year // 4 - year // 100 + year // 400
    return days + (153 * ((month + 9) % 12) + 2) // 5 + day - 719_469
