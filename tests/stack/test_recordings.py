"""Real recordings through the whole stack give exactly the bars they must give."""

from __future__ import annotations

import csv
import functools
import gzip
import itertools
import random
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.conftest import until
from tests.stack.conftest import Stack

Row = tuple[object, ...]

_BARS = """
    SELECT i.symbol, to_char(b.minute AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS'), b.open, b.high, b.low, b.close,
           b.volume, b.notional, b.updates
    FROM bars b JOIN instruments i ON i.id = b.instrument_id ORDER BY 1, 2"""
_VWAP = """
    SELECT future, to_char(timestamp_minute AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS'), session_volume,
           session_notional
    FROM vwap_minute ORDER BY 1, 2"""
_ROLLING = """
    SELECT i.symbol, to_char(v.minute AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS'),
           sum(w.volume), sum(w.notional)
    FROM vwap_minutes v JOIN instruments i ON i.id = v.instrument_id
    JOIN vwap_minutes w ON w.instrument_id = v.instrument_id
         AND w.minute > v.minute - interval '30 minutes' AND w.minute <= v.minute
    GROUP BY 1, 2 ORDER BY 1, 2"""
_OHLCV = ("open", "high", "low", "close", "volume")


def reference(path: Path, *columns: str) -> list[Row]:
    """Symbol, minute and the columns as Decimals, in order."""
    with path.open() as file:
        rows = [
            (row["symbol"], row["bar_start_utc"][:19], *(Decimal(row[name]) for name in columns))
            for row in csv.DictReader(file)
        ]
    return sorted(rows, key=lambda row: row[:2])


def check_gold(stack: Stack, data: Path) -> None:
    """Every row of the vendor, nothing more, and the sums of the reference."""
    bars = stack.rows(_BARS)
    folder = data / "gc_20131008"
    assert [row[:7] for row in bars] == reference(folder / "vendor_bars_1m.csv", *_OHLCV)
    ours = folder / "reference_bars_1m.csv"
    assert bars == reference(ours, *_OHLCV, "notional", "trades")
    assert stack.rows(_VWAP) == reference(ours, "session_volume", "session_notional")
    assert stack.rows(_ROLLING) == reference(ours, "roll30_volume", "roll30_notional")


def lines(path: Path) -> tuple[str, list[str]]:
    with gzip.open(path, "rt") as file:
        header, *rows = file.read().splitlines()
    return header, rows


def write(path: Path, header: str, rows: Iterable[str]) -> Path:
    with gzip.open(path, "wt", 1) as file:
        file.write("\n".join([header, *rows]) + "\n")
    return path


def shuffled(rows: list[str], seed: int, within_s: float = 2) -> list[str]:
    """Rows displaced by less than ``within_s``; those of one instant keep their order, which decides their close."""
    dice = random.Random(seed)
    moved: dict[str, float] = {}
    keyed = []
    for row in rows:
        ts = row.split(",", 1)[0]
        if ts not in moved:
            hours, minutes, seconds = ts[11:-1].split(":")
            at = int(ts[8:10]) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            moved[ts] = at + dice.uniform(0, within_s)
        keyed.append((moved[ts], row))
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


def test_a_day_of_gold_gives_every_bar_of_the_vendor(stack: Stack, recordings: Path) -> None:
    file = recordings / "gc_20131008" / "trades.csv.gz"
    said = stack.up("--replay", str(file), "--speed", "max", "--add-instruments", "--wait")
    assert "52,314" in said or "52314" in said
    check_gold(stack, recordings)


def test_a_day_of_gold_in_pieces_and_shuffled_gives_the_same_tables(
    stack: Stack, recordings: Path, tmp_path: Path
) -> None:
    header, rows = lines(recordings / "gc_20131008" / "trades.csv.gz")
    dice = random.Random(8)
    mixed = shuffled(rows, 8)
    cuts = [0, *sorted(dice.sample(range(1, len(rows)), 5)), len(rows)]
    pieces = [
        write(tmp_path / f"piece{n}.csv.gz", header, mixed[a:b]) for n, (a, b) in enumerate(itertools.pairwise(cuts))
    ]
    words = [word for piece in pieces for word in ("--replay", str(piece))]
    stack.up(*words, "--speed", "max", "--add-instruments", "--wait")
    check_gold(stack, recordings)
    assert stack.rows("SELECT count(*) FROM bars WHERE revision > 0 AND revised_at IS NOT NULL")[0][0] > 0


