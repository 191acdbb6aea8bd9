"""How signals become exceptions, in a process of its own for each."""

from __future__ import annotations

import subprocess
import sys

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


def said(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_signal_that_is_held_back_is_raised_at_the_end_of_the_block() -> None:
    assert said(HELD_BACK) == ["to its end", "stopped", "at once"]


def test_what_is_forgotten_interrupts_nothing_any_more() -> None:
    assert said(FORGOTTEN) == ["left off"]
