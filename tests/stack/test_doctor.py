"""The doctor on a stack of real processes: nothing red while all is well, and one line for each thing that is not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest

from tests.conftest import Server, free_port_base, until
from tests.monitoring import METRIC, queries_of_alerts, queries_of_dashboard
from tests.stack.conftest import Stack, left_behind
from thor.runtime.settings import ROOT
from thor.runtime.status import is_ready

#: The doctor as a user calls it, on a host whose clock is seven seconds slow.
SLOW_CLOCK = """
import sys, time
now, now_ns = time.time, time.time_ns
time.time, time.time_ns = lambda: now() - 7, lambda: now_ns() - 7_000_000_000
sys.argv = ["thor", "doctor", "--json"]
from thor.cli import main
main()
"""


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose futures trade around the clock, so that the day on which the tests run does not matter."""
    folder = tmp_path_factory.mktemp("doctor")
    shutil.copytree(ROOT / "config", folder / "config")
    file = folder / "config" / "instruments.yaml"
    file.write_text(re.sub(r"hours: (CME Globex|CFE|ICE US)", "hours: Always", file.read_text()))
    clock = folder / "config" / "markets.yaml"
    clock.write_text(re.sub(r"symbols: \{CL: .*\}", "symbols: {}", clock.read_text()))
    made = Stack(
        {
            "THOR_DIR": str(folder / "var"),
            "THOR_PORT_BASE": str(free_port_base()),
            "THOR_ENV_FILE": os.devnull,
            "THOR_CONFIG_DIR": str(folder / "config"),
        }
    )
    made.up()
    yield made
    made.thor("down")
    assert left_behind(folder / "var") == []


def lines(stack: Stack, *words: str) -> dict[str, dict[str, Any]]:
    """What the doctor says, by line; its exit code agrees with it."""
    done = stack.thor("doctor", "--json", *words)
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    assert done.returncode == (1 if said["verdict"] == "red" else 0)
    return {line["name"]: line for line in said["lines"]}


def red(stack: Stack) -> dict[str, str]:
    """The red lines and their evidence."""
    return {name: line["evidence"] for name, line in lines(stack).items() if line["verdict"] == "red"}


def test_of_a_healthy_stack_every_line_is_green_but_the_calendar_that_nobody_has_yet(healthy: Stack) -> None:
    until(lambda: "11 of 11" in lines(healthy)["quotes"]["evidence"], "every future has a quote", 120)
    found = lines(healthy)
    assert {name for name, line in found.items() if line["verdict"] != "green"} <= {"calendar"}, found
    assert all(line["advice"] for line in found.values() if line["verdict"] != "green")


def test_before_the_open_every_future_must_have_a_fresh_quote(healthy: Stack) -> None:
    found = lines(healthy, "--pre-open")
    assert {"fresh", "contracts", "targets"} <= found.keys()
    assert found["fresh"]["verdict"] == "green"


def test_who_watches_gets_one_page_after_another(healthy: Stack) -> None:
    command = [sys.executable, "-m", "thor", "doctor", "--watch", "--json"]
    environment = {"PATH": os.environ["PATH"], **healthy.environment}
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        pages = [json.loads(watching.stdout.readline()) for _ in range(2)]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
    assert [line["name"] for line in pages[0]["lines"]] == [line["name"] for line in pages[1]["lines"]]


@contextmanager
def the_ingester_is_stopped(stack: Stack) -> Iterator[None]:
    supervisorctl(stack, "stop", "thor:ingester")
    yield
    supervisorctl(stack, "start", "thor:ingester")


@contextmanager
def intraday_is_frozen(stack: Stack) -> Iterator[None]:
    frozen = stack.pid("intraday")
    os.kill(frozen, signal.SIGSTOP)
    yield
    try:
        os.kill(frozen, signal.SIGCONT)
    except ProcessLookupError:  # somebody else has healed it
        return


@contextmanager
def redis_is_frozen(stack: Stack) -> Iterator[None]:
    pid = stack.pid("redis")
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


@contextmanager
def postgres_takes_no_connection(stack: Stack) -> Iterator[None]:
    pid = stack.pid("postgres")
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


