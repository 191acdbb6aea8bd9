"""Finding footage, image folders, sidecars and telemetry: real folders, hostile names, hostile content."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mining.footage import (
    Defaults,
    FootageError,
    Source,
    companions,
    content_digest,
    discover,
    load_sidecar,
    load_telemetry,
    probe,
    read,
    sampled_indices,
    stat_signature,
)
from mining.footage.image_header import image_size
from mining.footage.timeline import ns_to_ticks, ticks_to_ns
from mining.types import FrameTimes
from tests.mining.footage_clips import encode, picture

DEFAULTS = Defaults(image_rate_hz=2.0)
START = datetime(2026, 5, 4, 21, 15, tzinfo=UTC)


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_image(path: Path, rgb: np.ndarray | None = None, options: list[int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = cv2.cvtColor(picture(3) if rgb is None else rgb, cv2.COLOR_RGB2BGR)
    assert cv2.imwrite(str(path), bgr, options or [])
    return path


def found(*paths: Path | str) -> list[str]:
    """Names below the common folder, of what is found without a problem."""
    sources, problems = discover([str(p) for p in paths])
    assert problems == []
    return [f"{s.kind}:{'/'.join(Path(s.path).parts[-2:])}" for s in sources]


# Finding


def test_a_folder_gives_its_videos_and_image_folders(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in [
        "a.mp4",
        "B.MKV",
        "x/c.hevc",
        "x/seq/1.jpg",
        "x/seq/deeper/2.PNG",
        ".hidden.mp4",
        ".cache/d.mp4",
    ]:
        touch(root / name)
    for name in ["a.toml", "a.csv", "a.truth.parquet", "notes.txt", "x/masks/1.png", "readme"]:
        touch(root / name)
    assert found(root) == [
        "video:root/B.MKV", "video:root/a.mp4", "video:x/c.hevc", "images:x/seq", "images:seq/deeper",
    ]  # fmt: skip
    assert found(root / "x" / "masks") == ["images:x/masks"]


def test_files_globs_and_lists_name_the_same_recordings_once(tmp_path: Path) -> None:
    for name in ["a.mp4", "x/b.mp4", "x/y/c.mkv", "seq/1.jpg", "seq/2.jpg"]:
        touch(tmp_path / name)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    everything = found(tmp_path)
    assert len(everything) == 4
    assert found(tmp_path / "**" / "*.m*", tmp_path / "seq" / "*.jpg", tmp_path / "a.mp4") == everything
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "drives.txt").write_bytes(b"\xef\xbb\xbf# last night\r\n../a.mp4\r\n\r\n../x\n@more.drives\n")
    (lists / "more.drives").write_text("../s*q\n")
    assert found(lists / "drives.txt") == found("@" + str(lists / "drives.txt")) == everything


def test_links_in_circles_end(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "a.mp4")
    for n in range(6):
        (tmp_path / "a" / f"loop{n}").symlink_to(tmp_path)
        (tmp_path / f"loop{n}").symlink_to(tmp_path / "a")
    assert found(tmp_path) == ["video:a/a.mp4"]
    assert found(tmp_path / "**" / "*.mp4") == ["video:a/a.mp4"]


def test_every_path_without_footage_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "self.txt").write_text("self.txt\n")
    expected = {
        tmp_path / "missing": "no such file",
        tmp_path / "empty": "no video and no image",
        tmp_path / "*.mkv": "matches no video",
        tmp_path / "a**b" / "*.mp4": "",
        touch(tmp_path / "a.doc"): "unknown ending",
        touch(tmp_path / "a.jpg"): "single image",
        touch(tmp_path / "none.lst", b"# nothing\n"): "names nothing",
        tmp_path / "self.txt": "names itself",
        tmp_path / "dangling.mp4": "leads nowhere",
        tmp_path / "pipe.mp4": "not a regular file",
        f"@{tmp_path / 'no-list'}": "no such list",
        f"{tmp_path}/nul\0.mp4": "NUL",
    }
    for path, reason in expected.items():
        sources, problems = discover([str(path)])
        assert sources == []
        assert len(problems) == 1
        assert reason in problems[0].reason
        assert "\n" not in problems[0].reason


def test_hostile_names_neither_crash_nor_hide(tmp_path: Path) -> None:
    names = [
        'it\'s "quoted".mp4',
        "new\nline.mp4",
        "\x1b[31mred.mp4",
        "a*b[1]?.mp4",
        "ünï.mp4",
        "@at.mp4",
        "%d.mp4",
    ]
    for name in names:
        touch(tmp_path / name)
    sources, problems = discover([str(tmp_path)])
    assert sorted(Path(s.path).name for s in sources) == sorted(names)
    assert problems == []
    assert [Path(s.path).name for s in discover([str(tmp_path / "a*b[1]?.mp4")])[0]] == ["a*b[1]?.mp4"]
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff\xfe.mp4")).write_bytes(b"x")
    sources, problems = discover([str(tmp_path)])
    assert len(sources) == len(names)
    assert [p.path for p in problems] == [f"{tmp_path}/bad\\xff\\xfe.mp4"]
    problems[0].path.encode()
    assert "UTF-8" in problems[0].reason
    for source in sources:
        recording, _ = probe(source, DEFAULTS)
        assert recording.status == "unreadable"


# Image folders


def test_camvid_is_one_frame_an_image(shared_data: Path) -> None:
    folder = shared_data / "sequences" / "camvid" / "0006R0" / "images"
    source = Source(str(folder), "images")
    recording, times = probe(source, Defaults(image_rate_hz=1.0))
    names = sorted(os.listdir(folder))
    assert (recording.status, recording.frame_count, recording.frame_rate_hz) == ("ok", len(names), 1.0)
    assert (recording.width_px, recording.height_px) == (480, 360)
    assert recording.drive_id == "0006R0/images"
    assert (np.diff(times.pts_ns) == 10**9).all()
    for frame in read(source, times, [0, 50, len(names) - 1]):
        bgr = cv2.imread(str(folder / names[frame.frame_index]))
        np.testing.assert_array_equal(frame.rgb, bgr[..., ::-1])


def test_frame10_comes_after_frame9_and_the_sidecar_sets_the_rate(tmp_path: Path) -> None:
    folder = tmp_path / "seq"
    for n in (9, 10, 100, 1):
        write_image(folder / f"frame{n}.png", picture(n))
    (tmp_path / "seq.toml").write_text("frame_rate_hz = 3\n")
    source = Source(str(folder), "images")
    recording, times = probe(source, DEFAULTS)
    assert times.pts_ns.tolist() == [0, 333_333_333, 666_666_667, 1_000_000_000]
    assert recording.duration_s == pytest.approx(4 / 3)
    for frame, n in zip(read(source, times, range(4)), (1, 9, 10, 100), strict=True):
        np.testing.assert_array_equal(frame.rgb, picture(n))


@pytest.mark.parametrize(("digits", "unit_ns"), [(19, 1), (16, 1_000), (13, 1_000_000)])
def test_timestamps_in_names_are_the_times(tmp_path: Path, digits: int, unit_ns: int) -> None:
    first_ns = 1_777_929_300_123_000_000
    for n, late_ns in enumerate([0, 50_000_000, 300_000_000]):
        name = str((first_ns + late_ns) // unit_ns)
        assert len(name) == digits
        write_image(tmp_path / f"cam{9 - n}_{name}.png", picture(n))
    source = Source(str(tmp_path), "images")
    recording, times = probe(source, DEFAULTS)
    assert (times.pts_ns - first_ns).tolist() == [0, 50_000_000, 300_000_000]
    assert recording.started_at_source == "container"
    assert recording.started_at == datetime(2026, 5, 4, 21, 15, 0, 123000, tzinfo=UTC)
    for frame, n in zip(read(source, times, range(3)), range(3), strict=True):
        np.testing.assert_array_equal(frame.rgb, picture(n))


def test_numbers_that_are_no_plausible_time_are_only_numbers(tmp_path: Path) -> None:
    for name in ("899999999999999999", "1777929300123000000"):
        write_image(tmp_path / f"{name}.png")
    _, times = probe(Source(str(tmp_path), "images"), DEFAULTS)
    assert times.pts_ns.tolist() == [0, 500_000_000]


def test_a_bad_image_costs_one_frame(tmp_path: Path) -> None:
    whole = write_image(tmp_path / "0.jpg").read_bytes()
    touch(tmp_path / "1.jpg", whole[: len(whole) // 2])
    touch(tmp_path / "2.png", b"not an image")
    touch(tmp_path / "3.png", b"")
    write_image(tmp_path / "4.png")
    bomb = bytearray((tmp_path / "4.png").read_bytes())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    touch(tmp_path / "5.png", bytes(bomb))
    touch(tmp_path / "6.jpg", b"GIF89a" + whole)
    source = Source(str(tmp_path), "images")
    recording, times = probe(source, DEFAULTS)
    assert recording.status == "ok"
    frames = list(read(source, times, range(7)))
    assert [f.rgb is not None for f in frames] == [True, False, False, False, True, False, False]
    for frame in frames:
        if frame.rgb is None:
            assert str(frame.error).startswith(f"{frame.frame_index}.")
            assert "\n" not in str(frame.error)
    assert "cut off" in str(frames[1].error)
    assert "60000x60000" in str(frames[5].error)


def test_a_folder_without_any_good_image_is_unreadable(tmp_path: Path) -> None:
    touch(tmp_path / "1.jpg", b"no")
    recording, times = probe(Source(str(tmp_path), "images"), DEFAULTS)
    assert recording.status == "unreadable"
    assert "1.jpg" in str(recording.error)
    assert len(times) == 0


def test_all_kinds_of_pixels_become_8_bit_rgb(tmp_path: Path) -> None:
    rgb = picture(7)
    grey16 = np.arange(96 * 160, dtype=np.uint16).reshape(96, 160) * 4
    cv2.imwrite(str(tmp_path / "grey16.png"), grey16)
    cv2.imwrite(str(tmp_path / "grey16.tif"), grey16)
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([rgb[..., ::-1], rgb[..., 0]]))
    for name in ("a.bmp", "a.tiff", "a.png"):
        write_image(tmp_path / name, rgb)
    write_image(tmp_path / "a.webp", rgb, [cv2.IMWRITE_WEBP_QUALITY, 101])
    source = Source(str(tmp_path), "images")
    _, times = probe(source, DEFAULTS)
    for name, frame in zip(sorted(os.listdir(tmp_path)), read(source, times, range(len(times))), strict=True):
        assert frame.rgb is not None, name
        assert frame.rgb.dtype == np.uint8
        expected = (
            np.repeat((grey16 >> 8).astype(np.uint8)[..., None], 3, axis=2) if "grey16" in name else rgb
        )
        np.testing.assert_allclose(frame.rgb, expected, atol=1, err_msg=name)
        assert image_size((tmp_path / name).read_bytes()) == (160, 96)


def test_exif_orientation_turns_the_image_upright(tmp_path: Path) -> None:
    plain = write_image(tmp_path / "plain.jpg").read_bytes()
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: turn clockwise
    exif = b"Exif\0\0" + tiff
    turned = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    folder = tmp_path / "turned"
    touch(folder / "turned.jpg", turned)
    source = Source(str(folder), "images")
    recording, times = probe(source, DEFAULTS)
    (frame,) = read(source, times, [0])
    upright = np.rot90(cv2.imread(str(tmp_path / "plain.jpg"))[..., ::-1], -1)
    np.testing.assert_array_equal(frame.rgb, upright)
    assert (recording.width_px, recording.height_px) == (96, 160)


def test_the_id_of_a_folder_follows_names_and_content(tmp_path: Path) -> None:
    first, copy, renamed, changed = (tmp_path / name for name in ("first", "copy", "renamed", "changed"))
    for folder in (first, copy, renamed, changed):
        write_image(folder / "1.png", picture(1))
        write_image(folder / "2.png", picture(2))
    (renamed / "2.png").rename(renamed / "3.png")
    write_image(changed / "2.png", picture(5))
    touch(copy / "notes.txt")
    digests = [content_digest(Source(str(f), "images")) for f in (first, copy, renamed, changed)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    before = stat_signature(Source(str(first), "images"))
    os.utime(first / "2.png", ns=(before[1] + 10**9, before[1] + 10**9))
    assert stat_signature(Source(str(first), "images")) == (before[0], before[1] + 10**9)
    assert stat_signature(Source(str(tmp_path / "gone"), "images")) == (0, 0)


def test_a_folder_that_changed_since_it_was_indexed_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png")
    source = Source(str(tmp_path), "images")
    _, times = probe(source, DEFAULTS)
    write_image(tmp_path / "0.png")
    with pytest.raises(FootageError, match="index it again"):
        list(read(source, times, [0]))


# Sampling and times


@given(
    gaps_ns=st.lists(st.integers(0, 3 * 10**9), max_size=40),
    start_ns=st.integers(-(10**15), 10**18),
    sample_hz=st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0, 7.5, 10.0, 100.0]),
)
def test_sampling_takes_the_first_frame_at_or_after_each_tick(
    gaps_ns: list[int], start_ns: int, sample_hz: float
) -> None:
    pts_ns = start_ns + np.cumsum([0, *gaps_ns])
    picked = sampled_indices(FrameTimes(pts_ns), sample_hz, None)
    expected, tick = set(), 0
    while (late_ns := tick / sample_hz * 1e9 - 0.5) <= pts_ns[-1] - pts_ns[0]:
        expected.add(next(n for n, t in enumerate(pts_ns) if t - pts_ns[0] >= late_ns))
        tick += 1
        if tick > 3000:
            return
    assert picked.tolist() == sorted(expected)


def test_sampling_at_the_edges() -> None:
    times = FrameTimes(np.arange(10) * 40_000_000)
    assert sampled_indices(times, None, None).tolist() == list(range(10))
    assert sampled_indices(times, None, 4).tolist() == [0, 4, 8]
    assert sampled_indices(times, 1000.0, None).tolist() == list(range(10))
    assert sampled_indices(times, 25.0, None).tolist() == list(range(10))
    assert sampled_indices(FrameTimes(np.empty(0, np.int64)), 2.0, None).tolist() == []
    for sample_hz, every in [(0.0, None), (-1.0, None), (float("nan"), None), (None, 0), (1.0, 1)]:
        with pytest.raises(ValueError, match=r"sample_hz|every"):
            sampled_indices(times, sample_hz, every)


@given(st.integers(-(2**60), 2**60), st.fractions(min_value="1/10000000", max_value=10))
def test_times_are_rounded_once_and_found_again(ticks: int, tick_s) -> None:  # type: ignore[no-untyped-def]
    ns = ticks_to_ns(ticks, tick_s)
    assert abs(ns - ticks * tick_s * 10**9) <= 0.5
    assert ns_to_ticks(ns, tick_s) == ticks


# Sidecars


def test_a_sidecar_says_what_the_footage_does_not(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", ticks=range(5))
    source = Source(str(path), "video")
    plain, _ = probe(source, DEFAULTS)
    assert (plain.drive_id, plain.camera, plain.vehicle_id) == (f"{tmp_path.name}/a", "front", None)
    assert plain.started_at_source == "file_time"
    assert abs(plain.started_at - datetime.now(UTC)) < timedelta(hours=1)
    (tmp_path / "a.toml").write_text(
        'drive_id = "d1"\nvehicle_id = "car 7"\ncamera = "rear"\nstarted_at = 2026-05-04T23:15:00+02:00\n'
        "[tags]\nweather = 'rain'\nlanes = 3\nwet = true\nday = 2026-05-04\n"
    )
    full, _ = probe(source, DEFAULTS)
    assert full.status == "ok"
    assert (full.drive_id, full.vehicle_id, full.camera) == ("d1", "car 7", "rear")
    assert (full.started_at, full.started_at_source) == (START, "sidecar")
    assert full.tags == {"weather": "rain", "lanes": "3", "wet": "true", "day": "2026-05-04"}
    assert full.recording_id == plain.recording_id
    (tmp_path / "a.toml").rename(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps({"drive_id": "d2", "started_at": "2026-05-04 21:15"}))
    other, _ = probe(source, DEFAULTS)
    assert (other.drive_id, other.started_at) == ("d2", START)
    assert companions(source) == {"sidecar": str(tmp_path / "a.json")}


BAD_SIDECARS = {
    "unknown.toml": ("colour = 'red'", "unknown key 'colour'"),
    "type.toml": ("drive_id = 7", "drive_id must be text"),
    "empty.toml": ("camera = ''", "camera must be 1 to 256"),
    "long.toml": (f"camera = '{'x' * 300}'", "camera must be 1 to 256"),
    "rate.toml": ("frame_rate_hz = 0", "frame_rate_hz must be above 0"),
    "nan.toml": ("frame_rate_hz = nan", "frame_rate_hz must be above 0"),
    "bool.toml": ("frame_rate_hz = true", "frame_rate_hz must be a number"),
    "day.toml": ("started_at = 2026-05-04", "started_at must be a date and time"),
    "year.json": ('{"started_at": "0001-01-01T00:00:00+14:00"}', "between 1970 and 2200"),
    "when.json": ('{"started_at": "yesterday"}', "started_at must be a date and time"),
    "tags.json": ('{"tags": {"a": [1]}}', "tags.'a' must be"),
    "nul.json": ('{"drive_id": "a\\u0000b"}', "valid text"),
    "half.json": ('{"drive_id": "\\ud800"}', "valid text"),
    "deep.json": ("[" * 200_000, "nested too deeply"),
    "list.json": ("[]", "must hold keys"),
    "broken.toml": ("a = = 1", "cannot be parsed"),
    "number.json": ('{"drive_id": ' + "9" * 10_000 + "}", "cannot be parsed"),
    "huge.toml": ("#" * 1_000_001, "larger than"),
}


@pytest.mark.parametrize("name", BAD_SIDECARS)
def test_a_bad_sidecar_is_one_clear_line_and_stops_nothing(tmp_path: Path, name: str) -> None:
    content, reason = BAD_SIDECARS[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(FootageError) as caught:
        load_sidecar(str(tmp_path / name))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"sidecar {name}: ")
    write_image(tmp_path / Path(name).stem / "1.png")
    recording, times = probe(Source(str(tmp_path / Path(name).stem), "images"), DEFAULTS)
    assert (recording.status, recording.error) == ("partial", str(caught.value))
    assert len(times) == 1


def test_two_sidecars_are_refused(tmp_path: Path) -> None:
    for name in ("a.toml", "a.json"):
        (tmp_path / name).write_text("{}" if name.endswith("json") else "")
    with pytest.raises(FootageError, match=r"a\.json lies beside it"):
        load_sidecar(str(tmp_path / "a.toml"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
sidecar_keys = st.sampled_from(["drive_id", "vehicle_id", "camera", "started_at", "frame_rate_hz", "tags"])


@given(
    content=st.binary(max_size=200)
    | st.dictionaries(sidecar_keys, json_values).map(lambda d: json.dumps(d).encode())
)
def test_any_sidecar_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("sidecar")
    refusals: list[str] = []
    for name in ("a.json", "b.toml"):
        path = touch(folder / name, content)
        try:
            sidecar = load_sidecar(str(path))
        except FootageError as error:
            refusals.append(str(error))
            continue
        for text in (
            sidecar.drive_id,
            sidecar.vehicle_id,
            sidecar.camera,
            *sidecar.tags,
            *sidecar.tags.values(),
        ):
            assert text is None or ("\0" not in text and text.encode() is not None)
        assert sidecar.started_at is None or sidecar.started_at.tzinfo is not None
    assert not any("\n" in refusal for refusal in refusals)


# Telemetry


def telemetry(tmp_path: Path, text: str) -> Path:
    return touch(tmp_path / "a.csv", text.encode())


def test_telemetry_is_interpolated_between_neighbours(tmp_path: Path) -> None:
    path = telemetry(
        tmp_path, "time_s,speed,Lat,lng,heading,note,battery_v\n0,10,50,8,0,hi,12\n1,20,51,9,10,,13\n"
    )
    at = load_telemetry(str(path), START).at(np.array([0.0, 0.25, 1.0]))
    assert set(at) == {"speed_mps", "latitude_deg", "longitude_deg", "heading_deg", "battery_v"}
    np.testing.assert_allclose(at["speed_mps"], [10, 12.5, 20])
    np.testing.assert_allclose(at["latitude_deg"], [50, 50.25, 51])
    np.testing.assert_allclose(at["battery_v"], [12, 12.25, 13])


def test_angles_go_the_short_way_round(tmp_path: Path) -> None:
    path = telemetry(tmp_path, "time_s,heading_deg,longitude_deg\n0,350,179.5\n1,10,-179.5\n2,350,179.5\n")
    at = load_telemetry(str(path), START).at(np.array([0.25, 0.75, 1.5]))
    np.testing.assert_allclose(at["heading_deg"], [355, 5, 0])
    np.testing.assert_allclose(at["longitude_deg"], [179.75, -179.75, -180])


def test_missing_stays_missing(tmp_path: Path) -> None:
    path = telemetry(
        tmp_path, "time_s,speed_mps,lat\n10,5,95\n0,1,50\n,7,7\n0,99,99\n2,inf,52\nbad\n3,4,-91\n"
    )
    loaded = load_telemetry(str(path), START)
    assert loaded.seconds.tolist() == [0, 2, 3, 10]
    at = loaded.at(np.array([-0.1, 0.0, 1.0, 1.5, 2.5, 3.0, 3.9, 4.5, 9.5, 10.0, 10.1]))
    expected = [np.nan, 1, 2, np.nan, 3.5, 4, 4 + 0.9 / 7, np.nan, 5 - 0.5 / 7, 5, np.nan]
    # speed is missing at 2 s: between 0 and 3 s the nearest sample is more than 1 s away at 1.5 s
    np.testing.assert_allclose(at["speed_mps"], expected)
    np.testing.assert_allclose(at["latitude_deg"], [np.nan, 50, 51, 51.5] + [np.nan] * 7)


@pytest.mark.parametrize("times", [
    ["2026-05-04T21:15:01Z", "2026-05-04T23:15:02+02:00", "2026-05-04T21:15:03"],
    ["1777929301", "1777929302.0", "1777929303"],
    ["2026-05-04 21:15:01", "2026-05-04 21:15:02", "2026-05-04 21:15:03"],
])  # fmt: skip
def test_absolute_times_count_from_the_first_frame(tmp_path: Path, times: list[str]) -> None:
    path = telemetry(tmp_path, "time,speed_mps\n" + "".join(f"{t},{n}\n" for n, t in enumerate(times)))
    loaded = load_telemetry(str(path), START)
    np.testing.assert_allclose(loaded.seconds, [1, 2, 3])
    np.testing.assert_allclose(loaded.at(np.array([1.5]))["speed_mps"], [0.5])


def test_parquet_telemetry_gives_the_same(tmp_path: Path) -> None:
    moments = [START + timedelta(seconds=n) for n in range(3)]
    for column in (
        pa.array(moments),
        pa.array([m.replace(tzinfo=None) for m in moments], pa.timestamp("ns")),
    ):
        table = pa.table(
            {"time": column, "speed_mps": pa.array([1, None, 3], pa.int32()), "note": ["a", "b", "c"]}
        )
        pq.write_table(table, tmp_path / "a.parquet")
        loaded = load_telemetry(str(tmp_path / "a.parquet"), START)
        np.testing.assert_allclose(loaded.at(np.array([0.0, 0.5, 2.0]))["speed_mps"], [1, 1.5, 3])
        assert list(loaded.columns) == ["speed_mps"]


@pytest.mark.parametrize(("content", "reason"), [
    ("speed\n1\n", "one time column"),
    ("time,time_s\n1,1\n", "one time column"),
    ("time_s,speed,speed_mps\n1,1,1\n", "two columns for 'speed_mps'"),
    ("time_s,speed\nx,1\n", "time_s must be numbers"),
    ("time_s,speed\n", "no row"),
    ("time_s,lat\n1,x\n", "latitude_deg must be numbers"),
    ("time,speed\nnoon,1\n", "no row with a time"),
    ("", "cannot be parsed"),
    ("time_s,\n1,2\n", "a column's name"),
    (",".join(f"c{n}" for n in range(300)) + "\n", "300 columns"),
])  # fmt: skip
def test_bad_telemetry_is_one_clear_line(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(FootageError, match=reason) as caught:
        load_telemetry(str(telemetry(tmp_path, content)), START)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("telemetry a.csv: ")


def test_a_file_that_is_no_parquet_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FootageError, match=r"telemetry a\.parquet: cannot be parsed"):
        load_telemetry(str(touch(tmp_path / "a.parquet", b"PAR1 no")), START)
    with pytest.raises(FootageError, match=r"telemetry gone\.csv: cannot be read"):
        load_telemetry(str(tmp_path / "gone.csv"), START)
    pq.write_table(pa.table({"time_s": [1.0]}), tmp_path / "b.parquet")
    touch(tmp_path / "b.csv", b"time_s\n1\n")
    with pytest.raises(FootageError, match=r"b\.csv lies beside it"):
        load_telemetry(str(tmp_path / "b.parquet"), START)


cells = st.sampled_from(
    ["", "0", "1", "-1.5", "1e308", "nan", "inf", "x", "2026-05-04T21:15:00Z", "true", '"a', "9" * 30]
)
headers = st.lists(
    st.sampled_from(["time", "time_s", "speed", "lat", "heading", "x", "", "\x00"]), min_size=1, max_size=4
)


@given(
    content=st.binary(max_size=120)
    | st.tuples(headers, st.lists(st.lists(cells, max_size=4), max_size=6)).map(
        lambda t: "\n".join(",".join(row) for row in [t[0], *t[1]]).encode()
    ),
    wanted=st.lists(st.floats(allow_nan=False), max_size=5),
)
def test_any_telemetry_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, wanted: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("telemetry")
    refusals: list[str] = []
    for name in ("a.csv", "b.parquet"):
        try:
            loaded = load_telemetry(str(touch(folder / name, content)), START)
        except FootageError as error:
            refusals.append(str(error))
            continue
        assert (np.diff(loaded.seconds) > 0).all()
        for values in loaded.at(np.array(wanted, dtype=np.float64)).values():
            assert values.shape == (len(wanted),)
            assert not np.isinf(values).any()
    assert not any("\n" in refusal for refusal in refusals)
