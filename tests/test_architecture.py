"""The shape of the code: arrows go one way, files stay readable (docs/design.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from thor.runtime.settings import ROOT

#: A package may import from itself and from these.
ALLOWED = {
    "thor.domain": set(),
    "thor.stores": {"thor.domain"},
    "thor.feeds": {"thor.domain", "thor.stores"},
    "thor.runtime": {"thor.domain", "thor.stores", "thor.feeds"},
    "daemons": {"thor.domain", "thor.stores", "thor.feeds", "thor.runtime"},
    "httpd": {"thor.domain", "thor.stores", "thor.feeds", "thor.runtime"},
}
#: The domain is pure: nothing that touches a clock, a socket or a file.
IMPURE = {"asyncio", "time", "os", "socket", "redis", "psycopg", "pathlib", "subprocess", "aiohttp", "threading"}


def sources() -> list[Path]:
    folders = ("thor", "daemons", "httpd", "bench", "tests")
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(module: str) -> str | None:
    return next((name for name in ALLOWED if module == name or module.startswith(f"{name}.")), None)


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_from_below(package: str) -> None:
    for file in sorted((ROOT / package.replace(".", "/")).rglob("*.py")):
        for module in imports(file):
            target = package_of(module)
            assert target in {None, package, *ALLOWED[package]}, f"{file.relative_to(ROOT)} imports {module}"


def test_the_domain_touches_nothing_outside() -> None:
    for file in (ROOT / "thor" / "domain").glob("*.py"):
        outside = {module.split(".")[0] for module in imports(file)} & IMPURE
        assert not outside, f"{file.name} imports {outside}"


def test_only_stores_speak_redis_and_sql() -> None:
    """Others may name the types and errors, but no statement and no key."""
    for file in sources():
        where = file.relative_to(ROOT).parts
        if where[0] in ("tests", "bench") or where[:2] == ("thor", "stores"):
            continue
        text = file.read_text()
        for mark in ("SELECT ", "INSERT INTO", "UPDATE ", ".xadd(", ".xread(", ".hgetall(", '"quotes:'):
            assert mark not in text, f"{file.relative_to(ROOT)} holds {mark!r}"


def test_no_file_is_longer_than_400_lines() -> None:
    for file in sources():
        length = len(file.read_text().splitlines())
        assert length <= 400, f"{file.relative_to(ROOT)} has {length} lines"


def test_a_daemon_is_one_screen() -> None:
    for file in (ROOT / "daemons").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 200, file.name
