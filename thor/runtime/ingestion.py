"""From feeds to the log: poll, decide, store; spool while Redis is away; keep the log bounded.

Delivery: every accepted quote is in ``quotes:log`` once. The cursor of its feed is stored by the same script as the
entry that holds it, so whatever is killed, a feed goes on exactly behind its last stored quote.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from thor.domain.instruments import Instruments
from thor.domain.intake import Intake
from thor.domain.prices import NA, text_of, text_of_size
from thor.domain.quotes import FIELDS, PRICES, Head, Quotes, empty, encode
from thor.domain.stamps import rfc3339
from thor.domain.validation import REMEMBERED
from thor.feeds import Arrival, Feed, Refused
from thor.runtime.metrics import Figures
from thor.stores import log as thelog
from thor.stores.redis import RedisDown
from thor.stores.spool import Spool, SpoolFull

logger = logging.getLogger(__name__)

_PROBE_S = 0.5
_LOOK_S = 0.1  # how often the feeds beside the last one are looked at
_MEBI = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the ingester; ``config/ingester.yaml`` says what each means."""

    watermark_delay_ns: int
    ahead_bytes: int
    keep_bytes: int
    silence_ns: int


class Ingestion:
    """One writer, its feeds and its state. ``step`` is one round; the daemon repeats it."""

    def __init__(
        self,
        writer: thelog.Writer,
        spool: Spool,
        intake: Intake,
        instruments: Instruments,
        feeds: Sequence[Feed],
        limits: Limits,
    ) -> None:
        self._writer, self._spool, self._intake = writer, spool, intake
        self._instruments, self._symbols = instruments, instruments.symbols
        self._feeds, self._limits = feeds, limits
        self._recorded = any(feed.recorded for feed in feeds)
        self._cursors: dict[str, str | None] = {}
        self.n = 0
        self._seq = 0
        self.counts: Counter[str] = Counter()
        self._last_entry_s = 0.0
        #: An entry that neither Redis nor the spool could take: nothing is polled before it is safe.
        self._held: list[str | int | bytes] | None = None
        self.why = ""
        self._next_probe_s = self._next_look_s = 0.0
        #: (n, bytes) of entries that the slowest projection has not committed, and marks of what is kept behind it.
        self._ahead: deque[tuple[int, int]] = deque()
        self._ahead_bytes = 0
        self._marks: deque[tuple[int, int]] = deque()
        self._written = 0

    @property
    def watermark(self) -> int:
        """Every quote up to this instant (ns) has been seen; NA before the first."""
        return self._intake.watermark

    def recover(self, epoch: int, generation: int, owner: str) -> None:
        """Claim the log, store what the spool still holds, take the state back and open the feeds behind it."""
        state = self._writer.claim(epoch, generation, owner)
        if self._spool:
            self._drain()
            state = self._writer.claim(epoch, generation, owner)
        told = {key.decode(): value for key, value in state.items()}
        self.n, self._seq = int(told.get("n", 0)), int(told.get("seq", 0))
        self.counts.update({k[6:]: int(v) for k, v in told.items() if k.startswith("count:")})
        intake = self._intake
        intake.watermark, intake.watching = int(told.get("watermark", NA)), int(told.get("watching", NA))
        for key in told:
            if key.startswith("seq:"):
                intake.validation.sequences[key[4:]] = deque(json.loads(told[key]), maxlen=REMEMBERED)
        intake.seen.update(json.loads(told.get("seen", b"{}")))
        intake.restore({symbol.decode(): cells for symbol, cells in self._writer.symbols().items()})
        if not self._recorded and self._now() - intake.watermark > self._limits.silence_ns:
            intake.watching = NA  # away for so long that the next quotes begin another watch
        for feed in self._feeds:
            cursor = told.get(f"cursor:{feed.name}")
            self._cursors[feed.name] = None if cursor is None else cursor.decode()
            feed.open(self._cursors[feed.name])
        self._marks.append((self.n + 1, 0))

    def reconnect(self) -> None:
        """Connect the live feeds anew, behind what they brought: the watchdog found them mute."""
        logger.warning("the feeds are connected anew")
        for feed in self._feeds:
            if not feed.recorded:
                feed.close()
                feed.open(self._cursors[feed.name])

    def step(self, timeout_s: float) -> int:
        """One round of at most ``timeout_s`` of waiting; how many quotes were accepted."""
        if not self._safe():
            time.sleep(min(timeout_s, 0.05))
            return 0
        came = 0
        for feed in self._due():
            if self._held is not None:
                break
            # The last feed's wait is the loop's: the others are only looked at.
            arrival = feed.poll(timeout_s if feed is self._feeds[-1] else 0)
            if arrival is not None:
                came += self._take(feed, arrival)
        if self._held is None and time.monotonic() - self._last_entry_s >= 1:
            self._store_watermark()
        return came

    def _due(self) -> Iterator[Feed]:
        """The feeds to poll in this round."""
        now, last = time.monotonic(), self._feeds[-1]
        for feed in self._feeds:
            if feed is not last and now < self._next_look_s:
                continue
            if not feed.waits or self._may_wait_for(feed):
                yield feed
            elif feed is last:
                time.sleep(0.01)
        if now >= self._next_look_s:
            self._next_look_s = now + _LOOK_S

    def _may_wait_for(self, feed: Feed) -> bool:
        """A feed that can wait does so while Redis is away or the projections are too far behind."""
        if self._spool:
            return False
        if self._ahead_bytes <= self._limits.ahead_bytes:
            return True
        self._writer.look()
        self._forget_committed()
        return self._ahead_bytes <= self._limits.ahead_bytes

    def _take(self, feed: Feed, arrival: Arrival) -> int:
        now = self._now()
        if feed.recorded:
            now = NA if arrival.clock is None else arrival.clock
        before = self._intake.watermark
        done = self._intake.accept(arrival.quotes, now, recorded=feed.recorded, broken_since=arrival.broken_since)
        refused = list(arrival.refused)
        for row, reason, detail in done.refused:
            where, raw = arrival.origin(row) if arrival.origin else (feed.name, self._told(arrival.quotes, row))
            refused.append(Refused(reason, detail, where, arrival.quotes.sources[arrival.quotes.source[row]], raw))
        self.counts.update(done.counts)
        self.counts.update({"accepted": len(done.quotes), "rejected": len(refused)})
        self.counts.update(Counter(f"rejected:{one.reason}" for one in refused))
        self._cursors[feed.name] = arrival.cursor
        writer: dict[str, str | int | bytes] = {f"cursor:{feed.name}": arrival.cursor}
        if arrival.ended:
            writer["ended"] = self.n + 1
        if "seq" in arrival.quotes.columns:
            sequences = self._intake.validation.sequences
            writer.update({f"seq:{name}": json.dumps(list(numbers)) for name, numbers in sequences.items()})
        touched = done.touched.tolist()
        self._store(
            done.quotes,
            before,
            writer,
            symbols={self._symbols[i]: self._intake.cells[i].tobytes() for i in touched},
            latest=self._latest(done.quotes, touched),
            rejected=[_told_refused(one) for one in refused],
            ended=arrival.ended,
        )
        if not self._spool and self._held is None:
            feed.committed(arrival.cursor)
        return len(done.quotes)

    def _told(self, quotes: Quotes, row: int) -> dict[str, str]:
        """A refused quote of a feed whose quotes are numbers, as text."""
        instrument = self._instruments[int(quotes.instrument[row])]
        told = {"symbol": instrument.symbol, "ts": str(quotes.ts[row])}
        for name in FIELDS:
            value = int(quotes.column(name)[row])
            if value != NA:
                told[name] = text_of(value) if name in PRICES else text_of_size(value, instrument.step_nano)
        return told

    def _latest(self, quotes: Quotes, touched: list[int]) -> dict[str, dict[str, str | int | bytes]]:
        """What changes in the latest hashes: the fields of this batch as text, source and spread."""
        told = {}
        for i in touched:
            instrument = self._instruments[i]
            step = instrument.step_nano
            fields: dict[str, str | int | bytes] = {"symbol": instrument.symbol}
            values = dict(self._intake.latest(i))
            fields["ts"] = rfc3339(values.pop("ts"))
            for name, value in values.items():
                if name in quotes.columns:
                    fields[name] = text_of(value) if name in PRICES else text_of_size(value, step)
            bid, ask = values.get("bid"), values.get("ask")
            if bid is not None and ask is not None:
                fields["spread"] = text_of(ask - bid) if ask > bid else ""
            told[instrument.symbol] = fields
        if len(quotes.sources) == 1:
            for fields in told.values():
                fields["source"] = quotes.sources[0]
        else:
            for i, source in dict(zip(quotes.instrument.tolist(), quotes.source.tolist(), strict=True)).items():
                told[self._symbols[i]]["source"] = quotes.sources[source]
        return told

    def _store_watermark(self) -> None:
        before = self._intake.watermark
        if not self._recorded:
            self._intake.watermark = max(before, self._now())
        if self._intake.watching == NA:
            self._intake.watching = self._intake.watermark
        self._store(empty(), before, {})

    def _store(
        self,
        quotes: Quotes,
        before: int,
        writer: dict[str, str | int | bytes],
        symbols: Mapping[str, bytes] | None = None,
        latest: Mapping[str, thelog.Pairs] | None = None,
        rejected: Sequence[thelog.Pairs] = (),
        ended: bool = False,
    ) -> None:
        intake = self._intake
        self.n += 1
        head = Head(
            self._writer.generation,
            self._writer.epoch,
            self.n,
            self._seq + 1,
            intake.watermark,
            before,
            intake.watching,
            time.time_ns(),
            ended,
        )
        self._seq += len(quotes)
        data = encode(head, quotes, self._symbols)
        writer.update({"n": self.n, "seq": self._seq, "watermark": intake.watermark, "watching": intake.watching})
        writer.update({"at": head.accepted_at, "seen": json.dumps(intake.seen)})
        writer.update({f"count:{name}": count for name, count in self.counts.items() if count})
        words = self._writer.words(thelog.Write(self.n, data, writer, symbols or {}, latest or {}, rejected))
        self._last_entry_s = time.monotonic()
        self._ahead.append((self.n, len(data)))
        self._ahead_bytes += len(data)
        self._written += len(data)
        try:
            if self._spool:
                self._spool.put(words)
            else:
                self._append(words)
        except SpoolFull as error:
            self._hold(words, error)

    def _append(self, words: list[str | int | bytes]) -> None:
        try:
            self._writer.append(words)
        except RedisDown as error:
            self.why = f"Redis is away ({type(error).__name__}); quotes go to the spool"
            logger.warning("%s", self.why)
            self._next_probe_s = time.monotonic() + _PROBE_S
            self._spool.put(words)
            return
        self._forget_committed()
        self._mark()

    def _hold(self, words: list[str | int | bytes], error: SpoolFull) -> None:
        if self._held is None:
            logger.error("the spool is full, no quote is taken until there is room: %s", error)
        self._held, self.why = words, str(error)

    def _safe(self) -> bool:
        """Whether quotes can be taken: drains what waits when Redis is back, places an entry that is held."""
        if not self._spool and self._held is None:
            return True
        if time.monotonic() >= self._next_probe_s:
            self._next_probe_s = time.monotonic() + _PROBE_S
            try:
                self._drain()
            except RedisDown:
                pass
            else:
                logger.warning("Redis is back: the spool is drained up to entry %d", self.n)
                self.why = ""
                return True
        if self._held is not None:
            try:
                self._spool.put(self._held)
            except SpoolFull:
                return False
            logger.warning("the spool has room again")
            self._held = None
        # Feeds that cannot wait are taken on into the spool.
        return any(not feed.waits for feed in self._feeds)

    def _drain(self) -> None:
        for words in self._spool.waiting():
            if int(words[2]) != self._writer.generation:
                raise thelog.LogWentBack(
                    f"the spool holds entries of log {int(words[2])}, Redis holds log {self._writer.generation}: "
                    "Redis was emptied; move the spool away to go on without them"
                )
            self._writer.append(words)
        if self._held is not None:
            self._writer.append(self._held)
            self._held = None

    def _forget_committed(self) -> None:
        while self._ahead and self._ahead[0][0] <= self._writer.slowest:
            self._ahead_bytes -= self._ahead.popleft()[1]

    def _mark(self) -> None:
        """Trim what is older than ``keep_bytes`` and committed by every projection (design.md, invariant 6)."""
        if self._written - self._marks[-1][1] < _MEBI and self.n - self._marks[-1][0] < 10_000:
            return
        self._marks.append((self.n, self._written))
        below = 0
        while len(self._marks) > 1 and (
            self._written - self._marks[1][1] > self._limits.keep_bytes or len(self._marks) > 1_000
        ):
            if self._marks[1][0] > self._writer.slowest + 1:
                break
            self._marks.popleft()
            below = self._marks[0][0]
        if below:
            try:
                self._writer.trim(below)
            except RedisDown:
                logger.warning("the log was not trimmed below entry %d: Redis is away", below)

    def _now(self) -> int:
        return time.time_ns() - self._limits.watermark_delay_ns

    def figures(self) -> Figures:
        """For /metrics, from its thread: what is held anyway."""
        watermark = None if self.watermark == NA else self.watermark
        quotes = {symbol: ts for i, symbol in enumerate(self._symbols) if (ts := self._newest(i)) != NA}
        return Figures(
            self.counts.copy(), self.n, self._written, self._ahead_bytes, self._spool.size, watermark, quotes
        )

    def _newest(self, number: int) -> int:
        return next(ts for _, ts in self._intake.latest(number))

    def close(self) -> None:
        """Let go of feeds and files; everything accepted is stored or spooled already."""
        for feed in self._feeds:
            feed.close()
        self._spool.close()


def _told_refused(one: Refused) -> dict[str, str | int | bytes]:
    return {
        "reason": one.reason,
        "detail": one.detail,
        "where": one.where,
        "source": one.source,
        "entry": json.dumps(dict(one.raw)),
    }
