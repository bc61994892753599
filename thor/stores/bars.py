"""Bars, books, gaps, days and watches in Postgres: partial rows merged in (domain.md §4, §5, §7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import psycopg

from thor.domain.bars import Days, Folded
from thor.domain.minutes import MINUTE_NS, NOTIONAL_EXP, VOLUME_EXP
from thor.domain.quotes import Ints
from thor.stores import positions
from thor.stores.db import Bigints, Dates, Instants, Numerics
from thor.stores.positions import Move

# Prices come as int8 in nano. Entries are merged in the order of the log, so a tie of event times goes to arrival:
# an open gives way only to an earlier one, a close to any that is not earlier.
_BARS: Final = """
INSERT INTO bars AS b (instrument_id, minute, trade_date, open, high, low, close, volume, notional, updates, revision,
    revised_at, basis, open_ns, close_ns)
SELECT p.id, p.minute, p.trade_date, trim_scale(p.open * 1e-9), trim_scale(p.high * 1e-9), trim_scale(p.low * 1e-9),
    trim_scale(p.close * 1e-9), trim_scale(p.volume), trim_scale(p.notional), p.updates, p.revision, p.revised_at,
    (ARRAY['trade', 'snapshot', 'mixed'])[p.basis + 1], p.open_ns, p.close_ns
FROM moved, unnest(%(b_id)s, %(b_minute)s, %(b_trade_date)s, %(b_open)s, %(b_high)s, %(b_low)s, %(b_close)s,
    %(b_volume)s, %(b_notional)s, %(b_updates)s, %(b_revision)s, %(b_revised_at)s, %(b_basis)s, %(b_open_ns)s,
    %(b_close_ns)s) AS p (id, minute, trade_date, open, high, low, close, volume, notional, updates, revision,
    revised_at, basis, open_ns, close_ns)
ON CONFLICT (instrument_id, minute) DO UPDATE SET
    open = CASE WHEN excluded.open_ns < b.open_ns THEN excluded.open ELSE b.open END,
    open_ns = least(b.open_ns, excluded.open_ns),
    high = greatest(b.high, excluded.high),
    low = least(b.low, excluded.low),
    close = CASE WHEN excluded.close_ns >= b.close_ns THEN excluded.close ELSE b.close END,
    close_ns = greatest(b.close_ns, excluded.close_ns),
    volume = trim_scale(b.volume + excluded.volume),
    notional = trim_scale(b.notional + excluded.notional),
    updates = b.updates + excluded.updates,
    revision = b.revision + excluded.revision,
    revised_at = greatest(b.revised_at, excluded.revised_at),
    basis = CASE WHEN b.basis = excluded.basis THEN b.basis ELSE 'mixed' END
"""

_BOOKS: Final = """
INSERT INTO books AS b (instrument_id, minute, bid, bid_ns, ask, ask_ns)
SELECT p.id, p.minute, trim_scale(p.bid * 1e-9), p.bid_ns, trim_scale(p.ask * 1e-9), p.ask_ns
FROM moved, unnest(%(k_id)s, %(k_minute)s, %(k_bid)s, %(k_bid_ns)s, %(k_ask)s, %(k_ask_ns)s)
    AS p (id, minute, bid, bid_ns, ask, ask_ns)
ON CONFLICT (instrument_id, minute) DO UPDATE SET
    bid = CASE WHEN b.bid_ns > excluded.bid_ns OR excluded.bid_ns IS NULL THEN b.bid ELSE excluded.bid END,
    bid_ns = greatest(b.bid_ns, excluded.bid_ns),
    ask = CASE WHEN b.ask_ns > excluded.ask_ns OR excluded.ask_ns IS NULL THEN b.ask ELSE excluded.ask END,
    ask_ns = greatest(b.ask_ns, excluded.ask_ns)
"""

# Two quotes of one batch can end the same silence.
_GAPS: Final = """
INSERT INTO gaps AS g (instrument_id, starts_ns, ends_ns, cause, volume, trade_date)
SELECT p.id, p.starts, p.ends, CASE max(p.stack_down) WHEN 1 THEN 'stack down' ELSE 'feed silent' END,
    trim_scale(sum(p.volume)), min(p.trade_date)
