"""Read labelled images: Ultralytics YOLO, COCO JSON or Pascal VOC, onto the fleet's class list.

Labels come from outside and are read as such: boxes are checked, YAML is loaded as plain data, XML with a document type
is refused (entities), file names may not lead out of the image folders.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
import yaml
from numpy.typing import NDArray

from detectors.classes import ClassMap, normalise
from mining.footage.names import IMAGE_ENDINGS, ending
from mining.types import UsageError

_MAX_LABEL_BYTES = 500_000_000

# One object as a label file states it: class name, x1, y1, x2, y2, and whether it is to be passed over (COCO's crowds,
# VOC's difficult ones).
Item = tuple[str, float, float, float, float, bool]


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Images and the objects in them: ``n`` objects, flat."""

    paths: tuple[Path, ...]
    """The images that have labels (an image that is labelled as empty is one of them)."""
    frame: NDArray[np.int64]
    """[n] position in ``paths``."""
    boxes: NDArray[np.float64]
    """[n, 4] x1, y1, x2, y2 in pixels; in shares of the image's width and height where ``relative``."""
    relative: bool
    classes: NDArray[np.int64]
    """[n] position in the fleet's class list."""
    known: NDArray[np.bool_]
    """[c] fleet classes that these labels name at all; nothing can be said about the others."""
    ignore: NDArray[np.bool_]
    """[n] crowds and difficult objects: neither finding them nor missing them counts."""
    unmapped: dict[str, int]
    """Label classes that are no fleet class, and how many boxes that left out."""
    unlabelled: int
    """Images that no label speaks of; they are left out."""

    def boxes_px(self, sizes_px: NDArray[np.integer]) -> NDArray[np.float64]:
        """[n, 4] in pixels, given width and height [F, 2] of the images as displayed (EXIF orientation applied)."""
        return self.boxes * np.tile(sizes_px[self.frame], 2) if self.relative else self.boxes


def load(labels: Path, images: list[Path], class_map: ClassMap, split: str | None = None) -> LabelledImages:
    """Read a labelled image set.

    Args:
        labels: a YOLO ``data.yaml`` (or its folder), a COCO JSON file, or a folder with VOC XML files (in it or below).
        images: image folders, searched with all below; for YOLO with ``split``, none are needed.
        class_map: fleet classes, and which label name stands for which.
        split: for YOLO, the key of ``data.yaml`` whose images are taken, where ``images`` is empty.

    Raises:
        UsageError: one line that names the file and what is wrong with it.
    """
    if labels.is_dir() and (labels / "data.yaml").is_file():
        labels = labels / "data.yaml"
    if not labels.exists():
        raise UsageError(
            f"{labels}: no such file or folder (give data.yaml, a COCO JSON, or a folder of VOC XML)"
        )
    kind = "voc" if labels.is_dir() else ending(labels.name)
    if split is not None and kind not in {"yaml", "yml"}:
        raise UsageError(f"--split goes with a YOLO data.yaml; {labels} is none: give --images")
    if kind in {"yaml", "yml"}:
        names, root = _read_data_yaml(labels)
        if split is not None:
            images = [*images, *_split_folders(labels, root, split)]
        found = _find_images(images)
        return _collect(found, lambda path: _read_yolo(path, names), names.values(), class_map, relative=True)
    found = _find_images(images)
    if kind == "json":
        by_name, names_in_file = _read_coco(labels)
        return _collect(found, lambda path: by_name.get(path.name), names_in_file, class_map)
    if kind == "voc":
        by_stem = _read_voc_folder(labels)
        named = {item[0] for items in by_stem.values() for item in items}
        return _collect(found, lambda path: by_stem.get(_voc_key(path, labels)), named, class_map)
    raise UsageError(
        f"{labels}: ends in {kind or 'nothing'!r}; known are data.yaml, a COCO .json, a folder of VOC XML"
    )


