"""Plant errors in true labels, import them, and see how many the view `second_look` brings to the top.

    python tools/measure_label_checks.py \\
        --labels weather/data.yaml --images weather/images/pool \\
        --detectors yolov8n_weather.pt yolo11n_weather.pt --json

A tenth of the labels is left out, a tenth is moved by .3 to .6 of its width and height, a tenth gets another class. All
images are one batch, and the delivery goes through `mining import-labels`. Of each kind: what share of its rows in the view
are planted errors (precision), what share of the planted errors the view holds (found), and what share one would find who
looked at as many objects in random order (found blindly). True labels have errors of their own, which count against the
view here.

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
import pyarrow as pa
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from detectors import DetectorError
from mining import pipeline
from mining.boxes import iou_matrix
from mining.types import MiningError
from tools import labelled_night
from tools.labelled_night import Night

KINDS = {"overlooked": "left out", "badly_placed": "moved", "swapped": "other class"}
LIFT_BAR = 3.0
"""Times as many planted errors of each kind as one finds who looks at as many objects in random order."""
PRECISION_BAR = 0.3
"""Share of the rows of each kind that are planted errors."""


def main() -> None:
    options = _options()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            measure(options, options.folder or Path(temporary))
    except (MiningError, DetectorError) as error:
        sys.exit(f"measure_label_checks: {error}")


def measure(options: argparse.Namespace, folder: Path) -> None:
    night = labelled_night.run(
        folder, options.labels, options.images, options.detectors, classes=options.classes, budget=None,
        random_share=0.0, strategy="top_k",
    )  # fmt: skip
    found = [_once(night, seed) for seed in range(options.times)]
    table: dict[str, dict[str, float]] = {
        kind: {name: float(np.mean([run[kind][name] for run in found])) for name in found[0][kind]}
        for kind in KINDS
    }
    print(f"{night.frames} images, {len(night.frame_index)} labels, mean over {options.times} plantings\n")
    names = list(next(iter(table.values())))
    print(f"{'':14}" + "".join(f"{name.replace('_', ' '):>18}" for name in names))
    for kind, row in table.items():
        print(f"{kind:14}" + "".join(f"{row[name]:18.3f}" for name in names))
    figures: dict[str, dict[str, Any]] = {}
    for kind, row in table.items():
        lift = row["found"] / row["found_blindly"]
        figures[f"{kind}_lift"] = {"value": lift, "bar": LIFT_BAR, "holds": lift >= LIFT_BAR}
        precision = row["precision"]
        figures[f"{kind}_precision"] = {
            "value": precision, "bar": PRECISION_BAR, "holds": precision >= PRECISION_BAR
        }  # fmt: skip
    print()
    for name, figure in figures.items():
        print(f"{'holds' if figure['holds'] else 'FAILS'}: {name} {figure['value']:.2f}, bar {figure['bar']}")
    if options.json:
        print(json.dumps({
            "images": night.frames, "labels": len(night.frame_index), "kinds": table, "figures": figures,
            "holds": all(figure["holds"] for figure in figures.values()),
        }))  # fmt: skip


def _once(night: Night, seed: int) -> dict[str, dict[str, float]]:
    """Plant, import, and look at the view."""
    rng = np.random.default_rng(seed)
    n = len(night.frame_index)
    left_out, moved, other = np.split(rng.permutation(n)[: 3 * (n // 10)], 3)
    boxes, classes = night.boxes_px.copy(), night.of_class.copy()
    side = np.maximum(boxes[moved, 2:] - boxes[moved, :2], 1)
    angle, far = rng.uniform(0, 2 * np.pi, len(moved)), rng.uniform(0.3, 0.6, len(moved))
    step = np.column_stack([np.cos(angle), np.sin(angle)]) * far[:, None] * side
    boxes[moved] += np.tile(step, 2)
    labelled = np.unique(classes)
    classes[other] = [rng.choice(labelled[labelled != c]) for c in classes[other].tolist()]
    kept = np.setdiff1d(np.arange(n), left_out)
    with tempfile.TemporaryDirectory() as temporary:
        delivery = Path(temporary, "delivery")
        labelled_night.deliver(night, "coco", delivery, boxes[kept], classes[kept], night.frame_index[kept])
        # A tenth of moved labels is a bad delivery indeed: it is let in on purpose.
        pipeline.run_import(night.config, night.batch_id, "coco", [delivery], accept_bad=True)
    with night.store.connect() as con:
        rows = con.sql(
            "SELECT l.*, f.frame_index FROM second_look AS l JOIN frames AS f USING (frame_id) "
            "ORDER BY quality, frame_id, kind, label_index, x1_px"
        ).to_arrow_table()
    planted = {"overlooked": left_out, "badly_placed": moved, "swapped": other}
    out = {}
    for kind, which in planted.items():
        mine = rows.filter(pa.array([k == kind for k in rows["kind"].to_pylist()]))
        # A row of an overlooked object lies on the label that was left out; else it is the planted label itself.
        same = 0.5 if kind == "overlooked" else 0.98
        hit = _hits(mine, night.frame_index[which], boxes[which], same)
        k = len(which)
        out[kind] = {
            "planted": k,
            "rows": len(hit),
            "precision": float(hit.mean()) if len(hit) else 0.0,
            "found": float(hit.sum() / k),
            "found_blindly": len(hit) / n,
        }
    return out


def _hits(rows: pa.Table, frame_index: NDArray[Any], boxes: NDArray[Any], iou: float) -> NDArray[Any]:
    """[rows] whether a row's box is one of these."""
    places = np.column_stack([rows[edge].to_numpy() for edge in ("x1_px", "y1_px", "x2_px", "y2_px")])
    found = np.zeros(len(rows), bool)
    for i, index in enumerate(rows["frame_index"].to_pylist()):
        own = boxes[frame_index == index]
        found[i] = len(own) > 0 and bool((iou_matrix(places[i][None], own) >= iou).any())
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--labels", type=Path, required=True, help="data.yaml, COCO JSON, or a folder of VOC XML"
    )
    parser.add_argument("--images", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--detectors", type=Path, nargs="+", required=True, metavar="WEIGHTS")
    parser.add_argument(
        "--classes", type=Path, help="fleet class list; the one that ships with mining where absent"
    )
    parser.add_argument("--times", type=int, default=3, help="plantings to take the mean of (default 3)")
    parser.add_argument("--folder", type=Path, help="work here and keep it, so that a second run is quick")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
