"""What crashes or hangs in a worker costs that worker, and says how."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from mining.footage import FootageError
from mining.isolated import Cancelled, Crashed, Worker


def pictures(count: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for i in range(count):
        yield i, np.full((30, 40, 3), i, np.uint8)


def crash_after(count: int) -> Iterator[int]:
    yield from range(count)
    os.kill(os.getpid(), signal.SIGSEGV)


def hang_after(count: int) -> Iterator[int]:
    yield from range(count)
    time.sleep(3600)


def end_within_a_message() -> None:
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                os.write(int(fd), struct.pack("!i", 100) + b"not a hundred")
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise FootageError("nothing in it")


def odd() -> None:
    class Odd(Exception):
        pass

    raise Odd("cannot be sent")


def pid() -> int:
    return os.getpid()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def test_one_that_ends_within_a_message_has_crashed(worker: Worker) -> None:
    with pytest.raises(Crashed, match=r"crashed \(SIGKILL\)"):
        worker.call(end_within_a_message, timeout_s=60)
    assert worker.call(pid, timeout_s=60) != os.getpid()


def test_another_thread_can_end_it(worker: Worker) -> None:
    found, caught = list[int](), list[BaseException]()

    def work() -> None:
        try:
            found.extend(worker.run(hang_after, 0, timeout_s=3600))
        except Cancelled as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until = time.monotonic() + 60
    while worker._process is None and time.monotonic() < until:
        time.sleep(0.01)
    worker.cancel()
    thread.join(timeout=60)
    assert (len(caught), found, thread.is_alive()) == (1, [], False)
    with pytest.raises(Cancelled):
        worker.call(pid, timeout_s=60)


def test_items_come_as_they_are_and_the_process_is_used_again(worker: Worker) -> None:
    for _ in range(2):
        found = list(worker.run(pictures, 5, timeout_s=60))
        assert [i for i, _ in found] == list(range(5))
        assert all((picture == i).all() and picture.shape == (30, 40, 3) for i, picture in found)
        found[0][1][:] = 9  # and may be written to
    assert worker.call(pid, timeout_s=60) == worker.call(pid, timeout_s=60) != os.getpid()
    assert list(worker.run(pictures, 0, timeout_s=60)) == []


def test_a_crash_is_named_and_the_next_call_works(worker: Worker) -> None:
    found: list[int] = []
    with pytest.raises(Crashed, match=r"crashed \(SIGSEGV\)"):
        found.extend(worker.run(crash_after, 3, timeout_s=60))
    assert found == [0, 1, 2]
    assert worker.call(pid, timeout_s=60)


def test_a_hang_is_ended_and_the_next_call_works(worker: Worker) -> None:
    before = worker.call(pid, timeout_s=60)
    with pytest.raises(Crashed, match="gave no answer for 1 s"):
        list(worker.run(hang_after, 2, timeout_s=1))
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    assert worker.call(pid, timeout_s=60)


def test_what_the_function_raises_is_raised(worker: Worker) -> None:
    with pytest.raises(FootageError, match="nothing in it"):
        worker.call(refuse, timeout_s=60)
    with pytest.raises(RuntimeError, match="Odd: cannot be sent"):
        worker.call(odd, timeout_s=60)


def test_an_iterator_that_is_left_ends_the_process(worker: Worker) -> None:
    first = worker.call(pid, timeout_s=60)
    items = worker.run(hang_after, 1, timeout_s=60)
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_worker_goes_when_its_parent_is_killed() -> None:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from mining.isolated import Worker\nfrom tests.mining.test_isolated import pid, hang_after\n"
        "worker = Worker()\nprint(worker.call(pid, timeout_s=60), flush=True)\n"
        "list(worker.run(hang_after, 0, timeout_s=600))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        # In a container nobody may collect it: a process that has ended and is still listed is gone all the same.
        with open(f"/proc/{child}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                return
        time.sleep(0.05)
    pytest.fail("the worker lives on")
