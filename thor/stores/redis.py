"""Connections to Redis or Valkey: bytes in, bytes out, no retry behind our back."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

#: What the network and the server can do to a call; the work loops answer it by waiting for Redis.
RedisDown = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, redis.exceptions.BusyLoadingError)


def connect(url: str, timeout_s: float = 3.0) -> redis.Redis:
    """A client for one thread of one process; ``timeout_s`` bounds each answer.

    The library retries by default, and a retried XADD stores two entries; so no retries. XREAD changes shape in
    protocol 3; so protocol 2.
    """
    return redis.Redis.from_url(
        url,
        protocol=2,
        decode_responses=False,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
        health_check_interval=0,
    )
