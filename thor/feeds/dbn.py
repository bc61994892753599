"""Databento DBN files (.dbn, .dbn.zst): trades, tbbo, mbp-1, and live streams that mix them with other records.

Prices are integers of 1e-9 already. A record with action T is a print with the book beside it; any other mbp-1
record is a change of the book, with level 0 as it stands after the event. Undefined values are NA.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import BinaryIO, Final

import databento_dbn
import numpy as np
import zstandard
from numpy.typing import NDArray

from thor.domain.instruments import Instruments, canonical
from thor.domain.prices import NA, NANO
from thor.domain.quotes import Ints, Quotes, concat, empty
from thor.feeds import Refused
from thor.feeds.recordings import SOURCE, BadRecording, Block
from thor.feeds.text import Kind

logger = logging.getLogger(__name__)

_TRADE, _BOOK, _MAPPING = 0, 1, 22  # rtype of trades; of mbp-1 and tbbo; of symbol mappings
_SCHEMAS: Final = ("trades", "tbbo", "mbp-1")
_READ: Final = 1 << 20
_HEAD: Final = [("length", "u1"), ("rtype", "u1"), ("publisher", "<u2"), ("id", "<u4"), ("ts", "<u8")]
_PRINT: Final = [
    *_HEAD, ("price", "<i8"), ("size", "<u4"), ("action", "S1"), ("side", "S1"), ("flags", "u1"), ("depth", "u1"),
    ("ts_recv", "<u8"), ("delta", "<i4"), ("sequence", "<u4"),
]  # fmt: skip
_LEVEL: Final = [("bid", "<i8"), ("ask", "<i8"), ("bid_size", "<u4"), ("ask_size", "<u4"), ("counts", "<u8")]
_FIELDS: Final = {_TRADE: _PRINT, _BOOK: _PRINT + _LEVEL}
_SIZES: Final = {_TRADE: 48, _BOOK: 80}
_UNDEF_SIZE: Final = 2**32 - 1
_UNDEF_PRICE: Final = 2**63 - 1
_DAY_NS: Final = 86_400 * NANO
_EPOCH: Final = date(1970, 1, 1)


@dataclass(slots=True)
class _Names:
    """Which symbol an instrument id stands for, and when: id → (from ns, to ns, number of the name)."""

    names: list[str] = field(default_factory=list)
    spans: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)

    def add(self, instrument: int, name: str, start: int = 0, end: int = 2**63 - 1) -> None:
        if name not in self.names:
            self.names.append(name)
        self.spans.setdefault(instrument, []).append((start, end, self.names.index(name)))

    def holds(self, instrument: int, name: str) -> bool:
        """Whether the id stands for ``name`` and nothing else."""
        spans = self.spans.get(instrument, [])
        return len(spans) == 1 and self.names[spans[0][2]] == name

    def rename(self, instrument: int, name: str) -> None:
        """From here on the id stands for ``name``."""
        self.spans.pop(instrument, None)
        self.add(instrument, name)

    def resolve(self, ids: NDArray[np.uint32], ts: Ints) -> NDArray[np.int32]:
        """The number of each record's name, −1 where nobody said it."""
        distinct, which = np.unique(ids, return_inverse=True)
        low, high = int(ts.min(initial=2**63 - 1)), int(ts.max(initial=0))
        whole = np.full(len(distinct), -1, np.int32)
        parted = []
        for i, instrument in enumerate(distinct.tolist()):
            spans = self.spans.get(instrument, [])
            if len(spans) == 1 and spans[0][0] <= low and high < spans[0][1]:
                whole[i] = spans[0][2]
            else:
                parted += [(i, *span) for span in spans]
        found = whole[which]
        for i, start, end, name in parted:
            found[(which == i) & (ts >= start) & (ts < end)] = name
        return found


@dataclass(slots=True)
class _Run:
    """``count`` records of one rtype and length in a row, the first numbered ``row``."""

    rtype: int
    row: int
    data: bytes
    length: int

    @property
    def count(self) -> int:
        return len(self.data) // self.length

    def cut(self, first: int, last: int) -> _Run:
        return _Run(self.rtype, self.row + first, self.data[first * self.length : last * self.length], self.length)


