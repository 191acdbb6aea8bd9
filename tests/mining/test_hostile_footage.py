"""What lies beside footage, and lists of it: whatever the bytes, they are read or refused in one line, and an index row is made."""

from __future__ import annotations

import decimal
import io
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mining import config, index_footage
from mining.decode import Decoder
from mining.footage import FootageError, discover, load_sidecar, load_telemetry
from mining.isolated import Crashed
from mining.store import Store
from tests.mining.footage_clips import encode

START = datetime(2026, 5, 4, 21, 15, tzinfo=UTC)
CONFIG = config.Config.model_validate_json('{"footage": {"paths": ["x"]}, "detector": [{"weights": "a.pt"}]}')


def _one_clear_line(text: str) -> None:
    assert 0 < len(text) < 1000
    assert text.isprintable()


# Sidecars

words = st.text(max_size=10) | st.sampled_from(
    ["a\0b", "\ud800", "\x1b[2J", "x" * 300, "\r\n", "\u202e", "=1+1", "../..", "'; DROP TABLE frames; --", "NaN", ""]
)  # fmt: skip
moments = st.sampled_from(
    ["2026-05-04T21:15:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-W10", "noon", "1e9", "20260504"]
)  # fmt: skip
items = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | moments | st.sampled_from([10**400, -(10**400)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
keys = st.sampled_from(["drive_id", "vehicle_id", "camera", "started_at", "frame_rate_hz", "tags"])
pairs = st.lists(st.tuples(keys | words, items), max_size=6)
beginnings = st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\n\n", b"["])


def json_of(content: list[tuple[str, Any]]) -> bytes:
    """An object that may hold a key twice."""
    return ("{" + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in content) + "}").encode()


sidecars = st.builds(bytes.__add__, beginnings, st.binary(max_size=80) | pairs.map(json_of))


@given(content=sidecars, ending=st.sampled_from(["json", "toml"]))
def test_any_sidecar_is_read_or_refused(
    content: bytes, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = _file(tmp_path_factory.getbasetemp() / f"any.{ending}", content)
    try:
        found = load_sidecar(str(path))
    except FootageError as error:
        _one_clear_line(str(error))
        return
    for text in (
        found.drive_id or "",
        found.vehicle_id or "",
        found.camera or "",
        *itertools.chain(*found.tags.items()),
    ):
        assert "\0" not in text
        text.encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"drive_id": "a", "drive_id": "b"}', "'drive_id' stands there twice"),
        (b'{"tags": {"a": "1", "a": "2"}}', "'a' stands there twice"),
        (b'{"tags": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"frame_rate_hz": NaN}', "frame_rate_hz must be above 0"),
        (b'{"frame_rate_hz": 1e999}', "frame_rate_hz must be above 0"),
        (b'{"frame_rate_hz": ' + b"9" * 5000 + b"}", "cannot be parsed"),
        ('{"drive_id": "a"}'.encode("utf-16"), "not UTF-8"),
    ],
    ids=["twice", "tag twice", "deep", "nan", "inf", "digits", "utf-16"],
)
def test_a_hostile_sidecar_is_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(FootageError, match=words) as caught:
        load_sidecar(str(_file(tmp_path / "a.json", content)))
    _one_clear_line(str(caught.value))


# Telemetry

cells = st.sampled_from(
    ["", "0", "1", "-1.5", "1e308", "-1e308", "1e999", "nan", "inf", "NULL", "x", '"', '"a\nb"', "\0", "true", "9" * 30, "9" * 400,
     "2026-05-04T21:15:00Z", "0001-01-01", "9999-12-31T23:59:59.999999999Z", "0x1f", "1,5", "\u0661", "-0"]
) | st.integers(-3, 3).map(str)  # fmt: skip
headers = st.lists(
    st.sampled_from(["time", "time_s", "Time", " time_s ", "speed", "lat", "longitude", "heading", "x", "", "\0", '"', "\x1b[2J", "x" * 300]),
    min_size=1, max_size=4,
)  # fmt: skip
tables = st.tuples(headers, st.lists(st.lists(cells, max_size=4), max_size=6), st.sampled_from(["\n", "\r\n", "\r"])).map(
    lambda t: t[2].join(",".join(row) for row in [t[0], *t[1]]).encode()
)  # fmt: skip
wanted_s = st.lists(st.floats(), max_size=5)


