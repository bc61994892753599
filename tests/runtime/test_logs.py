from __future__ import annotations

import io
import json
import logging
import threading

from thor.runtime.logs import JsonLines, Lines


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("thor.x", logging.WARNING, __file__, 1, message, args, None)


def test_a_line_says_when_who_and_what() -> None:
    line = json.loads(JsonLines("vwap").format(record("%d late", 3)))
    assert (line["level"], line["process"], line["message"]) == ("WARNING", "vwap", "3 late")
    assert line["ts"].endswith("Z")


def test_no_line_reaches_8_kb() -> None:
    one = record("\x01" * 5000)
    try:
        raise ValueError("\x02" * 5000)
    except ValueError as error:
        one.exc_info = (type(error), error, error.__traceback__)
    assert len(JsonLines("vwap").format(one)) < 8000


def test_a_stalled_reader_costs_lines_not_time() -> None:
    let_go = threading.Event()

    class Stalled(io.StringIO):
        def write(self, text: str) -> int:
            let_go.wait()
            return super().write(text)

    stream = Stalled()
    handler = Lines(stream, size=5)
    handler.setFormatter(JsonLines("vwap"))
    for n in range(100):
        handler.emit(record("line %d", n))
    assert handler.dropped >= 94
    let_go.set()
    handler.drain()
    assert len(stream.getvalue().splitlines()) == 100 - handler.dropped
