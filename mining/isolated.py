"""Runs functions in processes of their own: what touches bytes from outside, so that where it crashes or hangs, that process goes,
not the night; and what would have to share Python's lock.

FFmpeg is C, and footage comes from vehicles: a file that makes it crash or loop must cost its own frames and nothing else.
A ``Worker`` is one such process. It is started when it is first used, used again and again, and started anew after a crash.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from mining.types import MiningError

_BEGUN, _ITEM, _END, _ERROR = range(4)
_START_TIMEOUT_S = 300.0
"""For a process to start and to import what it needs, on a machine that is busy with other things."""


_SLOTS = 2
"""Items whose arrays may lie in shared memory at a time: one that is being written, one that is being read."""


class Crashed(MiningError):
    """The process ended, or gave no answer in time; the message is one line."""


class Cancelled(MiningError):
    """Another thread has no more use for the answer."""


class Worker:
    """One process that runs functions, one after another. Not for use by two threads at a time, but for ``cancel``."""

    def __init__(self) -> None:
        self._cancelled = False
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: Connection | None = None
        self._lifeline: socket.socket | None = None
        self._arena: _Arena | None = None

    def run(self, function: Callable[..., Any], *arguments: Any, timeout_s: float) -> Iterator[Any]:
        """Yield what a module's function gives: the items of an iterator, or the one value that it returns.

        An iterator that is closed early ends the process, for nothing else stops the function.

        Args:
            function, arguments: what ``pickle`` can send; so must be what comes back.
            timeout_s: for each item.

        Raises:
            Crashed: the process ended, or gave no item in time. What the function itself raises is raised as it is.
            Cancelled: ``cancel`` was called.
        """
        answers = self._started()
        done = False
        try:
            answers.send_bytes(pickle.dumps((function, arguments), protocol=5))
            limit_s = _START_TIMEOUT_S
            while True:
                if not answers.poll(limit_s):
                    raise Crashed(f"gave no answer for {limit_s:.0f} s")
                limit_s = timeout_s
                kind, value = self._receive(answers)
                if kind == _BEGUN:
                    continue
                if kind == _ITEM:
                    yield value
                    continue
                done = True
                if kind == _ERROR:
                    raise value
                return
        except (EOFError, ConnectionError):
            if self._cancelled:
                raise Cancelled from None
            raise Crashed(f"crashed ({self._how_it_ended()})") from None
        finally:
            if not done:
                self.close()

    def call(self, function: Callable[..., Any], *arguments: Any, timeout_s: float) -> Any:
        """Return the one value of a function: see ``run``."""
        (value,) = self.run(function, *arguments, timeout_s=timeout_s)
        return value

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._answers is not None
            assert self._lifeline is not None
            assert self._arena is not None
            self._answers.close()
            self._lifeline.close()
            self._arena.close()
            self._process = None

    def cancel(self) -> None:
        """End the function that another thread waits for: it gets ``Cancelled``, now and for whatever it asks for next."""
        with self._starting:
            self._cancelled = True
            if (process := self._process) is not None:
                process.kill()

    def _started(self) -> Connection:
        with self._starting:
            if self._cancelled:
                raise Cancelled
            return self._connection()

    def _connection(self) -> Connection:
        if self._process is None:
            ours, theirs = socket.socketpair()
            line, end = socket.socketpair()
            self._arena = _Arena(_memory())
            # sys.path as it is here, so that the same code runs there, however this process was started.
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; from mining.isolated import serve; "
                f"serve({theirs.fileno()}, {end.fileno()}, {self._arena.file})"
            )
            with theirs, end:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code],
                    pass_fds=(theirs.fileno(), end.fileno(), self._arena.file),
                    stdin=subprocess.DEVNULL,
                )
            self._answers, self._lifeline = Connection(ours.detach()), line
        assert self._answers is not None
        return self._answers

    def _receive(self, answers: Connection) -> Any:
        try:
            message = answers.recv_bytes()
        except OSError:  # one that ends in its middle
            raise EOFError from None
        # Both ends are ours: the child runs our code, and a file that takes it over has taken this machine.
        slot, sizes, content = pickle.loads(message)  # noqa: S301
        assert self._arena is not None
        buffers = self._arena.read(slot, sizes)
        if sizes:
            answers.send_bytes(b"")  # the slot is free again
        return pickle.loads(content, buffers=buffers)  # noqa: S301

    def _how_it_ended(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"exit code {code}"


class _Arena:
    """Shared memory in ``_SLOTS`` equal parts, through which the bytes of arrays go: a pipe would take ten times as long."""

    def __init__(self, file: int) -> None:
        self.file = file
        self._slot_bytes = 0
        self._map: mmap.mmap | None = None

    def fits(self, size: int) -> bool:
        return size <= self._slot_bytes

    def grow(self, size: int) -> None:
        """Make room for ``size`` bytes in each slot. Nothing may lie in any."""
        os.ftruncate(self.file, _SLOTS * size)
        self._open(size)

    def write(self, slot: int, buffers: list[memoryview]) -> None:
        at = slot * self._slot_bytes
        for buffer in buffers:
            assert self._map is not None
            self._map[at : at + buffer.nbytes] = buffer
            at += buffer.nbytes

    def read(self, slot: tuple[int, int], sizes: list[int]) -> list[bytearray]:
        """Copy out what lies in a slot: (its number, bytes a slot)."""
        number, slot_bytes = slot
        if slot_bytes != self._slot_bytes:
            self._open(slot_bytes)
        at, found = number * slot_bytes, []
        for size in sizes:
            assert self._map is not None
            with memoryview(self._map) as view:
                found.append(bytearray(view[at : at + size]))
            at += size
        return found

    def _open(self, slot_bytes: int) -> None:
        if self._map is not None:
            self._map.close()
        self._slot_bytes = slot_bytes
        self._map = mmap.mmap(self.file, _SLOTS * slot_bytes)

    def place(self, number: int) -> tuple[int, int]:
        return number, self._slot_bytes

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
        os.close(self.file)


def _memory() -> int:
    """Open a file that lies in memory and has no name, where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("mining")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class _Sender:
    """The child's end."""

    def __init__(self, connection: Connection, arena: _Arena) -> None:
        self._connection, self._arena = connection, arena
        self._sent = self._unread = 0

    def send(self, value: Any) -> None:
        """Send a value; arrays go through the arena."""
        buffers: list[pickle.PickleBuffer] = []
        content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        raw = [buffer.raw() for buffer in buffers]
        size = sum(view.nbytes for view in raw)
        if raw:
            while self._unread == _SLOTS or (self._unread and not self._arena.fits(size)):
                self._connection.recv_bytes()
                self._unread -= 1
            if not self._arena.fits(size):
                self._arena.grow(size)
            self._arena.write(self._sent % _SLOTS, raw)
            self._unread += 1
        place = self._arena.place(self._sent % _SLOTS)
        self._connection.send_bytes(pickle.dumps((place, [view.nbytes for view in raw], content)))
        self._sent += bool(raw)

    def all_read(self) -> None:
        """Wait until nothing lies in the arena."""
        while self._unread:
            self._connection.recv_bytes()
            self._unread -= 1


