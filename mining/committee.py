"""The committee: which detectors a config names, how the tables know them, and what each can see."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mining import stop
from mining.config import Config
from mining.store import Store, digest

if TYPE_CHECKING:
    from detectors.classes import ClassMap
    from detectors.types import Detector, DetectorSpec

COMMITTEE_VERSION = 1
"""Raise when the same detectors must count as a new committee."""


@dataclass(frozen=True, slots=True)
class Committee:
    """The members as tables know them; found without loading a model."""

    committee_id: str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    thresholds: tuple[float, ...]


def committee_of(config: Config) -> Committee:
    """Identify the committee of a config: readable names, and a digest of weights, settings and class list."""
    from detectors.classes import ClassMap

    classes = ClassMap.load(config.classes_path)
    specs = config.resolved_detectors
    members = member_digests(config)
    names = tuple(config.detector_names)
    content = digest(members, names, config.detect.match_iou, COMMITTEE_VERSION)
    # Names come from people and become file names: letters and digits only, whatever they are in the tables.
    readable = "+".join(re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:24] or "detector" for name in names)[
        :80
    ]
    return Committee(
        committee_id=f"{readable}-{content[:8]}",
        names=names,
        classes=classes.fleet,
        thresholds=tuple(spec.threshold for spec in specs),
    )


def member_digests(config: Config) -> list[str]:
    """Of each member: weights, class list and every setting that changes a prediction, found without loading a model.

    Thresholds are left out: they shape scores, not detections, and a new one must not cost a second inference.
    """
    import detectors
    from detectors.classes import ClassMap

    classes = ClassMap.load(config.classes_path)
    return [detectors.digest_of(spec, classes) for spec in config.resolved_detectors]


def load_members(config: Config) -> list[Detector]:
    """Load every detector of the config."""
    import detectors
    from detectors.classes import ClassMap

    classes = ClassMap.load(config.classes_path)
    with stop.held_back():
        detectors.import_kinds(config.resolved_detectors)
    return [_load(spec, classes) for spec in config.resolved_detectors]


def load_member(config: Config, position: int) -> Detector:
    """Load one detector of the config: the first is the primary."""
    from detectors.classes import ClassMap

    return _load(config.resolved_detectors[position], ClassMap.load(config.classes_path))


def load_alone(config: Config, spec: DetectorSpec) -> Detector:
    """Load a detector that is no member; its classes are its own."""
    return _load(config.resolved(spec), None)


def _load(spec: DetectorSpec, classes: ClassMap | None) -> Detector:
    import detectors

    # A runtime in C++ calls Python back while it converts a network, and takes what is raised there for a fault of the network.
    with stop.held_back():
        return detectors.load(spec, classes)


def weights_digest(config: Config, spec: DetectorSpec) -> str:
    """Of a detector that is no member: its weights and every setting that changes a prediction."""
    import detectors
    from detectors.classes import ClassMap

    return detectors.digest_of(config.resolved(spec), ClassMap.identity(()))


def primary_of(store: Store, committee: Committee) -> dict[str, Any] | None:
    """Say whose errors are looked for: the first member's name, its threshold, and the fleet classes that it can see.

    None where the detect stage has not written down what the committee can see.
    """
    sees = committee_sees(store, committee).get(committee.names[0])
    if sees is None:
        return None
    classes = [name for name, seen in zip(committee.classes, sees, strict=True) if seen]
    return {"detector": committee.names[0], "threshold": committee.thresholds[0], "classes": classes}


def committee_sees(store: Store, committee: Committee) -> dict[str, list[bool]]:
    """Which fleet classes each member can see, as the detect stage wrote it down."""
    return sees_of(store, committee.committee_id)


def sees_of(store: Store, committee_id: str) -> dict[str, list[bool]]:
    """As ``committee_sees``, of a committee that the config need not name any more."""
    for marker in store.markers("detect").values():
        if marker["committee_id"] == committee_id:
            return dict(marker["sees"])
    return {}
