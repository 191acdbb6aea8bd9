"""Pixels in, predictions out. Knows no table and no footage, and never imports ``mining``.

``load`` is the way in. Importing this package imports neither torch nor Ultralytics nor ONNX Runtime.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectors.classes import ClassMap
from detectors.types import Detector, DetectorError, DetectorSpec, Predictions

__all__ = ["ClassMap", "Detector", "DetectorError", "DetectorSpec", "Predictions", "load"]

# Ending of the weights file -> (module, class, extra that installs what it needs).
KINDS = {
    ".pt": ("detectors.ultralytics", "UltralyticsDetector", "ultralytics"),
    ".onnx": ("detectors.onnx", "OnnxDetector", "onnx"),
}


def load(
    weights: DetectorSpec | str | os.PathLike[str], classes: ClassMap | None = None, **settings: Any
) -> Detector:
    """Load a detector.

    Args:
        weights: a spec, or the weights alone: ``load("yolo11n.pt")``, ``load("model.onnx", head="nanodet")``.
        classes: the fleet's class list; None for the model's own names.
        settings: fields of ``DetectorSpec`` where ``weights`` is not a spec already.

    Raises:
        DetectorError: it cannot be loaded; one line that says how to mend it.
    """
    if isinstance(weights, DetectorSpec):
        if settings:
            raise TypeError(f"a DetectorSpec takes no further settings, got {', '.join(settings)}")
        spec = weights
    else:
        known = [f.name for f in dataclasses.fields(DetectorSpec) if f.name != "weights"]
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise DetectorError(
                    f"unknown detector setting {name!r}; "
                    + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}")
                )
        spec = DetectorSpec(weights=os.fspath(weights), **settings)
    ending = Path(spec.weights).suffix.lower()
    if ending not in KINDS:
        raise DetectorError(f"{spec.weights} ends in {ending or 'nothing'!r}; known are {', '.join(KINDS)}")
    module, name, extra = KINDS[ending]
    try:
        kind = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise DetectorError(
            f"{spec.weights} needs a library that cannot be imported ({' '.join(str(error).split())}); "
            f"pip install 'mining[{extra}]'"
        ) from None
    detector: Detector = kind(spec, classes)
    if spec.flip or spec.scale != 1.0:
        from detectors.perturb import PerturbedDetector

        return PerturbedDetector(detector)
    return detector


def import_kinds(specs: Iterable[DetectorSpec]) -> None:
    """Import what loading these needs, torch above all; what cannot be imported is for ``load`` to tell."""
    for spec in specs:
        ending = Path(spec.weights).suffix.lower()
        if ending in KINDS:
            with contextlib.suppress(ImportError):
                importlib.import_module(KINDS[ending][0])


def digest_of(spec: DetectorSpec, classes: ClassMap) -> str:
    """Hexadecimal digest of everything that changes a prediction, found without loading the model."""
    from detectors import weights

    return weights.spec_digest(spec, weights.read(spec).sha256, classes.digest())


def gpu_names() -> list[str]:
    """Names of the CUDA devices here. ImportError where torch is not installed."""
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
