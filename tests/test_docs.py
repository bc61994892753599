"""The documentation says what the code does: nothing missing, nothing that went away."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml

from docs import generate
from tests.conftest import TEMPLATE, Server
from thor.runtime import instruments
from thor.runtime.settings import PROCESSES, ROOT
from thor.stores import keys, schema

DOCS = ROOT / "docs"
REFERENCE = generate.REFERENCE.read_text()
DEPENDENCIES = (DOCS / "dependencies.md").read_text()


def requirements() -> list[str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    return [re.split(r"[\[=;]", line)[0] for line in lines if line]


def test_the_generated_sections_are_those_of_the_code() -> None:
    assert generate.generated(REFERENCE) == REFERENCE, "python3 -m docs.generate"


@pytest.mark.parametrize("process", PROCESSES)
def test_every_configuration_key_has_a_meaning_and_stands_in_its_file(process: str) -> None:
    given = yaml.safe_load((ROOT / "config" / f"{process}.yaml").read_text())
    rows = dict(re.findall(r"^\| `([\w.]+)` \| .* \| (.*) \|$", section(f"#### config/{process}.yaml"), re.M))
    for key, _ in generate.keys(generate.model_of(process)):
        value = given
        for part in key:
            assert part in value, f"config/{process}.yaml lacks {'.'.join(key)}"
            value = value[part]
        assert rows[".".join(key)], f"config/{process}.yaml: {'.'.join(key)} has no comment"


def section(heading: str) -> str:
    return REFERENCE.split(f"{heading}\n")[1].split("\n#")[0]


def test_every_key_of_an_instrument_and_of_hours_is_told() -> None:
    told = section("### Instruments")
    for model in (instruments._Instrument, instruments._Hours):
        assert [name for name in model.model_fields if f"`{name}`" not in told] == []


def test_every_variable_of_the_environment_is_told() -> None:
    files = [*(ROOT / "thor").rglob("*.py"), *(ROOT / "httpd").rglob("*.py"), *(ROOT / "daemons").rglob("*.py")]
    files += [ROOT / "supervisord.conf", ROOT / ".env.example"]
    # As text of Python, as %(ENV_…)s of supervisord.conf, as a line of .env.example that is commented out.
    name = re.compile(r"(?:\"|ENV_|^#)((?:THOR|DB|REDIS|DATA)_[A-Z_]*[A-Z])\b", re.M)
    used = {found for file in files for found in name.findall(file.read_text())}
    assert {found for found in used if f"`{found}`" not in section("### Environment")} == set()


def test_every_table_view_and_column_of_the_database_is_told(postgres: Server) -> None:
    with schema.connect(postgres.settings.dsn_of(TEMPLATE)) as conn:
        rows = conn.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        ).fetchall()
    text = REFERENCE.split("## Tables\n")[1].split("\n## ")[0]
    for table, column in rows:
        if table == "schema_migrations":
            assert f"`{table}`" in text
            continue
        quoted = table if table == table.lower() else f'"{table}"'
        mine = text.split(f"#### {table}\n")[1].split("####")[0] if f"#### {table}\n" in text else ""
        view = re.search(rf"^\| `{quoted}` \| (`.*) \|$", text, re.M)
        assert f"`{column}`" in (mine or (view[1] if view else "")), f"{table}.{column}"
    assert "|  |\n" not in text, "a column has no comment"


def test_every_redis_key_is_told_with_its_fields() -> None:
    named = [value for name, value in vars(keys).items() if name.isupper()]
    for key in named:
        assert len(re.findall(rf"^\| `{re.escape(key)}(?:<\w+>)?` \|", section("## Redis"), re.M)) == 2, key


def test_every_requirement_has_its_line() -> None:
    assert [name for name in requirements() if f"`{name}`" not in DEPENDENCIES] == []
    told = {name for line in DEPENDENCIES.splitlines() if line.startswith("| `") for name in re.findall(
        r"`([^`]+)`", line.split("|")[1]
    )}  # fmt: skip
    assert told - set(requirements()) == set()


def test_whatever_a_requirement_brings_is_pinned_too() -> None:
    pinned = {_plain(name) for name in requirements()}
    for name in requirements():
        try:
            needed = requires(name) or []
        except PackageNotFoundError:  # for another Python
            continue
        for line in needed:
            what, _, marker = line.partition(";")
            # Extras and other systems bring what this installation does not need.
            if not marker:
                assert _plain(re.split(r"[\s\[<>=!~(]", what)[0]) in pinned, f"{name} needs {what}"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
