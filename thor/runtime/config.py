"""Configuration: one commented YAML a process, read strictly, overridden by THOR_<PROCESS>__KEY__SUB.

Scalars are those of YAML 1.2: ``NO`` and ``8:30`` are text. A wrong key or value is one line that says where:
``config/ingester.yaml:6:9: batch.max: must be at most 100000 (got 700000)``.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from thor.runtime.settings import PROCESSES, ROOT

Model = TypeVar("Model", bound=BaseModel)
Path_ = tuple[str | int, ...]


class BadConfig(ValueError):
    """A file or variable that cannot be used; one line that says where, what was expected and what was found."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The core scalars of YAML 1.2, nothing else."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


@dataclass(frozen=True, slots=True)
class Document:
    """A file's data, and the place of every key and value in it."""

    name: str  # as errors show it
    data: Any
    marks: Mapping[Path_, yaml.Mark]

    def at(self, path: Path_) -> str:
        """``file:line:column`` of the value at ``path``, or of the nearest thing that is there."""
        while path and path not in self.marks:
            path = path[:-1]
        mark = self.marks.get(path)
        return f"{self.name}:{mark.line + 1}:{mark.column + 1}" if mark else self.name

    def refuse(self, path: Path_, problem: str) -> NoReturn:
        """Raise BadConfig for the value at ``path``."""
        where = ".".join(str(part) for part in path)
        raise BadConfig(f"{self.at(path)}: {where + ': ' if where else ''}{problem}")


def read(path: Path) -> Document:
    """The file, strictly. Raises BadConfig."""
    name = shown(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "expected UTF-8"
        raise BadConfig(f"{name}: cannot be read: {what}") from error
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise BadConfig(f"{name}{at}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise BadConfig(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    marks: dict[Path_, yaml.Mark] = {}
    data = {} if node is None else _build(node, (), marks, name)
    return Document(name, data, marks)


def shown(path: Path) -> str:
    """A path as errors show it: relative to the checkout where it lies there."""
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _build(node: yaml.Node, path: Path_, marks: dict[Path_, yaml.Mark], name: str) -> Any:  # noqa: ANN401
    marks[path] = node.start_mark
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, i), marks, name) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, name)
    built: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        at = f"{name}:{key.start_mark.line + 1}:{key.start_mark.column + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise BadConfig(f"{at}: expected a plain key")
        if key.value in lines:
            raise BadConfig(f"{at}: {key.value}: given twice, first in line {lines[key.value]}")
        lines[key.value] = key.start_mark.line + 1
        built[key.value] = _build(value, (*path, key.value), marks, name)
        marks[(*path, key.value, "#key")] = key.start_mark
    return built


def _scalar(node: yaml.ScalarNode, name: str) -> Any:  # noqa: ANN401
    kind = node.tag.rpartition(":")[2]
    if kind == "int":
        return int(node.value, 0 if node.value.startswith(("0o", "0x")) else 10)
    if kind == "float":
        return Decimal(node.value)  # a tick size is exact; where a model wants a float, it makes one
    if kind == "bool":
        return node.value.lower() == "true"
    if kind == "null":
        return None
    if kind == "str":
        return node.value
    mark = node.start_mark
    raise BadConfig(f"{name}:{mark.line + 1}:{mark.column + 1}: expected no tag, found {node.tag}")


def directory() -> Path:
    """Where the files are: THOR_CONFIG_DIR, or config/ of the checkout."""
    return Path(os.environ.get("THOR_CONFIG_DIR") or ROOT / "config")


def load_config(name: str, model: type[Model], env: Mapping[str, str] | None = None) -> Model:
    """config/<name>.yaml below the environment's overrides, as ``model``; unknown keys are errors. Raises BadConfig."""
    document = read(directory() / f"{name}.yaml")
    if not isinstance(document.data, dict):
        document.refuse((), f"expected keys and values, found {type(document.data).__name__}")
    variables = _override(document.data, name, os.environ if env is None else env)
    return validate(document, model, variables)


def validate(document: Document, model: type[Model], variables: Mapping[Path_, str] | None = None) -> Model:
    """The document as ``model``; ``variables`` says which path a variable gave. Raises BadConfig."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadConfig(_line(document, first, variables or {})) from error


def _override(data: dict[str, Any], name: str, env: Mapping[str, str]) -> dict[Path_, str]:
    """Put the variables into ``data``; which variable gave which path."""
    prefix = f"THOR_{name.upper()}__"
    given: dict[Path_, str] = {}
    for variable in sorted(env):
        if not variable.startswith(prefix):
            continue
        path = tuple(variable.removeprefix(prefix).lower().split("__"))
        at = data
        for key in path[:-1]:
            if not isinstance(at.setdefault(key, {}), dict):
                raise BadConfig(f"{variable}: {'.'.join(path)}: {key} is a value, not a section")
            at = at[key]
        try:
            node = _Loader(env[variable]).get_single_node()
        except yaml.YAMLError as error:
            raise BadConfig(f"{variable}: expected one YAML value, found {env[variable]!r}") from error
        at[path[-1]] = None if node is None else _build(node, (), {}, variable)
        given[path] = variable
    return given


_SAID: Final = {
    "extra_forbidden": "unknown key",
    "missing": "expected, found nothing",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "literal_error": "must be {expected}",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
}


def _line(document: Document, error: ErrorDetails, variables: Mapping[Path_, str]) -> str:
    path, kind = error["loc"], error["type"]
    text = _SAID.get(kind, "").format(**error.get("ctx", {})) or error["msg"].removeprefix("Value error, ")
    got = "" if kind in ("missing", "extra_forbidden") else f" (got {str(error['input'])[:60]})"
    problem = f"{'.'.join(str(part) for part in path)}: {text}{got}"
    for start in range(len(path), 0, -1):
        if path[:start] in variables:
            return f"{variables[path[:start]]}: {problem}"
    at = (*path, "#key") if kind == "extra_forbidden" and (*path, "#key") in document.marks else path
    return f"{document.at(at)}: {problem}"


def check_all() -> None:
    """Load the configuration of every process as that process would. Raises BadConfig."""
    for variable in os.environ:
        match = re.fullmatch(r"THOR_([A-Z0-9]+)__.*", variable)
        if match and match[1].lower() not in PROCESSES:
            raise BadConfig(f"{variable}: expected THOR_ and one of {', '.join(PROCESSES).upper()}")
    for name in PROCESSES:
        # By name: the runtime knows of the processes, but does not stand on them.
        module = importlib.import_module("httpd.__main__" if name == "httpd" else f"daemons.{name}")
        model = getattr(module, "Config", None)
        if model is not None:
            load_config(name, model)
    importlib.import_module("thor.runtime.markets").load()  # the overlay of the calendars is a file of its own


if __name__ == "__main__":
    try:
        check_all()
    except BadConfig as error:
        sys.exit(f"thor: {error}")
