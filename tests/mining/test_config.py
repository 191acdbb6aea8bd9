"""A config is checked before anything runs, and says in one line what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mining import config
from mining.types import UsageError

GOOD = """
[footage]
paths = ["drives"]
[[detector]]
weights = "a.pt"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "night.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("paths", "path"), ["footage.path", "did you mean 'paths'"]),
        (GOOD + "treshold = 0.3", ["detector.0.treshold", "did you mean 'threshold'"]),
        (GOOD + "[slect]\nbudget = 3", ["slect", "did you mean 'select'"]),
        (GOOD + "[select]\nbudget = 'many'", ["select.budget", "many", "integer"]),
        (GOOD + "[select]\nbudget = 0", ["select.budget", "greater than or equal to 1"]),
        (GOOD + "[footage.x]", ["footage.x"]),
        (GOOD + "[export]\nimage_format = 'gif'", ["export.image_format", "gif", "jpeg"]),
        (GOOD + "floor = 0.2", ["floor 0.2", "threshold / 3"]),
        (GOOD.replace("[[", "sample_hz = 2.0\nevery = 5\n[["), ["sample_hz and every exclude each other"]),
        (GOOD + '[[detector]]\nweights = "b/a.pt"', ["two detectors are called 'a'"]),
        ('[[detector]]\nweights = "a.pt"', ["'footage' is missing"]),
        (GOOD + "[score]\nhardness = { entropy_max = -1.0 }", ["weights must not be negative"]),
        (GOOD + "[select]\nmin_gap_s = inf", ["select.min_gap_s", "finite"]),
        (GOOD + "[score]\nhardness = { entropy_max = nan }", ["score.hardness.entropy_max", "finite"]),
        (GOOD + 'threshold = "0.3"', ["detector.0.threshold", "valid number"]),
        (GOOD + "image_size_px = 0", ["image_size_px is 0"]),
        (GOOD + 'precision = "half"', ["detector.0.precision", "'auto', 'fp32', 'bf16' or 'fp16'", "half"]),
        ("[footage", ["not valid TOML"]),
        ("folder = 'x'" + GOOD, ["unknown key 'folder'"]),
        (
            GOOD + "[[select.quota]]\nby = 'camera'\nmin_shar = 0.4",
            ["'select.quota.0.min_shar'", "did you mean 'min_share'?"],
        ),
    ],
)
def test_a_mistake_is_one_line_with_the_key_and_the_nearest_valid_key(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        config.load(write(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    assert "night.toml" in message
    for word in words:
        assert word in message


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such config file"):
        config.load(tmp_path / "none.toml")


def test_overrides_reach_every_level_and_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    loaded = config.load(
        path, ("select.budget=7", "detector.0.threshold=0.5", "store=elsewhere", "select.where=a > 1")
    )
    assert (loaded.select.budget, loaded.detector[0].threshold, loaded.select.where) == (7, 0.5, "a > 1")
    assert loaded.store_path == tmp_path / "elsewhere"
    for wrong, words in [
        ("select.budgte=7", "did you mean 'budget'"),
        ("select.budget", "key.subkey=value"),
        ("detector.3.name=x", "not a position"),
        ("store.x=1", "store is .* valid string"),
        ("footage.paths.0.x=1", "not keys"),
    ]:
        with pytest.raises(UsageError, match=words):
            config.load(path, (wrong,))


def test_relative_paths_start_at_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "a.pt").touch()
    loaded = config.load(write(tmp_path, GOOD.replace('"drives"', '"drives", "@list.txt"')))
    assert loaded.footage_paths == [str(tmp_path / "drives"), f"@{tmp_path / 'list.txt'}"]
    assert loaded.resolved_detectors[0].weights == str(tmp_path / "a.pt")
    assert loaded.footage.effective_sample_hz == config.DEFAULT_SAMPLE_HZ


def test_an_official_name_without_a_file_stays_a_name(tmp_path: Path) -> None:
    assert config.load(write(tmp_path, GOOD)).resolved_detectors[0].weights == "a.pt"


@pytest.mark.parametrize("name", ["demo.toml", "nightly.toml"])
def test_the_configs_that_ship_are_valid(name: str) -> None:
    config.load(config.shipped(name))


def test_nightly_shows_every_key_with_its_default() -> None:
    """The commented config is the reference that people copy: it must not drift from the code."""
    import tomllib

    shown = tomllib.loads(config.shipped("nightly.toml").read_text())
    defaults = config.Config.model_validate_json(
        json.dumps({"footage": {"paths": ["x"]}, "detector": [{"weights": "x.pt"}]})
    )
    for section in ("detect", "score", "scenes", "select", "export"):
        keys = json.loads(getattr(defaults, section).model_dump_json())
        # TOML has no null: a key that is absent by default stands in a comment.
        absent = {key for key, value in keys.items() if value is None}
        assert set(shown[section]) | absent == set(keys), section
        assert all(f"# {key} = " in config.shipped("nightly.toml").read_text() for key in absent)
    for section in ("detect", "scenes"):
        assert shown[section] == json.loads(getattr(defaults, section).model_dump_json())


def test_schema_names_every_key_with_its_text() -> None:
    schema = config.schema()
    assert "folder" not in schema["properties"]
    select = schema["$defs"]["SelectConfig"]
    assert select["additionalProperties"] is False
    assert "random" in select["properties"]["random_share"]["description"]
    assert "threshold" in schema["$defs"]["DetectorSpec"]["properties"]
