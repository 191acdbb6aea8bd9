"""An exported batch made by hand, what a committee saw in it, and a plain format that labels come in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mining.config import Config
from mining.schemas import SLICES
from mining.store import Store
from mining.types import StageReport, frame_id
from mining.vendors import VENDORS, Vendor
from mining.vendors.labels import LabelledBox, LabelledImage, Labels, Reject, Sent
from tests.mining.synthetic import COMMITTEE, NIGHT, Drive, store_of, table

BATCH = "2026-03-14-b"
FLEET = ("car", "truck", "bus", "train", "two_wheeler", "pedestrian", "animal", "traffic_light", "stop_sign")
SEEN = {"a": ("car", "pedestrian"), "b": ("car",)}
"""Which classes each member can see."""

Box = tuple[str, float, float, float, float]


def name(frame: int) -> str:
    return frame_id("r0", frame)


def exported(folder: Path, frames: int = 6, seen: dict[int, Sequence[Box]] | None = None) -> Store:
    """Make a store whose batch of ``frames`` images (640 x 480) went out, the last one in the random arm.

    ``seen``: by frame, objects that both members see with a confidence of .9 (those that know the class).
    """
    store = store_of(folder, Drive("r0", [0.5] * (frames + 2)))
    commit_seen(store, seen or {}, frames + 2)
    commit_batch(store, BATCH, range(frames))
    return store


def commit_batch(store: Store, batch_id: str, frames: Sequence[int], *, export: bool = True) -> None:
    rows = [
        {
            "batch_id": batch_id, "frame_id": name(i), "committee_id": COMMITTEE, "hardness": 0.5, "reason": "hard",
            "rank": 1 if i == frames[-1] else n + 1, "arm": "random" if i == frames[-1] else "mined",
        }
        for n, i in enumerate(frames)
    ]  # fmt: skip
    store.commit(
        "select", NIGHT, batch_id, {"selections": table("selections", rows), "slices": SLICES.empty_table()},
        digest="x", committee_id=COMMITTEE, chosen_at=f"2026-03-15T00:00:0{len(batch_id) % 10}", settings="x", scored=[],
    )  # fmt: skip
    if not export:
        return
    sent = [
        {
            "batch_id": batch_id, "frame_id": name(i), "vendor": vendor, "image_uri": f"/out/images/{name(i)}.jpg",
            "position": position, "file_name": f"images/{name(i)}.jpg", "width_px": 640, "height_px": 480,
            "sha256": f"{vendor}-{i}", "status": "ok",
        }
        for vendor in ("plain", "coco")
        for position, i in enumerate(frames)
    ]  # fmt: skip
    store.commit(
        "export", NIGHT, batch_id, {"exports": table("exports", sent)}, digest="x", images=1, failed=0
    )


def commit_seen(store: Store, seen: dict[int, Sequence[Box]], frames: int) -> None:
    """Commit detections in place of the drive's."""
    observed = [
        {"frame_id": name(i), "committee_id": COMMITTEE, "recording_id": "r0", "status": "ok"} for i in range(frames)
    ]  # fmt: skip
    rows = [
        {
            "frame_id": name(i), "committee_id": COMMITTEE, "detector": detector, "box_index": number, "class": kind,
            "confidence": 0.9, "x1_px": x1, "y1_px": y1, "x2_px": x2, "y2_px": y2, "match_id": number,
            "class_scores": [(0.9 if c == kind else 0.05) if c in knows else None for c in FLEET],
        }
        for i, boxes in seen.items()
        for number, (kind, x1, y1, x2, y2) in enumerate(boxes)
        for detector, knows in SEEN.items()
        if kind in knows
    ]  # fmt: skip
    sees = {detector: [c in knows for c in FLEET] for detector, knows in SEEN.items()}
    store.commit(
        "detect", NIGHT, "r0", {"detections": table("detections", rows), "observations": table("observations", observed)},
        digest="x", recording_id="r0", committee_id=COMMITTEE, content="r0", failed_to_run=0, sees=sees,
    )  # fmt: skip


def image(frame: int | str, *boxes: Box, annotator: str | None = None, **more: Any) -> dict[str, Any]:
    """One line of the plain format."""
    file_name = f"{name(frame)}.jpg" if isinstance(frame, int) else frame
    return {"image": file_name, "boxes": [list(box) for box in boxes], "annotator": annotator, **more}


def drawn(seen: Sequence[Box]) -> list[Box]:
    """Boxes as a person draws them: near what a committee sees, not on it."""
    return [(kind, x1 + 1, y1 + 1, x2 + 1, y2 + 1) for kind, x1, y1, x2, y2 in seen]


def write(path: Path, *images: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in images))
    return path


def read_plain(files: Sequence[Path], sent: Sent) -> Labels:
    images, rejects = [], []
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            row, place = json.loads(line), f"{file.name}: line {number}"
            if "reject" in row:
                rejects.append(Reject(place, row["reject"], row.get("reason", ""), row.get("frame_id")))
                continue
            boxes = tuple(
                LabelledBox(kind, *(float(v) for v in edges), ignore=row.get("ignore", False), place=f"{place}, box {n}")
                for n, (kind, *edges) in enumerate(row["boxes"], 1)
            )  # fmt: skip
            images.append(
                LabelledImage(
                    place, row["image"], row.get("frame_id"), row.get("sha256"), row.get("width"), row.get("height"),
                    row["annotator"], boxes,
                )
            )  # fmt: skip
    return Labels(tuple(images), tuple(rejects))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vendor called ``plain``."""
    monkeypatch.setitem(VENDORS, "plain", Vendor(None, read_plain))


def config(**sections: Any) -> Config:
    base = {"footage": {"paths": ["x"]}, "detector": [{"weights": "a.pt"}]}
    return Config.model_validate_json(json.dumps({**base, **sections}))


def labels_of(store: Store, view: str = "labels") -> list[dict[str, Any]]:
    with store.connect() as con:
        return (
            con.sql(f"FROM {view} ORDER BY imported_at, frame_id, is_truth DESC, label_index")
            .to_arrow_table()
            .to_pylist()
        )


def done(report: StageReport) -> tuple[int, int]:
    return report.done, report.unchanged
