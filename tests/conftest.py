"""Real servers for the tests: one Postgres and one Redis a session, in a directory and on ports of their own."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from redis.exceptions import RedisError

from thor.runtime.embedded import make_password
from thor.runtime.settings import ROOT, Settings
from thor.stores import schema
from thor.stores.redis import connect

T = TypeVar("T")
TEMPLATE = "thor_template"

# A user's own servers and state are none of the tests' business.
os.environ["THOR_ENV_FILE"] = os.devnull
for variable in [name for name in os.environ if name.startswith(("DB_", "REDIS_", "THOR_", "DATA_", "EXCEL_"))]:
    if variable not in ("THOR_ENV_FILE", "THOR_PG_BINDIR", "THOR_REDIS_SERVER"):
        del os.environ[variable]


_RESERVED: list[socket.socket] = []


def free_port_base() -> int:
    """A THOR_PORT_BASE whose hundred ports are free, below the range that the kernel hands out.

    The last of the hundred stays bound as long as these tests run: no other worker takes ports that are free only
    until a server is started again.
    """
    first = os.getpid() * 7 % 220
    for base in (10_000 + (first + step) % 220 * 100 for step in range(220)):
        token = socket.socket()
        try:
            token.bind(("127.0.0.1", base + 99))
        except OSError:
            token.close()
            continue
        _RESERVED.append(token)
        if all(_is_free(base + offset) for offset in (1, *range(11, 17), 32, 79)):
            return base
    raise RuntimeError("expected a hundred free ports between 10000 and 32000, found none")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def until(look: Callable[[], T], what: str, within_s: float = 30) -> T:
    """Poll until ``look`` answers something true; fails after ``within_s``."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {within_s:g} s")
        time.sleep(0.02)
    return found


@dataclass
class Server:
    """One embedded server, to be stopped, killed and started by a test."""

    name: str
    settings: Settings
    answers: Callable[[], bool]
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Start and wait until it answers."""
        environment = {
            **os.environ,
            "THOR_DIR": str(self.settings.dir),
            "THOR_PORT_BASE": str(self.settings.port_base),
            "SUPERVISOR_ENABLED": "1",  # dies with the tests
        }
        self.settings.log.mkdir(parents=True, exist_ok=True)
        with (self.settings.log / f"{self.name}.log").open("ab") as log:
            command = [sys.executable, "-m", "thor.runtime.embedded", self.name]
            self.process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)

        def ready() -> bool:
            assert self.process
            if self.process.poll() is not None:
                pytest.fail(f"{self.name}: {(self.settings.log / f'{self.name}.log').read_text()[-2000:]}")
            return self.answers()

        until(ready, f"{self.name} answers")

    def stop(self, with_signal: int = signal.SIGINT) -> None:
        """Signal it and wait until it is gone."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(with_signal)
            self.process.wait(30)

    def kill(self) -> None:
        """SIGKILL."""
        self.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def server_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Directory and ports of this session's servers."""
    directory = tmp_path_factory.mktemp("thor")
    environment = {"THOR_DIR": str(directory), "THOR_PORT_BASE": str(free_port_base())}
    return make_password(Settings.from_env(environment), environment)


@pytest.fixture(scope="session")
def postgres(server_settings: Settings) -> Iterator[Server]:
    """A Postgres with the migrated database ``thor_template``."""
    maintenance = server_settings.dsn_of("postgres")

    def answers() -> bool:
        try:
            schema.connect(maintenance).close()
        except schema.Unreachable:
            return False
        return True

    server = Server("postgres", server_settings, answers)
    server.start()
    with schema.connect(maintenance) as conn:
        conn.execute("ALTER SYSTEM SET fsync = off")
        conn.execute("SELECT pg_reload_conf()")
        schema.create_database(conn, TEMPLATE)
    with schema.connect(server_settings.dsn_of(TEMPLATE)) as conn:
        schema.migrate(conn, ROOT / "sql")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis(server_settings: Settings) -> Iterator[Server]:
    """A Redis."""

    def answers() -> bool:
        try:
            return bool(connect(server_settings.redis_url, 0.5).ping())
        except RedisError:
            return False

    server = Server("redis", server_settings, answers)
    server.start()
    yield server
    server.stop(signal.SIGTERM)


_numbers = itertools.count(1)


@pytest.fixture
def dsn(postgres: Server) -> Iterator[str]:
    """A database of this test's own, migrated and empty."""
    name = f"thor_{next(_numbers)}"
    maintenance = postgres.settings.dsn_of("postgres")
    with schema.connect(maintenance) as conn:
        schema.create_database(conn, name, TEMPLATE)
    yield postgres.settings.dsn_of(name)
    with schema.connect(maintenance, wait_s=30) as conn:
        conn.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def redis_url(redis: Server) -> str:
    """A Redis that this test finds empty."""
    client = connect(redis.settings.redis_url)
    client.flushall()
    client.close()
    return redis.settings.redis_url


@pytest.fixture
def thor_dir(tmp_path: Path) -> Path:
    """A THOR_DIR of this test's own."""
    return tmp_path / "var"
