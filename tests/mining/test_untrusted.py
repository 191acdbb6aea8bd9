"""Hostile files end in one clear DeliveryError, within bounds of memory that a child process proves."""

from __future__ import annotations

import contextlib
import io
import json
import math
import multiprocessing
import os
import resource
import stat
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mining.vendors import guess, untrusted
from mining.vendors.labels import DeliveryError
from mining.vendors.untrusted import BadLine

READERS: dict[str, Callable[[Path], Any]] = {
    "text": untrusted.read_text,
    "json": untrusted.read_json,
    "json lines": lambda path: list(untrusted.read_json_lines(path)),
    "json records": lambda path: list(untrusted.read_json_records(path)),
    "xml": untrusted.read_xml,
    "lines": lambda path: untrusted.read_lines(path, " "),
}
JSON_READERS = ["json", "json lines", "json records"]


def _file(folder: Path, content: bytes | str, name: str = "labels") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _refused(call: Callable[[], Any], *words: str) -> str:
    with pytest.raises(DeliveryError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def _child(reader: str, path: Path, limit_bytes: int, answer: Any) -> None:
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (in_use + limit_bytes, in_use + limit_bytes))
    try:
        READERS[reader](path)
        answer.put("read")
    except DeliveryError as error:
        answer.put(str(error))
    except BaseException as error:
        answer.put(f"!{type(error).__name__}")


