"""SQL from people: one statement over the store that can do nothing but read."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from mining.places import Place
from mining.results import Rows, rows_of
from mining.store import Store
from mining.types import Nights, QueryError, UsageError
from mining.views import check_that_it_reads, connect, unreadable


def query(
    stores: Sequence[Place],
    text: str,
    *,
    parameters: Mapping[str, Any] | None = None,
    nights: Nights | None = None,
    timeout_s: float | None = None,
) -> pa.Table:
    """Answer one statement over what these stores hold now.

    Args:
        stores: folders of stores, read together.
        text: one statement that reads; it sees the views and macros, and no file but theirs.
        parameters: values for its ``$name``.
        nights: list and read only these.
        timeout_s: give up after this long.

    Raises:
        QueryError: the statement is wrong, would write, lacks a parameter, or takes too long; DuckDB's message where it has
            one, with the line.
        MiningError: a file of the store cannot be read.
    """
    with asked(stores, text, parameters=parameters, nights=nights, timeout_s=timeout_s) as rows:
        return rows.table()


@contextmanager
def asked(
    stores: Sequence[Place],
    text: str,
    *,
    parameters: Mapping[str, Any] | None = None,
    nights: Nights | None = None,
    timeout_s: float | None = None,
    memory_mb: int | None = None,
    **how: str,
) -> Iterator[Rows]:
    """Open the answer to one statement, to fetch or to write it: see ``query`` for what goes in and what is raised.

    ``memory_mb`` is what DuckDB may hold in memory; ``how`` goes to ``Rows``.
    """
    given = dict(parameters or {})
    with connect([Store(path) for path in stores], nights=nights, locked=True, memory_mb=memory_mb) as con:
        try:
            words, source = _reading_statement(con, text)
            wanted = con.extract_statements(f"{words}FROM {source}")[0].named_parameters
            missing, unknown = sorted(wanted - set(given)), sorted(set(given) - wanted)
            if missing:
                raise QueryError(f"the query needs a value for ${missing[0]}: add --param {missing[0]}=VALUE")
            if unknown:
                raise QueryError(f"--param {unknown[0]}: the query has no ${unknown[0]}")
            rows = Rows(con, source, given, timeout_s, **how)
            if words:
                plan = f"{words}FROM {source}"
                with rows_of(rows.step(lambda: con.sql(plan, params=given).to_arrow_table())) as explained:
                    yield explained
            else:
                yield rows
        except duckdb.InterruptException:
            raise QueryError("stopped") from None
        except duckdb.Error as error:
            raise unreadable(error) or QueryError(_with_hint(_as_written(str(error)), con)) from None


def text_of(file: Path) -> str:
    """Read a query from a file."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--file {file}: cannot be read: {error}") from None


def parameter(text: str) -> tuple[str, Any]:
    """Read ``name=value``; the value as TOML reads it (number, date, true, "text"), or as text where it is none."""
    name, sign, value = text.partition("=")
    if not sign or not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise UsageError(f"--param {text}: write it as name=value, and $name in the query")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


# What may stand between words: spaces and comments. Atomic, so that no text makes it try splits one after another.
_GAP = r"(?>\s|--[^\r\n]*|/\*(?s:.*?)\*/)*+"
_EXPLAIN = re.compile(rf"{_GAP}EXPLAIN\b{_GAP}(ANALY[SZ]E\b)?{_GAP}", re.IGNORECASE)
# Words only: a quote among them could end elsewhere than it seems.
_EXPLAIN_OPTIONS = re.compile(r"\([\w\s,]*\)")


def _reading_statement(con: duckdb.DuckDBPyConnection, text: str) -> tuple[str, str]:
    """Make the statement to run, as EXPLAIN's words, if any, and what stands behind FROM: the person's query in brackets.

    DuckDB calls ``WITH x AS (COPY ... TO file) FROM x`` a SELECT too, and runs it; within a subquery it refuses that, unless
    a function runs it as a statement of its own. What EXPLAIN ANALYZE explains is run, so the same holds for it; its own
    words are written anew, whatever hid among them.
    """
    kind = _kind(con, text)
    if kind == duckdb.StatementType.EXPLAIN:
        head = _EXPLAIN.match(text)
        if head is None:
            raise QueryError("write EXPLAIN or EXPLAIN ANALYZE at the very beginning")
        at, words = head.end(), "EXPLAIN ANALYZE" if head[1] else "EXPLAIN"
        options = _EXPLAIN_OPTIONS.match(text, at)
        if options and not _parses(con, text[at:]):  # else it is a query in brackets
            at, words = options.end(), f"{words} {' '.join(options[0].split())}"
        words, text = f"{words} ", "\n" * text.count("\n", 0, at) + text[at:]  # lines keep their numbers
        kind = _kind(con, text)
    else:
        words = ""
    if kind == duckdb.StatementType.MULTI:
        raise QueryError("PIVOT needs its values named here: PIVOT ... ON column IN ('a', 'b')")
    if kind != duckdb.StatementType.SELECT:
        raise QueryError(f"only reading is allowed here, not {kind.name}")
    source = f"(\n{_without_semicolon(text)}\n)"
    if _kind(con, f"{words}FROM {source}") != (
        duckdb.StatementType.EXPLAIN if words else duckdb.StatementType.SELECT
    ):
        raise QueryError("only reading is allowed here")
    check_that_it_reads(con, f"FROM {source}")
    return words, source


def _kind(con: duckdb.DuckDBPyConnection, text: str) -> Any:
    """Parse the text, which must be one statement."""
    try:
        statements = con.extract_statements(text)
    except duckdb.Error as error:
        raise QueryError(str(error).strip()) from None
    except TypeError:  # lone surrogates
        raise QueryError("the query is not valid Unicode text") from None
    if len(statements) != 1:
        raise QueryError(f"one statement at a time, got {len(statements)}")
    try:
        return statements[0].type
    except ValueError:  # newer than the Python package knows; reading is as old as SQL
        raise QueryError("only reading is allowed here") from None


def _parses(con: duckdb.DuckDBPyConnection, text: str) -> bool:
    try:
        return bool(con.extract_statements(text))
    except duckdb.Error:
        return False


def _without_semicolon(text: str) -> str:
    """Leave out the semicolon at the end and what stands behind it, which can only be comments."""
    content = text.encode()  # DuckDB counts bytes
    for at, kind in duckdb.tokenize(text):
        if kind == duckdb.token_type.operator and content[at : at + 1] == b";":
            return content[:at].decode()
    return text


def _as_written(message: str) -> str:
    """Count lines as the person does: the statement that was run has one before theirs."""
    return re.sub(
        r"^LINE (\d+):",
        lambda line: f"LINE {int(line[1]) - 1:>{len(line[1])}}:",
        message.strip(),
        flags=re.MULTILINE,
    )


def _with_hint(message: str, con: duckdb.DuckDBPyConnection) -> str:
    """Name the nearest column where DuckDB does not: it does so for bare names, not for ``m.name``."""
    match = re.search(r'does not have a column named "([^"]*)"', message)
    if match is None or "Did you mean" in message or "Candidate" in message:
        return message
    names = con.execute("SELECT DISTINCT column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
    close = difflib.get_close_matches(match[1], sorted(name for (name,) in names), n=3)
    return message.replace(match[0], f"{match[0]}; nearest: {', '.join(close)}") if close else message
