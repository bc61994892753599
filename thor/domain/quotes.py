"""Quotes in columns, and their form in the log (domain.md §3, design.md invariant 2).

A ``Quotes`` holds many quotes as int64 columns in order of arrival. An entry of ``quotes:log`` is
one header, two tables of names and the columns that hold anything at all, little-endian; numpy reads
it without a loop over quotes. Entries name their own symbols, so a reader needs no shared numbering.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from thor.domain.prices import NA

Ints = NDArray[np.int64]

PRICES: Final = ("last", "bid", "ask", "open", "high", "low", "close", "change")
SIZES: Final = ("last_size", "bid_size", "ask_size", "volume")
#: What a producer may write (domain.md §3) …
FIELDS: Final = PRICES + SIZES
#: … and what the ingester adds: ``traded`` volume in size steps (§4), ``mark`` the watermark in ns at which a
#: late quote was accepted (§5), ``gap_from`` the start in ns of a silence that this quote ends (§4).
COLUMNS: Final = (*FIELDS, "traded", "mark", "gap_from")

SNAPSHOT: Final = 1  # from a snapshot feed, else a trade feed
MOVES: Final = 2  # makes or moves a bar (§5)
LATE: Final = 4  # its minute was final when it came
REFRESH: Final = 8  # a snapshot equal to the one before it: only refreshes ts
POLLED: Final = 16  # a snapshot feed that reports every symbol at each poll
STACK_DOWN: Final = 32  # the silence that gap_from begins was ours, not the feed's

ENDED: Final = 1  # header flag: the recording ends here
_MAGIC: Final = 0x5451
_HEADER: Final = struct.Struct("<HBBIHHIQQQQqqqq")

MAX_QUOTES: Final = 65_536  # of one entry


@dataclass(slots=True)
class Quotes:
    """``n`` quotes in order of arrival; every array has shape (n,), columns not present are unknown for all.

    ``instrument`` (int32) indexes a registry the holder agrees on, ``source`` (uint8) indexes ``sources``,
    ``flags`` is uint8, ``ts`` is event time in ns UTC (NA until the ingester fills in the arrival time).
    """

    instrument: NDArray[np.int32]
    ts: Ints
    flags: NDArray[np.uint8]
    source: NDArray[np.uint8]
    sources: tuple[str, ...]
    columns: dict[str, Ints] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ts)

    def column(self, name: str) -> Ints:
        """The column, or NA for every quote where nobody sent it."""
        found = self.columns.get(name)
        return np.full(len(self.ts), NA, np.int64) if found is None else found

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Quotes:
        """The chosen quotes, by mask, by position or as a slice (then without a copy)."""
        return Quotes(
            self.instrument[rows],
            self.ts[rows],
            self.flags[rows],
            self.source[rows],
            self.sources,
            {name: column[rows] for name, column in self.columns.items()},
        )


def empty(sources: tuple[str, ...] = ()) -> Quotes:
    """No quotes at all."""
    return Quotes(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.uint8), sources)


def concat(parts: Sequence[Quotes]) -> Quotes:
    """All quotes of ``parts`` in order; sources are renumbered into one table."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return empty()
    names = tuple(dict.fromkeys(name for part in parts for name in part.sources))
    number = {name: i for i, name in enumerate(names)}
    present = dict.fromkeys(name for part in parts for name in part.columns)
    renumbered = [np.array([number[name] for name in part.sources] or [0], np.uint8)[part.source] for part in parts]
    return Quotes(
        np.concatenate([part.instrument for part in parts]),
        np.concatenate([part.ts for part in parts]),
        np.concatenate([part.flags for part in parts]),
        np.concatenate(renumbered),
        names,
        {name: np.concatenate([part.column(name) for part in parts]) for name in present},
    )


