"""How long does `mining report` take over a large night, how large is the page, and how quickly does its filter answer?

    python tools/bench_report.py FOLDER [--frames 500000] [--chosen 500] [--video FILE] [--json]

Makes a store of that many scored frames in FOLDER (where none is there yet; delete it when done), through ``Store.commit``:
one night of recordings of ten minutes at two frames a second, with telemetry around one city, embeddings of 128 numbers,
every signal and percentile, and what two members saw (some 12 boxes a frame); a batch of ``--chosen`` frames spread over
the recordings. Each recording is a file, a hard link to one video that the tool renders (1280 x 720, ten frames a second,
a key frame every two seconds), or to ``--video``, which must be as long; so the pictures are decoded from as many files as
there are recordings. Bars, with two threads:

- the report, from the command's start to the written file: under 60 s;
- its file with 500 frames: under 10 MB;
- a filter in Chromium, from the choice to the picture on the screen, the slowest of five: under 300 ms (null where no
  Chromium is installed).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import sys
import time
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from mining import config as configs
from mining.committee import Committee, committee_of
from mining.footage import Defaults, Source, frame_times, stat_signature
from mining.report import write
from mining.report.data import collect
from mining.schemas import SIGNALS, TABLES
from mining.store import Store
from mining.types import frame_id

REPORT_BAR_S, SIZE_BAR_BYTES, FILTER_BAR_MS = 60.0, 10e6, 300.0
NIGHT = date(2026, 1, 1)
A_RECORDING, SAMPLE_HZ, VIDEO_HZ = 1200, 2.0, 10
DIMENSIONS, BOXES = 128, 12
CONFIG = """\
store = "store"
[footage]
paths = ["footage"]
[[detector]]
name = "one"
weights = "demo:demo_yolo11.pt"
[[detector]]
name = "two"
weights = "demo:demo_yolov8.pt"
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=500_000)
    parser.add_argument("--chosen", type=int, default=500)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not 2 <= options.chosen <= options.frames:
        parser.error("--chosen needs at least 2, and no more than --frames")
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    make(options.folder.absolute(), options.frames, options.chosen, options.video)
    config = configs.load(options.folder / "night.toml")
    store = Store(config.store_path)
    page = options.folder / "night.html"

    started, cpu = time.perf_counter(), time.process_time()
    written = write.run(store, config, page, night=NIGHT)
    report_s, report_cpu_s = time.perf_counter() - started, time.process_time() - cpu
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    started = time.perf_counter()
    data = collect(store, config, night=NIGHT)
    collect_s = time.perf_counter() - started
    filter_ms = slowest_filter_ms(page)
    figures = [
        figure(
            f"seconds, the report on {options.frames:,} frames, {written.frames} of them chosen",
            report_s,
            REPORT_BAR_S,
            cpu_s=report_cpu_s,
            of_that_asking_the_store_s=collect_s,
            peak_gb=peak_gb,
            without_picture=written.without_picture,
        ),
        figure(f"bytes of its file, {written.frames} frames", written.size_bytes, SIZE_BAR_BYTES),
        figure("milliseconds, the slowest filter", filter_ms, FILTER_BAR_MS),
    ]
    if written.without_picture or len(data["frames"]) != options.chosen:
        sys.exit(f"{written.without_picture} pictures are missing: these figures would say nothing")
    for row in figures:
        said = {True: "holds", False: "FAILS", None: "open "}[row["holds"]]
        value = "not measured" if row["value"] is None else f"{row['value']:.4g}"
        ratio = "" if row["value"] is None else f", {row['value'] / row['bar']:.2f} of it"
        print(f"{said}  {row['what']}: {value} (bar {row['bar']:g}{ratio})")
    if options.json:
        holds = [row["holds"] for row in figures]
        print(
            json.dumps(
                {"figures": figures, "holds": False if False in holds else None if None in holds else True}
            )
        )


def figure(what: str, value: float | None, bar: float, **more: float) -> dict[str, Any]:
    return {"what": what, "value": value, "bar": bar, "holds": None if value is None else value < bar, **more}


