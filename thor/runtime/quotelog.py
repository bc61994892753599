"""The quote log as text, for `thor tail`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from thor.domain.instruments import Instruments
from thor.domain.prices import NA, NANO, text_of, text_of_size
from thor.domain.quotes import FIELDS, LATE, MOVES, PRICES, REFRESH, SNAPSHOT, Entry, Unknown, decode
from thor.stores import log
from thor.stores.redis import connect

_LOOK_BACK = 5_000  # entries

_MARKS = {SNAPSHOT: "snapshot", MOVES: "moves", LATE: "late", REFRESH: "refresh"}


class QuoteLog:
    """Reads the log of one Redis. Entries that name instruments not in the files are shown as a note."""

    def __init__(self, url: str, instruments: Instruments) -> None:
        self._client = connect(url)
        self._instruments = instruments
        self._registry = {symbol: number for number, symbol in enumerate(instruments.symbols)}
        self._reader = log.Reader(self._client, 0)

    def newest(self, count: int, symbol: str | None) -> list[str]:
        """Lines of the newest ``count`` quotes, oldest first; a later ``follow`` goes on behind them."""
        entries = log.newest(self._client, min(_LOOK_BACK, max(count, 10) if symbol is None else _LOOK_BACK))
        if entries:
            self._reader = log.Reader(self._client, entries[-1][0])
        lines = [line for _, data in entries for line in self._lines(data, symbol)]
        return lines[-count:] if count else []

    def follow(self, symbol: str | None) -> Iterator[str]:
        """Lines as they come, for ever; an empty one each second in which nothing came. Raises RedisError."""
        while True:
            found = self._reader.read(1000, 100)
            for _, data in found:
                yield from self._lines(data, symbol)
            if not found:
                yield ""

    def _lines(self, data: bytes, symbol: str | None) -> Iterator[str]:
        try:
            entry = decode(data, self._registry)
        except Unknown as unknown:
            yield str(unknown)
            return
        for row in range(len(entry.quotes)):
            instrument = self._instruments[int(entry.quotes.instrument[row])]
            if symbol is None or instrument.symbol == symbol:
                yield self._line(entry, row, instrument.symbol, instrument.step_nano)

    def _line(self, entry: Entry, row: int, symbol: str, step: int) -> str:
        quotes = entry.quotes
        parts = [f"{entry.head.n:>8}", time_of(int(quotes.ts[row])), f"{symbol:<6}"]
        for name in (*FIELDS, "traded"):
            value = int(quotes.columns[name][row]) if name in quotes.columns else NA
            if value != NA:
                parts.append(f"{name}={text_of(value) if name in PRICES else text_of_size(value, step)}")
        gap = int(quotes.columns["gap_from"][row]) if "gap_from" in quotes.columns else NA
        if gap != NA:
            parts.append(f"gap_from={time_of(gap)}")
        flags = int(quotes.flags[row])
        parts += [mark for bit, mark in _MARKS.items() if flags & bit]
        parts.append(quotes.sources[int(quotes.source[row])])
        return " ".join(parts)


def time_of(ns: int) -> str:
    """RFC 3339 UTC with all nine decimals."""
    seconds, rest = divmod(ns, NANO)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
