"""Detectors from ONNX graphs, run by ONNX Runtime; the output layout is one of ``detectors.heads``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from detectors import weights
from detectors.assemble import RawOutput, look
from detectors.classes import COCO_NAMES, ClassMap
from detectors.heads import HEADS
from detectors.heads.layout import Decoded, WrongHeadError
from detectors.preprocess import Batch, choose_device
from detectors.types import DetectorError, DetectorSpec, FrameBatch, Pending, Predictions, Unbegun

DEFAULT_SIZE_PX = 640
MAX_SIZE_PX = 4096


class OnnxDetector:
    """A ``Detector`` around an exported graph.

    Frames go through one by one: exporters bake a batch of 1 into reshapes, also where the input claims to be dynamic.
    """

    def __init__(self, spec: DetectorSpec, classes: ClassMap | None = None) -> None:
        """Load, check and try the graph.

        Raises:
            DetectorError: the file is missing, damaged or refused, its outputs do not have the head's layout, or it
                sees none of the fleet's classes; one line.
        """
        if spec.head not in HEADS:
            raise DetectorError(f"head is {spec.head!r} for {spec.weights}; known are {', '.join(HEADS)}")
        if spec.precision not in {"auto", "fp32"}:
            raise DetectorError(
                f"precision is {spec.precision!r}, but ONNX graphs run in fp32, as they were exported; "
                f"leave it out for {spec.weights}"
            )
        self.head = HEADS[spec.head]
        file = weights.read(spec)
        self.spec = spec
        self.name = weights.detector_name(spec)
        model = _parse(file.content, file.path)
        self.input_name, self.size_px = _fix_input(model, spec, file.path)
        self.output_names = [output.name for output in model.graph.output]
        self.features_name = _expose_features(model, file.path)
        self.session = _session(model, spec, file.path)
        try:
            decoded, _ = self._run(np.zeros((1, 3, *self.size_px), np.float32))
        except DetectorError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise DetectorError(f"{file.path} cannot be run ({' '.join(str(error).split())[:200]})") from None
        names = _class_names(model, decoded.scores.shape[1], spec, file.path)
        class_map = classes or ClassMap.identity(names)
        self.classes = class_map.fleet
        self.columns = class_map.columns(names)
        self.seen = np.array([len(c) > 0 for c in self.columns])
        self.digest = weights.spec_digest(spec, file.sha256, class_map.digest())

    def begin(self, frames: FrameBatch) -> Pending:
        """Run the graph when the result is asked for."""
        return Unbegun(partial(self.predict, frames))

    @torch.inference_mode()
    def predict(self, frames: FrameBatch) -> Predictions:
        """Run the graph over a batch of frames."""
        batch, cpu = Batch.of(frames), torch.device("cpu")
        prepared = (
            batch.letterboxed(self.size_px, None, cpu)
            if self.head.letterbox
            else batch.stretched(self.size_px, cpu)
        )
        images = prepared.images.flip(1) if self.head.bgr else prepared.images
        shape = (1, 3, 1, 1)
        inputs = (images - torch.tensor(self.head.mean).view(shape)) / torch.tensor(self.head.std).view(shape)
        return look(lambda: self._raw(inputs), prepared, self.columns, self.spec)

    def _raw(self, inputs: torch.Tensor) -> RawOutput:
        """Run images [b, 3, height, width], one after another."""
        results = [self._run(image[None].contiguous().numpy()) for image in inputs]
        decoded = [frame for frame, _ in results]
        first = decoded[0]
        return RawOutput(
            boxes=torch.stack([frame.boxes for frame in decoded]),
            scores=torch.stack([frame.scores for frame in decoded]),
            features=torch.cat([features for _, features in results]),
            edges=None
            if first.edges is None
            else torch.stack([f.edges for f in decoded if f.edges is not None]),
            bin_px=first.bin_px,
        )

    def _run(self, image: np.ndarray) -> tuple[Decoded, torch.Tensor]:
        """Run one image [1, 3, height, width]: the decoded outputs and the feature map [1, d, h, w]."""
        arrays = self.session.run([*self.output_names, self.features_name], {self.input_name: image})
        *outputs, features = [torch.from_numpy(np.asarray(array, np.float32)) for array in arrays]
        try:
            return self.head.decode(outputs, self.size_px), features
        except WrongHeadError as error:
            shapes = ", ".join(str(list(output.shape)) for output in outputs)
            raise DetectorError(
                f"{self.spec.weights} does not fit head {self.spec.head!r}, which reads {error}; its outputs are {shapes}"
                f" (heads: {', '.join(HEADS)})"
            ) from None


def _parse(content: bytes, path: Path) -> onnx.ModelProto:
    """Parse a graph, refusing what reaches outside its own file."""
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's DecodeError comes from one of several packages
        raise DetectorError(f"{path} is no ONNX graph, or it is damaged ({type(error).__name__})") from None
    if not model.graph.node or not model.graph.output:
        raise DetectorError(f"{path} is no ONNX graph: it holds no nodes")
    if any(t.data_location == onnx.TensorProto.EXTERNAL or t.external_data for t in _tensors(model)):
        raise DetectorError(f"{path} keeps weights in other files, which is refused; export it as one file")
    return model


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers and attributes, in nested graphs and functions too."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            graphs.extend((attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs)


def _fix_input(model: onnx.ModelProto, spec: DetectorSpec, path: Path) -> tuple[str, tuple[int, int]]:
    """Give the graph one input of a fixed shape: its name, and height and width in pixels."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    # Old exporters list every weight as an input, which forbids ONNX Runtime to fold it and warns about each.
    for i in reversed(range(len(model.graph.input))):
        if model.graph.input[i].name in initializers:
            del model.graph.input[i]
    inputs = model.graph.input
    dims = inputs[0].type.tensor_type.shape.dim if len(inputs) == 1 else []
    if len(dims) != 4 or dims[1].dim_value not in {0, 3} or dims[0].dim_value not in {0, 1}:
        got = ", ".join(
            f"{v.name} {[d.dim_value or '?' for d in v.type.tensor_type.shape.dim]}" for v in inputs
        )
        raise DetectorError(f"{path} must take one input [1, 3, height, width]; it takes {got or 'none'}")
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise DetectorError(f"{path} takes no float32 input; export it in float32")
    fixed = dims[2].dim_value, dims[3].dim_value
    wanted = spec.image_size_px or DEFAULT_SIZE_PX
    size_px = (fixed[0] or wanted, fixed[1] or wanted)
    if spec.image_size_px is not None and max(size_px) != spec.image_size_px:
        raise DetectorError(
            f"image_size_px is {spec.image_size_px}, but {path} was exported for {size_px[1]}x{size_px[0]}; leave it out"
        )
    if not all(32 <= side <= MAX_SIZE_PX for side in size_px):
        raise DetectorError(
            f"{path} has an input of {size_px[1]}x{size_px[0]}; need 32 to {MAX_SIZE_PX} pixels a side"
        )
    for dim, value in zip(dims, (1, 3, *size_px), strict=True):
        dim.dim_value = value
    if 0 in fixed:
        del model.graph.value_info[:]  # shapes that were written for the dynamic sides
    return inputs[0].name, size_px


