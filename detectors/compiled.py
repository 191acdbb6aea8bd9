"""A YOLO in bfloat16 on a CPU that multiplies such numbers itself, run by OpenVINO.

It works out an activation while the convolution's result still lies in registers, and lays memory out ahead, where torch goes over
each map again and again: a quarter to a third less time a frame (docs/performance.md). In float32 torch is faster.
"""

# ruff: noqa: E402  (see sys.modules)
from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable

import torch

# To import OpenVINO would tell its makers so over the network; without this package of theirs it cannot.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from openvino.preprocess import PrePostProcessor

# Below "mining", whose log the command line sets up.
LOG = logging.getLogger("mining.detectors")
Network = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
_MOST_SIZES = 8
"""Input sizes that are kept, those used last: each holds the weights once more, and takes a third of a second to make."""
_MOST_OFF = 0.25
"""Norm of the difference to float32, as a share of the norm. Trained networks are off by 0.01 to 0.03 in bfloat16, one with random
weights by 0.15; results of another frame, or of a broken kernel, by 0.5 and more."""


class Compiled:
    """A traced network, compiled for each size of its input when it first sees one.

    Takes one image [1, 3, height, width] uint8, channels last in memory, and returns what the trace returns for it in 0..1.
    """

    def __init__(self, name: str, traced: torch.jit.ScriptModule, streams: int, threads: int) -> None:
        """Convert the network; ``streams`` images at a time will run on ``threads`` threads.

        Raises:
            RuntimeError: OpenVINO does not know one of its operations.
        """
        self.name = name
        self.streams = streams
        self._traced = traced
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
            # Two jobs on one machine would be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._decoder = TorchScriptPythonDecoder(traced)  # holds the weights, which the model only refers to
        frontend = FrontEndManager().load_by_framework("pytorch")
        self._model: ov.Model = frontend.convert(frontend.load(self._decoder))
        self._of_size: dict[tuple[int, int], Network] = {}
        self._lock = threading.Lock()

    def __call__(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run it."""
        size_px = (image.shape[2], image.shape[3])
        with self._lock:  # where the size is new, several threads wait for one of them
            network = self._of_size.pop(size_px, None) or self._checked(image)
            self._of_size[size_px] = network  # the last one now
            for oldest in list(self._of_size)[:-_MOST_SIZES]:
                del self._of_size[oldest]
        return network(image)

    def _checked(self, image: torch.Tensor) -> Network:
        """Compile for the size of this image. Where that fails, or gives other numbers than torch in float32, torch goes on."""
        wanted = self._plain(image)
        try:
            network = _OfOneSize(self._compile(image))
            off = [
                float((found - want).norm() / want.norm().clamp(min=1e-6))
                for found, want in zip(network(image), wanted, strict=True)
                if want.isfinite().all()  # else there is nothing to be judged by
            ]
            if all(share <= _MOST_OFF for share in off):  # NaN is not
                return network
            trouble = f"OpenVINO's numbers are off by {', '.join(f'{share:.2g}' for share in off)}"
        except Exception as error:
            trouble = f"OpenVINO cannot run it ({' '.join(str(error).split())[:160]})"
        LOG.warning(
            "%s: %s at %d x %d pixels; torch goes on in fp32, which takes longer",
            self.name, trouble, image.shape[3], image.shape[2],
        )  # fmt: skip
        return self._plain

    def _compile(self, image: torch.Tensor) -> ov.CompiledModel:
        model = self._model.clone()
        model.reshape({0: list(image.shape)})
        steps = PrePostProcessor(model)
        steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
        steps.input().model().set_layout(ov.Layout("NCHW"))
        steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
        return ov.Core().compile_model(steps.build(), "CPU", self._settings)

    def _plain(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = self._traced(image.float().div_(255))
        return found


class _OfOneSize:
    """The network compiled for one size; each thread has a request, with its own memory."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._compiled = compiled
        self._of_thread = threading.local()

    def __call__(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        request = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._compiled.create_infer_request()
        pixels = image.permute(0, 2, 3, 1).contiguous().numpy()
        found = request.infer([pixels], share_inputs=True)
        return tuple(torch.from_numpy(found[port]) for port in self._compiled.outputs)
