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

from mining.vendors.guess import looks_like_text, magic
from mining.vendors.labels import DeliveryError

LIMIT_BYTES = 500_000_000
"""Of one file."""
LIMIT_DEPTH = 200
"""Of nested elements of an XML file, and of folders; JSON's is the interpreter's recursion limit."""
LIMIT_PARTS = 4_000_000
"""Objects, lists, elements or lines of one file: a text of brackets alone takes twenty times its size in memory."""
LIMIT_VALUES = 12_000_000
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
        if magic(content):
            raise DeliveryError(f"{path}: {magic(content)}; give the label file") from None
        raise DeliveryError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    if "\0" in text:
        wide = len(content) > 1 and 0 in content[:2] and any(content[:2])
        what = "UTF-16 without a byte order mark" if wide else "it holds NUL bytes"
        raise DeliveryError(f"{path}: no text ({what}); save it as UTF-8")
    return text


def read_lines(path: Path, separators: str) -> str:
    """Read text of a record a line, whose values stand between ``separators``."""
    text = read_text(path)
    _check_density(path, text, "\n", separators)
    return text


def read_json(path: Path) -> Any:
    """Read one JSON value. NaN and Infinity come out as such floats; a key that stands twice is refused."""
    return _json_value(path, _json_text(path))


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, value) for each line that is not blank; a line that does not parse is a ``BadLine``."""
    yield from _json_lines(path, _json_text(path))


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
    text = _json_text(path)
    if re.match(r"\s*\[", text):
        yield from enumerate(_json_value(path, text), start=1)
        return
    whole = parse_json(text)
    if isinstance(whole, BadLine):
        yield from _json_lines(path, text)
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
        raise DeliveryError(f"{path}: no XML ({error}); it looks like {looks_like_text(text)}") from None
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
        try:
            yield folder
        except DeliveryError as error:  # the folder is gone when somebody reads of it
            raise DeliveryError(str(error).replace(f"{folder}/", f"{path}: ")) from None


def files_of(path: Path, endings: Collection[str] | None = None) -> list[Path]:
    """List the files below a folder, sorted, where wanted those with one of these endings (``.txt``); a file is listed as
    it is.

    Links within the folder are left out, because what they lead to is listed itself; one that leads out is refused.
    """
    if not path.exists():
        raise DeliveryError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    wanted = None if endings is None else {ending.lower() for ending in endings}
    home = path.resolve()
    found: list[Path] = []
    # os.walk calls itself for each folder within a folder; so this goes a level at a time.
    level = [path]
    for _ in range(LIMIT_DEPTH):
        below: list[Path] = []
        for entry in (entry for folder in level for entry in _entries(folder)):
            if entry.is_symlink():
                if not Path(os.path.realpath(entry)).is_relative_to(home):
                    raise DeliveryError(f"{entry}: a link that leads out of the folder; copy the file there")
            elif entry.is_dir():
                below.append(entry)
            elif wanted is None or entry.suffix.lower() in wanted:
                found.append(entry)
        level = below
    if level:
        raise DeliveryError(f"{path}: folders nested deeper than {LIMIT_DEPTH}: give the one with the labels")
    return sorted(found)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DeliveryError(f"{folder}: cannot be read: {error.strerror}") from None


def _json_text(path: Path) -> str:
    text = read_text(path)
    _check_density(path, text, "{[", ",")
    return text


def _json_value(path: Path, text: str) -> Any:
    if not text or text.isspace():
        raise DeliveryError(f"{path}: empty")
    try:
        return _json(text)
    except json.JSONDecodeError as error:
        raise DeliveryError(
            f"{path}: no JSON (line {error.lineno}: {error.msg}); it looks like {looks_like_text(text)}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DeliveryError(f"{path}: JSON that cannot be read: {_json_fault(error)}") from None


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    _check_density(path, text, "\n", "")
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
                f"{path}: more than {LIMIT_BAD_LINES:,} lines are no JSON; it looks like {looks_like_text(text)}"
            )
        yield number, value
    if not any_json:
        raise DeliveryError(f"{path}: no line is JSON; it looks like {looks_like_text(text)}")


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
    if len(parts) > LIMIT_DEPTH:
        raise DeliveryError(f"{path}: a zip of folders nested deeper than {LIMIT_DEPTH}: not opened")
    if member.flag_bits & 0x1:
        raise DeliveryError(f"{path}: a zip with a password; unpack it and give the folder")
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise DeliveryError(f"{path}: a zip with a rare compression; unpack it and give the folder")
    return name
