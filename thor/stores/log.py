"""The one log: its only writer and its readers (design.md, invariants 2 and 4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import redis

from thor.stores import keys

_SCRIPT = Path(__file__).with_name("append.lua")
_KEYS = (keys.LOG, keys.WRITER, keys.SYMBOLS, keys.REJECTED, keys.POSITIONS)

Pairs = Mapping[str, str | int | bytes]


class Rival(RuntimeError):
    """Another ingester took the log over: this one must stop."""


class LogWentBack(RuntimeError):
    """Redis lost entries that it had acknowledged: begin again from what it holds."""


@dataclass(slots=True)
class Write:
    """Everything that belongs to entry ``n`` and is stored with it or not at all."""

    n: int
    data: bytes
    writer: Pairs
    symbols: Mapping[str, bytes] = field(default_factory=dict)
    latest: Mapping[str, Pairs] = field(default_factory=dict)
    rejected: Sequence[Pairs] = ()

    def arguments(self, epoch: int, generation: int, bound: int) -> list[str | int | bytes]:
        """The flat ARGV of append.lua."""
        args: list[str | int | bytes] = [self.n, epoch, generation, self.data]
        args += _flat(self.writer)
        args += _flat(self.symbols)
        args.append(len(self.latest))
        for symbol, pairs in self.latest.items():
            args.append(keys.LATEST + symbol)
            args += _flat(pairs)
        args += (bound, len(self.rejected))
        for pairs in self.rejected:
            args += _flat(pairs)
        return args


def _flat(pairs: Mapping[str, str | int | bytes] | Mapping[str, bytes]) -> list[str | int | bytes]:
    flat: list[str | int | bytes] = [len(pairs)]
    for pair in pairs.items():
        flat += pair
    return flat


class Writer:
    """The only writer of ``quotes:log``. One at a time: whoever claimed last holds it, the others are refused."""

    def __init__(self, client: redis.Redis, rejected_bound: int = 100_000) -> None:
        self._client = client
        self._script = client.register_script(_SCRIPT.read_text())
        self._bound = rejected_bound
        self.epoch = 0
        self.generation = 0
        #: Number of the last entry that the slowest projection has committed; -1 where none has told.
        self.slowest = -1

    def claim(self, epoch: int, generation: int, owner: str) -> dict[bytes, bytes]:
        """Take the log over and return the state stored with its last entry (empty for a new log).

        ``generation`` names the log if it is new.
        """
        pipe = self._client.pipeline(transaction=True)
        pipe.hsetnx(keys.WRITER, "generation", generation)
        pipe.hset(keys.WRITER, mapping={"epoch": epoch, "owner": owner})
        pipe.hgetall(keys.WRITER)
        state = cast("dict[bytes, bytes]", pipe.execute()[-1])
        self.epoch, self.generation = epoch, int(state[b"generation"])
        return state

    def words(self, write: Write) -> list[str | int | bytes]:
        """The flat form in which an entry is stored or spooled."""
        return write.arguments(self.epoch, self.generation, self._bound)

    def symbols(self) -> dict[bytes, bytes]:
        """The packed state of every symbol, as stored with its last entry."""
        return cast("dict[bytes, bytes]", self._client.hgetall(keys.SYMBOLS))

    def append(self, words: Sequence[str | int | bytes]) -> None:
        """Store one entry, as ``words`` gives it. Safe to repeat after a lost answer; raises Rival or LogWentBack."""
        args = [words[0], self.epoch, *words[2:]]  # what a spool kept was begun under an epoch that is past
        verdict, held, slowest = cast("tuple[bytes, int, int]", self._script(keys=_KEYS, args=args))
        if verdict == b"rival":
            raise Rival(f"another ingester holds {keys.LOG} at entry {held}; this one stops")
        if verdict == b"gap":
            raise LogWentBack(f"{keys.LOG} ends at entry {held}, expected {int(words[0]) - 1}: Redis lost entries")
        self.slowest = max(self.slowest, slowest)

    def look(self) -> None:
        """Ask again how far the slowest projection is."""
        self.slowest = max(self.slowest, min(positions(self._client).values(), default=-1))

    def knows(self, feed: str) -> bool:
        """Whether a cursor of this feed is stored."""
        return bool(self._client.hexists(keys.WRITER, f"cursor:{feed}"))

    def expect(self, projections: Iterable[str]) -> None:
        """Name the projections that need the log, so that nothing is trimmed before they have told a position."""
        for name in projections:
            self._client.hsetnx(keys.POSITIONS, name, "0")

    def trim(self, below: int) -> int:
        """Drop entries before number ``below``; how many went. The caller keeps to the slowest position."""
        return int(self._client.xtrim(keys.LOG, minid=f"{below}-0", approximate=True))


def rival(client: redis.Redis, owner: str, now: int) -> str:
    """Who else has written the log within the last three seconds of ``now`` (ns), empty for nobody."""
    held = writer_state(client)
    age_s = (now - int(held.get("at", 0))) / 1e9
    return f"{held['owner']}, {age_s:.1f} s ago" if held.get("owner", owner) != owner and age_s < 3 else ""


class Reader:
    """Reads the log in order after a number, without consumer groups."""

    def __init__(self, client: redis.Redis, after: int) -> None:
        self._client = client
        self.after = after

    def read(self, block_ms: int, count: int) -> list[tuple[int, bytes]]:
        """Up to ``count`` entries as (n, bytes), waiting at most ``block_ms`` for the first (0: not at all)."""
        answer = self._client.xread(
            {keys.LOG: f"{self.after}-0"}, count=count, block=block_ms if block_ms > 0 else None
        )
        if not answer:
            return []
        entries = cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", answer)[0][1]
        found = [(number_of(entry), fields[b"b"]) for entry, fields in entries]
        self.after = found[-1][0]
        return found


def number_of(entry_id: bytes) -> int:
    """The number of an entry from its stream ID ``n-0``."""
    return int(entry_id.split(b"-", 1)[0])


def newest(client: redis.Redis, count: int) -> list[tuple[int, bytes]]:
    """The newest ``count`` entries, oldest first."""
    answer = cast("Iterable[tuple[bytes, dict[bytes, bytes]]]", client.xrevrange(keys.LOG, count=count))
    return [(number_of(entry), fields[b"b"]) for entry, fields in answer][::-1]


def writer_state(client: redis.Redis) -> dict[str, str]:
    """The ingester's own state as text: generation, n, seq, watermark, ended, cursors, counts."""
    state = cast("dict[bytes, bytes]", client.hgetall(keys.WRITER))
    return {key.decode(): value.decode(errors="replace") for key, value in state.items()}


def positions(client: redis.Redis) -> dict[str, int]:
    """Projection → number of the last entry it has committed, as told after the commit."""
    told = cast("dict[bytes, bytes]", client.hgetall(keys.POSITIONS))
    return {name.decode(): int(n) for name, n in told.items()}


def tell_position(client: redis.Redis, name: str, n: int) -> None:
    """Tell how far a projection has committed; lag and trimming go by it."""
    client.hset(keys.POSITIONS, name, str(n))