def _in_a_small_child(reader: str, path: Path, limit_bytes: int) -> str:
    """Read in a process that may take only so much more memory; a crash or another exception fails the test."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    answer = context.Queue()
    process = context.Process(target=_child, args=(reader, path, limit_bytes, answer))
    process.start()
    said = answer.get(timeout=60)
    process.join()
    assert process.exitcode == 0
    return str(said)


@pytest.mark.parametrize("reader", READERS)
def test_a_2_gb_file_is_refused_without_reading_it(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    with path.open("wb") as file:
        file.truncate(2_000_000_000)
    assert "2,000,000,000 bytes" in _in_a_small_child(reader, path, 100_000_000)


@pytest.mark.parametrize("reader", JSON_READERS)
@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("closed", [False, True])
def test_a_million_deep_json_is_refused(reader: str, opening: str, closed: bool, tmp_path: Path) -> None:
    shut = {"[": "]", "{": "}"}
    text = opening * 1_000_000
    if closed:
        text += "0" + "".join(shut[c] for c in reversed(opening) if c in shut) * 1_000_000
    said = _in_a_small_child(reader, _file(tmp_path, text), 500_000_000)
    assert "nested too deep" in said or "no line is JSON" in said


def test_a_million_deep_xml_is_refused(tmp_path: Path) -> None:
    for text in ("<a>" * 1_000_000, "<a>" * 1_000_000 + "</a>" * 1_000_000):
        assert "nested deeper" in _in_a_small_child("xml", _file(tmp_path, text), 100_000_000)


@pytest.mark.parametrize("text", ["[" + "[]," * 11_000_000 + "[]]", "[" + "1," * 51_000_000 + "1]"])
def test_a_small_file_of_very_many_values_is_refused(text: str, tmp_path: Path) -> None:
    assert "split it" in _in_a_small_child("json", _file(tmp_path, text), 500_000_000)


def test_a_small_file_of_very_many_elements_is_refused(tmp_path: Path) -> None:
    text = "<a>" + "<b/>" * 11_000_000 + "</a>"
    assert "split it" in _in_a_small_child("xml", _file(tmp_path, text), 500_000_000)


@pytest.mark.parametrize("reader", ["lines", "json lines", "json records"])
def test_a_file_of_very_many_lines_is_refused(reader: str, tmp_path: Path) -> None:
    assert "split it" in _in_a_small_child(reader, _file(tmp_path, "1\n2" + "\n" * 5_000_000), 500_000_000)


def test_a_line_of_very_many_values_is_refused(tmp_path: Path) -> None:
    assert "split it" in _in_a_small_child("lines", _file(tmp_path, "0 " * 13_000_000), 500_000_000)


def test_an_element_of_very_many_attributes_is_refused(tmp_path: Path) -> None:
    text = "<a " + " ".join(f'b{n}=""' for n in range(13_000_000)) + "/>"
    assert "split it" in _in_a_small_child("xml", _file(tmp_path, text), 800_000_000)


def test_folders_nested_very_deep_are_refused(tmp_path: Path) -> None:
    """A listing that calls itself for each folder in a folder breaks at a thousand."""
    deep = tmp_path / "deep"
    deep.joinpath(*["a"] * 250).mkdir(parents=True)
    _refused(lambda: untrusted.files_of(deep, {".txt"}), str(deep), "nested deeper than 200")
    packed = tmp_path / "deep.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a/" * 300 + "b.txt", "x")
    _refused(lambda: _opened(packed), str(packed), "nested deeper than 200")


def test_a_bad_file_in_a_zip_is_named_by_the_zip(tmp_path: Path) -> None:
    packed = tmp_path / "given.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("job/labels.xml", "<!DOCTYPE a><a/>")

    def read() -> None:
        with untrusted.opened_zip(packed) as folder:
            untrusted.read_xml(folder / "job" / "labels.xml")

    assert _refused(read).startswith(f"{packed}: job/labels.xml: XML with a DOCTYPE")


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
SECRET = "the secret of another file"


@pytest.mark.parametrize(
    "text",
    [
        f'<!DOCTYPE a [<!ENTITY l0 "lol">{LAUGHS}]><a>&l9;</a>',
        f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "{"x" * 100_000}">]><a>{"&b;" * 100_000}</a>',
        '<!DOCTYPE a [<!ENTITY s SYSTEM "secret.txt">]><a>&s;</a>',
        '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://localhost:1/x.dtd"> %p;]><a/>',
        '<!DOCTYPE a SYSTEM "http://localhost:1/x.dtd"><a/>',
    ],
    ids=["laughs", "quadratic", "external", "parameter", "external dtd"],
)
def test_xml_with_a_dtd_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _file(tmp_path, SECRET, "secret.txt")
    said = _in_a_small_child("xml", _file(tmp_path, text), 100_000_000)
    assert "DOCTYPE" in said
    assert SECRET not in said


def test_xml_is_read_as_elementtree_reads_it(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    text = "<?xml version='1.0' encoding='utf-8'?>\n<a b='&lt;ü'>x<c/>&amp;y<!-- no --><![CDATA[<z>]]></a>"
    ours, theirs = untrusted.read_xml(_file(tmp_path, text)), ElementTree.fromstring(text)
    assert ElementTree.tostring(ours) == ElementTree.tostring(theirs)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "word"),
    [
        ('{"größe": 1}'.encode("latin-1"), "UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ('{"a": 1}'.encode("utf-16-be"), "UTF-16 without a byte order mark"),
        ('{"a": 1}'.encode("utf-32"), "NUL"),
        (b'{"a": "\0"}', "NUL"),
        (b"\xff\xd8\xff\xe0" + bytes(range(256)), "a JPEG image"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "a PNG image"),
        (b"\x80", "UTF-8"),
    ],
)
def test_what_is_no_utf8_is_refused(reader: str, content: bytes, word: str, tmp_path: Path) -> None:
    _refused(lambda: READERS[reader](_file(tmp_path, content)), word)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_say_what_they_are_are_read(encoding: str, tmp_path: Path) -> None:
    assert untrusted.read_json(_file(tmp_path, '{"größe": "車"}'.encode(encoding))) == {"größe": "車"}
    assert untrusted.read_xml(_file(tmp_path, "<a>車</a>".encode(encoding))).text == "車"


def test_xml_is_read_as_the_unicode_that_it_is_whatever_it_declares(tmp_path: Path) -> None:
    for declared in ("utf-16", "ascii", "no-such-encoding"):
        text = f'<?xml version="1.0" encoding="{declared}"?><a>車</a>'
        assert untrusted.read_xml(_file(tmp_path, text)).text == "車"


def test_json_says_where_it_breaks_and_what_it_may_be(tmp_path: Path) -> None:
    _refused(lambda: untrusted.read_json(_file(tmp_path, '{"a": 1,\n "b" 2}')), "line 2")
    _refused(lambda: untrusted.read_json(_file(tmp_path, "<annotations/>")), "CVAT XML")
    _refused(lambda: untrusted.read_json(_file(tmp_path, "")), "empty")
    _refused(lambda: untrusted.read_json(_file(tmp_path, " \n")), "empty")


@pytest.mark.parametrize("reader", JSON_READERS)
@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('[{"b": {"a": 1, "a": 2}}]', "'a' stands twice"),
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"\\udfff": 1}', "surrogate"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
    ],
)
def test_json_that_no_table_can_hold_is_refused(reader: str, text: str, word: str, tmp_path: Path) -> None:
    path = _file(tmp_path, text)
    if reader == "json":
        _refused(lambda: READERS[reader](path), word)
    else:  # the one line of the file is bad: nothing of it is read
        _refused(lambda: READERS[reader](path))
        good = _file(tmp_path, "{}\n" + text)
        (_, first), (number, bad) = untrusted.read_json_lines(good)
        assert first == {}
        assert number == 2
        assert isinstance(bad, BadLine)
        assert word in bad.reason


def test_a_pair_of_surrogates_is_a_character(tmp_path: Path) -> None:
    assert untrusted.read_json(_file(tmp_path, '"\\ud83d\\ude97"')) == "🚗"


def test_json_constants_come_out_as_floats(tmp_path: Path) -> None:
    nan, up, down, huge = untrusted.read_json(_file(tmp_path, "[NaN, Infinity, -Infinity, 1e999]"))
    assert math.isnan(nan)
    assert (up, down, huge) == (math.inf, -math.inf, math.inf)


def test_json_lines_are_numbered_and_bad_ones_marked(tmp_path: Path) -> None:
    text = '{"a": 1}\r\n\n{"a": "\u2028\x85"}\n{"a": 1}{"a": 2}\n{"a"\n[1]\n'
    rows = list(untrusted.read_json_lines(_file(tmp_path, text)))
    assert [number for number, _ in rows] == [1, 3, 4, 5, 6]
    assert [rows[0][1], rows[1][1], rows[4][1]] == [{"a": 1}, {"a": "\u2028\x85"}, [1]]
    assert [rows[n][1].kind for n in (2, 3)] == ["glued", "unreadable"]


def test_lines_that_are_no_json_are_no_file_of_json_lines(tmp_path: Path) -> None:
    read = READERS["json lines"]
    _refused(lambda: read(_file(tmp_path, "a,b\n1,2\n")), "CSV")
    _refused(lambda: read(_file(tmp_path, "{}\n" + "x\n" * 20_000)), "no JSON")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', [(1, {"a": 1})]),
        ('[{"a": 1},\n {"a": 2}]', [(1, {"a": 1}), (2, {"a": 2})]),
        ('{"a": 1}\n{"a": 2}\n', [(1, {"a": 1}), (2, {"a": 2})]),
        ('{\n"a": 1\n}\n', [(1, {"a": 1})]),
        ("[]", []),
    ],
)
def test_records_come_from_a_list_an_object_or_lines(text: str, expected: object, tmp_path: Path) -> None:
    assert list(untrusted.read_json_records(_file(tmp_path, text))) == expected


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused(reader: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (
        tmp_path,
        tmp_path / "missing",
        tmp_path / "pipe",
        tmp_path / "a\0b",
        tmp_path / ("x" * 400),
    ):
        _refused(lambda path=path: READERS[reader](path))


@given(
    content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_bytes_are_read_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = _file(tmp_path_factory.getbasetemp(), content, "any")
    for read in READERS.values():
        try:
            read(path)
        except DeliveryError:
            continue
    assert guess.looks_like(path)


def _zip(path: Path, members: dict[str, bytes], mode: int = 0, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def _opened(path: Path) -> dict[str, bytes]:
    with untrusted.opened_zip(path) as folder:
        return {
            found.relative_to(folder).as_posix(): found.read_bytes()
            for found in untrusted.files_of(folder, {".txt"})
        }


def test_a_zip_is_unpacked_and_its_folder_goes_away(tmp_path: Path) -> None:
    members = {"b/ü.txt": b"1", "a.txt": b"2", "c.TXT": b"3"}
    path = _zip(tmp_path / "ok.zip", {**members, "d.jpg": b"4", "empty/": b""})
    assert _opened(path) == members
    with untrusted.opened_zip(path) as folder:
        assert (folder / "d.jpg").read_bytes() == b"4"
    assert not folder.exists()


def test_windows_separators_make_folders(tmp_path: Path) -> None:
    assert _opened(_zip(tmp_path / "w.zip", {"a\\b.txt": b"1"})) == {"a/b.txt": b"1"}


def test_what_is_no_zip_comes_back_as_it_is(tmp_path: Path) -> None:
    for path in (tmp_path, _file(tmp_path, "{}")):
        with untrusted.opened_zip(path) as opened:
            assert opened == path
    for missing in (tmp_path / "missing", tmp_path / "a\0b"):
        _refused(lambda missing=missing: _opened(missing), "no such file")


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "a/../../evil.txt",
        "/evil.txt",
        "\\evil.txt",
        "..\\evil.txt",
        "C:\\evil.txt",
        "C:evil.txt",
        "a/..",
    ],
)
def test_zip_slips_are_refused_and_write_nothing(name: str, tmp_path: Path) -> None:
    path = _zip(tmp_path / "slip.zip", {"good.txt": b"1", name: b"evil"})
    before = sorted(tmp_path.parent.rglob("*"))
    _refused(lambda: _opened(path), "leads elsewhere")
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_are_refused(kind: int, tmp_path: Path) -> None:
    _refused(lambda: _opened(_zip(tmp_path / "l.zip", {"a.txt": b"/etc/passwd"}, mode=kind | 0o777)), "link")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [("a.txt", "A.TXT"), ("é.txt", "e\u0301.txt"), ("a.txt", "a.txt"), ("a", "a/b.txt"), ("x" * 300,)],
)
def test_names_that_collide_or_cannot_be_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "c.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), b"1")
    _refused(lambda: _opened(path))


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    one = _zip(tmp_path / "bomb.zip", {"a.txt": bytes(60_000_000)})
    _refused(lambda: _opened(one), "60,000,000 bytes: not opened")
    nested = _zip(tmp_path / "nested.zip", {"a.zip": one.read_bytes(), "b.txt": b"1"})
    assert _opened(nested) == {"b.txt": b"1"}  # the bomb inside stays a file


def test_zips_that_are_too_large_in_any_way_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _zip(tmp_path / "z.zip", {f"{n}.txt": os.urandom(1000) for n in range(20)})
    for limit, value, word in (
        ("LIMIT_ZIP_FILES", 19, "files"),
        ("LIMIT_ZIP_TOTAL_BYTES", 19_999, "unpacks from"),
        ("LIMIT_BYTES", 19_999, "bytes"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(untrusted, limit, value)
            _refused(lambda: _opened(path), word)
    assert len(_opened(path)) == 20


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    content = bytearray(_zip(tmp_path / "z.zip", {"a.txt": bytes(5_000_000)}).read_bytes())
    true, lie = (5_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    assert content.count(true) == 2
    _refused(
        lambda: _opened(_file(tmp_path, bytes(content).replace(true, lie), "lie.zip")), "cannot be unpacked"
    )


@given(data=st.data())
def test_a_damaged_zip_is_unpacked_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", json.dumps(list(range(100))))
        archive.writestr("b/c.txt", "x")
    content = bytearray(memory.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = _file(
        tmp_path_factory.getbasetemp(), bytes(content[: data.draw(st.integers(0, len(content)))]), "d.zip"
    )
    with contextlib.suppress(DeliveryError):
        _opened(path)


def test_links_out_of_a_folder_are_refused_and_links_within_left_out(tmp_path: Path) -> None:
    outside = _file(tmp_path, "1", "outside.txt")
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    inside = _file(folder / "sub", "1", "a.txt")
    (folder / "again.txt").symlink_to(inside)
    (folder / "loop").symlink_to(folder)
    assert untrusted.files_of(folder, {".txt"}) == [inside]
    for name, target in (("out.txt", outside), ("out", tmp_path)):
        (folder / name).symlink_to(target)
        _refused(lambda: untrusted.files_of(folder, {".txt"}), "link")
        (folder / name).unlink()
    _refused(lambda: untrusted.files_of(tmp_path / "missing", {".txt"}), "no such file")


@pytest.mark.parametrize(
    ("fixture", "what"),
    [
        ("cvat/cvat_for_images.xml", "CVAT XML"),
        ("cvat/cvat_for_video.xml", "CVAT XML"),
        ("label_studio/export_boxes_data.json", "Label Studio JSON"),
        ("label_studio/export_polygons_data.json", "Label Studio JSON"),
        ("labelbox/ndjson_image_import.json", "Labelbox JSON"),
        ("labelbox/v1_image_export.json", "Labelbox JSON"),
        ("bdd_scalabel/bdd100k_example_annotation.json", "Scalabel / BDD100K JSON"),
        ("kitti_object/label_2/000000.txt", "KITTI text"),
        ("kitti_object/image_2/000000.png", "a PNG image"),
    ],
)
def test_real_files_are_named(fixture: str, what: str, shared_data: Path) -> None:
    assert guess.looks_like(shared_data / "fixtures" / fixture) == what
