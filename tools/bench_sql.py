"""How fast is SQL over a large store: "the 2,000 hardest night frames with a pedestrian, at most 5 a drive".

    python tools/bench_sql.py FOLDER [--rows 100000000] [--nights 100] [--shard-rows 250000] [--whole-mined] [--compact] [--json]

Makes a store of that many scored frames in FOLDER/store (where none is there yet; delete it when done), through
``Store.commit``, so files are as the stages write them. What the queries read is random and plausible: drives of two hours
at two frames a second around one city, the sun where it stood, hardness, classes. Every other column is NULL, and
``detections`` is empty: no query here asks it. A shard holds what a few hours of the fleet brought, ``--shard-rows`` rows;
the stages commit a shard a recording (some 1,200 rows), so such a store stands for one whose files were put together night
by night, as `mining compact` does. Run it with a smaller ``--shard-rows`` to see what many files cost, and with ``--compact``
to have them put together then, and the same queries timed again.

Each query runs in a process of its own, with two threads and a memory limit, three times; the best counts, files are in the
page cache. The bar: under 5 s and 4 GB over all nights; and a query over some nights lists no other night's folder. Wall
time means little on a machine that others use too, so CPU time (of both threads) stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from mining import compact, views
from mining.schemas import TABLES
from mining.signals.sun import NIGHT_ELEVATION_DEG, sun_elevation_deg
from mining.store import Store
from mining.types import Nights, frame_id

BAR_S, BAR_BYTES = 5.0, 4e9
FIRST_NIGHT = date(2026, 1, 1)
COMMITTEE = "bench-00000000"
FRAMES_A_DRIVE, FRAMES_A_RECORDING, SAMPLE_HZ = 14_400, 1_200, 2.0
HARDEST = """\
SELECT frame_id, drive_id, hardness
FROM {view}
WHERE at_night({view}) AND has_class({view}, 'pedestrian')
QUALIFY row_number() OVER (PARTITION BY drive_id ORDER BY hardness DESC) <= 5
ORDER BY hardness DESC
LIMIT 2000
"""
CLASSES = ("", "car", "car,truck", "car,pedestrian", "bus,car,pedestrian,traffic_light", "car,traffic_light,truck",
           "pedestrian", "car,two_wheeler", "animal")  # fmt: skip
CLASS_SHARES = (0.15, 0.35, 0.15, 0.1, 0.05, 0.1, 0.03, 0.06, 0.01)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--nights", type=int, default=100)
    parser.add_argument("--shard-rows", type=int, default=250_000)
    parser.add_argument(
        "--whole-mined", action="store_true", help="ask `mined` over all nights too (minutes)"
    )
    parser.add_argument(
        "--compact", action="store_true", help="then put the files together, and time it again"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.folder / "store"
    if options.child:
        print(json.dumps(run_child(root, json.loads(options.child))))
        return
    if options.rows < options.nights or options.shard_rows < 1 or options.nights < 2:
        parser.error("--rows needs a row a night, --nights at least 2, --shard-rows at least 1")
    make(root, options.rows, options.nights, options.shard_rows)
    week = [
        FIRST_NIGHT.isoformat(),
        (FIRST_NIGHT + timedelta(days=min(7, options.nights - 1) - 1)).isoformat(),
    ]
    runs = {
        "all nights, FROM scores": {"view": "scores"},
        "a week, FROM scores": {"view": "scores", "nights": week},
        "a week, FROM mined": {"view": "mined", "nights": week},
    }
    if options.whole_mined:
        runs["all nights, FROM mined"] = {"view": "mined", "times": 1}
    found = timed(options.folder, runs)
    whole, part = found["all nights, FROM scores"], found["a week, FROM scores"]
    total_s = whole["query_s"] + whole["connect_s"]
    nights_asked = min(7, options.nights - 1)
    # Every stage has a folder a night; index and score, say, are listed once a table of theirs.
    only_those = part["folders_listed"] == whole["folders_listed"] * nights_asked // options.nights
    holds = total_s < BAR_S and whole["peak_bytes"] < BAR_BYTES and only_those
    print(
        f"{'holds' if holds else 'FAILS'}: {total_s:.2f} s (bar {BAR_S:g}), {whole['peak_bytes'] / 1e9:.2f} GB (bar "
        f"{BAR_BYTES / 1e9:g}), {'only' if only_those else 'MORE THAN'} the nights asked for are listed"
    )
    compacted = put_together(options.folder, runs) if options.compact else None
    if options.json:
        print(json.dumps({
            "compacted": compacted,
            "rows": options.rows, "nights": options.nights, "shard_rows": options.shard_rows, "runs": found,
            "total_s": total_s, "bar_s": BAR_S, "peak_bytes": whole["peak_bytes"], "bar_bytes": BAR_BYTES,
            "only_nights_asked": only_those, "holds": holds,
        }))  # fmt: skip


def timed(folder: Path, runs: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Run every query, and say what it took."""
    found = {}
    for name, asked in runs.items():
        found[name] = one = in_child(folder, asked)
        print(
            f"{name:24} {one['query_s']:7.2f} s ({one['query_cpu_s']:.2f} s of CPU) + {one['connect_s']:.2f} s to connect, "
            f"{one['peak_bytes'] / 1e9:.2f} GB at its peak, {one['rows']} rows, "
            f"{one['folders_listed']} night folders and {one['files']} files listed"
        )
    return found


