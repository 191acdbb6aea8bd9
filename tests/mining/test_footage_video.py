"""Videos: every frame is listed without decoding, and read back pixel for pixel whatever else is asked for."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from mining.footage import Defaults, FootageError, Source, frame_times, probe, read, reader
from mining.types import FrameTimes, Recording
from tests.mining.footage_clips import HEIGHT_PX, WIDTH_PX, decoded, encode, picture, remux

DEFAULTS = Defaults(image_rate_hz=1.0)

# Names, frames that decode, frames that the header promises, size: as the README of the shared data states them.
REAL_CLIPS = {
    "udacity_solidWhiteRight.mp4": (221, 221, (960, 540)),
    "udacity_vd_test_video.mp4": (38, 38, (1280, 720)),
    "tmo324_seattlestreet1.mp4": (1010, 1044, (640, 360)),
    "tmo324_night.mp4": (1079, 1118, (640, 360)),
    "tmo324_desert.mp4": (627, 675, (640, 360)),
    "kartik_dashcam1.mp4": (515, 515, (640, 360)),
    "kartik_dashcam2.mp4": (588, 588, (854, 480)),
    "hifza_dashcam.mp4": (89, 89, (320, 180)),
}


def video(path: Path) -> Source:
    return Source(str(path), "video")


def probed(path: Path) -> tuple[Recording, FrameTimes]:
    return probe(video(path), DEFAULTS)


def assert_exact(path: Path, rounds: int = 4, seed: int = 0) -> None:
    """All frames in one go, and some in any order of need, are those of the plain decoder."""
    reference = decoded(path)
    recording, times = probed(path)
    assert recording.status == "ok", recording.error
    assert len(times) == len(reference) == recording.frame_count
    assert (np.diff(times.pts_ns) >= 0).all()
    choose = random.Random(seed)
    wanted = [range(len(times))]
    wanted += [sorted(choose.sample(range(len(times)), min(5, len(times)))) for _ in range(rounds)]
    wanted += [[n] for n in choose.sample(range(len(times)), min(rounds, len(times)))]
    size_px = (recording.width_px, recording.height_px)
    for indices in wanted:
        frames = list(read(video(path), times, indices, size_px))
        assert [f.frame_index for f in frames] == list(indices)
        for frame in frames:
            assert frame.error is None
            assert frame.pts_ns == times.pts_ns[frame.frame_index]
            np.testing.assert_array_equal(frame.rgb, reference[frame.frame_index][1])


@pytest.mark.parametrize("name", REAL_CLIPS)
def test_real_clips_are_listed_as_they_decode_and_read_exactly(shared_data: Path, name: str) -> None:
    path = shared_data / "video" / name
    count, promised, size = REAL_CLIPS[name]
    recording, times = probed(path)
    assert (recording.status, recording.error) == ("ok", None)
    assert (recording.frame_count, recording.frame_count_from_header) == (count, promised)
    assert (recording.width_px, recording.height_px) == size
    assert recording.codec == "h264"
    choose = random.Random(name)
    asked = sorted({0, count - 1, *choose.sample(range(count), 12)})
    got = {f.frame_index: f for f in read(video(path), times, asked, size)}
    assert sorted(got) == asked
    with av.open(str(path)) as container:
        time_base = container.streams.video[0].time_base
        seen = 0
        for n, frame in enumerate(container.decode(video=0)):
            seen += 1
            assert round(frame.pts * time_base * 10**9) == times.pts_ns[n]
            if n in got:
                np.testing.assert_array_equal(got[n].rgb, frame.to_ndarray(format="rgb24"))
    assert seen == count


X264_OPEN_GOP = {"x264-params": "open-gop=1:bframes=3:b-pyramid=normal:keyint=12:min-keyint=12:scenecut=0"}
X265_OPEN_GOP = {"x265-params": "log-level=none:open-gop=1:bframes=3:keyint=12:min-keyint=12:scenecut=0"}
FORMS = {
    "closed gop with B-frames.mp4": ("libx264", {"x264-params": "bframes=3:scenecut=0"}),
    "open gop.mp4": ("libx264", X264_OPEN_GOP),
    "open gop.mkv": ("libx264", X264_OPEN_GOP),
    "open gop.ts": ("libx264", X264_OPEN_GOP),
    "intra refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:bframes=0:keyint=12"}),
    "hevc open gop.mov": ("libx265", X265_OPEN_GOP),
    "mpeg4.avi": ("mpeg4", {"bf": "2"}),
    "h264 with B-frames.avi": ("libx264", {"bf": "2"}),
    "h264.avi": ("libx264", {"bf": "0"}),
    "mjpeg.avi": ("mjpeg", {}),
    "vp8 with hidden frames.webm": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "300k"}),
    "vp9 with hidden frames.webm": (
        "libvpx-vp9",
        {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
    ),
    "raw.h264": ("libx264", {"bf": "2"}),
    "raw.hevc": ("libx265", {"x265-params": "log-level=none"}),
    "raw.265": ("libx265", {"x265-params": "log-level=none"}),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_reads_exactly(tmp_path: Path, name: str) -> None:
    codec, options = FORMS[name]
    raw = {"raw.265": "hevc"}.get(name)
    assert_exact(encode(tmp_path / name, codec, options=options, container_format=raw))


def test_key_flags_that_lie_are_found_out(tmp_path: Path) -> None:
    clean = encode(
        tmp_path / "clean.mkv", "mpeg4", ticks=range(200), gop=100, options={"sc_threshold": "1000000000"}
    )
    reference = [rgb for _, rgb in decoded(clean)]
    path = tmp_path / "all flagged.mp4"
    with av.open(str(clean)) as source, av.open(path, "w") as writer:
        stream = source.streams.video[0]
        out = writer.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.is_keyframe = True
                packet.stream = out
                writer.mux(packet)
    with av.open(str(path)) as container:
        assert all(p.is_keyframe for p in container.demux(video=0) if p.size)
    _, times = probed(path)
    for asked in ([60], [150], [10, 90, 199]):
        for frame in read(video(path), times, asked):
            np.testing.assert_array_equal(frame.rgb, reference[frame.frame_index])


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 s with a key frame every 2 s: far enough apart that the reader jumps, also where there is no index."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return encode(
        path, options=X264_OPEN_GOP | {"preset": "ultrafast"}, ticks=range(1000), gop=50, size=(96, 64)
    )


@pytest.fixture(scope="module")
def long_reference(long_clip: Path) -> list[np.ndarray]:
    return [rgb for _, rgb in decoded(long_clip)]


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts"])
def test_jumps_far_ahead_read_exactly(
    tmp_path: Path,
    long_clip: Path,
    long_reference: list[np.ndarray],
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = remux(long_clip, tmp_path / f"a.{ending}")
    _, times = probed(path)
    assert len(times) == 1000
    fed = count_decoded_packets(monkeypatch)
    for asked in ([999], [0, 999], [501], [3, 400, 401, 990], [49, 50, 51, 499, 500, 501]):
        fed.clear()
        for frame in read(video(path), times, asked):
            np.testing.assert_array_equal(frame.rgb, long_reference[frame.frame_index])
        assert len(fed) < 700  # far less than everything: it did jump


def count_decoded_packets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note each packet that the reader hands on to be decoded."""
    fed: list[int] = []
    original = reader._Run._note

    def note(self: reader._Run, packet: av.Packet) -> None:
        fed.append(packet.size)
        original(self, packet)

    monkeypatch.setattr(reader._Run, "_note", note)
    return fed


