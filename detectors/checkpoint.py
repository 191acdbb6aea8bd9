"""Turn an Ultralytics checkpoint into a model without running anything that the file brings along.

A checkpoint is a pickle of live objects, and a pickle can call any function. It is read in two steps:

1. ``torch.load(weights_only=True)`` with an allow-list by name, where every allowed class is replaced by an inert
   stand-in. Whatever the file asks to construct or call, nothing but tensors and plain containers comes into being.
2. The real modules are built from the stand-ins' plain state: no constructor is run, hooks and other callables are
   left out, and nothing is parsed or evaluated (Ultralytics' model yaml may hold an expression that it would ``eval``).
"""

from __future__ import annotations

import importlib
import io
import pickle
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detectors.types import DetectorError
from detectors.weights import quiet_ultralytics

MODEL_CLASSES = {
    "ultralytics.nn.tasks.DetectionModel": "DetectionModel",
    "ultralytics.nn.tasks.YOLOv10DetectionModel": "DetectionModel",  # until Ultralytics 8.2
    "ultralytics.nn.tasks.RTDETRDetectionModel": "RTDETRDetectionModel",
}
HEAD_CLASSES = ("Detect", "v10Detect", "RTDETRDecoder")
LAYER_MODULES = ("torch.nn.modules.", "ultralytics.nn.modules.")
# Named by some checkpoints for training arguments, losses, paths and metrics; read as inert and left out of the model.
IGNORED_PREFIXES = ("ultralytics.utils.loss.", "ultralytics.utils.tal.", "ultralytics.yolo.utils.loss.")
IGNORED_NAMES = {
    "ultralytics.utils.IterableSimpleNamespace",
    "ultralytics.yolo.utils.IterableSimpleNamespace",
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath")
    ),
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "builtins.getattr",  # checkpoints of 2023 hold ``Detect.forward``; the call yields a stand-in
}

_allow_list_lock = threading.Lock()


class _StandIn:
    """What every allowed class and function is while the pickle is read: it takes any arguments and does nothing."""

    global_name = ""

    def __new__(cls, *_args: object, **_kwargs: object) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


def _stand_in_for(name: str) -> type[_StandIn]:
    """Make the stand-in for one name: each its own class, so that the tree that is read still says what is what."""
    return type("StandIn", (_StandIn,), {"global_name": name})


class _Left:
    """Marks a value that is left out of the model."""


def load_model(content: bytes, path: Path) -> tuple[Any, dict[str, Any]]:
    """Load a detection model.

    Args:
        content: the checkpoint file.
        path: where it came from, for messages.

    Returns:
        The model (an ``nn.Module``) in float32 and evaluation mode, not yet fused, and the plain part of its training arguments.

    Raises:
        DetectorError: the file is damaged, hostile, or not an Ultralytics detection model; one line.
    """
    quiet_ultralytics()
    checkpoint = _read_inert(content, path)
    if not isinstance(checkpoint, dict):
        raise DetectorError(f"{path} holds no Ultralytics checkpoint but a {type(checkpoint).__name__}")
    stand_in = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(stand_in, _StandIn) or stand_in.global_name not in MODEL_CLASSES:
        raise DetectorError(f"{path} holds no Ultralytics detection model, only {_keys(checkpoint)}")
    try:
        model: Any = _Builder(path).module(stand_in)
        head = model.model[-1]
        if type(head).__name__ not in HEAD_CLASSES:
            raise DetectorError(
                f"{path} ends in a {type(head).__name__} head; only detection models can be used"
            )
        if (
            not isinstance(head.nc, int)
            or not isinstance(model.stride, torch.Tensor)
            or not model.stride.max() > 0
        ):
            raise TypeError("class count or stride is missing")
        model.float().eval().requires_grad_(False)
    except (
        AttributeError,
        TypeError,
        KeyError,
        IndexError,
        ValueError,
        RuntimeError,
        RecursionError,
    ) as error:
        raise DetectorError(f"{path} is not a whole Ultralytics model ({_one_line(error)})") from None
    arguments = checkpoint.get("train_args")
    return model, arguments if isinstance(arguments, dict) else {}