class DbnFile:
    """One DBN file. ``skipped`` counts records of a mixed stream that are no quotes, by rtype; trades that the
    stream repeats beside mbp-1 records of their instrument are among them (domain.md §4: never counted twice)."""

    first_line = 0  # messages count records

    def __init__(self, path: Path, instruments: Instruments, mapping: Mapping[str, str], kind: Kind) -> None:
        self.path = path
        self._instruments, self._flags = instruments, kind.flags
        self._mapping = {canonical(name): symbol for name, symbol in mapping.items()}
        self._steps = np.array([i.step_nano for i in instruments] or [NANO], np.int64)
        self._booked: NDArray[np.uint32] | None = None
        self.skipped: Counter[int] = Counter()

    def names(self) -> set[str]:
        """See RecordedFile."""
        names, found = _Names(), set[str]()
        for parts in self._parts(names, 0, _READ):
            for records, _, _ in _tables(parts):
                numbers = names.resolve(records["id"], records["ts_recv"].astype(np.int64))
                found.update(names.names[i] for i in np.unique(numbers).tolist() if i >= 0)
        return found

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """See RecordedFile."""
        names = _Names()
        for parts in self._parts(names, start, size):
            yield self._block(parts, names)

    def _parts(self, names: _Names, start: int, size: int) -> Iterator[list[_Run]]:
        """Runs of quotes, cut so that ``names`` holds for all of them and they are at most ``size``."""
        parts: list[_Run] = []
        total = 0
        with _open(self.path) as stream:
            metadata = self._metadata(stream, names)
            if metadata.schema is None and self._booked is None:
                self._booked = self._ids_with_book()
            for run in self._runs(stream):
                if run.rtype == _MAPPING:
                    changes = [change for change in _mappings(run) if not names.holds(*change)]
                    if changes and parts:
                        yield parts
                        parts, total = [], 0
                    for change in changes:
                        names.rename(*change)
                if run.rtype not in _SIZES:
                    self.skipped[run.rtype] += run.count
                    continue
                if run.length < _SIZES[run.rtype]:
                    raise self._bad(run.row, f"a record of {_SIZES[run.rtype]} bytes", f"{run.length}")
                first = max(0, start - run.row)
                while first < run.count:
                    last = min(run.count, first + size - total)
                    parts.append(run.cut(first, last))
                    total += last - first
                    first = last
                    if total >= size:
                        yield parts
                        parts, total = [], 0
        if parts:
            yield parts

    def _metadata(self, stream: _Reader, names: _Names) -> databento_dbn.Metadata:
        head = stream.read(8)
        if len(head) < 8 or head[:3] != b"DBN":
            raise BadRecording(f"{self.path}: expected a DBN file, found {head[:8]!r}")
        rest = stream.read(int.from_bytes(head[4:], "little"))
        try:
            metadata = databento_dbn.Metadata.decode(head + rest)
        except (databento_dbn.DBNError, ValueError) as error:
            raise BadRecording(f"{self.path}: expected DBN metadata, found: {error}") from error
        if metadata.schema is not None and str(metadata.schema) not in _SCHEMAS:
            raise BadRecording(f"{self.path}: expected the schema {', '.join(_SCHEMAS)}, found {metadata.schema}")
        for asked, intervals in metadata.mappings.items():
            for one in intervals:
                told = one["symbol"]
                name, number = (told, asked) if asked.isdigit() else (asked, told)
                if number.isdigit():
                    names.add(int(number), name, _midnight(one["start_date"]), _midnight(one["end_date"]))
        return metadata

    def _ids_with_book(self) -> NDArray[np.uint32]:
        found: set[int] = set()
        with _open(self.path) as stream:
            self._metadata(stream, _Names())
            for run in self._runs(stream):
                if run.rtype == _BOOK and run.length >= _SIZES[_BOOK]:
                    found.update(np.unique(_array(_BOOK, run.length, run.data)["id"]).tolist())
        return np.array(sorted(found), np.uint32)

    def _runs(self, stream: _Reader) -> Iterator[_Run]:
        row, rest = 0, b""
        while data := stream.read(_READ):
            data = rest + data
            raw, at = np.frombuffer(data, np.uint8), 0
            while at < len(data):
                length = data[at] * 4
                if length < 16:
                    raise self._bad(row, "a record of at least 16 bytes", f"{length}")
                room = (len(data) - at) // length
                if not room:
                    break
                end = at + _alike(raw, at, length, room) * length
                run = _Run(data[at + 1], row, data[at:end], length)
                yield run
                at, row = end, row + run.count
            rest = data[at:]
        if rest:
            raise self._bad(row, f"a record of {rest[0] * 4} bytes", f"the end of the file after {len(rest)}")

    def _bad(self, row: int, expected: str, found: str) -> BadRecording:
        return BadRecording(f"{self.path}:{row}: expected {expected}, found {found}")

    def _block(self, parts: list[_Run], names: _Names) -> Block:
        quotes, rows, refused = [], [], []
        numbers = [self._instruments.number(self._mapping.get(canonical(n), canonical(n))) for n in names.names]
        known = np.array([-1 if number is None else number for number in numbers] + [-1], np.int32)
        for records, at, rtype in _tables(parts):
            prints = records["action"] == b"T"
            if rtype == _TRADE and not prints.all():
                self.skipped[rtype] += int(np.count_nonzero(~prints))
                records, at, prints = records[prints], at[prints], prints[prints]
            if rtype == _TRADE and self._booked is not None and len(self._booked):
                alone = ~np.isin(records["id"], self._booked)
                self.skipped[rtype] += int(np.count_nonzero(~alone))
                records, at, prints = records[alone], at[alone], prints[alone]
            ts = records["ts"].astype(np.int64)
            instrument = known[names.resolve(records["id"], records["ts_recv"].astype(np.int64))]
            columns, odd = self._columns(records, prints, np.maximum(instrument, 0), rtype)
            bad = (instrument < 0) | (ts < 0) | odd
            refused += [
                (int(at[i]), self._refuse(records[i], int(instrument[i]), int(ts[i]), int(at[i])))
                for i in np.flatnonzero(bad).tolist()
            ]
            n = len(records)
            part = Quotes(instrument, ts, np.full(n, self._flags, np.uint8), np.zeros(n, np.uint8), (SOURCE,), columns)
            quotes.append(part.take(~bad) if bad.any() else part)
            rows.append(at[~bad] if bad.any() else at)
        whole, where = (
            concat(quotes) if quotes else empty((SOURCE,)),
            np.concatenate(rows) if rows else np.empty(0, np.int64),
        )
        if len(quotes) > 1:
            order = np.argsort(where, kind="stable")
            whole, where = whole.take(order), where[order]
        refused.sort(key=lambda pair: pair[0])
        return Block(whole, where, refused, parts[-1].row + parts[-1].count)

    def _columns(
        self, records: NDArray[np.void], prints: NDArray[np.bool_], instrument: NDArray[np.int32], rtype: int
    ) -> tuple[dict[str, Ints], NDArray[np.bool_]]:
        """The columns that hold anything, and which rows cannot be used: a print without price, a split size."""
        step = self._steps[instrument]

        def price(name: str) -> Ints:
            values = records[name]
            return np.where((values == _UNDEF_PRICE) | (values == NA), NA, values)

        def size(name: str, of: Ints) -> tuple[Ints, NDArray[np.bool_]]:
            values = records[name]
            units, rest = np.divmod(values.astype(np.int64) * NANO, step)
            known = (of != NA) & (values != _UNDEF_SIZE)
            return np.where(known, units, NA), known & (rest != 0)

        last = np.where(prints, price("price"), NA)
        last_size, odd = size("size", last)
        odd |= prints & (last_size == NA)
        columns = {"last": last, "last_size": last_size}
        if rtype == _BOOK:
            for side in ("bid", "ask"):
                columns[side] = price(side)
                columns[f"{side}_size"], split = size(f"{side}_size", columns[side])
                odd |= split
        return {name: column for name, column in columns.items() if (column != NA).any()}, odd

    def _refuse(self, record: np.void, instrument: int, ts: int, row: int) -> Refused:
        if ts < 0:
            reason, detail = "bad_ts", "expected a ts_event, found an undefined one"
        elif instrument < 0:
            reason, detail = "unknown_symbol", f"expected a registered instrument, found the id {record['id']}"
        else:
            reason, detail = "bad_number", "expected a price and sizes in whole steps, found an undefined or split one"
        raw = {name: str(record[name]) for name in record.dtype.names or ()}
        return Refused(reason, detail, f"{self.path}:{row}", SOURCE, raw)