FROM moved, unnest(%(g_id)s, %(g_starts)s, %(g_ends)s, %(g_stack_down)s, %(g_volume)s, %(g_trade_date)s)
    AS p (id, starts, ends, stack_down, volume, trade_date)
GROUP BY p.id, p.starts, p.ends
ORDER BY p.id, p.starts, p.ends
ON CONFLICT (instrument_id, starts_ns, ends_ns) DO UPDATE SET
    cause = CASE WHEN excluded.cause = 'stack down' THEN excluded.cause ELSE g.cause END,
    volume = trim_scale(g.volume + excluded.volume)
"""

_DAYS: Final = """
INSERT INTO days AS d (instrument_id, trade_date, open, high, low, close, volume, gap_volume, notional, updates,
    revision, revised_at, basis, previous_close, previous_close_ns, baseline, feed_volume, feed_ns, open_ns, close_ns)
SELECT p.id, p.trade_date, trim_scale(p.open * 1e-9), trim_scale(p.high * 1e-9), trim_scale(p.low * 1e-9),
    trim_scale(p.close * 1e-9), trim_scale(p.volume), trim_scale(p.gap_volume), trim_scale(p.notional), p.updates,
    p.revision, p.revised_at, (ARRAY['trade', 'snapshot', 'mixed'])[p.basis + 1],
    trim_scale(p.previous_close * 1e-9), p.previous_close_ns, trim_scale(p.baseline), trim_scale(p.feed_volume),
    p.feed_ns, p.open_ns, p.close_ns
FROM moved, unnest(%(d_id)s, %(d_trade_date)s, %(d_open)s, %(d_high)s, %(d_low)s, %(d_close)s, %(d_volume)s,
    %(d_gap_volume)s, %(d_notional)s, %(d_updates)s, %(d_revision)s, %(d_revised_at)s, %(d_basis)s,
    %(d_previous_close)s, %(d_previous_close_ns)s, %(d_baseline)s, %(d_feed_volume)s, %(d_feed_ns)s, %(d_open_ns)s,
    %(d_close_ns)s) AS p (id, trade_date, open, high, low, close, volume, gap_volume, notional, updates, revision,
    revised_at, basis, previous_close, previous_close_ns, baseline, feed_volume, feed_ns, open_ns, close_ns)
ON CONFLICT (instrument_id, trade_date) DO UPDATE SET
    open = CASE WHEN d.open_ns <= excluded.open_ns OR excluded.open_ns IS NULL THEN d.open ELSE excluded.open END,
    open_ns = least(d.open_ns, excluded.open_ns),
    high = greatest(d.high, excluded.high),
    low = least(d.low, excluded.low),
    close = CASE WHEN d.close_ns > excluded.close_ns OR excluded.close_ns IS NULL THEN d.close ELSE excluded.close END,
    close_ns = greatest(d.close_ns, excluded.close_ns),
    volume = trim_scale(d.volume + excluded.volume),
    gap_volume = trim_scale(d.gap_volume + excluded.gap_volume),
    notional = trim_scale(d.notional + excluded.notional),
    updates = d.updates + excluded.updates,
    revision = d.revision + excluded.revision,
    revised_at = greatest(d.revised_at, excluded.revised_at),
    basis = CASE WHEN d.basis <> excluded.basis THEN 'mixed' ELSE coalesce(d.basis, excluded.basis) END,
    previous_close = CASE WHEN d.previous_close_ns > excluded.previous_close_ns OR excluded.previous_close_ns IS NULL
        THEN d.previous_close ELSE excluded.previous_close END,
    previous_close_ns = greatest(d.previous_close_ns, excluded.previous_close_ns),
    baseline = coalesce(d.baseline, excluded.baseline),
    feed_volume = CASE WHEN d.feed_ns > excluded.feed_ns OR excluded.feed_ns IS NULL
        THEN d.feed_volume ELSE excluded.feed_volume END,
    feed_ns = greatest(d.feed_ns, excluded.feed_ns)
