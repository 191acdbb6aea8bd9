"""Queries from people read the store, and nothing but the store."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from mining import ask, results
from mining.store import Store
from mining.types import MiningError, QueryError, UsageError
from tests.mining.synthetic import NIGHT, Drive, store_of, table


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("ask")
    return store_of(folder, Drive("r1", [0.1, 0.9], tags=(("city", "=cmd()"),)), Drive("r2", [0.5]))


def test_answers_over_the_views(store: Store) -> None:
    found = ask.query(
        [store.root], "SELECT frame_id, hardness FROM mined WHERE tags['city'] IS NOT NULL ORDER BY hardness"
    )
    assert found["frame_id"].to_pylist() == ["r1-0000000", "r1-0000001"]
    for explain in (
        "EXPLAIN",
        "EXPLAIN ANALYZE",
        "/* why? */ explain (ANALYZE, FORMAT json)",
        "EXPLAIN (FORMAT json)",
        "EXPLAIN /* é */",
        "-- é\nEXPLAIN ANALYZE /* ééé */ (FORMAT json)",
        "\u00a0EXPLAIN\u3000",
    ):
        assert ask.query([store.root], f"{explain} SELECT 1").num_rows == 1
    assert ask.query([store.root], "EXPLAIN (SELECT 1) UNION (SELECT 2)").num_rows == 1
    assert "hardness" in ask.query([store.root], "DESCRIBE mined")["column_name"].to_pylist()
    assert ask.query([store.root], "SELECT 1 AS a, 2 AS a, 3 AS a").column_names == ["a", "a_1", "a_2"]
    assert ask.query([store.root], "-- one;\n(SELECT ';');").num_rows == 1
    odd = 'SELECT \'"function_name":"query"\' AS "query", 1 AS """type"":""COPY_QUERY_NODE""";'
    assert ask.query([store.root], odd).num_rows == 1


# What colleagues may paste. {store}: the store, {inside}: a file in it that is no committed one, {secret}: one outside,
# {link}: a link in the store's tables to the secret, {rows}: a committed file.
# {head}: EXPLAIN and a comment of letters of two bytes, as many as the COPY after it has: who counts one for the other
# takes the SELECT in the last comment for what is explained.
ATTACKS = [
    "{head}ANALYZE COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false) /* SELECT 1 -- */",
    "{head}(ANALYZE) COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false) /* SELECT 1 -- */",
    "DROP VIEW mined",
    "CREATE TABLE x (i INT)",
    "CREATE TEMP TABLE x AS SELECT 1",
    "CREATE MACRO at_night(f) AS false",
    "INSERT INTO scores SELECT * FROM scores",
    "DELETE FROM scores",
    "COPY (SELECT 1) TO '{store}/tables/x.csv'",
    "COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet)",
    "COPY scores FROM '{secret}'",
    "EXPORT DATABASE '{store}/x'",
    "IMPORT DATABASE '{store}/x'",
    "EXPLAIN ANALYZE COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet)",
    "EXPLAIN (ANALYZE) COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet)",
    "EXPLAIN/**/(FORMAT json, ANALYZE)/**/COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet)",
    "EXPLAIN -- SELECT\n ANALYZE CREATE TABLE x AS SELECT 1",
    "WITH x AS (COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)) FROM x",
    "WITH x AS MATERIALIZED (COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)) SELECT * FROM x;",
    "(WITH x AS (COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)) FROM x)",
    "WITH x AS (COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)) FROM x UNION FROM x",
    "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)) FROM x",
    "EXPLAIN (ANALYZE, FORMAT json) WITH x AS (COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)) FROM x",
    "SELECT (WITH x AS (COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)) SELECT count(*) FROM x)",
    "SELECT 1) UNION (WITH x AS (COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)) FROM x",
    "DESCRIBE WITH x AS (COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)) FROM x",
    "SUMMARIZE WITH x AS (COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)) FROM x",
    "SELECT * FROM query('WITH x AS (COPY (SELECT 1 AS i) TO ''{rows}'' (FORMAT parquet, USE_TMP_FILE false)) FROM x')",
    "WITH x AS (INSERT INTO scores SELECT * FROM scores RETURNING *) FROM x",
    "WITH x AS (DELETE FROM scores RETURNING *) FROM x",
    "EXPLAIN /* é */ ANALYZE COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN\u00a0ANALYZE\u3000COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "\ufeffEXPLAIN ANALYZE COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "\u200bEXPLAIN\u200bANALYZE COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN ANALYZE\0COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "SELECT 1\0; COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN /* /* */ SELECT 1 */ ANALYZE COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN /* /* */ ANALYZE SELECT 1 /* */ */ ANALYZE COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false) /* */",
    "EXPLAIN --\rANALYZE COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false) --\r SELECT 1",
    "EXPLAIN ANALYZE COPY (SELECT $$ SELECT 1 $$ AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false) -- $$ SELECT 1",
    "EXPLAIN ANALYZE COPY (SELECT $é$ /* $é$ AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false) /* */",
    "EXPLAIN ('a, FORMAT json) SELECT ' ) COPY (SELECT 1 AS i) TO ''{rows}'' (FORMAT parquet, USE_TMP_FILE false) --'",
    "EXPLAIN (ANALYZE, FORMAT 'json') COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN ANALYZE (FORMAT json) COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN ANALYZE VERBOSE COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN ANALYZE (COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false))",
    "EXPLAIN EXPLAIN ANALYZE COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN ANALYZE EXPLAIN ANALYZE COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN ANALYZE PREPARE p AS COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN ANALYZE EXECUTE p",
    "EXPLAIN SELECT 1; COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN ANALYZE SELECT 1) COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false) --",
    "EXPLAIN COPY (SELECT 1 AS i) TO '{rows}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN",
    "EXPLAIN ANALYZE",
    "EXPLAIN (ANALYZE)",
    "EXPLAIN SELEKT 1",
    "SELECT '\ud800'",
    "FROM enable_logging(storage = 'file', storage_config = {{'path': '{rows}'}})",
    "FROM enable_profiling(save_location = '{rows}')",
    "FROM json_execute_serialized_sql(json_serialize_sql('WITH x AS (COPY (SELECT 1 AS i) TO ''{rows}'' (FORMAT parquet, USE_TMP_FILE false)) FROM x'))",
    "FROM system.main.\"JSON_execute_serialized_SQL\"(json_serialize_sql('WITH x AS (COPY (SELECT 1 AS i) TO ''{rows}'' (FORMAT parquet, USE_TMP_FILE false)) FROM x'))",
    "SELECT (SELECT count(*) FROM json_execute_serialized_sql(json_serialize_sql('WITH x AS (COPY (SELECT 1 AS i) TO ''{rows}'' (FORMAT parquet, USE_TMP_FILE false)) FROM x')))",
    "SUMMARIZE FROM json_execute_serialized_sql(json_serialize_sql('WITH x AS (COPY (SELECT 1 AS i) TO ''{rows}'' (FORMAT parquet, USE_TMP_FILE false)) FROM x'))",
    "EXPLAIN ANALYZE FROM json_execute_serialized_sql(json_serialize_sql('WITH x AS (COPY (SELECT 1 AS i) TO ''{rows}'' (FORMAT parquet, USE_TMP_FILE false)) FROM x'))",
    "FROM query('FROM json_exec' || 'ute_serialized_sql(json_serialize_sql(''SELECT 1''))')",
    "FROM query(CASE WHEN now() > now() THEN 'SELECT 1' ELSE 'SELECT 2' END)",
    "FROM \"Query\"('SELECT 1')",
    "WITH x AS (UPDATE scores SET hardness = 1) FROM x",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{secret}'",
    "UPDATE EXTENSIONS",
    "SET enable_external_access = true",
    "SET allowed_paths = ['{secret}']",
    "RESET lock_configuration",
    "PRAGMA enable_profiling",
    "PRAGMA profiling_output = '{store}/x'",
    "SET VARIABLE x = 1",
    "CALL pragma_version()",
    "CALL enable_logging(storage = 'file', storage_config = {{'path': '{store}/x'}})",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "BEGIN",
    "CHECKPOINT",
    "VACUUM",
    "USE memory",
    "ATTACH 'x.db'",
    "ATTACH '{secret}' AS x (READ_ONLY)",
    "DETACH memory",
    "CREATE SECRET s (TYPE http)",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '{store}/x.csv'",
    "SELECT 1 /* ; */; -- only a comment?\n DROP VIEW mined --",
    "/* SELECT 1 */ COPY (SELECT 1) TO '{store}/x.csv'",
    "WITH x AS (SELECT 1) INSERT INTO scores SELECT * FROM scores",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_csv_auto('{store}/tables/../../secret.csv')",
    "SELECT * FROM read_csv('{link}')",
    "SELECT * FROM read_text('{inside}')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM read_parquet('{secret}')",
    "SELECT * FROM parquet_metadata('{secret}')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM read_text('/proc/self/environ')",
    "SELECT * FROM read_text('https://example.org/x')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT count(*) FROM glob('{store}/**')",
    "SELECT getenv('HOME')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''{store}/x.csv''')",
    "SELECT * FROM query_table('{secret}')",
    "SELECT * FROM text",
    "PIVOT scores ON status USING count(*)",
    "",
    "-- nothing",
    "SELEKT 1",
    "SELECT no_such_column FROM mined",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_whatever_writes_or_leaves_the_store_is_refused_in_words(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = store.root.parent / "secret.csv"
    secret.write_text("password\nhunter2\n")
    rows, inside = store.table_file("scores", NIGHT, "r1"), store.root / "mining-store.json"
    link = rows.with_name("link.csv")
    if not link.exists():
        link.symlink_to(secret)
    before = {path: path.read_bytes() for path in store.root.parent.rglob("*") if path.is_file()}
    names = {"store": store.root, "secret": secret, "rows": rows, "inside": inside, "link": link}
    after = text.replace("{head}", "").partition("/* SELECT")[0].format(**names)
    head = f"EXPLAIN /*{'é' * (len(after) + len('/* '))}*/"
    with pytest.raises(QueryError) as caught:
        ask.query([store.root], text.format(head=head, **names))
    assert "hunter2" not in str(caught.value)
    assert before == {path: path.read_bytes() for path in store.root.parent.rglob("*") if path.is_file()}
    assert not list(tmp_path.iterdir())


def test_a_committed_file_may_be_named_and_a_retracted_one_not(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1]))
    text = f"SELECT * FROM read_parquet('{store.table_file('scores', NIGHT, 'r1')}')"
    assert ask.query([store.root], text).num_rows == 1
    store.retract("score", NIGHT, "r1")
    with pytest.raises(QueryError, match="Cannot access file"):
        ask.query([store.root], text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SELECT frame_id,\n  hardnes\nFROM mined", ['"hardness"', "LINE 2:", "^^^"]),
        ("SELECT frame_id,\n  m.hardnes\nFROM mined AS m", ["hardness", "LINE 2:", "^^^"]),
        ("SELECT *\nFROM minde", ['"mined"', "LINE 2:", "^^^"]),
        ("EXPLAIN /* é\n */ ANALYZE\nSELECT hardnes\nFROM mined;", ['"hardness"', "LINE 3:", "^^^"]),
        ("EXPLAIN /* é\n */ ANALYZE\nSELEKT 1", ["syntax error", "LINE 3:"]),
        (
            "\n" * 8 + "SELECT hardnes\nFROM mined",
            ['"hardness"', "LINE  9: SELECT hardnes\n                ^^^"],
        ),
        ("SELECT 1\nFROM mined WHERE has_clas(mined, 'car')", ['"has_class"', "LINE 2:"]),
        ("SELECT 1\nFROM mined\nWHERE hardness >", ["syntax error", "LINE 3:"]),
        ("SELECT at_night(frames) FROM frames", ["is_night"]),
        ("PIVOT scores ON status USING count(*)", ["IN ('a', 'b')"]),
    ],
)
def test_an_error_shows_its_line_and_the_nearest_name(store: Store, text: str, words: list[str]) -> None:
    with pytest.raises(QueryError) as caught:
        ask.query([store.root], text)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_parameters_are_values_and_never_sql(store: Store) -> None:
    text = "SELECT frame_id FROM mined WHERE hardness > $least AND tags['city'] = $city AND night = $night"
    values = dict(map(ask.parameter, ["least=0.5", "city==cmd()", "night=2026-03-14"]))
    assert ask.query([store.root], text, parameters=values)["frame_id"].to_pylist() == ["r1-0000001"]
    hostile = {**values, "city": "' OR 1=1 --"}
    assert ask.query([store.root], text, parameters=hostile).num_rows == 0
    with pytest.raises(QueryError, match=r"value for \$city: add --param city=VALUE"):
        ask.query([store.root], text, parameters={"least": 0.5, "night": NIGHT})
    with pytest.raises(QueryError, match=r"no \$x"):
        ask.query([store.root], "SELECT 1", parameters={"x": 1})
    assert ask.parameter('a="5"') == ("a", "5")
    assert ask.parameter("a=5") == ("a", 5)
    for wrong in ("a", "1a=1", "=1"):
        with pytest.raises(UsageError, match="name=value"):
            ask.parameter(wrong)


def test_a_query_that_takes_too_long_is_stopped(store: Store) -> None:
    with pytest.raises(QueryError, match=r"stopped after 0.2 s"):
        ask.query(
            [store.root],
            "SELECT count(*) FROM range(1000000000000) AS a(i) WHERE hash(i) % 3 = 5",
            timeout_s=0.2,
        )


def test_every_format_gives_the_same_rows(store: Store, tmp_path: Path) -> None:
    found = ask.query(
        [store.root], "SELECT frame_id, hardness, tags, captured_at FROM mined ORDER BY frame_id"
    )
    for output_format in ("csv", "json", "parquet", "table"):
        results.write_table(found, output_format, tmp_path / output_format)
    rows = json.loads((tmp_path / "json").read_text())
    assert [row["frame_id"] for row in rows] == found["frame_id"].to_pylist()
    assert rows[0]["tags"] == {"city": "=cmd()"}
    assert rows[2]["tags"] == {}
    read = list(csv.DictReader(io.StringIO((tmp_path / "csv").read_text())))
    assert [float(row["hardness"]) for row in read] == pytest.approx(found["hardness"].to_pylist())
    assert pq.read_table(tmp_path / "parquet").equals(found)
    assert "r1-0000001" in (tmp_path / "table").read_text()


def test_the_screen_gets_no_escape_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1], camera="\x1b[31mred"))
    results.write_table(ask.query([store.root], "SELECT camera FROM mined"), "table", None)
    shown = capsys.readouterr().out
    assert "red" in shown
    assert "\x1b" not in shown


def written(store: Store, text: str, output_format: str, output: Path) -> bytes:
    with ask.asked([store.root], text) as rows:
        results.write(rows, output_format, output)
    return output.read_bytes()


def no_constant(name: str) -> None:
    pytest.fail(f"{name} is no JSON")


# SQL of a value -> what JSON has of it.
VALUES = {
    "(SELECT sum(i) FROM range(3) AS r(i))": 3,
    "(SELECT avg(i::DECIMAL(9, 2)) FROM range(3) AS r(i))": 1.0,
    "(SELECT sum(i::DECIMAL(9, 2)) FROM range(3) AS r(i))": 3.0,
    "170141183460469231731687303715884105727": 170141183460469231731687303715884105727,
    "(SELECT max(pts_ns) FROM frames)": 10**9,
    "(SELECT make_timestamp_ns(max(pts_ns) + 1) FROM frames)": "1970-01-01 00:00:01.000000001",
    "DATE '99999-01-01'": "99999-01-01",
    "[DATE '99999-01-01', NULL]": ["99999-01-01", None],
    "'infinity'::TIMESTAMP": "infinity",
    "TIMESTAMPTZ '2026-03-14 01:02:03+00'": "2026-03-14 01:02:03+00",
    "TIME '24:00:00'": "24:00:00",
    "INTERVAL 1 DAY": "1 day",
    "[INTERVAL 1 DAY]": ["1 day"],
    "'101'::BIT": "101",
    "['101'::BIT]": ["101"],
    "'\\xFF'::BLOB": "\\xFF",
    "['\\xFF'::BLOB]": ["\\xFF"],
    "123::BIGNUM": "123",
    "union_value(a := 1)": "1",
    "[union_value(a := 'NaN'::FLOAT)]": ["nan"],
    "'x'::VARIANT": "x",
    "'a'::ENUM ('a', 'b')": "a",
    "NULL": None,
    "true": True,
    "'NaN'::DOUBLE": None,
    "['inf'::FLOAT, 1.5, NULL]": [None, 1.5, None],
    "[1.5::FLOAT, 'NaN']::FLOAT[2]": [1.5, None],
    "(1, 'NaN'::DOUBLE)": [1, None],
    "{'a': [{'b': 'NaN'::FLOAT}], 'it''s \"c\"': NULL}": {"a": [{"b": None}], 'it\'s "c"': None},
    "MAP {'a': ['NaN'::FLOAT]}": {"a": [None]},
    "MAP {1.5::FLOAT: 2}": {"1.5": 2},
    "NULL::STRUCT(a FLOAT)": None,
    "NULL::MAP(VARCHAR, FLOAT)": None,
    "'{\"a\": NaN}'::JSON": '{"a": NaN}',
    "[[]]": [[]],
    "chr(0) || 'é\n\"'": '\0é\n"',
}


@pytest.mark.parametrize("value", VALUES)
def test_every_value_is_written_in_every_format(store: Store, tmp_path: Path, value: str) -> None:
    text = f'SELECT {value} AS "it\'s ""it""", 1 AS n'
    name, expected = 'it\'s "it"', VALUES[value]
    content = written(store, text, "json", tmp_path / "json").decode()
    [row] = json.loads(content, parse_constant=no_constant)
    assert row == {name: expected, "n": 1}
    assert type(row[name]) is type(expected)
    [cell] = csv.DictReader(io.StringIO(written(store, text, "csv", tmp_path / "csv").decode(), newline=""))
    if value == "'NaN'::DOUBLE":
        assert cell[name] == "nan"
    elif isinstance(expected, list | dict):
        assert json.loads(cell[name], parse_constant=no_constant) == expected
    else:
        assert (
            cell[name] in {str(expected), str(expected).lower()}
            or expected is None
            or (float(cell[name]) == expected)
        )
    written(store, text, "parquet", tmp_path / "parquet")
    with duckdb.connect() as con:
        asked = 'SELECT "it\'s ""it""" IS NULL, n FROM read_parquet(?)'
        assert con.execute(asked, [str(tmp_path / "parquet")]).fetchall() == [(value.startswith("NULL"), 1)]
    assert name in written(store, text, "table", tmp_path / "table").decode()


