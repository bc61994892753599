"""Every Redis key of Thor."""

from __future__ import annotations

from typing import Final

INBOX: Final = "quotes:in"  # stream: producers' flat entries, any program may XADD
LOG: Final = "quotes:log"  # stream: the one log; entry n has ID n-0, one field `b` with the bytes
LATEST: Final = "quotes:latest:"  # + symbol, hash: the latest state of a symbol as text
REJECTED: Final = "quotes:rejected"  # stream: refused quotes with reason, source, raw entry; bounded
WRITER: Final = "ingester:writer"  # hash: the ingester's own state (n, seq, watermark, cursors, counts …)
SYMBOLS: Final = "ingester:symbols"  # hash: symbol → packed volume baseline and last snapshot
POSITIONS: Final = "log:positions"  # hash: projection → committed entry number, told after each commit
ROLLING: Final = "vwap:rolling:"  # + minutes, string (JSON), expires after 120 s
MARKETS: Final = "markets:status"  # string (JSON): every market as of the watermark, expires after 120 s
STALE: Final = "quotes:stale"  # hash: source → since when its values stand still, told by the watchdog
