"""How signals become exceptions, in a process of its own for each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HELD_BACK = """
import os, signal, time
from mining import stop
from mining.types import Terminated
stop.listen()
try:
    with stop.held_back():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        print("to its end")
    print("behind it")
except Terminated:
    print("stopped")
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
except Terminated:
    print("at once")
"""
# OpenVINO asks a Python object for each operation that it converts, and makes a RuntimeError of its own of whatever that raises.
CONVERTS = """
import os, signal, sys, time
from types import SimpleNamespace
from detectors import compiled, ultralytics
from detectors.types import DetectorSpec
from mining import committee, stop
from mining.types import Terminated
ultralytics.cpu_has = lambda precision: True

def asked(self):
    if not sent:
        sent.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    return real(self)

sent = []
real = compiled.TorchScriptPythonDecoder.get_op_type
compiled.TorchScriptPythonDecoder.get_op_type = asked
config = SimpleNamespace(resolved=lambda spec: spec)
stop.listen()
try:
    committee.load_alone(config, DetectorSpec(sys.argv[1], precision="bf16", device="cpu"))
    print("behind it")
except Terminated:
    print("stopped", *sent)
"""
# Two signals of which Python ran the handler once, or not yet: a thread interrupts queries, until it is told to leave off.
FORGOTTEN = """
import signal, time
from mining import stop

class Connection:
    count = 0
    def interrupt(self):
        self.count += 1

def settled():
    before = connection.count
    time.sleep(0.5)
    return connection.count - before

stop.listen()
connection = Connection()
stop.interruptible(connection, lambda: None)
stop._ear[1].send(bytes([signal.SIGINT, signal.SIGINT]))
while not connection.count:
    time.sleep(0.01)
assert settled() > 1
stop.forget()
assert settled() == 0
stop._ear[1].send(bytes([signal.SIGINT]))
assert settled() > 1
print("left off")
"""
# C code that drops the first exception out of its callback, and goes on until it is interrupted. So does DuckDB, a query in hundreds.
DROPPED = """
import ctypes, os, signal, threading, time
from mining import stop
from mining.types import Terminated

class Connection:
    ended = threading.Event()
    count = 0
    def interrupt(self):
        self.count += 1
        self.ended.set()

stop.listen()
connection = Connection()
stop.interruptible(connection, lambda: None)
compared = []
def compare(*_):
    compared.append(None)
    if len(compared) == 1:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)  # ends with the exception
    elif len(compared) == 2:
        connection.ended.clear()  # what came before the exception does not count
        print("interrupted" if connection.ended.wait(5) else "forgotten")
    return 0
callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(compare)
numbers = (ctypes.c_int * 3)(1, 2, 3)
ctypes.CDLL(None).qsort(numbers, 3, 4, callback)
time.sleep(0.2)
before = connection.count
time.sleep(0.5)
print(connection.count - before)
"""
# The program ends before the thread has looked again. What is registered first runs last.
ENDED = """
import atexit, os, signal, threading, time
from mining import stop
from mining.types import Terminated

class Connection:
    def interrupt(self):
        pass

atexit.register(lambda: print([thread.name for thread in threading.enumerate()]))
stop.listen()
connection = Connection()
stop.interruptible(connection, lambda: None)
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
except Terminated:
    pass
"""
# The second signal's handler runs while the thread is still at the first: a tenth of a second later nothing is on any more.
TWICE = """
import os, signal, sys, time
from mining import stop
from mining.types import Terminated

class Connection:
    count = 0
    def interrupt(self):
        self.count += 1
        if self.count == 1:  # the thread is here
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

stop.listen()
connection = Connection()
stop.interruptible(connection, lambda: None)
try:
    stop._ear[1].send(bytes([signal.SIGTERM]))  # the first: its handler is yet to run
    time.sleep(5)
except Terminated:
    pass
stop._heard.append(signal.SIGTERM)
time.sleep(0.3)
before = connection.count
time.sleep(0.5)
print(connection.count - before)
"""
# At a prompt, what the query had in its hands goes at once.
LET_GO = """
import gc, os, signal, time, weakref
from mining import stop

class Held:
    pass

def query():
    held = Held()
    held_by_frames.append(weakref.ref(held))
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)

held_by_frames = []
signal.signal(signal.SIGINT, signal.default_int_handler)
stop.listen()
for _ in range(3):
    try:
        query()
    except KeyboardInterrupt:
        stop.forget()
    print(held_by_frames[-1]())
"""


def said(code: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_signal_that_is_held_back_is_raised_at_the_end_of_the_block() -> None:
    assert said(HELD_BACK) == ["to its end", "stopped", "at once"]


def test_a_signal_while_a_network_is_converted_is_not_taken_for_its_fault(shared_data: Path) -> None:
    assert said(CONVERTS, str(shared_data / "weights" / "yolov8n_weather.pt")) == ["stopped 1"]


def test_what_is_forgotten_interrupts_nothing_any_more() -> None:
    assert said(FORGOTTEN) == ["left off"]


def test_queries_are_interrupted_until_the_exception_has_reached_python() -> None:
    assert said(DROPPED) == ["interrupted", "0"]


def test_the_thread_ends_with_the_program() -> None:
    assert said(ENDED) == ["['MainThread']"]


def test_a_signal_that_python_has_heard_of_is_not_waited_for() -> None:
    assert said(TWICE) == ["0"]


def test_what_is_forgotten_is_let_go() -> None:
    assert said(LET_GO) == ["None"] * 3