@contextmanager
def the_bars_of_es_are_lost(stack: Stack) -> Iterator[None]:
    es = stack.rows("SELECT id FROM instruments WHERE symbol = 'ES'")[0][0]
    statements = (
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER lose BEFORE INSERT ON bars FOR EACH ROW"
        f" WHEN (NEW.instrument_id = {es}) EXECUTE FUNCTION lose()",
    )
    run(stack, *statements)
    yield
    run(stack, "DROP TRIGGER lose ON bars", "DROP FUNCTION lose")


@contextmanager
def redis_lost_entries(stack: Stack) -> Iterator[None]:
    """As the tables see it: vwap has committed what the log does not hold."""
    supervisorctl(stack, "stop", "thor:vwap")
    run(stack, "UPDATE positions SET n = n + 1000000 WHERE name = 'vwap'")
    supervisorctl(stack, "start", "thor:vwap")
    until(lambda: is_ready(stack.settings, "vwap"), "vwap goes on")
    yield
    client = stack.redis()
    n = int(client.hget("ingester:writer", "n") or 0)
    client.close()
    supervisorctl(stack, "stop", "thor:vwap")
    run(stack, f"UPDATE positions SET n = {n} WHERE name = 'vwap'")
    supervisorctl(stack, "start", "thor:vwap")


@contextmanager
def a_producer_writes_to_another_database(stack: Stack) -> Iterator[None]:
    client = stack.redis()
    client.select(1)
    client.xadd("quotes:in", {"symbol": "ES", "last": "4800"})
    yield
    client.select(1)
    client.flushdb()
    client.close()


@contextmanager
def redis_memory_is_nearly_used(stack: Stack) -> Iterator[None]:
    client = stack.redis()
    client.config_set("maxmemory", int(int(client.info("memory")["used_memory"]) * 1.07))
    yield
    client.config_set("maxmemory", 0)
    client.close()


@contextmanager
def a_disk_is_full(stack: Stack) -> Iterator[None]:
    spool = stack.settings.dir / "spool"
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", spool], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("this sandbox allows no mount")
    try:
        (spool / "filler").write_bytes(bytes(64 << 10))
        yield
    finally:
        subprocess.run(["umount", spool], check=False)


@contextmanager
def the_password_may_be_read_by_all(stack: Stack) -> Iterator[None]:
    stack.settings.secrets.chmod(0o644)
    yield
    stack.settings.secrets.chmod(0o600)


@contextmanager
def an_example_password_is_used(stack: Stack) -> Iterator[None]:
    file = stack.settings.dir / "example.env"
    file.write_text("SCHWAB_APP_SECRET=change-me\n")
    stack.environment["THOR_ENV_FILE"] = str(file)
    yield
    stack.environment["THOR_ENV_FILE"] = os.devnull


@contextmanager
def an_api_container_runs_everything(stack: Stack) -> Iterator[None]:
    stack.environment["THOR_STACK_AUTO_START"] = "0"
    yield
    del stack.environment["THOR_STACK_AUTO_START"]


@contextmanager
def an_api_runs_beside_the_background_programs(stack: Stack) -> Iterator[None]:
    stack.environment["THOR_STACK_AUTO_START"] = "1"
    yield
    del stack.environment["THOR_STACK_AUTO_START"]


FAULTS: list[tuple[Callable[[Stack], AbstractContextManager[None]], str, str]] = [
    (the_ingester_is_stopped, "processes", "ingester stopped"),
    (intraday_is_frozen, "processes", "intraday"),
    (redis_is_frozen, "redis", "does not answer"),
    (postgres_takes_no_connection, "postgres", "does not answer"),
    (the_bars_of_es_are_lost, "bars", "ES"),
    (redis_lost_entries, "lag", "Redis lost entries"),
    (a_producer_writes_to_another_database, "producer", "/1"),
    (redis_memory_is_nearly_used, "memory", "Redis uses"),
    (a_disk_is_full, "disk", "spool"),
    (the_password_may_be_read_by_all, "secrets", "secrets.json"),
    (an_example_password_is_used, "secrets", "SCHWAB_APP_SECRET"),
    (an_api_container_runs_everything, "role", "ingester"),
    (an_api_runs_beside_the_background_programs, "role", "httpd"),
]