def test_variable_frame_rate_keeps_exact_times(tmp_path: Path) -> None:
    choose = random.Random(5)
    ticks = [0, *np.cumsum([choose.choice([1, 1, 2, 7, 40]) for _ in range(79)]).tolist()]
    path = encode(tmp_path / "a.mp4", ticks=ticks, tick_s=Fraction(1, 90), options={"bf": "2"})
    assert_exact(path)
    recording, times = probed(path)
    expected = [round(Fraction(t, 90) * 10**9) for t in ticks]
    assert times.pts_ns.tolist() == expected
    assert recording.frame_rate_hz == pytest.approx(79 * 90 / ticks[-1])
    assert recording.duration_s == pytest.approx(ticks[-1] / 90 * 80 / 79)


def test_frames_of_one_time_are_told_apart_by_their_order(tmp_path: Path) -> None:
    ticks = sorted([*range(40), 10, 20, 21, 24, 24])
    path = encode(tmp_path / "a.mkv", "mjpeg", ticks=range(45), tick_s=Fraction(1, 25))
    retimed = tmp_path / "b.mkv"
    with av.open(str(path)) as reader, av.open(retimed, "w") as writer:
        stream = reader.streams.video[0]
        out = writer.add_stream_from_template(stream)
        for tick, packet in zip(ticks, reader.demux(stream), strict=False):
            packet.pts = packet.dts = tick * 40
            packet.stream = out
            writer.mux(packet)
    _, times = probed(retimed)
    assert len(times) == 45
    assert len(np.unique(times.pts_ns)) == 40
    reference = [rgb for _, rgb in decoded(path)]
    for n in (10, 11, 22, 26, 27, 28, 44):
        (frame,) = read(video(retimed), times, [n])
        np.testing.assert_array_equal(frame.rgb, reference[n])