@dataclass(frozen=True, slots=True)
class Head:
    """What an entry says of itself. Times in ns UTC.

    ``generation`` names the log (a new, empty Redis starts another), ``epoch`` the start of the writer,
    ``n`` the entry's number, ``seq`` the number of its first quote among all accepted ones,
    ``watermark`` and ``before`` the watermark after and before it, ``watching`` since when the stack watches
    without a break, ``accepted_at`` the writer's wall clock.
    """

    generation: int
    epoch: int
    n: int
    seq: int
    watermark: int
    before: int
    watching: int
    accepted_at: int
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log, read."""

    head: Head
    quotes: Quotes


class BadEntry(ValueError):
    """Bytes in the log that are no entry of this version."""


def encode(head: Head, quotes: Quotes, symbols: Sequence[str]) -> bytes:
    """The bytes of one entry; ``symbols[i]`` names the instrument numbered i in ``quotes``."""
    # A table, not np.unique: that would sort every quote of the batch.
    used = np.flatnonzero(np.bincount(quotes.instrument))
    local = np.zeros(len(symbols), "<u2")
    local[used] = np.arange(len(used))
    names = "\n".join([symbols[i] for i in used.tolist()]).encode()
    sources = "\n".join(quotes.sources).encode()
    mask, blocks = 0, []
    for bit, name in enumerate(COLUMNS):
        column = quotes.columns.get(name)
        if column is not None and (column != NA).any():
            mask |= 1 << bit
            blocks.append(np.ascontiguousarray(column, "<i8").tobytes())
    header = _HEADER.pack(
        _MAGIC,
        1,
        ENDED if head.ended else 0,
        len(quotes),
        mask,
        len(sources),
        len(names),
        head.generation,
        head.epoch,
        head.n,
        head.seq,
        head.watermark,
        head.before,
        head.watching,
        head.accepted_at,
    )
    fixed = (
        quotes.ts.astype("<i8", copy=False).tobytes(),
        local[quotes.instrument].tobytes(),
        quotes.flags.tobytes(),
        quotes.source.tobytes(),
    )
    return b"".join((header, *fixed, *blocks, names, b"\n", sources))


def decode_head(data: bytes) -> Head:
    """The header alone."""
    return _head(_unpack(data))


def count_of(data: bytes) -> int:
    """How many quotes an entry holds."""
    return _unpack(data)[3]


def _unpack(data: bytes) -> tuple[int, ...]:
    if len(data) < _HEADER.size:
        raise BadEntry(f"expected at least {_HEADER.size} bytes, found {len(data)}")
    values = _HEADER.unpack_from(data)
    if values[0] != _MAGIC or values[1] != 1:
        raise BadEntry(f"expected an entry of version 1, found magic {values[0]:#x} version {values[1]}")
    return values


def _head(v: tuple[int, ...]) -> Head:
    return Head(v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14], bool(v[2] & ENDED))


class Unknown(LookupError):
    """An entry names symbols that the reader's registry does not have."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        super().__init__(f"instruments not in the registry: {', '.join(symbols[:10])}")


def _names(data: bytes) -> list[str]:
    try:
        return data.decode().split("\n") if data else []
    except UnicodeDecodeError as error:
        raise BadEntry(f"expected names in UTF-8, found {data[:40]!r}") from error


def decode(data: bytes, registry: Mapping[str, int]) -> Entry:
    """One entry; ``registry`` gives the reader's number of each symbol.

    Raises BadEntry where the bytes are no entry, Unknown where the registry lacks a symbol.
    """
    values = _unpack(data)
    n, mask, other, length = values[3:7]
    if mask >> len(COLUMNS):
        raise BadEntry(f"expected {len(COLUMNS)} kinds of columns, found the mask {mask:#x}")
    if len(data) != _HEADER.size + n * (12 + 8 * mask.bit_count()) + length + 1 + other:
        raise BadEntry(f"expected {n} quotes with {mask.bit_count()} columns, found {len(data)} bytes")
    at = _HEADER.size
    ts = np.frombuffer(data, "<i8", n, at)
    local = np.frombuffer(data, "<u2", n, at + 8 * n)
    flags = np.frombuffer(data, np.uint8, n, at + 10 * n)
    source = np.frombuffer(data, np.uint8, n, at + 11 * n)
    at += 12 * n
    columns: dict[str, Ints] = {}
    for bit, name in enumerate(COLUMNS):
        if mask >> bit & 1:
            columns[name] = np.frombuffer(data, "<i8", n, at)
            at += 8 * n
    names, sources = _names(data[at : at + length]), tuple(_names(data[at + length + 1 :]))
    if n and (int(local.max()) >= len(names) or int(source.max()) >= max(1, len(sources))):
        raise BadEntry(f"expected quotes of {len(names)} instruments and {len(sources)} sources, found another number")
    missing = [name for name in names if name not in registry]
    if missing:
        raise Unknown(missing)
    numbers = np.array([registry[name] for name in names] or [0], np.int32)
    return Entry(_head(values), Quotes(numbers[local], ts, flags, source, sources, columns))
