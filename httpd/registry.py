"""The instruments as the files say now: a contract registered while the API runs is known to the next request."""

from __future__ import annotations

import logging
from pathlib import Path

from thor.domain.instruments import Instruments
from thor.runtime import instruments
from thor.runtime.config import BadConfig
from thor.runtime.settings import Settings

log = logging.getLogger(__name__)


class Registry:
    """Called, it answers the registry; the files are read again when one of them changed."""

    def __init__(self, settings: Settings) -> None:
        """Raises BadConfig."""
        self._settings = settings
        self._seen = self._stamp()
        self._instruments = instruments.load(path for path, *_ in self._seen)

    def __call__(self) -> Instruments:
        seen = self._stamp()
        if seen != self._seen:
            self._seen = seen
            try:
                self._instruments = instruments.load(path for path, *_ in seen)
            except BadConfig as error:
                log.error("the instruments stay as they were: %s", error)
        return self._instruments

    def _stamp(self) -> list[tuple[Path, int, int]]:
        stats = [(path, path.stat()) for path in instruments.files(self._settings)]
        return [(path, stat.st_mtime_ns, stat.st_size) for path, stat in stats]
