"""``mining sql`` without a query, on a terminal: statements one after another, with history."""

from __future__ import annotations

import os
import readline  # gives input() its line editing and history
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from mining import stop
from mining.schemas import TABLES
from mining.text import printable
from mining.types import MiningError
from mining.views import VIEW_DOCS, sql_type

HELP = """\
A statement ends in ; and may take several lines. Ctrl-C drops it, Ctrl-D leaves.
  .tables         the views
  .schema NAME    the columns of a view
  .macros         at_night, has_class, near, ...
  .quit           leave
"""
_HISTORY_LENGTH = 2000


def run(answer: Callable[[str], None]) -> None:
    """Read statements until the end of input and have each answered; an error is shown and the next statement read."""
    history = _open_history()
    click.echo("mining sql: .help for help, .quit to leave")
    try:
        for statement in _statements():
            if statement.startswith("."):
                if not _command(statement.split(), answer):
                    break
                continue
            _answer(statement, answer)
    finally:
        _save_history(history)


def history_file() -> Path:
    """Where statements are remembered: XDG's folder for state, ``~/.local/state`` where none is set."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "mining" / "sql_history"


def _statements() -> Iterator[str]:
    """Collect lines until one ends in a semicolon; a line that begins with a dot is a command by itself."""
    lines: list[str] = []
    while True:
        try:
            line = input("   ...> " if lines else "mining> ")
        except KeyboardInterrupt:
            stop.forget()
            click.echo()
            lines = []
            continue
        except EOFError:
            click.echo()
            return
        if not lines and (not line.strip() or line.lstrip().startswith(".")):
            if line.strip():
                yield line.strip()
            continue
        lines.append(line)
        if line.rstrip().endswith(";"):
            yield "\n".join(lines)
            lines = []


def _command(words: Sequence[str], answer: Callable[[str], None]) -> bool:
    """Carry out a dot command; False to leave."""
    match words:
        case [".quit" | ".exit"]:
            return False
        case [".tables"]:
            width = max(map(len, VIEW_DOCS))
            click.echo("".join(f"{name:{width}}  {doc}\n" for name, doc in VIEW_DOCS.items()), nl=False)
        case [".schema", name] if name.strip('";') in TABLES:
            for field in TABLES[name.strip('";')]:
                doc = (field.metadata or {}).get(b"doc", b"").decode()
                click.echo(f"{field.name:32} {sql_type(field.type):14} {doc}".rstrip())
        case [".schema", "mined"]:
            _answer("SELECT column_name, column_type FROM (DESCRIBE mined)", answer)
        case [".schema", *_]:
            click.echo(f".schema NAME, with one of: {', '.join(VIEW_DOCS)}")
        case [".macros"]:
            _answer(
                "SELECT function_name AS macro, parameters FROM duckdb_functions() "
                "WHERE function_type = 'macro' AND NOT internal ORDER BY macro",
                answer,
            )
        case _:
            click.echo(HELP, nl=False)
    return True


def _answer(statement: str, answer: Callable[[str], None]) -> None:
    try:
        answer(statement)
    except MiningError as error:
        click.echo(printable(str(error)), err=True)
    except KeyboardInterrupt:
        stop.forget()
        click.echo("stopped", err=True)


def _open_history() -> Path | None:
    """Load what was typed before; None, said once, where no history can be kept."""
    path = history_file()
    readline.clear_history()
    readline.set_history_length(_HISTORY_LENGTH)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)  # queries can hold places and plates: nobody else's business
        path.chmod(0o600)
        readline.read_history_file(path)
    except OSError as error:
        click.echo(f"no history is kept: {path}: {error.strerror}", err=True)
        return None
    return path


def _save_history(path: Path | None) -> None:
    if path is not None:
        try:
            readline.write_history_file(path)
        except OSError as error:
            click.echo(f"history was not saved: {path}: {error.strerror}", err=True)
