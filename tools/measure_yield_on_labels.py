"""Choose frames of a labelled image set, let their true labels come back in two formats, and print what mining yielded.

    python tools/measure_yield_on_labels.py \\
        --labels weather/data.yaml --images weather/images/pool \\
        --detectors yolov8n_weather.pt yolo11n_weather.pt --json

Runs the real night over copies of the images, exports the batch, writes the truth with each vendor's own writer, imports it
as `mining import-labels` does, and measures it as `mining measure` does. Both formats must give the same yields. Half of the
batch is drawn at random (--random-share), so that 60 frames are enough to compare the arms; the random arm is held against
the errors of all images, which are known here.

With --json it ends in one line: each figure, its bar, and whether it holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from detectors import DetectorError
from mining import measure_text, pipeline
from mining.committee import committee_of, primary_of
from mining.signals.errors import count_errors
from mining.types import MiningError, UsageError
from mining.yield_summary import KINDS, Summary
from tools import labelled_night
from tools.labelled_night import Night

LIFT_BAR = 1.0
"""The lower end of the interval of the lift (errors per frame, mined over random) must lie above."""
SHARE_OF_LABELS_BAR = 1.0
"""Share of the true boxes of the chosen frames that stand after each import."""


def main() -> None:
    options = _options()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            measure(options, options.folder or Path(temporary))
    except (MiningError, DetectorError) as error:
        sys.exit(f"measure_yield_on_labels: {error}")


def measure(options: argparse.Namespace, folder: Path) -> None:
    if len(set(options.formats)) != 2:
        raise UsageError("--formats takes two formats")
    night = labelled_night.run(
        folder, options.labels, options.images, options.detectors, classes=options.classes,
        budget=options.frames, random_share=options.random_share, strategy=options.strategy,
    )  # fmt: skip
    rows: dict[str, list[tuple[Any, ...]]] = {}
    standing: dict[str, int] = {}
    found: Summary | None = None
    with tempfile.TemporaryDirectory() as deliveries:
        for vendor in options.formats:
            delivery = Path(deliveries, vendor)
            labelled_night.deliver(night, vendor, delivery, night.boxes_px, night.of_class, night.frame_index)
            taken = labelled_night.take_in(night, vendor, delivery)
            _, found = pipeline.run_measure(night.config, [night.batch_id])
            rows[vendor], standing[vendor] = _yields(night)
            print(f"== {vendor}: {taken.boxes} boxes in {taken.frames} frames ({taken.empty_frames} empty)")
            print(f"{measure_text.text(found)}\n")
    assert found is not None
    first, second = (rows[vendor] for vendor in options.formats)
    differing = len(set(first) ^ set(second))
    pool, in_batch = _truth(night)
    figures = _figures(found, differing, pool, min(standing.values()) / in_batch)
    print(f"errors per frame of all {night.frames} images: {pool:.2f}")
    print(f"rows of yields that differ between {' and '.join(options.formats)}: {differing}")
    for name, figure in figures.items():
        print(f"{'holds' if figure['holds'] else 'FAILS'}: {name} {figure['value']}, bar {figure['bar']}")
    if options.json:
        print(json.dumps({
            "frames": found.frames, "random_share": options.random_share, "formats": options.formats,
            "summary": measure_text.as_dict(found), "pool_errors_per_frame": pool, "figures": figures,
            "holds": all(figure["holds"] for figure in figures.values()),
        }))  # fmt: skip


def _figures(found: Summary, differing: int, pool: float, share: float) -> dict[str, dict[str, Any]]:
    random = found.errors_per_frame["random"]
    low = found.lift_per_frame.low
    inside = random.low is not None and random.high is not None and random.low <= pool <= random.high
    return {
        "differing_rows": {"value": differing, "bar": 0, "holds": differing == 0},
        "share_of_true_boxes_standing": {
            "value": share, "bar": SHARE_OF_LABELS_BAR, "holds": share >= SHARE_OF_LABELS_BAR
        },
        "lift_per_frame_low": {"value": low, "bar": LIFT_BAR, "holds": low is not None and low > LIFT_BAR},
        "errors_of_all_images_in_the_random_arms_interval": {
            "value": pool, "bar": [random.low, random.high], "holds": inside
        },
    }  # fmt: skip


def _yields(night: Night) -> tuple[list[tuple[Any, ...]], int]:
    """Rows of ``yields`` without what tells one import from another, and how many labels stand."""
    with night.store.connect() as con:
        rows = con.execute(
            f"SELECT frame_id, arm, objects, boxes, {', '.join(KINDS)}, errors FROM yields WHERE batch_id = $b",
            {"b": night.batch_id},
        ).fetchall()
        labels = con.execute(
            "SELECT count(class) FROM truth SEMI JOIN (FROM selections WHERE batch_id = $b) USING (frame_id)",
            {"b": night.batch_id},
        ).fetchall()
    return rows, int(labels[0][0])


def _truth(night: Night) -> tuple[float, int]:
    """Errors per frame over all images, and the true boxes of the chosen frames: what a delivery should bring."""
    committee = committee_of(night.config)
    primary = primary_of(night.store, committee)
    assert primary is not None
    with night.store.connect() as con:
        seen = con.sql(
            "SELECT f.frame_index, d.class, d.confidence, d.x1_px, d.y1_px, d.x2_px, d.y2_px FROM detections AS d "
            "JOIN frames AS f USING (frame_id) WHERE d.detector = $d AND d.committee_id = $c AND d.confidence >= $t",
            params={"d": primary["detector"], "c": committee.committee_id, "t": primary["threshold"]},
        ).to_arrow_table()
        chosen = con.execute(
            "SELECT f.frame_index FROM selections JOIN frames AS f USING (frame_id) WHERE batch_id = $b",
            {"b": night.batch_id},
        ).fetchall()
    column = {name: i for i, name in enumerate(night.classes)}
    counted = night.known & np.isin(night.classes, primary["classes"])
    of_class = np.array([column[name] for name in seen["class"].to_pylist()], np.int64)
    mine = counted[of_class]
    boxes = np.column_stack([seen[edge].to_numpy() for edge in ("x1_px", "y1_px", "x2_px", "y2_px")])
    objects = counted[night.of_class]
    errors = count_errors(
        seen["frame_index"].to_numpy()[mine], boxes[mine], of_class[mine], seen["confidence"].to_numpy()[mine],
        night.frame_index[objects], night.boxes_px[objects], night.of_class[objects], night.frames, pair_classes=True,
    )  # fmt: skip
    in_batch = int(np.isin(night.frame_index, [index for (index,) in chosen]).sum())
    return float(errors.total.mean()), in_batch


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--labels", type=Path, required=True, help="data.yaml, COCO JSON, or a folder of VOC XML"
    )
    parser.add_argument("--images", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument(
        "--detectors", type=Path, nargs="+", required=True, metavar="WEIGHTS", help="the primary first"
    )
    parser.add_argument(
        "--classes", type=Path, help="fleet class list; the one that ships with mining where absent"
    )
    parser.add_argument("--frames", type=int, default=60, help="budget of the batch (default 60)")
    parser.add_argument("--random-share", type=float, default=0.5, help="of the batch (default 0.5)")
    parser.add_argument("--strategy", default="k_center", help="how the batch is picked (default k_center)")
    parser.add_argument("--formats", nargs=2, default=["coco", "cvat"], metavar="FORMAT")
    parser.add_argument("--folder", type=Path, help="work here and keep it, so that a second run is quick")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
