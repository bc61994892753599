"""The stream ``quotes:in``, as its only reader sees it."""

from __future__ import annotations

from typing import Any

import redis

from thor.stores.keys import INBOX

Entry = tuple[bytes, list[bytes]]
_BLOCK_MS = 1_000  # a read waits no longer, whatever its timeout


class InboxStream:
    """Reads and trims over the connections of ``client``, which answers bytes and waits for more than a second."""

    def __init__(self, client: redis.Redis) -> None:
        # A client of our own: the library's answer would fold a field sent twice into one.
        self._redis = redis.Redis(connection_pool=client.connection_pool)
        self._redis.set_response_callback("XREAD", lambda answer, **_: answer)

    def read(self, after: str, count: int, timeout_s: float) -> list[Entry]:
        """Up to ``count`` entries behind the ID ``after``, as (ID, flat fields), waiting up to ``timeout_s`` and a
        second at most for the first. An entry deleted meanwhile has no fields. Raises RedisDown."""
        # BLOCK 0 would wait for ever.
        block = min(_BLOCK_MS, int(timeout_s * 1000)) or None
        answer: Any = self._redis.xread({INBOX: after}, count=count, block=block)
        return [(entry[0], entry[1] or []) for entry in answer[0][1]] if answer else []

    def trim(self, first: str) -> None:
        """Drop entries before the ID ``first``; some of them may stay a while. Raises RedisDown."""
        self._redis.xtrim(INBOX, minid=first, approximate=True)
