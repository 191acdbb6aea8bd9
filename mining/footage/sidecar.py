"""The optional file beside a recording that says what the footage itself does not: NAME.toml or NAME.json.

    drive_id = "2026-05-04-a"
    vehicle_id = "car-7"
    camera = "front"
    started_at = 2026-05-04T21:15:00Z      # without a zone it is taken as UTC
    frame_rate_hz = 10                     # of an image folder
    [tags]
    weather = "rain"

It lies beside a video (``a.mp4``: ``a.toml``) and beside an image folder (``seq/``: ``seq.toml``).
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any

from mining.footage.source import FootageError, Source

COMPANION_ENDINGS = {"sidecar": (".toml", ".json"), "telemetry": (".csv", ".parquet")}
_MAX_BYTES = 1_000_000
_MAX_TAGS = 256
_NAME_CHARACTERS = 256
_TAG_CHARACTERS = 1024
_KEYS = ("drive_id", "vehicle_id", "camera", "started_at", "frame_rate_hz", "tags")
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_MAX_RATE_HZ = 100_000.0


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a sidecar says; None where it says nothing."""

    drive_id: str | None = None
    vehicle_id: str | None = None
    camera: str | None = None
    started_at: datetime | None = None
    """UTC time of the first frame."""
    frame_rate_hz: float | None = None
    tags: dict[str, str] = field(default_factory=dict)


def companions(source: Source) -> dict[str, str]:
    """Files that lie beside a recording: paths by kind, ``sidecar`` and ``telemetry``.

    Where one kind lies there with both endings, the other file is ``second sidecar`` or ``second telemetry``; reading
    either of the two is then refused.
    """
    stem = os.path.splitext(source.path)[0] if source.kind == "video" else source.path
    found: dict[str, str] = {}
    for kind, endings in COMPANION_ENDINGS.items():
        for path in (stem + ending for ending in endings):
            if os.path.isfile(path):
                found[f"second {kind}" if kind in found else kind] = path
    return found


def refuse_twin(path: str) -> None:
    """Raise FootageError where a file of the same kind lies there with the other ending: which one counts?"""
    stem, own = os.path.splitext(path)
    for endings in COMPANION_ENDINGS.values():
        twins = [stem + e for e in endings if e != own and own in endings and os.path.isfile(stem + e)]
        if twins:
            raise FootageError(f"{os.path.basename(twins[0])} lies beside it; keep one of the two")


def find_sidecar(source: Source) -> Sidecar:
    """Read the sidecar beside a recording; an empty one where there is none. Raises FootageError as load_sidecar."""
    path = companions(source).get("sidecar")
    return Sidecar() if path is None else load_sidecar(path)


def load_sidecar(path: str) -> Sidecar:
    """Read one sidecar. Raises FootageError with one line that names the file and what is wrong."""
    name = os.path.basename(path)
    try:
        refuse_twin(path)
        return _checked(_parsed(path))
    except FootageError as error:
        raise FootageError(f"sidecar {name}: {error}") from None


def _parsed(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise FootageError(f"cannot be read: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise FootageError(f"larger than {_MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
        content = (
            tomllib.loads(text) if path.endswith(".toml") else json.loads(text, object_pairs_hook=_distinct)
        )
    except UnicodeDecodeError:
        raise FootageError("not UTF-8 text") from None
    except RecursionError:
        raise FootageError("nested too deeply") from None
    except ValueError as error:  # what both parsers raise, and Python for numbers of thousands of digits
        raise FootageError(f"cannot be parsed: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise FootageError("must hold keys and values, such as drive_id")
    return content


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object, as TOML does: a key that stands there twice says two things."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise FootageError(f"{_brief(twice)} stands there twice")
    return content


def _checked(content: dict[str, Any]) -> Sidecar:
    unknown = [key for key in content if key not in _KEYS]
    if unknown:
        raise FootageError(f"unknown key {_brief(unknown[0])}; known are {', '.join(_KEYS)}")
    rate = content.get("frame_rate_hz")
    if rate is not None:
        _require(
            isinstance(rate, int | float) and not isinstance(rate, bool), "frame_rate_hz", "a number", rate
        )
        _require(0 < rate <= _MAX_RATE_HZ, "frame_rate_hz", f"above 0 and at most {_MAX_RATE_HZ:g}", rate)
    return Sidecar(
        drive_id=_name(content, "drive_id"),
        vehicle_id=_name(content, "vehicle_id"),
        camera=_name(content, "camera"),
        started_at=_moment(content.get("started_at")),
        frame_rate_hz=None if rate is None else float(rate),
        tags=_tags(content.get("tags", {})),
    )


def _name(content: dict[str, Any], key: str) -> str | None:
    value = content.get(key)
    if value is None:
        return None
    _require(isinstance(value, str), key, "text in quotes", value)
    _require(0 < len(value) <= _NAME_CHARACTERS, key, f"1 to {_NAME_CHARACTERS} characters long", value)
    _require(_is_storable(value), key, "valid text without NUL", value)
    return str(value)


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    wanted = "a date and time such as 2026-05-04T21:15:00Z"
    _require(isinstance(moment, datetime), "started_at", wanted, value)
    assert isinstance(moment, datetime)
    try:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (OverflowError, ValueError):
        moment = datetime.min.replace(tzinfo=UTC)
    _require(_EARLIEST <= moment <= _LATEST, "started_at", "between 1970 and 2200", value)
    return moment


def _tags(value: Any) -> dict[str, str]:
    _require(isinstance(value, dict), "tags", 'a table such as {weather = "rain"}', value)
    _require(len(value) <= _MAX_TAGS, "tags", f"at most {_MAX_TAGS} entries", f"{len(value)} entries")
    tags = {}
    for key, item in value.items():
        _require(0 < len(key) <= _NAME_CHARACTERS and _is_storable(key), "tags", "named with valid text", key)
        _require(
            isinstance(item, str | int | float | datetime | date | time), f"tags.{_brief(key)}", "plain", item
        )
        text = _tag_text(item)
        _require(
            len(text) <= _TAG_CHARACTERS, f"tags.{_brief(key)}", f"at most {_TAG_CHARACTERS} characters", item
        )
        _require(_is_storable(text), f"tags.{_brief(key)}", "valid text without NUL", item)
        tags[key] = text
    return tags


def _tag_text(item: Any) -> str:
    """Tags are text in the tables: true and false as in TOML, 3 as "3", times as ISO 8601."""
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, int) and item.bit_length() > 64:
        return f"{float(item) if item.bit_length() < 1000 else math.inf:g}"
    return item.isoformat() if isinstance(item, date | time) else str(item)


def _is_storable(text: str) -> bool:
    """Tables hold Unicode: no NUL, and no half of a surrogate pair (JSON can spell one)."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _require(condition: bool, key: str, wanted: str, got: Any) -> None:
    if not condition:
        raise FootageError(f"{key} must be {wanted}, got {_brief(got)}")


def _brief(value: Any) -> str:
    """A value in one short printable line."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        text = type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."
