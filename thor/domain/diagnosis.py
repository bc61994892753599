"""What an operator's check list comes to (domain.md §16): findings in, one line a question out. Pure.

A line is red where somebody must act, yellow where a thing is not known or only worth a word, else green. What follows
from a red line is not judged: so one fault turns one line red, the one that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from thor.domain.findings import Elsewhere, Findings, Position, PostgresLook, RedisLook
from thor.domain.instruments import Instrument
from thor.domain.stamps import rfc3339

Verdict = Literal["green", "yellow", "red"]

#: Limits, in seconds unless the name says otherwise.
LOG_GROWS: Final = 10.0  # the ingester writes an entry each second
FRESH: Final = 60.0
BEHIND: Final = 60.0
STUCK: Final = 10.0
CLOCK: Final = 1.0
SOON_DAYS: Final = 30
FREE_BYTES: Final = 1 << 30
FREE_SHARE: Final = 0.05
MEMORY_BYTES: Final = 256 << 20
MEMORY_SHARE: Final = 0.05
REDIS_SHARE: Final = 0.90

#: Passwords that stand in examples and manuals.
EXAMPLES: Final = frozenset(
    ("admin", "change-me", "changeme", "default", "example", "password", "postgres", "redis", "root", "secret", "thor")
)


@dataclass(frozen=True, slots=True)
class Line:
    """One question answered: what was found, and for anything but green what to do."""

    name: str
    verdict: Verdict
    evidence: str
    advice: str = ""


def judge(found: Findings, *, pre_open: bool = False) -> list[Line]:
    """Every line, causes before what follows from them."""
    lines: dict[str, Line] = {}
    bad = {process.name for process in found.processes if process.frozen or process.state in _BAD}

    def put(name: str, causes: Collection[str], look: Callable[[], Line], processes: Collection[str] = ()) -> None:
        red = [cause for cause in causes if lines[cause].verdict == "red"]
        if not red and bad.intersection(processes):
            red = ["processes"]
        lines[name] = look() if not red else Line(name, "yellow", f"not judged: {red[0]} is red", f"see {red[0]}")

    put("redis", (), lambda: _server("redis", found.redis))
    put("postgres", (), lambda: _server("postgres", found.postgres))
    put("processes", (), lambda: _processes(found, lines))
    put("role", (), lambda: _role(found))
    put("producer", ("redis",), lambda: _producer(found.elsewhere))
    put("quotes", ("redis", "producer"), lambda: _quotes(found), ("ingester",))
    projections = ("intraday", "vwap")
    put("lag", ("redis", "postgres"), lambda: _lag(found), projections)
    put("bars", ("redis", "postgres", "lag"), lambda: _bars(found), ("intraday",))
    put("agreement", ("redis", "postgres"), lambda: _agreement(found), ("httpd",))
    put("disk", (), lambda: _disk(found.free))
    put("memory", (), lambda: _memory(found))
    put("clock", (), lambda: _clock(found.offsets))
    put("calendar", ("postgres",), lambda: _calendar(found))
    put("secrets", (), lambda: _secrets(found))
    if pre_open:
        put("fresh", ("redis", "quotes"), lambda: _fresh(found), ("ingester",))
        put("contracts", (), lambda: _contracts(found.instruments))
        put("targets", (), lambda: Line("targets", "yellow", "not known: no grading runs, so no target is set"))
    return list(lines.values())


def verdict(lines: Sequence[Line]) -> Verdict:
    """Red where one line is, else green: yellow calls nobody."""
    return "red" if any(line.verdict == "red" for line in lines) else "green"


_BAD: Final = frozenset({"stopped", "failing", "stalled"})


def _server(name: str, look: object) -> Line:
    if isinstance(look, str):
        return Line(name, "red", f"does not answer: {look}", "start it, or correct its address in the environment")
    return Line(name, "green", "answers")


def _processes(found: Findings, lines: Mapping[str, Line]) -> Line:
    server_away = any(lines[name].verdict == "red" for name in ("redis", "postgres"))
    wrong, odd, well = [], [], []
    for one in found.processes:
        said = f"{one.name} {'frozen by a signal' if one.frozen else one.state}{f' ({one.why})' if one.why else ''}"
        if one.frozen or one.state in _BAD or (one.state == "waiting" and not server_away):
            wrong.append(said)
        elif one.state in ("starting", "waiting", "draining", "paused"):
            odd.append(said)
        else:
            well.append(said)
    if wrong:
        return Line("processes", "red", ", ".join(wrong), "thor logs NAME; thor events; thor up starts what is stopped")
    if odd:
        return Line("processes", "yellow", ", ".join(odd), "look again in a minute")
    return Line("processes", "green", ", ".join(well))


def _role(found: Findings) -> Line:
    extra = [one.name for one in found.processes if one.name not in found.expected and one.pid is not None]
    said = {"all": "everything", "web": "the API alone", "worker": "everything but the API"}[found.role]
    if extra:
        evidence = f"this container is to run {said}, found also {', '.join(extra)}"
        return Line("role", "red", evidence, "stop them, or correct THOR_STACK_AUTO_START")
    return Line("role", "green", f"{said}, as THOR_STACK_AUTO_START says")


def _producer(elsewhere: Sequence[Elsewhere]) -> Line:
    live = [one for one in elsewhere if one.entry_age_s is not None and one.entry_age_s < FRESH]
    lost = [one for one in live if one.ingester_age_s is None or one.ingester_age_s > LOG_GROWS]
    if lost:
        evidence = ", ".join(f"{one.where}: its quotes:in got an entry {one.entry_age_s:.0f} s ago" for one in lost)
        return Line("producer", "red", f"{evidence}; nobody reads it", "point the producer at the REDIS_URL of Thor")
    if live:
        return Line("producer", "green", f"{', '.join(one.where for one in live)}: another stack with its own ingester")
    return Line("producer", "green", "no other Redis in reach gets quotes")


def _quotes(found: Findings) -> Line:
    before, now = _redis(found)
    stopped = "thor status, thor logs ingester; is the worker up?"
    if not now.n:
        return Line("quotes", "red", "no entry was ever written to quotes:log", stopped)
    if now.recorded and now.ended:
        return Line("quotes", "green", f"the recording ended at entry {now.n:,}")
    silent_s = (now.now - int(now.writer.get("at", 0))) / 1e9
    if silent_s > LOG_GROWS:
        return Line("quotes", "red", f"the log has not grown for {silent_s:.0f} s", stopped)
    came = _count(now, "accepted") - _count(before, "accepted")
    refused = _count(now, "rejected") - _count(before, "rejected")
    flow = f"{came} accepted and {refused} refused between two looks"
    if now.recorded:
        return Line("quotes", "green", f"a recording plays: {flow}")
    trading = _trading(found, now.now)
    if not trading:
        return Line("quotes", "green", f"no future trades now; {flow}")
    fresh = [symbol for symbol in trading if now.now - now.latest.get(symbol, 0) < FRESH * 1e9]
    evidence = f"{len(fresh)} of {len(trading)} futures that trade now have a quote within {FRESH:.0f} s; {flow}"
    if fresh:
        return Line("quotes", "green", evidence)
    advice = "is the producer up? thor logs ingester; what it refuses stands in quotes:rejected"
    return Line("quotes", "red", evidence, advice)


def _lag(found: Findings) -> Line:
    _, now = _redis(found)
    before, after = _postgres(found)
    wrong, well = [], []
    for name in ("intraday", "vwap"):
        position = after.positions.get(name)
        if position is None:
            wrong.append(f"{name} never ran")
            continue
        problem = _behind(name, before.positions.get(name, position), position, now)
        distance = "" if now.first is None else f", {max(0, position.n + 1 - now.first):,} before the trim point"
        missed = f", {position.missed:,} missed ever" if position.missed else ""
        well.append(f"{name} {max(0, now.n - position.n):,} entries behind{distance}{missed}")
        if problem:
            wrong.append(problem)
    if wrong:
        return Line("lag", "red", "; ".join(wrong), "thor logs NAME; thor events; is Postgres slow or its disk full?")
    noted = any(position.missed for position in after.positions.values())
    advice = "missed entries are lost for the tables: rebuild them from the producer's own records" if noted else ""
    return Line("lag", "yellow" if noted else "green", "; ".join(well), advice)


def _behind(name: str, before: Position, position: Position, now: RedisLook) -> str:
    """What is wrong with a projection's place in the log; nothing is the empty text."""
    generation = int(now.writer.get("generation", 0))
    stands = position == before
    if position.generation not in (0, generation):
        return f"{name} follows log {position.generation}, Redis holds log {generation}" if stands else ""
    if position.n > now.n:
        return f"{name} has committed entry {position.n:,}, the log ends at {now.n:,}: Redis lost entries"
    if now.first is not None and position.n + 1 < now.first and stands:
        return f"{name} needs entry {position.n + 1:,}, the log begins at {now.first:,}: trimmed past it"
    if position.n >= now.n or position.watermark is None:
        return ""
    behind_s = (int(now.writer.get("watermark", 0)) - position.watermark) / 1e9
    if (stands and behind_s > STUCK) or (behind_s > BEHIND and not now.recorded):
        does = "stands" if stands else "moves"
        return f"{name} is {now.n - position.n:,} entries ({behind_s:.0f} s) behind and {does}"
    return ""


