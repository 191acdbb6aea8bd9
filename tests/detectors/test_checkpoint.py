"""Checkpoints from outside are hostile until proven otherwise."""

from __future__ import annotations

import builtins
import copy
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import detectors
from detectors.checkpoint import load_model
from detectors.memory import Pieces
from detectors.preprocess import Batch
from detectors.types import DetectorError
from tests.detectors.helpers import lively_model, save_checkpoint


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.fixture(scope="module")
def small_model() -> nn.Module:
    frame = np.random.default_rng(0).integers(0, 255, (180, 320, 3), np.uint8)
    return lively_model("yolo11n.yaml", 3, [frame])


@pytest.fixture
def loads(tmp_path: Path) -> Callable[[Any], str]:
    """Save an object as a checkpoint, load it as a detector, and return the one line of refusal."""

    def attempt(content: Any) -> str:
        path = tmp_path / "hostile.pt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(DetectorError) as caught:
            detectors.load(path)
        assert "\n" not in str(caught.value)
        assert "hostile.pt" in str(caught.value)
        return str(caught.value)

    return attempt


def hostile_calls(witness: Path) -> dict[str, Call]:
    import importlib

    import torch.hub
    import torch.utils.cpp_extension
    from ultralytics.nn.tasks import DetectionModel, parse_model
    from ultralytics.utils.checks import check_requirements
    from ultralytics.utils.downloads import safe_download

    code = f"open({str(witness)!r}, 'w').close()"
    url = f"file://{witness}"
    return {
        "os.system": Call(os.system, f"touch {witness}"),
        "exec": Call(builtins.exec, code),
        "eval": Call(builtins.eval, code),
        "open": Call(builtins.open, str(witness), "w"),
        "getattr chain": Call(getattr, Call(importlib.import_module, "os"), "system"),
        "import_module": Call(importlib.import_module, "antigravity"),
        "pickle.loads": Call(pickle.loads, pickle.dumps(Call(os.system, f"touch {witness}"))),
        "torch.load": Call(torch.load, str(witness)),
        "torch.hub.load": Call(torch.hub.load, "evil/repository", "model"),
        "torch.hub.download": Call(torch.hub.download_url_to_file, url, str(witness)),
        "cpp_extension": Call(torch.utils.cpp_extension.load_inline, "x", "int x;"),
        "ultralytics download": Call(safe_download, url, str(witness)),
        "ultralytics pip": Call(check_requirements, "evil-package"),
        "ultralytics model from yaml": Call(DetectionModel, str(witness)),
        "ultralytics model with eval": Call(
            parse_model, {"activation": f"exec({code!r})", "nc": 1, "backbone": [], "head": []}, 3
        ),
    }


@pytest.mark.parametrize("name", list(hostile_calls(Path("x"))))
@pytest.mark.parametrize("place", ["whole", "model", "extra", "inside the model"])
def test_calls_are_never_made(
    name: str, place: str, tmp_path: Path, loads: Callable[[Any], str], small_model: nn.Module
) -> None:
    witness = tmp_path / "witness"
    call = hostile_calls(witness)[name]
    if place == "inside the model":
        model = copy.deepcopy(small_model)
        model.model[0].extra = call
        content: Any = {"model": model}
    else:
        content = {"whole": call, "model": {"model": call}, "extra": {"model": small_model, "extra": call}}[
            place
        ]
    if name == "ultralytics model from yaml" and place in {"extra", "inside the model"}:
        # A class that checkpoints name anyway: the call makes an inert stand-in, and nothing is read from the yaml.
        path = tmp_path / "hostile.pt"
        torch.save(content, path)
        if place == "extra":
            load_model(path.read_bytes(), path)
            return
    message = loads(content)
    assert not witness.exists()
    assert "refused" in message or "only" in message or "holds no" in message


def test_an_expression_in_the_model_yaml_is_not_evaluated(tmp_path: Path, small_model: nn.Module) -> None:
    model = copy.deepcopy(small_model)
    witness = tmp_path / "witness"
    model.yaml["activation"] = f"open({str(witness)!r}, 'w')"
    detector = detectors.load(save_checkpoint(model, tmp_path / "yaml.pt"))
    detector.predict(Batch([np.zeros((64, 64, 3), np.uint8)]))
    assert not witness.exists()


def test_hooks_and_replaced_methods_are_left_out(tmp_path: Path, small_model: nn.Module) -> None:
    model = copy.deepcopy(small_model)
    model.model[0]._forward_hooks[0] = nn.ReLU  # would be called as a hook
    model.model[1].forward = model.model[2].forward  # pickles as getattr(module, "forward")
    hooked, _ = load_model(save_checkpoint(model, tmp_path / "hooked.pt").read_bytes(), tmp_path)
    plain, _ = load_model(save_checkpoint(small_model, tmp_path / "plain.pt").read_bytes(), tmp_path)
    assert not hooked.model[0]._forward_hooks
    assert "forward" not in vars(hooked.model[1])
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(hooked(image)[0], plain(image)[0])


