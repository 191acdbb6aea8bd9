"""Output layouts of exported graphs, one file each: how the input is prepared and how the outputs are read."""

from __future__ import annotations

from detectors.heads import fastestdet, nanodet, yolov8
from detectors.heads.layout import Head

HEADS: dict[str, Head] = {
    "yolov8": yolov8.HEAD,
    "nanodet": nanodet.HEAD,
    "fastestdet": fastestdet.HEAD,
}
