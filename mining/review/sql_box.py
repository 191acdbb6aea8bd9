"""The SQL box of the review page: one statement that can only read, within bounds of rows, time and memory."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from threading import BoundedSemaphore, Lock

from mining.ask import asked
from mining.places import Place
from mining.types import QueryError, TemporaryError

ROWS = 1000
TIMEOUT_S = 30.0
MEMORY_MB = 2048
ANSWER_BYTES = 16 << 20
_WAITING = 4


class SqlBox:
    """Answers one query at a time; a few wait, more are sent away."""

    def __init__(self, stores: Sequence[Place], *, timeout_s: float = TIMEOUT_S) -> None:
        self._stores, self._timeout_s = list(stores), timeout_s
        self._turn, self._waiting = Lock(), BoundedSemaphore(1 + _WAITING)

    def answer(self, text: str) -> str:
        """Run a statement.

        Returns:
            JSON: columns (name, type), rows, truncated (there are more rows), seconds.

        Raises:
            QueryError: it is wrong, would write, takes too long or too much memory, or its answer is too large for a page.
            TemporaryError: too many queries are waiting.
        """
        if not self._waiting.acquire(blocking=False):
            raise TemporaryError("other queries are waiting already; ask again when they are done")
        try:
            with self._turn:
                began = time.monotonic()
                with asked(
                    self._stores, text, timeout_s=self._timeout_s, memory_mb=MEMORY_MB,
                    way_out="ask for less: a night, a drive, a LIMIT",
                ) as rows:  # fmt: skip
                    columns = [{"name": name, "type": str(of)} for name, of in rows.columns()]
                    found, truncated = rows.json_arrays(ROWS, ANSWER_BYTES)
                seconds = time.monotonic() - began
        finally:
            self._waiting.release()
        if truncated and not found:
            raise QueryError(
                f"its first row alone is larger than {ANSWER_BYTES >> 20} MB; ask for fewer columns"
            )
        head = json.dumps({"columns": columns, "truncated": truncated, "seconds": round(seconds, 3)})
        return f'{head[:-1]},"rows":[{",".join(found)}]}}'
