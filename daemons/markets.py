"""markets: reads the calendars and the log's watermark; writes the hours to Postgres, the world's status to Redis."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from time import monotonic, time_ns

import psycopg

from thor.domain.calendars import Timeline
from thor.domain.drift import Alarm, Drift, Drifting, seen
from thor.domain.markets import World, tell
from thor.domain.prices import NANO
from thor.feeds.market import SOURCE as SIMULATOR
from thor.runtime import almanac, instruments, markets
from thor.runtime.daemon import Context, Step, main
from thor.runtime.markets import Config as Config
from thor.runtime.metrics import Counter, Gauge
from thor.stores import db, latest
from thor.stores import markets as store
from thor.stores.redis import RedisDown, connect

log = logging.getLogger(__name__)

_POSTGRES_DOWN = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.UndefinedTable)
#: How often the table is looked at, and how long a failed build is left alone.
_LOOK_S, _RETRY_S = 60, 30
_BUILD_S = 120
_TICK_S = 0.5
_PUBLISH_S = 0.95
#: Sessions in memory: so many days around the watermark, read anew when it has gone this far.
_HELD, _GONE = timedelta(days=60), 20 * 86_400 * NANO
_WARN_DAYS = 45

_OPEN = Gauge("thor_market_open", "1 while the market trades", ["market"])
_DRIFT = Gauge("thor_calendar_drift", "1 while calendar and market disagree", ["kind", "calendar"])
_ALARMS = Counter("thor_calendar_alarms_total", "Times at which calendar and market began to disagree", ["kind"])
_CONFIRMED = Gauge("thor_calendar_confirmed_seconds", "Until when the calendar is confirmed, Unix time", ["calendar"])


class Markets:
    """The world clock (domain.md §8). Its own work is small: the libraries live in a process of a few seconds."""

    name = "markets"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._clockwork = markets.load()
        self._redis = connect(context.settings.redis_url)
        self._conn: db.Connection | None = None
        self._child: subprocess.Popen[str] | None = None
        self._began = self._look_at = self._published_at = 0.0
        self._wanted: set[int] = set()
        self._timelines: Mapping[str, Timeline] = {}
        self._middle = 0
        self._warned: set[tuple[str, date]] = set()
        self._statuses: object = None
        self._alarms: set[tuple[Drifting, str]] = set()

    def open(self) -> None:
        """Nothing to recover: the first step looks whether the table is there."""
        registry = list(instruments.load(instruments.files(self._context.settings)))
        calendars = {one.symbol: calendar for one in registry if (calendar := self._clockwork.calendar_of(one))}
        drift = self._clockwork.config.drift
        self._symbols = list(calendars)
        self._drift = Drift(calendars, drift.grace_s * NANO, drift.silence_s * NANO)

    def step(self) -> Step:
        """Keep the table whole, then tell what it says of the watermark."""
        self._context.stopping.wait(_TICK_S if self._timelines else 0.05)
        try:
            if self._conn is None:
                self._conn = db.connect(self._context.settings.dsn, self.name)
                store.seed(self._conn, self._clockwork.markets)
                self._look_at = 0.0
            found = latest.read(self._redis, self._symbols)
            instants = [time_ns(), *([] if found.watermark is None else [found.watermark])]
            why = self._keep(self._conn, self._clockwork.years(*instants))
            return self._tell(self._conn, found, instants[-1], why)
        except RedisDown as error:
            return self._waiting(f"Redis: {type(error).__name__}")
        except _POSTGRES_DOWN as error:
            self.close()
            return self._waiting(f"Postgres: {' '.join(str(error).split())[:200]}")

    def close(self) -> None:
        """A build that runs dies with us; its transaction leaves nothing."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _waiting(self, why: str) -> Step:
        self._context.stopping.wait(0.3)
        return Step("waiting", why=why)

    def _keep(self, conn: db.Connection, years: set[int]) -> str:
        """Have missing years made; why the table is not whole, or nothing."""
        if self._child is not None:
            if self._child.poll() is None and monotonic() - self._began < _BUILD_S:
                return "the hours are being made"
            self._end(self._child)
            self._child = None
        elif monotonic() < self._look_at and years <= self._wanted:
            return ""
        config = self._clockwork.config
        names, digest = list(self._clockwork.calendars), self._clockwork.digest
        missing = store.missing(conn, names, years, digest, config.refresh_hours * 3600)
        self._wanted, self._look_at = years, monotonic() + _LOOK_S
        if not missing:
            return ""
        if monotonic() < self._began + _RETRY_S and self._began and self._failed:
            self._look_at = 0.0
            return "the hours could not be made"
        self._child, self._began = almanac.start(missing), monotonic()
        return "the hours are being made"

    def _end(self, child: subprocess.Popen[str]) -> None:
        child.kill()
        said = child.communicate()[1]
        self._failed = child.returncode != 0
        if self._failed:
            log.error("the hours could not be made: %s", almanac.last_line(said))
            return
        self._timelines = {}
        log.info("the hours are made, %.1f s", monotonic() - self._began)

    _failed = False

    def _tell(self, conn: db.Connection, found: latest.Latest, at: int, why: str) -> Step:
        try:
            if not self._timelines or abs(at - self._middle) > _GONE:
                self._timelines, self._middle = store.around(conn, at, margin=_HELD), at
                self._warn(store.confirmed_until(conn), at)
        except store.NotCovered as error:
            return Step("waiting", why=why or str(error))
        if found.watermark is None:
            return Step("idle", why="no entry in the log yet")
        world = World.of(self._clockwork.markets, self._timelines, at)
        alarms = self._drift.look(self._timelines, at, seen(found.quotes, SIMULATOR))
        self._alarm(alarms)
        statuses = {code: moment.status for code, moment in world.moments.items()}
        if statuses != self._statuses or monotonic() > self._published_at + _PUBLISH_S:
            store.publish(self._redis, self._document(world, alarms))
            self._statuses, self._published_at = statuses, monotonic()
            for code, moment in world.moments.items():
                _OPEN.labels(code).set(moment.is_open)
        return Step("running", source_ts=at)

    def _document(self, world: World, alarms: list[Alarm]) -> dict[str, object]:
        futures = self._clockwork.of_futures
        zones = {name: self._clockwork.calendars[name].zone for name in futures}
        return {
            **world.told(),
            "markets": [world.tell(market) for market in world.markets],
            "futures": {name: tell(self._timelines[name].at(world.at), zones[name]) for name in futures},
            "alarms": [alarm.text for alarm in alarms],
        }

    def _alarm(self, alarms: list[Alarm]) -> None:
        now = {alarm.key for alarm in alarms}
        for alarm in alarms:
            if alarm.key not in self._alarms:
                log.warning("%s", alarm.text)
                _ALARMS.labels(alarm.kind).inc()
        for kind, calendar in now | self._alarms:
            _DRIFT.labels(kind, calendar).set((kind, calendar) in now)
        self._alarms = now

    def _warn(self, confirmed: Mapping[str, date | None], at: int) -> None:
        today = datetime.fromtimestamp(at // NANO, UTC).date()
        for name, until in confirmed.items():
            if until is None:
                continue
            _CONFIRMED.labels(name).set(datetime.combine(until, time(), UTC).timestamp())
            if (until - today).days < _WARN_DAYS and (name, until) not in self._warned:
                self._warned.add((name, until))
                log.warning("%s is confirmed until %s: past it the weekday rule holds, without holidays", name, until)


if __name__ == "__main__":
    main(Markets, Markets.name, Config)