def test_an_hour_of_the_sp500_gives_the_bars_of_its_trades(stack: Stack, recordings: Path) -> None:
    folder = recordings / "esh4_20231225"
    stack.up("--replay", str(folder / "quotes_and_trades.csv.gz"), "--speed", "max", "--add-instruments", "--wait")
    ours = folder / "reference_bars_1m.csv"
    assert stack.rows(_BARS) == reference(ours, *_OHLCV, "notional", "trades")
    assert stack.rows(_VWAP) == reference(ours, "session_volume", "session_notional")
    assert stack.rows(_ROLLING) == reference(ours, "roll30_volume", "roll30_notional")


@pytest.mark.parametrize("seed", [0, 5])
def test_an_hour_of_the_sp500_as_a_poller_sees_it_gives_its_own_bars(
    stack: Stack, recordings: Path, tmp_path: Path, seed: int
) -> None:
    folder = recordings / "esh4_20231225"
    file = folder / "snapshots_1hz.csv.gz"
    if seed:
        header, rows = lines(file)
        file = write(tmp_path / "shuffled.csv.gz", header, shuffled(rows, seed))
    stack.up("--replay", str(file), "--speed", "max", "--snapshot", "--map", "ESH4=ES", "--wait")
    want = reference(folder / "reference_bars_1m_from_snapshots.csv", *_OHLCV, "notional", "updates")
    assert stack.rows(_BARS) == [("ES", *row[1:]) for row in want]
    assert stack.rows("SELECT DISTINCT basis FROM bars") == [("snapshot",)]
    day = stack.rows("SELECT feed_volume - baseline - volume - gap_volume FROM days")
    assert {row[0] for row in day} == {0}


def polled(seed: int) -> tuple[list[str], dict[str, int]]:
    """Two symbols polled over the roll at 17:00 in Chicago (23:00 UTC), with silences; and what each traded."""
    dice = random.Random(seed)
    start, roll = datetime(2024, 1, 9, 21, 30, tzinfo=UTC), datetime(2024, 1, 9, 23, tzinfo=UTC)
    counters, traded = {"ES": 1000, "NQ": 70_000}, {"ES": 0, "NQ": 0}
    rows, at, fresh = [], start, False
    while at < datetime(2024, 1, 10, 0, 30, tzinfo=UTC):
        if at >= roll and not fresh:
            fresh, counters = True, {"ES": 0, "NQ": 0}
        for symbol in counters:
            volume = 0 if at.hour == 22 or at == start else dice.choice([0, 0, 3, 11])
            counters[symbol] += volume
            traded[symbol] += volume
            last = 4800 + dice.randint(-8, 8) * 0.25
            rows.append(f"{at.isoformat()},{symbol},{last},{counters[symbol]}")
        # Now and then the poller hangs; 22:00 to 23:00 is the daily break, in which it polls on.
        at += timedelta(seconds=dice.choice([90, 300]) if dice.random() < 0.004 else 1)
    return rows, traded


def test_bars_and_gaps_of_a_polled_feed_hold_its_own_total_over_roll_silences_and_kills(
    stack: Stack, tmp_path: Path
) -> None:
    rows, traded = polled(4)
    file = write(tmp_path / "polled.csv.gz", "ts,symbol,last,volume", rows)
    stack.up("--replay", str(file), "--speed", "500", "--snapshot")
    dice = random.Random(4)
    for _ in range(8):
        time.sleep(dice.uniform(0.3, 1.2))
        stack.kill("ingester")
    stack.finish()
    bars = dict(
        stack.rows("SELECT symbol, sum(volume) FROM bars JOIN instruments i ON i.id = instrument_id GROUP BY 1")
    )
    gaps = dict(
        stack.rows("SELECT symbol, sum(volume) FROM gaps JOIN instruments i ON i.id = instrument_id GROUP BY 1")
    )
    assert {symbol: bars[symbol] + gaps[symbol] for symbol in traded} == traded
    assert all(gaps.values())
    # The counter of the first trade date began before the recording did: it is the baseline.
    assert {row[0] for row in stack.rows("SELECT feed_volume - baseline - volume - gap_volume FROM days")} == {0}


@pytest.mark.slow
def test_a_day_of_gold_with_25_kills_gives_the_same_tables(stack: Stack, recordings: Path) -> None:
    seed = int(time.time())
    print(f"seed {seed}")  # noqa: T201
    dice = random.Random(seed)
    file = recordings / "gc_20131008" / "trades.csv.gz"
    stack.up("--replay", str(file), "--speed", "1200", "--add-instruments", timeout_s=60)
    victims = ["ingester", "intraday", "vwap"] * 7 + ["redis", "redis", "postgres", "httpd"]
    dice.shuffle(victims)
    for victim in victims:
        time.sleep(dice.uniform(0.1, 0.8))
        until(functools.partial(stack.kill, victim), f"{victim} is there to be killed")
    stack.finish(240)
    check_gold(stack, recordings)
    assert stack.rows("SELECT sum(missed) FROM positions") == [(0,)]