def test_all_of_duckdbs_types_are_written(store: Store, tmp_path: Path) -> None:
    for output_format in results.FORMATS:
        content = written(store, "SELECT * FROM test_all_types()", output_format, tmp_path / "out")
        if output_format == "json":
            assert len(json.loads(content, parse_constant=no_constant)) == 3


def test_no_rows_and_many_batches(store: Store, tmp_path: Path) -> None:
    for count in (0, 1, 10_000):
        text = f"SELECT i, [i / 2] AS half FROM range({count}) AS r(i) ORDER BY i DESC"
        expected = [{"i": i, "half": [i / 2]} for i in reversed(range(count))]
        assert json.loads(written(store, text, "json", tmp_path / "json")) == expected
        read = csv.DictReader(io.StringIO(written(store, text, "csv", tmp_path / "csv").decode()))
        assert [{"i": int(row["i"]), "half": json.loads(row["half"])} for row in read] == expected
        written(store, text, "parquet", tmp_path / "parquet")
        assert pq.read_table(tmp_path / "parquet").to_pylist() == expected


def test_to_show_rows_no_more_are_fetched_than_are_shown(store: Store, tmp_path: Path) -> None:
    text = "SELECT CASE WHEN i < 500000 THEN i ELSE error('fetched all') END AS n FROM range(1000000) AS r(i)"
    assert ">9999 rows" in written(store, text, "table", tmp_path / "table").decode()