def _collect(
    images: list[Path],
    items_of: Callable[[Path], list[Item] | None],
    names: Iterable[str],
    class_map: ClassMap,
    relative: bool = False,
) -> LabelledImages:
    """Put the objects of all labelled images into flat arrays, on the fleet's classes."""
    column = {name: i for i, name in enumerate(class_map.fleet)}
    fleet_of = {name: class_map.table.get(normalise(name)) for name in names}
    known = np.zeros(len(column), bool)
    known[[column[fleet] for fleet in fleet_of.values() if fleet is not None]] = True
    paths: list[Path] = []
    rows: list[tuple[int, int, float, float, float, float, bool]] = []
    unmapped: Counter[str] = Counter()
    unlabelled = 0
    for path in images:
        items = items_of(path)
        if items is None:
            unlabelled += 1
            continue
        for name, x1, y1, x2, y2, ignore in items:
            fleet = fleet_of[name]
            if fleet is None:
                unmapped[name] += 1
            else:
                rows.append((len(paths), column[fleet], x1, y1, x2, y2, ignore))
        paths.append(path)
    if not paths:
        raise UsageError(
            f"none of the {len(images)} images has labels: do --images and --labels belong together?"
        )
    if not known.any():
        raise UsageError(
            f"none of the label classes ({', '.join(sorted(fleet_of))}) is a fleet class ({', '.join(column)}): "
            "say which is which with --map NAME=FLEET_CLASS"
        )
    table = np.array(rows, np.float64).reshape(-1, 7)
    return LabelledImages(
        paths=tuple(paths),
        frame=table[:, 0].astype(np.int64),
        boxes=table[:, 2:6],
        relative=relative,
        classes=table[:, 1].astype(np.int64),
        known=known,
        ignore=table[:, 6] > 0,
        unmapped=dict(unmapped),
        unlabelled=unlabelled,
    )


def _find_images(folders: list[Path]) -> list[Path]:
    """All images in the folders and below, each once, sorted; hidden ones left out."""
    found: set[Path] = set()
    for folder in folders:
        if not folder.exists():
            raise UsageError(f"{folder}: no such folder")
        under = [folder] if folder.is_file() else folder.rglob("*")
        found |= {
            p.resolve()
            for p in under
            if ending(p.name) in IMAGE_ENDINGS and not p.name.startswith(".") and p.is_file()
        }
    if not found:
        raise UsageError(
            f"no image in {', '.join(map(str, folders)) or 'no folder at all: give --images or --split'}"
        )
    return sorted(found)


def _read_data_yaml(path: Path) -> tuple[dict[int, str], Path]:
    """Read ``names`` and the root that relative paths start from."""
    try:
        data: Any = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML: {' '.join(str(error).split())[:160]}") from None
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(isinstance(k, int) for k in names):
        raise UsageError(f"{path}: needs 'names', a list of class names or a table of number: name")
    root = Path(str(data.get("path") or "."))
    return {k: str(v) for k, v in names.items()}, root if root.is_absolute() else path.parent / root


def _split_folders(path: Path, root: Path, split: str) -> list[Path]:
    data = yaml.safe_load(_text(path))
    value = data.get(split)
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(e, str) for e in entries):
        splits = [k for k in ("train", "val", "test") if isinstance(data.get(k), str | list)]
        raise UsageError(
            f"{path}: has no split {split!r}; it has {', '.join(splits) or 'none'} (or give --images)"
        )
    return [root / e for e in entries]


