"""Measure how surely deliveries whose boxes lie beside the objects are told from those that lie on them.

    python tools/measure_fit.py --config night.toml --batch 2026-03-14-1f2e3d --vendor coco labels.json --json

Takes the labels of a delivery, which are to be right, as they are; with boxes missing and edges moved at random, as labelers
leave them; and spoilt as it happens to whole deliveries: other images, another size, a shift, corners mixed up. Of each the
share of the objects that a label fits (``mining.check_delivery.measure_fit``), and whether ``mining import-labels`` would
refuse it. Nothing is written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from detectors.classes import ClassMap
from mining import config as configs
from mining.check_delivery import SURE, Names, asked_for, check_delivery, measure_fit
from mining.import_labels import committee_objects, sent_batch
from mining.store import Store
from mining.types import MiningError
from mining.vendors import VENDORS

Labels = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]
"""Frames, boxes and classes; boxes in shares of the image's width and height."""


def usual(labels: Labels, rng: np.random.Generator) -> Iterator[tuple[str, Labels]]:
    """Deliveries that are to pass."""
    frame, boxes, classes = labels
    size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    yield "as delivered", labels
    for share in (0.3, 0.6, 0.8, 0.9):
        left = rng.random(len(frame)) >= share
        yield f"{share:.0%} of the boxes missing", (frame[left], boxes[left], classes[left])
    for noise in (0.05, 0.1, 0.15):
        moved = boxes + rng.normal(0, noise, boxes.shape) * size
        yield f"edges moved by {noise:.0%} of the box", (frame, moved, classes)
    left = rng.random(len(frame)) >= 0.5
    moved = boxes + rng.normal(0, 0.1, boxes.shape) * size
    yield "half missing, edges moved by 10%", (frame[left], moved[left], classes[left])


def spoilt(labels: Labels, frames: int, rng: np.random.Generator) -> Iterator[tuple[str, Labels]]:
    """Deliveries that are to be refused."""
    frame, boxes, classes = labels
    size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    yield "of the next image", ((frame + 1) % frames, boxes, classes)
    yield "images shuffled", (rng.permutation(frames)[frame], boxes, classes)
    for shift in (0.1, 0.2):
        yield f"shifted by {shift:.0%} of the image", (frame, boxes + np.array([shift, 0, shift, 0]), classes)
    for scale in (0.4, 0.5, 0.8, 0.9, 1.1, 1.25, 2.5):
        yield f"scaled by {scale:g}", (frame, boxes * scale, classes)
    yield "corner taken for the centre", (frame, boxes - size / 2, classes)
    yield "centre taken for the corner", (frame, boxes + size / 2, classes)
    yield "x and y swapped", (frame, boxes[:, [1, 0, 3, 2]], classes)
    yield (
        "mirrored",
        (frame, np.column_stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]]), classes),
    )
    yield (
        "the whole image",
        (np.arange(frames), np.tile([0.0, 0, 1, 1], (frames, 1)), np.full(frames, classes[0])),
    )
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    yield "points", (frame, np.concatenate([middle - 0.002, middle + 0.002], axis=1), classes)


def main() -> int:
    """Print a line for each, or with --json one object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--batch", required=True)
    parser.add_argument("--vendor", required=True)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        config = configs.load(args.config)
        store = Store(config.store_path)
        names = Names.of(ClassMap.load(config.classes_path), config.labels.names)
        with store.connect() as con:
            sent, _, committee_id, _ = sent_batch(store, con, names.fleet, args.batch, args.vendor)
            asked = asked_for(config.labels, names.fleet)
            objects = committee_objects(store, con, sent, committee_id, asked)
        read_labels = VENDORS[args.vendor].read_labels
        if read_labels is None:
            raise MiningError(f"--vendor {args.vendor}: cannot be read")
        checked = check_delivery(read_labels(args.files, sent), sent, names, config.labels)
    except (MiningError, KeyError) as error:
        print(f"measure_fit: {error}", file=sys.stderr)
        return 1
    edges = np.array([[image.width_px, image.height_px] * 2 for image in sent.images], np.float64)
    given = (checked.frame, checked.boxes_px / edges[checked.frame], checked.classes)
    sure = (objects.confidence >= SURE) & np.isin(objects.frame, checked.view_frame)
    seen = objects.frame[sure], objects.boxes_px[sure] / edges[objects.frame[sure]], objects.classes[sure]
    rng = np.random.default_rng(args.seed)
    figures = []
    for to_pass, cases in ((True, usual(given, rng)), (False, spoilt(given, len(sent.images), rng))):
        for name, (frame, boxes, classes) in cases:
            order = np.argsort(frame, kind="stable")
            fit = measure_fit(frame[order], boxes[order], classes[order], *seen)
            refused = fit.misaligned(config.labels.min_fit)
            share = fit.fitted / fit.judged_by if fit.judged_by else None
            figures.append(
                {
                    "figure": name, "sure": fit.sure, "met": fit.met, "fitted": fit.fitted, "share": share,
                    "refused": refused, "bar": "passes" if to_pass else "is refused", "holds": refused != to_pass,
                }
            )  # fmt: skip
            if not args.json:
                shown = "-" if share is None else f"{share:.2f}"
                print(f"{name:36} sure {fit.sure:5} met {fit.met:5} fitted {fit.fitted:5} share {shown:>5}"
                      f"  {'refused' if refused else 'passes'}{'' if refused != to_pass else '   WRONG'}")  # fmt: skip
    if args.json:
        print(json.dumps({"figures": figures, "holds": all(figure["holds"] for figure in figures)}))
    return 0 if all(figure["holds"] for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
