"""Databento files against Databento's own decoder."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import databento_dbn
import pytest
import zstandard

from tests.columns import recording
from tests.feeds.playing import play, same
from tests.feeds.registry import REGISTRY
from thor.domain.instruments import Instruments
from thor.domain.prices import NA
from thor.domain.quotes import Quotes
from thor.feeds.dbn import DbnFile
from thor.feeds.replay import BadRecording, preflight
from thor.feeds.text import Kind

dbn: Any = databento_dbn  # its stubs call the members of its enums text
T0 = 1_700_000_000 * 10**9  # 2023-11-14 22:13:20 UTC
UNDEF = dbn.UNDEF_PRICE
IDS = {7: "ESH4", 8: "GCZ3"}


@dataclass
class Interval:
    start_date: date
    end_date: date
    symbol: str


@dataclass
class Mapping:
    raw_symbol: str
    intervals: list[Interval]


def mapping(name: str, *intervals: tuple[int, int, str]) -> Mapping:
    """``name`` stands for each id from one day of November 2023 to another."""
    return Mapping(name, [Interval(date(2023, 11, a), date(2023, 11, b), symbol) for a, b, symbol in intervals])


MAPPINGS = [mapping(name, (14, 16, str(i))) for i, name in IDS.items()]


def metadata(schema: str | None, mappings: Any = MAPPINGS, version: int = 3, ts_out: bool = False) -> bytes:  # noqa: ANN401
    found = dbn.Metadata(
        "GLBX.MDP3", T0, dbn.SType.RAW_SYMBOL, dbn.SType.INSTRUMENT_ID, dbn.Schema.from_str(schema) if schema else None,
        mappings=mappings, version=version, ts_out=ts_out,
    )  # fmt: skip
    return bytes(found)


def book(rng: random.Random, i: int, action: str = "", instrument: int = 7) -> Any:  # noqa: ANN401
    def price() -> int:
        return UNDEF if rng.random() < 0.1 else rng.randrange(1, 10**13)

    level = dbn.BidAskPair(price(), price(), rng.randrange(100), rng.randrange(100), 1, 1)
    kind = dbn.Action.from_str(action or rng.choice("TACMR"))
    return dbn.MBP1Msg(
        1, instrument, T0 + i * 10**6, rng.randrange(1, 10**13), rng.randrange(100), kind, dbn.Side.NONE, 0,
        T0 + i * 10**6 + 99, sequence=i, levels=level,
    )  # fmt: skip


def trade(rng: random.Random, i: int, instrument: int = 7, price: int = 0, ts: int = 0) -> Any:  # noqa: ANN401
    return dbn.TradeMsg(
        1, instrument, ts or T0 + i * 10**6, price or rng.randrange(1, 10**13), rng.randrange(100), dbn.Action.TRADE,
        dbn.Side.ASK, 0, T0 + i * 10**6 + 99,
    )  # fmt: skip


def named(instrument: int, name: str) -> Any:  # noqa: ANN401
    return dbn.SymbolMappingMsg(1, instrument, T0, dbn.SType.RAW_SYMBOL, name, dbn.SType.RAW_SYMBOL, name, 0, 2**63)


def write(path: Path, head: bytes, records: Sequence[Any]) -> Path:
    data = head + b"".join(map(bytes, records))
    path.write_bytes(zstandard.ZstdCompressor().compress(data) if path.suffix == ".zst" else data)
    return path


def referee(path: Path) -> list[tuple[int | None, ...]]:
    """(id, ts, last, last_size, bid, bid_size, ask, ask_size) of each trade or mbp-1 record, one object at a time."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    decoder = dbn.DBNDecoder()
    decoder.write(data)
    rows: list[tuple[int | None, ...]] = []
    for record in decoder.decode():
        if not isinstance(record, dbn.TradeMsg | dbn.MBP1Msg):
            continue
        row: list[int | None] = [record.instrument_id, record.ts_event, None, None, None, None, None, None]
        if str(record.action) == "T":
            row[2], row[3] = record.price, record.size
        if isinstance(record, dbn.MBP1Msg):
            level = record.levels[0]
            if level.bid_px != UNDEF:
                row[4], row[5] = level.bid_px, level.bid_sz
            if level.ask_px != UNDEF:
                row[6], row[7] = level.ask_px, level.ask_sz
        rows.append(tuple(row))
    return rows


def rows_of(quotes: Quotes, ids: dict[int, int]) -> list[tuple[int | None, ...]]:
    columns = [quotes.column(n) for n in ("last", "last_size", "bid", "bid_size", "ask", "ask_size")]
    back = {number: i for i, number in ids.items()}
    cells = [[None if v == NA else v for v in column.tolist()] for column in columns]
    return list(zip([back[i] for i in quotes.instrument.tolist()], quotes.ts.tolist(), *cells, strict=True))


