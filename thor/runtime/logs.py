"""Logging: JSON lines to stderr, written by a thread, so that a stalled reader never stops the work."""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
from datetime import UTC, datetime
from typing import Final, TextIO

_LINE: Final = 7_900  # bytes; longer lines of several writers mix on one descriptor
_QUEUE: Final = 10_000  # lines; past it lines are dropped and counted


class JsonLines(logging.Formatter):
    """One record, one line below 8 kB."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "process": self._process,
            "pid": os.getpid(),
            "logger": record.name,
            "message": record.getMessage()[:2000],
        }
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            fields["error"] = f"{type(error).__name__}: {error}"[:1000]
            fields["traceback"] = self.formatException(record.exc_info)[-4000:]
        line = json.dumps(fields)
        if len(line) > _LINE:  # escapes can grow sixfold
            fields |= {"message": record.getMessage()[:500], "error": str(fields.get("error"))[:200], "traceback": ""}
            line = json.dumps(fields)
        return line


class Lines(logging.Handler):
    """Hands lines to a thread through a bounded queue; ``dropped`` counts those that found it full."""

    def __init__(self, stream: TextIO, size: int = _QUEUE) -> None:
        super().__init__()
        self.dropped = 0
        self._stream = stream
        self._queue: queue.Queue[str | None] = queue.Queue(size)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue or drop, never wait."""
        try:
            self._queue.put_nowait(self.format(record))
        except queue.Full:
            self.dropped += 1

    def _write(self) -> None:
        while (line := self._queue.get()) is not None:
            self._stream.write(line + "\n")
            if self._queue.empty():
                self._stream.flush()
        self._stream.flush()

    def drain(self, within_s: float = 1.0) -> None:
        """Let the thread write what is queued, for at most ``within_s``."""
        try:
            self._queue.put(None, timeout=within_s)
        except queue.Full:
            return
        self._thread.join(within_s)


def start(process: str, stream: TextIO | None = None) -> Lines:
    """Send everything from INFO up to ``stream`` (stderr) as JSON lines."""
    handler = Lines(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonLines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    return handler
