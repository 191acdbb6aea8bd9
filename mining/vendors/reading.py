"""What the readers of several formats share: the files of a delivery, numbers, and a list of what was read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from mining.vendors.contents import FILE_NAME as CONTENTS
from mining.vendors.labels import NO_FAULT, DeliveryError, LabelledBox, LabelledImage, Labels, Reject, Sent
from mining.vendors.untrusted import files_of, opened_zip, read_bytes

LIMIT_RECORDS = 2_000_000
"""Boxes of one delivery, bad ones too: many small files hold as much as one that is too large."""

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
_LABEL_FOLDERS = {"labels": "images", "label_2": "image_2", "Annotations": "JPEGImages"}
"""Of YOLO, KITTI and VOC, with the folder beside that holds the images."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a delivery."""

    path: Path
    name: str
    """For messages; relative to the folder or zip that holds it."""


@contextmanager
def opened(files: Sequence[Path], endings: Collection[str]) -> Iterator[list[File]]:
    """List the files with one of these endings in files, folders and zips, for as long as the context lives.

    ``delivery.json`` is ours and left out. Raises ``DeliveryError`` where a path holds none.
    """
    with ExitStack() as stack:
        found: dict[Path, File] = {}
        for given in files:
            root = stack.enter_context(opened_zip(given))
            paths = [path for path in files_of(root, endings) if path.name != CONTENTS]
            if not paths:
                raise DeliveryError(f"{given}: holds no {' or '.join(sorted(endings))} file; check --vendor")
            for path in paths:
                name = given.name if path == root else f"{given.name}/{path.relative_to(root).as_posix()}"
                found.setdefault(path.resolve(), File(path, name))  # a file that was named twice is read once
        yield list(found.values())


@dataclass(slots=True)
class Reading:
    """What was read so far."""

    sent: Sent
    images: list[LabelledImage] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    records: int = 0
    """Of images, so far."""

    def take(self, image: LabelledImage, records: Iterable[LabelledBox | Reject] = ()) -> None:
        """Take an image with what its records came to.

        An image of which nothing is left but records that are at fault is not taken: it would pass for one on which nothing
        is to be seen.
        """
        boxes: list[LabelledBox] = []
        rejects: list[Reject] = []
        for record in records:
            self.records += 1
            if self.records > LIMIT_RECORDS:
                raise DeliveryError(
                    f"{image.place}: more than {LIMIT_RECORDS:,} boxes in one delivery; give it in parts"
                )
            if isinstance(record, LabelledBox):
                boxes.append(record)
            else:
                rejects.append(record)
        found = self.sent.find(image)
        self.rejects += [replace(reject, frame_id=found.frame_id) for reject in rejects] if found else rejects
        if boxes or all(reject.kind in NO_FAULT for reject in rejects):
            self.images.append(replace(image, boxes=tuple(boxes)))

    def reject(self, place: str, kind: str, reason: str, frame_id: str | None = None) -> None:
        """Put down what is of no image that could be taken."""
        self.rejects.append(Reject(place, kind, reason, frame_id))

    def labels(self) -> Labels:
        """Give what was read."""
        return Labels(tuple(self.images), tuple(self.rejects))


def number(value: object) -> float | None:
    """Take a JSON number, or one written as text, as float; NaN and infinities pass, what is no number is None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and "_" in value:  # Python's own way to write numbers
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except ValueError:
        return None


def size_px(value: object) -> int | None:
    """Take the width or height of an image; None for what is no whole number, and for the 0 that some tools write."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() and 0 < found < 2**31 else None


def text_or_none(value: object) -> str | None:
    """Take what is text and not empty."""
    return value if isinstance(value, str) and value else None


def digest_beside(file: File) -> str | None:
    """Digest the image that lies beside a label file, for an image that its name does not find; None where none does."""
    parents = [file.path.parent]
    parts = list(file.path.parent.parts)
    for position in range(len(parts) - 1, -1, -1):
        if parts[position] in _LABEL_FOLDERS:
            parts[position] = _LABEL_FOLDERS[parts[position]]
            parents.append(Path(*parts))
            break
    for parent in parents:
        for ending in IMAGE_ENDINGS:
            image = parent / f"{PurePosixPath(file.path.name).stem}{ending}"
            if image.is_file() and not image.is_symlink():
                return hashlib.sha256(read_bytes(image)).hexdigest()
    return None