def test_the_model_is_the_one_that_was_saved(tmp_path: Path, small_model: nn.Module) -> None:
    path = save_checkpoint(small_model, tmp_path / "model.pt", optimizer=None, epoch=3)
    model, arguments = load_model(path.read_bytes(), path)
    image = torch.rand(2, 3, 96, 64)
    assert torch.equal(model(image)[0], small_model.eval()(image)[0])
    assert arguments["imgsz"] == 320
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_half_precision_and_ema_as_trainers_save_them(tmp_path: Path, small_model: nn.Module) -> None:
    path = save_checkpoint(None, tmp_path / "ema.pt", ema=copy.deepcopy(small_model).half())  # type: ignore[arg-type]
    model, _ = load_model(path.read_bytes(), path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_allow_list_of_others_is_left_as_it_was(tmp_path: Path, small_model: nn.Module) -> None:
    class Harmless:
        pass

    torch.serialization.add_safe_globals([Harmless])
    before = set(torch.serialization.get_safe_globals())
    path = save_checkpoint(small_model, tmp_path / "model.pt")
    load_model(path.read_bytes(), path)
    with pytest.raises(DetectorError):
        load_model(b"nonsense", path)
    assert set(torch.serialization.get_safe_globals()) == before


def test_what_others_allowed_is_not_allowed_here(loads: Callable[[Any], str], small_model: nn.Module) -> None:
    torch.serialization.add_safe_globals([os.path.expandvars])
    try:
        message = loads({"model": small_model, "extra": Call(os.path.expandvars, "$HOME")})
    finally:
        torch.serialization.clear_safe_globals()
    assert "expandvars" in message


def test_damaged_files(loads: Callable[[Any], str], small_model: nn.Module) -> None:
    buffer = io.BytesIO()
    torch.save({"model": small_model}, buffer)
    whole = buffer.getvalue()
    assert "is empty" in loads(b"")
    assert "truncated" in loads(whole[: len(whole) // 2])
    assert "truncated" in loads(whole[:-30])
    assert "no PyTorch checkpoint" in loads(b"\x89PNG\r\n" + bytes(1000))
    assert "no PyTorch checkpoint" in loads(pickle.dumps(Call(os.system, "true")))
    head = whole.index(b"data.pkl")
    loads(whole[: head + 60] + bytes(200) + whole[head + 260 :])


def test_other_archives(loads: Callable[[Any], str], small_model: nn.Module) -> None:
    def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        return buffer.getvalue()

    loads(zipped({"photo.jpg": b"x"}))
    assert "TorchScript" in loads(zipped({"m/data.pkl": b"x", "m/constants.pkl": b"x", "m/code/a.py": b"x"}))
    assert "compressed" in loads(zipped({"m/data.pkl": b"x" * 1000}, zipfile.ZIP_DEFLATED))
    assert "holds no Ultralytics checkpoint" in loads([1, 2])
    assert "only the entries epoch, state" in loads({"epoch": 1, "state": torch.zeros(2)})
    assert "only the entries model" in loads({"model": small_model.state_dict()})


def test_other_models(loads: Callable[[Any], str], small_model: nn.Module) -> None:
    from ultralytics.nn.tasks import ClassificationModel, SegmentationModel

    assert "SegmentationModel" in loads({"model": SegmentationModel("yolo11n-seg.yaml", verbose=False)})
    assert "ClassificationModel" in loads({"model": ClassificationModel("yolo11n-cls.yaml", verbose=False)})
    headless = copy.deepcopy(small_model)
    headless.model[-1] = nn.Conv2d(256, 3, 1)
    assert "Conv2d head" in loads({"model": headless})
    hollow = copy.deepcopy(small_model)
    del hollow.model[-1].__dict__["nc"]
    loads({"model": hollow})


def test_yolov5_is_named(monkeypatch: pytest.MonkeyPatch, loads: Callable[[Any], str]) -> None:
    import sys
    import types

    module = types.ModuleType("models.yolo")
    module.DetectionModel = type("DetectionModel", (), {"__module__": "models.yolo"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "models", types.ModuleType("models"))
    monkeypatch.setitem(sys.modules, "models.yolo", module)
    assert "YOLOv5" in loads({"model": module.DetectionModel()})


def test_names_and_sizes(tmp_path: Path, small_model: nn.Module) -> None:
    path = save_checkpoint(small_model, tmp_path / "model.pt")
    assert detectors.load(path).classes == ("class0", "class1", "class2")
    assert detectors.load(path, class_names=("a", "b", "c")).classes == ("a", "b", "c")
    with pytest.raises(DetectorError, match=r"class_names has 2 names, but .*model.pt has 3"):
        detectors.load(path, class_names=("a", "b"))
    with pytest.raises(DetectorError, match="image_size_px is 9000"):
        detectors.load(path, image_size_px=9000)
    with pytest.raises(DetectorError, match="heads are for ONNX"):
        detectors.load(path, head="yolov8")


def test_a_frame_that_breaks_the_model_is_a_failure_of_that_frame(
    tmp_path: Path, small_model: nn.Module
) -> None:
    path = save_checkpoint(small_model, tmp_path / "model.pt")
    detector: Any = detectors.load(path, floor=0.01, precision="fp32")
    frames = [np.full((64, 64, 3), value, np.uint8) for value in (0, 128, 255)]
    frames[0][20:40, 20:40] = 255
    frames[2][20:40, 10:50] = 0
    detector._pieces, detector._traced = Pieces(detector.name), None  # whole batches, as on a GPU
    sound = detector.predict(Batch(frames))
    assert (sound.frame_index == 1).any()

    def break_second_frame(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        output[1, 0, 0, 0] = torch.nan
        return output

    with torch.inference_mode():
        handle = detector.model.model[3].register_forward_hook(break_second_frame)
        broken = detector.predict(Batch(frames))
        handle.remove()
    assert set(broken.errors) == {1}
    assert "NaN" in broken.errors[1]
    assert 1 not in broken.frame_index
    assert np.isnan(broken.embeddings[1]).all()
    assert np.isnan(broken.dense_entropy_max[1]).all()
    others = sound.frame_index != 1
    np.testing.assert_array_equal(broken.boxes_px, sound.boxes_px[others])
    np.testing.assert_array_equal(broken.class_scores, sound.class_scores[others])
    np.testing.assert_array_equal(broken.embeddings[[0, 2]], sound.embeddings[[0, 2]])
