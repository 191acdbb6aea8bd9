"""How a job is told to stop, and that it was: some libraries make an error of their own of what a signal handler raises."""

from __future__ import annotations

import signal

from mining.types import Terminated

_seen: list[int] = []


def listen() -> None:
    """Have SIGTERM raise ``Terminated`` and Ctrl-C KeyboardInterrupt, and remember it. Ctrl-C stays ignored where it is."""
    _seen.clear()
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def seen() -> int | None:
    """Give the signal that told this process to stop; DuckDB, for one, says "Query interrupted" then, a RuntimeError."""
    return _seen[-1] if _seen else None


def _terminate(*_: object) -> None:
    _seen.append(signal.SIGTERM)
    raise Terminated


def _interrupt(*_: object) -> None:
    _seen.append(signal.SIGINT)
    raise KeyboardInterrupt