def test_a_turned_clip_comes_upright(tmp_path: Path) -> None:
    for degrees in (90, 180, -90):
        path = encode(tmp_path / f"{degrees}.mp4", rotation_deg=degrees, ticks=range(5))
        recording, times = probed(path)
        (frame,) = read(video(path), times, [3], (recording.width_px, recording.height_px))
        capture = cv2.VideoCapture(str(path))  # OpenCV turns frames upright as well: an independent opinion
        for _ in range(4):
            _, bgr = capture.read()
        capture.release()
        assert frame.rgb is not None
        assert frame.rgb.shape == bgr.shape
        assert frame.rgb.shape == ((WIDTH_PX, HEIGHT_PX, 3) if degrees % 180 else (HEIGHT_PX, WIDTH_PX, 3))
        assert np.abs(frame.rgb.astype(int) - bgr[..., ::-1]).mean() < 3


def test_a_frame_of_another_size_is_an_error_only_where_the_size_is_given(tmp_path: Path) -> None:
    first = encode(tmp_path / "1.h264", ticks=range(10))
    second = encode(tmp_path / "2.h264", ticks=range(10), size=(96, 64))
    joined = tmp_path / "joined.h264"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    _, times = probed(joined)
    assert len(times) == 20
    frames = list(read(video(joined), times, range(20), (WIDTH_PX, HEIGHT_PX)))
    assert [f.rgb is not None for f in frames] == [True] * 10 + [False] * 10
    assert frames[15].error == f"frame is 96x64, the recording {WIDTH_PX}x{HEIGHT_PX}"
    assert {f.rgb.shape for f in read(video(joined), times, range(20))} == {
        (HEIGHT_PX, WIDTH_PX, 3),
        (64, 96, 3),
    }


def test_raw_streams_take_the_rate_that_they_state(tmp_path: Path) -> None:
    _, times = probed(encode(tmp_path / "a.h264", tick_s=Fraction(1, 10), options={"bf": "2"}))
    assert times.pts_ns.tolist() == [n * 100_000_000 for n in range(60)]


