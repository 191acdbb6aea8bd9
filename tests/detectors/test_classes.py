"""Model classes onto fleet classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.classes import COCO_NAMES, ClassMap, normalise
from detectors.types import DetectorError
from tests.detectors.helpers import FLEET


def names_by_fleet_class(classes: ClassMap, names: tuple[str, ...]) -> dict[str, set[str]]:
    columns = classes.columns(names)
    return {fleet: {names[i] for i in group} for fleet, group in zip(classes.fleet, columns, strict=True)}


def test_coco(fleet: ClassMap) -> None:
    assert len(COCO_NAMES) == len(set(COCO_NAMES)) == 80
    assert (COCO_NAMES[0], COCO_NAMES[11], COCO_NAMES[79]) == ("person", "stop sign", "toothbrush")
    found = names_by_fleet_class(fleet, COCO_NAMES)
    assert found["pedestrian"] == {"person"}
    assert found["two_wheeler"] == {"bicycle", "motorcycle"}
    assert found["traffic_light"] == {"traffic light"}
    assert len(found["animal"]) == 10
    assert all(found.values())
    mapped = set.union(*found.values())
    assert not mapped & {"boat", "airplane", "chair", "toothbrush"}


def test_coco_names_are_those_of_ultralytics() -> None:
    import yaml
    from ultralytics.utils import ROOT

    names = yaml.safe_load((ROOT / "cfg" / "datasets" / "coco.yaml").read_text())["names"]
    assert tuple(names[i] for i in range(80)) == COCO_NAMES


def test_weather_and_demo_detectors_share_their_classes_with_coco(fleet: ClassMap) -> None:
    weather = names_by_fleet_class(fleet, ("person", "car", "two_wheeler", "bus", "truck"))
    demo = names_by_fleet_class(fleet, ("car", "truck", "bus", "pedestrian", "cyclist", "animal"))
    for shared in ("car", "truck", "bus", "pedestrian", "two_wheeler"):
        assert weather[shared]
        assert demo[shared]
    assert not weather["animal"]
    assert demo["animal"]


@pytest.mark.parametrize("name", ["Traffic Light", "traffic-light", " TRAFFIC_LIGHT ", "traffic  light"])
def test_spelling_does_not_matter(fleet: ClassMap, name: str) -> None:
    assert fleet.columns([name])[fleet.fleet.index("traffic_light")] == (0,)


def test_columns_keep_the_fleets_order_and_every_index() -> None:
    classes = ClassMap.of(["b", "a"], {"x": "a", "y": "a", "z": ""})
    assert classes.columns(["x", "b", "y", "z", "a"]) == ((1,), (0, 2, 4))


def test_an_empty_target_hides_even_a_fleet_name() -> None:
    assert ClassMap.of(["car", "bus"], {"car": ""}).columns(["car", "bus"]) == ((), (1,))


@given(st.lists(st.text(min_size=1), min_size=1, unique_by=normalise))
def test_identity_keeps_every_class(names: list[str]) -> None:
    classes = ClassMap.identity(names)
    assert classes.fleet == tuple(names)
    assert classes.columns(names) == tuple((i,) for i in range(len(names)))


def test_nothing_maps(fleet: ClassMap) -> None:
    with pytest.raises(DetectorError) as caught:
        fleet.columns(["vehicles", "chair"])
    message = str(caught.value)
    assert "\n" not in message
    assert "'vehicles' looks like 'vehicle'" in message
    assert "two_wheeler" in message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'fleet' must be a list"),
        ("fleet = []", "'fleet' must be a list"),
        ("fleet = 'car'", "'fleet' must be a list"),
        ("fleet = [1]", "names only"),
        ("fleet = ['car', 'Car']", "twice"),
        ("fleet = ['car']\n[names]\nauto = 'cars'", "'auto' maps to 'cars'.*did you mean 'car'"),
        ("fleet = ['car']\n[names]\nauto = 3", "'auto' maps to 3"),
        ("fleet = ['car']\n[names]\n'a b' = 'car'\na_b = 'car'", "same name"),
        ("fleet = ['car']\nnames = 3", "must be a table"),
        ("fleet = ['car']\n[name]\nauto = 'car'", "unknown key 'name'"),
        ("fleet = [", "not TOML"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "classes.toml"
    path.write_text(text)
    with pytest.raises(DetectorError, match=complaint) as caught:
        ClassMap.load(path)
    assert "\n" not in str(caught.value)
    assert "classes.toml" in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="cannot be read"):
        ClassMap.load(tmp_path / "nothing.toml")


def test_digest_depends_on_the_content_alone(tmp_path: Path, fleet: ClassMap) -> None:
    text = FLEET.read_text()
    (tmp_path / "a.toml").write_text("# another comment\n" + text)
    (tmp_path / "b.toml").write_text(text.replace('"van" = "car"', '"van" = "truck"'))
    assert ClassMap.load(tmp_path / "a.toml").digest() == fleet.digest()
    assert ClassMap.load(tmp_path / "b.toml").digest() != fleet.digest()