def _bars(found: Findings) -> Line:
    _, now = _redis(found)
    _, held = _postgres(found)
    if not found.prints and now.recorded:
        return Line("bars", "green", "no print among the newest entries of the recording")
    behind = []
    for symbol, print_ns in found.prints.items():
        bar = held.bars.get(symbol)
        if bar is None or bar.close_ns < print_ns:
            newest = "none" if bar is None else rfc3339(bar.close_ns)
            behind.append(f"{symbol}: newest print {rfc3339(print_ns)}, newest in a bar {newest}")
    if behind:
        return Line("bars", "red", "; ".join(behind[:5]), "thor logs intraday; a print of the log is in no bar")
    quiet = sorted(set(_trading(found, now.now)) - found.prints.keys()) if not now.recorded else []
    evidence = f"{len(found.prints)} futures printed, each print is in its bar"
    return Line("bars", "green", evidence + (f"; quiet: {', '.join(quiet)}" if quiet else ""))


def _agreement(found: Findings) -> Line:
    (first, second), (old, new), api = _redis(found), _postgres(found), found.api
    if api is None:
        return Line("agreement", "yellow", "not known: the API runs in another container", "ask thor doctor there")
    if api.error:
        return Line("agreement", "red", f"the API does not answer as expected: {api.error}", "thor logs httpd")
    wrong = []
    for symbol, ts in first.latest.items():
        said, last = api.quotes.get(symbol), max(ts, second.latest.get(symbol, ts))
        if symbol in {one.symbol for one in found.instruments} and (said is None or not ts <= said <= last):
            wrong.append(f"quote of {symbol}: Redis {rfc3339(ts)}, API {rfc3339(said) if said else 'none'}")
    for symbol, bar in old.bars.items():
        later = new.bars.get(symbol, bar)
        most = later.updates if later.minute == bar.minute else None
        counted = api.updates.get(symbol, bar.updates)
        if counted is None or counted < bar.updates or (most is not None and counted > most):
            wrong.append(f"bar of {symbol} at {rfc3339(bar.minute)}: Postgres {bar.updates} updates, API {counted}")
    if wrong:
        advice = "does httpd have the DB_HOST and REDIS_URL that the other processes have? restart it"
        return Line("agreement", "red", "; ".join(wrong[:4]), advice)
    evidence = f"{len(first.latest)} quotes and {len(api.updates)} bars are the same in the API and its servers"
    return Line("agreement", "green", evidence)


