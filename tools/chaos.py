"""Does a night that is killed again and again end with the rows of one that is not?

    python tools/chaos.py --footage FILE|FOLDER ... [--weights FILE ...] [--kills 200] [--jobs 1|2] [--seed 0] [--json]

The night is run once, undisturbed. Then again, in other stores, and killed (SIGKILL) until --kills is reached: each night first
at a commit boundary (before the n-th rename, unlink or sync of a file since the start; each n has its turn), then at drawn
boundaries and random moments. Each time the same command is started again; when a night ends, its rows are compared, the
store is verified, and another is begun. With ``--jobs 2`` two jobs work on the store, and either is killed. With ``--s3 0.05``
the store that is killed lies in a bucket of a local S3 that fails this share of all requests (500, 503, connections that end
before or after the work, answers cut off); a boundary is a write of an object then.

Held: equal rows in every table, none twice, none missing; `mining verify` finds no damage; every end is 0 or a kill.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from mining import buckets, housekeeping
from mining.places import place
from mining.schemas import TABLES
from mining.store import Store
from tests.mining.flaky_s3 import FlakyS3, flaky_s3

ROOT = Path(__file__).resolve().parents[1]
DEMO_WEIGHTS = [ROOT / "detectors" / "demo_weights" / f"demo_{name}.pt" for name in ("yolov8", "yolo11")]
CONFIG = """
store = {store}
[footage]
paths = {footage}
sample_hz = {sample_hz}
{detectors}
[detect]
batch_size = 4
shard_minutes = {shard_minutes}
[select]
budget = 10
min_gap_s = 0.5
[export]
to = "{name}-batches"
"""
PRELOADED = [
    "mining.cli",
    "mining.pipeline",
    "torch",
    "torchvision",
    "ultralytics",
    "ultralytics.nn.tasks",
    "duckdb",
    "av",
    "cv2",
]
"""What each job would import first: forked with it, a job is at work at once, and kills fall on the work."""
FORKED = multiprocessing.get_context("forkserver")
Job = multiprocessing.context.ForkServerProcess
# Where a delivery lies is named after the store.
_PLACES = {"exports": "* REPLACE (regexp_replace(image_uri, '^.*-batches/', '') AS image_uri)"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--footage", nargs="+", type=Path, required=True)
    parser.add_argument(
        "--weights", nargs="+", type=Path,
        default=DEMO_WEIGHTS,
    )  # fmt: skip
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--jobs", type=int, choices=[1, 2], default=1)
    parser.add_argument("--sample-hz", type=float, default=2.0)
    parser.add_argument("--shard-minutes", type=float, default=0.05)
    parser.add_argument(
        "--s3", type=float, metavar="SHARE", help="in a bucket that fails this share of requests"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end in one line of JSON")
    options = parser.parse_args()
    FORKED.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        if options.s3 is None:
            figures = disturb(options, Path(folder), None)
        else:
            with flaky_s3(rate=options.s3, seed=options.seed) as s3:
                os.environ.update(s3.environment)
                s3.make_bucket("chaos")
                figures = disturb(options, Path(folder), s3)
    for name, figure in figures.items():
        print(f"{name:<24}{figure}")
    if options.json:
        print(json.dumps(figures))


def disturb(options: argparse.Namespace, work: Path, s3: FlakyS3 | None) -> dict[str, Any]:
    """Run, kill, compare."""
    random = np.random.default_rng(options.seed)
    warm = FORKED.Process(target=int)  # the first job waits for what is imported
    warm.start()
    warm.join()
    began = time.perf_counter()
    calm = start(options, work, "calm", 0)
    calm.join()
    if calm.exitcode != 0:
        sys.exit(f"the undisturbed night ended with {calm.exitcode}: {said(work, 'calm')}")
    night_s = time.perf_counter() - began
    wanted = rows(str(work / "calm"))
    count = int((work / "calm.count").read_text())
    firsts = itertools.cycle(random.permutation(count) + 1)
    kills = {"at a boundary": 0, "at a random moment": 0}
    nights = unequal = damaged = wrong_ends = 0
    while sum(kills.values()) < options.kills:
        store = f"night{nights}" if s3 is None else f"s3://chaos/night{nights}"
        ended = disturbed_run(options, work, store, random, night_s, kills, int(next(firsts)))
        while not ended:
            boundary = int(random.integers(1, count + 1)) if random.integers(2) else 0
            ended = disturbed_run(options, work, store, random, night_s, kills, boundary)
        nights += 1
        last = start(options, work, store, 0)
        last.join()
        if last.exitcode != 0:
            wrong_ends += 1
            print(f"{store}: ended with {last.exitcode}: {said(work, store)}")
        lies_in = str(work / store) if s3 is None else store
        found = rows(lies_in)
        differing = [table for table in wanted if found[table] != wanted[table]]
        for table in differing:
            print(f"{store}: {table}: {len(found[table])} rows, {len(wanted[table])} undisturbed, or others")
        unequal += bool(differing)
        _, damage = housekeeping.verify(Store(place(lies_in)))
        damaged += len(damage)
        print(f"night {nights}: {sum(kills.values())} kills", flush=True)
        if s3 is None:
            shutil.rmtree(lies_in)
        else:
            for found_object in list(buckets.listed(lies_in)):
                buckets.delete(found_object.uri)
    return {
        "jobs": options.jobs,
        "failed_requests": None if s3 is None else f"{s3.failed.total()} of {s3.requests.total()}",
        "nights": nights,
        "first_killed_at": f"{min(nights, count)} of {count} boundaries",
        "rows": sum(len(found) for found in wanted.values()),
        "kills": {"value": kills, "bar": options.kills, "holds": sum(kills.values()) >= options.kills},
        "nights_with_other_rows": {"value": unequal, "bar": 0, "holds": unequal == 0},
        "damaged_files": {"value": damaged, "bar": 0, "holds": damaged == 0},
        "ends_with_an_error": {"value": wrong_ends, "bar": 0, "holds": wrong_ends == 0},
        "seconds": round(time.perf_counter() - began, 1),
    }


def disturbed_run(
    options: argparse.Namespace,
    work: Path,
    store: str,
    random: np.random.Generator,
    night_s: float,
    kills: dict[str, int],
    boundary: int,
) -> bool:
    """Start the night and kill it, at a boundary or where that is 0 at a random moment; returns whether it ended all the same."""
    jobs = [start(options, work, store, boundary) for _ in range(options.jobs)]
    victim = jobs[int(random.integers(len(jobs)))]
    if not boundary:
        victim.join(timeout=float(random.uniform(0, night_s)))
        if victim.exitcode is None:
            victim.kill()
    for each in jobs:
        each.join()
    codes = [each.exitcode for each in jobs]
    killed = sum(code == -signal.SIGKILL for code in codes)
    kills["at a boundary" if boundary else "at a random moment"] += killed
    if any(code not in (0, -signal.SIGKILL) for code in codes):
        sys.exit(f"a job ended with {codes}: {said(work, store)}")
    return 0 in codes


def said(work: Path, store: str) -> str:
    """The last of what jobs on a store said."""
    return Path(work, f"{store.rpartition('/')[2]}.log").read_text()[-600:]


def start(options: argparse.Namespace, work: Path, store: str, boundary: int) -> Job:
    """Start `mining run` on a store; it kills itself at a boundary where that is not 0."""
    name = store.rpartition("/")[2]
    config = work / f"{name}.toml"
    config.write_text(
        CONFIG.format(
            store=json.dumps(store),
            name=name,
            footage=json.dumps([str(path.resolve()) for path in options.footage]),
            detectors=detectors_of(options.weights),
            sample_hz=options.sample_hz,
            shard_minutes=options.shard_minutes,
        )
    )
    made = FORKED.Process(target=job, args=(boundary, config))
    made.start()
    return made


def detectors_of(weights: Sequence[Path]) -> str:
    """Write the committee as a config does."""
    return "\n".join(
        f'[[detector]]\nname = "d{n}"\nweights = {json.dumps(str(path.resolve()))}\nimage_size_px = 160'
        for n, path in enumerate(weights)
    )


def job(boundary: int, config: Path) -> None:
    """Run `mining run`, and kill this very process before the n-th call that makes a change to the disk or bucket last.

    Where that is 0, the calls are counted, into a file beside the config.
    """
    left = boundary
    lock = threading.Lock()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*values: Any, **named: Any) -> Any:
            nonlocal left
            with lock:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*values, **named)

        return wrapped

    for module, names in (
        (os, ("replace", "unlink", "fsync")),
        (buckets, ("put", "create", "replace", "delete")),
    ):
        for name in names:
            setattr(module, name, counted(getattr(module, name)))
    log = os.open(config.with_suffix(".log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    sys.argv = ["mining", "--quiet", "run", str(config)]
    from mining.cli import main as run

    try:
        run()
    finally:
        if not boundary:
            config.with_suffix(".count").write_text(str(-left))


def rows(store: str) -> dict[str, list[Any]]:
    """Every table's rows, in one order."""
    with Store(place(store)).connect() as con:
        return {
            table: con.sql(f"SELECT {_PLACES.get(table, '*')} FROM {table} ORDER BY ALL")
            .to_arrow_table()
            .to_pylist()
            for table in TABLES
            if table != "runs"  # a row a start
        }


if __name__ == "__main__":
    main()
