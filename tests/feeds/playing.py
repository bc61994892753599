"""A recording played to its end, with a process that dies at random."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.feeds.registry import REGISTRY
from thor.domain.instruments import Instruments
from thor.domain.quotes import Quotes, concat
from thor.feeds import Refused
from thor.feeds.replay import Replay


def play(
    files: Iterable[Path],
    rng: random.Random | None = None,
    instruments: Instruments = REGISTRY,
    **options: Any,  # noqa: ANN401
) -> tuple[Quotes, list[Refused]]:
    """Everything handed over, restarting behind a stored cursor at random; what was not stored comes again."""
    parts, refused, cursor = [], [], None
    while True:
        feed = Replay(list(files), instruments, sleep=lambda _: None, **options)
        feed.open(cursor)
        while True:
            arrival = feed.poll(0)
            assert arrival is not None
            if rng is not None and rng.random() < 0.1:
                break  # killed before these were stored
            if len(arrival.quotes):
                parts.append(arrival.quotes)
            refused += arrival.refused
            cursor = arrival.cursor
            if arrival.ended:
                again = Replay(list(files), instruments, sleep=lambda _: None, **options)
                again.open(cursor)
                assert again.poll(0) is None
                feed.close()
                return concat(parts), refused
            if rng is not None and rng.random() < 0.2:
                break
        feed.close()


def same(a: Quotes, b: Quotes) -> bool:
    """Whether both hold the same quotes; a column of NA is no column."""
    pairs = [(a.ts, b.ts), *((a.column(n), b.column(n)) for n in a.columns.keys() | b.columns.keys())]
    return (
        np.array_equal(a.instrument, b.instrument)
        and np.array_equal(a.flags, b.flags)
        and all(np.array_equal(x, y) for x, y in pairs)
    )