@given(content=st.builds(bytes.__add__, beginnings, st.binary(max_size=120) | tables), wanted=wanted_s)
def test_any_csv_is_read_or_refused(
    content: bytes, wanted: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    _read(_file(tmp_path_factory.getbasetemp() / "any.csv", content), wanted)


columns = st.sampled_from(
    [
        pa.array([0.0, 1.0, 2.0]), pa.array([2, 1, 0]), pa.array([1, 1, 1], pa.uint64()), pa.array([None, 1e308, -1e308]),
        pa.array([2**64 - 1, 0, 1], pa.uint64()), pa.array([1, 2, 3], pa.float16()), pa.nulls(3), pa.array(["a", "b", None]),
        pa.array([b"\xff", b"", None]), pa.array([[1], [], None]), pa.array([{"a": 1}, None, {"a": 2}]), pa.array([True, False, None]),
        pa.array([decimal.Decimal("1e30"), None, decimal.Decimal("0.1")], pa.decimal128(38, 2)), pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.array([START, None, START + timedelta(seconds=1)]), pa.array([1, 2, 3], pa.timestamp("ns", "Mars/Olympus")),
        pa.array([-(2**50), 2**50, 0], pa.timestamp("s")), pa.array([2**62, 0, 1], pa.timestamp("ns", "Europe/Oslo")),
        pa.array([date(1, 1, 1), date(9999, 12, 31), None]), pa.array([1, 2, 3], pa.duration("ns")), pa.array([1, 2, 3], pa.time64("ns")),
        pa.array([np.nan, np.inf, -np.inf]), pa.array([1, 2, 3], pa.list_(pa.int32(), 1).value_type).dictionary_encode(),
    ]
)  # fmt: skip


@given(
    named=st.lists(st.tuples(headers.map(lambda h: h[0]), columns), min_size=1, max_size=4), wanted=wanted_s
)
def test_any_parquet_columns_are_read_or_refused(
    named: list[tuple[str, pa.Array]], wanted: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    table = pa.Table.from_arrays([column for _, column in named], names=[name for name, _ in named])
    pq.write_table(table, path)
    _read(path, wanted)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """As the index stage reads telemetry: in a process of its own."""
    with Decoder(CONFIG) as decoder:
        yield decoder


def _parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"time_s": np.arange(50.0), "speed": np.arange(50), "note": ["x"] * 50}), sink)
    return sink.getvalue()


PARQUET = _parquet()


def test_bytes_of_a_damaged_file_do_not_reach_the_tables_in_its_error(tmp_path: Path) -> None:
    said = []
    for at in range(4, 60):
        path = _file(tmp_path / "a.parquet", PARQUET[:at] + b"\xdd" + PARQUET[at + 1 :])
        try:
            load_telemetry(str(path), START)
        except FootageError as error:
            said.append(str(error))
    assert any("\\x" in text for text in said)  # Arrow quotes what it did not know
    for text in said:
        _one_clear_line(text)


