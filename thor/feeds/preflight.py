"""Whether a recording can be played, before anything starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thor.domain.instruments import Instrument, Instruments, canonical, well_formed
from thor.domain.prices import NA
from thor.domain.quotes import MAX_QUOTES
from thor.feeds.dbn import DbnFile
from thor.feeds.recordings import BadRecording, CsvFile, RecordedFile
from thor.feeds.text import Kind


@dataclass(frozen=True)
class Recording:
    """A recording that can be played: ``rows`` that parse, ``symbols`` as the files write them, times in ns,
    ``added`` the contracts to register, ``identity`` of contents and options."""

    files: tuple[Path, ...]
    rows: int
    symbols: tuple[str, ...]
    first_ts: int
    last_ts: int
    added: list[Instrument]
    identity: str


def open_file(path: Path, instruments: Instruments, mapping: Mapping[str, str], *, snapshot: bool) -> RecordedFile:
    """The reader for a file, by the end of its name."""
    kind = Kind(snapshot=snapshot, polled=snapshot)
    reader = DbnFile if path.name.endswith((".dbn", ".dbn.zst")) else CsvFile
    return reader(path, instruments, mapping, kind)


def preflight(
    files: Sequence[Path],
    mapping: Mapping[str, str],
    instruments: Instruments,
    add_instruments: bool,
    snapshot: bool,
) -> Recording:
    """Read every file to its end and say what is in it.

    ``mapping`` (symbol of the recording → symbol to use) and ``add_instruments`` as on the command line. Rows that
    do not parse are refused when played; BadRecording, in one line, where a file cannot be read, holds nothing that
    parses, or names what nobody knows.
    """
    if not files:
        raise BadRecording("expected at least one file to replay, found none")
    for path in files:
        if not path.is_file():
            raise BadRecording(f"{path}: no such file")
    for name, symbol in mapping.items():
        if instruments.number(symbol) is None:
            raise BadRecording(f"--map {name}={symbol}: expected a known symbol, found {symbol!r}")
    names = [open_file(path, instruments, mapping, snapshot=snapshot).names() for path in files]
    symbols = tuple(sorted({name for found in names for name in found if well_formed(name)}))
    present = {canonical(name) for name in symbols}
    for name in mapping:
        if canonical(name) not in present:
            raise BadRecording(f"--map {name}: expected one of {_list(symbols)}, which the recording holds")
    added = _added(symbols, mapping, instruments, add_instruments)
    registry = Instruments([*instruments, *added])
    rows, first, last = 0, NA, NA
    for path in files:
        n, begins, ends = _measure(open_file(path, registry, mapping, snapshot=snapshot))
        rows += n
        first, last = begins if first == NA else min(first, begins), max(last, ends)
    options = [sorted((canonical(name), canonical(to)) for name, to in mapping.items()), snapshot]
    identity = hashlib.sha256(json.dumps(options).encode())
    for path in files:
        with path.open("rb") as stream:
            identity.update(hashlib.file_digest(stream, "sha256").digest())
    return Recording(tuple(files), rows, symbols, first, last, added, identity.hexdigest())


def _added(
    symbols: Sequence[str], mapping: Mapping[str, str], instruments: Instruments, add_instruments: bool
) -> list[Instrument]:
    mapped = {canonical(name) for name in mapping}
    unknown = sorted({canonical(s) for s in symbols if canonical(s) not in mapped and instruments.number(s) is None})
    if unknown and not add_instruments:
        raise BadRecording(
            f"unknown symbols {_list(unknown)}: add them under their root's specification with --add-instruments, "
            f"or play them as another with --map {unknown[0]}=SYMBOL"
        )
    added, rootless = [], []
    for symbol in unknown:
        try:
            added.append(instruments.contract(symbol))
        except LookupError:
            rootless.append(symbol)
    if rootless:
        raise BadRecording(
            f"unknown symbols {_list(rootless)}: no contracts of a known root: use --map {rootless[0]}=SYMBOL "
            "or describe them with --instruments FILE"
        )
    return added


def _measure(file: RecordedFile) -> tuple[int, int, int]:
    rows, read, first, last, fault = 0, 0, NA, NA, ""
    for block in file.blocks(0, MAX_QUOTES):
        ts = block.quotes.ts
        if len(ts):
            first = int(ts.min()) if first == NA else min(first, int(ts.min()))
            last = max(last, int(ts.max()))
        if block.refused and not fault:
            one = block.refused[0][1]
            fault = f", the first at {one.where}: {one.reason}: {one.detail}"
        rows, read = rows + len(ts), block.end
    if not rows:
        raise BadRecording(f"{file.path}: expected quotes, found none in {read} rows{fault}")
    return rows, first, last


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
