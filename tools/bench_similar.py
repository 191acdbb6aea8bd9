"""Time `mining similar` over a generated store, and check its answer against numpy over every embedding.

    python tools/bench_similar.py --folder /tmp/bench [--frames 1000000] [--dimensions 128] [--json]

The store is made under --folder unless it is there (one recording has 1,000 frames), and stays; delete it afterwards.
Printed: seconds and CPU seconds of one answer, those of a plain walk over the Parquet files with numpy, and peak memory.
The bar is on the ratio of CPU time, which other work on the machine does not change.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mining import similar
from mining.committee import Committee
from mining.config import Config
from mining.schemas import TABLES
from mining.store import Store
from mining.types import frame_id

COMMITTEE = Committee("a-00000000", ("a",), ("car",), (0.25,))
FRAMES_PER_RECORDING = 1000
COUNT = 20
RATIO_BAR, MEMORY_BAR_MB = 2.0, 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    root = options.folder / f"store-{options.frames}x{options.dimensions}"
    store = _generate(root, options.frames, options.dimensions) if not root.exists() else Store(root)
    similar.committee_of = lambda _config: COMMITTEE
    config = Config.model_validate_json('{"footage": {"paths": ["x"]}, "detector": [{"weights": "a.pt"}]}')
    example = frame_id(f"{0:020x}", 500)
    found, seconds, cpu_s = _timed(lambda: similar.find(store, config, example, count=COUNT, gap_s=0))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    embedding = similar.embeddings_of(store, config, COMMITTEE, [example])[0]
    wanted, plain_seconds, plain_cpu_s = _timed(lambda: _walk(store, example, embedding))
    same, ratio = found["frame_id"].to_pylist() == wanted, cpu_s / plain_cpu_s
    figures = {
        "frames": options.frames,
        "seconds": round(seconds, 2),
        "cpu_s": round(cpu_s, 2),
        "plain_walk_seconds": round(plain_seconds, 2),
        "plain_walk_cpu_s": round(plain_cpu_s, 2),
        "same_answer": {"value": same, "bar": True},
        "cpu_ratio_to_plain_walk": {"value": round(ratio, 2), "bar": RATIO_BAR},
        "peak_mb": {"value": peak_mb, "bar": MEMORY_BAR_MB},
        "holds": same and ratio <= RATIO_BAR and peak_mb <= MEMORY_BAR_MB,
    }
    print(json.dumps(figures) if options.json else "\n".join(f"{k}: {v}" for k, v in figures.items()))


def _timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    started, before = time.perf_counter(), os.times()
    result = work()
    after = os.times()
    return result, time.perf_counter() - started, after.user + after.system - before.user - before.system


def _walk(store: Store, example: str, embedding: np.ndarray) -> list[str]:
    """The nearest frames in float64, file by file."""
    ids, distances = [], []
    for file in store.committed_files("observations"):
        rows = pq.read_table(file, columns=["frame_id", "embedding"])
        vectors = rows["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, len(embedding))
        ids.append(rows["frame_id"].combine_chunks())
        distances.append(((vectors - embedding) ** 2).sum(axis=1, dtype=np.float64))
    distance = np.concatenate(distances)
    names = pa.chunked_array(ids)
    near = np.argpartition(distance, COUNT)[: COUNT + 1]
    near = near[np.argsort(distance[near], kind="stable")]
    return [name for name in names.take(pa.array(near)).to_pylist() if name != example][:COUNT]


def _generate(root: Path, frames: int, dimensions: int) -> Store:
    store = Store(root, create=True)
    rng = np.random.default_rng(0)
    n = FRAMES_PER_RECORDING
    for r in range(frames // n):
        start = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=10 * r)
        recording = f"{r:020x}"
        ids = [frame_id(recording, i) for i in range(n)]
        # Frames of a drive look alike: they lie around a point of their own.
        vectors = rng.normal(size=(n, dimensions)) + rng.normal(size=(1, dimensions))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        common: dict[str, Any] = {"recording_id": [recording] * n, "frame_id": ids}
        moments = [start + timedelta(seconds=i / 2) for i in range(n)]
        place = {"drive_id": [f"drive-{r}"] * n, "camera": ["front"] * n, "captured_at": moments}
        tables = {
            "recordings": {"recording_id": [recording], "uri": [f"/{recording}.mp4"], "started_at": [start]},
            "frames": {
                **common,
                **place,
                "frame_index": range(n),
                "pts_ns": [i * 500_000_000 for i in range(n)],
            },
            "observations": {
                **common,
                "committee_id": [COMMITTEE.committee_id] * n,
                "embedding": list(vectors.astype(np.float32)),
            },
            "detections": {},
        }
        night: date = start.date()
        notes = {"digest": "x", "recording_id": recording, "committee_id": COMMITTEE.committee_id}
        made = {name: _table(name, columns) for name, columns in tables.items()}
        store.commit("index", night, recording, {t: made[t] for t in ("recordings", "frames")}, **notes)
        store.commit(
            "detect", night, recording, {t: made[t] for t in ("observations", "detections")}, **notes
        )
    return store


def _table(name: str, columns: dict[str, Any]) -> pa.Table:
    schema = TABLES[name]
    count = len(next(iter(columns.values()), []))
    return pa.table(
        [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(count, f.type) for f in schema],
        schema=schema,
    )


if __name__ == "__main__":
    main()
