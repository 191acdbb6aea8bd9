"""Write tests/data/label_references.json: what other people's programs say of made-up labels, for tests to compare with.

    python -m venv references && references/bin/pip install cleanlab==2.9.0 ensemble-boxes==1.0.9
    references/bin/python tests/data/regenerate_label_references.py tests/data/label_references.json

``ensemble-boxes`` is the weighted box fusion of its inventors, ``cleanlab`` the ObjectLab of its inventors. Both bring more
than a development environment should have, so they are asked once and their answers are kept.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 4
IMAGE_PX = 1000.0


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: regenerate_label_references.py FILE.json")
    rng = np.random.default_rng(6)
    document = {
        "versions": {name: version(name) for name in ("cleanlab", "ensemble-boxes")},
        "fusion": [fusion(rng, weights) for weights in (None, None, [2.0, 1.0, 0.5], [1.0, 3.0, 1.0])],
        "object_lab": object_lab(rng),
    }
    Path(sys.argv[1]).write_text(json.dumps(document) + "\n", encoding="utf-8")


def objects(rng: np.random.Generator) -> tuple[Any, Any]:
    """Boxes in the cells of a grid, so that none meets another."""
    cells = rng.permutation(16)[:7]
    corner = np.column_stack([cells % 4, cells // 4]) * 250.0 + rng.uniform(20, 60, (7, 2))
    return np.column_stack([corner, corner + rng.uniform(80, 160, (7, 2))]), rng.integers(0, CLASSES, 7)


def fusion(rng: np.random.Generator, weights: list[float] | None) -> dict[str, Any]:
    from ensemble_boxes import weighted_boxes_fusion

    truth, classes = objects(rng)
    drawn, called = [], []
    for _ in range(3):
        there = rng.random(len(truth)) < 0.8
        drawn.append((truth + rng.normal(0, 4, truth.shape))[there])
        called.append(classes[there])
    boxes, _, labels = weighted_boxes_fusion(
        [b / IMAGE_PX for b in drawn], [np.ones(len(b)) for b in drawn], called, weights=weights, iou_thr=0.5
    )
    return {
        "weights": weights,
        "annotators": [
            {"boxes_px": b.tolist(), "classes": c.tolist()} for b, c in zip(drawn, called, strict=True)
        ],
        "boxes_px": (boxes * IMAGE_PX).tolist(),
        "classes": labels.astype(int).tolist(),
    }


def object_lab(rng: np.random.Generator) -> dict[str, Any]:
    from cleanlab.object_detection import rank

    labels, predictions, images = [], [], []
    for _ in range(6):
        truth, classes = objects(rng)
        called = np.where(rng.random(7) < 0.25, (classes + 1) % CLASSES, classes)
        there = rng.random(7) < 0.75
        placed = truth + rng.normal(0, 12, (7, 1)) * [1, 0, 1, 0]
        labels.append({"bboxes": placed[there], "labels": called[there]})
        seen = truth + rng.normal(0, 3, truth.shape)
        score = rng.uniform(0.3, 1.0, 7)
        predictions.append(
            np.array(
                [np.c_[seen[classes == k], score[classes == k]] for k in range(CLASSES)] + [None],
                dtype=object,
            )[:-1]
        )
        images.append(
            {
                "labels": {"boxes_px": placed[there].tolist(), "classes": called[there].tolist()},
                "objects": {
                    "boxes_px": np.concatenate([seen[classes == k] for k in range(CLASSES)]).tolist(),
                    "classes": np.sort(classes).tolist(),
                    "confidence": np.concatenate([score[classes == k] for k in range(CLASSES)]).tolist(),
                },
            }
        )
    threshold = {"high_probability_threshold": 0.5}
    found = {
        "overlooked": rank.compute_overlooked_box_scores(labels=labels, predictions=predictions, **threshold),
        "location": rank.compute_badloc_box_scores(
            labels=labels, predictions=predictions, low_probability_threshold=0.5
        ),
        "class": rank.compute_swap_box_scores(
            labels=labels, predictions=predictions, overlapping_label_check=False, **threshold
        ),
    }
    for name, scores in found.items():
        for image, of_image in zip(images, scores, strict=True):
            image[name] = [None if np.isnan(s) else float(s) for s in of_image]
    return {"threshold": 0.5, "images": images}


if __name__ == "__main__":
    main()