def _alike(raw: NDArray[np.uint8], at: int, length: int, room: int) -> int:
    """How many of the next ``room`` records have the first one's length and rtype."""
    heads = raw[at : at + room * length].reshape(room, length)[:, :2]
    window = 32
    while True:
        other = np.flatnonzero((heads[:window] != heads[0]).any(axis=1))
        if len(other) or window >= room:
            return int(other[0]) if len(other) else room
        window *= 8


def _array(rtype: int, length: int, data: bytes) -> NDArray[np.void]:
    # A live gateway may have appended ts_out: the records are longer, their beginning is the same.
    fields = [*_FIELDS[rtype], ("rest", f"V{length - _SIZES[rtype]}")]
    return np.frombuffer(data, np.dtype(fields))


def _tables(parts: list[_Run]) -> Iterator[tuple[NDArray[np.void], Ints, int]]:
    """Records of one shape at a time, with their row numbers and rtype."""
    for rtype, length in sorted({(part.rtype, part.length) for part in parts}):
        runs = [part for part in parts if (part.rtype, part.length) == (rtype, length)]
        rows = np.concatenate([run.row + np.arange(run.count, dtype=np.int64) for run in runs])
        yield _array(rtype, length, b"".join(run.data for run in runs)), rows, rtype


def _mappings(run: _Run) -> list[tuple[int, str]]:
    """(instrument id, symbol) of symbol mapping records; version 1 has narrow names and no stype before them."""
    width, stype = (22, 0) if run.length < 176 else (71, 1)
    found = []
    for at in range(0, len(run.data), run.length):
        record = run.data[at : at + run.length]
        asked, told = (
            record[begin : begin + width].split(b"\0")[0].decode("ascii", "replace")
            for begin in (16 + stype, 16 + 2 * stype + width)
        )
        found.append((int.from_bytes(record[4:8], "little"), asked if told.isdigit() or not told else told))
    return found


