"""How often does flicker point at a true miss? Against the masks of CamVid drives, or as pictures to look at.

    python tools/measure_flicker.py camvid --camvid ../shared/data/sequences/camvid --detector yolov8n_weather.pt
    python tools/measure_flicker.py clip --video drive.mp4 --detector yolov8n_weather.pt --out sheets/
    python tools/measure_flicker.py demo --drives demo/drives --detector demo:demo_yolo11.pt

A place where an object should be (``mining.signals.temporal.find_gaps``) is a true miss where the truth has an object there.
Beside each share stands the base rate: the same places in frames drawn at random from the same drive. A place that holds
objects in most frames proves little. ``clip`` has no truth: it writes before, place and after as one row a picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

import detectors
from detectors.classes import ClassMap
from detectors.preprocess import Batch
from mining.boxes import iou_matrix
from mining.config import ScoreConfig, shipped
from mining.demo.truth import truth_path
from mining.footage import Defaults, Source, frame_times, read
from mining.signals.temporal import Gaps, Links, Sequence, find_gaps, link, sequence_of

CAMVID_OBJECTS = (8, 9, 10)
"""Class ids of car, pedestrian and bicyclist in the masks."""
COVERED = 0.35
"""A place whose pixels are objects to this share holds one. Of kept boxes, 73 to 86 % do."""
FOUND_IOU, PLACE_IOU = 0.5, 0.3
"""Demo: an object is missed where no kept box overlaps it by the one; a place points at it from the other on."""
RANDOM_DRAWS = 20
TILE_PX = 150
SHEET_EVENTS = 30
SEEN, LACKING = (60, 230, 60), (255, 40, 40)


@dataclass(frozen=True, slots=True)
class Drive:
    """One recording as a detector saw it."""

    name: str
    sequence: Sequence
    links: Links
    gaps: Gaps
    frame_index: NDArray[np.int64]
    """[F] number of each frame in the recording."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["camvid", "clip", "demo"])
    parser.add_argument("--camvid", type=Path, help="folder of CamVid drives, each with images/ and masks/")
    parser.add_argument("--drives", type=Path, help="folder of the demo's drives")
    parser.add_argument("--video", type=Path, action="append", default=[])
    parser.add_argument("--detector", action="append", required=True, metavar="WEIGHTS[:HEAD]")
    parser.add_argument("--every", type=int, default=1, help="look at every n-th frame")
    parser.add_argument("--max-gap-s", type=float, default=None, help="the config's default, else")
    parser.add_argument("--out", type=Path, help="folder for the pictures of clip")
    options = parser.parse_args()
    if options.what == "camvid" and options.max_gap_s is None:
        options.max_gap_s = 2.1  # one frame a second: a gap of one frame
    if options.what == "camvid" and not options.camvid:
        parser.error("camvid needs --camvid")
    if options.what == "demo" and not options.drives:
        parser.error("demo needs --drives")
    if options.what == "clip" and not (options.video and options.out):
        parser.error("clip needs --video and --out")
    for weights in options.detector:
        detector = load(weights)
        {"camvid": camvid, "clip": clip, "demo": demo}[options.what](detector, options)


def load(text: str) -> detectors.Detector:
    weights, head = (text, None) if text.endswith(".pt") else text.rsplit(":", 1)
    return detectors.load(detectors.DetectorSpec(weights, head=head), ClassMap.load(shipped("classes.toml")))


def watch(detector: detectors.Detector, source: Source, options: argparse.Namespace) -> Drive:
    """Run the detector over a recording, and follow what it saw."""
    times = frame_times(source, Defaults(1.0))
    wanted = np.arange(0, len(times), options.every)
    index: list[int] = []
    frame, boxes, scores = [], [], []
    for got in read(source, times, wanted.tolist()):
        if got.rgb is not None:
            found = detector.predict(Batch([got.rgb]))
            frame.append(np.full(len(found.frame_index), len(index)))
            boxes.append(found.boxes_px)
            scores.append(np.nan_to_num(found.class_scores, nan=-1.0))
            index.append(got.frame_index)
    time_s = times.pts_ns[index] / 1e9
    all_of_it = np.ones(len(index), bool)
    max_gap_s = ScoreConfig().max_gap_s if options.max_gap_s is None else options.max_gap_s
    _, continues = sequence_of(time_s, all_of_it, ~all_of_it, max(max_gap_s, ScoreConfig().max_step_s))
    classes = np.concatenate(scores)
    sequence = Sequence(
        time_s=time_s,
        continues=continues,
        frame=np.concatenate(frame),
        boxes_px=np.concatenate(boxes).astype(np.float64),
        scores=classes.max(axis=1).astype(np.float64),
        classes=classes.argmax(axis=1),
        threshold=detector.spec.threshold,
        max_gap_s=max_gap_s,
    )
    links = link(sequence)
    return Drive(Path(source.path).stem, sequence, links, find_gaps(sequence, links), np.array(index))


