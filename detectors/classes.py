"""Each model's class names -> the fleet's class list, so that detectors with different lists can be compared.

A detector that was taught ``person`` and one that was taught ``pedestrian`` must vote on the same thing. The fleet's
list is configuration (``configs/classes.toml``); a model class that maps to nothing does not exist for the fleet, and a
fleet class that no model class maps to is one that this model cannot see.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectors.types import DetectorError

# The order in which every model trained on COCO's 80 classes puts them.
COCO_NAMES = tuple(
    """person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|parking meter|
    bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|handbag|tie|suitcase|frisbee|skis|
    snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|tennis racket|bottle|wine glass|cup|
    fork|knife|spoon|bowl|banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|
    potted plant|bed|dining table|toilet|tv|laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|
    refrigerator|book|clock|vase|scissors|teddy bear|hair drier|toothbrush""".replace("\n    ", "").split("|")
)


def normalise(name: str) -> str:
    """Lower case, words joined by one underscore: ``Traffic-Light`` and ``traffic light`` are the same class."""
    return re.sub(r"[\s\-_]+", "_", name.strip().lower())


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The fleet's classes, and which model class name stands for which of them."""

    fleet: tuple[str, ...]
    """The columns of every ``class_scores`` array, in this order."""
    table: Mapping[str, str]
    """Normalised model class name -> fleet class; a name that is absent maps to nothing."""

    @classmethod
    def load(cls, path: str | Path) -> ClassMap:
        """Read a class list such as ``configs/classes.toml``.

        Raises:
            DetectorError: the file is missing, is no TOML, or contradicts itself; one line.
        """
        try:
            content = tomllib.loads(Path(path).expanduser().read_text(encoding="utf-8-sig"))
        except (OSError, RuntimeError) as error:
            if isinstance(error, RecursionError):
                raise DetectorError(f"class list {path} is nested too deeply") from None
            raise DetectorError(
                f"class list {path} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from None
        except ValueError as error:  # what the parser raises, and Python for numbers of thousands of digits
            raise DetectorError(f"class list {path} is not TOML: {' '.join(str(error).split())}") from None
        unknown = sorted(set(content) - {"fleet", "names"})
        if unknown:
            raise DetectorError(
                f"class list {path} has an unknown key {_shown(unknown[0])}; the keys are 'fleet' and 'names'"
            )
        return cls.of(content.get("fleet"), content.get("names", {}), str(path))

    @classmethod
    def of(cls, fleet: Any, names: Any, source: str = "class list") -> ClassMap:
        """Build the map from a list of fleet classes and a table of names, checking both.

        Every fleet class stands for itself unless the table says otherwise; ``""`` maps a name to nothing.
        """
        if not isinstance(fleet, Sequence) or isinstance(fleet, str) or not fleet:
            raise DetectorError(f"{source}: 'fleet' must be a list of at least one class name")
        if not all(isinstance(name, str) and name.strip() for name in fleet):
            wrong = next(name for name in fleet if not isinstance(name, str) or not name.strip())
            raise DetectorError(f"{source}: 'fleet' must hold names only, got {_shown(wrong)}")
        listed = [name for name in fleet if "," in name]
        if listed:
            raise DetectorError(f"{source}: 'fleet' name {_shown(listed[0])} must not hold a comma")
        count = Counter(map(normalise, fleet))
        repeated = [name for name in fleet if count[normalise(name)] > 1]
        if repeated:
            raise DetectorError(f"{source}: 'fleet' names {_shown(repeated[0])} twice")
        if not isinstance(names, Mapping):
            raise DetectorError(f"{source}: 'names' must be a table of name = \"fleet class\"")
        fleet_by_normal_name = {normalise(name): name for name in fleet}
        table = dict(fleet_by_normal_name)
        given: dict[str, str] = {}
        for name, target in names.items():
            key = normalise(name)
            if key in given:
                raise DetectorError(
                    f"{source}: {_shown(given[key])} and {_shown(name)} are the same name; keep one"
                )
            given[key] = name
            if target == "":
                table.pop(key, None)
            elif not isinstance(target, str) or normalise(target) not in fleet_by_normal_name:
                near = _nearest(target, fleet) if isinstance(target, str) else ""
                raise DetectorError(
                    f"{source}: {_shown(name)} maps to {_shown(target)}, which is not in 'fleet'{near}"
                )
            else:
                table[key] = fleet_by_normal_name[normalise(target)]
        return cls(tuple(fleet), table)

    @classmethod
    def identity(cls, names: Sequence[str]) -> ClassMap:
        """Take a model's own names for the fleet's list (names that differ only in case or spacing are one class)."""
        fleet: dict[str, str] = {}
        for name in names:
            fleet.setdefault(normalise(name), name)
        return cls(tuple(fleet.values()), fleet)

    def columns(self, names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Find, for each fleet class, the indices of the model's classes that stand for it; empty where unseen.

        The fleet score of a class is the largest score of its model classes.

        Raises:
            DetectorError: none of ``names`` maps to a fleet class.
        """
        targets = [self.table.get(normalise(name)) for name in names]
        columns = tuple(tuple(i for i, t in enumerate(targets) if t == fleet) for fleet in self.fleet)
        if not any(columns):
            shown = ", ".join(repr(name) for name in names[:12]) + (", ..." if len(names) > 12 else "")
            pairs = [(name, _closest(name, tuple(self.table))) for name in names]
            near = ", ".join(f"{name!r} looks like {known!r}" for name, known in pairs[:5] if known)
            raise DetectorError(
                f"none of the model's classes ({shown}) maps to a fleet class ({', '.join(self.fleet)}); "
                f"add them to [names] of the class list{f' ({near})' if near else ''}"
            )
        return columns

    def digest(self) -> str:
        """Hexadecimal sha256 of the list and the table; comments and order of the table do not count."""
        content = json.dumps([list(self.fleet), sorted(self.table.items())], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()


def _closest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that is spelt most like this one."""
    return next(iter(difflib.get_close_matches(normalise(name), known, n=1, cutoff=0.6)), None)


def _nearest(name: str, known: Sequence[str]) -> str:
    """Phrase a suggestion, or name what there is."""
    closest = _closest(name[:100], known)
    if closest:
        return f"; did you mean {_shown(closest)}?"
    return f" ({', '.join(_shown(one) for one in known[:40])}{', ...' if len(known) > 40 else ''})"


def _shown(value: Any) -> str:
    """Show a value of the file in a few printable characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        text = type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."
