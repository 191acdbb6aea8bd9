"""Config files and class lists: whatever they hold, they load, or one clear line says why not."""

from __future__ import annotations

import itertools
import json
import math
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from detectors.classes import ClassMap
from detectors.types import DetectorError, DetectorSpec
from mining import config
from mining.committee import committee_of
from mining.config import Config
from mining.text import one_line
from mining.types import UsageError

GOOD: dict[str, Any] = {"footage": {"paths": ["drives"]}, "detector": [{"weights": "a.pt"}]}
NIGHTLY = config.shipped("nightly.toml").read_text()

HUGE = "a number of five thousand digits"

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(["", "~", "~nobody-of-that-name/x", "a\0b", "x" * 5000, "s3://", "s3://b/k", "\x1b[2J\n", "../..", "{", "nan"]),
)  # fmt: skip
scalars = st.one_of(
    st.booleans(), st.integers(), st.sampled_from([0, -1, 1, 2**31, 2**63, 10**30, HUGE]), st.floats(),
    st.sampled_from([math.inf, -math.inf, math.nan, 1e308, 5e-324]), texts,
    st.sampled_from([datetime(2026, 3, 1, tzinfo=UTC), datetime(1, 1, 1), date(9999, 12, 31), time(23, 59, 59)]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def known_keys(section: Any = Config, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of the file, section by section; of a list of tables, its first entry's."""
    if section is DetectorSpec:
        return [(*before, name) for name in DetectorSpec.__dataclass_fields__]
    keys = []
    for name, field in section.model_fields.items():
        inner = [one for one in (field.annotation, *get_args(field.annotation)) if isinstance(one, type)]
        nested = next((one for one in inner if one is DetectorSpec or issubclass(one, BaseModel)), None)
        here = (*before, name)
        keys.append(here)
        if nested is not None:
            keys += known_keys(nested, (*here, "0") if field.annotation is not nested and "list" in str(field.annotation) else here)  # fmt: skip
    return [key for key in keys if key != ("folder",)]


def toml(value: Any) -> str:
    """Write a value as TOML, in one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(value)
    if value == HUGE:
        return "0x" + "f" * 5000
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(key)} = {toml(item)}' for key, item in value.items())}}}"
    return str(value.isoformat())


def put(content: dict[str, Any], key: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Set a key of a copy, where the sections on the way hold nothing else."""
    changed = json.loads(json.dumps(content))
    target = changed
    for part, following in itertools.pairwise(key):
        empty: Any = [{}] if following == "0" else {}
        target = target[0] if part == "0" else target.setdefault(part, empty)
    target[key[-1]] = value
    return changed


def loaded_or_one_line(folder: Path, content: str | bytes, overrides: tuple[str, ...] = ()) -> Config | None:
    path = folder / "night.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    try:
        found = config.load(path, overrides)
    except UsageError as error:
        _one_clear_line(str(error))
        return None
    try:  # what every command does with it at once
        assert found.store_path.is_absolute()
        assert found.footage_paths
        assert found.classes_path
        assert len(found.resolved_detectors) == len(found.detector_names)
        committee_of(found)
    except (UsageError, DetectorError) as error:
        _one_clear_line(
            one_line(str(error))
        )  # with the config's own paths in it; shown as the command line shows it
    return found


def _one_clear_line(text: str) -> None:
    assert 0 < len(text) < 2000
    assert text.replace("\t", " ").isprintable()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a = " + "[" * 20_000, "nested too deeply"),
        ("a = " + "{a=" * 20_000, "nested too deeply"),
        ("a = " + "9" * 5000, "not valid TOML: Exceeds the limit"),
        ("a = 0x" + "f" * 5000, "Exceeds the limit"),
        ("# a\n" * 300_000, "larger than 1000000 bytes"),
        ('"a\\nb" = 1', "unknown key 'a\\\\nb'"),
        ('["\\u001b[2J"]', "unknown key '\\\\x1b\\[2J'"),
        (b"\xff\xfe[\0", "cannot be read"),
    ],
    ids=["arrays", "tables", "digits", "hex", "large", "newline", "escape", "utf-16"],
)
def test_a_hostile_file_is_one_line(content: str | bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        config.load(_written(tmp_path, content))
    _one_clear_line(str(caught.value))


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    text = "\n".join(f"{name} = {toml(item)}" for name, item in GOOD.items())
    assert config.load(_written(tmp_path, "\ufeff" + text)).footage.paths == ["drives"]
    assert ClassMap.load(_written(tmp_path, '\ufefffleet = ["car"]')).fleet == ("car",)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("detector.²=1", "not a position"),
        ("select.where=" + "[" * 20_000, "nested too deeply"),
        ("select.budget=" + "9" * 5000, "Exceeds the limit|integer"),
        ("store=\udcff", "surrogate"),
        ("a." * 5000 + "b=1", "nested too deeply|unknown key"),
    ],
)
def test_a_hostile_override_is_one_line(override: str, words: str, tmp_path: Path) -> None:
    text = "\n".join(f"{name} = {toml(item)}" for name, item in GOOD.items())
    with pytest.raises(UsageError, match=words) as caught:
        config.load(_written(tmp_path, text), (override,))
    _one_clear_line(str(caught.value))


@given(content=st.binary(max_size=100) | texts)
def test_any_file_loads_or_is_one_line(
    content: str | bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    loaded_or_one_line(tmp_path_factory.getbasetemp(), content)


@settings(max_examples=6 * settings().max_examples)
@given(key=st.sampled_from(known_keys()), value=values)
def test_any_value_in_any_key_loads_or_is_one_line(
    key: tuple[str, ...], value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    changed = put(GOOD, key, value)
    text = "\n".join(f"{name} = {toml(item)}" for name, item in changed.items())
    loaded_or_one_line(tmp_path_factory.getbasetemp(), text)


@given(data=st.data())
def test_a_broken_nightly_config_loads_or_is_one_line(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = NIGHTLY
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        upto = min(len(text), at + data.draw(st.integers(0, 40)))
        text = text[:at] + data.draw(texts | st.sampled_from(["[", "]", '"', "'''", "=", "\n", "{", "#", "1e999"])) + text[upto:]  # fmt: skip
    loaded_or_one_line(tmp_path_factory.getbasetemp(), text)


@given(
    overrides=st.lists(
        st.builds("{}={}".format, st.sampled_from([".".join(key) for key in known_keys()]) | texts, scalars | texts)
        | st.text(max_size=20),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_any_override_is_taken_or_is_one_line(
    overrides: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = "\n".join(f"{name} = {toml(item)}" for name, item in GOOD.items())
    loaded_or_one_line(tmp_path_factory.getbasetemp(), text, tuple(overrides))


def test_a_path_of_a_user_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    text = "\n".join(f"{name} = {toml(item)}" for name, item in GOOD.items())
    with pytest.raises(UsageError, match="nobody-of-that-name"):
        _ = config.load(_written(tmp_path, 'store = "~nobody-of-that-name/store"\n' + text)).store_path


def test_a_config_that_never_ends_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "night.toml"
    with path.open("wb") as file:
        file.truncate(3_000_000_000)
    with pytest.raises(UsageError, match=r"night\.toml: cannot be read: larger than"):
        config.load(path)


# Class lists


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("fleet = " + "[" * 20_000, "nested too deeply"),
        ("fleet = " + "9" * 5000, "not TOML"),
        ("fleet = [0x" + "f" * 5000 + "]", "names only, got int"),
        ('fleet = ["car"]\n[names]\nx = 0x' + "f" * 5000, "maps to int"),
        (f'fleet = ["{"x" * 5000}", "{"x" * 5000}"]', "twice"),
        (f'fleet = ["car"]\n{"k" * 5000} = 1', "unknown key"),
    ],
    ids=["deep", "digits", "hex", "target", "long", "key"],
)
def test_a_hostile_class_list_is_one_line(content: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=words) as caught:
        ClassMap.load(_written(tmp_path, content))
    _one_clear_line(str(caught.value))


@given(content=st.binary(max_size=100) | texts)
def test_any_class_list_loads_or_is_one_line(
    content: str | bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _class_list(tmp_path_factory.getbasetemp(), content)


@given(
    fleet=values | st.lists(texts, max_size=4),
    names=values | st.dictionaries(texts, texts | scalars, max_size=4),
)
def test_any_values_in_a_class_list_load_or_are_one_line(
    fleet: Any, names: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = _class_list(tmp_path_factory.getbasetemp(), f"fleet = {toml(fleet)}\nnames = {toml(names)}")
    if found is not None:
        assert set(found.table.values()) <= set(found.fleet)
        assert found.digest()


def test_a_very_long_class_list_takes_no_time(tmp_path: Path) -> None:
    fleet = [f"class {n}" for n in range(20_000)]
    found = _class_list(tmp_path, f"fleet = {toml(fleet)}")
    assert found is not None
    assert len(found.fleet) == len(fleet)


def _class_list(folder: Path, content: str | bytes) -> ClassMap | None:
    try:
        return ClassMap.load(_written(folder, content))
    except DetectorError as error:
        _one_clear_line(str(error))
        return None


def _written(folder: Path, content: str | bytes) -> Path:
    path = folder / "any.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