def _midnight(day: date) -> int:
    return (day - _EPOCH).days * _DAY_NS


class _Reader:
    """``read(n)`` of a plain or zstd file; a zstd frame that breaks off is an error, not an end."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._zstd = file.read(4) == b"\x28\xb5\x2f\xfd"
        file.seek(0)
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._started, self._ready = False, bytearray()

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, n: int) -> bytes:
        """Up to ``n`` bytes, fewer only at the end."""
        if not self._zstd:
            return self._file.read(n)
        while len(self._ready) < n and (data := self._file.read(1 << 16)):
            while data:
                if self._frame.eof:
                    self._frame, self._started = zstandard.ZstdDecompressor().decompressobj(), False
                try:
                    self._ready += self._frame.decompress(data)
                except zstandard.ZstdError as error:
                    raise BadRecording(f"{self._path}: expected a zstd stream, found: {error}") from error
                self._started = True
                data = self._frame.unused_data if self._frame.eof else b""
        if len(self._ready) < n and self._started and not self._frame.eof:
            raise BadRecording(f"{self._path}: the file ends in the middle of its zstd stream: expected its end")
        out = bytes(self._ready[:n])
        del self._ready[:n]
        return out


def _open(path: Path) -> _Reader:
    try:
        return _Reader(path, path.open("rb"))
    except OSError as error:
        raise BadRecording(f"{path}: expected a readable file, found: {error}") from error
