"""SQL from people: one reading statement over the store, and its result as table, CSV, JSON or Parquet."""

from __future__ import annotations

import difflib
import json
import math
import re
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mining.store import Store
from mining.text import printable
from mining.types import Nights, QueryError, UsageError
from mining.views import connect


def query(
    stores: Sequence[Path],
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
    """
    given = dict(parameters or {})
    with connect([Store(path) for path in stores], nights=nights, locked=True) as con:
        try:
            wanted = _reading_statement(con, text).named_parameters
            missing, unknown = sorted(wanted - set(given)), sorted(set(given) - wanted)
            if missing:
                raise QueryError(f"the query needs a value for ${missing[0]}: add --param {missing[0]}=VALUE")
            if unknown:
                raise QueryError(f"--param {unknown[0]}: the query has no ${unknown[0]}")
            with _limited(con, timeout_s):
                return _with_unique_names(con.sql(text, params=given).to_arrow_table())
        except duckdb.InterruptException:
            raise QueryError(
                f"stopped after {timeout_s:g} s; ask for fewer nights (--nights), or give it longer (--timeout)"
            ) from None
        except duckdb.Error as error:
            raise QueryError(_with_hint(_with_line(error, con, text, given), con)) from None


def text_of(file: Path) -> str:
    """Read a query from a file."""
    try:
        return file.read_text(encoding="utf-8")
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


def _reading_statement(con: duckdb.DuckDBPyConnection, text: str) -> Any:
    """Parse the text: one statement, and one that only reads."""
    statements = con.extract_statements(text)
    if len(statements) != 1:
        raise QueryError(f"one statement at a time, got {len(statements)}")
    try:
        kind = statements[0].type
    except ValueError:  # newer than the Python package knows; reading is as old as SQL
        raise QueryError("only reading is allowed here") from None
    if kind == duckdb.StatementType.EXPLAIN:  # with ANALYZE it runs what it explains
        return _reading_statement(con, _explained_statement(text)) and statements[0]
    if kind == duckdb.StatementType.MULTI:
        raise QueryError("PIVOT needs its values named here: PIVOT ... ON column IN ('a', 'b')")
    if kind != duckdb.StatementType.SELECT:
        raise QueryError(f"only reading is allowed here, not {kind.name}")
    return statements[0]


def _explained_statement(text: str) -> str:
    """What stands behind EXPLAIN, ANALYZE and options in brackets."""
    starts = [at for at, kind in duckdb.tokenize(text) if kind != duckdb.token_type.comment]
    words = [text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    at = 1
    if words[at].upper().split()[0] in {"ANALYZE", "ANALYSE"}:
        at += 1
    elif words[at].startswith("(") and not words[at + 1].upper().startswith(
        ("SELECT", "FROM", "WITH", "VALUES", "(")
    ):
        while not words[at].startswith(")"):
            at += 1
        at += 1
    return text[starts[at] :]


def _with_line(error: duckdb.Error, con: duckdb.DuckDBPyConnection, text: str, given: dict[str, Any]) -> str:
    """DuckDB's message with the line it is about: only ``execute`` shows that for errors of names, ``sql`` does not."""
    if isinstance(error, duckdb.BinderException | duckdb.CatalogException) and "LINE " not in str(error):
        try:
            con.execute(text, given)  # fails on the same name, before anything runs
        except duckdb.Error as again:
            error = again
    return str(error).strip()


def _with_hint(message: str, con: duckdb.DuckDBPyConnection) -> str:
    """Name the nearest column where DuckDB does not: it does so for bare names, not for ``m.name``."""
    match = re.search(r'does not have a column named "([^"]*)"', message)
    if match is None or "Did you mean" in message or "Candidate" in message:
        return message
    names = con.execute("SELECT DISTINCT column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
    close = difflib.get_close_matches(match[1], sorted(name for (name,) in names), n=3)
    return message.replace(match[0], f"{match[0]}; nearest: {', '.join(close)}") if close else message


def _with_unique_names(table: pa.Table) -> pa.Table:
    """Number columns that bear the name of an earlier one, as DuckDB does in subqueries: neither CSV's nor JSON's readers
    could tell them apart."""
    names: list[str] = []
    for name in table.column_names:
        unique, n = name, 0
        while unique in names:
            n += 1
            unique = f"{name}_{n}"
        names.append(unique)
    return table.rename_columns(names)


@contextmanager
def _limited(con: duckdb.DuckDBPyConnection, timeout_s: float | None) -> Iterator[None]:
    timer = None if timeout_s is None else threading.Timer(timeout_s, con.interrupt)
    if timer:
        timer.start()
    try:
        yield
    finally:
        if timer:
            timer.cancel()


def write(table: pa.Table, output_format: str, output: Path | None) -> None:
    """Write a result to a file or to standard output."""
    if output_format == "table" and output is None:
        show(table)
        return
    for i, column in enumerate(table.columns):
        if pa.types.is_interval(column.type):  # Arrow writes these nowhere
            text = [None if value is None else str(value) for value in column.to_pylist()]
            table = table.set_column(i, table.column_names[i], pa.array(text, pa.string()))
    if output_format == "parquet" and output is None and sys.stdout.isatty():
        raise UsageError("Parquet is not for the screen: add --output FILE, or redirect")
    content = _WRITERS[output_format](table)
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        try:
            output.write_bytes(content)
        except OSError as error:
            raise UsageError(f"{output}: cannot be written: {error.strerror}") from None


def show(table: pa.Table) -> None:
    """Print a result as DuckDB's boxed table, as wide as the terminal."""
    click.echo(_boxed(table).decode())


def _boxed(table: pa.Table) -> bytes:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("result", table)
        return printable(str(con.sql("FROM result"))).encode()


def _csv(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    flat = pa.table({name: _flat(table[name]) for name in table.column_names})
    pyarrow.csv.write_csv(flat, sink)
    return sink.getvalue().to_pybytes()


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Write lists, maps and structs as JSON text: CSV has no cell for them."""
    if not pa.types.is_nested(column.type):
        return column
    plain = [_plain(value, column.type) for value in column.to_pylist()]
    return pa.array(
        [None if value is None else json.dumps(value, default=str) for value in plain], pa.string()
    )


def _json(table: pa.Table) -> bytes:
    columns = [
        [_plain(v, table.schema.field(i).type) for v in table[i].to_pylist()]
        for i in range(table.num_columns)
    ]
    rows = [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]
    return (json.dumps(rows, ensure_ascii=False, default=str) + "\n").encode()


def _plain(value: Any, of: pa.DataType) -> Any:
    """Turn a value into what JSON has: maps into objects, NaN and infinities into null."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if pa.types.is_map(of):
        return {str(key): _plain(item, of.item_type) for key, item in value}
    if pa.types.is_list(of) or pa.types.is_large_list(of) or pa.types.is_fixed_size_list(of):
        return [_plain(item, of.value_type) for item in value]
    if pa.types.is_struct(of):
        return {field.name: _plain(value[field.name], field.type) for field in of}
    return value


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


_WRITERS = {"table": _boxed, "csv": _csv, "json": _json, "parquet": _parquet}
