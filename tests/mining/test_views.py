"""Views and macros over one store and over several, here and in any other DuckDB."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from mining import views
from mining.schemas import TABLES
from mining.store import Store
from mining.types import MiningError, Nights, UsageError, nights_of
from tests.mining.synthetic import COMMITTEE, NIGHT, Drive, commit, store_of, table

OSLO = (59.9127, 10.7461)


def ids(con: duckdb.DuckDBPyConnection, text: str) -> list[str]:
    return [row[0] for row in con.execute(text).fetchall()]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return store_of(
        tmp_path_factory.mktemp("views"),
        Drive(
            "dark", [0.1, 0.9], is_night=True, classes=["car,pedestrian", ""], position_deg=(59.9075, 10.7531)
        ),
        Drive("light", [0.5], is_night=False, classes=["pedestrian"], position_deg=(59.3293, 18.0686)),
        Drive("unknown", [0.7]),
    )


def test_macros_are_conditions_over_the_view_or_its_alias(store: Store) -> None:
    with store.connect(locked=True) as con:
        assert ids(con, "SELECT frame_id FROM mined WHERE at_night(mined) ORDER BY 1") == [
            "dark-0000000",
            "dark-0000001",
        ]
        assert ids(con, "SELECT m.frame_id FROM mined AS m WHERE NOT at_night(m)") == ["light-0000000"]
        assert ids(
            con, "SELECT frame_id FROM scores WHERE at_night(scores) AND has_class(scores, 'pedestrian')"
        ) == ["dark-0000000"]
        # Whole names count, not parts of them.
        assert ids(con, "SELECT frame_id FROM mined WHERE has_class(mined, 'ped')") == []
        assert ids(
            con,
            "SELECT m.frame_id FROM mined AS m JOIN frames AS f USING (frame_id) "
            "WHERE near(f, 59.9127, 10.7461, 1000) AND has_class(m, 'car')",
        ) == ["dark-0000000"]
        # A NULL is neither one nor the other.
        both = "SELECT count(*) FROM mined WHERE {0} OR NOT {0}"
        for condition in ("at_night(mined)", "has_class(mined, 'car')", "near(mined, 0, 0, 1)"):
            assert con.execute(both.format(condition)).fetchall() == [(3,)], condition


@pytest.mark.parametrize(("place", "metres"), [((59.9075, 10.7531), 699.3), ((59.3293, 18.0686), 418115.5)])
def test_distances_agree_with_the_geodesic(store: Store, place: tuple[float, float], metres: float) -> None:
    """Reference: geographiclib 2.1, ``Geodesic.WGS84.Inverse``."""
    with store.connect() as con:
        [(found,)] = con.execute("SELECT distance_m(?, ?, ?, ?)", [*OSLO, *place]).fetchall()
        assert found == pytest.approx(metres, rel=0.005)
        inside = (
            "SELECT count(DISTINCT frame_id) FROM frames WHERE near(frames, ?, ?, ?) AND latitude_deg = ?"
        )
        for reach, expected in ((found + 1, True), (found - 1, False)):
            [(count,)] = con.execute(inside, [*OSLO, reach, place[0]]).fetchall()
            assert (count > 0) is expected


def test_near_holds_at_the_poles_and_across_the_date_line(store: Store) -> None:
    frame = "(SELECT {}::DOUBLE AS latitude_deg, {}::DOUBLE AS longitude_deg) AS f"
    with store.connect() as con:
        for lat, lon, to_lat, to_lon, metres in (
            (0, 179.9999, 0, -179.9999, 30),
            (89.9999, 0, 89.9999, 180, 30),
        ):
            text = f"SELECT near(f, {to_lat}, {to_lon}, {metres}) FROM {frame.format(lat, lon)}"
            assert con.execute(text).fetchall() == [(True,)]


def test_a_macro_reads_only_its_columns(store: Store) -> None:
    """The row is an argument, yet neither embeddings nor the other 150 columns are read for it."""
    with store.connect() as con:
        [(_, plan)] = con.execute(
            "EXPLAIN SELECT frame_id FROM mined WHERE at_night(mined) AND has_class(mined, 'car')"
        ).fetchall()
    assert "is_night" in plan
    assert "embedding" not in plan
    assert "entropy" not in plan


def test_every_view_has_its_comment(store: Store) -> None:
    assert set(views.VIEW_DOCS) == {*TABLES, "verdicts", "batch_frames", "mined", "second_look", "truth"}
    with store.connect() as con:
        found = dict(
            con.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall()
        )
    assert found == views.VIEW_DOCS


# -- several stores, chosen nights -------------------------------------------------------------------------------------


def test_several_stores_are_read_as_one_and_a_shard_of_both_once(tmp_path: Path) -> None:
    first = store_of(tmp_path / "a", Drive("r1", [0.1, 0.2]), Drive("r2", [0.3]))
    second = store_of(
        tmp_path / "b", Drive("r2", [0.3]), Drive("r3", [0.4, 0.5], night=NIGHT + timedelta(days=1))
    )
    with views.connect([first, second], locked=True) as con:
        for name in ("recordings", "frames", "scores", "observations", "mined"):
            rows = con.execute(f'SELECT count(*) FROM "{name}"').fetchall()[0][0]
            assert rows == (3 if name == "recordings" else 5), name
        assert ids(con, "SELECT DISTINCT recording_id FROM mined ORDER BY 1") == ["r1", "r2", "r3"]
    # What only one of them committed is there, whichever it is.
    first.retract("score", NIGHT, "r2")
    with views.connect([first, second]) as con:
        assert con.execute("SELECT count(*) FROM scores").fetchall() == [(5,)]


def test_a_recording_that_two_sites_cut_otherwise_is_seen_once(tmp_path: Path) -> None:
    def cut(folder: Path, *numbers: int) -> Store:
        store = store_of(folder, Drive("r1", [0.1] * 4), Drive("r2", [0.1]))
        rows = pq.read_table(store.table_file("observations", NIGHT, "r1"), partitioning=None)
        store.retract("detect", NIGHT, "r1")
        for n, (start, end) in enumerate(zip((0, *numbers), (*numbers, 4), strict=True)):
            store.commit(
                "detect",
                NIGHT,
                f"r1-{COMMITTEE}-{n:04d}",
                {"observations": rows.slice(start, end - start), "detections": table("detections", [])},
                digest="x",
            )
        return store

    whole, halves = cut(tmp_path / "a"), cut(tmp_path / "b", 1, 2)
    for stores in ([whole, halves], [halves, whole]):
        with views.connect(stores) as con:
            for name in ("observations", "mined"):
                rows = con.execute(f"SELECT count(*), count(DISTINCT frame_id) FROM {name}").fetchall()
                assert rows == [(5, 5)], name
    # Another committee is another key, and so is another batch, though they end in digits too.
    for store, end in ((whole, "11111111"), (halves, "22222222")):
        scores = {"scores": table("scores", [{"frame_id": end}]), "tracks": table("tracks", [])}
        store.commit("score", NIGHT, f"r3-a+b-{end}", scores, digest="x")
        batch = {"selections": table("selections", [{"frame_id": end}]), "slices": table("slices", [])}
        store.commit("select", NIGHT, f"2026-03-14-{end}", batch, digest="x")
    with views.connect([whole, halves]) as con:
        assert con.execute("SELECT count(*) FROM selections").fetchall() == [(2,)]
        assert ids(con, "SELECT frame_id FROM scores WHERE frame_id NOT LIKE 'r%' ORDER BY 1") == [
            "11111111",
            "22222222",
        ]


def test_a_frame_chosen_in_a_later_night_is_chosen_in_its_own_too(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1, 0.9]))
    row = {"batch_id": "b", "frame_id": "r1-0000001", "committee_id": COMMITTEE, "status": "ok"}
    later = NIGHT + timedelta(days=1)
    batch = {"selections": table("selections", [row]), "slices": table("slices", [])}
    store.commit("select", later, "b", batch, digest="x")
    store.commit("export", later, "b", {"exports": table("exports", [row])}, digest="x")
    with store.connect(nights=(NIGHT, NIGHT)) as con:
        found = con.execute("SELECT frame_id, chosen, exported FROM mined ORDER BY 1").fetchall()
    assert found == [("r1-0000000", False, False), ("r1-0000001", True, True)]


@pytest.mark.parametrize("content", [None, b"", b"no Parquet at all"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1]))
    file = store.table_file("scores", NIGHT, "r1")
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(MiningError, match=f"^{re.escape(str(file))}: .*`mining run"):
        store.connect()
    with pytest.raises(MiningError, match=f"^{re.escape(str(file))}: .*`mining run"):
        views.save_database([store], tmp_path / "x.duckdb")
    # Of several files DuckDB opens the others only when it reads them.
    good = store_of(tmp_path / "good", Drive("r0", [0.1]))
    with pytest.raises(MiningError, match=f"^{re.escape(str(file))}: "):
        views.save_database([good, store], tmp_path / "x.duckdb")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_shard_that_goes_while_files_are_listed_is_looked_for_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1]), Drive("r2", [0.1]))
    real, looks = Store.committed_files, []

    def listing(self: Store, name: str, nights: Nights | None = None) -> list[Path]:
        files = real(self, name, nights)
        if name == "scores":
            looks.append(len(files))
            self.retract("score", NIGHT, "r1")
            self.table_file("scores", NIGHT, "r1").unlink(missing_ok=True)
        return files

    monkeypatch.setattr(Store, "committed_files", listing)
    with store.connect() as con:
        assert ids(con, "SELECT frame_id FROM scores") == ["r2-0000000"]
    assert looks == [2, 1]


def test_scenes_of_two_stores_share_a_key_and_are_all_seen(tmp_path: Path) -> None:
    stores = [Store(tmp_path / name, create=True) for name in "ab"]
    for store, scenes in zip(stores, (["s1", "s2"], ["s2", "s3"]), strict=True):
        rows = table("scenes", [{"scene_id": s, "committee_id": COMMITTEE} for s in scenes])
        store.commit("scenes", NIGHT, COMMITTEE, {"scenes": rows}, digest="x")
    with views.connect(stores) as con:
        assert ids(con, "SELECT scene_id FROM scenes ORDER BY 1") == ["s1", "s2", "s3"]


def test_only_the_folders_of_the_nights_asked_for_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "s", create=True)
    for day in range(6):
        commit(store, Drive(f"r{day}", [0.1, 0.2], night=NIGHT + timedelta(days=day)))
    asked = {(NIGHT + timedelta(days=day)).isoformat() for day in (2, 3)}
    for file in (store.root / "tables").glob("*/night=*/*.parquet"):
        if file.parent.name.removeprefix("night=") not in asked:
            file.write_bytes(b"no Parquet at all")  # planning that opened it would fail
    listed: list[str] = []
    real = {name: getattr(os, name) for name in ("listdir", "scandir")}

    def recording(name: str):
        def call(path="."):
            listed.append(os.fspath(path))
            return real[name](path)

        return call

    for name in real:
        monkeypatch.setattr(os, name, recording(name))
    nights = nights_of("2026-03-16..2026-03-17")
    with store.connect(nights=nights, locked=True) as con:
        rows = con.execute(
            "SELECT strftime(night, '%Y-%m-%d'), count(*) FROM mined GROUP BY 1 ORDER BY 1"
        ).fetchall()
        assert rows == [(night, 2) for night in sorted(asked)]
        for name in TABLES:
            [(sql,)] = con.execute("SELECT sql FROM duckdb_views() WHERE view_name = ?", [name]).fetchall()
            assert all(night in asked for night in _nights_in(sql))
    monkeypatch.undo()
    folders = {path for path in listed if "night=" in path}
    assert folders
    assert {path.rpartition("night=")[2] for path in folders} == asked


def _nights_in(text: str) -> list[str]:
    return [part[:10] for part in text.split("/night=")[1:]]


@pytest.mark.parametrize("text", ["yesterday", "2026-02-30", "2026-03-02..2026-03-01", "2026-03-01.."])
def test_nights_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--nights"):
        nights_of(text)


def test_one_night_is_a_span_of_itself() -> None:
    assert nights_of("2026-03-01") == (date(2026, 3, 1), date(2026, 3, 1))


# -- the script, the saved file ----------------------------------------------------------------------------------------


def test_the_script_runs_unmodified_in_any_duckdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = 'it\'s "a" [dir] *?; DROP -- ü'
    built = store_of(
        tmp_path / hostile, Drive("r1", [0.1, 0.9], is_night=True, classes=["car", "bus"], camera="a'b\";--")
    )
    monkeypatch.chdir(built.root.parent)
    text = views.script([Store(Path("store"))])  # relative: the script must not be
    monkeypatch.chdir("/")
    with duckdb.connect() as con:
        con.execute(text)
        con.execute(text)  # again, after the next night
        assert ids(con, "SELECT camera FROM mined WHERE at_night(mined) AND has_class(mined, 'bus')") == [
            "a'b\";--"
        ]
        for name in TABLES:
            assert con.execute(f'DESCRIBE "{name}"').fetchall()[-1][0] == "night"
    file = tmp_path / "views.sql"
    file.write_text(text)
    code = f"import duckdb; c = duckdb.connect(); c.execute(open({str(file)!r}).read()); print(c.sql('SELECT count(*) FROM mined').fetchall())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[(2,)]"
    with built.connect(locked=True) as con:  # such a path is no pattern here either
        assert con.execute("SELECT count(*) FROM mined").fetchall() == [(2,)]


def test_a_saved_database_stands_alone(tmp_path: Path) -> None:
    store = store_of(
        tmp_path / "gone", Drive("r1", [0.1, 0.9], is_night=True, classes=["car", "bus"]), Drive("r2", [0.4])
    )
    output = tmp_path / "it's.duckdb"
    output.write_text("an old one")
    rows = views.save_database([store], output)
    assert (rows["frames"], rows["recordings"], rows["scenes"]) == (3, 2, 0)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["it's.duckdb"]
    os.rename(tmp_path / "gone", tmp_path / "moved")
    code = (
        "import duckdb, sys\n"
        "c = duckdb.connect(sys.argv[1], read_only=True)\n"
        "print(c.sql(\"SELECT frame_id FROM mined WHERE at_night(mined) AND has_class(mined, 'bus')\").fetchall())\n"
        "print(c.sql(\"SELECT tags->>'storage_version' FROM duckdb_databases() WHERE NOT internal\").fetchall())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(output)], capture_output=True, text=True, check=True
    )
    assert "r1-0000001" in done.stdout
    # The number in the file's header that DuckDB 1.0 writes and every later one reads.
    assert output.read_bytes()[12:20] == (64).to_bytes(8, "little")


def test_a_database_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1]))
    with pytest.raises(UsageError, match="folder does not exist"):
        views.save_database([store], tmp_path / "none" / "x.duckdb")
    with pytest.raises(UsageError, match="is a folder"):
        views.save_database([store], tmp_path)
