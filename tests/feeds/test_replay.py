"""Recordings: what the preflight says, and that every row is handed over once, in order, from any restart."""

from __future__ import annotations

import csv
import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.columns import recording
from tests.feeds.playing import play, same
from tests.feeds.registry import REGISTRY
from thor.domain.instruments import Instruments
from thor.domain.prices import NA, NANO
from thor.domain.quotes import POLLED, SNAPSHOT
from thor.domain.stamps import parse_stamp
from thor.feeds import Arrival
from thor.feeds.replay import BadRecording, Recording, Replay, preflight

T0 = 1_700_000_000
HEADER = "ts,symbol,last,last_size,bid,ask\n"


def row(second: float, last: float = 100, symbol: str = "ES") -> str:
    return f"{T0 + second:.3f},{symbol},{last},1,,\n"


def write(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def look(*files: Path, mapping: dict[str, str] | None = None, add: bool = False) -> Recording:
    return preflight(files, mapping or {}, REGISTRY, add, False)


class Wall:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.s = 1_000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.s

    def sleep(self, s: float) -> None:
        self.slept.append(s)
        self.s += s


def test_the_preflight_tells_what_is_in_a_recording(tmp_path: Path) -> None:
    one = write(tmp_path / "a.csv", HEADER + row(5) + row(0, symbol="GCZ3") + "x,ES,1,1,,\n")
    two = write(tmp_path / "b.csv.gz", HEADER + row(9, symbol="esh4"))
    found = look(one, two, mapping={"ESH4": "ES"}, add=True)
    assert (found.rows, found.symbols) == (3, ("ES", "GCZ3", "esh4"))
    assert (found.first_ts, found.last_ts) == (T0 * NANO, (T0 + 9) * NANO)
    assert [(i.symbol, i.root) for i in found.added] == [("GCZ3", "GC")]
    assert found.identity != look(one, mapping={}, add=True).identity


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", r"a.csv:1: expected a line of column names, found nothing"),
        ("a.csv", "ts,symbol,foo,last\n", r"a.csv:1: no such columns: expected some of symbol, ts, .*, found foo"),
        ("a.csv", "symbol,last\n", r"a.csv:1: expected ts and symbol, each column once, found symbol, last"),
        ("a.csv", HEADER, r"a.csv: expected quotes, found none in 0 rows"),
        ("a.csv", HEADER + "x,ES,1,1,,\n", r"a.csv: expected quotes, found none in 1 rows, .* .*a.csv:2: bad_ts"),
        ("a.csv", HEADER + ",ES,1,1,,\n", r"the first at .*a.csv:2: bad_ts: expected a ts in a recording"),
        ("a.csv", HEADER + row(0, symbol="GCZ3"), r"unknown symbols GCZ3: .*--add-instruments.*--map GCZ3=SYMBOL"),
        ("a.dbn", "hello", r"a.dbn: expected a DBN file, found b'hello'"),
    ],
)  # fmt: skip
def test_what_cannot_be_played_is_said_in_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(BadRecording, match=message) as error:
        look(write(tmp_path / name, text))
    assert "\n" not in str(error.value)


def test_a_missing_file_and_wrong_mappings_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", HEADER + row(0))
    with pytest.raises(BadRecording, match=r"b.csv: no such file"):
        look(file, tmp_path / "b.csv")
    with pytest.raises(BadRecording, match=r"--map ES=QQ: expected a known symbol, found 'QQ'"):
        look(file, mapping={"ES": "QQ"})
    with pytest.raises(BadRecording, match=r"--map ESH4: expected one of ES, which the recording holds"):
        look(file, mapping={"ESH4": "ES"})
    with pytest.raises(BadRecording, match=r"unknown symbols FOO: no contracts of a known root"):
        look(write(tmp_path / "c.csv", HEADER + row(0, symbol="FOO")), add=True)