def _disk(free: Mapping[str, tuple[int, int]]) -> Line:
    full = [
        f"{where} has {_size(left)} of {_size(total)}"
        for where, (left, total) in free.items()
        if left < min(FREE_BYTES, FREE_SHARE * total)
    ]
    if full:
        return Line("disk", "red", ", ".join(full) + " free", "free space there, or move THOR_DIR")
    return Line("disk", "green", ", ".join(f"{_size(left)} free in {where}" for where, (left, _) in free.items()))


def _memory(found: Findings) -> Line:
    said, wrong = [], []
    if found.memory is not None:
        available, total = found.memory
        said.append(f"{_size(available)} of {_size(total)} available")
        if available < min(MEMORY_BYTES, MEMORY_SHARE * total):
            wrong.append(said[-1])
    if not isinstance(found.redis, str) and found.redis[1].limit_bytes:
        now = found.redis[1]
        said.append(f"Redis uses {_size(now.used_bytes)} of {_size(now.limit_bytes)}")
        if now.used_bytes > REDIS_SHARE * now.limit_bytes:
            wrong.append(said[-1])
    if wrong:
        return Line("memory", "red", ", ".join(wrong), "thor status; raise maxmemory, or stop what else runs here")
    return Line("memory", "green" if said else "yellow", ", ".join(said) or "not known on this system")