def serve(answers: int, lifeline: int, arena: int) -> None:
    """Run what is asked for, until nobody asks any more. The body of a worker's process."""
    # Ctrl-C goes to all of a terminal's processes, SIGTERM at times to all of a service's; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out, the kernel takes this process, not the job
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    connection = Connection(answers)
    sender = _Sender(connection, _Arena(arena))
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            function, arguments = pickle.loads(connection.recv_bytes())  # noqa: S301  (from our own parent)
            sender.send((_BEGUN, None))
            try:
                found = function(*arguments)
                for item in found if isinstance(found, Iterator) else (found,):
                    sender.send((_ITEM, item))
                last: tuple[int, Exception | None] = (_END, None)
            except (EOFError, ConnectionError):
                raise
            except Exception as error:
                last = (_ERROR, _sendable(error))
            sender.all_read()
            sender.send(last)


def _die_with_parent(lifeline: int) -> None:
    """Wait for the parent's end, also where it was killed, and go, whatever this process is stuck in."""
    with socket.socket(fileno=lifeline) as line:
        with contextlib.suppress(OSError):
            line.recv(1)
        os._exit(1)


def _sendable(error: Exception) -> Exception:
    with contextlib.suppress(Exception):
        if type(pickle.loads(pickle.dumps(error))) is type(error):  # noqa: S301  (our own bytes)
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")
