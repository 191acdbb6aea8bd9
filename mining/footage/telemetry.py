"""What the vehicle logged beside a recording, joined to frames by time: NAME.csv or NAME.parquet.

One row a sample. A time column, either ``time_s`` (seconds since the first frame) or ``time`` (ISO 8601, or seconds since
1970), and columns of numbers: speed_mps, latitude_deg, longitude_deg, heading_deg (or speed, lat, lon, ... for short); any
other column of numbers keeps its name; columns of text are passed over.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mining.footage.sidecar import refuse_twin
from mining.footage.source import FootageError
from mining.text import one_line

Floats = NDArray[np.float64]

_TIMES = frozenset({"time", "time_s"})
_LARGEST = 1e300
"""Above this a number is no measurement, and differences would overflow."""
_MAX_BYTES = 256_000_000
_MAX_VALUES = 50_000_000
_MAX_COLUMNS = 256
_NAME_CHARACTERS = 256
_CIRCLE_DEG = {"heading_deg": 0.0, "longitude_deg": -180.0}
"""Angles that wrap, and where their range of 360 degrees begins."""
_LARGEST_DEG = {"latitude_deg": 90.0, "longitude_deg": 180.0}
_ALIASES = {
    "speed": "speed_mps",
    "lat": "latitude_deg",
    "latitude": "latitude_deg",
    "lon": "longitude_deg",
    "lng": "longitude_deg",
    "longitude": "longitude_deg",
    "heading": "heading_deg",
}


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Logged values over time. Missing values are NaN."""

    seconds: Floats
    """[n] since the first frame, strictly ascending."""
    columns: dict[str, Floats]
    """Each [n]."""

    def at(self, seconds: Floats, max_gap_s: float = 1.0) -> dict[str, Floats]:
        """Values at the given times ([m], seconds since the first frame), each [m].

        Linear between the neighbouring samples that hold a value; heading and longitude along the shorter arc. NaN
        before the first and after the last of them, and where the nearest is further away than ``max_gap_s``.
        """
        wanted = np.asarray(seconds, dtype=np.float64)
        return {
            n: _interpolated(n, self.seconds, values, wanted, max_gap_s) for n, values in self.columns.items()
        }


def load_telemetry(path: str, started_at: datetime) -> Telemetry:
    """Read a telemetry file. Raises FootageError with one line that names the file and what is wrong.

    ``started_at`` is the time of the recording's first frame; a column ``time`` is counted from there. Rows are put in
    order of time; of several with one time the first is kept; rows without a time are dropped. Values that are not
    finite, and positions off the globe, are missing.
    """
    name = os.path.basename(path)
    try:
        refuse_twin(path)
        columns = _named(_read_table(path))
        seconds = _seconds(columns, started_at)
        values = {n: _numbers(n, c) for n, c in columns.items() if n not in _TIMES and _is_measured(n, c)}
    except FootageError as error:
        raise FootageError(f"telemetry {name}: {error}") from None
    except UnicodeDecodeError:  # pyarrow decodes names and text only when they are looked at
        raise FootageError(f"telemetry {name}: not UTF-8 text") from None
    order = np.argsort(seconds, kind="stable")
    order = order[np.isfinite(seconds[order])]
    order = order[np.diff(seconds[order], prepend=-np.inf) > 0]
    if not len(order):
        raise FootageError(f"telemetry {name}: no row with a time")
    return Telemetry(seconds[order], {n: v[order] for n, v in values.items()})


def _read_table(path: str) -> pa.Table:
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            raise FootageError(f"larger than {_MAX_BYTES // 10**6} MB")
        if path.endswith(".parquet"):
            return _read_parquet(path)
        # A few bad lines must not cost the rest: rows with too many or too few fields are passed over.
        options = pa_csv.ParseOptions(invalid_row_handler=lambda row: "skip")
        return pa_csv.read_csv(path, parse_options=options)
    except OSError as error:
        raise FootageError(f"cannot be read: {_brief(error.strerror or error)}") from None
    except (pa.ArrowException, ValueError) as error:
        raise FootageError(f"cannot be parsed: {_brief(error)}") from None


def _read_parquet(path: str) -> pa.Table:
    with pq.ParquetFile(path) as file:
        # A small file can unpack to a huge table: its own counts are looked at first.
        metadata = file.metadata
        unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        values = metadata.num_rows * max(1, metadata.num_columns)
        if values > _MAX_VALUES or unpacked > 4 * _MAX_BYTES or metadata.num_columns > _MAX_COLUMNS:
            raise FootageError(f"too large: {metadata.num_rows} rows, {metadata.num_columns} columns")
        return file.read()


