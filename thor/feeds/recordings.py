"""Recorded quotes as files: CSV with the columns of domain.md §3, plain or gzip, and what every recording answers.

Rows are numbered from 0 in each file, refused and blank ones included, so that a number finds the same row again.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from thor.domain.instruments import Instruments
from thor.domain.prices import NA
from thor.domain.quotes import Ints, Quotes
from thor.feeds import Refused
from thor.feeds.text import NAMES, Kind, Text, cut, raw_of

SOURCE = "REPLAY"
_LINES = 8_192  # scanned at once while nothing is handed over


class BadRecording(ValueError):
    """A recording that cannot be played; the message is one line that begins with the file."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of one file in file order: ``quotes`` from the rows numbered ``rows`` (ascending), ``refused`` with
    the numbers of theirs; ``end`` is the row after the last one read."""

    quotes: Quotes
    rows: Ints
    refused: list[tuple[int, Refused]]
    end: int


class RecordedFile(Protocol):
    """One file of a recording. Everything raises BadRecording where the file cannot be read on."""

    path: Path
    first_line: int  # what a message calls row 0

    def names(self) -> set[str]:
        """The symbols in it, as the file writes them; reads the whole file."""

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Rows from ``start`` on, at most ``size`` (at least 1) a block."""


class CsvFile:
    """A CSV file with a header, plain or ``.gz``."""

    first_line = 2  # the header is line 1

    def __init__(self, path: Path, instruments: Instruments, mapping: Mapping[str, str], kind: Kind) -> None:
        self.path = path
        self._text = Text(instruments, default=kind, source=SOURCE, mapping=mapping)

    def names(self) -> set[str]:
        """See RecordedFile."""
        found: set[str] = set()
        for columns, _, _, _ in self._tables(0, _LINES):
            found.update(columns["symbol"])
        return found

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """See RecordedFile."""
        for columns, rows, odd, end in self._tables(start, size):
            lines = (rows + self.first_line).tolist()
            parsed = self._text.quotes(columns, lambda row, lines=lines: f"{self.path}:{lines[row]}")  # type: ignore[misc]
            quotes, kept = parsed.quotes, rows[parsed.rows]
            refused = list(zip(rows[parsed.refused_rows].tolist(), parsed.refused, strict=True)) + odd
            if (quotes.ts == NA).any():
                # Live, the arrival time stands in; in a recording nothing can.
                for row in parsed.rows[quotes.ts == NA].tolist():
                    where, raw = f"{self.path}:{lines[row]}", cut(raw_of(columns, row))
                    one = Refused("bad_ts", "expected a ts in a recording, found none", where, SOURCE, raw)
                    refused.append((int(rows[row]), one))
                quotes, kept = quotes.take(quotes.ts != NA), kept[quotes.ts != NA]
            yield Block(quotes, kept, sorted(refused, key=lambda pair: pair[0]), end)

    def _tables(
        self, start: int, size: int
    ) -> Iterator[tuple[dict[str, Sequence[str]], Ints, list[tuple[int, Refused]], int]]:
        row = -1
        try:
            with _open(self.path) as stream:
                header = _header(self.path, stream.readline())
                row = 0
                for row, cells, width in _chunks(stream, start, size, len(header)):
                    yield self._table(header, cells, width, row)
                    row += len(width)
        except EOFError:
            where = f"{self.path}:{_last_line(self.path)}"
            raise BadRecording(
                f"{where}: the file ends in the middle of its gzip stream: expected its end mark, found none"
            ) from None
        except (zlib.error, csv.Error, OSError) as error:
            raise BadRecording(f"{self.path}:{row + 2}: expected readable rows, found: {error}") from error

    def _table(
        self, header: list[str], cells: list[Sequence[str]], width: NDArray[np.int64], row: int
    ) -> tuple[dict[str, Sequence[str]], Ints, list[tuple[int, Refused]], int]:
        rows = row + np.arange(len(width))
        odd = []
        if (width != len(header)).any():
            for i in np.flatnonzero((width != len(header)) & (width > 0)).tolist():
                detail = f"expected {len(header)} fields, found {width[i]}"
                raw = cut({"row": ",".join(cells[i])})
                odd.append((row + i, Refused("bad_row", detail, f"{self.path}:{row + i + 2}", SOURCE, raw)))
            good = np.flatnonzero(width == len(header))
            columns = list(zip(*[cells[i] for i in good.tolist()], strict=True)) or [()] * len(header)
            rows = rows[good]
        else:
            columns = list(cells)  # type: ignore[arg-type]
        table: dict[str, Sequence[str]] = dict(zip(header, columns, strict=True))
        table.pop("source", None)  # what is replayed comes from the replay
        return table, rows, odd, row + len(width)


