"""The rows of a query, as table, CSV, JSON or Parquet: DuckDB makes them, and they pass through a batch at a time."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mining import stop
from mining.text import printable
from mining.types import QueryError, Terminated, UsageError
from mining.views import quoted

FORMATS = ("table", "csv", "json", "parquet")
_BATCH_ROWS = 4096
# DuckDB shows the first and the last of this many rows at most, and says where there are more.
_SHOWN_OF = 10_000
_T = TypeVar("_T")

# By the names that DuckDB's Python package gives to types. Whatever is not named here is handed over as text.
_NUMBERS = {
    "boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint", "float", "double",
    "decimal",
}  # fmt: skip
_HELD_BY_PARQUET = _NUMBERS | {
    "hugeint", "varchar", "uuid", "enum", "blob", "date", "time", "time_ns", "timestamp", "timestamp_s", "timestamp_ms",
    "timestamp_ns", "timestamp with time zone", "timestamptz_ns",
}  # fmt: skip
_HELD_BY_JSON = _NUMBERS | {"hugeint", "uhugeint"}
_NESTED = {"list", "array", "struct", "tuple", "map"}


class Rows:
    """A query that is still to be run. Ctrl-C and the time limit stop it at any point."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        source: str,
        parameters: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        way_out: str = "ask for fewer nights (--nights), or give it longer (--timeout)",
    ) -> None:
        """``source`` is what stands behind FROM: a name, or a query in brackets. ``way_out``: what to do when time is over."""
        self._con = con
        self._source = source
        self._parameters = dict(parameters or {})
        self._timeout_s, self._way_out = timeout_s, way_out
        self._end = None if timeout_s is None else time.monotonic() + timeout_s
        self._columns: list[tuple[str, Any]] | None = None

    def step(self, call: Callable[[], _T]) -> _T:
        """Run something of DuckDB's so that it can be stopped: by itself it hears of Ctrl-C only when it is done.

        Raises:
            QueryError: the time is over.
        """
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(call)
            try:
                return future.result(None if self._end is None else max(0.0, self._end - time.monotonic()))
            except (KeyboardInterrupt, Terminated, TimeoutError) as reason:
                while not future.done():  # again and again: between two queries it would be missed
                    stop.interrupt(self._con)
                    wait([future], timeout=0.05)
                if not isinstance(reason, TimeoutError):
                    raise
        raise QueryError(f"stopped after {self._timeout_s:g} s; {self._way_out}")

    def columns(self) -> list[tuple[str, Any]]:
        """Name and DuckDB's type of each column; no two names are the same."""
        if self._columns is None:
            text = f"FROM {self._source} LIMIT 0"
            # `execute` and not `sql`: only its messages about names show the line.
            self.step(lambda: self._con.execute(text, self._parameters))
            self._columns = [(column[0], column[1]) for column in self._con.description or []]
        return self._columns

    def table(self) -> pa.Table:
        """Fetch everything."""
        self.columns()
        return self.step(lambda: self._sql("*").to_arrow_table())

    def batches(
        self, columns: Iterable[str], count: int | None = None
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Fetch these columns a batch at a time: SQL, in which those of the source are named c0, c1, ...; at most ``count`` rows."""
        named = f"AS _({', '.join(f'c{i}' for i in range(len(self.columns())))})"
        named += "" if count is None else f" LIMIT {count}"
        relation = self.step(lambda: self._sql(", ".join(columns), named))
        reader = self.step(lambda: relation.to_arrow_reader(_BATCH_ROWS))

        def read() -> Iterator[pa.RecordBatch]:
            try:
                while (batch := self.step(lambda: next(reader, None))) is not None:
                    yield batch
            except OSError as error:  # so an error in the middle of a stream reaches us, with DuckDB's words
                raise duckdb.Error(str(error)) from None

        return reader.schema, read()

    def json_arrays(self, count: int, size_bytes: int) -> tuple[list[str], bool]:
        """Fetch the first rows as JSON arrays: at most so many, and no more than fit into so many bytes.

        Whole numbers beyond 2^53, which a browser would round, are texts.

        Returns:
            The rows, and whether there are more.
        """
        values = (_as_exact_json(f"c{i}", of) for i, (_, of) in enumerate(self.columns()))
        _, batches = self.batches([f"json_array({', '.join(values)})::VARCHAR"], count + 1)
        found: list[str] = []
        size = 0
        for batch in batches:
            for row in batch.column(0).to_pylist():
                size += len(row.encode())
                if len(found) == count or size > size_bytes:
                    return found, True
                found.append(row)
        return found, False

    def boxed(self) -> str:
        """Draw the first and the last rows of the answer's beginning as DuckDB does; no more is fetched."""
        self.columns()
        return printable(self.step(lambda: str(self._sql("*", f"LIMIT {_SHOWN_OF + 1}").materialize())))

    def _sql(self, columns: str, end: str = "") -> duckdb.DuckDBPyRelation:
        return self._con.sql(f"SELECT {columns} FROM {self._source} {end}", params=self._parameters)


@contextmanager
def rows_of(table: pa.Table) -> Iterator[Rows]:
    """Take a table's rows for those of a query, to show or to write them."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("result", table)
        yield Rows(con, "result")


def show(table: pa.Table) -> None:
    """Print a table as DuckDB's boxed one, as wide as the terminal."""
    write_table(table, "table", None)


def write_table(table: pa.Table, output_format: str, output: Path | None) -> None:
    """Write a table: see ``write``."""
    with rows_of(table) as rows:
        write(rows, output_format, output)


def write(rows: Rows, output_format: str, output: Path | None) -> None:
    """Run a query and write its rows in one of ``FORMATS``, to a file (wholly or not at all) or to standard output.

    Raises:
        QueryError: the format cannot hold them.
        UsageError: the file cannot be written.
    """
    if output_format == "parquet" and output is None and sys.stdout.isatty():
        raise UsageError("Parquet is not for the screen: add --output FILE, or redirect")
    try:
        if output is None:
            _WRITERS[output_format](rows, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            with _replaced(output) as sink:
                _WRITERS[output_format](rows, sink)
    except (pa.ArrowException, ArithmeticError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise QueryError(
            f"{output_format} cannot hold this result: {reason}; CAST the column to VARCHAR"
        ) from None


@contextmanager
def _replaced(output: Path) -> Iterator[BinaryIO]:
    """Open a file that is there with all its content or as it was before; devices and pipes are written as they are."""
    target = output.resolve()
    whole = target.is_file() or not target.exists()
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp") if whole else target
    try:
        with temporary.open("wb") as sink:
            yield sink
        if whole:
            os.replace(temporary, target)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror or error}") from None
    finally:
        if whole:
            temporary.unlink(missing_ok=True)


def _write_boxed(rows: Rows, sink: BinaryIO) -> None:
    sink.write((rows.boxed() + "\n").encode())


def _write_csv(rows: Rows, sink: BinaryIO) -> None:
    """Numbers as they are, all else as DuckDB writes it as text; lists, maps and structs as JSON."""
    schema, batches = rows.batches(_held_columns(rows, _NUMBERS))
    with pyarrow.csv.CSVWriter(sink, schema) as csv:
        for batch in batches:
            csv.write_batch(batch)


def _write_json(rows: Rows, sink: BinaryIO) -> None:
    """One array, an object a line; NaN and infinities, which JSON does not have, as null."""
    members = [f"{quoted(name)}, {_as_json(f'c{i}', of)}" for i, (name, of) in enumerate(rows.columns())]
    _, batches = rows.batches([f"json_object({', '.join(members)})::VARCHAR"])
    before = "["
    for batch in batches:
        sink.write((before + ",\n".join(batch.column(0).to_pylist())).encode())
        before = ",\n"
    sink.write(b"[]\n" if before == "[" else b"]\n")


def _write_parquet(rows: Rows, sink: BinaryIO) -> None:
    schema, batches = rows.batches(_held_columns(rows, _HELD_BY_PARQUET | _NESTED))
    with pyarrow.parquet.ParquetWriter(sink, schema, compression="zstd") as parquet:
        for batch in batches:
            parquet.write_batch(batch)


def _held_columns(rows: Rows, held: set[str]) -> Iterator[str]:
    """Name each column of the source, as text where the format does not hold its type."""
    for i, (name, of) in enumerate(rows.columns()):
        value = f"c{i}"
        if not _is_held(of, held):
            value = f"{f'to_json({_as_json(value, of)})' if of.id in _NESTED else value}::VARCHAR"
        yield f"{value} AS {_identifier(name)}"


def _is_held(of: Any, held: set[str]) -> bool:
    if of.id not in held:
        return False
    inner = _inner(of)
    return all(_is_held(child, held) for child in inner) and (bool(inner) or of.id not in _NESTED)


def _inner(of: Any) -> list[Any]:
    """Types of what a nested type holds."""
    if of.id not in _NESTED:
        return []
    return [child for name, child in of.children if of.id != "array" or name == "child"]


def _as_json(value: str, of: Any, depth: int = 0) -> str:
    """Make the SQL for what ``to_json`` writes as JSON proper: it writes NaN as a bare word, which no reader takes."""
    item, inner = f"x{depth}", _inner(of)
    if of.id in {"float", "double"}:
        return f"CASE WHEN isfinite({value}) THEN {value} END"
    if of.id in _HELD_BY_JSON:
        return value
    if of.id in {"list", "array"}:
        made = _as_json(item, inner[0], depth + 1)
        return value if made == item else f"list_transform({value}, lambda {item}: {made})"
    if of.id == "map":
        made = f"list_transform(map_values({value}), lambda {item}: {_as_json(item, inner[1], depth + 1)})"
        return f"map(map_keys({value})::VARCHAR[], {made})"
    parts = [_as_json(f"struct_extract_at({value}, {i})", child, depth) for i, child in enumerate(inner, 1)]
    if of.id == "struct" and parts:
        named = [f"{_identifier(name)} := {part}" for (name, _), part in zip(of.children, parts, strict=True)]
        return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({', '.join(named)}) END"
    if of.id == "tuple" and parts:
        return f"CASE WHEN {value} IS NOT NULL THEN row({', '.join(parts)}) END"
    return f"{value}::VARCHAR"


def _as_exact_json(value: str, of: Any) -> str:
    if of.id in {"bigint", "ubigint", "hugeint", "uhugeint"}:
        return f"CASE WHEN abs({value}::DOUBLE) > 9007199254740991 THEN to_json({value}::VARCHAR) ELSE to_json({value}) END"
    return _as_json(value, of)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_WRITERS: dict[str, Callable[[Rows, BinaryIO], None]] = {
    "table": _write_boxed, "csv": _write_csv, "json": _write_json, "parquet": _write_parquet,
}  # fmt: skip
