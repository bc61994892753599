"""Where entries wait while Redis is away: one append-only file, bounded, drained in order."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from zlib import crc32

_FRAME: Final = struct.Struct("<II")
_WORD: Final = struct.Struct("<I")

Words = list[bytes]


class SpoolFull(RuntimeError):
    """The spool cannot take another entry; says why and what to do."""


class Spool:
    """Entries as their flat words, oldest first. What a crash left half written at the end is not an entry."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max = max_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        self._end = self._intact()
        # A torn tail must go before anything is written behind it.
        self._file.truncate(self._end)
        self._start = 0  # of what is not drained yet

    def __bool__(self) -> bool:
        return self._start < self._end

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._end - self._start

    def put(self, words: Sequence[str | int | bytes]) -> None:
        """Append one entry. Raises SpoolFull, and then nothing of it is kept."""
        body = b"".join(
            part
            for word in words
            for data in [word if isinstance(word, bytes) else str(word).encode()]
            for part in (_WORD.pack(len(data)), data)
        )
        if self._end + len(body) > self._max:
            raise SpoolFull(
                f"{self._path}: holds {self._end} bytes, spool.max_bytes allows {self._max}: bring Redis back"
            )
        try:
            view = memoryview(_FRAME.pack(len(body), crc32(body)) + body)
            at = self._end
            while view:
                written = os.write(self._file.fileno(), view)
                view, at = view[written:], at + written
        except OSError as error:
            self._cut()
            raise SpoolFull(f"{self._path}: {error.strerror}: free space there, or bring Redis back") from error
        self._end = at

    def _cut(self) -> None:
        self._file.truncate(self._end)

    def waiting(self) -> Iterator[Words]:
        """Entries not stored yet, oldest first; asking for the next says that the one before is stored."""
        at = self._start
        while at < self._end:
            body = self._read(at)
            if body is None:
                raise OSError(f"{self._path}: damaged at byte {at}")
            yield _words(body)
            # Only now: a caller that failed to store it meets it again.
            at += _FRAME.size + len(body)
            self._start = at
        self._file.truncate(0)
        self._start = self._end = 0

    def _read(self, at: int) -> bytes | None:
        frame = os.pread(self._file.fileno(), _FRAME.size, at)
        if len(frame) < _FRAME.size:
            return None
        length, check = _FRAME.unpack(frame)
        body = os.pread(self._file.fileno(), length, at + _FRAME.size)
        return body if 0 < length == len(body) and crc32(body) == check else None

    def _intact(self) -> int:
        at = 0
        while (body := self._read(at)) is not None:
            at += _FRAME.size + len(body)
        return at

    def close(self) -> None:
        """Let go of the file; what waits stays."""
        self._file.close()


def _words(body: bytes) -> Words:
    words, at = [], 0
    while at < len(body):
        (length,) = _WORD.unpack_from(body, at)
        words.append(body[at + 4 : at + 4 + length])
        at += 4 + length
    return words
