"""Detectors from Ultralytics checkpoints: YOLOv8, 11, 12 and their like, YOLO26 and YOLOv10 (end to end), RT-DETR.

The model is called directly, not through ``predict()``, which keeps one score a box and throws the rest away.
"""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from detectors import side_by_side, weights
from detectors.assemble import EdgeBoxes, RawOutput, look
from detectors.checkpoint import load_model
from detectors.classes import ClassMap
from detectors.heads.layout import grid
from detectors.memory import Pieces
from detectors.precision import choose_dtype, cpu_has
from detectors.preprocess import Batch, Prepared, choose_device
from detectors.types import DetectorError, DetectorSpec, FrameBatch, Pending, Predictions, Unbegun

if TYPE_CHECKING:
    from detectors.compiled import Compiled

# Below "mining", whose log the command line sets up.
LOG = logging.getLogger("mining.detectors")
DEFAULT_SIZE_PX = 640


class UltralyticsDetector:
    """A ``Detector`` around an Ultralytics model."""

    def __init__(self, spec: DetectorSpec, classes: ClassMap | None = None) -> None:
        """Load, check and fuse the model.

        Raises:
            DetectorError: the weights are missing, damaged, refused, or see none of the fleet's classes; one line.
        """
        if spec.head is not None:
            raise DetectorError(
                f"head is {spec.head!r}, but heads are for ONNX graphs; {spec.weights} carries its own"
            )
        file = weights.read(spec)
        self.spec = spec
        self.name = weights.detector_name(spec)
        self.device = choose_device(spec.device)
        model, arguments = load_model(file.content, file.path)
        names = _class_names(model, spec, file.path)
        class_map = classes or ClassMap.identity(names)
        self.classes = class_map.fleet
        self.columns = class_map.columns(names)
        self.seen = np.array([len(c) > 0 for c in self.columns])
        self.stride_px, self.size_px = _input_size(model, arguments, spec)
        self.is_rtdetr = type(model.model[-1]).__name__ == "RTDETRDecoder"
        if self.is_rtdetr and spec.precision not in {"auto", "fp32"}:
            raise DetectorError(
                f"precision is {spec.precision!r}, but RT-DETR runs in fp32 only; leave it out for {spec.weights}"
            )
        self.dtype = torch.float32 if self.is_rtdetr else choose_dtype(spec.precision, self.device)
        self.digest = weights.spec_digest(spec, file.sha256, class_map.digest())
        self._of_thread = threading.local()
        self._traced: torch.jit.ScriptModule | None = None
        self._compiled: Compiled | None = None
        self._pieces: Pieces | None = Pieces(self.name)
        self._cells: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        to_compile = self.device.type == "cpu" and self.dtype == torch.bfloat16 and cpu_has("bf16")
        dtype = torch.float32 if to_compile else self.dtype
        try:
            self.model = _tuned(model).to(self.device, dtype, memory_format=torch.channels_last)
            # RT-DETR does not return its feature maps. The last of the maps that enter the decoder is the deepest one
            # of the hybrid encoder: stride 32, after attention and fusion.
            self.model.model[-1].register_forward_pre_hook(self._keep_features)
            side_px = 2 * self.stride_px
            self._run(torch.zeros(1, 3, side_px, side_px, dtype=dtype, device=self.device))
            if self.device.type == "cpu" and self.is_rtdetr:
                # Its decoder keeps what depends on the size of its input: not for several threads, but frame by frame.
                self._pieces.size = 1
            elif self.device.type == "cpu":
                self._pieces = None
                self._traced = self._trace(dtype)
                if to_compile:
                    self._compile()
        except Exception as error:  # layers with missing or crafted state can fail in any way
            raise DetectorError(
                f"{file.path} does not run with the installed Ultralytics ({' '.join(str(error).split())[:160]})"
            ) from None

    def predict(self, frames: FrameBatch) -> Predictions:
        """Run the model over a batch of frames."""
        return self.begin(frames).result()

    def begin(self, frames: FrameBatch) -> Pending:
        """Set the CPU's threads to a batch; RT-DETR and a GPU run it when its result is asked for."""
        if self._pieces is not None:
            return Unbegun(partial(self._predict, frames, self._pieces))
        prepared = self._prepare(Batch.of(frames))
        look = partial(self._look, prepared)
        if self._compiled is None:
            return side_by_side.begin(prepared.normalised(self.dtype), look)
        return side_by_side.begin(prepared.images, look, waiting=self._compiled.streams)

    @torch.inference_mode()
    def _predict(self, frames: FrameBatch, pieces: Pieces) -> Predictions:
        prepared = self._prepare(Batch.of(frames))
        return pieces.run(prepared.normalised(self.dtype), partial(self._look, prepared))

    def _look(self, prepared: Prepared, images: torch.Tensor) -> Predictions:
        return look(lambda: self._run(images), prepared, self.columns, self.spec)

    def _prepare(self, batch: Batch) -> Prepared:
        """Bring the frames to input size as Ultralytics' ``predict`` does; RT-DETR was trained on stretched images."""
        size_px = (self.size_px, self.size_px)
        if self.is_rtdetr:
            return batch.stretched(size_px, self.device)
        return batch.letterboxed(size_px, self.stride_px, self.device)

    @torch.inference_mode()
    def _run(self, images: torch.Tensor) -> RawOutput:
        """Run the network on images [b, 3, height, width], RGB: in 0..1 and its number format, or uint8 for a compiled one."""
        if self.is_rtdetr:
            output, maps = self._called(images)
            return _rtdetr_output(output[1], maps[-1], images)
        edges, logits, deepest = (self._compiled or self._traced or self._tensors)(images)
        return self._yolo_output(edges, logits, deepest, (images.shape[2], images.shape[3]))

    def _called(self, images: torch.Tensor) -> tuple[Any, list[torch.Tensor]]:
        """Call the model; returns its output, and the maps that entered its head."""
        try:
            return self.model(images), self._of_thread.features
        finally:
            # Also those of a batch that ran out of memory, which would stay in the way.
            self._of_thread.features = None

    def _tensors(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call a YOLO: edge distributions, class logits, and the deepest map that entered its head."""
        output, maps = self._called(images)
        return output["boxes"], output["scores"], maps[-1]

    def _compile(self) -> None:
        """Have OpenVINO run a YOLO in bfloat16, or torch where that fails."""
        try:
            from detectors.compiled import Compiled

            if self._traced is None:
                raise ValueError("there is no trace of it")
            self._compiled = Compiled(
                self.name, self._traced, *side_by_side.shared_out(torch.get_num_threads())
            )
        except Exception as error:
            LOG.warning(
                "%s: OpenVINO cannot run it, torch does: %s", self.name, " ".join(str(error).split())[:160]
            )
            self.model = self.model.to(self.dtype)
            self._traced = self._trace(self.dtype)

    def _trace(self, dtype: torch.dtype) -> torch.jit.ScriptModule | None:
        """Record the operations of a YOLO, which then run without Python between them: same bits, and no lock that the
        threads of ``side_by_side`` share. None where that fails, or gives other bits for an image of another size.
        """
        side_px = 2 * self.stride_px
        probe = torch.linspace(0, 1, 3 * side_px * (side_px + self.stride_px), dtype=dtype)
        probe = probe.view(1, 3, side_px, -1)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                # Deprecated, but nothing else in torch does this without a compiler at hand.
                warnings.simplefilter("ignore")
                module = _AsModule(self.model, self._tensors).eval()
                traced = torch.jit.trace(module, torch.zeros_like(probe[..., :side_px]), check_trace=False)
                frozen: torch.jit.ScriptModule = torch.jit.freeze(traced)
                wanted = self._tensors(probe)
                for _ in range(3):  # what it gives once it has optimised itself
                    if not all(map(torch.equal, frozen(probe), wanted)):
                        raise ValueError("the trace gives other bits")
        except Exception as error:
            LOG.info("%s runs untraced: %s", self.name, " ".join(str(error).split())[:160])
            return None
        return frozen

    def _yolo_output(
        self, edges: torch.Tensor, logits: torch.Tensor, deepest: torch.Tensor, size_px: tuple[int, int]
    ) -> RawOutput:
        """Read a ``Detect`` head: class logits and edge distributions of every position.

        Everything from here on is float32: bfloat16 has 8 significant bits, which would put the edge of a box at x = 600 on
        a grid of 4 pixels, and make scores near 0 and 1 alike.
        """
        head = self.model.model[-1]
        b, _, n = logits.shape
        edges = edges.view(b, 4, head.reg_max, n).permute(0, 3, 1, 2)
        centre, stride_px = self._grid(*size_px)
        if len(centre) != n:
            raise ValueError(
                f"its strides make {len(centre)} cells of {size_px[1]} x {size_px[0]} pixels, not {n}"
            )
        return RawOutput(
            boxes=EdgeBoxes(edges, centre, stride_px),
            scores=logits.float().sigmoid_().transpose(1, 2),
            features=deepest,
            edges=edges if head.reg_max > 1 else None,
            bin_px=stride_px,
            end_to_end=bool(head.end2end),
        )

    def _grid(self, height_px: int, width_px: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Centres [n, 2] of the cells of all maps, in cells, and what one cell of each is in input pixels, [n]; float32.

        Both sides of the input are multiples of the largest stride.
        """
        size_px = (height_px, width_px)
        if size_px not in self._cells:
            strides = [int(stride) for stride in self.model.model[-1].stride]
            shapes = [(height_px // stride, width_px // stride) for stride in strides]
            centre = torch.cat([torch.stack(grid(*shape), 1) + 0.5 for shape in shapes])
            stride_px = torch.cat(
                [torch.full((h * w,), float(s)) for (h, w), s in zip(shapes, strides, strict=True)]
            )
            self._cells[size_px] = centre.to(self.device), stride_px.to(self.device)
        return self._cells[size_px]

    def _keep_features(self, _head: nn.Module, inputs: tuple[list[torch.Tensor], ...]) -> None:
        """Remember the feature maps that enter the head, the deepest last."""
        self._of_thread.features = inputs[0]


class _AsModule(nn.Module):
    """What ``torch.jit.trace`` takes: a function of a model as a module."""

    def __init__(self, model: nn.Module, call: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call it."""
        return self.call(images)


def _tuned(model: Any) -> Any:
    """Make a loaded model as fast as it gets without another result: fused, and rid of work that nobody reads."""
    from ultralytics.nn.modules.conv import Conv
    from ultralytics.nn.modules.head import Detect

    model = model.fuse(verbose=False)
    in_place = nn.SiLU(inplace=True)
    for module in model.modules():
        # What a convolution has just written is read by nobody else.
        if isinstance(module, Conv) and isinstance(module.act, nn.SiLU):
            module.act = in_place
    head = model.model[-1]
    if isinstance(head, Detect):
        head.forward = partial(_raw_output, head)  # type: ignore[method-assign]
    return model


def _raw_output(head: Any, maps: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Do what ``Detect.forward`` does before it decodes: ``boxes`` [b, 4 * bins, n] and ``scores`` [b, m, n], as logits.

    Of two heads, ``fuse`` left the one that ``predict`` would use.
    """
    output: dict[str, torch.Tensor] = head.forward_head(
        maps, **(head.one2one if head.end2end else head.one2many)
    )
    return output


def _rtdetr_output(raw: tuple[torch.Tensor, ...], features: torch.Tensor, images: torch.Tensor) -> RawOutput:
    """Read an RT-DETR decoder: one position a query; its boxes are centre and size as shares of the image."""
    boxes, logits = raw[0][-1], raw[1][-1]
    height, width = images.shape[2:]
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    size = boxes.new_tensor([width, height, width, height])
    return RawOutput(
        boxes=torch.cat((centre - half, centre + half), 2) * size,
        scores=logits.sigmoid(),
        features=features,
        end_to_end=True,
    )


def _class_names(model: Any, spec: DetectorSpec, path: Path) -> tuple[str, ...]:
    """Return the model's class names in order, checked against the size of its head."""
    count = model.model[-1].nc
    names = spec.class_names
    if names is None:
        carried: Any = getattr(model, "names", None)
        carried = dict(enumerate(carried)) if isinstance(carried, list) else carried
        whole = (
            isinstance(carried, dict) and len(carried) == count and all(i in carried for i in range(count))
        )
        if not whole:
            raise DetectorError(f"{path} carries no names for its {count} classes; give class_names")
        names = tuple(str(carried[i]) for i in range(count))
    if len(names) != count:
        raise DetectorError(f"class_names has {len(names)} names, but {path} has {count} classes")
    return names


def _input_size(model: Any, arguments: dict[str, object], spec: DetectorSpec) -> tuple[int, int]:
    """Return stride and longer side of the input (a multiple of the stride, as ``predict`` rounds it)."""
    stride_px = max(int(model.stride.max()), 32)
    size = spec.image_size_px or arguments.get("imgsz") or DEFAULT_SIZE_PX
    if isinstance(size, list | tuple):  # height and width
        size = max((side for side in size if isinstance(side, int)), default=0)
    if not isinstance(size, int) or not stride_px <= size <= 8192:
        raise DetectorError(f"image_size_px is {size!r}; need {stride_px} to 8192 pixels for {spec.weights}")
    return stride_px, math.ceil(size / stride_px) * stride_px
