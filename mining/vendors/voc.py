"""Pascal VOC: one XML file an image (LabelImg, and what many tools offer as export). Read alone.

Corners are taken as they stand. The data set of 2012 counts pixels from 1; LabelImg, CVAT and most others from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from mining.vendors.guess import wrong_format
from mining.vendors.labels import LabelledBox, LabelledImage, Labels, Reject, Sent
from mining.vendors.reading import File, Reading, digest_beside, number, opened, size_px
from mining.vendors.untrusted import read_xml

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_labels(files: Sequence[Path], sent: Sent) -> Labels:
    """Read XML files, or folders and zips of them. A difficult object is one to ignore."""
    reading = Reading(sent)
    with opened(files, (".xml",)) as found:
        for file in found:
            root = read_xml(file.path)
            if root.tag != "annotation":
                raise wrong_format(file.path, "Pascal VOC XML (its root is <annotation>)")
            reading.take(_image(root, file, sent), _boxes(root, file))
    return reading.labels()


def _image(root: Element, file: File, sent: Sent) -> LabelledImage:
    # Images are renamed after they were labelled, and <filename> stays: the XML file's own name counts too.
    written = (root.findtext("filename") or "").strip()
    renamed = not sent.named(written) and sent.named(file.path.name)
    name = file.path.name if renamed or not written else written
    return LabelledImage(
        place=file.name,
        file_name=name,
        sha256=None if sent.named(name) else digest_beside(file),
        width_px=size_px(root.findtext("size/width")),
        height_px=size_px(root.findtext("size/height")),
        annotator=(root.findtext("annotator") or "").strip() or None,
    )


def _boxes(root: Element, file: File) -> Iterator[LabelledBox | Reject]:
    for position, element in enumerate(root.iterfind("object"), start=1):
        place = f"{file.name}: object {position}"
        name = (element.findtext("name") or "").strip()
        corners = [number(element.findtext(f"bndbox/{corner}")) for corner in _CORNERS]
        x1, y1, x2, y2 = corners
        if not name:
            yield Reject(place, "unreadable", "no <name>")
        elif x1 is None or y1 is None or x2 is None or y2 is None:
            yield Reject(place, "unreadable", f"no <bndbox> with {', '.join(_CORNERS)}")
        else:
            ignore = (element.findtext("difficult") or "0").strip() not in {"0", ""}
            yield LabelledBox(name, x1, y1, x2, y2, ignore, place)
