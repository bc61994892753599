"""Columns of text → quotes (domain.md §2, §3): every distinct text is parsed once, rows follow at the speed of C.

A row that does not parse is refused whole, the others do not notice. Reasons: ``bad_symbol``, ``unknown_symbol``,
``bad_source``, ``bad_ts``, ``bad_number``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from thor.domain.instruments import Instruments, canonical, well_formed
from thor.domain.prices import NA, NANO, BadNumber, Notation, parse_price, parse_scaled, parse_size
from thor.domain.quotes import FIELDS, POLLED, PRICES, SIZES, SNAPSHOT, Ints, Quotes
from thor.domain.stamps import BAD, BadStamp, parse_stamp, parse_stamps
from thor.feeds import Refused

#: The source's own number of a quote, where it has one: only it tells a duplicate (domain.md §3).
SEQ: Final = "seq"
#: Every column a producer may write.
NAMES: Final = ("symbol", "ts", *FIELDS, "source", SEQ)

MAX_SOURCES: Final = 200
RAW_CHARACTERS: Final = 1_024  # kept of each field of a refused entry
RAW_FIELDS: Final = 32
_MEMO: Final = 65_536  # distinct texts remembered; one more and the memory begins anew
_LONG: Final = 64  # longer text is never remembered
_SOURCE = re.compile(r"[A-Z0-9_.:/-]{1,24}", re.ASCII)

Columns = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a source reports, by configuration (domain.md §3): its state (``snapshot``) or every print;
    ``polled``: the state of every symbol at each poll."""

    snapshot: bool = False
    polled: bool = False

    @property
    def flags(self) -> int:
        """The flags of its quotes."""
        return self.snapshot * SNAPSHOT | self.polled * POLLED


@dataclass(frozen=True, slots=True)
class Parsed:
    """``quotes`` came from the rows at positions ``rows``; ``refused`` from those at ``refused_rows``."""

    quotes: Quotes
    rows: NDArray[np.intp]
    refused: list[Refused]
    refused_rows: list[int]


class _Memo(dict[str, int]):
    def __init__(self, parse: Callable[[str], int]) -> None:
        super().__init__()
        self._parse = parse

    def __missing__(self, text: str) -> int:
        try:
            value = self._parse(text)
        except BadNumber:
            value = BAD
        if len(text) <= _LONG:
            if len(self) >= _MEMO:
                self.clear()
            self[text] = value
        return value


