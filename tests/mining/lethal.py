"""A decoder that kills or blocks whatever process runs it, for commands that a test starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Python imports this at its start, in the command and in every process that it starts: none of them knows that it is tested.
_SITECUSTOMIZE = """
import os, signal, time
import mining.footage.recordings as recordings

real = recordings.read_{kind}

def lethal(path, times, indices, *more):
    for frame in real(path, times, indices, *more):
        if frame.frame_index in {crash_at!r}:
            os.kill(os.getpid(), signal.SIGSEGV)
        if frame.frame_index in {hang_at!r}:
            time.sleep(3600)
        yield frame

recordings.read_{kind} = lethal
"""


def run_with_lethal_decoder(
    arguments: Sequence[str],
    folder: Path,
    *,
    kind: str = "video",
    crash_at: Sequence[int] = (),
    hang_at: Sequence[int] = (),
    timeout_s: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run a `mining` command in ``folder``, with a decoder that crashes or hangs where it reaches these frames."""
    site = folder / "lethal"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(
        _SITECUSTOMIZE.format(kind=kind, crash_at=tuple(crash_at), hang_at=tuple(hang_at))
    )
    return subprocess.run(
        [sys.executable, "-c", "from mining.cli import main; main()", *arguments],
        capture_output=True, text=True, check=False, cwd=folder, timeout=timeout_s,
        env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"},
    )  # fmt: skip
