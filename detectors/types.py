"""What a detector takes and gives: the only part of ``detectors`` that needs neither torch nor a model file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import ClassVar, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Usual(NamedTuple):
    """What a head is run with where a spec says nothing."""

    threshold: float
    suppress_iou: float
    floor_share: float
    """Floor, as a share of the threshold."""


# Threshold and suppression are those of the authors (Ultralytics' predict, NanoDet's demo, FastestDet's test.py); scores of
# different heads do not compare. Floors: docs/signals.md; lower ones fill the candidates with noise.
USUAL: dict[str | None, Usual] = {
    None: Usual(0.25, 0.7, 1 / 5),
    "yolov8": Usual(0.25, 0.7, 1 / 5),
    "nanodet": Usual(0.4, 0.6, 1 / 3),
    "fastestdet": Usual(0.5, 0.45, 1 / 3),
}


class DetectorError(Exception):
    """A detector cannot be loaded or used; the message is one line that says how to mend it."""


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """Which model, and how it is run. Everything here that changes a prediction is part of its digest."""

    # Read by pydantic where a config file holds a spec, so that each default and its text stands here alone.
    __pydantic_config__: ClassVar[dict[str, object]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
        "strict": True,
        "allow_inf_nan": False,
    }

    weights: str
    """A file, or an official Ultralytics name such as ``yolo11n.pt``."""
    head: str | None = None
    """Output layout of an ONNX graph (a key of ``detectors.heads.HEADS``); None for Ultralytics checkpoints."""
    name: str | None = None
    """Name in the tables; the weights' file name without its ending where None."""
    class_names: tuple[str, ...] | None = None
    """The model's own class names in order; those that the file carries where None."""
    sha256: str | None = None
    """Expected digest of the weights file, hexadecimal; not checked where None."""
    image_size_px: int | None = None
    """Longer side of the network's input; the checkpoint's or graph's own where None."""
    threshold: float = None  # type: ignore[assignment]
    """Operating threshold: confidence from which fleet and labelers take a box as a detection; the head's usual one
    where absent."""
    floor: float = None  # type: ignore[assignment]
    """Lowest confidence of a box that is kept as a candidate, at most a third of ``threshold``; the head's usual
    share of it where absent: a fifth for YOLO, a third for NanoDet and FastestDet."""
    suppress_iou: float = None  # type: ignore[assignment]
    """Boxes that overlap a better one by more than this are suppressed; the head's usual one where absent (end-to-end
    heads ignore it)."""
    class_agnostic: bool = True
    """Suppress across classes: one box an object, whose class vector carries the doubt between classes."""
    max_boxes: int = 100
    """At most this many candidates a frame, the most confident first."""
    flip: bool = False
    """Look at mirrored frames: a copy of a detector as a committee member of its own (see ``detectors.perturb``)."""
    scale: float = 1.0
    """Look at frames shrunken to this share, 0.25 to 1, on grey: another such copy."""
    device: str = "auto"
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``."""
    precision: Precision = "auto"
    """Number format of an Ultralytics network: ``fp32``, ``bf16``, ``fp16``, or ``auto``: bf16 on CPUs with AVX512-BF16
    or AMX and on GPUs from compute capability 8.0, fp16 on GPUs from 7.0, else fp32. RT-DETR and ONNX graphs run in
    fp32. Scores and boxes are computed in fp32 whatever it is."""

    def __post_init__(self) -> None:
        """Fill in what the head usually takes, and refuse settings that contradict each other."""
        usual = USUAL.get(self.head, USUAL[None])
        if self.threshold is None:
            object.__setattr__(self, "threshold", usual.threshold)
        if self.suppress_iou is None:
            object.__setattr__(self, "suppress_iou", usual.suppress_iou)
        if self.floor is None:
            object.__setattr__(self, "floor", self.threshold * usual.floor_share)
        if not 0.0 < self.floor <= self.threshold / 3 + 1e-9 or self.threshold >= 1:
            raise DetectorError(
                f"floor {self.floor} and threshold {self.threshold}: need 0 < floor <= threshold / 3 and threshold < 1"
            )
        if not 0.0 < self.suppress_iou <= 1.0:
            raise DetectorError(f"suppress_iou is {self.suppress_iou}; need 0 < suppress_iou <= 1")
        if self.image_size_px is not None and self.image_size_px < 32:
            raise DetectorError(f"image_size_px is {self.image_size_px}; need at least 32")
        if not 0.25 <= self.scale <= 1.0:
            raise DetectorError(f"scale is {self.scale}; need 0.25 to 1")
        if self.precision not in get_args(Precision):
            raise DetectorError(
                f"precision is {self.precision!r}; known are {', '.join(get_args(Precision))}"
            )
        if self.max_boxes < 1:
            raise DetectorError(f"max_boxes is {self.max_boxes}; need at least 1")

    @property
    def table_name(self) -> str:
        """What the tables call this detector."""
        return self.name or PurePath(self.weights.removeprefix("demo:")).stem


@dataclass(frozen=True, slots=True)
class Predictions:
    """What one detector saw in one batch of ``b`` frames: ``n`` boxes, flat, over ``c`` classes.

    Boxes are ordered by frame, then by falling confidence. A frame that has no row in ``frame_index`` and no entry in
    ``errors`` was looked at and holds nothing above the floor.
    """

    frame_index: NDArray[np.int32]
    """[n] position in the batch of the frame that holds the box."""
    boxes_px: FloatArray
    """[n, 4] x1, y1, x2, y2 in pixels of the source frame, clipped to it."""
    class_scores: FloatArray
    """[n, c] in 0..1, one column a class of ``Detector.classes``; NaN where this detector cannot see the class."""
    box_std_px: FloatArray | None
    """[n, 4] standard deviation of each edge (left, top, right, bottom) in source pixels, from the head's edge
    distributions; None where the head has none."""
    embeddings: FloatArray
    """[b, d] pooled feature map of each frame, L2-normalised."""
    dense_entropy_max: FloatArray
    """[b, c] per class, the largest binary entropy (nats) over all positions, before suppression; NaN where unseen."""
    dense_entropy_mean: FloatArray
    """[b, c] per class, the mean binary entropy (nats) over all positions, before suppression; NaN where unseen."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """Batch position -> reason, for frames on which the model failed (its boxes are absent, its embedding is NaN)."""
    forward_s: float = 0.0
    """Seconds that the network took: of all threads that ran it side by side, each its share."""
    assemble_s: float = 0.0
    """Seconds from its raw output to this, suppression above all, counted likewise."""

    def __post_init__(self) -> None:
        """Check the shapes against each other."""
        n, c = self.class_scores.shape
        b = self.embeddings.shape[0]
        expected = {
            "frame_index": (self.frame_index.shape, (n,)),
            "boxes_px": (self.boxes_px.shape, (n, 4)),
            "dense_entropy_max": (self.dense_entropy_max.shape, (b, c)),
            "dense_entropy_mean": (self.dense_entropy_mean.shape, (b, c)),
        }
        if self.box_std_px is not None:
            expected["box_std_px"] = (self.box_std_px.shape, (n, 4))
        for what, (got, wanted) in expected.items():
            if got != wanted:
                raise ValueError(f"Predictions.{what} has shape {got}, not {wanted}")

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """Put the predictions of one detector for pieces of a batch together, in order; there is at least one."""
        first_frame = np.cumsum([0, *(len(part.embeddings) for part in parts)]).tolist()
        stds = [part.box_std_px for part in parts if part.box_std_px is not None]
        return cls(
            frame_index=np.concatenate(
                [part.frame_index + np.int32(first) for part, first in zip(parts, first_frame, strict=False)]
            ),
            boxes_px=np.concatenate([part.boxes_px for part in parts]),
            class_scores=np.concatenate([part.class_scores for part in parts]),
            box_std_px=np.concatenate(stds) if stds else None,
            embeddings=np.concatenate([part.embeddings for part in parts]),
            dense_entropy_max=np.concatenate([part.dense_entropy_max for part in parts]),
            dense_entropy_mean=np.concatenate([part.dense_entropy_mean for part in parts]),
            errors={
                first + i: reason
                for part, first in zip(parts, first_frame, strict=False)
                for i, reason in part.errors.items()
            },
            forward_s=sum(part.forward_s for part in parts),
            assemble_s=sum(part.assemble_s for part in parts),
        )


class Detector(Protocol):
    """A loaded model. ``predict`` is deterministic: the same frames give the same predictions on the same device.

    Not across devices, nor on a CPU with another number of threads: with ``precision = "auto"``, one machine of a fleet may run in bf16 and another in fp32. Who needs
    the same figures everywhere states a precision.
    """

    name: str
    """Name in the tables."""
    classes: tuple[str, ...]
    """What the columns of ``class_scores`` stand for: the fleet's list where one was given, else the model's own."""
    seen: NDArray[np.bool_]
    """[c] True where this detector can see the class."""
    digest: str
    """Hexadecimal digest of the weights and of every setting that changes a prediction, not of the machine.

    A stated ``precision`` is part of it. ``auto`` counts as ``auto`` wherever it runs, because machines of one fleet share
    a store. Their predictions then differ a little: the parity tests hold the order of frames by hardness to a rank
    correlation of 0.99 with fp32, and mean average precision to half a point.
    """
    spec: DetectorSpec

    def predict(self, frames: FrameBatch) -> Predictions:
        """Run the model over a batch of frames."""
        ...

    def begin(self, frames: FrameBatch) -> Pending:
        """Ask for what ``predict`` gives. Threads of a CPU set to work at once, so that a batch has its turn right after the
        one before; a GPU, and whatever has threads of its own, when the result is asked for.
        """
        ...


class Pending(Protocol):
    """Predictions for a batch that were asked for."""

    @property
    def under_way(self) -> bool:
        """Whether they are worked on before their result is asked for."""
        ...

    def result(self) -> Predictions:
        """Wait for them. Raises what ``predict`` would raise."""
        ...

    def cancel(self) -> None:
        """Do no more for them."""
        ...


@dataclass(frozen=True, slots=True)
class Unbegun:
    """``Pending`` that is worked on when its result is asked for."""

    predict: Callable[[], Predictions]
    under_way: ClassVar[bool] = False

    def result(self) -> Predictions:
        """Run the model."""
        return self.predict()

    def cancel(self) -> None:
        """Nothing goes on."""


class FrameBatch(Protocol):
    """Frames of one size that several detectors look at; each input size is prepared once (``preprocess.Batch``)."""

    @property
    def frames(self) -> Sequence[NDArray[np.uint8]]:
        """Return b arrays [height, width, 3], RGB, all of one size."""
        ...
