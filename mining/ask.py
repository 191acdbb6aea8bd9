"""SQL from people: one reading statement over the store, and its result as table, CSV, JSON or Parquet."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import click
import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mining.store import Store
from mining.text import printable
from mining.types import UsageError

_READING = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}


def query(store_path: Path, text: str) -> pa.Table:
    """Answer one statement. ``UsageError`` with DuckDB's message where it is wrong, or where it would write."""
    with Store(store_path).connect(locked=True) as con:
        try:
            statements = con.extract_statements(text)
            if len(statements) != 1:
                raise UsageError(f"one statement at a time, got {len(statements)}")
            if statements[0].type not in _READING:
                raise UsageError(f"only reading is allowed here, not {statements[0].type.name}")
            return con.sql(text).to_arrow_table()
        except duckdb.Error as error:
            raise UsageError(str(error).strip()) from None


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