Holds = Callable[[int, NDArray[np.float64]], NDArray[np.bool_]]


def judge(drives: list[Drive], holds: list[Holds]) -> str:
    """Share of places that hold a missed object, against the same places in frames drawn at random."""
    rng = np.random.default_rng(0)
    right: list[bool] = []
    kind: list[str] = []
    base: list[float] = []
    for drive, at in zip(drives, holds, strict=True):
        frames, gaps = len(drive.frame_index), drive.gaps
        for row in range(len(gaps.frame)):
            place = gaps.place_px[row : row + 1]
            right.append(bool(at(int(gaps.frame[row]), place)[0]))
            kind.append("vanished" if gaps.vanished[row] else "dipped" if gaps.dipped[row] else "other")
            base.append(float(np.mean([at(int(f), place)[0] for f in rng.integers(0, frames, RANDOM_DRAWS)])))
    lines = []
    for wanted, said in (
        ("vanished", "no trace, sure (flicker)"),
        ("dipped", "a weak box is left (dips)"),
        ("other", "neither (weak, or another class)"),
    ):
        which = np.array([k == wanted for k in kind], bool)
        n, hits = int(which.sum()), int(np.array(right, bool)[which].sum())
        at_random = f"{np.array(base)[which].mean():.0%}" if n else "-"
        lines.append(f"  {said:34} {hits:4} of {n:4} are misses; at random {at_random}")
    return "\n".join(lines)


def camvid(detector: detectors.Detector, options: argparse.Namespace) -> None:
    """Places against the masks: cars, pedestrians and bicyclists."""
    drives: list[Drive] = []
    holds: list[Holds] = []
    for folder in sorted(p for p in options.camvid.iterdir() if (p / "masks").is_dir()):
        drive = watch(detector, Source(str(folder / "images"), "images"), options)
        paths = sorted((folder / "masks").glob("*.png"))
        objects = [
            np.isin(np.asarray(cv2.imread(str(paths[i]), cv2.IMREAD_UNCHANGED)), CAMVID_OBJECTS)
            for i in drive.frame_index
        ]
        drives.append(drive)
        holds.append(partial(_covered, objects))
    print(f"{detector.name}: {sum(len(d.frame_index) for d in drives)} frames")
    print(judge(drives, holds))


