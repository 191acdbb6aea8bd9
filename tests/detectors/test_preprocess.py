"""The same pixels and the same geometry as Ultralytics' letterbox, on CPU and through torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detectors.preprocess import Batch, choose_device, resize_on_cpu, resize_with_torch
from detectors.types import DetectorError
from tests.detectors.helpers import Frame

CPU = torch.device("cpu")
SIZES = [(720, 1280), (480, 854), (97, 451), (451, 97), (320, 320), (1, 64), (333, 187)]


def noise(height: int, width: int, seed: int = 0) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("stride", [32, None])
def test_equals_ultralytics_letterbox(height: int, width: int, stride: int | None) -> None:
    from ultralytics.data.augment import LetterBox

    frame = noise(height, width)
    wanted = LetterBox((320, 320), auto=stride is not None, stride=stride or 32)(image=frame)
    got = Batch([frame]).letterboxed((320, 320), stride, CPU)
    np.testing.assert_array_equal(got.images[0].permute(1, 2, 0).numpy(), wanted)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_boxes_find_their_way_back(height: int, width: int) -> None:
    from ultralytics.utils.ops import scale_boxes

    batch = Batch([noise(height, width)])
    boxes = torch.tensor([[-20.0, 5.0, 400.0, 330.0], [100.5, 90.0, 150.25, 160.0]])
    letterboxed = batch.letterboxed((320, 320), 32, CPU)
    wanted = scale_boxes(tuple(letterboxed.images.shape[2:]), boxes.clone(), (height, width))
    torch.testing.assert_close(letterboxed.to_source(boxes), wanted)
    # The corners of the frame's own area in the input are the corners of the frame.
    left, top = letterboxed.left_px, letterboxed.top_px
    right, bottom = left + width * letterboxed.scale_x, top + height * letterboxed.scale_y
    corners = letterboxed.to_source(torch.tensor([[left, top, right, bottom]], dtype=torch.float32))
    torch.testing.assert_close(corners, torch.tensor([[0.0, 0.0, width, height]]))
    stretched = batch.stretched((320, 320), CPU)
    whole = stretched.to_source(torch.tensor([[0.0, 0.0, 320.0, 320.0]]))
    torch.testing.assert_close(whole, torch.tensor([[0.0, 0.0, width, height]]))


def test_torch_path_agrees_with_opencv(road_frames: list[Frame]) -> None:
    for frame in road_frames:
        for height, width in ((180, 320), (321, 517), frame.shape[:2]):
            padding = (3, 2, 0, 1)
            on_cpu = resize_on_cpu([frame], height, width, padding)
            tensor = torch.from_numpy(frame).permute(2, 0, 1)[None]
            with_torch = resize_with_torch(tensor, height, width, padding)
            assert with_torch.dtype == torch.uint8
            assert with_torch.shape == on_cpu.shape
            difference = (on_cpu.int() - with_torch.int()).abs()
            assert difference.max() <= 1
            assert difference.float().mean() < 0.2  # OpenCV computes in fixed point


@pytest.mark.gpu
def test_gpu_agrees_with_cpu(road_frames: list[Frame]) -> None:
    batch = Batch([road_frames[0]] * 3)
    cuda = batch.letterboxed((640, 640), 32, choose_device("cuda"))
    assert cuda.images.is_cuda
    difference = cuda.images.cpu().int() - batch.letterboxed((640, 640), 32, CPU).images.int()
    assert difference.abs().max() <= 1


def test_each_size_is_prepared_once() -> None:
    batch = Batch([noise(90, 160)])
    first = batch.letterboxed((320, 320), 32, CPU)
    assert batch.letterboxed((320, 320), 32, CPU) is first
    assert batch.letterboxed((320, 320), None, CPU) is not first
    assert batch.letterboxed((640, 640), 32, CPU) is not first
    assert batch.stretched((320, 320), CPU) is batch.stretched((320, 320), CPU)
    assert Batch.of(batch) is batch


def test_frames_of_one_batch_are_alike() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        Batch([])
    with pytest.raises(ValueError, match="batch them by size"):
        Batch([noise(8, 8), noise(8, 9)])
    with pytest.raises(ValueError, match="batch them by size"):
        Batch([noise(8, 8), noise(8, 8).astype(np.float32)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="shape"):
        Batch([noise(8, 8)[..., 0]])


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps", "CPU"])
def test_unknown_and_absent_devices(name: str) -> None:
    with pytest.raises(DetectorError, match="device is"):
        choose_device(name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_normalised_once_for_all_members(dtype: torch.dtype) -> None:
    batch = Batch([noise(90, 160, seed) for seed in range(2)])
    images = batch.letterboxed((320, 320), 32, CPU).normalised(dtype)
    assert batch.letterboxed((320, 320), 32, CPU).normalised(dtype) is images
    assert images.dtype == dtype
    assert images.is_contiguous(memory_format=torch.channels_last)
    # Rounded once, to the nearest number of the format.
    pixels = batch.letterboxed((320, 320), 32, CPU).images
    assert pixels.dtype == torch.uint8
    assert torch.equal(images, (pixels.double() / 255).to(dtype))


def test_torch_path_is_channels_last_too() -> None:
    tensor = torch.from_numpy(noise(90, 160)).permute(2, 0, 1)[None]
    for size in ((180, 320), (90, 160)):
        images = resize_with_torch(tensor, *size, (0, 0, 6, 6))
        assert images.is_contiguous(memory_format=torch.channels_last)