@pytest.mark.parametrize(("fault", "line", "named"), FAULTS, ids=[fault.__name__ for fault, *_ in FAULTS])
def test_a_fault_turns_its_own_line_red_and_no_other(
    healthy: Stack, fault: Callable[[Stack], AbstractContextManager[None]], line: str, named: str
) -> None:
    until(lambda: not red(healthy), "nothing is red before", 60)
    with fault(healthy):
        found = until(lambda: red(healthy), "something is red", 40)
        assert list(found) == [line], found
        assert named in found[line]
    until(lambda: not red(healthy), "nothing is red after", 60)


def test_a_slow_clock_turns_its_own_line_red_and_no_other(healthy: Stack) -> None:
    until(lambda: not red(healthy), "nothing is red before", 60)
    environment = {"PATH": os.environ["PATH"], **healthy.environment}
    done = subprocess.run(
        [sys.executable, "-c", SLOW_CLOCK], env=environment, cwd=ROOT, text=True, capture_output=True, check=False
    )
    found = [line["name"] for line in json.loads(done.stdout)["lines"] if line["verdict"] == "red"]
    assert found == ["clock"], done.stdout


def test_an_api_that_reads_another_redis_turns_the_agreement_red_and_no_other_line(
    healthy: Stack, redis: Server
) -> None:
    until(lambda: not red(healthy), "nothing is red before", 60)
    supervisorctl(healthy, "stop", "thor:httpd")
    environment = {"PATH": os.environ["PATH"], **healthy.environment, "REDIS_URL": redis.settings.redis_url}
    astray = subprocess.Popen(
        [sys.executable, "-m", "httpd"], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: healthy.pid("httpd") == astray.pid, "the API is there")
        found = until(lambda: {k: v for k, v in red(healthy).items() if "refused" not in v}, "something is red", 60)
        assert list(found) == ["agreement"], found
    finally:
        astray.send_signal(signal.SIGTERM)
        astray.wait(20)
        supervisorctl(healthy, "start", "thor:httpd")
    until(lambda: not red(healthy), "nothing is red after", 60)


def test_what_cannot_be_judged_is_one_line_and_exit_code_two(healthy: Stack, tmp_path: Path) -> None:
    broken = Stack({**healthy.environment, "THOR_PORT_BASE": "many"})
    done = broken.thor("doctor")
    assert done.returncode == 2
    assert done.stderr.startswith("thor: cannot judge: THOR_PORT_BASE")
    nothing = Stack({**healthy.environment, "THOR_DIR": str(tmp_path / "var"), "THOR_PORT_BASE": str(free_port_base())})
    found = lines(nothing)
    assert {name for name, line in found.items() if line["verdict"] == "red"} == {"redis", "postgres", "processes"}


def test_every_metric_of_the_dashboard_and_of_the_alerts_exists(healthy: Stack) -> None:
    exposed = set()
    for process in healthy.settings.processes:
        with urlopen(f"http://127.0.0.1:{healthy.settings.health_port(process)}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("# TYPE "):
                    _, _, name, kind = line.split()
                    exposed |= (
                        {f"{name}_{end}" for end in ("bucket", "sum", "count")} if kind == "histogram" else {name}
                    )
    asked = {name for query in (*queries_of_dashboard(), *queries_of_alerts()) for name in METRIC.findall(query)}
    assert len(asked) > 20
    assert asked <= exposed, asked - exposed


def supervisorctl(stack: Stack, *words: str) -> None:
    """What an operator types."""
    command = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisorctl"]
    subprocess.run(
        [*command, "-c", stack.settings.dir / "supervisord.conf", *words], check=True, capture_output=True, timeout=60
    )


def run(stack: Stack, *statements: str) -> None:
    with psycopg.connect(stack.settings.dsn) as conn:
        for statement in statements:
            conn.execute(statement.encode())
