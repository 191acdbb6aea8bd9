"""Does a long night keep its memory, file handles and threads? Many short recordings in one run, watched from outside.

    python tools/soak.py --clip FILE [--recordings 300] [--frames 8] [--weights FILE ...] [--json]

The clip is cut into ``--recordings`` files of their own (each with another first frame, so that none is the content of another)
and run as one night. While `mining run` detects, its memory (proportional set size, with its children), open files, threads and
children are read. The last third of the night is compared with the second one: the first is for warming up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
store = "store"
[footage]
paths = ["footage"]
every = 1
{detectors}
[select]
budget = 50
"""
MAIN = "import sys; sys.path.insert(0, {root!r}); from mining.cli import main; main()"
MEMORY_BAR, COUNT_BAR = 1.05, 0


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the job."""

    shards: int
    memory_mb: float
    files: int
    threads: int
    children: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=300)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument(
        "--weights", nargs="+", type=Path,
        default=[ROOT / "detectors" / "demo_weights" / f"demo_{name}.pt" for name in ("yolov8", "yolo11")],
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="end in one line of JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        figures = soak(options, Path(folder))
    for name, figure in figures.items():
        print(f"{name:<24}{figure}")
    if options.json:
        print(json.dumps(figures))


def soak(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Run the night and watch it."""
    cut(options.clip, work / "footage", options.recordings, options.frames)
    detectors = "\n".join(
        f'[[detector]]\nname = "d{n}"\nweights = {json.dumps(str(path.resolve()))}\nimage_size_px = 160'
        for n, path in enumerate(options.weights)
    )
    (work / "soak.toml").write_text(CONFIG.format(detectors=detectors))
    began = time.perf_counter()
    command = [sys.executable, "-c", MAIN.format(root=str(ROOT)), "--quiet", "run", str(work / "soak.toml")]
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    samples: list[Sample] = []
    while job.poll() is None:
        shards = len(list(work.glob("store/done/detect/*/*.json")))
        if 0 < shards < options.recordings:
            sample = look(job.pid, shards)
            samples += [sample] if sample else []
        time.sleep(0.3)
    third = options.recordings / 3
    middle = [sample for sample in samples if third <= sample.shards < 2 * third]
    last = [sample for sample in samples if sample.shards >= 2 * third]
    if job.returncode != 0 or len(middle) < 5 or len(last) < 5:
        sys.exit(
            f"the night ended with {job.returncode}, and was looked at {len(samples)} times: too few to judge"
        )

    def grown(name: str) -> tuple[float, float]:
        return tuple(statistics.median(getattr(sample, name) for sample in part) for part in (middle, last))  # type: ignore[return-value]

    memory, files, threads, children = (grown(name) for name in ("memory_mb", "files", "threads", "children"))
    return {
        "recordings": options.recordings,
        "looks": len(samples),
        "memory_mb": {
            "value": memory,
            "bar": f"x {MEMORY_BAR}",
            "holds": memory[1] <= MEMORY_BAR * memory[0],
        },
        **{
            name: {"value": value, "bar": f"+ {COUNT_BAR}", "holds": value[1] <= value[0] + COUNT_BAR}
            for name, value in (("files", files), ("threads", threads), ("children", children))
        },
        "seconds": round(time.perf_counter() - began, 1),
    }


def look(pid: int, shards: int) -> Sample | None:
    """Read what the job and its children hold; None where one of them ends meanwhile."""
    try:
        children = [int(text) for text in _children(pid)]
        memory = sum(_pss_mb(one) for one in [pid, *children])
        process = Path(f"/proc/{pid}")
        return Sample(
            shards,
            memory,
            len(list((process / "fd").iterdir())),
            len(list((process / "task").iterdir())),
            len(children),
        )
    except (FileNotFoundError, ProcessLookupError):
        return None


def _children(pid: int) -> list[str]:
    found: list[str] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += (task / "children").read_text().split()
    return found


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cut(clip: Path, folder: Path, count: int, frames: int) -> None:
    """Write recordings of ``frames`` frames each, from the clip again and again, each begun one frame later."""
    folder.mkdir(parents=True)
    with av.open(str(clip)) as source:
        pictures = [
            frame.to_ndarray(format="rgb24")
            for _, frame in zip(range(120), source.decode(video=0), strict=False)
        ]
    for number in range(count):
        with av.open(str(folder / f"{number:04d}.mp4"), "w") as target:
            # The quality tells apart recordings that begin at the same frame.
            stream = target.add_stream(
                "libx264", rate=10, options={"crf": str(20 + number // len(pictures)), "preset": "ultrafast"}
            )
            stream.height, stream.width, stream.pix_fmt = (
                *[size // 2 * 2 for size in pictures[0].shape[:2]],
                "yuv420p",
            )
            for i in range(frames):
                picture = pictures[(number + i) % len(pictures)][: stream.height, : stream.width]
                target.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            target.mux(stream.encode(None))


if __name__ == "__main__":
    main()
