"""Query parameters as types; what does not fit is a problem document that names the parameter."""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeVar

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from httpd.problems import Problem
from thor.domain.instruments import canonical, well_formed
from thor.domain.stamps import BadStamp, parse_stamp

_SPLIT_ZONE: Final = re.compile(r" \d\d:\d\d$")


class Query(BaseModel):
    """The parameters of one endpoint: an unknown one is an error, an empty one is absent."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse_instant(text: object) -> int:
    """RFC 3339 with its zone, or epoch seconds (milliseconds from 1e11 on), as ns UTC. Raises ValueError."""
    try:
        return parse_stamp(str(text))
    except BadStamp:
        hint = "; in a URL the + of a zone is written %2B" if _SPLIT_ZONE.search(str(text)) else ""
        raise ValueError(f"expected RFC 3339 with a zone (2013-10-08T12:00:00Z) or epoch seconds{hint}") from None


def parse_symbol(text: object) -> str:
    """A symbol or alias in its canonical spelling. Raises ValueError where it could name nothing."""
    if not well_formed(str(text)):
        raise ValueError("expected a symbol of at most 24 letters, digits and / $ . _ : -")
    return canonical(str(text))


def parse_symbols(text: object) -> tuple[str, ...]:
    """Symbols between commas, each once, in the order given. Raises ValueError."""
    return tuple(dict.fromkeys(parse_symbol(part) for part in str(text).split(",") if part.strip()))


Instant = Annotated[int, BeforeValidator(parse_instant)]
Symbol = Annotated[str, BeforeValidator(parse_symbol)]
Symbols = Annotated[tuple[str, ...], BeforeValidator(parse_symbols)]

M = TypeVar("M", bound=Query)


def read(request: web.Request, model: type[M]) -> M:
    """The request's parameters. Raises Problem unknown-, missing- or invalid-parameter."""
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name in values:
            raise Problem("invalid-parameter", f"{name[:40]}: expected once, found twice", name[:40])
        values[name] = value
    try:
        return model.model_validate({name: value for name, value in values.items() if value.strip()})
    except ValidationError as error:
        raise _problem(error.errors(include_url=False, include_context=True)[0], model) from None


def _problem(error: ErrorDetails, model: type[Query]) -> Problem:
    name = str(error["loc"][0])[:40] if error["loc"] else ""
    known = [field.alias or key for key, field in model.model_fields.items()]
    if error["type"] == "extra_forbidden":
        return Problem("unknown-parameter", f"{name}: expected one of {', '.join(known)}", name, known=known)
    if error["type"] == "missing":
        return Problem("missing-parameter", f"{name}: expected a value", name)
    found = str(error["input"])[:40]
    said = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    said = said if said.startswith("expected") else f"expected {said}"
    return Problem("invalid-parameter", f"{name}: {said} (got {found!r})", name)
