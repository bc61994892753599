"""Where everything is: state, ports and servers, resolved from the environment (domain.md §16)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

#: The checkout: the code runs from here and finds config/ and sql/ beside it.
ROOT: Final = Path(__file__).resolve().parents[2]

#: Our own processes in the order of the data flow, with their health ports above THOR_PORT_BASE.
PROCESSES: Final = {"ingester": 11, "intraday": 12, "vwap": 13, "httpd": 14, "watchdog": 15, "markets": 16}
#: Those that fold the log into tables.
PROJECTIONS: Final = ("intraday", "vwap")
#: What THOR_STACK_AUTO_START makes of this container: unset everything, 0 the API alone, 1 everything else.
Role = Literal["all", "web", "worker"]
_ROLES: Final[dict[str, Role]] = {"": "all", "0": "web", "1": "worker"}
_WEB: Final = ("httpd",)
PROVIDERS: Final = ("simulator", "replay", "inbox", "excel", "schwab")

_API, _POSTGRES, _REDIS = 1, 32, 79


class BadSetting(ValueError):
    """A variable of the environment that cannot be used; one line: expected, found, which."""


@dataclass(frozen=True)
class Settings:
    """Everything the environment decides. ``dsn`` holds the password: it never reaches a log."""

    dir: Path
    port_base: int
    provider: str
    db_host: str
    db_port: int
    db_name: str
    db_user: str
    db_password: str = field(repr=False)
    redis_url: str = field(repr=False)
    embedded_postgres: bool
    embedded_redis: bool
    role: Role = "all"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Resolve ``env``, or the process's own above the .env beside the checkout. Raises BadSetting."""
        if env is None:
            env = {**dotenv(), **os.environ}
        env = {name: value for name, value in env.items() if value}
        directory = Path(env.get("THOR_DIR", ROOT / "var")).expanduser().resolve()
        base = _number(env, "THOR_PORT_BASE", 8000, 1024, 65_535 - _REDIS)
        provider = env.get("DATA_PROVIDER", "simulator")
        if provider not in PROVIDERS:
            raise BadSetting(f"DATA_PROVIDER: expected one of {', '.join(PROVIDERS)}, found {provider!r}")
        role = env.get("THOR_STACK_AUTO_START", "")
        if role not in _ROLES:
            raise BadSetting(f"THOR_STACK_AUTO_START: expected 0 (the API alone), 1 (all but the API), found {role!r}")
        own_postgres, own_redis = "DB_HOST" not in env, not {"REDIS_URL", "REDIS_HOST"} & env.keys()
        return cls(
            dir=directory,
            port_base=base,
            provider=provider,
            db_host=env.get("DB_HOST", "127.0.0.1"),
            db_port=base + _POSTGRES if own_postgres else _number(env, "DB_PORT", 5432),
            db_name=env.get("DB_NAME", "thor"),
            db_user=env.get("DB_USER", "thor"),
            db_password=(own_postgres and _generated(directory)) or env.get("DB_PASSWORD", ""),
            redis_url=f"redis://127.0.0.1:{base + _REDIS}/0" if own_redis else _redis_url(env),
            embedded_postgres=own_postgres,
            embedded_redis=own_redis,
            role=_ROLES[role],
        )

    @property
    def dsn(self) -> str:
        """The conninfo of psycopg and libpq."""
        return self.dsn_of(self.db_name)

    def dsn_of(self, database: str) -> str:
        """The same server, another database."""
        parts = {
            "host": self.db_host,
            "port": str(self.db_port),
            "dbname": database,
            "user": self.db_user,
            "password": self.db_password,
            "connect_timeout": "5",
        }
        return " ".join(f"{key}={_quoted(value)}" for key, value in parts.items() if value)

    @property
    def api_port(self) -> int:
        return self.port_base + _API

    @property
    def redis_port(self) -> int:
        """The port of the embedded Redis."""
        return self.port_base + _REDIS

    def health_port(self, process: str) -> int:
        """Where a process answers /healthz, /readyz and /metrics."""
        return self.port_base + PROCESSES[process]

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def run(self) -> Path:
        return self.dir / "run"

    @property
    def log(self) -> Path:
        return self.dir / "log"

    @property
    def secrets(self) -> Path:
        return self.dir / "secrets.json"

    @property
    def processes(self) -> tuple[str, ...]:
        """Those of PROCESSES that run here, by the role."""
        return tuple(name for name in PROCESSES if self.role == "all" or (name in _WEB) == (self.role == "web"))

    @property
    def programs(self) -> tuple[str, ...]:
        """What supervisord runs, in the order of the data flow."""
        servers = (("postgres", self.embedded_postgres), ("redis", self.embedded_redis))
        return (*(name for name, embedded in servers if embedded), *self.processes)


def dotenv(path: Path | None = None) -> dict[str, str]:
    """``NAME=value`` lines of .env beside the checkout (THOR_ENV_FILE names another). Raises BadSetting."""
    path = path or Path(os.environ.get("THOR_ENV_FILE", ROOT / ".env"))
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"{path}: cannot be read: {error}") from error
    values = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals or not name.strip().isidentifier():
            raise BadSetting(f"{path}:{number}: expected NAME=value, found {line.strip()[:40]!r}")
        value = value.strip()
        if value[:1] in ("'", '"') and value[-1:] == value[:1] and len(value) > 1:
            value = value[1:-1]
        values[name.strip()] = value
    return values


def _generated(directory: Path) -> str:
    """The password that the embedded database was made with, or nothing before that."""
    path = directory / "secrets.json"
    try:
        return str(json.loads(path.read_text())["db_password"])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadSetting(f"{path}: expected an object with db_password: {type(error).__name__}") from error


def _number(env: Mapping[str, str], name: str, default: int, low: int = 1, high: int = 65_535) -> int:
    text = env.get(name, str(default))
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise BadSetting(f"{name}: expected a whole number from {low} to {high}, found {text!r}")
    return int(text)


def _redis_url(env: Mapping[str, str]) -> str:
    url = env.get("REDIS_URL") or f"redis://{env['REDIS_HOST']}:{_number(env, 'REDIS_PORT', 6379)}/0"
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix") or not (parts.hostname or parts.path):
        raise BadSetting("REDIS_URL: expected redis://host:port/0")  # not what was found: it may hold a password
    return url


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