def _named(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    if table.num_columns > _MAX_COLUMNS:
        raise FootageError(f"{table.num_columns} columns; the limit is {_MAX_COLUMNS}")
    columns: dict[str, pa.ChunkedArray] = {}
    for raw, column in zip(table.column_names, table.columns, strict=True):
        name = raw.strip()
        name = _ALIASES.get(name.lower(), name)
        if not 0 < len(name) <= _NAME_CHARACTERS or "\0" in name:
            raise FootageError(
                f"a column's name must be 1 to {_NAME_CHARACTERS} characters, got {raw[:40]!a}"
            )
        if name in columns:
            raise FootageError(f"two columns for {name!a}")
        columns[name] = column
    return columns


def _seconds(columns: dict[str, pa.ChunkedArray], started_at: datetime) -> Floats:
    """Time of each row in seconds since the first frame; NaN where there is none."""
    if ("time_s" in columns) == ("time" in columns):
        raise FootageError(
            "needs one time column, time_s (since the first frame) or time (ISO 8601 or since 1970)"
        )
    if "time_s" in columns:
        return _time_numbers("time_s", columns["time_s"])
    column = columns["time"]
    if pa.types.is_timestamp(column.type):
        since_1970 = _timestamp_seconds(column)
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        since_1970 = np.array([_iso_seconds(text) for text in column.to_pylist()], dtype=np.float64)
    else:
        since_1970 = _time_numbers("time", column)
    return since_1970 - started_at.timestamp()


def _time_numbers(name: str, column: pa.ChunkedArray) -> Floats:
    if not _is_number(column):
        raise FootageError(f"{name} must be numbers, is {column.type}")
    return _floats(column)


def _timestamp_seconds(column: pa.ChunkedArray) -> Floats:
    try:
        micros = pc.cast(column, pa.timestamp("us", tz=column.type.tz), safe=False)
    except pa.ArrowException as error:
        raise FootageError(f"time cannot be read: {_brief(error)}") from None
    return _floats(pc.cast(micros, pa.int64())) / 1e6


def _iso_seconds(text: str | None) -> float:
    """Seconds since 1970; NaN for what is no time. Without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat((text or "").strip())
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()
    except (ValueError, OverflowError):
        return np.nan


def _is_number(column: pa.ChunkedArray) -> bool:
    kind = column.type
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    )


def _is_measured(name: str, column: pa.ChunkedArray) -> bool:
    """Whether a column is telemetry; text is not, but a known column that holds text is a mistake to be told."""
    if name in _ALIASES.values() and not _is_number(column):
        raise FootageError(f"{name} must be numbers, is {column.type}")
    return _is_number(column)


def _floats(column: pa.ChunkedArray) -> Floats:
    try:
        values = pc.cast(column, pa.float64(), safe=False).to_numpy()
    except pa.ArrowException as error:
        raise FootageError(f"numbers cannot be read: {_brief(error)}") from None
    values = np.array(values, dtype=np.float64)
    values[~(np.abs(values) <= _LARGEST)] = np.nan  # infinities among them
    return values


def _numbers(name: str, column: pa.ChunkedArray) -> Floats:
    values = _floats(column)
    largest = _LARGEST_DEG.get(name)
    if largest is not None:
        values[np.abs(values) > largest] = np.nan
    return values


def _interpolated(name: str, own: Floats, values: Floats, wanted: Floats, max_gap_s: float) -> Floats:
    held = np.isfinite(values)
    own, values = own[held], values[held]
    out = np.full(wanted.shape, np.nan)
    if not len(own):
        return out
    inside = (wanted >= own[0]) & (wanted <= own[-1])
    at = wanted[inside]
    after = np.searchsorted(own, at)
    before = np.maximum(after - 1, 0)
    near = np.minimum(np.abs(own[after] - at), np.abs(at - own[before])) <= max_gap_s
    step_s = own[after] - own[before]
    share = np.divide(at - own[before], step_s, out=np.zeros_like(at), where=step_s > 0)
    rise = values[after] - values[before]
    begin = _CIRCLE_DEG.get(name)
    if begin is not None:
        rise = (rise + 180.0) % 360.0 - 180.0
    result = values[before] + share * rise
    if begin is not None:
        result = (result - begin) % 360.0 + begin
    out[inside] = np.where(near, result, np.nan)
    return out


def _brief(error: object) -> str:
    """What went wrong in one line; it may quote the file's own bytes."""
    return one_line(" ".join(str(error).split()))[:200]
