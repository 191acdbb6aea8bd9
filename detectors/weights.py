"""Find a weights file, read it once, verify it, and say in one line what is wrong with it."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from detectors.types import DetectorError, DetectorSpec

DETECTOR_VERSION = 1
"""Counts changes of this package that change predictions; part of every detector's digest."""

DEMO_PREFIX = "demo:"
DEMO_WEIGHTS = Path(__file__).parent / "demo_weights"
MAX_WEIGHTS_BYTES = 2 << 30
"""No detector that runs on a fleet's nightly footage is larger; a file beyond it is not read into memory."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A weights file as read: what was verified is what will be loaded, whatever happens to the file meanwhile."""

    path: Path
    content: bytes
    sha256: str


def read(spec: DetectorSpec) -> Weights:
    """Find and read the weights of ``spec`` and verify their digest.

    ``spec.weights`` is a path (``~`` is the home folder), ``demo:NAME`` for the weights that come with the project, or
    the name of an official Ultralytics checkpoint, which is downloaded to that path where it is missing.

    Raises:
        DetectorError: there is no such file, it cannot be read, or its digest is not ``spec.sha256``.
    """
    path = find(spec.weights)
    try:
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise DetectorError(f"{path} is larger than {MAX_WEIGHTS_BYTES >> 30} GiB; that is no detector")
        content = path.read_bytes()
    except OSError as error:
        raise DetectorError(f"{path} cannot be read: {error.strerror or error}") from None
    if not content:
        raise DetectorError(f"{path} is empty; copy or download it again")
    digest = hashlib.sha256(content).hexdigest()
    if spec.sha256 is not None and digest != spec.sha256.strip().lower():
        raise DetectorError(
            f"{path} has sha256 {digest}, but the config expects {spec.sha256}; fetch the right file or correct the config"
        )
    return Weights(path, content, digest)


def find(name: str) -> Path:
    """Return the path of a weights file, downloading an official Ultralytics checkpoint that is missing."""
    if name.startswith(DEMO_PREFIX):
        wanted = name.removeprefix(DEMO_PREFIX)
        packaged = sorted(p.name for p in DEMO_WEIGHTS.glob("*") if p.suffix in {".pt", ".onnx"})
        if wanted not in packaged:
            raise DetectorError(f"no demo detector {wanted!r}; there are {', '.join(packaged) or 'none'}")
        return DEMO_WEIGHTS / wanted
    path = Path(name).expanduser()
    if path.is_dir():
        raise DetectorError(f"{path} is a folder, not a weights file")
    if path.exists():
        return path
    if path.suffix == ".pt" and _is_official(path.name):
        return _download(path)
    raise DetectorError(
        f"no weights file at {path.absolute()}, and {path.name!r} is no official Ultralytics detector"
    )


def spec_digest(spec: DetectorSpec, weights_sha256: str, class_map_digest: str) -> str:
    """Hexadecimal digest of everything that changes a prediction.

    Where the weights lie, what the detector is called, which device it runs on and the threshold that later stages
    apply to its boxes change none. A stated precision does; ``auto`` is left out, so that machines with and without bf16
    agree on the digest (``Detector.digest`` says why).
    """
    settings = asdict(spec)
    for irrelevant in ("weights", "name", "sha256", "device", "threshold"):
        del settings[irrelevant]
    if spec.precision == "auto":
        del settings["precision"]
    parts = [DETECTOR_VERSION, weights_sha256, class_map_digest, settings]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def detector_name(spec: DetectorSpec) -> str:
    """Name of a detector in the tables: as the spec says, else its weights file's name without the ending."""
    return spec.table_name


def quiet_ultralytics() -> None:
    """Import Ultralytics without its telemetry, update checks, log lines and files in the user's home.

    Its settings are read from the environment when it is first imported, so this must come before any import of it.

    Raises:
        DetectorError: Ultralytics, or a library that it needs, is not installed.
    """
    if "ultralytics" not in sys.modules:
        os.environ.setdefault("YOLO_OFFLINE", "true")  # it then sends no events and looks for no updates
        os.environ.setdefault("YOLO_VERBOSE", "false")  # only errors are logged
        os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # it never runs pip
        if "YOLO_CONFIG_DIR" not in os.environ:
            # It writes a settings file wherever this points, and by default into ~/.config.
            os.environ["YOLO_CONFIG_DIR"] = folder = tempfile.mkdtemp(prefix="mining-ultralytics-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        import torch

        torch.get_num_threads()  # before Ultralytics sets OMP_NUM_THREADS to 1, which is torch's default then
        import ultralytics  # noqa: F401
    except ImportError as error:
        raise DetectorError(
            f"Ultralytics cannot be imported ({' '.join(str(error).split())}); pip install 'mining[ultralytics]'"
        ) from None


def _is_official(name: str) -> bool:
    """Whether Ultralytics publishes a checkpoint of this name (the list is its own)."""
    quiet_ultralytics()
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

    return name in GITHUB_ASSETS_NAMES


def _download(path: Path) -> Path:
    """Let Ultralytics fetch one of its checkpoints to ``path``; where there is no network, say so within seconds."""
    import requests
    from ultralytics.utils.downloads import attempt_download_asset

    url = f"https://github.com/ultralytics/assets/releases/download/v8.4.0/{path.name}"
    try:
        # Ultralytics' downloader waits half a minute for each address of a server that does not answer.
        requests.head(url, timeout=10)
        attempt_download_asset(path, retry=0, progress=False)
    except (requests.RequestException, OSError, MemoryError) as error:
        reason = (
            "no network"
            if isinstance(error, requests.ConnectionError)
            else " ".join(str(error).split())[:120]
        )
        raise DetectorError(
            f"{path.name} is not here and cannot be downloaded ({reason}); fetch {url} elsewhere "
            f"and put it at {path.absolute()}"
        ) from None
    return path
