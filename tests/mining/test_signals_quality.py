"""Image quality, against plain numpy, and on real clips."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from mining.signals.quality import compare_with_previous, difference_hash, hamming, measure_quality


def scene(height=360, width=640, seed=0):
    """Smooth random colours with fine detail."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(20, 230, (9, 16, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def test_luma_and_sharpness_equal_numpy():
    image = scene(180, 320)  # not wider than 320: measured as it is
    got = measure_quality(image)
    luma = np.round(image.astype(np.float64) @ [0.299, 0.587, 0.114])
    assert got.luma_mean == pytest.approx(luma.mean(), abs=0.01)
    edge = np.pad(luma, 1, mode="reflect")
    laplacian = edge[:-2, 1:-1] + edge[2:, 1:-1] + edge[1:-1, :-2] + edge[1:-1, 2:] - 4 * luma
    assert got.sharpness == pytest.approx(laplacian.var(), rel=0.01)


def test_red_green_and_blue_are_not_mixed_up():
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        image = np.zeros((40, 60, 3), np.uint8)
        image[..., channel] = 200
        assert measure_quality(image).luma_mean == pytest.approx(200 * weight, abs=0.6)


def test_larger_images_are_measured_at_the_same_width():
    image = scene()
    double = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)
    small, large = measure_quality(image), measure_quality(double)
    assert large.sharpness == pytest.approx(small.sharpness, rel=0.02)
    assert large.luma_mean == pytest.approx(small.luma_mean, abs=0.2)
    assert hamming(large.perceptual_hash, small.perceptual_hash) == 0


def test_blur_and_overexposure_show():
    image = scene()
    blurred = cv2.GaussianBlur(image, (0, 0), 4)
    assert measure_quality(blurred).sharpness < 0.1 * measure_quality(image).sharpness
    assert measure_quality(image).overexposed_share == pytest.approx(0, abs=0.02)
    image[:90] = 255
    assert measure_quality(image).overexposed_share == pytest.approx(0.25, abs=0.02)


def test_hash_bits_stand_where_the_docs_say():
    rising = np.tile(np.arange(0, 180, 20, dtype=np.uint8), (8, 1))
    assert difference_hash(rising) == np.uint64(2**64 - 1)
    assert difference_hash(rising[:, ::-1].copy()) == np.uint64(0)
    one_step = np.zeros((8, 9), np.uint8)
    one_step[0, 1:] = 50
    assert difference_hash(one_step) == np.uint64(2**63)


def test_hash_survives_scaling_recompression_and_brightness():
    image = scene()
    hash_ = measure_quality(image).perceptual_hash
    jpeg = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    for same in (
        jpeg,
        cv2.resize(image, (480, 270), interpolation=cv2.INTER_AREA),
        (image * 0.6 + 20).astype(np.uint8),
    ):
        assert hamming(measure_quality(same).perceptual_hash, hash_) <= 3
    others = np.array([measure_quality(scene(seed=s)).perceptual_hash for s in range(1, 30)])
    assert hamming(others, hash_).min() > 12


def test_hamming_counts_bits_and_broadcasts():
    a = np.array([0, 1, 2**64 - 1], dtype=np.uint64)
    assert hamming(a[:, None], a).tolist() == [[0, 1, 64], [1, 0, 63], [64, 63, 0]]


def test_grey_equals_rgb_and_odd_sizes_work():
    grey = scene()[..., 0]
    assert measure_quality(grey) == measure_quality(np.repeat(grey[..., None], 3, axis=2))
    for shape in ((1, 1), (1, 2000), (2000, 1), (3, 5)):
        got = measure_quality(np.full(shape, 9, np.uint8))
        assert (got.luma_mean, got.sharpness, got.overexposed_share) == (9.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(bad):
    with pytest.raises(ValueError, match="measure_quality"):
        measure_quality(bad)


def frames_of(path, every):
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i % every == 0:
                yield frame.to_ndarray(format="rgb24")


def test_real_clips(shared_data):
    night = [measure_quality(x) for x in frames_of(shared_data / "video" / "tmo324_night.mp4", 200)]
    day = [measure_quality(x) for x in frames_of(shared_data / "video" / "tmo324_desert.mp4", 200)]
    assert np.mean([q.luma_mean for q in night]) == pytest.approx(6, abs=2)  # as the data's README says
    assert min(q.luma_mean for q in day) > 60
    # 46 of the 89 frames repeat the one before
    hashes = np.array(
        [
            measure_quality(x).perceptual_hash
            for x in frames_of(shared_data / "video" / "hifza_dashcam.mp4", 1)
        ]
    )
    assert np.count_nonzero(hamming(hashes[1:], hashes[:-1]) == 0) >= 46


def compared(images):
    """``compare_with_previous`` on images."""
    found = [measure_quality(image) for image in images]
    return compare_with_previous(
        np.array([q.perceptual_hash for q in found], np.uint64),
        np.array([q.luma_mean for q in found]),
        np.array([q.sharpness for q in found]),
        np.array([q.luma_histogram for q in found]),
    )


def test_histogram_is_the_share_of_pixels_in_each_16th():
    image = scene(180, 320)
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    expected = np.histogram(luma, bins=np.arange(0, 257, 16))[0] / luma.size
    np.testing.assert_allclose(measure_quality(image).luma_histogram, expected)


def test_a_repeat_is_the_same_picture_not_a_like_one():
    image = scene()
    moved = np.roll(image, 3, axis=1)
    brighter = np.clip(image.astype(int) + 2, 0, 255).astype(np.uint8)
    repeats, cut = compared([image, image, moved, brighter, brighter])
    assert repeats.tolist() == [False, True, False, False, True]
    assert not cut.any()


def test_what_has_no_value_is_neither_a_repeat_nor_a_cut():
    q = measure_quality(scene())
    repeats, cut = compare_with_previous(
        np.array([q.perceptual_hash, 0, q.perceptual_hash], np.uint64),
        np.array([q.luma_mean, np.nan, q.luma_mean]),
        np.array([q.sharpness, np.nan, q.sharpness]),
        np.array([q.luma_histogram, [np.nan] * 16, q.luma_histogram]),
    )
    assert not repeats.any()
    assert not cut.any()
    assert [len(x) for x in compare_with_previous(*[np.zeros(0)] * 3, np.zeros((0, 16)))] == [0, 0]


def test_repeats_in_a_real_clip(shared_data):
    """46 of the 89 frames are meant to repeat the one before; by their pixels 49 do, and nothing lies between."""
    images = list(frames_of(shared_data / "video" / "hifza_dashcam.mp4", 1))
    difference = [np.abs(a.astype(int) - b).mean() for a, b in zip(images[1:], images, strict=False)]
    repeats, cut = compared(images)
    np.testing.assert_array_equal(repeats[1:], np.array(difference) < 1.0)
    assert repeats.sum() == 49
    assert not cut.any()


@pytest.mark.parametrize("every", [1, 15])
def test_a_cut_between_joined_clips_is_found_and_no_other(shared_data, every):
    names = ("udacity_solidWhiteRight", "tmo324_seattlestreet1", "hifza_dashcam", "tmo324_night")
    clips = [list(frames_of(shared_data / "video" / f"{name}.mp4", every))[:60] for name in names]
    _, cut = compared([image for clip in clips for image in clip])
    assert np.flatnonzero(cut).tolist() == np.cumsum([len(clip) for clip in clips])[:-1].tolist()
