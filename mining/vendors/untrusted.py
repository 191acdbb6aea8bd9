"""Reading files that come from outside: each is hostile until it has been read within bounds of size, depth and count.

What cannot be read so raises ``DeliveryError`` with one line that names the file, what is wrong and what to do.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from mining.vendors.labels import DeliveryError

LIMIT_BYTES = 500_000_000
"""Of one file."""
LIMIT_DEPTH = 200
"""Of nested elements of an XML file; JSON's is the interpreter's recursion limit."""
LIMIT_PARTS = 10_000_000
"""Objects, lists or elements of one file: a text of brackets alone takes twenty times its size in memory."""
LIMIT_VALUES = 50_000_000
"""Values or attributes of one file."""
LIMIT_BAD_LINES = 10_000
"""Lines that are no JSON; a file with more of them is no file of JSON lines."""
LIMIT_ZIP_FILES = 200_000
LIMIT_ZIP_TOTAL_BYTES = 4 * LIMIT_BYTES
"""Of what a zip unpacks to."""
LIMIT_ZIP_RATIO = 200
"""Unpacked by packed size, for what unpacks to more than ``_SMALL_BYTES``; labels and images stay far below."""

_SMALL_BYTES = 50_000_000


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no JSON value."""

    kind: str
    """``unreadable``, or ``glued`` where several values stand on it."""
    reason: str


def read_bytes(path: Path) -> bytes:
    """Read a regular file of at most ``LIMIT_BYTES``."""
    try:
        # Without O_NONBLOCK a named pipe would be waited for.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DeliveryError(f"{path}: not a file; give the file that the vendor delivered")
            if status.st_size > LIMIT_BYTES:
                raise DeliveryError(
                    f"{path}: {status.st_size:,} bytes, more than {LIMIT_BYTES:,}: no label file; split it"
                )
            return file.read(status.st_size)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DeliveryError(f"{path}: cannot be read: {reason}") from None


def read_text(path: Path) -> str:
    """Read UTF-8, or UTF-16 with a byte order mark."""
    content = read_bytes(path)
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if _magic(content):
            raise DeliveryError(f"{path}: {_magic(content)}; give the label file") from None
        raise DeliveryError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    if "\0" in text:
        wide = len(content) > 1 and 0 in content[:2] and any(content[:2])
        what = "UTF-16 without a byte order mark" if wide else "it holds NUL bytes"
        raise DeliveryError(f"{path}: no text ({what}); save it as UTF-8")
    return text


