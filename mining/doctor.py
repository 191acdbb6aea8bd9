"""``mining doctor``: is this machine fit for the job, and this config for this machine?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from mining import buckets
from mining.committee import load_member
from mining.config import Config
from mining.places import BucketPath

_LIBRARIES = (
    "numpy",
    "pyarrow",
    "duckdb",
    "av",
    "opencv-python",
    "torch",
    "torchvision",
    "ultralytics",
    "onnxruntime",
)
_DECODERS = ("h264", "hevc", "av1", "vp9", "mpeg4", "mjpeg")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    what: str
    ok: bool
    found: str


def examine(config: Config | None) -> Iterator[Check]:
    """Look at the machine, and at what the config names. Never raises: what fails is a check that is not ok."""
    yield _check("python", platform.python_version)
    for name in _LIBRARIES:
        yield _library(name)
    yield _check("opencv import", _opencv)
    yield _check("video decoders", _decoders)
    yield _check("devices", _devices)
    if config is not None:
        yield _check("store", lambda: _store(config))
        yield _check("footage", lambda: _footage(config))
        for position in range(len(config.detector)):
            yield _check(f"detector {config.detector_names[position]}", partial(_detector, config, position))


def _check(what: str, find: Callable[[], str]) -> Check:
    try:
        return Check(what, True, find())
    except Exception as error:
        return Check(what, False, f"{error}" or type(error).__name__)


def _library(name: str) -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        optional = {"torch", "torchvision", "ultralytics", "onnxruntime"}
        extra = "onnx" if name == "onnxruntime" else "ultralytics"
        hint = f"not installed: pip install 'mining[{extra}]'"
        # A machine that only asks SQL needs no detectors.
        return Check(name, name in optional, hint)


def _opencv() -> str:
    import cv2

    return str(cv2.__version__)


def _decoders() -> str:
    import av

    missing = [name for name in _DECODERS if name not in av.codecs_available]
    if "h264" in missing or "hevc" in missing:
        raise RuntimeError(
            f"PyAV lacks decoders for {', '.join(missing)}: reinstall it with `pip install --force av`"
        )
    return ", ".join(name for name in _DECODERS if name not in missing)


def _devices() -> str:
    import detectors

    try:
        gpus = detectors.gpu_names()
    except ImportError:
        return "torch is not installed: this machine can select and answer SQL, not detect"
    return ", ".join([*gpus, f"cpu ({os.cpu_count()} cores)"])


def _store(config: Config) -> str:
    from mining.store import Store

    root = config.store_path
    if isinstance(root, BucketPath):
        probe = (root / "leases" / f".probe-{uuid.uuid4().hex}").uri
        try:
            taken = buckets.create(probe, b"1")
            if not taken or buckets.create(probe, b"2") or buckets.replace(probe, b"3", '"0"'):
                raise RuntimeError(
                    f"{root}: the service does not heed conditional writes (If-None-Match, If-Match): jobs would not know "
                    "of each other"
                )
        finally:
            buckets.delete(probe)
        if (root / "mining-store.json").exists():
            Store(root)
        return f"{root} is writable"
    existing = root
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK):
        raise RuntimeError(f"{existing}: no permission to write")
    if root.exists() and any(root.iterdir()):
        Store(root)
    free_gib = shutil.disk_usage(existing).free / 2**30
    return f"{root} is writable, {free_gib:.0f} GiB free"


def _footage(config: Config) -> str:
    from mining.footage import discover

    sources, problems = discover(config.footage_paths)
    if problems or not sources:
        raise RuntimeError("; ".join(f"{p.path}: {p.reason}" for p in problems) or "no recording found")
    return f"{len(sources)} recordings"


def _detector(config: Config, position: int) -> str:
    detector = load_member(config, position)
    seen = [name for name, can_see in zip(detector.classes, detector.seen, strict=True) if can_see]
    return f"sees {', '.join(seen)}"
