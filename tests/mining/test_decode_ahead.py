"""Frames reach the detectors in full batches, in one order, whatever the threads do; what fails is raised."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mining import decode_ahead, isolated
from mining.config import Config
from mining.decode_ahead import FrameBatch, Shard, batches
from mining.footage import Source, stat_signature
from mining.progress import Clock
from tests.mining.synthetic import NIGHT


def video(
    path: Path, frames: int, *, width: int = 64, height: int = 48, still_from: int | None = None
) -> Path:
    """A lossless video whose frame i is a grey of its own; from ``still_from`` on the picture stands still."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"crf": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            shown = i if still_from is None else min(i, still_from)
            picture = np.full((height, width, 3), 20 + 11 * shown % 200, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def shard(path: Path, frames: int, size_px: tuple[int, int] = (64, 48)) -> Shard:
    source = Source(str(path), "video")
    return Shard(path.stem, source, NIGHT, path.stem, "x", np.arange(frames), size_px, stat_signature(source))


def config(**detect: Any) -> Config:
    settings = {"footage": {"paths": ["x"]}, "detector": [{"weights": "a.pt"}], "detect": detect}
    return Config.model_validate_json(json.dumps(settings))


def batched(shards: list[Shard], **detect: Any) -> list[FrameBatch]:
    with batches(shards, config(**detect), Clock()) as found:
        return list(found)


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_fill_across_recordings_and_sizes_stay_apart(tmp_path: Path, workers: int) -> None:
    shards = [
        shard(video(tmp_path / "a.mp4", 5), 5),
        shard(video(tmp_path / "b.mp4", 6), 6),
        shard(video(tmp_path / "wide.mp4", 3, width=96), 3, (96, 48)),
        shard(video(tmp_path / "c.mp4", 7), 7),
        shard(tmp_path / "gone.mp4", 4),
    ]
    found = batched(shards, batch_size=4, decode_workers=workers)
    looked = [[(d.shard.key, d.frame.frame_index) for d in batch.look_at] for batch in found if batch.look_at]
    assert looked == [
        [("a", 0), ("a", 1), ("a", 2), ("a", 3)],
        [("a", 4), ("b", 0), ("b", 1), ("b", 2)],
        [("b", 3), ("b", 4), ("b", 5), ("c", 0)],
        [("wide", 0), ("wide", 1), ("wide", 2)],
        [("c", 1), ("c", 2), ("c", 3), ("c", 4)],
        [("c", 5), ("c", 6)],
    ]
    lost = [d for batch in found for d in batch.others]
    assert [(d.shard.key, d.frame.frame_index, d.frame.opened) for d in lost] == [
        ("gone", i, False) for i in range(4)
    ]
    for batch in found:
        for d in batch.look_at:
            assert d.frame.rgb is not None
            assert abs(int(d.frame.rgb[10, 10, 1]) - (20 + 11 * d.frame.frame_index % 200)) <= 3


def test_a_standing_picture_is_looked_at_once_a_shard(tmp_path: Path) -> None:
    path = video(tmp_path / "still.mp4", 12, still_from=4)
    for skip, repeats in ((True, 7), (False, 0)):
        found = batched([shard(path, 12)], batch_size=4, skip_repeats=skip)
        others = [d for batch in found for d in batch.others]
        assert [(d.frame.frame_index, d.repeat_of) for d in others] == [
            (i, 4) for i in range(12 - repeats, 12)
        ]
        assert all(d.quality is not None for d in others)


def lethal(*arguments: Any) -> Iterator[Any]:
    """``decode_and_measure``, but for a decoder that crashes at frame 3 of a.mp4 and never ends with frame 1 of b.mp4."""
    source = arguments[0]
    for measured in decode_ahead.decode_and_measure(*arguments):
        index = measured[0].frame_index
        if source.path.endswith("a.mp4") and index == 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        if source.path.endswith("b.mp4") and index == 1:
            time.sleep(3600)
        if source.path.endswith("hopeless.mp4"):
            os.abort()
        yield measured


def test_a_decoder_that_crashes_or_hangs_costs_its_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"a": 6, "b": 4, "hopeless": 8, "c": 5}
    shards = [shard(video(tmp_path / f"{name}.mp4", frames), frames) for name, frames in names.items()]
    real = isolated.Worker.run

    def run(self: isolated.Worker, function: Any, *arguments: Any, timeout_s: float) -> Any:
        swapped = lethal if function is decode_ahead.decode_and_measure else function
        return real(self, swapped, *arguments, timeout_s=timeout_s)

    monkeypatch.setattr(isolated.Worker, "run", run)
    found = batched(shards, batch_size=4, decode_workers=2, decode_timeout_s=5)
    looked = [(d.shard.key, d.frame.frame_index) for batch in found for d in batch.look_at]
    assert sorted(looked) == sorted(
        [("a", i) for i in (0, 1, 2, 4, 5)] + [("b", i) for i in (0, 2, 3)] + [("c", i) for i in range(5)]
    )
    lost = {(d.shard.key, d.frame.frame_index): d.frame for batch in found for d in batch.others}
    assert set(lost) == {("a", 3), ("b", 1), *(("hopeless", i) for i in range(8))}
    assert lost["a", 3].error == "the decoder crashed (SIGSEGV)"
    assert lost["b", 1].error == "the decoder gave no answer for 5 s"
    assert lost["hopeless", 7].error == "the decoder crashed (SIGABRT)"
    assert all(frame.opened for frame in lost.values())  # final: the next run must not crash on it again