@pytest.mark.parametrize("suffix", [".dbn", ".dbn.zst"])
@pytest.mark.parametrize("schema", ["trades", "tbbo", "mbp-1"])
def test_a_file_is_read_as_databento_reads_it(tmp_path: Path, schema: str, suffix: str) -> None:
    rng = random.Random(1)
    make: Callable[[int], Any] = {"trades": lambda i: trade(rng, i, rng.choice([7, 8])),
            "tbbo": lambda i: book(rng, i, "T", rng.choice([7, 8])),
            "mbp-1": lambda i: book(rng, i, "", rng.choice([7, 8]))}[schema]  # fmt: skip
    path = write(tmp_path / f"a{suffix}", metadata(schema), [make(i) for i in range(30_000)])
    found = preflight([path], {"ESH4": "ES"}, REGISTRY, True, False)
    assert found.symbols == ("ESH4", "GCZ3")
    registry = Instruments([*REGISTRY, *found.added])
    expected = referee(path)
    assert len(expected) == found.rows == 30_000
    quotes, refused = play([path], None, registry, mapping={"ESH4": "ES"})
    assert refused == []
    assert rows_of(quotes, {7: 0, 8: len(REGISTRY)}) == expected
    again, _ = play([path], random.Random(2), registry, mapping={"ESH4": "ES"}, chunk=1_999)
    assert same(quotes, again)


def test_a_mixed_live_stream_gives_its_quotes_once(tmp_path: Path) -> None:
    rng = random.Random(3)
    records: list[Any] = [trade(rng, 0, 9), named(9, "ESH4"), trade(rng, 1, 9), named(7, "GCZ3")]
    for i in range(2, 400):
        both = book(rng, i, "T")
        records += [both, trade(rng, i, 7), book(rng, i), trade(rng, i, 9)][: rng.randrange(1, 5)]
        if rng.random() < 0.2:
            records.append(named(9, rng.choice(["ESH4", "GCZ3"])))
    path = write(tmp_path / "live.dbn", metadata(None, None), records)
    registry = Instruments([*REGISTRY, REGISTRY.contract("ESH4"), REGISTRY.contract("GCZ3")])
    file = DbnFile(path, registry, {}, Kind())
    blocks = list(file.blocks(0, 10_000))
    name, expected = {7: "GCZ3"}, []
    for record in records:
        if isinstance(record, dbn.SymbolMappingMsg):
            name[record.instrument_id] = record.stype_out_symbol
        elif record.instrument_id in name and not (isinstance(record, dbn.TradeMsg) and record.instrument_id == 7):
            expected.append((name[record.instrument_id], record.ts_event))
    seen = [
        (registry[i].symbol, ts)
        for block in blocks
        for i, ts in zip(block.quotes.instrument.tolist(), block.quotes.ts.tolist(), strict=True)
    ]
    assert seen == expected
    assert [one.reason for block in blocks for _, one in block.refused] == ["unknown_symbol"]
    assert file.skipped[22] > 10
    assert file.skipped[0] == sum(isinstance(r, dbn.TradeMsg) and r.instrument_id == 7 for r in records)
    whole, _ = play([path], None, registry)
    cut, _ = play([path], random.Random(4), registry, chunk=3)
    assert same(whole, cut)


def test_prints_without_price_and_records_without_time_are_refused(tmp_path: Path) -> None:
    rng = random.Random(5)
    records = [trade(rng, 0, price=UNDEF), trade(rng, 1), trade(rng, 2, ts=dbn.UNDEF_TIMESTAMP), trade(rng, 3, 99)]
    path = write(tmp_path / "a.dbn", metadata("trades"), records)
    quotes, refused = play([path], mapping={"ESH4": "ES"})
    assert quotes.ts.tolist() == [T0 + 10**6]
    assert [one.reason for one in refused] == ["bad_number", "bad_ts", "unknown_symbol"]


def test_a_symbol_that_changes_its_id_overnight_is_followed(tmp_path: Path) -> None:
    rng = random.Random(6)
    midnight = 1_700_006_400 * 10**9
    mappings = [mapping("ESH4", (14, 15, "7"), (15, 16, "8")), mapping("GCZ3", (14, 15, "8"), (15, 16, "7"))]
    step = (midnight - T0) // 10**6
    path = write(tmp_path / "a.dbn", metadata("trades", mappings), [trade(rng, 0, 7), trade(rng, step, 7)])
    quotes, _ = play([path], mapping={"ESH4": "ES", "GCZ3": "GC"})
    assert [REGISTRY[i].symbol for i in quotes.instrument.tolist()] == ["ES", "GC"]


@pytest.mark.parametrize("suffix", [".dbn", ".dbn.zst"])
def test_a_truncated_file_is_told(tmp_path: Path, suffix: str) -> None:
    rng = random.Random(7)
    path = write(tmp_path / f"a{suffix}", metadata("trades"), [trade(rng, i) for i in range(50)])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BadRecording, match=r"found the end of the file after 43|middle of its zstd stream"):
        preflight([path], {}, REGISTRY, True, False)


def test_other_schemas_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dbn", metadata("ohlcv-1m"), [])
    with pytest.raises(BadRecording, match=r"expected the schema trades, tbbo, mbp-1, found ohlcv-1m"):
        preflight([path], {}, REGISTRY, True, False)


@pytest.mark.parametrize("name", ["GLBX.MDP3_test_data.trades", "GLBX.MDP3_test_data.mbp-1"])
def test_databentos_samples_are_read_as_databento_reads_them(name: str) -> None:
    path = recording(f"dbn_samples/{name}.dbn.zst")
    quotes, refused = play([path], mapping={"ESH1": "ES"})
    assert refused == []
    assert rows_of(quotes, {5482: 0}) == referee(path)


def test_databentos_live_sample_gives_each_print_once() -> None:
    path = recording("dbn_samples/LIVE_test_data.live.dbn.zst")
    quotes, refused = play([path], mapping={"ESZ4": "ES"})
    assert refused == []
    assert quotes.column("last_size").tolist() == [2, 1]