def damage(path: Path, victim: int, how: str) -> Path:
    """Copy a Matroska clip with one packet spoilt."""
    spoilt = path.with_name(f"{path.stem}-{how}-{victim}.mkv")
    with av.open(str(path)) as reader, av.open(spoilt, "w") as writer:
        stream = reader.streams.video[0]
        out = writer.add_stream_from_template(stream)
        for n, packet in enumerate(p for p in reader.demux(stream) if p.size):
            if n == victim:
                data = bytes(packet)
                cut = data[: len(data) // 2]
                data = cut if how == "cut" else cut + bytes(b ^ 0x55 for b in data[len(cut) :])
                spoilt_packet = av.Packet(data)
                spoilt_packet.pts, spoilt_packet.dts = packet.pts, packet.dts
                spoilt_packet.time_base, spoilt_packet.is_keyframe = packet.time_base, packet.is_keyframe
                spoilt_packet.stream = out
                writer.mux(spoilt_packet)
                continue
            packet.stream = out
            writer.mux(packet)
    return spoilt


@pytest.mark.parametrize("how", ["cut", "scrambled"])
@pytest.mark.parametrize("victim", [20, 24, 30])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_damage_costs_its_group_of_pictures_and_nothing_else(
    tmp_path: Path, codec: str, victim: int, how: str
) -> None:
    options = X264_OPEN_GOP if codec == "libx264" else {"bf": "2", "sc_threshold": "1000000000"}
    clean = encode(tmp_path / "clean.mkv", codec, options=options)
    reference = [rgb for _, rgb in decoded(clean)]
    path = damage(clean, victim, how)
    _, times = probed(path)
    assert len(times) == 60
    everything = {f.frame_index: f for f in read(video(path), times, range(60))}
    assert sorted(everything) == list(range(60))
    for n, frame in everything.items():
        assert (frame.rgb is None) == (frame.error is not None)
        if frame.rgb is not None:
            np.testing.assert_array_equal(frame.rgb, reference[n])
    lost = [n for n, f in everything.items() if f.rgb is None]
    assert lost
    assert lost[0] >= 12
    assert lost[-1] < 48
    for n in (5, 15, 23, 24, 25, 30, 47, 48, 59):  # alone, after a jump: the same verdict
        (frame,) = read(video(path), times, [n])
        assert frame.error == everything[n].error
        np.testing.assert_array_equal(frame.rgb, everything[n].rgb)


def test_motion_jpeg_names_each_damaged_frame(tmp_path: Path) -> None:
    clean = encode(tmp_path / "clean.mkv", "mjpeg")
    path = damage(clean, 20, "cut")
    _, times = probed(path)
    assert [f.frame_index for f in read(video(path), times, range(60)) if f.rgb is None] == [20]


def test_nothing_after_damage_is_trusted_where_frames_are_only_counted(tmp_path: Path) -> None:
    clean = encode(tmp_path / "clean.h264", options={"bf": "2"})
    reference = [rgb for _, rgb in decoded(clean)]
    with av.open(str(clean)) as container:
        sizes = [p.size for p in container.demux(video=0)]
    data = bytearray(clean.read_bytes())
    start = sum(sizes[:30]) + 20
    data[start : start + sizes[30] // 2] = b"\xff" * (sizes[30] // 2)
    path = tmp_path / "spoilt.h264"
    path.write_bytes(data)
    _, times = probed(path)
    good = [f.frame_index for f in read(video(path), times, range(len(times))) if f.rgb is not None]
    assert good == list(range(len(good)))
    assert 20 <= len(good) <= 34
    for frame in read(video(path), times, good):
        np.testing.assert_array_equal(frame.rgb, reference[frame.frame_index])


def cut(path: Path, share: float) -> Path:
    """Keep the first part of a file's bytes."""
    short = path.with_name(f"cut-{path.name}")
    data = path.read_bytes()
    short.write_bytes(data[: int(len(data) * share)])
    return short


TRUNCATED = {
    "faststart.mp4": {"movflags": "faststart"},
    "fragmented.mp4": {"movflags": "frag_keyframe+empty_moov"},
    "a.mkv": {},
    "a.ts": {},
    "a.avi": {},
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_truncated_video_keeps_what_is_there(tmp_path: Path, shared_data: Path, name: str) -> None:
    if name == "a.avi":
        whole = encode(tmp_path / name, "mpeg4", ticks=range(300))
    else:
        whole = remux(
            shared_data / "video" / "kartik_dashcam1.mp4", tmp_path / name, TRUNCATED[name], limit=300
        )
    reference = [rgb for _, rgb in decoded(whole)]
    recording, times = probed(cut(whole, 0.6))
    if name not in {
        "a.ts",
        "fragmented.mp4",
    }:  # these two promise no length: a cut between two frames leaves no trace
        assert recording.status == "partial"
    assert recording.error is None or "cut off" in recording.error
    assert 100 < len(times) < 250
    frames = list(read(video(tmp_path / f"cut-{name}"), times, range(len(times))))
    assert sum(f.rgb is None for f in frames) <= 2
    for frame in frames:
        if frame.rgb is not None:
            np.testing.assert_array_equal(frame.rgb, reference[frame.frame_index])


def one_line(text: str | None) -> bool:
    return bool(text) and "\n" not in str(text)


def test_unreadable_files_say_why_in_one_line(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4")
    cut(whole, 0.6)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("Not a video at all.\n" * 50)
    (tmp_path / "playlist.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{whole}\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile whole.mp4\n")
    with av.open(tmp_path / "sound.mp4", "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    expected = {
        "empty": "the file is empty",
        "text": "not a readable video",
        "cut-whole": "not a readable video",
        "playlist": "not a readable video",
        "concat": "not a readable video",
        "sound": "no video stream",
        "gone": "cannot be read",
    }
    for name, reason in expected.items():
        recording, times = probed(tmp_path / f"{name}.mp4")
        assert recording.status == "unreadable"
        assert one_line(recording.error)
        assert reason in str(recording.error)
        assert len(times) == recording.frame_count == 0
        assert len(recording.recording_id) == 20
    with pytest.raises(FootageError, match="not a readable video"):
        frame_times(video(tmp_path / "text.mp4"), DEFAULTS)


def test_garbage_of_any_kind_never_raises(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mkv", ticks=range(30)).read_bytes()
    choose = random.Random(3)
    for round_ in range(25):
        data = bytearray(whole)
        for _ in range(choose.choice([1, 20, 400])):
            data[choose.randrange(len(data))] = choose.randrange(256)
        path = tmp_path / f"{round_}.mkv"
        path.write_bytes(data)
        recording, times = probed(path)
        assert recording.status == "ok" or one_line(recording.error)
        if recording.status != "unreadable":
            assert len(list(read(video(path), times, range(len(times))))) == len(times)


def test_container_times_are_believed_only_where_a_clock_can_have_shown_them(tmp_path: Path) -> None:
    for stated, believed in [
        ("2024-03-05T06:07:08Z", True),
        ("1904-01-01T00:00:00Z", False),
        ("2190-01-01T00:00:00Z", False),
    ]:
        path = encode(tmp_path / "a.mkv", ticks=range(3), metadata={"creation_time": stated})
        recording, _ = probed(path)
        assert (recording.started_at_source == "container") == believed
        assert (recording.started_at.isoformat() == "2024-03-05T06:07:08+00:00") == believed


def test_the_id_follows_the_content(tmp_path: Path) -> None:
    first = encode(tmp_path / "a.mp4", ticks=range(3))
    moved = tmp_path / "elsewhere.mp4"
    moved.write_bytes(first.read_bytes())
    other = encode(tmp_path / "b.mp4", ticks=range(4))
    ids = [probed(path)[0].recording_id for path in (first, moved, other)]
    assert ids[0] == ids[1] != ids[2]


def test_an_index_out_of_range_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", ticks=range(3))
    _, times = probed(path)
    with pytest.raises(IndexError):
        read(video(path), times, [3])
    assert picture(0).shape == (HEIGHT_PX, WIDTH_PX, 3)
