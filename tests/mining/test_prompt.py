"""The prompt of ``mining sql``, on a terminal (a pseudo-terminal of the test's own)."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mining.synthetic import Drive, store_of

MINING = [sys.executable, "-c", "from mining.cli import main; main()"]


class Terminal:
    """A child process on a pseudo-terminal."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # Where the tests themselves run in the background, a shell has switched Ctrl-C off for them.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execve(sys.executable, [*MINING, *arguments], {**os.environ, **environment, "TERM": "dumb"})

    def until(self, pattern: str, again: str = "") -> str:
        """Read until the pattern is seen; fails after a long while. ``again`` is typed after each second of silence."""
        seen, end = "", time.monotonic() + 60
        while not re.search(pattern, seen):
            assert time.monotonic() < end, f"{pattern!r} never came; seen: {seen}"
            if not select.select([self.fd], [], [], 1.0)[0]:
                self.type(again)
                continue
            try:
                seen += os.read(self.fd, 65536).decode()
            except OSError:
                break
        assert re.search(pattern, seen), f"{pattern!r} never came; seen: {seen}"
        return seen

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def exit_code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    store = store_of(tmp_path_factory.mktemp("prompt"), Drive("r1", [0.1, 0.9]))
    return ["sql", "--store", str(store.root)]


@pytest.fixture
def terminal(arguments: list[str], tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(arguments, {"XDG_STATE_HOME": str(tmp_path)})
    terminal.until("mining> ")
    yield terminal
    os.close(terminal.fd)
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(terminal.pid, signal.SIGKILL)
        os.waitpid(terminal.pid, 0)


def test_statements_span_lines_errors_do_not_end_it_and_history_is_private(
    terminal: Terminal, arguments: list[str], tmp_path: Path
) -> None:
    terminal.type("SELECT count(*) + 40\n")
    terminal.until(r"\.\.\.> ")
    terminal.type("FROM mined;\n")
    assert "42" in terminal.until("mining> ")
    terminal.type("SELECT hardnes FROM mined;\n")
    assert '"hardness"' in terminal.until("mining> ")
    terminal.type("DROP VIEW mined;\n")
    assert "only reading" in terminal.until("mining> ")
    terminal.type("SELECT this, is\n")
    terminal.until(r"\.\.\.> ")
    terminal.type("\x03")  # Ctrl-C drops what was begun
    # Between writing the prompt and waiting for keys, readline misses it; a person presses it again.
    terminal.until("mining> ", again="\x03")
    terminal.type("SELECT 'still ' || 'here' AS words;\n")
    assert "still here" in terminal.until("mining> ")
    terminal.type(".quit\n")
    assert terminal.exit_code() == 0
    history = tmp_path / "mining" / "sql_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "FROM mined;" in history.read_text()

    again = Terminal(arguments, {"XDG_STATE_HOME": str(tmp_path)})
    again.until("mining> ")
    again.type("\x1b[A\x1b[A\n")  # up, up: the statement before .quit
    assert "still here" in again.until(r"still here[\s\S]*mining> ")
    again.type("\x04")
    assert again.exit_code() == 0


def test_dot_commands_tell_what_there_is(terminal: Terminal) -> None:
    for typed, words in {
        ".tables": "one box of one detector",
        ".schema scores": "FLOAT .*blend of percentiles",
        ".schema mined": "luma_mean",
        ".schema nothing": "with one of: recordings",
        ".macros": "has_class",
        ".help": "Ctrl-D leaves",
    }.items():
        terminal.type(typed + "\n")
        shown = terminal.until(r"\n(?:.*\n)*mining> ")
        assert re.search(words, shown), (typed, shown)
    terminal.type("\x04")
    assert terminal.exit_code() == 0


def test_ctrl_c_stops_a_query_and_no_error_ends_the_prompt(terminal: Terminal, arguments: list[str]) -> None:
    terminal.type("SELECT sum(a.i * b.i) FROM range(1000000000) AS a(i), range(1000000) AS b(i);\n")
    time.sleep(1)
    terminal.type("\x03")
    terminal.until("stopped[\\s\\S]*mining> ", again="\x03")
    for typed, words in {
        "SELECT DATE '99999-01-01' AS d, make_timestamp_ns(1) AS t, [INTERVAL 1 DAY] AS i;": "99999-01-01",
        "SELECT '\\xFF'::BLOB AS b, union_value(a := 'NaN'::FLOAT) AS u, 123::BIGNUM AS n;": "123",
        "SELECT error('no ' || 'such luck');": "no such luck",
        "WITH x AS (COPY (SELECT 1) TO 'x') FROM x;": "only reading",
    }.items():
        terminal.type(typed + "\n")
        terminal.until(f"{words}[\\s\\S]*mining> ")
    damaged = Path(arguments[-1]) / "tables" / "scores" / "night=2026-03-14" / "r1.parquet"
    content = damaged.read_bytes()
    damaged.unlink()
    terminal.type("SELECT 1;\n")
    terminal.until("missing or damaged[\\s\\S]*mining> ")
    damaged.write_bytes(content)
    terminal.type("SELECT 'still ' || 'here' AS words;\n")
    terminal.until("still here[\\s\\S]*mining> ")
    terminal.type("\x04")
    assert terminal.exit_code() == 0


def test_without_a_place_for_history_it_says_so_and_works(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    terminal = Terminal(arguments, {"XDG_STATE_HOME": str(tmp_path / "file")})
    assert "no history is kept" in terminal.until("mining> ")
    terminal.type("SELECT 40 + 2;\n")
    assert "42" in terminal.until("42[\\s\\S]*mining> ")
    terminal.type("\x04")
    assert terminal.exit_code() == 0
    os.close(terminal.fd)