def _read_inert(content: bytes, path: Path) -> Any:
    """Step 1: unpickle with stand-ins for everything that is not a tensor or a plain container."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise DetectorError(f"{path} is no PyTorch checkpoint, or it is truncated; copy or download it again")
    try:
        entries = zipfile.ZipFile(io.BytesIO(content)).infolist()
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise DetectorError(
                f"{path} is a TorchScript archive; use the .pt file that it was exported from"
            )
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise DetectorError(f"{path} is a compressed zip, which torch.save never writes; it is refused")
        with _allow_list_lock:
            # The list is torch's own and global: what others allowed must not add to what this file may name.
            before = torch.serialization.get_safe_globals()
            torch.serialization.clear_safe_globals()
            try:
                names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content))
                for name in names:
                    _check_allowed(name, path)
                torch.serialization.add_safe_globals([(_stand_in_for(name), name) for name in names])
                return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            finally:
                torch.serialization.clear_safe_globals()
                torch.serialization.add_safe_globals(before)
    except DetectorError:
        raise
    except pickle.UnpicklingError as error:
        # torch wraps its reason in advice to switch the check off.
        reason = str(error).partition("WeightsUnpickler error:")[2] or str(error)
        raise DetectorError(f"{path} is refused: {_one_line(reason)}") from None
    except (
        Exception
    ) as error:  # a damaged or hostile archive can fail in any way; none of them is ours to mend
        raise DetectorError(f"{path} is damaged ({_one_line(error)}); copy or download it again") from None


def _check_allowed(name: str, path: Path) -> None:
    """Refuse a file that names anything beyond the layers of a detection model."""
    if name in MODEL_CLASSES or name in IGNORED_NAMES or name.startswith((*LAYER_MODULES, *IGNORED_PREFIXES)):
        return
    if name.startswith("models."):
        raise DetectorError(
            f"{path} is a YOLOv5 checkpoint of the old repository; train or export it with Ultralytics 8"
        )
    if name.startswith("ultralytics.nn.tasks."):
        kind = name.removeprefix("ultralytics.nn.tasks.")
        raise DetectorError(
            f"{path} is a {kind}; only detection models can be used (YOLOv8 and later, RT-DETR)"
        )
    raise DetectorError(f"{path} is refused: it refers to {name}, which no detection checkpoint needs")


class _Builder:
    """Step 2: real modules from stand-ins. Shared objects stay shared, as tied weights need."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.built: dict[int, nn.Module] = {}

    def module(self, stand_in: _StandIn) -> nn.Module:
        """Build one module, and those inside it, from plain state."""
        if id(stand_in) in self.built:
            return self.built[id(stand_in)]
        if not isinstance(stand_in.state, dict):
            raise DetectorError(f"{self.path} is refused: its {stand_in.global_name} carries no state")
        cls = self.layer_class(stand_in.global_name)
        module = cls.__new__(cls)
        self.built[id(stand_in)] = module
        nn.Module.__init__(module)  # empty hooks; the class's own constructor is not run
        state = {
            key: value
            for key, value in ((str(k), self.value(v)) for k, v in stand_in.state.items())
            if "hook" not in key and not isinstance(value, _Left)
        }
        module.__setstate__(state)  # torch's own: it also fills in what older versions did not save
        return module

    def value(self, value: Any) -> Any:
        """Convert what a module's state may hold: plain data, tensors and modules; anything else is left out."""
        if value is None or isinstance(value, bool | int | float | str | torch.Tensor | torch.dtype):
            return value
        if isinstance(value, _StandIn):
            ignored = value.global_name in IGNORED_NAMES or value.global_name.startswith(IGNORED_PREFIXES)
            return _Left() if ignored else self.module(value)
        if isinstance(value, dict):
            converted = ((key, self.value(item)) for key, item in value.items())
            kind = OrderedDict if isinstance(value, OrderedDict) else dict
            return kind((key, item) for key, item in converted if not isinstance(item, _Left))
        if isinstance(value, list | tuple | set):
            items = [item for item in map(self.value, value) if not isinstance(item, _Left)]
            return torch.Size(items) if isinstance(value, torch.Size) else type(value)(items)
        return _Left()

    def layer_class(self, name: str) -> type[nn.Module]:
        """Find the layer of this name among torch's and Ultralytics' own."""
        tasks = importlib.import_module("ultralytics.nn.tasks")
        if name in MODEL_CLASSES:
            return getattr(tasks, MODEL_CLASSES[name])
        if name == "ultralytics.nn.modules.block.Silence":  # YOLOv9e, until Ultralytics 8.2
            return nn.Identity
        package, _, rest = name.partition(".modules.")
        module_name, _, class_name = rest.rpartition(".")
        try:
            module = importlib.import_module(f"{package}.modules{'.' + module_name if module_name else ''}")
        except ImportError:
            module = None
        cls = getattr(module, class_name, None)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise DetectorError(
                f"{self.path} is refused: it refers to {name}, which is no layer of the installed Ultralytics or torch"
            )
        return cls


def _keys(checkpoint: dict[Any, Any]) -> str:
    """Name a few of the entries that a file holds instead."""
    names = [str(key) for key in list(checkpoint)[:4]]
    return (
        f"the entries {', '.join(names)}" + (", ..." if len(checkpoint) > 4 else "")
        if names
        else "an empty table"
    )


def _one_line(error: BaseException | str) -> str:
    """Return the first line of an error's message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[
        :200
    ]
