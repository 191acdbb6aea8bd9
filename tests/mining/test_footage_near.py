"""A few frames of a long video, listed in part: the pixels are those that the whole list gives."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mining.footage import Defaults, FootageError, Source, frame_times, frame_times_near, read
from mining.footage.near import near_times
from tests.mining.footage_clips import encode

DEFAULTS = Defaults(image_rate_hz=1.0)
FORMS = {
    "b frames": {"options": {"bf": "3"}, "gop": 24},
    "one key frame": {"gop": 1000},
    "open groups": {"options": {"bf": "2", "x264-params": "open-gop=1:keyint=20:min-keyint=20"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none:bframes=4"}},
    "uneven times": {"ticks": [0, 1, 4, 5, 9, *range(20, 200, 3)]},
    "matroska": {"name": "x.mkv"},
    "transport stream": {"name": "x.ts"},
    "raw": {"name": "x.h264"},
    "turned": {"rotation_deg": 90},
}


def same_pixels(path: Path, indices: list[int]) -> None:
    source = Source(str(path), "video")
    times = frame_times(source, DEFAULTS)
    wanted = {index: int(times.pts_ns[index]) for index in indices}
    near, places = frame_times_near(source, DEFAULTS, wanted)
    assert set(near.pts_ns.tolist()) <= set(times.pts_ns.tolist())
    for one, other in zip(
        read(source, times, indices), read(source, near, sorted(places.values())), strict=True
    ):
        assert places[one.frame_index] == other.frame_index
        assert one.pts_ns == other.pts_ns
        assert one.error == other.error
        assert (one.rgb is None) == (other.rgb is None)
        assert one.rgb is None or np.array_equal(one.rgb, other.rgb)


@pytest.mark.parametrize("form", FORMS)
def test_the_pixels_are_the_same(tmp_path: Path, form: str) -> None:
    given = {"ticks": range(200), **FORMS[form]}
    path = encode(tmp_path / str(given.pop("name", "x.mp4")), **given)
    last = len(frame_times(Source(str(path), "video"), DEFAULTS)) - 1
    for indices in ([0], [last], [7], [1, 30, 31, 59], list(range(0, last, 13))):
        same_pixels(path, indices)


def test_only_a_part_is_listed(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.mp4", ticks=range(600), gop=12)
    near = near_times(str(path), [500 * 40_000_000])
    assert near is not None
    assert len(near) < 100


def test_damage_is_the_same_error(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.mp4", ticks=range(300), gop=25)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    same_pixels(path, list(range(0, 300, 10)))


def test_frames_of_one_time_take_the_whole_list(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.mkv", ticks=range(60), tick_s=Fraction(1, 25))
    assert near_times(str(path), [0, 0]) is None


def test_fewer_frames_than_were_indexed_are_an_error_in_a_line(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.mp4", ticks=range(30))
    with pytest.raises(FootageError, match="holds fewer frames than when it was indexed"):
        frame_times_near(Source(str(path), "video"), DEFAULTS, {99: 123_456_789})


def test_real_clips(shared_data: Path) -> None:
    for name in ("kartik_dashcam1", "tmo324_night", "udacity_vd_test_video"):
        path = shared_data / "video" / f"{name}.mp4"
        last = len(frame_times(Source(str(path), "video"), DEFAULTS)) - 1
        same_pixels(path, [3, last // 2, last])
