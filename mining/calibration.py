"""The calibration file: what scores of each detector are worth, and how difficult each class is, as labels showed.

``tools/measure_signals.py --write-calibration`` makes it, ``score.calibration`` in the config names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mining.signals.calibration import ScoreCalibration, difficulty_weights
from mining.store import digest
from mining.types import UsageError

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was learned from a labelled image set."""

    detectors: Mapping[str, ScoreCalibration]
    """By detector digest: scores of other weights or settings are worth something else."""
    difficulty: Mapping[str, float]
    """By fleet class, 0..1, of the primary; classes without labelled objects are absent."""
    source: str
    """Which labels, for people."""

    @property
    def digest(self) -> str:
        """Hexadecimal digest of the content."""
        return digest(self._content())

    def of_members(self, digests: Sequence[str], names: Sequence[str]) -> list[ScoreCalibration]:
        """One a member, in order.

        Raises:
            UsageError: a member that the file does not know.
        """
        for name, member in zip(names, digests, strict=True):
            if member not in self.detectors:
                raise UsageError(
                    f"score.calibration does not know {name} (digest {member[:8]}): its weights or settings changed; "
                    "make it again with tools/measure_signals.py --write-calibration"
                )
        return [self.detectors[member] for member in digests]

    def class_weights(self, fleet: Sequence[str]) -> NDArray[np.float64]:
        """PPAL's weights [c] of the fleet's classes."""
        return difficulty_weights(np.array([self.difficulty.get(name, np.nan) for name in fleet]))

    def save(self, path: Path) -> None:
        """Write the file, with its digest inside."""
        content = {**self._content(), "digest": self.digest}
        path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read and check a file.

        Raises:
            UsageError: missing, not such a file, or changed since it was written; one line.
        """
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
            stated = data.pop("digest")
            detectors = {
                str(name): ScoreCalibration(float(d["temperature"]), float(d["bias"]))
                for name, d in data["detectors"].items()
            }
            difficulty = {str(name): float(d) for name, d in data["difficulty"].items()}
            loaded = cls(detectors, difficulty, str(data["source"]))
        except OSError as error:
            raise UsageError(f"calibration {path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"calibration {path} is no calibration file: {' '.join(str(error).split())[:120]}"
            ) from None
        if data.get("version") != _VERSION or loaded.digest != stated:
            raise UsageError(f"calibration {path} was changed by hand or by another version; make it again")
        return loaded

    def _content(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "source": self.source,
            "detectors": {
                name: {"temperature": c.temperature, "bias": c.bias}
                for name, c in sorted(self.detectors.items())
            },
            "difficulty": dict(sorted(self.difficulty.items())),
        }