@given(data=st.data())
def test_a_damaged_parquet_file_is_read_or_refused_or_crashes_alone(
    data: st.DataObject, decoder: Decoder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(PARQUET)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = _file(
        tmp_path_factory.getbasetemp() / "damaged.parquet", bytes(content[data.draw(st.integers(0, 2)) :])
    )
    try:
        decoder.call(load_telemetry, str(path), START)
    except (FootageError, Crashed) as error:
        _one_clear_line(str(error))


def test_a_small_file_that_unpacks_to_a_huge_table_is_refused(tmp_path: Path) -> None:
    rows = 400_000
    column = pa.array(np.zeros(rows))
    table = pa.table({"time_s": column, **{f"c{n}": column for n in range(200)}})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 2_000_000
    with pytest.raises(FootageError, match="too large: 400000 rows, 201 columns"):
        load_telemetry(str(tmp_path / "a.parquet"), START)


def test_hostile_companions_cost_no_recording(tmp_path: Path) -> None:
    (tmp_path / "drives").mkdir()
    clip = encode(tmp_path / "drives" / "0.mp4", ticks=range(12)).read_bytes()
    beside = {
        "0.json": b'{"tags": {"' + b"k" * 200 + b'": "\\u001b[2J\\n=1+1"}, "drive_id": "../../\\u202e"}',
        "1.json": b'{"drive_id": "a", "drive_id": "b"}',
        "2.toml": b"started_at = 9999-12-31T23:59:59-14:00",
        "3.csv": b"time_s,speed\n0,1e999\n1,-inf\n-5,3\n1,4\n",
        "4.csv": b"\xff\xfe\0",
        "5.parquet": b"PAR1 no PAR1",
    }
    for name, content in beside.items():
        number = name[0]
        if number != "0":  # other bytes at the end: another recording
            _file(tmp_path / "drives" / f"{number}.mp4", clip + number.encode() * 8)
        _file(tmp_path / "drives" / name, content)
    conf = config.load(
        _file(tmp_path / "night.toml", b'[footage]\npaths = ["drives"]\n[[detector]]\nweights = "a.pt"\n')
    )
    _, ids = index_footage.run(Store(conf.store_path, create=True), conf)
    assert len(ids) == 6
    with Store(conf.store_path).connect() as con:
        rows = con.sql("SELECT parse_filename(uri), status, error FROM recordings ORDER BY uri").fetchall()
    assert [row[1] for row in rows] == ["ok", "partial", "partial", "ok", "partial", "partial"]
    for row in rows:
        _one_clear_line(row[2] or "fine")


# Lists

lines = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=12).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from(
        [b"#", b"@", b"@any.lst", b"any.lst", b"@@any.lst", b"*", b"**", b"**/*", b"**a", b"[", b"[z-a]*", b"[!]", b"?" * 300, b"x" * 5000,
         b"a.mp4", b"\0", b"./././a.mp4", b"a.mp4/b.mp4", b"sub", b"sub/*.jpg", b"~", b"$HOME", b"\xff.mp4", b"a\tb", b"{a,b}.mp4"]
    ),
).filter(lambda line: not line.lstrip(b" @").startswith((b"/", b"..")))  # fmt: skip


@given(content=st.builds(bytes.__add__, beginnings, st.lists(lines, max_size=6).map(b"\n".join)))
def test_any_list_gives_recordings_and_lines(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "lists"
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    _file(folder / "a.mp4", b"x")
    _file(folder / "sub" / "0.jpg", b"x")
    path = _file(folder / "any.lst", content)
    sources, problems = discover([f"@{path}"])
    assert {source.path for source in sources} <= {str(folder / "a.mp4"), str(folder / "sub")}
    for problem in problems:
        (problem.path + problem.reason).encode()
        assert "\n" not in problem.reason


def test_a_list_of_bytes_that_are_no_name_is_one_line(tmp_path: Path) -> None:
    (found,) = discover([f"@{_file(tmp_path / 'a.lst', bytes([0, 0x80]))}"])[1]
    assert found.path.endswith("\\x00\\x80")
    assert "NUL" in found.reason


def test_lists_that_name_each_other_over_and_over_end(tmp_path: Path) -> None:
    _file(tmp_path / "39.lst", b"a.mp4")
    _file(tmp_path / "a.mp4", b"x")
    for n in range(39):
        _file(tmp_path / f"{n}.lst", f"{n + 1}.lst\n@{n + 1}.lst\n./{n + 1}.lst".encode())
    sources, problems = discover([f"@{tmp_path / '0.lst'}"])
    assert [source.path for source in sources] == [str(tmp_path / "a.mp4")]
    assert problems == []


def test_a_long_chain_of_lists_is_one_line(tmp_path: Path) -> None:
    for n in range(1000):
        _file(tmp_path / f"{n}.lst", f"{n + 1}.lst".encode())
    sources, problems = discover([f"@{tmp_path / '0.lst'}"])
    assert sources == []
    assert ["nested deeper" in problem.reason for problem in problems] == [True]


def test_folders_nested_very_deep_are_one_line(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    for depth in range(500):
        (deep / "/".join(["a"] * depth)).mkdir()
    _file(deep / "a.mp4", b"x")
    sources, problems = discover([str(deep)])
    assert [source.path for source in sources] == [str(deep / "a.mp4")]
    assert ["nested deeper" in problem.reason for problem in problems] == [True]
    found, problems = discover([str(deep / "**" / "*.mp4")])
    assert len(found) + len(problems) >= 1


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _read(path: Path, wanted: list[float]) -> None:
    try:
        found = load_telemetry(str(path), START)
    except FootageError as error:
        _one_clear_line(str(error))
        return
    assert (np.diff(found.seconds) > 0).all()
    for values in found.at(np.array(wanted, dtype=np.float64)).values():
        assert values.shape == (len(wanted),)
        assert not np.isinf(values).any()