@pytest.mark.parametrize("output_format", ["csv", "json", "parquet"])
def test_an_error_in_the_middle_leaves_the_file_as_it_was(
    store: Store, tmp_path: Path, output_format: str
) -> None:
    (tmp_path / "out").write_text("before")
    text = (
        "SELECT CASE WHEN i < 500000 THEN i ELSE error('in the middle') END AS n FROM range(600000) AS r(i)"
    )
    with pytest.raises(QueryError, match="in the middle"):
        written(store, text, output_format, tmp_path / "out")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "before")]


def test_what_is_written_to_a_device_goes_there(store: Store) -> None:
    with ask.asked([store.root], "SELECT 1") as rows:
        results.write(rows, "csv", Path("/dev/null"))
    assert Path("/dev/null").is_char_device()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1]), Drive("r2", [0.1]))
    file = store.table_file("scores", NIGHT, "r2")  # DuckDB opens it when it reads the rows
    file.write_bytes(b"no Parquet at all")
    with pytest.raises(MiningError, match=f"^{re.escape(str(file))}: .*`mining run"):
        ask.query([store.root], "SELECT max(hardness) FROM scores")
    for key in ("a", "b"):
        batch = {"selections": table("selections", []), "slices": table("slices", [])}
        store.commit("select", NIGHT, key, batch, digest="x", select={})
    chosen = store.table_file("selections", NIGHT, "b")
    chosen.write_bytes(b"no Parquet at all")
    done = command("diff", "a", "b", "--store", str(store.root))
    _, error = done.communicate(timeout=60)
    assert (done.returncode, error.count("\n")) == (1, 1)
    assert f"error: {chosen}: " in error
    file.unlink()
    with pytest.raises(MiningError, match=f"^{re.escape(str(file))}: .*`mining run"):
        ask.query([store.root], "SELECT max(hardness) FROM scores")


