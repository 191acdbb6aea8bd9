"""How a job is told to stop: signals become exceptions, also while DuckDB is at a query.

Python runs a signal's handler when the main thread is back in Python code. DuckDB may be a long time in its own, and where it
does notice, it makes a RuntimeError of what the handler raises. So a thread of ours hears of the signal at once and interrupts
the queries, and what was heard is remembered. It goes on until the exception has reached Python code: DuckDB at times runs the
handler while a query begins, drops what it raises, and goes on with the query.
"""

from __future__ import annotations

import atexit
import contextlib
import select
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol

from mining.types import Terminated

_INTERRUPTED_FOR_S = 10.0

_seen: list[tuple[int, float]] = []
"""Which signal, and when."""
_heard: list[int] = []
"""Which signals, and never forgotten."""


class Interruptible(Protocol):
    """A connection of DuckDB's."""

    def interrupt(self) -> None:
        """End the query that is on, if one is."""


_Calls = list[tuple[FrameType, int]]
"""Each frame of the main thread, the outermost first, and at which instruction it was."""

_queried: weakref.WeakKeyDictionary[Interruptible, Callable[[], None]] = weakref.WeakKeyDictionary()
_ear: list[socket.socket] = []
_turn = threading.Lock()
"""Of the thread that interrupts queries, and of whoever tells it to leave off."""
_raised_in: list[_Calls] = []
"""Where the main thread was when it heard of the last signal, for as long as that matters."""
_told = [0]
"""How many signals that thread has heard of."""
_until_s = [0.0]
"""How long it goes on to interrupt."""
_holding: list[None] = []
_held: list[type[BaseException]] = []


def listen() -> None:
    """Have SIGTERM raise ``Terminated`` and Ctrl-C KeyboardInterrupt, and remember it. Ctrl-C stays ignored where it is.

    For the main thread of a program.
    """
    _seen.clear()
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    if not _ear:
        hears, told = socket.socketpair()
        told.setblocking(False)
        _ear[:] = [hears, told]
        thread = threading.Thread(target=_hear, args=(hears,), name="stop", daemon=True)
        thread.start()
        atexit.register(_deafen, told, thread)
    signal.set_wakeup_fd(_ear[1].fileno(), warn_on_full_buffer=False)


def seen() -> int | None:
    """Give the signal that told this process to stop."""
    return _seen[-1][0] if _seen else None


def told_s() -> float | None:
    """Seconds since this process was told to stop; None where it was not."""
    return time.monotonic() - _seen[0][1] if _seen else None


def forget() -> None:
    """Go on, as a prompt does after Ctrl-C has ended a query: what comes next is not interrupted for what came before."""
    with _turn:
        _seen.clear()
        with contextlib.suppress(BlockingIOError, IndexError):
            _ear[0].recv(4096, socket.MSG_DONTWAIT)
        _told[0], _until_s[0] = len(_heard), 0.0
        frames = _raised_in.copy()
        _raised_in.clear()
    del frames  # and what they held, which may do anything as it goes: not within the lock


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Have a signal that comes within the block raise at its end.

    For what ends the process if an exception comes out of nowhere: C++ code that imports Python modules, as torch does.
    """
    _holding.append(None)
    try:
        yield
    finally:
        _holding.pop()
        if _held and not _holding:
            raise _held.pop()


def interruptible(connection: Interruptible, give_up: Callable[[], None]) -> None:
    """Have the queries of a connection end when the job is told to stop; ``give_up`` ends what its files wait for."""
    _queried[connection] = give_up


def interrupt(connection: Interruptible) -> None:
    """End the query of a connection; it may begin another one."""
    if (give_up := _queried.get(connection)) is not None:
        give_up()
    connection.interrupt()


def _deafen(told: socket.socket, thread: threading.Thread) -> None:
    """End the thread: nothing may hold on to a connection while Python takes itself down."""
    signal.set_wakeup_fd(-1)
    told.close()
    thread.join(timeout=1)


def _hear(ear: socket.socket) -> None:
    while select.select([ear], [], [])[0]:
        with _turn:
            try:
                heard = ear.recv(4096, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue  # forgotten
            if not heard:
                return
            signals = sum(number in {signal.SIGTERM, signal.SIGINT} for number in heard)
            _told[0] += signals
            _until_s[0] = time.monotonic() + _INTERRUPTED_FOR_S if signals else 0.0
        # Again and again: between two queries it would be missed.
        while _interrupt_all():
            time.sleep(0.05)
        with _turn:
            # Of two signals at once Python may run the handler once. What it ran for another one is still to be read here.
            _told[0] = min(_told[0], len(_heard))
            frames = _raised_in.copy()
            _raised_in.clear()
        del frames  # see forget


def _interrupt_all() -> bool:
    """End the queries that are on; False where the main thread has the exception, or long enough was tried."""
    with _turn:
        if (len(_heard) >= _told[0] and _has_left()) or time.monotonic() > _until_s[0]:
            return False
        for connection in list(_queried):
            with contextlib.suppress(Exception):  # one that is closed
                interrupt(connection)
            del connection
    return True


def _has_left() -> bool:
    """Say whether the main thread is out of the call in which it heard of the last signal.

    An exception that a Python frame handles moves that frame on, or ends the program. One that C code dropped leaves all frames
    outside of that code where they were, with others inside of it or none.
    """
    now = _calls(sys._current_frames().get(threading.main_thread().ident or 0))
    raised_in = _raised_in[-1] if _raised_in else []
    if not now or not raised_in or now[0][0] is not raised_in[0][0]:
        return True
    for (frame, at), (other, then) in zip(now, raised_in, strict=False):
        if frame is not other:
            return False
        if at != then:
            return True
    return False


def _calls(frame: FrameType | None) -> _Calls:
    calls = []
    while frame is not None:
        calls.append((frame, frame.f_lasti))
        frame = frame.f_back
    return calls[::-1]


def _terminate(_: int, frame: FrameType | None) -> None:
    _note(signal.SIGTERM, frame)
    _raise(Terminated)


def _interrupt(_: int, frame: FrameType | None) -> None:
    _note(signal.SIGINT, frame)
    _raise(KeyboardInterrupt)


def _raise(kind: type[BaseException]) -> None:
    if not _holding:
        raise kind
    _held.append(kind)


def _note(number: int, frame: FrameType | None) -> None:
    _raised_in[:] = [_calls(frame)]
    _seen.append((number, time.monotonic()))
    _heard.append(number)
