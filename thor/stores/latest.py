"""The latest state of each symbol as the ingester left it (domain.md §3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import redis

from thor.domain.prices import NA
from thor.stores import keys


@dataclass(frozen=True, slots=True)
class Latest:
    """``quotes`` holds per symbol the fields of its hash as text, nothing for a symbol without a quote.

    ``watermark`` and ``accepted_at`` (ns UTC, wall clock) are those of the newest entry of the log, None without one.
    ``stale`` holds the sources whose values stand still, each with the instant (ns UTC, text) since which.
    """

    quotes: dict[str, dict[str, str]]
    watermark: int | None
    accepted_at: int | None
    stale: dict[str, str] = field(default_factory=dict)


def read(client: redis.Redis, symbols: Sequence[str]) -> Latest:
    """The latest quotes and the time of the log, of one instant, in one round trip."""
    pipe = client.pipeline(transaction=True)
    pipe.hmget(keys.WRITER, "watermark", "at")
    pipe.hgetall(keys.STALE)
    for symbol in symbols:
        pipe.hgetall(keys.LATEST + symbol)
    (watermark, accepted_at), stale, *hashes = pipe.execute()
    quotes = {symbol: _text(found) for symbol, found in zip(symbols, hashes, strict=True) if found}
    if watermark is None or accepted_at is None or int(watermark) == NA:
        return Latest(quotes, None, None, _text(stale))
    return Latest(quotes, int(watermark), int(accepted_at), _text(stale))


def _text(found: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in found.items()}


def mark_stale(client: redis.Redis, since: Mapping[str, str]) -> None:
    """Say which sources send values that stand still, and since when; all others are not stale."""
    pipe = client.pipeline(transaction=True)
    pipe.delete(keys.STALE)
    for source, at in since.items():
        pipe.hset(keys.STALE, source, at)
    pipe.execute()