def read_json(path: Path) -> Any:
    """Read one JSON value. NaN and Infinity come out as such floats; a key that stands twice is refused."""
    text = read_text(path)
    _check_density(path, text, "{[", ",")
    if not text.strip():
        raise DeliveryError(f"{path}: empty")
    try:
        return _json(text)
    except json.JSONDecodeError as error:
        raise DeliveryError(
            f"{path}: no JSON (line {error.lineno}: {error.msg}); it looks like {_looks_like_text(text)}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DeliveryError(f"{path}: JSON that cannot be read: {_json_fault(error)}") from None


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, value) for each line that is not blank; a line that does not parse is a ``BadLine``."""
    text = read_text(path)
    _check_density(path, text, "{[", ",")
    bad_lines, any_json = 0, False
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        value = parse_json(line)
        bad = isinstance(value, BadLine)
        bad_lines += bad
        any_json = any_json or not bad or value.kind == "glued"
        if bad_lines > LIMIT_BAD_LINES:
            raise DeliveryError(
                f"{path}: more than {LIMIT_BAD_LINES:,} lines are no JSON; it looks like {_looks_like_text(text)}"
            )
        yield number, value
    if not any_json:
        raise DeliveryError(f"{path}: no line is JSON; it looks like {_looks_like_text(text)}")


def parse_json(text: str) -> Any:
    """Parse one JSON value; what is none comes back as a ``BadLine``."""
    try:
        return _json(text)
    except json.JSONDecodeError as error:
        glued = error.msg == "Extra data" and text[error.pos] in "{["
        return BadLine("glued" if glued else "unreadable", f"no JSON: {error.msg}, column {error.colno}")
    except (ValueError, RecursionError) as error:
        return BadLine("unreadable", _json_fault(error))


def read_json_records(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (number from 1, record) of a JSON list, of one JSON object, or of JSON lines, as ``read_json_lines`` does."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        yield from enumerate(read_json(path), start=1)
        return
    _check_density(path, text, "{[", ",")
    whole = parse_json(text)
    if isinstance(whole, BadLine):
        yield from read_json_lines(path)
    else:
        yield 1, whole


def read_xml(path: Path) -> Element:
    """Read an XML file into its root. A DTD is refused, and with it entities and anything external."""
    text = read_text(path)
    _check_density(path, text, "<", "=")
    tree = TreeBuilder()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > LIMIT_DEPTH:
            raise DeliveryError(f"{path}: XML nested deeper than {LIMIT_DEPTH}: no label file")
        tree.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        tree.end(name)

    def doctype(*_: object) -> None:
        raise DeliveryError(f"{path}: XML with a DOCTYPE, which may hide entities; take that line out")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = tree.data
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise DeliveryError(f"{path}: no XML ({error}); it looks like {_looks_like_text(text)}") from None
    return tree.close()


@contextmanager
def opened_zip(path: Path) -> Iterator[Path]:
    """Unpack a zip into a folder that lives as long as the context; a path that is no zip comes back as it is.

    Only plain files and folders with relative names are unpacked; a zip inside stays a file. One bad member refuses all.
    """
    try:
        is_zip = path.is_file() and zipfile.is_zipfile(path)
        exists = path.exists()
    except (OSError, ValueError):
        is_zip = exists = False
    if not exists:
        raise DeliveryError(f"{path}: no such file or folder")
    if not is_zip:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="mining-") as parent:
        folder = Path(parent) / "zip"
        folder.mkdir()
        try:
            _unpack(path, folder)
        except DeliveryError:
            raise
        except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DeliveryError(f"{path}: a zip that cannot be unpacked: {error}") from None
        yield folder


def files_of(path: Path, endings: Collection[str]) -> list[Path]:
    """List the files below a folder with one of these endings (``.txt``), sorted; a file is listed as it is.

    Links within the folder are left out, because what they lead to is listed itself; one that leads out is refused.
    """
    if not path.exists():
        raise DeliveryError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    wanted = {ending.lower() for ending in endings}
    home = path.resolve()
    found: list[Path] = []
    for parent, folders, files in os.walk(path):
        for name in (*folders, *files):
            entry = Path(parent) / name
            if entry.is_symlink():
                if not entry.resolve().is_relative_to(home):
                    raise DeliveryError(f"{entry}: a link that leads out of the folder; copy the file there")
            elif name in files and entry.suffix.lower() in wanted:
                found.append(entry)
    return sorted(found)


def looks_like(path: Path) -> str:
    """Name in a few words what a file seems to be, from its beginning; for messages only."""
    try:
        with path.open("rb") as file:
            return _looks_like(file.read(65_536))
    except (OSError, ValueError):
        return "nothing that can be read"


def wrong_format(path: Path, expected: str) -> DeliveryError:
    """Make the error for a file that is another format than was asked for."""
    return DeliveryError(
        f"{path}: no {expected}: it looks like {looks_like(path)}; check the file and --vendor"
    )


def _json(text: str) -> Any:
    """Parse; ValueError for what JSON allows and no table can hold."""
    value = json.loads(text, object_pairs_hook=_object)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            # Half a surrogate pair is no character: it could be written to no file.
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("half a surrogate pair in a string") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:50]!r} stands twice in one object")
    return made


def _json_fault(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error).split(";")[0]


def _check_density(path: Path, text: str, openers: str, separators: str) -> None:
    parts = sum(text.count(opener) for opener in openers)
    if parts > LIMIT_PARTS or sum(text.count(separator) for separator in separators) > LIMIT_VALUES:
        raise DeliveryError(f"{path}: more than {LIMIT_PARTS:,} records in one file; split it")


def _lines(text: str) -> Iterator[str]:
    """Split at newlines only: ``splitlines`` also splits at characters that JSON strings may hold."""
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin)
        end = len(text) if end < 0 else end
        yield text[begin:end]
        begin = end + 1


def _unpack(path: Path, folder: Path) -> None:
    if path.stat().st_size > LIMIT_BYTES:
        raise DeliveryError(
            f"{path}: a zip of more than {LIMIT_BYTES:,} bytes; unpack it and give the folder"
        )
    if _members(path) > LIMIT_ZIP_FILES:
        raise DeliveryError(
            f"{path}: a zip of more than {LIMIT_ZIP_FILES:,} files; unpack it and give the folder"
        )
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        total = sum(member.file_size for member in members)
        packed = path.stat().st_size
        if total > LIMIT_ZIP_TOTAL_BYTES or total > max(_SMALL_BYTES, LIMIT_ZIP_RATIO * packed):
            raise DeliveryError(f"{path}: a zip that unpacks from {packed:,} to {total:,} bytes: not opened")
        seen: dict[str, str] = {}
        for member in members:
            name = _safe_name(path, member)
            other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
            if other is not name:
                raise DeliveryError(
                    f"{path}: a zip in which {other!r} and {name!r} are one name on some machines"
                )
        for member in members:
            target = folder / _safe_name(path, member)
            target.parent.mkdir(parents=True, exist_ok=True)
            # zipfile stops at the size that the directory says, which was added up above.
            with archive.open(member) as source, target.open("xb") as file:
                while block := source.read(1 << 20):
                    file.write(block)


def _members(path: Path) -> int:
    """Count the entries of a zip's directory by their signature, before anything is made of them."""
    count, tail = 0, b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            count += (tail + block).count(b"PK\x01\x02")
            tail = block[-3:]
    return count


