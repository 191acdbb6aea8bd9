"""Does a night that is killed again and again end with the rows of one that is not?

    python tools/chaos.py --footage FILE|FOLDER ... [--weights FILE ...] [--kills 200] [--every-boundary] [--jobs 1|2]
                          [--s3 SHARE] [--seed 0] [--json]

The night is run once, undisturbed. Then again, in other stores, and killed (SIGKILL) until --kills is reached: at random
moments, and at commit boundaries (before a rename, unlink or sync of a file) that had no kill so far; with
``--every-boundary`` until each boundary of the undisturbed night had its kill. Each time the same command is started again;
when a night ends, its rows are compared, the store is verified, and another is begun. With ``--jobs 2`` two jobs work on the
store, and one or both are killed. With ``--s3 0.05`` the store lies in a bucket of a local S3 that fails this share of all
requests (500, 503, connections that end before or after the work, answers cut off); a boundary is a write of an object then.

Held: equal rows in every table, none twice, none missing; `mining verify` finds no damage; every end is 0 or a kill.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
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
    parser.add_argument(
        "--every-boundary", action="store_true", help="go on until each commit boundary had a kill"
    )
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
    calm = store_of("calm", s3)
    undisturbed = start(options, work, calm, 0)
    undisturbed.join()
    if undisturbed.exitcode != 0:
        sys.exit(f"the undisturbed night ended with {undisturbed.exitcode}: {said(work, calm)}")
    night_s = time.perf_counter() - began
    wanted = rows(located(work, calm))
    boundaries = boundaries_of(work)
    kills = {"at a boundary": 0, "at a random moment": 0}
    nights = unequal = damaged = wrong_ends = 0

    left = boundaries
    while sum(kills.values()) < options.kills or (options.every_boundary and left):
        store = store_of(f"night{nights}", s3)
        while not disturbed_run(options, work, store, random, night_s, kills, len(left)):
            left = boundaries - killed_at(work)
        nights += 1
        last = start(options, work, store, 0)
        last.join()
        if last.exitcode != 0:
            wrong_ends += 1
            print(f"{store}: ended with {last.exitcode}: {said(work, store)}")
        lies_in = located(work, store)
        found = rows(lies_in)
        differing = [table for table in wanted if found[table] != wanted[table]]
        for table in differing:
            print(f"{store}: {table}: {len(found[table])} rows, {len(wanted[table])} undisturbed, or others")
        unequal += bool(differing)
        _, damage = housekeeping.verify(Store(place(lies_in)))
        damaged += len(damage)
        left = boundaries - killed_at(work)
        print(
            f"night {nights}: {sum(kills.values())} kills, {len(left)} of {len(boundaries)} boundaries had none",
            flush=True,
        )
        if s3 is None:
            shutil.rmtree(lies_in)
        else:
            for found_object in list(buckets.listed(lies_in)):
                buckets.delete(found_object.uri)
    covered = len(boundaries) - len(left)
    every = len(boundaries) if options.every_boundary else None
    return {
        "jobs": options.jobs,
        "failed_requests": None if s3 is None else f"{s3.failed.total()} of {s3.requests.total()}",
        "nights": nights,
        "boundaries": len(boundaries),
        "rows": sum(len(found) for found in wanted.values()),
        "kills": {"value": kills, "bar": options.kills, "holds": sum(kills.values()) >= options.kills},
        "boundaries_killed_at": {"value": covered, "bar": every, "holds": every is None or covered == every},
        "nights_with_other_rows": {"value": unequal, "bar": 0, "holds": unequal == 0},
        "damaged_files": {"value": damaged, "bar": 0, "holds": damaged == 0},
        "ends_with_an_error": {"value": wrong_ends, "bar": 0, "holds": wrong_ends == 0},
        "seconds": round(time.perf_counter() - began, 1),
    }


def store_of(name: str, s3: FlakyS3 | None) -> str:
    """Return the store of a night as its config names it."""
    return name if s3 is None else f"s3://chaos/{name}"


def located(work: Path, store: str) -> str:
    """Return where a store lies."""
    return store if "://" in store else str(work / store)


def boundaries_of(work: Path) -> set[str]:
    """Return the boundaries of the undisturbed night."""
    return set((work / "calm.met").read_text().splitlines())


def killed_at(work: Path) -> set[str]:
    """Return the boundaries that had a kill."""
    path = work / "killed-at"
    return set(path.read_text().splitlines()) if path.exists() else set()


def disturbed_run(
    options: argparse.Namespace,
    work: Path,
    store: str,
    random: np.random.Generator,
    night_s: float,
    kills: dict[str, int],
    left: int,
) -> bool:
    """Start the night and kill it, at a boundary or at a random moment; returns whether it ended all the same."""
    at_a_boundary = bool(left and random.integers(3))
    # A few are let by, so that what was done since the last kill differs.
    first = int(random.integers(1, min(left, 10) + 1)) if at_a_boundary else 0
    jobs = [start(options, work, store, first)]
    if options.jobs == 2:  # the other one takes over, until it dies too or the night is done
        jobs.append(start(options, work, store, first if random.integers(5) else 0))
    if not at_a_boundary:
        victim = jobs[int(random.integers(len(jobs)))]
        victim.join(timeout=float(random.uniform(0, night_s)))
        if victim.exitcode is None:
            victim.kill()
    for each in jobs:
        each.join()
    codes = [each.exitcode for each in jobs]
    killed = sum(code == -signal.SIGKILL for code in codes)
    kills["at a boundary" if at_a_boundary else "at a random moment"] += killed
    if any(code not in (0, -signal.SIGKILL) for code in codes):
        sys.exit(f"a job ended with {codes}: {said(work, store)}")
    return 0 in codes


def said(work: Path, store: str) -> str:
    """The last of what jobs on a store said."""
    return Path(work, f"{store.rpartition('/')[2]}.log").read_text()[-600:]


def start(options: argparse.Namespace, work: Path, store: str, boundary: int) -> Job:
    """Start `mining run` on a store; it kills itself at the n-th boundary that had no kill, where that is not 0."""
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
    """Run `mining run`, and kill this very process before the n-th change to the disk or bucket that had no kill.

    The changes met are written beside the config.
    """
    work = config.parent
    due = boundaries_of(work) - killed_at(work) if boundary else set()
    met: set[str] = set()
    lock = threading.Lock()
    after = threading.local()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*values: Any, **named: Any) -> Any:
            key = _boundary(call.__name__, values, config.stem, after)
            with lock:
                if key not in met:
                    met.add(key)
                    if key in due and len(met & due) == boundary:
                        with open(work / "killed-at", "a") as file:
                            file.write(key + "\n")
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
            config.with_suffix(".met").write_text("\n".join(sorted(met)))


def _boundary(call: str, values: Sequence[Any], store: str, after: threading.local) -> str:
    """Name a change so that it has the same name in every night: by its file, or where that has a random name or is a folder, by
    the last change of this thread that has a name, and their number since.
    """
    changed = values[1] if call == "replace" and "://" not in str(values[0]) else values[0]
    path = os.readlink(f"/proc/self/fd/{changed}") if call == "fsync" else str(changed)
    name = path.partition(f"/{store}")[2]
    is_table_folder = os.path.isdir(path) and name.startswith("/")  # many commits sync the same one
    if not name or re.search(r"[0-9a-f]{32}|/runs?/|^/leases/", name) or is_table_folder:
        after.number = getattr(after, "number", 0) + 1
        return f"{call} {after.number} after {getattr(after, 'name', None)}"
    after.name, after.number = f"{call} {name}", 0
    return after.name


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