def _covered(masks: list[NDArray[np.bool_]], frame: int, places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[k] whether each place in a frame is covered by objects."""
    mask = masks[frame]
    height, width = mask.shape
    corners = np.clip(np.round(places), 0, [width, height, width, height]).astype(int)
    parts = [mask[y1:y2, x1:x2] for x1, y1, x2, y2 in corners]
    return np.array([part.size > 0 and part.mean() >= COVERED for part in parts])


def demo(detector: detectors.Detector, options: argparse.Namespace) -> None:
    """Places against the demo's truth; only objects that the detector really missed count."""
    drives: list[Drive] = []
    holds: list[Holds] = []
    missed: list[int] = []
    missed_in_flicker: list[int] = []
    for video in sorted(options.drives.glob("*.mp4")):
        drive = watch(detector, Source(str(video), "video"), options)
        lacking = list(_missed(drive, video))
        drives.append(drive)
        holds.append(partial(_points_at, lacking))
        counts = np.array([len(boxes) for boxes in lacking])
        missed += counts.tolist()
        missed_in_flicker += counts[np.unique(drive.gaps.frame[drive.gaps.vanished])].tolist()
    print(f"{detector.name}: {len(missed)} frames, {np.mean(missed):.2f} missed objects a frame")
    if missed_in_flicker:
        print(
            f"  {len(missed_in_flicker)} frames flicker, {np.mean(missed_in_flicker):.2f} missed objects a frame in them"
        )
    print(judge(drives, holds))


def _points_at(
    missed: list[NDArray[np.float64]], frame: int, places: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """[k] whether each place in a frame is that of a missed object."""
    return iou_matrix(places, missed[frame]).max(axis=1, initial=0) >= PLACE_IOU


def _missed(drive: Drive, video: Path) -> Iterator[NDArray[np.float64]]:
    """Of each frame, the labelled objects that can be seen (a quarter of them) and that no kept box finds."""
    truth = pq.read_table(truth_path(video))
    boxes = np.column_stack([truth[f"{edge}_px"].to_numpy() for edge in ("x1", "y1", "x2", "y2")])
    visible = truth["visible_fraction"].to_numpy() >= 0.25
    index, s = truth["frame_index"].to_numpy(), drive.sequence
    for row, number in enumerate(drive.frame_index):
        objects = boxes[(index == number) & visible].astype(np.float64)
        kept = s.boxes_px[(s.frame == row) & s.kept]
        yield objects[iou_matrix(objects, kept).max(axis=1, initial=0) < FOUND_IOU]


def clip(detector: detectors.Detector, options: argparse.Namespace) -> None:
    """Write contact sheets of the events, the surest first: those that left no trace, and the dips."""
    options.out.mkdir(parents=True, exist_ok=True)
    for video in options.video:
        source = Source(str(video), "video")
        drive = watch(detector, source, options)
        gaps = drive.gaps
        kinds = {
            "gaps": len(gaps.frame),
            "no trace": int((gaps.trace == 0).sum()),
            "flicker": int(gaps.vanished.sum()),
            "dips": int(gaps.dipped.sum()),
        }
        print(f"{detector.name} on {video.name}: {len(drive.frame_index)} frames, {kinds}")
        for kind, which in (("no-trace", gaps.trace == 0), ("dips", gaps.dipped)):
            rows = np.flatnonzero(which)
            _, first = np.unique(gaps.before[rows], return_index=True)  # one picture an event
            rows = rows[first]
            rows = rows[np.argsort(-gaps.score[rows], kind="stable")][:SHEET_EVENTS]
            if len(rows):
                path = options.out / f"{video.stem}-{detector.name}-{kind}.png"
                cv2.imwrite(str(path), cv2.cvtColor(_sheet(source, drive, rows), cv2.COLOR_RGB2BGR))
                print(f"  {path}")


def _sheet(source: Source, drive: Drive, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Three events a line; of each: before, the place, after."""
    gaps, s = drive.gaps, drive.sequence
    triples = [
        [(int(s.frame[gaps.before[r]]), s.boxes_px[gaps.before[r]]), (int(gaps.frame[r]), gaps.place_px[r]),
         (int(s.frame[gaps.after[r]]), s.boxes_px[gaps.after[r]])]
        for r in rows
    ]  # fmt: skip
    needed = sorted({int(drive.frame_index[f]) for triple in triples for f, _ in triple})
    times = frame_times(source, Defaults(1.0))
    images = {f.frame_index: f.rgb for f in read(source, times, needed) if f.rgb is not None}
    tiles = []
    for r, triple in zip(rows, triples, strict=True):
        place = gaps.place_px[r]
        tile = np.hstack([
            _crop(images[int(drive.frame_index[f])], box, place, colour)
            for (f, box), colour in zip(triple, (SEEN, LACKING, SEEN), strict=True)
        ])  # fmt: skip
        a, b = s.scores[gaps.before[r]], s.scores[gaps.after[r]]
        text = f"{drive.frame_index[gaps.frame[r]]}: {a:.2f} {gaps.trace[r]:.2f} {b:.2f}{' flicker' if gaps.vanished[r] else ''}"
        cv2.putText(tile, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 0), 1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 3)
    return np.vstack([np.hstack(tiles[i : i + 3]) for i in range(0, len(tiles), 3)])


def _crop(
    image: NDArray[np.uint8],
    box: NDArray[np.float64],
    place: NDArray[np.float64],
    colour: tuple[int, int, int],
) -> NDArray[np.uint8]:
    """The surroundings of a place, with a box drawn."""
    reach = int(max(place[2:] - place[:2]) * 1.2 + 12)
    x, y = ((place[:2] + place[2:]) / 2).astype(int)
    around = cv2.copyMakeBorder(image, reach, reach, reach, reach, cv2.BORDER_CONSTANT)
    part = np.ascontiguousarray(around[max(y, 0) : y + 2 * reach, max(x, 0) : x + 2 * reach])
    scale = TILE_PX / part.shape[1]
    corners = np.round((box - [x - reach, y - reach] * 2) * scale).astype(int).tolist()
    part = cv2.resize(part, (TILE_PX, TILE_PX), interpolation=cv2.INTER_CUBIC)
    cv2.rectangle(part, corners[:2], corners[2:], colour, 1)
    return np.asarray(part, np.uint8)


if __name__ == "__main__":
    main()