"""

_WATCHES: Final = """
INSERT INTO watches AS w (since_ns, until_ns)
SELECT p.since, p.until FROM moved, unnest(%(w_since)s, %(w_until)s) AS p (since, until)
ON CONFLICT (since_ns) DO UPDATE SET until_ns = greatest(w.until_ns, excluded.until_ns)
"""


def commit(conn: psycopg.Connection[Any], move: Move, folded: Folded | None, watches: Mapping[int, int]) -> bool:
    """Merge partial rows, move the position and stretch the watches (since → until, ns) in one transaction.

    False, with nothing written, where another copy has moved the position. Raises psycopg.Error.
    """
    since = sorted(watches)
    parts: dict[str, dict[str, object]] = {
        _WATCHES: {"w_since": Bigints(_ints(since)), "w_until": Bigints(_ints([watches[start] for start in since]))}
    }
    if folded is not None:
        tables = ((_BARS, _of_bars), (_BOOKS, _of_books), (_GAPS, _of_gaps), (_DAYS, _of_days))
        for query, values in tables:
            if params := values(folded):
                parts[query] = params
    return positions.commit(conn, move, parts)


def _of_bars(folded: Folded) -> dict[str, object]:
    rows = folded.bars
    if not len(rows):
        return {}
    prices = {f"b_{name}": Bigints(getattr(rows, name)) for name in ("open", "high", "low", "close")}
    counts = {
        f"b_{name}": Bigints(getattr(rows, name)) for name in ("updates", "revision", "basis", "open_ns", "close_ns")
    }
    return {
        "b_id": Bigints(rows.instrument),
        "b_minute": Instants(rows.minute * MINUTE_NS),
        "b_trade_date": Dates(rows.trade_date),
        **prices,
        **counts,
        "b_volume": Numerics(rows.volume, VOLUME_EXP),
        "b_notional": Numerics(rows.notional, NOTIONAL_EXP),
        "b_revised_at": Instants(rows.revised_at),
    }


def _of_books(folded: Folded) -> dict[str, object]:
    rows = folded.books
    if not len(rows.minute):
        return {}
    return {
        "k_id": Bigints(rows.instrument),
        "k_minute": Instants(rows.minute * MINUTE_NS),
        "k_bid": Bigints(rows.bid),
        "k_bid_ns": Bigints(rows.bid_ns),
        "k_ask": Bigints(rows.ask),
        "k_ask_ns": Bigints(rows.ask_ns),
    }


def _of_gaps(folded: Folded) -> dict[str, object]:
    rows = folded.gaps
    if not len(rows.starts):
        return {}
    return {
        "g_id": Bigints(rows.instrument),
        "g_starts": Bigints(rows.starts),
        "g_ends": Bigints(rows.ends),
        "g_stack_down": Bigints(rows.stack_down),
        "g_volume": Numerics(rows.volume, VOLUME_EXP),
        "g_trade_date": Dates(rows.trade_date),
    }


_DAY_INTEGERS: Final = (
    "open", "high", "low", "close", "open_ns", "close_ns", "updates", "revision", "basis", "previous_close",
    "previous_close_ns", "feed_ns",
)  # fmt: skip


def _of_days(folded: Folded) -> dict[str, object]:
    rows: Days = folded.days
    if not len(rows.instrument):
        return {}
    volumes = ("volume", "gap_volume", "baseline", "feed_volume")
    return {
        "d_id": Bigints(rows.instrument),
        "d_trade_date": Dates(rows.trade_date),
        **{f"d_{name}": Bigints(getattr(rows, name)) for name in _DAY_INTEGERS},
        **{f"d_{name}": Numerics(getattr(rows, name), VOLUME_EXP) for name in volumes},
        "d_notional": Numerics(rows.notional, NOTIONAL_EXP),
        "d_revised_at": Instants(rows.revised_at),
    }


def _ints(values: list[int]) -> Ints:
    return np.array(values, np.int64)
