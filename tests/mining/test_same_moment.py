"""Footage that was uploaded twice is found, other footage is not: on drives that wander at random, and on real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from mining import same_moment
from mining.same_moment import OWN_S, Footage, SameMoments, first_of_each, same_moment_pairs

FINE_HZ = 20


def drive(seed: int, seconds: float = 60.0, width: int = 48) -> NDArray[np.float64]:
    """[frames at FINE_HZ, width] what a camera sees: every number wanders by itself and forgets within a few seconds."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((int(seconds * FINE_HZ), width))
    return np.asarray(lfilter([0.25], [1, -0.97], noise, axis=0)) * 0.05


def look(
    seen: NDArray[np.float64], start_s: float = 0.0, hz: float = 2.0, upload: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sample a drive from ``start_s`` on; another ``upload`` shifts all embeddings by one vector and adds noise."""
    index = np.arange(start_s * FINE_HZ, len(seen), FINE_HZ / hz).astype(np.int64)
    random = np.random.default_rng(1000 + upload)
    shift = 3 * random.standard_normal(seen.shape[1]) * 0.2 * (upload > 0)
    return (index - index[0]) / FINE_HZ, seen[index] + shift + 0.03 * random.standard_normal(
        (len(index), seen.shape[1])
    ) * (upload > 0)


def footage(*recordings: tuple[NDArray[np.float64], NDArray[np.float64]]) -> Footage:
    number = np.concatenate([np.full(len(t), n, np.int64) for n, (t, _) in enumerate(recordings)])
    return Footage(number, *(np.concatenate(side) for side in zip(*recordings, strict=True)))


def keep(frames: Footage, pool: NDArray[np.int64], taken: NDArray[np.int64]) -> list[int]:
    """Positions in the pool that are kept; asked for in two parts, which must not matter."""
    moments = SameMoments(frames, taken)
    moments.of(pool[::2])
    return np.flatnonzero(first_of_each(pool.tolist(), moments.of(pool), set(taken.tolist()))).tolist()


def rows(frames: Footage, recording: int) -> NDArray[np.int64]:
    return np.flatnonzero(frames.recording == recording)


@pytest.mark.parametrize(("start_s", "hz"), [(0.0, 2.0), (7.25, 2.0), (3.0, 4.0), (5.0, 1.0)])
def test_an_upload_that_is_cut_and_shifted_is_found_at_the_right_time(start_s: float, hz: float) -> None:
    frames = footage(look(drive(1)), look(drive(1), start_s, hz, upload=1), look(drive(2)))
    first, again = rows(frames, 0), rows(frames, 1)
    i, j = same_moment_pairs(frames, again, first)
    off = frames.time_s[first[j]] - frames.time_s[again[i]] - start_s
    assert np.abs(off).max() <= same_moment.SAME_S + 2 * same_moment.SLOT_S
    inner = frames.time_s[again] > 3
    assert np.isin(np.flatnonzero(inner), i).mean() > 0.95


def test_the_single_embeddings_of_that_upload_are_further_apart_than_different_moments() -> None:
    """Else the tests above would show nothing that comparing pictures one by one does not."""
    (_, first), (_, again) = look(drive(1)), look(drive(1), upload=1)
    same = np.linalg.norm(first - again, axis=1)
    other = np.linalg.norm(first[:-20] - first[20:], axis=1)
    assert same.min() > other.max()


def test_different_drives_share_no_moment() -> None:
    frames = footage(*(look(drive(seed), upload=seed) for seed in range(12)))
    everything = np.arange(len(frames))
    i, _ = same_moment_pairs(frames, everything, everything)
    assert len(i) == 0


def test_a_replay_within_one_recording_is_found_and_neighbours_are_not() -> None:
    seen = drive(3, seconds=40)
    replay = np.concatenate([seen, seen[10 * FINE_HZ : 25 * FINE_HZ]])  # 10 s..25 s again, from 40 s on
    frames = footage(look(replay), look(drive(4)), look(drive(5)))
    everything = rows(frames, 0)
    i, j = same_moment_pairs(frames, everything, everything)
    apart = np.abs(frames.time_s[i] - frames.time_s[j])
    assert len(i)
    assert apart.min() >= OWN_S
    assert np.abs(apart - 30).max() <= same_moment.SAME_S + 2 * same_moment.SLOT_S


def test_pictures_that_stand_still_are_no_evidence() -> None:
    still = np.ones((60 * FINE_HZ, 48)) * 0.2
    frames = footage(look(still), look(still), look(drive(1)), look(drive(2)))
    i, _ = same_moment_pairs(frames, rows(frames, 0), rows(frames, 1))
    assert len(i) == 0


def test_a_brightness_that_all_drives_share_is_no_evidence() -> None:
    """Every drive dims and brightens in step, much more than it changes otherwise."""
    wave = np.sin(np.arange(60 * FINE_HZ) / FINE_HZ)[:, None] * np.ones(48)
    frames = footage(*(look(drive(seed) + 0.3 * wave) for seed in range(8)))
    everything = np.arange(len(frames))
    i, _ = same_moment_pairs(frames, everything, everything)
    assert len(i) == 0


def test_of_one_moment_the_first_of_the_pool_stays_and_what_is_taken_goes_first() -> None:
    frames = footage(look(drive(1)), look(drive(1), upload=1), look(drive(1), upload=2), look(drive(2)))
    at = [rows(frames, n) for n in range(4)]
    pool = np.array([at[1][40], at[0][40], at[3][40], at[0][80], at[2][41]])
    assert keep(frames, pool, np.zeros(0, np.int64)) == [0, 2, 3]
    assert keep(frames, pool, at[2][80:81]) == [0, 2]
    assert keep(frames, pool[:0], at[2][80:81]) == []


def test_a_dropped_frame_drops_no_other() -> None:
    """Three uploads, each frame 1.5 s after the other: the middle one is near both, the outer ones are not near each other."""
    frames = footage(look(drive(1)), look(drive(1), upload=1), look(drive(1), upload=2), look(drive(2)))
    at = [rows(frames, n) for n in range(3)]
    pool = np.array([at[0][40], at[1][44], at[2][48]])
    i, j = same_moment_pairs(frames, pool, pool)
    assert {(0, 1), (1, 2)} <= set(zip(i.tolist(), j.tolist(), strict=True))
    assert (0, 2) not in set(zip(i.tolist(), j.tolist(), strict=True))
    assert keep(frames, pool, pool[:0]) == [0, 2]


def test_blocks_change_nothing_and_the_screen_costs_no_frame_all_its_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = footage(*(look(drive(n // 2, seconds=30), start_s=n / 3, upload=n) for n in range(4)))
    everything = np.arange(len(frames))
    found = same_moment_pairs(frames, everything, everything)
    monkeypatch.setattr(same_moment, "_BLOCK", 37)
    in_blocks = same_moment_pairs(frames, everything, everything)
    monkeypatch.setattr(same_moment, "_SCREEN_SIMILARITY", -2.0)
    unscreened = same_moment_pairs(frames, everything, everything)
    assert np.array_equal(found, in_blocks)
    pairs, without = (set(zip(*map(np.ndarray.tolist, sides), strict=True)) for sides in (found, unscreened))
    assert pairs <= without
    assert len(without - pairs) <= 0.05 * len(without)
    assert {i for i, _ in without} == {i for i, _ in pairs}


def test_too_little_footage_says_nothing() -> None:
    frames = footage(look(drive(1, 10)), look(drive(1, 10), upload=1))
    assert keep(frames, np.arange(len(frames)), np.zeros(0, np.int64)) == list(range(len(frames)))


@pytest.mark.parametrize(
    ("recording", "time_s", "words"),
    [
        ([0, 0], [1.0, 0.5], "in the order"),
        ([1, 0], [0.0, 1.0], "in the order"),
        ([0, 0], [0.0], "needs time_s"),
    ],
)
def test_footage_out_of_order_is_refused(recording: list[int], time_s: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Footage(np.array(recording), np.array(time_s), np.zeros((2, 3)))


@pytest.mark.slow
def test_the_clips_that_share_footage_are_found_and_no_others(shared_data: Path) -> None:
    """Frame n of kartik_dashcam2, cropped otherwise, is frame n + 84 of kartik_dashcam1, up to an inserted close-up."""
    import detectors
    from detectors.classes import ClassMap
    from detectors.preprocess import Batch
    from mining.config import shipped
    from mining.footage import Defaults, Source, frame_times, read

    spec = detectors.DetectorSpec(str(shared_data / "weights" / "nanodet_m.onnx"), head="nanodet")
    detector = detectors.load(spec, ClassMap.load(shipped("classes.toml")))
    clips = []
    for name, seconds in (
        ("kartik_dashcam1", 12),
        ("kartik_dashcam2", 8),
        ("tmo324_seattlestreet1", 7),
        ("tmo324_desert", 6),
    ):
        source = Source(str(shared_data / "video" / f"{name}.mp4"), "video")
        times = frame_times(source, Defaults(1.0))
        wanted = list(range(0, seconds * 30, 15))
        frames_seen = [frame for frame in read(source, times, wanted) if frame.rgb is not None]
        seen = np.concatenate(
            [detector.predict(Batch([f.rgb])).embeddings for f in frames_seen if f.rgb is not None]
        )
        clips.append((np.array([f.frame_index / 30 for f in frames_seen]), seen.astype(np.float64)))
    frames = footage(*clips)
    everything = np.arange(len(frames))
    i, j = same_moment_pairs(frames, everything, everything)
    assert set(np.unique(frames.recording[i])) == {0, 1}
    second = rows(frames, 1)
    pair = (frames.recording[i] == 1) & (frames.recording[j] == 0)
    assert np.isin(second, i[pair]).mean() >= 0.9
    # A zoomed picture also looks like a slightly later one.
    off = frames.time_s[j[pair]] - frames.time_s[i[pair]] - 84 / 30
    assert np.abs(off).max() <= same_moment.SAME_S + 2.5 * same_moment.SLOT_S
    assert abs(np.median(off)) <= 1.0


def test_what_an_upload_shows_at_its_very_end_is_known_by_the_frames_that_lead_up_to_it() -> None:
    """What the other upload shows 1 s to 2 s later has too few pictures in common with it to be told by these alone."""
    alone, known = 0, 0
    for seed in range(1, 7):
        grainy = 0.06 * np.random.default_rng(seed).standard_normal((25, 48))
        at_s, short = look(drive(seed)[: 12 * FINE_HZ + FINE_HZ // 2], upload=1)
        frames = footage(look(drive(seed)), (at_s, short + grainy), look(drive(seed + 10)))
        whole, cut = rows(frames, 0), rows(frames, 1)
        last, later = cut[-1:], whole[26:29]  # at 12 s; 13 s to 14 s
        alone += len(same_moment_pairs(frames, later, last)[0])
        moments = SameMoments(frames, np.zeros(0, np.int64))
        moments.of(np.array([whole[12], cut[12]]))  # by this the footage is known to be shared
        same = moments.of(np.concatenate([last, later, whole[33:]]))
        assert int(last[0]) in same
        known += len(same[int(last[0])] & set(later.tolist()))
        assert not same[int(last[0])] & set(whole[33:].tolist())
    assert alone < 12
    assert known == 3 * 6


def test_a_scene_shown_again_within_seconds_is_told_by_the_other_upload() -> None:
    seen = drive(3, seconds=60)
    edited = np.concatenate(
        [seen[: 30 * FINE_HZ], seen[24 * FINE_HZ : 40 * FINE_HZ]]
    )  # 24 s..30 s again, 6 s later
    frames = footage(look(seen), look(edited, upload=1), look(drive(4)), look(drive(5)))
    whole, again = rows(frames, 0), rows(frames, 1)
    first, second = again[2 * 27], again[2 * 33]  # both are 27 s
    alone = SameMoments(frames, np.zeros(0, np.int64))
    assert int(second) not in alone.of(np.array([first, second])).get(int(first), set())
    moments = SameMoments(frames, np.zeros(0, np.int64))
    moments.of(np.array([whole[2 * 27]]))
    assert int(second) in moments.of(np.array([first, second]))[int(first)]
    played_on = again[2 * 10], again[2 * 11]
    assert not moments.of(np.array(played_on)).get(int(played_on[0]), set()) & {int(played_on[1])}
