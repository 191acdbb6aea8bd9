"""Label files that somebody broke, of every format: read, or refused in one line, and never another exception.

``test_vendors_read.py`` has the same for values of other types in JSON; here are bytes, of all formats, and of zips of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mining.vendors import VENDORS
from mining.vendors.labels import KINDS, DeliveryError, Labels, Sent, SentImage
from tests.mining.vendor_deliveries import plain

READERS = sorted(name for name, vendor in VENDORS.items() if vendor.read_labels)
SENT = Sent(
    "b", ("car",), tuple(SentImage(f"f{n}", f"images/f{n}.jpg", f"{n:064x}", 100, 50) for n in range(4))
)
VOC = (
    "<annotation><filename>f0.jpg</filename><size><width>100</width><height>50</height></size><object><name>car</name>"
    "<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"
)
KITTI = "car 0.00 0 -1.57 1.5 2.5 30.5 40.0 1.5 1.6 3.2 1.0 1.0 20.0 -1.5\nDontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10\n"
pieces = st.binary(max_size=6) | st.sampled_from(
    [b"null", b"[]", b"{}", b'"x"', b"1e999", b"nan", b"-1", b"\0", b"\xef\xbb\xbf", b"\n", b"\r", b",", b'"', b"<", b"&lt;", b"\x85", b"9" * 400,
     b"[" * 500, b"<a>" * 300, b"=1+1", "\u202e".encode(), b"!!python/object/apply:os.system ['true']", b"&a [*a, *a]"]
)  # fmt: skip


@pytest.fixture(scope="module")
def deliveries(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A sound delivery of a format, as a folder."""
    root = tmp_path_factory.mktemp("sound")

    def of(vendor: str) -> Path:
        folder = root / vendor
        if not folder.exists():
            (folder / "images").mkdir(parents=True)
            for image in plain().images:  # a CVAT task holds them
                (folder / image.file_name).write_bytes(b"x")
            write = VENDORS[vendor].write_manifest
            if write is not None:
                write(plain(), folder)
            else:
                (folder / ("f0.xml" if vendor == "voc" else "f0.txt")).write_text(
                    VOC if vendor == "voc" else KITTI
                )
        return folder

    return of


@pytest.mark.parametrize("vendor", READERS)
@given(data=st.data())
def test_a_broken_delivery_is_read_or_refused(
    vendor: str,
    data: st.DataObject,
    deliveries: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"broken {vendor}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(deliveries(vendor), folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=2)):
        content = path.read_bytes()
        for _ in range(data.draw(st.integers(0, 3))):
            start = data.draw(st.integers(0, len(content)))
            stop = min(len(content), start + data.draw(st.integers(0, 30)))
            content = content[:start] + data.draw(pieces) + content[stop:]
        path.write_bytes(
            content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
        )
    given_as = data.draw(st.sampled_from(["folder", "files", "zip"]))
    if given_as == "zip":
        _checked(vendor, Path(shutil.make_archive(str(folder), "zip", folder)))
    else:
        _checked(vendor, *([folder] if given_as == "folder" else files))


@pytest.mark.parametrize("vendor", READERS)
@given(content=st.binary(max_size=200) | st.lists(pieces, max_size=8).map(b" ".join), ending=st.sampled_from(
    ["json", "jsonl", "ndjson", "xml", "txt", "csv", "yaml", "zip", "manifest"]))  # fmt: skip
def test_any_bytes_are_read_or_refused(
    vendor: str, content: bytes, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"bytes {vendor}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "labels").mkdir(parents=True)
    for name in (f"f0.{ending}", "data.yaml", "labels/f0.txt"):
        (folder / name).write_bytes(content)
    _checked(vendor, folder)
    _checked(vendor, folder / f"f0.{ending}")


def _checked(vendor: str, *paths: Path) -> Labels | None:
    read = VENDORS[vendor].read_labels
    assert read is not None
    try:
        labels = read(paths, SENT)
    except DeliveryError as error:
        _one_clear_line(str(error))
        return None
    for reject in labels.rejects:
        assert reject.kind in KINDS
        reject.reason.encode()
    for image in labels.images:
        SENT.find(image)
        for box in image.boxes:
            box.class_name.encode()
            assert all(isinstance(edge, float | int) for edge in (box.x1_px, box.y1_px, box.x2_px, box.y2_px))
    return labels


def _one_clear_line(text: str) -> None:
    assert 0 < len(text) < 2000
    assert "\n" not in text
    text.encode()