def test_a_truncated_gzip_is_told_with_its_line(tmp_path: Path) -> None:
    rng = random.Random(1)
    file = write(tmp_path / "a.csv.gz", HEADER + "".join(row(i, rng.randrange(10**6)) for i in range(20_000)))
    file.write_bytes(file.read_bytes()[:-3_000])
    with pytest.raises(BadRecording, match=r"a.csv.gz:1\d{4}: the file ends in the middle of its gzip stream"):
        look(file)
    damaged = bytearray(gzip.compress((HEADER + row(0)).encode()))
    damaged[-6] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(BadRecording, match=r"CRC check failed"):
        look(file)


def test_rows_that_do_not_parse_are_refused_with_their_line_and_the_others_played(tmp_path: Path) -> None:
    text = HEADER + row(0) + "\n" + "1,2\n" + row(1, symbol="ES").replace("100", "1x") + row(2) + ",ES,1,1,,\n"
    quotes, refused = play([write(tmp_path / "a.csv", text)])
    assert quotes.ts.tolist() == [T0 * NANO, (T0 + 2) * NANO]
    assert [(one.reason, one.where.rpartition(":")[2]) for one in refused] == [
        ("bad_row", "4"), ("bad_number", "5"), ("bad_ts", "7"),
    ]  # fmt: skip


