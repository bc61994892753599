"""What `thor doctor` looks at; what it means is said in thor/domain/diagnosis.py.

It changes nothing, needs nothing to run, and every wait is bounded: a server that is away is a finding.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import psycopg
import redis

from thor.domain.findings import ApiLook, Elsewhere, Findings, PostgresLook, Process, RedisLook
from thor.domain.instruments import Instruments
from thor.domain.quotes import MOVES, BadEntry, Unknown, decode
from thor.domain.stamps import BadStamp, parse_stamp, rfc3339
from thor.runtime import instruments, markets, status
from thor.runtime.process import holder
from thor.runtime.settings import PROCESSES, Settings, dotenv
from thor.stores import db, observed
from thor.stores.markets import NotCovered
from thor.stores.redis import connect

_BETWEEN_S: Final = 1.0  # the two looks
_SETTLED_NS: Final = 5_000_000_000  # a print accepted so long ago is in its bar, or never will be
_ENTRIES, _BYTES = 2_000, 4 << 20
_API_S: Final = 3.0
#: Where a producer that was told nothing would write.
_DEFAULT_PORTS: Final = (6379, 8079)
_OURS: Final = ("THOR_", "DB_", "REDIS_", "SCHWAB_")
_SECRET_ENDS: Final = ("_PASSWORD", "_SECRET", "_TOKEN", "_APP_KEY")

_Looks = tuple[RedisLook, RedisLook] | str
_Held = tuple[PostgresLook, PostgresLook] | str


def look(settings: Settings) -> Findings:
    """Everything, in about two seconds where all answer. Raises BadConfig."""
    registry = instruments.load(instruments.files(settings))
    clockwork, trading = markets.load(), markets.weekly(registry)
    processes = _processes(settings)
    offsets: dict[str, float] = {}
    elsewhere: list[Elsewhere] = []
    prints: dict[str, int] = {}
    api: ApiLook | None = None
    client = connect(settings.redis_url, 2.0)
    conn: db.Connection | None = None
    queue: _Looks = ""
    tables: _Held = ""
    began = time.monotonic()
    try:
        first = observed.look_at_redis(client, registry.symbols)
        offsets["Redis"] = observed.offset_of_redis(client)
    except (redis.RedisError, OSError) as error:
        queue = _said(error)
    try:
        conn = db.connect(settings.dsn, "doctor")
        held = observed.look_at_postgres(conn)
        offsets["Postgres"] = observed.offset_of_postgres(conn)
        with suppress(NotCovered):
            trading = markets.trading(conn, clockwork, registry, time.time_ns())
    except psycopg.Error as error:
        tables = _said(error)
    if not queue:
        elsewhere = _elsewhere(settings, client)
        prints = _prints(client, registry, first.now - _SETTLED_NS)
    if "httpd" in settings.processes:
        api = _api(settings, {} if tables else {symbol: bar.minute for symbol, bar in held.bars.items()})
    time.sleep(max(0.0, _BETWEEN_S - (time.monotonic() - began)))
    try:
        queue = queue or (first, observed.look_at_redis(client, registry.symbols))
    except (redis.RedisError, OSError) as error:
        queue = _said(error)
    try:
        if conn is not None:
            tables = tables or (held, observed.look_at_postgres(conn))
    except psycopg.Error as error:
        tables = _said(error)
    finally:
        client.close()
        if conn is not None:
            conn.close()
    return Findings(
        instruments=list(registry),
        role=settings.role,
        expected=settings.processes,
        processes=processes,
        redis=queue,
        postgres=tables,
        prints=prints,
        api=api,
        elsewhere=elsewhere,
        free=_free(settings),
        memory=_memory(),
        offsets=offsets,
        secrets=_secrets(settings),
        exposed=[str(path) for path in (settings.secrets,) if path.exists() and path.stat().st_mode & 0o077],
        trading=trading,
    )


def _processes(settings: Settings) -> list[Process]:
    rows = [row for row in status.rows(settings) if row.name in PROCESSES]
    found = [Process(row.name, row.pid, row.state, row.why, _is_frozen(row.pid)) for row in rows]
    for name in PROCESSES.keys() - set(settings.processes):
        pid = holder(settings.run / f"{name}.lock")
        if pid is not None:
            found.append(Process(name, pid, "running"))
    return found


def _is_frozen(pid: int | None) -> bool:
    try:
        return pid is not None and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


def _prints(client: redis.Redis, registry: Instruments, settled: int) -> dict[str, int]:
    """Symbol → event time of its newest print among the newest entries, those accepted after ``settled`` left out."""
    numbers = {symbol: number for number, symbol in enumerate(registry.symbols)}
    found: dict[str, int] = {}
    try:
        for _, data in observed.recent(client, _ENTRIES, _BYTES):
            entry = decode(data, numbers)
            if entry.head.accepted_at > settled:
                continue
            moves = entry.quotes.take((entry.quotes.flags & MOVES) > 0)
            for number, ts in zip(moves.instrument.tolist(), moves.ts.tolist(), strict=True):
                symbol = registry[number].symbol
                found[symbol] = max(ts, found.get(symbol, 0))
    except (redis.RedisError, BadEntry, Unknown):
        pass  # Redis is asked again, and a projection says what it cannot read
    return found


def _api(settings: Settings, minutes: Mapping[str, int]) -> ApiLook:
    connection = http.client.HTTPConnection("127.0.0.1", settings.api_port, timeout=_API_S)

    def ask(path: str) -> dict[str, Any]:
        connection.request("GET", path)
        answer = connection.getresponse()
        body: dict[str, Any] = json.loads(answer.read())
        if answer.status != 200:
            raise ValueError(f"{path.partition('?')[0]} says {answer.status}: {body.get('detail', '')}")
        return body

    try:
        quotes = {q["symbol"]: parse_stamp(q["as_of"]) for q in ask("/api/quotes")["quotes"] if q["as_of"]}
        updates: dict[str, int | None] = {}
        for symbol, minute in minutes.items():
            bars = ask(f"/api/bars?symbol={quote(symbol, safe='')}&from={rfc3339(minute)}&limit=1")["bars"]
            same = bars and parse_stamp(bars[0]["ts"]) == minute
            updates[symbol] = bars[0]["updates"] if same else None
        return ApiLook(quotes, updates)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, BadStamp) as error:
        return ApiLook(error=_said(error))
    finally:
        connection.close()


def _elsewhere(settings: Settings, own: redis.Redis) -> list[Elsewhere]:
    """Other streams quotes:in: in other databases of our server, and where a producer would write by default or by the
    environment."""
    found, seen = [], set()
    urls = [settings.redis_url, *_told(), *(f"redis://127.0.0.1:{port}/0" for port in _DEFAULT_PORTS)]
    for url in dict.fromkeys(urls):
        client = own if url == settings.redis_url else connect(url, 0.5)
        try:
            server = observed.identity(client)
            if server not in seen:
                seen.add(server)
                for database, (entry_age_s, ingester_age_s) in observed.inboxes(client).items():
                    if url != settings.redis_url or database != observed.database_of(own):
                        found.append(Elsewhere(f"{_place(url)}/{database}", entry_age_s, ingester_age_s))
        except (redis.RedisError, OSError, ValueError):
            continue
        finally:
            if client is not own:
                client.close()
    return found


def _told() -> list[str]:
    """The Redis that .env names and that the environment names, also where one hides the other."""
    urls = []
    for names in (dotenv(), os.environ):
        if url := names.get("REDIS_URL"):
            urls.append(url)
        if host := names.get("REDIS_HOST"):
            urls.append(f"redis://{host}:{names.get('REDIS_PORT') or 6379}/0")
    return [url for url in urls if urlsplit(url).scheme in ("redis", "rediss", "unix")]


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path


def _free(settings: Settings) -> dict[str, tuple[int, int]]:
    """Directories on file systems of their own → bytes free and in all."""
    found, seen = {}, set()
    there = next(path for path in (settings.dir, *settings.dir.parents) if path.exists())
    for path in (there, settings.log, settings.run, settings.dir / "spool", settings.dir / "redis"):
        try:
            device = path.stat().st_dev
            usage = shutil.disk_usage(path)
        except OSError:
            continue
        if device not in seen:
            seen.add(device)
            found[str(path)] = (usage.free, usage.total)
    return found


def _memory() -> tuple[int, int] | None:
    """Bytes available and in all: of this container where it has a limit, else of the machine."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    told = {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}
    available, total = told.get("MemAvailable", 0), told.get("MemTotal", 0)
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):
        return available, total
    return (min(available, limit - used), limit) if limit < total else (available, total)


def _secrets(settings: Settings) -> dict[str, str]:
    """Secrets by name; the values are compared, never shown."""
    told = dotenv() | {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
    found = {name: value for name, value in told.items() if name.endswith(_SECRET_ENDS) and value}
    if not settings.embedded_postgres:
        found["DB_PASSWORD"] = settings.db_password
    else:
        found.pop("DB_PASSWORD", None)  # a generated one is used
    if password := urlsplit(settings.redis_url).password:
        found["REDIS_URL"] = password
    return {name: value for name, value in found.items() if value}


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