def _expose_features(model: onnx.ModelProto, path: Path) -> str:
    """Add the feature map that becomes the embedding to the graph's outputs, and return its name.

    It is the deepest one: among the float maps [1, d, h, w] the smallest that is larger than 1 x 1, of those the one
    with most channels, of those the last in the graph's order.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception as error:
        raise DetectorError(f"{path} is damaged ({' '.join(str(error).split())[:160]})") from None
    produced = {name: order for order, node in enumerate(model.graph.node) for name in node.output}
    best: tuple[tuple[int, int, int], onnx.ValueInfoProto] | None = None
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        is_map = len(shape) == 4 and all(shape) and shape[0] == 1 and shape[2] * shape[3] > 1
        if (
            not is_map
            or value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT
            or value.name not in produced
        ):
            continue
        rank = (-shape[2] * shape[3], shape[1], produced[value.name])
        if best is None or rank > best[0]:
            best = rank, value
    if best is None:
        raise DetectorError(
            f"{path} has no feature map [1, channels, height, width] to take an embedding from"
        )
    if best[1].name not in {output.name for output in model.graph.output}:
        model.graph.output.append(best[1])
    return best[1].name


def _session(model: onnx.ModelProto, spec: DetectorSpec, path: Path) -> onnxruntime.InferenceSession:
    """Start ONNX Runtime on the spec's device."""
    available = onnxruntime.get_available_providers()
    on_cuda = spec.device != "cpu" and "CUDAExecutionProvider" in available
    if spec.device not in {"auto", "cpu"}:
        choose_device(spec.device)  # complains about unknown names and absent devices
        if not on_cuda:
            raise DetectorError(
                f"device is {spec.device!r}, but this ONNX Runtime has no CUDA; install onnxruntime-gpu or set "
                'device = "cpu"'
            )
    cuda = ("CUDAExecutionProvider", {"device_id": int(spec.device.partition(":")[2] or 0)})
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    # Idle threads would burn the cores on which the other detectors of the committee run.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [cuda, "CPUExecutionProvider"] if on_cuda else ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
        raise DetectorError(
            f"{path} cannot be run by ONNX Runtime ({' '.join(str(error).split())[:200]})"
        ) from None


def _class_names(model: onnx.ModelProto, count: int, spec: DetectorSpec, path: Path) -> tuple[str, ...]:
    """Return the names of the model's classes: from the spec, else the graph's metadata, else COCO's 80."""
    names = spec.class_names or _carried_names(model)
    if names is None and count == len(COCO_NAMES):
        return COCO_NAMES
    if names is None:
        raise DetectorError(f"{path} has {count} classes and does not say which; give class_names")
    if len(names) != count:
        raise DetectorError(f"class_names has {len(names)} names, but {path} has {count} classes")
    return names


def _carried_names(model: onnx.ModelProto) -> tuple[str, ...] | None:
    """Read the names that Ultralytics' exporter writes into the metadata: a Python dict literal, index -> name."""
    text = next((entry.value for entry in model.metadata_props if entry.key == "names"), None)
    if text is None or len(text) > 1 << 20:
        return None
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(names, dict) or any(i not in names for i in range(len(names))):
        return None
    return tuple(str(names[i]) for i in range(len(names)))