def _safe_name(path: Path, member: zipfile.ZipInfo) -> str:
    """Return a member's name as a relative path with forward slashes."""
    name = member.filename.replace("\\", "/")
    parts = name.split("/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in {0, stat.S_IFREG}:
        raise DeliveryError(f"{path}: a zip with a link or special file, {name[:100]!r}: not opened")
    if name.startswith("/") or ".." in parts or ":" in parts[0] or not PurePosixPath(name).name:
        raise DeliveryError(f"{path}: a zip with a path that leads elsewhere, {name[:100]!r}: not opened")
    if member.flag_bits & 0x1:
        raise DeliveryError(f"{path}: a zip with a password; unpack it and give the folder")
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise DeliveryError(f"{path}: a zip with a rare compression; unpack it and give the folder")
    return name


_MAGIC = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"PK\x03\x04", "a zip"),
    (b"\x1f\x8b", "a gzip file"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "a SQLite database"),
)

# First match wins; each is looked for in the first 64 KiB.
_TEXT = (
    (r"<annotations\b", "CVAT XML"),
    (r"<annotation\b", "Pascal VOC XML"),
    (r"(?i)\A\s*<(!doctype )?html\b", "a web page"),
    (r"\A\s*<", "XML"),
    (r'"source-ref"\s*:', "a SageMaker manifest"),
    (r'"(was_cancelled|to_name|rectanglelabels|from_name)"\s*:', "Label Studio JSON"),
    (r'"(data_row|dataRow|DataRow ID|globalKey)"\s*:', "Labelbox JSON"),
    (r'"(box2d|poly2d|videoName|box3d)"\s*:', "Scalabel / BDD100K JSON"),
    (r'"(categories|category_id|iscrowd)"\s*:', "COCO JSON"),
    (r'"(task_id|hypothesis|callback_url)"\s*:', "Scale JSON"),
    (r"\A\s*[\[{]", "other JSON"),
    (r"\A\s*\d+( -?[\d.e-]+){4}\s", "YOLO text"),
    (r"\A\s*[A-Za-z_]+( -?[\d.e-]+){14}", "KITTI text"),
    (r"\A[^\n,]+(,[^\n,]*)+\n", "CSV"),
)


def _magic(content: bytes) -> str | None:
    return next((what for magic, what in _MAGIC if content.startswith(magic)), None)


def _looks_like(content: bytes) -> str:
    if (what := _magic(content)) is not None:
        return what
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _looks_like_text(content.decode("utf-16", errors="replace"))
    if b"\0" in content[:1000]:
        return "a binary file"
    try:
        content[:65_000].decode()
    except UnicodeDecodeError as error:
        if error.end < min(len(content), 65_000) - 4:  # not just a character cut in two
            return "text in another encoding, or a binary file"
    return _looks_like_text(content.decode(errors="replace"))


def _looks_like_text(text: str) -> str:
    head = text[:65_536].lstrip("\ufeff")
    if not head.strip():
        return "an empty file"
    return next((what for pattern, what in _TEXT if re.search(pattern, head)), "plain text")
