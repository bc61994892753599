"""The rolling VWAP in Redis, for readers who want it without asking Postgres (domain.md §6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import redis

from thor.domain.prices import text_of
from thor.domain.stamps import rfc3339
from thor.domain.vwap import Rolling, price_of
from thor.stores import keys

#: So that a reader can tell stale from live.
EXPIRES_S: Final = 120


class Publisher:
    """Writes ``vwap:rolling:<minutes>`` as JSON: as_of, minutes, values by symbol with exact sums beside the VWAP."""

    def __init__(self, symbols: Mapping[int, str]) -> None:
        self._symbols = symbols
        self._said: dict[tuple[int, int], tuple[tuple[int, int], dict[str, str]]] = {}

    def publish(self, client: redis.Redis, rolling: Rolling, watermark: int) -> None:
        """Every window as of ``watermark`` (ns), which ``rolling`` has reached. Raises redis.RedisError."""
        pipe = client.pipeline(transaction=False)
        for window in rolling.windows:
            values = {
                self._symbols[number]: self._say(window, number, sums) for number, sums in rolling.sums(window).items()
            }
            document = {"as_of": rfc3339(watermark), "minutes": window, "values": values}
            pipe.set(f"{keys.ROLLING}{window}", json.dumps(document, separators=(",", ":")), ex=EXPIRES_S)
        pipe.execute()

    def _say(self, window: int, number: int, sums: tuple[int, int]) -> dict[str, str]:
        # Most symbols say the same as a second ago: only those that traded, or lost a minute, are made anew.
        held = self._said.get((window, number))
        if held is None or held[0] != sums:
            volume, notional = sums
            said = {"vwap": f"{price_of(volume, notional):f}", "volume": text_of(volume), "notional": _text(notional)}
            held = self._said[(window, number)] = (sums, said)
        return held[1]


def _text(notional: int) -> str:
    sign, (whole, fraction) = "-" if notional < 0 else "", divmod(abs(notional), 10**18)
    return f"{sign}{whole}.{fraction:018d}".rstrip("0") if fraction else f"{sign}{whole}"
