"""The one record that every vendor's labels are read into, and how a labelled image finds its frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from mining.types import MiningError

KINDS: Mapping[str, str] = {
    "unreadable": "a record that does not parse, or lacks what it must have",
    "glued": "records run together without a break between them",
    "not_finite": "a coordinate that is no finite number",
    "no_area": "a box of zero or negative width or height",
    "outside": "a box that lies outside the image, or hangs over its edge by more than the limit",
    "unknown_class": "a class that is not in the fleet's list and not mapped onto it",
    "wrong_size": "an image of another size than the one that was sent",
    "no_frame": "a label whose image is not in the batch",
    "duplicate": "the same box of the same annotator twice",
    "twice": "the same image of the same annotator twice",
    "skipped": "an image that the labeler skipped or cancelled: not a fault",
    "dropped": "an image that a review has taken out of the batch since it was sent: not a fault",
    "other_class": "a class that labels.names maps to nothing, or a region to ignore of no class of ours: not a fault",
    "unsupported": "a shape that no box can stand for, such as a point or a line: not a fault",
}
"""What keeps a record of a delivery from being taken in."""

NO_FAULT = frozenset({"skipped", "dropped", "other_class", "unsupported"})
"""Kinds that do not count towards the share of bad rows that refuses a delivery."""


LOSES_BOXES = frozenset({"unreadable", "glued", "not_finite", "no_area", "outside", "unknown_class"})
"""Kinds by which a frame that is labelled lacks a box that somebody drew."""


class DeliveryError(MiningError):
    """A delivery that cannot be read at all, or must not be; the message names the file and the way out."""


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """One box as delivered, brought to pixels and corners; nothing else is corrected."""

    class_name: str
    """As the vendor wrote it."""
    x1_px: float
    y1_px: float
    x2_px: float
    y2_px: float
    ignore: bool = False
    """A crowd, a difficult object, a "don't care" region."""
    place: str = ""
    """File and record, for messages: ``annotations.xml: image 3, box 2``."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """What one annotator says of one image; no boxes: there is nothing to see."""

    place: str
    """File and record, for messages."""
    file_name: str | None
    """Path, URL or name, as the delivery has it."""
    frame_id: str | None = None
    """Where the format carries a key of ours."""
    sha256: str | None = None
    """Of the image, where the format carries it or the delivery holds the image."""
    width_px: int | None = None
    height_px: int | None = None
    """As the delivery has it; checked against what was sent."""
    annotator: str | None = None
    boxes: tuple[LabelledBox, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """Something of a delivery that is not taken in."""

    place: str
    kind: str
    """A key of ``KINDS``."""
    reason: str
    frame_id: str | None = None


@dataclass(frozen=True, slots=True)
class Labels:
    """A delivery as read: nothing is dropped, what is not an image with boxes is a reject."""

    images: tuple[LabelledImage, ...]
    rejects: tuple[Reject, ...] = ()


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image as it went out."""

    frame_id: str
    file_name: str
    """Relative to the delivery's folder."""
    sha256: str
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch as it went out: what labels are read against."""

    batch_id: str
    classes: tuple[str, ...]
    """The fleet's class list, in the order of the manifests."""
    images: tuple[SentImage, ...]
    """In the order of the manifests."""
    _by_frame: dict[str, SentImage] = field(init=False, repr=False)
    _by_name: dict[str, SentImage] = field(init=False, repr=False)
    _by_sha256: dict[str, SentImage] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the look-ups."""
        object.__setattr__(self, "_by_frame", {image.frame_id: image for image in self.images})
        names = {image: PurePosixPath(image.file_name) for image in self.images}
        by_name = [
            (name, image) for image, path in names.items() for name in (path.name, path.stem, image.frame_id)
        ]
        object.__setattr__(self, "_by_name", _of_one(by_name))
        object.__setattr__(self, "_by_sha256", _of_one((image.sha256, image) for image in self.images))

    def named(self, name: str | None) -> SentImage | None:
        """Find an image by path, URL or bare name, with or without its ending (label files have their own)."""
        for last in _last_parts(name or ""):
            found = self._by_name.get(last) or self._by_name.get(PurePosixPath(last).stem)
            if found is None and len(last) > 9 and last[8] == "-":
                # Label Studio puts eight hexadecimal digits before the name of an uploaded file.
                found = self._by_name.get(last[9:]) or self._by_name.get(PurePosixPath(last[9:]).stem)
            if found is not None:
                return found
        folders = (name or "").replace("\\", "/").split("/")  # `export.image_uri` may have the frame in one
        return next((self._by_frame[folder] for folder in folders if folder in self._by_frame), None)

    def find(self, image: LabelledImage) -> SentImage | None:
        """Find the image that a label is about: by key, by digest, by file name."""
        if image.frame_id is not None and image.frame_id in self._by_frame:
            return self._by_frame[image.frame_id]
        if image.sha256 is not None and image.sha256 in self._by_sha256:
            return self._by_sha256[image.sha256]
        return self.named(image.file_name) or self.named(image.frame_id)


def _of_one(named: Iterable[tuple[str, SentImage]]) -> dict[str, SentImage]:
    """Look images up by what only one of them has: what several share tells none of them."""
    found: dict[str, set[SentImage]] = {}
    for name, image in named:
        found.setdefault(name, set()).add(image)
    return {name: images.pop() for name, images in found.items() if len(images) == 1}


def _last_parts(name: str) -> list[str]:
    """List what may be the file's name in a path or URL: its last part, and that of each value of its query."""
    text = name.replace("\\", "/")
    parts = [name, text]
    try:
        url = urlsplit(text)
        parts += [unquote(url.path), *(value for values in parse_qs(url.query).values() for value in values)]
    except ValueError:  # no URL
        pass
    return [PurePosixPath(part).name for part in parts if part]