def command(*arguments: str) -> subprocess.Popen[str]:
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from mining.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


ENDLESS = "SELECT sum(a.i * b.i) FROM range(1000000000) AS a(i), range(1000000) AS b(i)"


@pytest.mark.parametrize("text", [ENDLESS, f"EXPLAIN ANALYZE {ENDLESS}"])
def test_ctrl_c_stops_a_running_query(store: Store, text: str) -> None:
    process = command("sql", text, "--store", str(store.root))
    try:
        stat = Path(f"/proc/{process.pid}/stat")
        for _ in range(600):  # until it has computed for 3 s: the query is running then
            if int(stat.read_text().rsplit(")", 1)[1].split()[11]) > 3 * os.sysconf("SC_CLK_TCK"):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out, error) == (130, "", "mining: stopped\n")


@pytest.mark.parametrize("output_format", ["csv", "json", "parquet"])
def test_a_reader_that_goes_away_is_no_error(store: Store, output_format: str) -> None:
    text = "SELECT i, hash(i) AS h FROM range(1000000) AS r(i)"
    process = command("sql", text, "--store", str(store.root), "--format", output_format)
    assert process.stdout
    assert process.stderr
    process.stdout.read(1)
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (0, "")


def test_a_query_that_is_interrupted_from_elsewhere_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise duckdb.InterruptException("INTERRUPT Error: Interrupted!")

    monkeypatch.setattr(results.Rows, "_sql", interrupted)
    with pytest.raises(QueryError, match=r"^stopped$"):
        ask.query([store.root], "SELECT 1")


@pytest.mark.parametrize("output_format", ["csv", "json", "parquet"])
def test_spans_of_time_are_written_as_text(store: Store, tmp_path: Path, output_format: str) -> None:
    found = ask.query([store.root], "SELECT max(captured_at) - min(captured_at) AS span FROM mined")
    results.write_table(found, output_format, tmp_path / "out")
    assert (tmp_path / "out").stat().st_size > 0