def slowest_filter_ms(page: Path) -> float | None:
    """From a choice in a filter to the second frame drawn after it: the first one shows what has changed."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return None
    from playwright.sync_api import sync_playwright

    choose = """async ([name, place]) => {
        const select = document.getElementById("f-" + name);
        const started = performance.now();
        select.selectedIndex = Math.min(place, select.options.length - 1);
        select.dispatchEvent(new Event("change"));
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        return performance.now() - started;
    }"""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        tab.goto(page.absolute().as_uri())
        tab.wait_for_selector("html[data-ready]")
        tab.evaluate("document.getElementById('frames').scrollIntoView()")
        tab.wait_for_timeout(1000)
        took = [
            tab.evaluate(choose, list(asked))
            for asked in (("class", 1), ("class", 0), ("arm", 1), ("sort", 1), ("arm", 0))
        ]
        browser.close()
    return float(max(took))


def make(folder: Path, frames: int, chosen: int, video: Path | None) -> None:
    """Make the store, or take the one that is there if it was made with the same numbers."""
    note = folder / "bench_report.json"
    made = {"frames": frames, "chosen": chosen, "video": None if video is None else str(video)}
    if note.exists():
        if json.loads(note.read_text()) != made:
            sys.exit(
                f"{folder} holds a store made with other numbers ({note}); delete it or name another folder"
            )
        return
    if (folder / "store").exists():
        sys.exit(f"{folder} holds half a store, or another one; delete it or name another folder")
    (folder / "footage").mkdir(parents=True)
    (folder / "night.toml").write_text(CONFIG)
    first = folder / "footage" / "0000.mp4"
    if video is None:
        render(first)
    else:
        shutil.copyfile(video, first)
    times = frame_times(Source(str(first), "video"), Defaults(image_rate_hz=1.0))
    step = int(VIDEO_HZ / SAMPLE_HZ)
    if len(times) <= (min(frames, A_RECORDING) - 1) * step:
        sys.exit(
            f"{first} holds {len(times)} frames, and {A_RECORDING * step} are needed: ten minutes at {VIDEO_HZ} Hz"
        )
    store = Store(folder / "store", create=True)
    committee = committee_of(configs.load(folder / "night.toml"))
    picked: list[dict[str, Any]] = []
    names = []
    for number, start in enumerate(range(0, frames, A_RECORDING)):
        size = min(A_RECORDING, frames - start)
        path = folder / "footage" / f"{number:04d}.mp4"
        if number:
            os.link(first, path)
        # Every recording gives as many chosen frames as the share of frames that it holds.
        share = chosen * (start + size) // frames - len(picked)
        names.append(
            commit_recording(
                store, committee, number, size, path, times.pts_ns[: size * step : step], share, picked
            )
        )
        if number % 100 == 99:
            print(f"made {start + size:,} of {frames:,} frames", file=sys.stderr)
    commit_batch(store, committee, names, picked, frames)
    note.write_text(json.dumps(made))


def render(path: Path) -> None:
    """Ten minutes of something that moves and has detail, so that pictures of it are about as large as those of footage."""
    rng = np.random.default_rng(0)
    ground = cv2.resize(
        rng.integers(40, 216, (24, 128, 3), np.uint8), (3840, 720), interpolation=cv2.INTER_CUBIC
    )
    grain = cv2.resize(rng.normal(0, 4, (360, 1920)), (3840, 720))[:, :, None]
    ground = np.clip(ground + grain, 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "28", "g": str(2 * VIDEO_HZ), "bf": "0"}
        stream = container.add_stream("libx264", rate=VIDEO_HZ, options=options)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        packets = []
        for i in range(60 * VIDEO_HZ):
            x = 4 * i % 2560
            packets += stream.encode(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(ground[:, x : x + 1280]), format="rgb24")
            )
        packets += stream.encode(None)
        # One minute, ten times: it begins with a key frame, and no packet asks for a later one.
        content = [(bytes(packet), packet.is_keyframe) for packet in packets]
        for i in range(A_RECORDING * int(VIDEO_HZ / SAMPLE_HZ)):
            packet_bytes, is_keyframe = content[i % len(content)]
            packet = av.Packet(packet_bytes)
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, VIDEO_HZ), i, i
            packet.is_keyframe = is_keyframe
            container.mux(packet)


def commit_recording(
    store: Store,
    committee: Committee,
    number: int,
    size: int,
    path: Path,
    pts_ns: np.ndarray,
    chosen: int,
    picked: list[dict[str, Any]],
) -> str:
    """Commit what the stages would of one recording; adds its chosen frames to ``picked``. Returns its id."""
    rng = np.random.default_rng(number)
    name = f"{(number * 0x9E3779B97F4A7C15F39CC0605CEDC835 + 1) % 16**20:020x}"
    drive, vehicle = f"berlin-{number // 6:04d}", f"v{number % 40:02d}"
    index = np.arange(size) * int(VIDEO_HZ / SAMPLE_HZ)
    ids = np.array([frame_id(name, int(i)) for i in index])
    started_s = datetime.combine(NIGHT, datetime.min.time(), UTC).timestamp() + (number * 197) % 85_000
    at_us = ((started_s + (pts_ns - pts_ns[0]) / 1e9) * 1e6).astype(np.int64)
    size_bytes, modified_ns = stat_signature(Source(str(path), "video"))
    hardness = rng.beta(2, 3, size).astype(np.float32)
    same = {"recording_id": pa.repeat(name, size), "drive_id": pa.repeat(drive, size)}
    frames = {
        **same, "frame_id": ids, "vehicle_id": pa.repeat(vehicle, size), "camera": pa.repeat("front", size), "frame_index": index,
        "pts_ns": pts_ns, "captured_at": pa.array(at_us).cast(pa.timestamp("us", tz="UTC")),
        "latitude_deg": 52.5 + 0.1 * np.sin(index / 3000 + number), "longitude_deg": 13.4 + 0.1 * np.cos(index / 2000 + number),
        "speed_mps": rng.uniform(0, 30, size),
    }  # fmt: skip
    recording = {
        "recording_id": [name], "drive_id": [drive], "vehicle_id": [vehicle], "camera": ["front"], "uri": [str(path)], "kind": ["video"],
        "started_at": [datetime.fromtimestamp(started_s, UTC)], "duration_s": [size / SAMPLE_HZ], "width_px": [1280], "height_px": [720],
        "size_bytes": [size_bytes], "modified_ns": [modified_ns], "status": ["ok"], "tags": [[("city", "Berlin")]],
    }  # fmt: skip
    embedding = rng.normal(size=(1, DIMENSIONS)) + 0.3 * rng.normal(size=(size, DIMENSIONS))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    seen = {
        "frame_id": ids,
        "committee_id": pa.repeat(committee.committee_id, size),
        "status": pa.repeat("ok", size),
    }
    observations = {
        **seen, "recording_id": same["recording_id"], "luma_mean": rng.uniform(20, 150, size), "sharpness": rng.uniform(50, 900, size),
        "embedding": pa.FixedSizeListArray.from_arrays(embedding.astype(np.float32).ravel(), DIMENSIONS),
    }  # fmt: skip
    classes = np.array(["car", "car,pedestrian", "car,truck", "bus,car", "", "animal"])
    scores = {
        **seen, **same, "hardness": hardness, "classes": rng.choice(classes, size, p=[0.4, 0.2, 0.15, 0.1, 0.13, 0.02]),
        **{signal: rng.random(size, np.float32) for signal, _ in SIGNALS},
        **{f"{signal}_pct": rng.random(size, np.float32) for signal, _ in SIGNALS},
    }  # fmt: skip
    notes = {"recording_id": name, "committee_id": committee.committee_id, "content": name}
    store.commit(
        "index",
        NIGHT,
        name,
        {"frames": table("frames", frames), "recordings": table("recordings", recording)},
        digest=name,
        **notes,
    )
    detected = {
        "detections": detections(committee, rng, ids),
        "observations": table("observations", observations),
    }
    sees = {member: [True] * len(committee.classes) for member in committee.names}
    store.commit("detect", NIGHT, name, detected, digest=name, sees=sees, failed_to_run=0, **notes)
    scored = {"scores": table("scores", scores), "tracks": TABLES["tracks"].empty_table()}
    store.commit("score", NIGHT, name, scored, digest=name, reference_id="bench", **notes)
    for i in np.sort(rng.choice(size, chosen, replace=False)).tolist():
        picked.append({"frame_id": str(ids[i]), "hardness": float(hardness[i])})
    return name


def detections(committee: Committee, rng: np.random.Generator, ids: np.ndarray) -> pa.Table:
    """Half of the boxes of each member, in pairs that are the same object."""
    size, each = len(ids), BOXES // 2
    corner = rng.uniform(0, [900, 500], (size, each, 2)).repeat(2, axis=0).reshape(size * 2, each, 2)
    x, y = (corner[:, :, axis].ravel() for axis in (0, 1))
    count = size * 2 * each
    return table("detections", {
        "frame_id": ids.repeat(2 * each), "committee_id": pa.repeat(committee.committee_id, count),
        "detector": np.tile(np.array(committee.names).repeat(each), size), "box_index": np.tile(np.arange(each), 2 * size),
        "class": rng.choice(committee.classes, count), "confidence": rng.beta(2, 2, count), "match_id": np.tile(np.arange(each), 2 * size),
        "x1_px": x, "y1_px": y, "x2_px": x + rng.uniform(20, 300, count), "y2_px": y + rng.uniform(20, 200, count),
        "class_scores": pa.FixedSizeListArray.from_arrays(rng.random(count * len(committee.classes), np.float32), len(committee.classes)),
    })  # fmt: skip


def commit_batch(
    store: Store, committee: Committee, recordings: list[str], picked: list[dict[str, Any]], frames: int
) -> None:
    """Commit a batch of the picked frames, every twentieth of them in the random arm, with quotas of which one lacks frames."""
    batch_id = f"{NIGHT}-bench0"
    slices = ["night", "pedestrians", "rain", None]
    rows = [
        {
            **row, "batch_id": batch_id, "committee_id": committee.committee_id, "rank": i + 1,
            "arm": "random" if i % 20 == 19 else "mined", "slice": slices[i % 4], "estimated_boxes": 6.0,
            "reason": f"hardness {row['hardness']:.2f}; committee_errors 97 %, expected_missed 95 %; 0.41 from the nearest frame chosen before",
        }
        for i, row in enumerate(picked)
    ]  # fmt: skip
    quotas = [
        {"batch_id": batch_id, "slice": name, "floor": math.ceil(len(picked) / 3), "ceiling": len(picked), "eligible": frames // 9,
         "chosen": len(picked) // 4, "lack": "fewer frames than its floor" if name == "rain" else None}
        for name in slices if name
    ]  # fmt: skip
    tables = {name: pa.Table.from_pylist([{c: row.get(c) for c in TABLES[name].names} for row in found], TABLES[name])
              for name, found in (("selections", rows), ("slices", quotas))}  # fmt: skip
    store.commit(
        "select", NIGHT, batch_id, tables, digest="bench", committee_id=committee.committee_id, budget=len(picked),
        eligible=frames, settings="bench", scored=[f"{NIGHT} {name}" for name in recordings], recordings=recordings,
        select={"strategy": "k_center", "min_gap_s": 3.0, "where": "true"}, chosen_at=f"{NIGHT}T23:59:00+00:00",
    )  # fmt: skip


def table(name: str, columns: dict[str, Any]) -> pa.Table:
    schema = TABLES[name]
    size = len(next(iter(columns.values())))
    filled = []
    for column in schema:
        values = columns.get(column.name)
        if values is None:
            filled.append(pa.nulls(size, column.type))
        else:
            known = isinstance(values, list)
            filled.append(pa.array(values, column.type) if known else pa.array(values).cast(column.type))
    return pa.table(filled, schema=schema)


if __name__ == "__main__":
    main()
