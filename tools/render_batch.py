"""Draw what each detector saw on the frames of a batch, as contact sheets to look at.

    python tools/render_batch.py --store STORE --batch BATCH_ID --out sheets/ [--per-sheet 12]

Each member of the committee has its own colour; boxes at or above --confidence are drawn, thin below it down to
--candidates. Under each picture: rank, arm, hardness, drive.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from mining.store import Store

COLOURS = [(80, 220, 80), (60, 140, 255), (255, 160, 60), (220, 80, 220)]  # BGR
TILE_PX = (480, 300)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--batch", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-sheet", type=int, default=12)
    parser.add_argument("--confidence", type=float, default=0.4)
    parser.add_argument("--candidates", type=float, default=1.0, help="draw weaker boxes thin, down to this")
    options = parser.parse_args()
    with Store(options.store).connect() as con:
        frames = con.execute(
            "SELECT DISTINCT s.frame_id, s.rank, s.arm, s.hardness, f.drive_id, e.image_uri FROM selections AS s "
            "JOIN exports AS e USING (frame_id, batch_id) JOIN frames AS f USING (frame_id) "
            "WHERE s.batch_id = ? ORDER BY s.arm, s.rank",
            [options.batch],
        ).fetchall()
        boxes = con.execute(
            "SELECT frame_id, detector, class, confidence, x1_px, y1_px, x2_px, y2_px FROM detections "
            "SEMI JOIN (SELECT frame_id, committee_id FROM selections WHERE batch_id = ?) USING (frame_id, committee_id) "
            "WHERE confidence >= ?",
            [options.batch, min(options.candidates, options.confidence)],
        ).fetchall()
    if not frames:
        sys.exit(
            f"no image of a batch {options.batch} is exported from {options.store}; run `mining export` first"
        )
    if not Path(frames[0][5]).is_file():
        sys.exit(f'{frames[0][5]}: no file here; run `mining export` to a folder, with images = "files"')
    detectors = sorted({row[1] for row in boxes})
    options.out.mkdir(parents=True, exist_ok=True)
    tiles = [
        _tile(frame, [b for b in boxes if b[0] == frame[0]], detectors, options.confidence)
        for frame in frames
    ]
    for sheet, start in enumerate(range(0, len(tiles), options.per_sheet)):
        part = tiles[start : start + options.per_sheet]
        part += [np.zeros_like(tiles[0])] * (-len(part) % 3)
        rows = [np.hstack(part[i : i + 3]) for i in range(0, len(part), 3)]
        path = options.out / f"sheet{sheet:02d}.png"
        cv2.imwrite(str(path), np.vstack(rows))
        print(path)
    print("colours (BGR):", dict(zip(detectors, COLOURS, strict=False)))


def _tile(frame: tuple, boxes: list[tuple], detectors: list[str], confidence: float) -> np.ndarray:
    _, rank, arm, hardness, drive, uri = frame
    image = cv2.imread(uri)
    width, height = TILE_PX
    scale = min(width / image.shape[1], (height - 24) / image.shape[0])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for _, detector, name, score, *corners in boxes:
        x1, y1, x2, y2 = (round(v * scale) for v in corners)
        colour = COLOURS[detectors.index(detector) % len(COLOURS)]
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2 if score >= confidence else 1)
        if score >= confidence:
            cv2.putText(
                image,
                f"{name[:5]} {score:.2f}",
                (x1, max(10, y1 - 2)),
                cv2.FONT_HERSHEY_SIMPLEX,
                0.35,
                colour,
                1,
            )
    tile = np.zeros((height, width, 3), np.uint8)
    tile[: image.shape[0], : image.shape[1]] = image
    text = f"{arm} {rank}  hardness {hardness:.2f}  {drive[-40:]}"
    cv2.putText(tile, text, (4, height - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return tile


if __name__ == "__main__":
    main()