def put_together(folder: Path, runs: dict[str, dict]) -> dict[str, object]:
    """Compact the store, and run every query again."""
    note = folder / "bench_sql.json"
    note.write_text(
        json.dumps({**json.loads(note.read_text()), "compacted": True})
    )  # it is another store from here on
    started = time.perf_counter()
    report = compact.run(Store(folder / "store"), min_files=2)
    seconds = time.perf_counter() - started
    print(f"compacted in {seconds:.1f} s: {report.files_before} files became {report.files_after}")
    return {
        "seconds": seconds,
        "files_before": report.files_before,
        "files_after": report.files_after,
        "runs": timed(folder, runs),
    }


def in_child(folder: Path, asked: dict[str, object]) -> dict[str, float]:
    """Run one query in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, str(folder), "--child", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{asked}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def run_child(root: Path, asked: dict) -> dict[str, float]:
    """Connect as `mining sql` does, and time the query."""
    listed, listdir = [], os.listdir

    def counting(path: os.PathLike[str]) -> list[str]:
        listed.append(Path(path).name)
        return listdir(path)

    os.listdir = counting
    nights: Nights | None = None
    if "nights" in asked:
        nights = (date.fromisoformat(asked["nights"][0]), date.fromisoformat(asked["nights"][1]))
    store = Store(root)
    started = time.perf_counter()
    con = views.connect([store], nights=nights)
    connect_s = time.perf_counter() - started
    os.listdir = listdir
    con.execute("SET threads = 2")
    con.execute("SET memory_limit = '3GB'")  # of DuckDB's own; the process needs some beside it
    took: list[tuple[float, float]] = []
    for _ in range(asked.get("times", 3)):
        started, cpu = time.perf_counter(), time.process_time()
        table = con.sql(HARDEST.format(view=asked["view"])).to_arrow_table()
        took.append((time.perf_counter() - started, time.process_time() - cpu))
    return {
        "query_s": min(wall for wall, _ in took),
        "query_cpu_s": min(cpu for _, cpu in took),
        "connect_s": connect_s,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "rows": table.num_rows,
        "folders_listed": sum(name.startswith("night=") for name in listed),
        "files": sum(len(store.committed_files(name, nights)) for name in TABLES),
    }


def make(root: Path, rows: int, nights: int, shard_rows: int) -> None:
    """Generate the store, or take the one that is there if it was made with the same numbers."""
    made = {"rows": rows, "nights": nights, "shard_rows": shard_rows}
    note = root.parent / "bench_sql.json"
    if note.exists():
        if json.loads(note.read_text()) != made:
            sys.exit(
                f"{root.parent} holds a store made with other numbers, or compacted since ({note}); delete it or name another "
                "folder"
            )
        return
    if root.exists():
        sys.exit(f"{root.parent} holds half a store, or another one; delete it or name another folder")
    store = Store(root, create=True)
    drive = 0
    for n in range(nights):
        night = FIRST_NIGHT + timedelta(days=n)
        count = rows // nights + (n < rows % nights)
        rng = np.random.default_rng(n)
        drives = -(-count // FRAMES_A_DRIVE)
        starts_s = np.sort(rng.uniform(0, 86_400 - FRAMES_A_DRIVE / SAMPLE_HZ, drives))
        for i, first in enumerate(range(0, count, shard_rows)):
            size = min(shard_rows, count - first)
            shard = Shard.of(rng, night, drive, starts_s, first, size)
            commit(store, night, f"s{n:04d}{i:05d}", shard)
        drive += drives
        if sys.stderr.isatty() or n % 10 == 9:
            print(f"made {n + 1} of {nights} nights", file=sys.stderr)
    note.write_text(json.dumps(made))


@dataclass
class Shard:
    """What varies over the frames of one shard."""

    columns: dict[str, pa.Array]
    recordings: dict[str, list]

    @classmethod
    def of(
        cls,
        rng: np.random.Generator,
        night: date,
        first_drive: int,
        starts_s: np.ndarray,
        first: int,
        size: int,
    ) -> Shard:
        """Draw the frames ``first`` to ``first + size`` of a night whose drives begin at these seconds of the day."""
        position = np.arange(first, first + size)
        of_drive, in_drive = position // FRAMES_A_DRIVE, position % FRAMES_A_DRIVE
        midnight_s = datetime.combine(night, datetime.min.time(), UTC).timestamp()
        at_s = midnight_s + starts_s[of_drive] + in_drive / SAMPLE_HZ
        latitude = 52.5 + 0.1 * np.sin(in_drive / 3000 + of_drive)
        longitude = 13.4 + 0.1 * np.cos(in_drive / 2000 + of_drive)
        elevation = sun_elevation_deg(at_s, latitude, longitude)
        recording = (first_drive + of_drive) * (
            FRAMES_A_DRIVE // FRAMES_A_RECORDING
        ) + in_drive // FRAMES_A_RECORDING
        names = {
            int(r): f"{(int(r) * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 16**20:020x}"
            for r in np.unique(recording)
        }
        drive_names = {int(d): f"berlin-{int(d):06d}" for d in np.unique(first_drive + of_drive)}
        # What is seen lasts: one draw holds for four frames.
        seen = np.repeat(rng.choice(len(CLASSES), size // 4 + 1, p=CLASS_SHARES), 4)[:size]
        hardness = rng.beta(2, 5, size)
        index_in_recording = in_drive % FRAMES_A_RECORDING
        columns = {
            "frame_id": pa.array(
                [
                    frame_id(names[r], i)
                    for r, i in zip(recording.tolist(), index_in_recording.tolist(), strict=True)
                ]
            ),
            "recording_id": pa.array([names[r] for r in recording.tolist()]),
            "drive_id": pa.array([drive_names[d] for d in (first_drive + of_drive).tolist()]),
            "vehicle_id": pa.repeat("berlin", size),
            "camera": pa.repeat("front", size),
            "committee_id": pa.repeat(COMMITTEE, size),
            "status": pa.repeat("ok", size),
            "frame_index": pa.array(index_in_recording),
            "pts_ns": pa.array((index_in_recording / SAMPLE_HZ * 1e9).astype(np.int64)),
            "captured_at": pa.array((at_s * 1e6).astype(np.int64)).cast(pa.timestamp("us", tz="UTC")),
            "latitude_deg": pa.array(latitude),
            "longitude_deg": pa.array(longitude),
            "classes": pa.array(CLASSES).take(pa.array(seen)),
            "sun_elevation_deg": pa.array(elevation, pa.float32()),
            "is_night": pa.array(elevation < NIGHT_ELEVATION_DEG),
            "hardness": pa.array(hardness, pa.float32()),
            "luma_mean": pa.array(np.clip(90 + 3 * elevation, 15, 140), pa.float32()),
        }
        starts = np.flatnonzero(np.diff(recording, prepend=-1))
        recordings = {
            "recording_id": [names[int(recording[i])] for i in starts],
            "drive_id": [drive_names[int(first_drive + of_drive[i])] for i in starts],
            "started_at": [datetime.fromtimestamp(float(at_s[i]), UTC) for i in starts],
            "camera": ["front"] * len(starts),
            "kind": ["video"] * len(starts),
            "status": ["ok"] * len(starts),
        }
        if index_in_recording[0]:  # the shard before holds the row of this recording
            recordings = {name: values[1:] for name, values in recordings.items()}
        return cls(columns, recordings)


def table(name: str, columns: dict[str, pa.Array]) -> pa.Table:
    """Build a table of a known schema; columns that are not given are NULL."""
    schema = TABLES[name]
    size = len(next(iter(columns.values()), []))
    return pa.table(
        [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(size, f.type) for f in schema],
        schema=schema,
    )


def commit(
    store: Store,
    night: date,
    key: str,
    shard: Shard,
    *,
    committee: str = COMMITTEE,
    signals: dict[str, pa.Array] | None = None,
    index: bool = True,
) -> None:
    """Commit a shard as the stages do; without ``index`` its frames are there already, by another committee."""
    notes = {"recording_id": key, "committee_id": committee, "content": key}
    seen = {**shard.columns, "committee_id": pa.repeat(committee, len(shard.columns["frame_id"]))}
    if index:
        indexed = {"frames": table("frames", seen), "recordings": table("recordings", shard.recordings)}
        store.commit("index", night, key, indexed, digest=key, **notes)
    detected = {"detections": TABLES["detections"].empty_table(), "observations": table("observations", seen)}
    store.commit("detect", night, key, detected, digest=key, sees={}, failed_to_run=0, **notes)
    scored = {
        "tracks": TABLES["tracks"].empty_table(),
        "scores": table("scores", {**seen, **(signals or {})}),
    }
    store.commit("score", night, key, scored, digest=key, **notes)


if __name__ == "__main__":
    main()
