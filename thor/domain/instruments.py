"""What is traded (domain.md §2), and the one place where a feed's name for it becomes a symbol."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from thor.domain.hours import Hours
from thor.domain.prices import Notation, to_nano

_SYMBOL = re.compile(r"[/$.A-Z0-9_: -]{1,24}", re.ASCII)
_CONTRACT = re.compile(r"([A-Z0-9]{1,6})[FGHJKMNQUVXZ]\d{1,2}", re.ASCII)


@dataclass(frozen=True)
class Instrument:
    """One traded thing. Prices in nano, sizes in ``size_step``; ``negative`` where it can trade at or below zero."""

    symbol: str
    name: str
    exchange: str
    country: str
    tick_size: Decimal
    tick_value: Decimal
    size_step: Decimal
    decimals: int
    hours: Hours
    notation: Notation = "decimal"
    safe_haven: bool = False
    negative: bool = False
    aliases: tuple[str, ...] = ()
    root: str | None = None  # the instrument whose contract this is

    @property
    def tick_nano(self) -> int:
        """The price step in nano."""
        return to_nano(self.tick_size)

    @property
    def step_nano(self) -> int:
        """The size step in units of 10⁻⁹."""
        return to_nano(self.size_step)


def canonical(name: str) -> str:
    """A feed's name as it compares: upper case, no leading slash, no outer space (domain.md §2)."""
    return name.strip().upper().removeprefix("/")


def well_formed(name: str) -> bool:
    """Whether a name may reach a key or a log at all."""
    name = name.strip()
    # Upper case brings letters beyond ASCII into it: "ſ" would become an S.
    return name.isascii() and _SYMBOL.fullmatch(name.upper()) is not None


def root_of(contract: str) -> str | None:
    """``GCZ3`` → ``GC``; None where the name is not root, month letter, year."""
    match = _CONTRACT.fullmatch(canonical(contract))
    return match[1] if match else None


class Instruments:
    """The registry: instruments numbered densely from 0, found by symbol or alias."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._all = list(instruments)
        self._numbers: dict[str, int] = {}
        for number, instrument in enumerate(self._all):
            for name in (instrument.symbol, *instrument.aliases):
                taken = self._numbers.setdefault(canonical(name), number)
                if taken != number:
                    raise ValueError(
                        f"{name!r} names both {self._all[taken].symbol} and {instrument.symbol}: expected one"
                    )

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._all)

    def __getitem__(self, number: int) -> Instrument:
        return self._all[number]

    @property
    def symbols(self) -> list[str]:
        """Symbols by number."""
        return [instrument.symbol for instrument in self._all]

    def number(self, name: str) -> int | None:
        """The number of a symbol or alias, None where nobody registered it."""
        return self._numbers.get(canonical(name))

    def contract(self, name: str) -> Instrument:
        """The instrument for a contract under its root's specification. Raises LookupError without a root."""
        root = root_of(name)
        number = None if root is None else self.number(root)
        if number is None:
            raise LookupError(f"{name}: expected a contract of a known root such as {', '.join(self.symbols[:4])}")
        of = self._all[number]
        symbol = canonical(name)
        return replace(of, symbol=symbol, name=f"{of.name} {symbol}", aliases=(), root=of.symbol)