class Text:
    """One feed's parser. ``kinds`` tells sources apart, ``default`` holds for the others; rows without a source
    belong to ``source``; ``mapping`` renames symbols before they are looked up."""

    def __init__(
        self,
        instruments: Instruments,
        kinds: Mapping[str, Kind] | None = None,
        default: Kind | None = None,
        source: str = "INBOX",
        mapping: Mapping[str, str] | None = None,
    ) -> None:
        self._instruments = instruments
        self._kinds, self._default, self._source = dict(kinds or {}), default or Kind(), source
        self._mapping = {canonical(name): symbol for name, symbol in (mapping or {}).items()}
        # The configured sources have their places whatever else producers call themselves.
        self._sources = list(dict.fromkeys([source, *self._kinds]))
        self._symbol, self._source_of = _Memo(self._number), _Memo(self._source_number)
        notations: list[Notation] = ["32nds", "8ths"]
        self._decimal, self._volume = _Memo(parse_price), _Memo(parse_price)
        self._fractions = {n: _Memo(partial(parse_price, notation=n)) for n in notations}
        self._quoted_in = {n: np.array([i.notation == n for i in instruments] or [False], bool) for n in notations}
        self._steps = np.array([i.step_nano for i in instruments] or [NANO], np.int64)

    def quotes(self, columns: Columns, where: Callable[[int], str]) -> Parsed:
        """The quotes of one chunk. ``columns`` holds at least ``symbol``, all of one length n; a cell that is empty
        is unknown. ``where(row)`` names the place of a refused row."""
        n = len(columns["symbol"])
        instrument = np.fromiter(map(self._symbol.__getitem__, columns["symbol"]), np.int64, n)
        bad = instrument < 0
        instrument[bad] = 0
        ts = parse_stamps(columns["ts"]) if "ts" in columns else np.full(n, NA, np.int64)
        bad |= ts == BAD
        source = np.zeros(n, np.int64)
        if any(columns.get("source", ())):
            source = np.fromiter(map(self._source_of.__getitem__, columns["source"]), np.int64, n)
            bad |= source < 0
        numbers: dict[str, Ints] = {}
        for name in (*FIELDS, SEQ):
            if not any(columns.get(name, ())):
                continue
            values = self._numbers(name, columns[name], instrument)
            if (values != NA).any():
                numbers[name] = values
                bad |= values == BAD
        kinds = np.array([self._kinds.get(name, self._default).flags for name in self._sources], np.uint8)
        source[source < 0] = 0
        quotes = Quotes(
            instrument.astype(np.int32), ts, kinds[source], source.astype(np.uint8), tuple(self._sources), numbers
        )
        if not bad.any():
            return Parsed(quotes, np.arange(n), [], [])
        rows, refused_rows = np.flatnonzero(~bad), np.flatnonzero(bad).tolist()
        refused = [self._refuse(raw_of(columns, row), where(row)) for row in refused_rows]
        return Parsed(quotes.take(rows), rows, refused, refused_rows)

    def _numbers(self, name: str, texts: Sequence[str], instrument: Ints) -> Ints:
        if name == SEQ:
            return np.fromiter(map(_Memo(_seq).__getitem__, texts), np.int64, len(texts))
        # Cumulative volumes are all distinct: they must not wash the prices out of the memory.
        memo = self._volume if name == "volume" else self._decimal
        values = np.fromiter(map(memo.__getitem__, texts), np.int64, len(texts))
        if name in SIZES:
            known = (values != NA) & (values != BAD)
            units, rest = np.divmod(values, self._steps[instrument])
            return np.where(known, np.where(rest == 0, units, BAD), values)
        if (values == BAD).any():
            # A decimal reads the same in every notation, so only what is left is asked for its fractions.
            for notation, quoted in self._quoted_in.items():
                rows = np.flatnonzero((values == BAD) & quoted[instrument]).tolist()
                values[rows] = list(map(self._fractions[notation].__getitem__, [texts[row] for row in rows]))
        return values

    def _number(self, text: str) -> int:
        name = canonical(text)
        if not well_formed(text):
            return BAD
        number = self._instruments.number(self._mapping.get(name, name))
        return BAD if number is None else number

    def _source_number(self, text: str) -> int:
        name = text.strip().upper()
        if not name:
            return 0
        if not text.isascii() or _SOURCE.fullmatch(name) is None:
            return BAD
        if name not in self._sources:
            if len(self._sources) >= MAX_SOURCES:
                return BAD
            self._sources.append(name)
        return self._sources.index(name)

    def _refuse(self, row: dict[str, str], where: str) -> Refused:
        reason, detail = self._why(row)
        return Refused(reason, detail, where, row.get("source", "")[:24] or self._source, cut(row))

    def _why(self, row: dict[str, str]) -> tuple[str, str]:
        """Why a row is refused: the first fault, found cell by cell."""
        symbol = row.get("symbol", "")
        if not well_formed(symbol):
            return "bad_symbol", f"expected a symbol of up to 24 letters and digits, found {symbol[:40]!r}"
        name = self._mapping.get(canonical(symbol), canonical(symbol))
        number = self._instruments.number(name)
        if number is None:
            return "unknown_symbol", f"expected a registered instrument, found {name!r}"
        if self._source_of[row.get("source", "")] < 0:
            return "bad_source", f"expected one of at most {MAX_SOURCES} names of up to 24 letters, digits or _.:/-"
        try:
            parse_stamp(row.get("ts", ""))
        except BadStamp as error:
            return "bad_ts", str(error)
        instrument = self._instruments[number]
        for name in (*FIELDS, SEQ):
            text = row.get(name, "")
            try:
                if name in PRICES:
                    parse_price(text, instrument.notation)
                elif name in SIZES:
                    parse_size(text, instrument.size_step)
                else:
                    _seq(text)
            except BadNumber as error:
                return "bad_number", f"{name}: {error}"
        raise AssertionError(f"{row}: refused without a reason")


def _seq(text: str) -> int:
    return parse_scaled(text, 0)


def raw_of(columns: Columns, row: int) -> dict[str, str]:
    """The cells of one row that are not empty."""
    return {name: column[row] for name, column in columns.items() if column[row]}


def cut(row: Mapping[str, str]) -> dict[str, str]:
    """A refused entry as it is kept: bounded, and saying where something was left out."""
    kept = {
        name[:_LONG]: text if len(text) <= RAW_CHARACTERS else f"{text[:RAW_CHARACTERS]}… ({len(text)} characters)"
        for name, text in list(row.items())[:RAW_FIELDS]
    }
    if len(row) > RAW_FIELDS:
        kept["…"] = f"{len(row)} fields"
    return kept
