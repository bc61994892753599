"""Entries of the log: what is written is read, and bytes that are no entry are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thor.domain.prices import NA
from thor.domain.quotes import (
    COLUMNS,
    BadEntry,
    Head,
    Quotes,
    Unknown,
    concat,
    decode,
    decode_head,
    encode,
)

SYMBOLS = ["YM", "ES", "NQ", "GCZ3"]
REGISTRY = {symbol: number for number, symbol in enumerate(SYMBOLS)}
int64 = st.integers(-(2**63), 2**63 - 1)
uint64 = st.integers(0, 2**64 - 1)
heads = st.builds(Head, uint64, uint64, uint64, uint64, int64, int64, int64, int64, st.booleans())


@st.composite
def quotes(draw: st.DrawFn) -> Quotes:
    n = draw(st.integers(0, 80))

    def column(values: st.SearchStrategy[int]) -> list[int]:
        return draw(st.lists(values, min_size=n, max_size=n))

    sources = tuple(draw(st.lists(st.sampled_from(["EXCEL", "SCHWAB", "REPLAY"]), unique=True)))
    names = draw(st.lists(st.sampled_from(COLUMNS), unique=True))
    return Quotes(
        np.array(column(st.integers(0, len(SYMBOLS) - 1)), np.int32),
        np.array(column(int64), np.int64),
        np.array(column(st.integers(0, 255)), np.uint8),
        np.array(column(st.integers(0, max(0, len(sources) - 1))), np.uint8),
        sources,
        {name: np.array(column(st.just(NA) | int64), np.int64) for name in names},
    )


def same(a: Quotes, b: Quotes) -> bool:
    pairs = [(a.ts, b.ts), *((a.column(name), b.column(name)) for name in COLUMNS)]
    small = np.array_equal(a.instrument, b.instrument) and np.array_equal(a.flags, b.flags)
    return (
        a.sources == b.sources
        and small
        and np.array_equal(a.source, b.source)
        and all(np.array_equal(x, y) for x, y in pairs)
    )


@given(heads, quotes())
def test_an_entry_is_read_as_it_was_written(head: Head, written: Quotes) -> None:
    data = encode(head, written, SYMBOLS)
    entry = decode(data, REGISTRY)
    assert entry.head == decode_head(data) == head
    assert same(entry.quotes, written)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_entry_or_refused(data: bytes) -> None:
    with pytest.raises(BadEntry):
        decode(data, REGISTRY)


@given(heads, quotes(), st.data())
def test_a_damaged_entry_never_crashes_its_reader(head: Head, written: Quotes, data: st.DataObject) -> None:
    bad = bytearray(encode(head, written, SYMBOLS))
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(bad[: data.draw(st.integers(0, len(bad)))]) if data.draw(st.booleans()) else bytes(bad)
    try:
        entry = decode(cut, REGISTRY)
    except (BadEntry, Unknown):
        return
    assert len(entry.quotes) == 0 or int(entry.quotes.instrument.max()) < len(SYMBOLS)
    concat([entry.quotes, entry.quotes])


def test_two_hundred_sources_of_24_letters_fit() -> None:
    sources = tuple(f"{i:024d}" for i in range(200))
    one = Quotes(
        np.zeros(200, np.int32), np.arange(200), np.zeros(200, np.uint8), np.arange(200, dtype=np.uint8), sources
    )
    head = Head(1, 1, 1, 1, 1, 1, 1, 1)
    assert decode(encode(head, one, SYMBOLS), REGISTRY).quotes.sources == sources


def test_symbols_that_the_reader_does_not_know_are_named() -> None:
    one = Quotes(np.array([3], np.int32), np.array([1]), np.zeros(1, np.uint8), np.zeros(1, np.uint8), ("X",))
    with pytest.raises(Unknown, match="GCZ3"):
        decode(encode(Head(1, 1, 1, 1, 1, 1, 1, 1), one, SYMBOLS), {"ES": 0})


@given(st.lists(quotes(), max_size=4))
def test_parts_joined_keep_their_order_and_sources(parts: list[Quotes]) -> None:
    whole = concat(parts)
    assert whole.ts.tolist() == [ts for part in parts for ts in part.ts.tolist()]
    named = [part.sources[s] for part in parts if part.sources for s in part.source.tolist()]
    if all(part.sources for part in parts):
        assert [whole.sources[s] for s in whole.source.tolist()] == named
