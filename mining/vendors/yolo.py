"""``data.yaml``, ``images/``, ``labels/``: a data set folder that Ultralytics trains on (docs.ultralytics.com/datasets/detect).

A line of a label file is the class number and the box's centre, width and height as shares of the image. Scores and marks
have no place in it: boxes in doubt are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import yaml

from mining.vendors.delivery import Delivery
from mining.vendors.guess import looks_like, wrong_format
from mining.vendors.labels import DeliveryError, LabelledBox, LabelledImage, Labels, Reject, Sent, SentImage
from mining.vendors.reading import File, Reading, digest_beside, number, opened
from mining.vendors.untrusted import read_lines, read_text

_YAML = (".yaml", ".yml")
_NAMES = (".names",)
_NO_LABELS = {"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt"}
"""Lists that lie among the label files of other tools."""
_LIMIT_YAML_CHARACTERS = 200_000
"""PyYAML takes seconds for so many; a list of classes is short."""


def write_manifest(delivery: Delivery, folder: Path) -> None:
    """Write ``data.yaml`` and one label file an image, an empty one where nothing is pre-annotated.

    ``train`` and ``val`` are the same images: Ultralytics asks for both, and how to divide them is not ours to say.
    """
    number_of = {name: number for number, name in enumerate(delivery.classes)}
    # Without `path`, folders are found from where the file lies. Quoted, a name is text whatever it holds.
    quoted = [
        yaml.safe_dump(name, default_style='"', allow_unicode=True, width=math.inf) for name in number_of
    ]
    lines = ["train: images", "val: images", "names:", *(f"  {i}: {name}" for i, name in enumerate(quoted))]
    text = "".join(line.rstrip("\n") + "\n" for line in lines)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    (folder / "labels").mkdir()
    for image in delivery.images:
        lines = []
        for box in image.boxes:
            if box.in_doubt:
                continue
            shares = (
                (box.x1_px + box.x2_px) / 2 / image.width_px,
                (box.y1_px + box.y2_px) / 2 / image.height_px,
                (box.x2_px - box.x1_px) / image.width_px,
                (box.y2_px - box.y1_px) / image.height_px,
            )
            lines.append(" ".join([str(number_of[box.class_name]), *(f"{share:.9f}" for share in shares)]))
        name = f"{PurePosixPath(image.file_name).stem}.txt"
        (folder / "labels" / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_labels(files: Sequence[Path], sent: Sent) -> Labels:
    """Read a folder, a zip, or files: labels, and where it is there a list of classes.

    Classes are named by ``data.yaml``, ``classes.txt`` or ``obj.names``, and where there is none by the list that was
    sent. An image without a label file is not labelled; one with an empty file is labelled as empty.
    """
    reading = Reading(sent)
    with opened(files, (".txt", *_YAML, *_NAMES)) as found:
        names = _class_names(found, sent)
        labels = [file for file in found if file.path.suffix.lower() == ".txt"]
        if any("labels" in PurePosixPath(file.name).parts[:-1] for file in labels):
            labels = [file for file in labels if "labels" in PurePosixPath(file.name).parts[:-1]]
        else:
            labels = [
                file for file in labels if file.path.name not in _NO_LABELS or sent.named(file.path.name)
            ]
        if not labels:
            raise DeliveryError(
                f"{files[0]}: holds no label file (labels/NAME.txt); give their folder, and check --vendor"
            )
        for file in labels:
            _read(file, names, reading)
    return reading.labels()


def _read(file: File, names: dict[int, str], reading: Reading) -> None:
    if looks_like(file.path) not in {"YOLO text", "plain text", "an empty file"}:
        raise wrong_format(file.path, "YOLO label file (lines of: class x y width height)")
    lines = [
        (row, values)
        for row, line in enumerate(read_lines(file.path, " \t").splitlines(), start=1)
        if (values := line.split())
    ]
    image = LabelledImage(file.name, file.path.name)
    sent = reading.sent.find(image)
    if sent is None:
        image = LabelledImage(file.name, file.path.name, sha256=digest_beside(file))
        sent = reading.sent.find(image)
    if sent is None:
        # Shares of an image of unknown size are no boxes.
        said = f"no image of the batch is called {file.path.stem!r}; its {len(lines)} boxes are not read"
        for place in [f"{file.name}: line {row}" for row, _ in lines] or [file.name]:
            reading.reject(place, "no_frame", said)
        return
    has_boxes = any(len(values) in {5, 6} for _, values in lines)
    reading.take(
        image, (_box(values, f"{file.name}: line {row}", names, sent, has_boxes) for row, values in lines)
    )


def _box(
    values: list[str], place: str, names: dict[int, str], sent: SentImage, has_boxes: bool
) -> LabelledBox | Reject:
    """Read one line: a box, a box with a score, or the corners of a polygon, of which the bounds are taken."""
    numbers = [number(value) for value in values[1:]]
    is_polygon = len(values) > 6 and len(values) % 2 == 1
    if None in numbers or not values[0].isascii() or not values[0].isdigit():
        return Reject(place, "unreadable", "no line of: class x y width height")
    if is_polygon and has_boxes:
        return Reject(place, "glued", f"{len(values)} numbers on a line, where other lines have 5")
    if len(values) not in {5, 6} and not is_polygon:
        kind = "glued" if len(values) >= 10 else "unreadable"
        return Reject(place, kind, f"{len(values)} numbers on a line, not 5")
    name = names.get(int(values[0][:9]))
    if name is None:
        return Reject(
            place, "unknown_class", f"class {values[0][:9]} is not in the list of {len(names)} classes"
        )
    shares = [value for value in numbers if value is not None]
    if is_polygon:
        across, down = shares[0::2], shares[1::2]
        x1, y1, x2, y2 = min(across), min(down), max(across), max(down)
    else:
        x, y, width, height = shares[:4]
        x1, y1, x2, y2 = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    w_px, h_px = sent.width_px, sent.height_px
    return LabelledBox(name, x1 * w_px, y1 * h_px, x2 * w_px, y2 * h_px, place=place)


def _class_names(found: Sequence[File], sent: Sent) -> dict[int, str]:
    """Number -> name. ``DeliveryError`` where two lists of the delivery contradict each other."""
    lists: dict[str, dict[int, str]] = {}
    for file in found:
        if file.path.suffix.lower() in _YAML:
            lists[file.name] = _names_of_yaml(file)
        elif file.path.suffix.lower() in _NAMES or file.path.name == "classes.txt":
            lines = read_text(file.path).splitlines()
            lists[file.name] = {i: line.strip() for i, line in enumerate(lines) if line.strip()}
    if not lists:
        return dict(enumerate(sent.classes))
    (first, names), *others = lists.items()
    for other, other_names in others:
        if other_names != names:
            raise DeliveryError(f"{first} and {other} name the classes differently: keep the right one")
    return names


def _names_of_yaml(file: File) -> dict[int, str]:
    text = read_text(file.path)
    if len(text) > _LIMIT_YAML_CHARACTERS:
        raise DeliveryError(
            f"{file.name}: {len(text):,} characters, more than {_LIMIT_YAML_CHARACTERS:,}: no list of classes"
        )
    try:
        data = yaml.safe_load(text)
        names = data["names"]
        listed = names.items() if isinstance(names, dict) else enumerate(names)
        result = {int(key): name for key, name in listed}
    except (yaml.YAMLError, RecursionError, KeyError, TypeError, ValueError, AttributeError):
        result = {}
    if not result or not all(isinstance(name, str) for name in result.values()):
        raise DeliveryError(
            f"{file.name}: no YAML with a list `names` of class names; take it out of the folder, or mend it"
        )
    return result