def test_quoted_cells_blank_lines_any_column_order_and_line_ends_are_read(tmp_path: Path) -> None:
    text = f'symbol,ts,last\r\nES,{T0},1\r\n\r\n"ES","{T0 + 1}","2"\r\nES,{T0 + 2},3\r\n"E\nS",{T0},4\r\nES,{T0 + 3},5'
    file = write(tmp_path / "a.csv", text)
    quotes, refused = play([file])
    assert (quotes.column("last") // NANO).tolist() == [1, 2, 3, 5]
    assert [one.reason for one in refused] == ["bad_symbol"]
    again, _ = play([file], random.Random(3), chunk=1)
    assert same(quotes, again)


recordings = st.lists(
    st.tuples(st.floats(-6, 6), st.sampled_from(["ES", "GC", "*", "ES"]), st.integers(1, 9)), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(
    files=st.lists(recordings, min_size=1, max_size=3),
    snapshot=st.booleans(),
    seed=st.integers(),
    chunk=st.integers(1, 9),
)
def test_every_row_comes_once_and_in_one_order_whatever_is_killed_when(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[tuple[float, str, int]]],
    snapshot: bool,
    seed: int,
    chunk: int,
) -> None:
    folder = tmp_path_factory.mktemp("replay")
    paths = [
        write(
            folder / f"{n}.csv",
            HEADER + "".join(row(i / 2 + off, last, symbol) for i, (off, symbol, last) in enumerate(rows)),
        )
        for n, rows in enumerate(files)
    ]
    expected, refused = play(paths, snapshot=snapshot)
    found, refused_again = play(paths, random.Random(seed), snapshot=snapshot, chunk=chunk)
    assert same(expected, found)
    assert [one.where for one in refused] == [one.where for one in refused_again]
    in_memory, _ = play(paths, snapshot=snapshot, chunk=chunk, in_memory=True)
    assert same(expected, in_memory)


@given(st.lists(st.floats(-0.95, 0.95), min_size=2, max_size=60))
def test_snapshots_out_of_order_by_two_seconds_come_in_event_order(
    tmp_path_factory: pytest.TempPathFactory, offsets: list[float]
) -> None:
    text = HEADER + "".join(row(i / 10 + offset, i) for i, offset in enumerate(offsets))
    file = write(tmp_path_factory.mktemp("shuffled") / "a.csv", text)
    quotes, _ = play([file], snapshot=True, chunk=7)
    order = sorted(range(len(offsets)), key=lambda i: (parse_stamp(f"{T0 + i / 10 + offsets[i]:.3f}"), i))
    assert (quotes.column("last") // NANO).tolist() == order
    assert set(quotes.flags.tolist()) == {SNAPSHOT | POLLED}
    prints, _ = play([file], chunk=7)
    assert (prints.column("last") // NANO).tolist() == list(range(len(offsets)))


def test_a_cursor_of_another_recording_begins_this_one(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", HEADER + row(0) + row(1))
    one = Replay([file], REGISTRY, identity="one")
    one.open(None)
    first = one.poll(0)
    assert first is not None
    two = Replay([file], REGISTRY, identity="two")
    two.open(first.cursor)
    again = two.poll(0)
    assert again is not None
    assert len(again.quotes) == 2
    assert json.loads(again.cursor)["of"] == "two"


def test_a_paced_replay_follows_the_recordings_clock(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", HEADER + row(0) + row(0) + row(1) + row(10) + row(9) + row(20))
    wall = Wall()
    feed = Replay([file], REGISTRY, speed=2, now_s=wall.now, sleep=wall.sleep)
    feed.open(None)
    seen: list[tuple[float, list[float], float]] = []
    while True:
        arrival = feed.poll(0.4)
        if arrival is None:
            continue
        if arrival.ended:
            break
        assert arrival.clock is not None
        assert arrival.clock <= T0 * NANO + round((wall.s - 1_000) * 2 * NANO)
        at = [ts / NANO - T0 for ts in arrival.quotes.ts.tolist()]
        seen.append((wall.s - 1_000, at, arrival.clock / NANO - T0))
    rows = [(round(s, 3), at) for s, at, _ in seen if at]
    assert rows == [(0, [0, 0]), (0.5, [1]), (5, [10, 9]), (10, [20])]
    clocks = [clock for _, _, clock in seen]
    assert clocks == sorted(clocks)
    assert max(wall.slept) <= 0.4


def test_the_clock_runs_on_between_distant_rows_once_a_second(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", HEADER + row(0) + row(5))
    wall = Wall()
    feed = Replay([file], REGISTRY, speed=1, now_s=wall.now, sleep=wall.sleep)
    feed.open(None)
    arrivals = [a for _ in range(60) if (a := feed.poll(0.1)) is not None]
    assert [len(a.quotes) for a in arrivals if a.clock is not None] == [1, 0, 0, 0, 0, 1]


def test_a_refused_quote_can_be_traced_to_its_line(tmp_path: Path) -> None:
    one = write(tmp_path / "a.csv", HEADER + row(0))
    two = write(tmp_path / "b.csv", HEADER + row(0) + row(1, 101.5))
    feed = Replay([one, two], REGISTRY)
    feed.open(None)
    arrivals: list[Arrival] = [a for _ in range(2) if (a := feed.poll(0)) is not None]
    assert arrivals[1].origin is not None
    where, raw = arrivals[1].origin(1)
    assert where == f"{two}:3"
    assert raw == {"symbol": "ES", "ts": str((T0 + 1) * NANO), "last": "101.5", "last_size": "1"}


@pytest.mark.parametrize("name", ["gc_20131008/trades.csv.gz", "esh4_20231225/quotes_and_trades.csv.gz"])
def test_a_real_recording_is_read_as_the_csv_module_reads_it(name: str) -> None:
    file = recording(name)
    found = preflight([file], {}, REGISTRY, True, False)
    registry = Instruments([*REGISTRY, *found.added])
    quotes, refused = play([file], random.Random(7), registry, chunk=4_000)
    with gzip.open(file, "rt") as stream:
        rows = list(csv.DictReader(stream))
    assert refused == []
    assert [registry[i].symbol for i in quotes.instrument.tolist()] == [row["symbol"] for row in rows]
    assert quotes.ts.tolist() == [parse_stamp(row["ts"]) for row in rows]
    for column in ("last", "last_size", "bid", "ask_size"):
        scale = 1 if "size" in column else NANO
        expected = [round(float(row[column]) * scale) if row[column] else NA for row in rows]
        assert quotes.column(column).tolist() == expected


@pytest.mark.parametrize(("option", "value"), [("speed", 0), ("speed", -1), ("chunk", 0), ("chunk", 10**6)])
def test_nonsense_options_are_refused(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{option}: expected"):
        Replay([], REGISTRY, **{option: value})  # type: ignore[arg-type]
