"""Does a night on a disk that is full again and again end with the rows of one that is not?

    python tools/disk_full.py --footage FILE|FOLDER ... [--weights FILE ...] [--json]      (as root: it mounts a tmpfs)

Store and deliveries lie on a tmpfs that is far too small; the check of free space before the start is left out, so that writes
fail wherever the space ends. Each time the night ends with 75, the store is verified and the tmpfs is made a quarter larger.
Held: no other exit code than 75 until it is 0, no damaged file at any end, and the rows of an undisturbed night.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from mining import housekeeping
from mining.places import place
from mining.store import Store
from mining.types import UsageError
from tools.chaos import CONFIG, DEMO_WEIGHTS, ROOT, detectors_of, rows

JOB = """
import sys
sys.path.insert(0, {root!r})
from mining import pipeline
pipeline._BYTES_A_FRAME = pipeline._BYTES_AN_IMAGE = pipeline._SPARE_BYTES = 0
sys.argv = ["mining", "--quiet", "run", sys.argv[1]]
from mining.cli import main
main()
"""
_FIRST_KB, _GROWTH = 24, 1.25


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--footage", nargs="+", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", type=Path, default=DEMO_WEIGHTS)
    parser.add_argument("--json", action="store_true", help="end in one line of JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="disk-full-") as folder:
        figures = fill(options, Path(folder))
    for name, figure in figures.items():
        print(f"{name:<24}{figure}")
    if options.json:
        print(json.dumps(figures))


def fill(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Run on too little space, give more, compare."""
    small, large = work / "small", work / "large"
    for folder in (small, large):
        folder.mkdir()
    _, said = run(options, large)
    size_kb, ends, damaged = float(_FIRST_KB), [], 0
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_FIRST_KB}k", "tmpfs", str(small)], check=True)
    try:
        while True:
            code, said = run(options, small)
            ends.append(code)
            print(f"{size_kb:6.0f} kB: exit code {code}: {said}", flush=True)
            with suppress(UsageError):  # there was no room for a store
                damaged += len(housekeeping.verify(Store(small / "store"))[1])
            if code != 75:
                break
            size_kb *= _GROWTH
            subprocess.run(["mount", "-o", f"remount,size={size_kb:.0f}k", str(small)], check=True)
        equal = code == 0 and rows(str(place(small / "store"))) == rows(str(place(large / "store")))
    finally:
        subprocess.run(["umount", str(small)], check=True)
    return {
        "full": ends.count(75),
        "other_ends": {
            "value": [code for code in ends[:-1] if code != 75] + [ends[-1]],
            "bar": [0],
            "holds": ends[-1] == 0,
        },
        "damaged_files": {"value": damaged, "bar": 0, "holds": damaged == 0},
        "rows_of_an_undisturbed_night": {"value": equal, "bar": True, "holds": equal},
    }


def run(options: argparse.Namespace, folder: Path) -> tuple[int, str]:
    """Run the night with its store in a folder: the exit code, and the last line that was said."""
    config = folder.with_suffix(".toml")
    config.write_text(
        CONFIG.format(
            store=json.dumps(str(folder / "store")),
            name=str(folder / "store"),
            footage=json.dumps([str(path.resolve()) for path in options.footage]),
            detectors=detectors_of(options.weights),
            sample_hz=2.0,
            shard_minutes=0.05,
        )
    )
    command = [sys.executable, "-c", JOB.format(root=str(ROOT)), str(config)]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


if __name__ == "__main__":
    main()
