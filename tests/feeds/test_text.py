"""Text in columns against one row after another."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.feeds.registry import REGISTRY
from thor.domain.instruments import canonical, well_formed
from thor.domain.prices import NA, NANO, BadNumber, parse_price, parse_scaled, parse_size
from thor.domain.quotes import FIELDS, POLLED, PRICES, SNAPSHOT
from thor.domain.stamps import BAD, BadStamp, parse_stamp, parse_stamps
from thor.feeds.text import NAMES, Kind, Text, cut

KINDS = {"EXCEL": Kind(snapshot=True, polled=True), "SCHWAB": Kind(snapshot=True)}

SYMBOLS = ["ES", "es", "/GC", " CL ", "ZB", "ZC", "BTC", "ESH4", "", "XX", "eſ", "*", "ES" * 20, "A\nB"]
STAMPS = [
    "2024-03-10T17:00:00Z", "2024-03-10T17:00:00.123456789Z", "2024-03-10T17:00:00.5+01:00", "2024-03-10 17:00:00z",
    "2024-03-10T17:00:00", "1700000000", "1700000000.25", "1700000000123", "", " ", "2023-02-29T00:00:00Z",
    "2024-03-10T24:00:00Z", "2024-03-10T17:00:60Z", "1e9", "nan", "--", "-5", "2024-03-10T17:00:00.1234567891Z",
    "99999999999", "２０２４-03-10T17:00:00Z", "2024-03-10T17:00:00Z\0", "0001-01-01T00:00:00Z", "x" * 2_000,
]  # fmt: skip
NUMBERS = [
    "1318", "4800.25", "-37.63", "116'135", "116'13+", "442'6", "116-31", "0.0001", "0.00005", "1e3", "1e308", "NaN",
    "inf", "-inf", "null", "None", "", "N/A", "--", "loading", "1,000", "0x10", "9223372036.854775807", "-0", "+5.",
    "9" * 30, "1" * 100_000, "٣", "1.0000000001", " 7 ",
]  # fmt: skip
SOURCES = ["", "EXCEL", "excel", "SCHWAB", "MINE", "a b", "x" * 25, "ß"]


def slow(row: dict[str, str]) -> str | dict[str, int]:
    """The reason a row is refused, else its cells."""
    name = {"ESH4": "ES"}.get(canonical(row["symbol"]), row["symbol"])
    if not well_formed(row["symbol"]):
        return "bad_symbol"
    number = REGISTRY.number(name)
    if number is None:
        return "unknown_symbol"
    source = row["source"].strip().upper()
    if source and (not row["source"].isascii() or len(source) > 24 or " " in source):
        return "bad_source"
    instrument = REGISTRY[number]
    try:
        cells = {"symbol": number, "ts": parse_stamp(row["ts"])}
        for field in FIELDS:
            if field in PRICES:
                cells[field] = parse_price(row[field], instrument.notation)
            else:
                cells[field] = parse_size(row[field], instrument.size_step)
        cells["seq"] = parse_scaled(row["seq"], 0)
    except BadStamp:
        return "bad_ts"
    except BadNumber:
        return "bad_number"
    cells["flags"] = {"EXCEL": SNAPSHOT | POLLED, "SCHWAB": SNAPSHOT}.get(source, 0)
    return cells


def pick(rng: random.Random, values: list[str], good: int) -> str:
    """Mostly one of the first ``good``, so that a row has a chance."""
    return rng.choice(values[:good] if rng.random() < 0.97 else values)


def fuzz(rng: random.Random) -> dict[str, str]:
    row = {"symbol": pick(rng, SYMBOLS, 8), "ts": pick(rng, STAMPS, 4), "source": pick(rng, SOURCES, 5), "seq": ""}
    for field in FIELDS:
        row[field] = pick(rng, NUMBERS, 2) if rng.random() < 0.4 else ""
    if rng.random() < 0.1:
        row["seq"] = rng.choice(["7", "8.5", "x"])
    return row


def test_a_hundred_thousand_rows_are_what_each_is_alone() -> None:
    rng = random.Random(20240310)
    text = Text(REGISTRY, KINDS, mapping={"ESH4": "ES"})
    accepted = refused = 0
    for size in [1, 2, 7, 990, *[9_900] * 10]:
        rows = [fuzz(rng) for _ in range(size)]
        columns = {name: [row[name] for row in rows] for name in NAMES}
        parsed = text.quotes(columns, str)
        expected = [slow(row) for row in rows]
        assert parsed.rows.tolist() == [i for i, one in enumerate(expected) if isinstance(one, dict)]
        assert [one.reason for one in parsed.refused] == [one for one in expected if isinstance(one, str)]
        q = parsed.quotes
        cells = [one for one in expected if isinstance(one, dict)]
        assert q.instrument.tolist() == [one["symbol"] for one in cells]
        assert q.ts.tolist() == [one["ts"] for one in cells]
        assert q.flags.tolist() == [one["flags"] for one in cells]
        for name in (*FIELDS, "seq"):
            assert q.column(name).tolist() == [one[name] for one in cells], name
        accepted, refused = accepted + len(cells), refused + len(parsed.refused)
    assert accepted + refused == 100_000
    assert min(accepted, refused) > 20_000


stamps = st.one_of(
    st.text(max_size=40),
    st.from_regex(
        r"(19[67]|20[0-9]|22[56])[0-9]-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{1,10})?"
        r"([Zz]|[+-][0-2][0-9]:[0-6][0-9])?",
        fullmatch=True,
    ),
    st.sampled_from(STAMPS),
)


@given(st.lists(stamps, max_size=12))
@example(["1970-01-01T00:00:00+00:01", "2261-12-31T23:59:59.999999999Z", "2261-12-31T23:59:59-00:01"])
def test_a_column_of_times_is_what_each_is_alone(texts: list[str]) -> None:
    def alone(text: str) -> int:
        try:
            return parse_stamp(text)
        except BadStamp:
            return BAD

    assert parse_stamps(texts).tolist() == [alone(text) for text in texts]


FIRST, LAST = datetime(1970, 1, 2), datetime(2261, 12, 30)  # noqa: DTZ001 - hypothesis adds the zone


@given(st.datetimes(FIRST, LAST, timezones=st.timezones()), st.integers(0, 10**9 - 1))
def test_a_time_with_its_offset_is_the_same_instant(at: datetime, ns: int) -> None:
    at = at.replace(microsecond=0)
    offset = at.utcoffset()
    if offset is None or offset.total_seconds() % 60:
        return  # RFC 3339 has no seconds in an offset
    text = at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{ns:09}" + at.isoformat()[19:]
    expected = int((at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * NANO + ns
    assert parse_stamps([text]).tolist() == [expected]


@given(st.integers(10**11, 9_214_646_399_999))
def test_large_epochs_are_milliseconds(ms: int) -> None:
    assert parse_stamp(str(ms)) == ms * 10**6


@given(st.integers(0, 9_214_646_399), st.integers(0, 10**9 - 1))
def test_small_epochs_are_exact_seconds(seconds: int, ns: int) -> None:
    assert Fraction(parse_stamp(f"{seconds}.{ns:09}"), NANO) == seconds + Fraction(ns, NANO)


def test_a_refused_row_says_where_what_and_why() -> None:
    parsed = Text(REGISTRY).quotes({"symbol": ["ES", "ES"], "last": ["1", "1" * 5_000]}, lambda row: f"file:{row + 2}")
    (one,) = parsed.refused
    assert (one.reason, one.where, one.source) == ("bad_number", "file:3", "INBOX")
    assert one.detail.startswith("last: expected a decimal number, found '1111")
    assert one.raw["last"] == "1" * 1_024 + "… (5000 characters)"


def test_columns_nobody_filled_are_absent() -> None:
    quotes = Text(REGISTRY).quotes({"symbol": ["ES"], "last": ["--"], "bid": [""]}, str).quotes
    assert quotes.columns == {}
    assert quotes.ts.tolist() == [NA]


def test_a_producer_cannot_invent_sources_without_end_nor_crowd_out_configured_ones() -> None:
    text = Text(REGISTRY, KINDS)
    names = [f"S{i}" for i in range(300)]
    parsed = text.quotes({"symbol": ["ES"] * 300, "source": names}, str)
    assert len(parsed.quotes) == 197
    assert {one.reason for one in parsed.refused} == {"bad_source"}
    again = text.quotes({"symbol": ["ES"], "source": ["schwab"]}, str).quotes
    assert again.sources[again.source[0]] == "SCHWAB"
    assert again.flags.tolist() == [SNAPSHOT]


def test_the_memory_of_distinct_texts_is_bounded() -> None:
    text = Text(REGISTRY)
    many = [str(n) for n in range(70_000)]
    for name in ("last", "volume"):
        quotes = text.quotes({"symbol": ["ES"] * len(many), name: many}, str).quotes
        assert np.array_equal(quotes.columns[name], np.arange(70_000) * (NANO if name == "last" else 1))
    assert len(text._decimal) <= 65_536


@pytest.mark.parametrize("fields", [1, 40])
def test_a_kept_entry_is_bounded(fields: int) -> None:
    kept = cut({f"f{i}" * 100: "x" * 10**6 for i in range(fields)})
    assert sum(len(k) + len(v) for k, v in kept.items()) < 33 * 1_200