@contextmanager
def _open(path: Path) -> Iterator[io.TextIOWrapper]:
    with ExitStack() as stack:
        raw: BinaryIO = stack.enter_context(path.open("rb"))
        if path.suffix == ".gz":
            packed = stack.enter_context(gzip.GzipFile(fileobj=raw))
            raw = cast("BinaryIO", io.BufferedReader(packed, 1 << 18))
        # What is no UTF-8 is refused row by row: the mark that takes its place parses as nothing.
        yield stack.enter_context(io.TextIOWrapper(raw, "utf-8-sig", errors="replace"))


def _last_line(path: Path) -> int:
    """The last line that can still be read of a file that breaks off."""
    n = 0
    with suppress(EOFError), _open(path) as stream:
        for _ in stream:
            n += 1
    return n


def _header(path: Path, line: str) -> list[str]:
    if not line.strip():
        raise BadRecording(f"{path}:1: expected a line of column names, found {'an empty line' if line else 'nothing'}")
    names = [name.strip().lower() for name in next(csv.reader([line]))]
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise BadRecording(
            f"{path}:1: no such columns: expected some of {', '.join(NAMES)}, found {', '.join(unknown)}"
        )
    missing = [name for name in ("ts", "symbol") if name not in names]
    if missing or len(set(names)) < len(names):
        raise BadRecording(f"{path}:1: expected ts and symbol, each column once, found {', '.join(names)}")
    return names


def _chunks(
    stream: io.TextIOWrapper, start: int, size: int, expected: int
) -> Iterator[tuple[int, list[Sequence[str]], NDArray[np.int64]]]:
    """(first row, cells, fields of each row): ``cells`` are columns where all rows have ``expected``, else rows."""
    row, quoted = 0, False
    while lines := list(islice(stream, size if row >= start else _skip(start - row))):
        if any('"' in line for line in lines):
            quoted = True
            break
        if row + len(lines) > start:
            yield _split(row, lines, expected)
        row += len(lines)
    if quoted:
        # A quoted cell may hold commas and line ends: from here on the csv module reads, slower.
        reader = csv.reader(chain(lines, stream))
        deque(islice(reader, max(0, start - row)), maxlen=0)
        row = max(row, start)
        while records := list(islice(reader, size)):
            width = np.fromiter(map(len, records), np.int64, len(records))
            same = (width == expected).all()
            yield row, list(zip(*records, strict=True)) if same else list(records), width
            row += len(records)


def _skip(rows: int) -> int:
    return min(rows, _LINES)


def _split(row: int, lines: list[str], expected: int) -> tuple[int, list[Sequence[str]], NDArray[np.int64]]:
    """Cells of plain lines: one split for all of them where each has ``expected`` fields."""
    width = np.fromiter(map(str.count, lines, repeat(",")), np.int64, len(lines)) + 1
    if (width == expected).all():
        cells = "".join(lines).replace("\n", ",").split(",")
        end = len(lines) * expected
        return row, [cells[i:end:expected] for i in range(expected)], width
    rows: list[Sequence[str]] = [line.rstrip("\n").split(",") for line in lines]
    for i in np.flatnonzero(width == 1).tolist():
        width[i] = bool(lines[i].strip())  # a blank line is no row
    return row, rows, width
