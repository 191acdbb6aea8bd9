"""How fast is scoring: a committee of two with 20 boxes each a frame, detections already in memory -> hardness.

    python tools/bench_score.py [--frames 20000] [--boxes 20] [--json]

Times what ``mining score`` does for each frame, from the arrays on: every signal, its percentile, and hardness (the objects
are matched by ``detect``, which is timed apart). Wall time means little on a machine that others use too, so CPU time
(of all threads) stands beside it. The bar is 5,000 frames/s on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from mining.boxes import match_committee
from mining.config import ScoreConfig
from mining.score_frames import SIGNAL_NAMES, blend, reference_of
from mining.signals.disagreement import CommitteeBoxes
from mining.signals.frame import Signals, frame_signals
from mining.tracks import BoxesInTime, follow

BAR_FRAMES_PER_S = 5000
CHUNK = 2000
"""Frames scored at a time: half an hour of a drive at one frame a second."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--boxes", type=int, default=20, help="of each member in each frame")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.frames < CHUNK or options.boxes < 1:
        parser.error(f"--frames needs at least {CHUNK}, --boxes at least 1")
    rng = np.random.default_rng(0)
    chunks = [synthetic(rng, CHUNK, options.boxes) for _ in range(options.frames // CHUNK)]
    reference = reference_of(signals_of(*chunks[0]))
    weights = ScoreConfig().hardness

    def score() -> None:
        for boxes, dense in chunks:
            found = reference.complete(signals_of(boxes, dense))
            blend({name: reference.percentile(name, found[name]) for name in SIGNAL_NAMES}, weights)

    def match() -> None:
        for b, _ in chunks:
            match_committee(b.frame, b.member, b.boxes_px, b.scores)

    frames = CHUNK * len(chunks)
    rows = {name: timed(run, frames) for name, run in (("score", score), ("match (part of detect)", match))}
    for name, (wall, cpu) in rows.items():
        print(f"{name:24} {wall:9,.0f} frames/s by wall time {cpu:9,.0f} frames/s a core by CPU time")
    wall, cpu = rows["score"]
    # With no one else on the machine, one core alone gives the rate by CPU time; the second one is not even needed.
    best = max(wall, cpu)
    print(
        f"{'holds' if best >= BAR_FRAMES_PER_S else 'FAILS'}: {best:,.0f} frames/s, bar {BAR_FRAMES_PER_S:,}"
    )
    if options.json:
        print(json.dumps({
            "frames_per_s": best, "frames_per_s_wall": wall, "frames_per_s_cpu": cpu, "frames": frames,
            "boxes_a_member": options.boxes, "bar": BAR_FRAMES_PER_S, "holds": best >= BAR_FRAMES_PER_S,
        }))  # fmt: skip


def timed(run, frames: int) -> tuple[float, float]:
    """Frames a second by wall time and by CPU time: the best of three."""
    best = [0.0, 0.0]
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        took = time.perf_counter() - wall, time.process_time() - cpu
        best = [max(b, frames / t) for b, t in zip(best, took, strict=True)]
    return best[0], best[1]


def signals_of(boxes: CommitteeBoxes, dense: NDArray[np.float32]) -> Signals:
    """Compute all signals of one chunk, as of a drive at ten frames a second; every eighth frame repeats the one before."""
    frames = len(boxes.ran)
    time_s, repeats = np.arange(frames) / 10, np.arange(frames) % 8 == 7
    followed = follow(
        BoxesInTime.of(boxes), time_s, repeats, np.zeros(frames, bool), max_step_s=0.6, max_gap_s=0.25
    )
    return frame_signals(boxes, dense, dense) | followed.signals


def synthetic(
    rng: np.random.Generator, frames: int, boxes: int
) -> tuple[CommitteeBoxes, NDArray[np.float32]]:
    """Two members that see mostly the same objects, on nine classes."""
    n = frames * boxes
    corner = rng.uniform(0, 1000, (n, 2))
    first = np.concatenate([corner, corner + rng.uniform(20, 120, (n, 2))], axis=1).astype(np.float32)
    moved = rng.random(n) < 0.4
    second = (first + rng.normal(0, 3, (n, 4)) + moved[:, None] * 300).astype(np.float32)
    frame = np.tile(np.repeat(np.arange(frames), boxes), 2)
    member = np.repeat([0, 1], n)
    class_scores = (rng.random((2 * n, 9)) * 0.05).astype(np.float32)
    class_scores[np.arange(2 * n), rng.integers(0, 9, 2 * n)] = rng.beta(0.7, 1.5, 2 * n)
    scores = class_scores.max(axis=1)
    boxes_px = np.concatenate([first, second])
    committee = CommitteeBoxes(
        frame=frame,
        member=member,
        match_id=match_committee(frame, member, boxes_px, scores),
        boxes_px=boxes_px,
        scores=scores,
        class_scores=class_scores,
        thresholds=np.array([0.25, 0.25]),
        seen=np.ones((2, 9), bool),
        ran=np.ones((frames, 2), bool),
        box_std_px=rng.uniform(0.5, 5, (2 * n, 4)).astype(np.float32),
    )
    return committee, rng.random((frames, 9)).astype(np.float32)


if __name__ == "__main__":
    main()