def _clock(offsets: Mapping[str, float]) -> Line:
    if not offsets:
        return Line("clock", "yellow", "not judged: no server answers", "see redis, postgres")
    said = ", ".join(f"{name} {offset:+.3f} s" for name, offset in offsets.items())
    if any(abs(offset) > CLOCK for offset in offsets.values()):
        return Line("clock", "red", f"against this clock: {said}", "run a time service (chrony) on every host")
    return Line("clock", "green", f"against this clock: {said}")


def _calendar(found: Findings) -> Line:
    held = _postgres(found)[1]
    if not held.confirmed:
        evidence = "holidays and half days are not known: no calendar was ever written"
        return Line("calendar", "yellow", evidence, "on a holiday a silent market is told as one that should trade")
    ends = sorted((until, name) for name, until in held.confirmed.items() if until is not None)
    past = [name for until, name in ends if until < held.today]
    if past:
        evidence = f"no longer confirmed: {', '.join(past)}; their holidays are guessed by the weekday"
        return Line("calendar", "red", evidence, "a newer library, or their holidays by hand in config/calendars.yaml")
    never = [name for name, until in held.confirmed.items() if until is None]
    if never:
        return Line("calendar", "yellow", f"never confirmed: {', '.join(never)}", "compare with the exchange")
    until, first = ends[0]
    evidence = f"{len(ends)} calendars confirmed, the first ({first}) until {until}"
    if (until - held.today).days < SOON_DAYS:
        return Line("calendar", "yellow", evidence, "a newer library, or config/calendars.yaml, before that day")
    return Line("calendar", "green", evidence)


def _secrets(found: Findings) -> Line:
    weak = [name for name, value in found.secrets.items() if value.casefold() in EXAMPLES]
    weak += [f"{path} may be read by others" for path in found.exposed]
    if weak:
        return Line("secrets", "red", ", ".join(weak), "set passwords of your own, chmod 600")
    return Line("secrets", "green", f"{len(found.secrets)} set, none is an example")


def _fresh(found: Findings) -> Line:
    _, now = _redis(found)
    if now.recorded:
        return Line("fresh", "yellow", "a recording is played: its quotes are never fresh")
    trading = _trading(found, now.now)
    closed = len(found.instruments) - len(trading)
    old = [symbol for symbol in trading if now.now - now.latest.get(symbol, 0) > FRESH * 1e9]
    if old:
        evidence = f"no quote within {FRESH:.0f} s: {', '.join(old)}"
        return Line("fresh", "red", evidence, "is each of them in the producer's list? thor tail SYMBOL")
    return Line("fresh", "green", f"{len(trading)} futures have a fresh quote; {closed} do not trade now")


def _contracts(instruments: Sequence[Instrument]) -> Line:
    months = [f"{one.symbol} of {one.root}" for one in instruments if one.root]
    said = f"registered contracts: {', '.join(months)}" if months else "no symbol names a contract month"
    return Line("contracts", "yellow", f"{said}; which month the feed quotes is not known", "compare with the broker")


def _trading(found: Findings, at: int) -> list[str]:
    return [one.symbol for one in found.instruments if found.trading.is_open(one.symbol, at)]


def _redis(found: Findings) -> tuple[RedisLook, RedisLook]:
    assert not isinstance(found.redis, str)
    return found.redis


def _postgres(found: Findings) -> tuple[PostgresLook, PostgresLook]:
    assert not isinstance(found.postgres, str)
    return found.postgres


def _count(look: RedisLook, name: str) -> int:
    return int(look.writer.get(f"count:{name}", 0))


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"