def _read_yolo(image: Path, names: dict[int, str]) -> list[Item]:
    """Read the label file of an image: ``.../images/a.jpg`` has ``.../labels/a.txt`` (else beside the image).

    An image without a label file is one without objects, as Ultralytics has it. Segments (polygons) become their box.
    """
    parts = list(image.with_suffix(".txt").parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    file = Path(*parts)
    if not file.is_file():
        return []
    items: list[Item] = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            label, *values = [float(v) for v in line.split()]
            name = names[int(label)]
        except (ValueError, KeyError):
            raise UsageError(
                f"{file}:{number}: {line.strip()[:60]!r} is no 'class cx cy width height'"
            ) from None
        if len(values) >= 6 and len(values) % 2 == 0:
            xs, ys = values[0::2], values[1::2]
            x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
        elif len(values) == 4:
            cx, cy, w, h = values
            x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
        else:
            raise UsageError(f"{file}:{number}: {len(values)} numbers after the class; need 4, or a polygon")
        _add(items, name, (x1, y1, x2, y2), False, f"{file}:{number}")
    return items


def _read_coco(path: Path) -> tuple[dict[str, list[Item]], list[str]]:
    """Read a COCO JSON: objects by image file name, and all category names."""
    try:
        data: Any = json.loads(_text(path))
        names = {c["id"]: str(c["name"]) for c in data["categories"]}
        name_of_image = {i["id"]: Path(str(i["file_name"]).replace("\\", "/")).name for i in data["images"]}
        by_name: dict[str, list[Item]] = {name: [] for name in name_of_image.values()}
        if len(by_name) < len(name_of_image):
            raise UsageError(f"{path}: two images have the same file name; split the set by folder")
        for number, a in enumerate(data["annotations"]):
            x, y, w, h = (float(v) for v in a["bbox"])
            where = f"{path}: annotation {number}"
            items = by_name[name_of_image[a["image_id"]]]
            _add(items, names[a["category_id"]], (x, y, x + w, y + h), bool(a.get("iscrowd", 0)), where)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}: not valid JSON: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: not COCO: {type(error).__name__} {str(error)[:80]}") from None
    return by_name, list(names.values())


def _read_voc_folder(folder: Path) -> dict[str, list[Item]]:
    """Read every XML file in the folder and below: objects by the file's path without ending, inside the folder."""
    found = {_voc_key(path, folder): _read_voc(path) for path in sorted(folder.rglob("*.xml"))}
    if not found:
        raise UsageError(f"{folder}: holds neither data.yaml nor VOC XML files")
    return found


def _voc_key(path: Path, folder: Path) -> str:
    """An image and its XML share this: the path below ``folder`` where it lies there, else the bare name."""
    path, folder = path.resolve().with_suffix(""), folder.resolve()
    key = path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)
    # The usual layout keeps them in sister folders.
    return str(key).replace("JPEGImages/", "").replace("Annotations/", "")


def _read_voc(path: Path) -> list[Item]:
    def refuse(*_: object) -> None:
        raise UsageError(f"{path}: has a document type (entities); refused")

    content = _bytes(path)
    items: list[Item] = []
    try:
        guard = expat.ParserCreate()
        guard.StartDoctypeDeclHandler = refuse
        guard.Parse(content, True)
        for number, thing in enumerate(ElementTree.fromstring(content).iter("object")):
            name = thing.findtext("name")
            edges = [thing.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
            if not name or None in edges:
                raise UsageError(f"{path}: object {number} has no name or no bndbox")
            x1, y1, x2, y2 = (float(str(edge)) for edge in edges)
            difficult = (thing.findtext("difficult") or "0").strip() == "1"
            _add(items, name.strip(), (x1, y1, x2, y2), difficult, f"{path}: object {number}")
    except (expat.ExpatError, ElementTree.ParseError) as error:
        raise UsageError(f"{path}: not valid XML: {error}") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    return items


def _add(items: list[Item], name: str, box: tuple[float, ...], ignore: bool, where: str) -> None:
    """Append a checked box; one without area is left out (labelling tools write them by accident)."""
    if not all(math.isfinite(v) for v in box):
        raise UsageError(f"{where}: a box edge is not a number")
    x1, y1, x2, y2 = box
    if x2 > x1 and y2 > y1:
        items.append((name, x1, y1, x2, y2, ignore))


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text") from None


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_LABEL_BYTES:
            raise UsageError(f"{path}: larger than {_MAX_LABEL_BYTES // 10**6} MB")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
