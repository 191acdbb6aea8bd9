"""Time `mining compare` over two nights, and over two committees, of a store with many frames.

    python tools/bench_compare.py FOLDER [--rows 500000] [--shard-rows 50000] [--json]

Makes a store in FOLDER/store (where none is there yet; delete it when done): two nights of together so many frames, which two
committees scored, every signal filled. Drives are two hours at two frames a second; signals of a drive are alike, and nothing
differs between the nights but noise. The bar: each comparison in under 30 s of CPU time, with two threads for DuckDB, in a process of its own; files are in the page cache. How many comparisons of alike nights find a difference is what tests/mining/test_compare_stats.py
asks; here the share of signals that are starred is printed beside, which should be 0 most times.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import bench_sql
import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from mining.committee import Committee
from mining.compare import committees, nights
from mining.config import Config
from mining.schemas import SIGNALS
from mining.store import Store

BAR_S = 30.0
NAMES = ("bench-old-00000000", "bench-new-11111111")
HARDNESS = (
    "committee_errors",
    "expected_error_rate",
    "expected_missed",
    "presence_sum",
    "dense_entropy_mean",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--shard-rows", type=int, default=50_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.folder / "store"
    if options.child:
        print(json.dumps(run_child(root, options.child)))
        return
    if not root.exists():
        make(root, options.rows, options.shard_rows)
    found = {what: in_child(options.folder, what) for what in ("nights", "committees")}
    for what, one in found.items():
        print(
            f"{what:11} {one['seconds']:6.1f} s ({one['cpu_s']:.1f} s of CPU), {one['peak_bytes'] / 1e9:.2f} GB, {one['says']}"
        )
    holds = all(one["cpu_s"] < BAR_S for one in found.values())
    print(f"{'holds' if holds else 'FAILS'}: bar {BAR_S:g} s of CPU each")
    if options.json:
        print(json.dumps({"rows": options.rows, "runs": found, "bar_s": BAR_S, "holds": holds}))


def in_child(folder: Path, what: str) -> dict:
    command = [sys.executable, __file__, str(folder), "--child", what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{what}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def run_child(root: Path, what: str) -> dict:
    config = Config.model_validate_json('{"footage": {"paths": ["x"]}, "detector": [{"weights": "x.pt"}]}')
    store = Store(root)
    first, second = store.nights("index")
    nights.committee_of = lambda _: Committee(NAMES[0], ("a",), (), (0.5,))
    connect = store.connect

    def with_two_threads(**asked: object) -> object:
        con = connect(**asked)
        con.execute("SET threads = 2")
        return con

    store.connect = with_two_threads  # type: ignore[method-assign]
    started, cpu = time.perf_counter(), time.process_time()
    if what == "nights":
        of_nights = nights.compare(store, config, (first, first), (second, second))
        starred = sum(bool(one.above.told) for one in of_nights.signals)
        says = f"{starred} of {len(of_nights.signals)} signals starred"
    else:
        says = f"rank correlation {committees.compare(store, config, *NAMES).rank_correlation:.2f}"
    return {
        "seconds": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "says": says,
    }


def make(root: Path, rows: int, shard_rows: int) -> None:
    """Two nights, two committees: bench_sql's frames with signals of which a drive's are alike."""
    store = Store(root, create=True)
    drive = 0
    for n in range(2):
        night = bench_sql.FIRST_NIGHT + timedelta(days=n)
        rng = np.random.default_rng(n)
        count = rows // 2
        drives = -(-count // bench_sql.FRAMES_A_DRIVE)
        starts_s = np.sort(rng.uniform(0, 86_400 - bench_sql.FRAMES_A_DRIVE / bench_sql.SAMPLE_HZ, drives))
        for i, first in enumerate(range(0, count, shard_rows)):
            size = min(shard_rows, count - first)
            shard = bench_sql.Shard.of(rng, night, drive, starts_s, first, size)
            of_drive = np.arange(first, first + size) // bench_sql.FRAMES_A_DRIVE
            latent = rng.standard_normal(drives + 1)[of_drive] + rng.standard_normal(size)
            for which, committee in enumerate(NAMES):
                put(store, rng, night, f"s{n:04d}{i:05d}-{which}", shard, latent, committee)
        drive += drives


def put(
    store: Store,
    rng: np.random.Generator,
    night: object,
    key: str,
    shard: bench_sql.Shard,
    latent: np.ndarray,
    name: str,
) -> None:
    """Commit a shard as one committee saw it; the first of them brings the frames too."""
    size = len(latent)
    columns = {
        **shard.columns,
        "committee_id": pa.repeat(name, size),
        "reference_id": pa.repeat(f"of-{name}", size),
    }
    percentiles = []
    for signal, _ in SIGNALS:
        values = latent + rng.standard_normal(size)
        percentile = (1 + np.tanh(values / 2)) / 2
        columns[signal] = pa.array(np.exp(values), pa.float32())
        columns[f"{signal}_pct"] = pa.array(percentile, pa.float32())
        if signal in HARDNESS:
            percentiles.append(percentile)
    columns["hardness"] = pa.array(np.mean(percentiles, axis=0), pa.float32())
    bench_sql.commit(store, night, key, shard, committee=name, signals=columns, index=name == NAMES[0])


if __name__ == "__main__":
    main()
