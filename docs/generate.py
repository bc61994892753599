"""The generated sections of docs/reference.md: ``python3 -m docs.generate`` writes them from the code itself."""

from __future__ import annotations

import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import annotated_types
import typer.main
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from thor.cli import app
from thor.runtime.heartbeat import Beat
from thor.runtime.metrics import REGISTRY, Figures, Ingested, Progress
from thor.runtime.settings import PROCESSES, ROOT

REFERENCE: Final = ROOT / "docs" / "reference.md"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def commands() -> str:
    """Every command, and its options below it."""
    parts = []
    group: Any = typer.main.get_command(app)
    for name, command in sorted(group.commands.items()):
        rows = []
        for option in command.params:
            argument = option.param_type_name == "argument"
            shown = f"`{(option.metavar or f'[{option.name.upper()}]') if argument else option.opts[0]}`"
            default = option.default
            told = f"`{default}`" if default not in (None, "", False, (), []) and not callable(default) else ""
            rows.append([shown, option.help or "", told])
        parts.append(f"`python3 -m thor {name}`: {' '.join((command.help or '').split())}")
        if rows:
            parts.append(table(["option", "meaning", "default"], rows))
    return "\n\n".join(parts)


def model_of(process: str) -> type[BaseModel]:
    """What config/<process>.yaml may say."""
    module = import_module("httpd.config" if process == "httpd" else f"daemons.{process}")
    return typing.cast("type[BaseModel]", module.Config)


def keys(model: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every key of a model that is no section of further keys."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, (*at, name))
        else:
            yield (*at, name), field


def _kind(annotation: Any) -> str:  # noqa: ANN401
    """A type in a reader's words."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        limits = " ".join(_limits(inner[1:]))
        return f"{_kind(inner[0])} {limits}".strip()
    if origin is typing.Literal:
        return " or ".join(f"`{one}`" for one in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(one) for one in inner if one is not type(None))
    if origin is list:
        return f"list of {_kind(inner[0])}"
    if origin is dict:
        return f"{_kind(inner[0])} → {_kind(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"{{{', '.join(f'{name}: {_kind(one.annotation)}' for name, one in annotation.model_fields.items())}}}"
    words = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _limits(metadata: Any) -> Iterator[str]:  # noqa: ANN401
    for one in metadata:
        if isinstance(one, FieldInfo):
            yield from _limits(one.metadata)
        for kind, sign in ((annotated_types.Ge, "≥"), (annotated_types.Gt, ">"), (annotated_types.Le, "≤")):
            if isinstance(one, kind):
                yield f"{sign} {getattr(one, kind.__name__.lower())}"


def comments(path: Path) -> dict[tuple[str, ...], str]:
    """The comment right above each key of a YAML file."""
    found: dict[tuple[str, ...], str] = {}
    at: list[tuple[int, str]] = []
    said: list[str] = []
    for line in path.read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            said.append(text.lstrip("# "))
        elif match := re.match(r"( *)([A-Za-z_]+):", line):
            at = [(indent, key) for indent, key in at if indent < len(match[1])] + [(len(match[1]), match[2])]
            found[tuple(key for _, key in at)] = " ".join(said)
            said = []
        else:
            said = []
    return found


def configuration() -> str:
    """Every key of every process's file: type, default, meaning."""
    parts = []
    for process in PROCESSES:
        path = ROOT / "config" / f"{process}.yaml"
        given, told = yaml.safe_load(path.read_text()), comments(path)
        rows = []
        for key, field in keys(model_of(process)):
            value: Any = given
            for part in key:
                value = value[part]
            # A section on one line has one comment for all its keys.
            meaning = told.get(key) or told.get(key[:-1], "")
            limits = " ".join(_limits(field.metadata))
            rows.append(
                [f"`{'.'.join(key)}`", f"{_kind(field.annotation)} {limits}".strip(), f"`{_shown(value)}`", meaning]
            )
        parts += [f"#### config/{process}.yaml", table(["key", "type", "default", "meaning"], rows)]
    return "\n\n".join(parts)


def _shown(value: Any) -> str:  # noqa: ANN401
    """A value as the YAML has it."""
    shown = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
    return shown if len(shown) < 300 else "a table in the file"


def tables() -> str:
    """Every table with its columns, and every view, from the comments in sql/."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "sql").glob("*.sql")))
    comments = re.findall(r"COMMENT ON \w+ (\S+) IS '((?:[^']|'')*)'", text)
    told = {name: said.replace("''", "'") for name, said in comments}
    parts = []
    for name, body in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\)", text, re.S):
        columns = re.findall(r"^    ([a-z]\w*) +([a-z]\w*(?:\[\])?)", body, re.M)
        columns += re.findall(rf"ALTER TABLE {name}\s+ADD COLUMN (\w+) ([a-z]\w*(?:\[\])?)", text)
        rows = [[f"`{column}`", kind, told.get(f"{name}.{column}", "")] for column, kind in columns]
        parts += [f"#### {name}", f"{told.get(name, '')}.", table(["column", "type", "meaning"], rows)]
    views = [[f"`{name}`", told.get(name, "")] for name in re.findall(r"CREATE (?:OR REPLACE )?VIEW (\S+) AS", text)]
    return "\n\n".join([*parts, "#### Views", table(["view", "meaning"], views)])


def redis_keys() -> str:
    """Every key, from the file that names them."""
    text = (ROOT / "thor" / "stores" / "keys.py").read_text()
    found = re.findall(r'^\w+: Final = "([^"]+)"  # (?:\+ (\w+), )?(\w+)(?: \(JSON\))?[:,] (.+)$', text, re.M)
    rows = [[f"`{key}{f'<{more}>' if more else ''}`", kind, said] for key, more, kind, said in found]
    return table(["key", "type", "meaning"], rows)


def metrics() -> str:
    """Every metric of our own, of any process."""
    for process in PROCESSES:
        import_module("httpd.app" if process == "httpd" else f"daemons.{process}")
    beat = Beat(1, 1, 0, 0, 0, 0, 0, 0, "running", "")
    figures = Figures({}, 0, 0, 0, 0, None, {})
    ours = (Progress("", lambda: beat, lambda: 0), Ingested(lambda: figures))
    families = [*(family for one in ours for family in one.collect()), *REGISTRY.collect()]
    rows = {}
    for family in families:
        if family.name.startswith("thor_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            # Nothing public says the labels of a family without samples.
            made = REGISTRY._names_to_collectors.get(family.name, family)
            labels = ", ".join(f"`{label}`" for label in getattr(made, "_labelnames", ()))
            rows[name] = [f"`{name}`", family.type, labels, family.documentation]
    return table(["metric", "type", "labels", "meaning"], [rows[name] for name in sorted(rows)])


SECTIONS: Final[dict[str, Callable[[], str]]] = {
    "commands": commands,
    "configuration": configuration,
    "tables": tables,
    "redis": redis_keys,
    "metrics": metrics,
}


def generated(text: str) -> str:
    """The document with each section between its markers made anew. Raises ValueError where a marker is missing."""
    for name, make in SECTIONS.items():
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise ValueError(f"docs/reference.md: expected the markers of {name}")
        text = f"{before}{begin}\n{make()}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    REFERENCE.write_text(generated(REFERENCE.read_text()))
    sys.stdout.write(f"{REFERENCE.relative_to(ROOT)} is written\n")
