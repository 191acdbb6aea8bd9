"""Measure what each signal is worth: rank labelled images by it, and see whether the detector's errors come first.

    python tools/measure_signals.py \\
        --labels weather/data.yaml --images weather/images/pool \\
        --detectors yolov8n_weather.pt nanodet_m.onnx,head=nanodet \\
        --mix tmo324_desert.mp4 tmo324_night.mp4 --cache /tmp/signals --json

Labels are Ultralytics YOLO (data.yaml, or its folder), COCO JSON, or a folder of Pascal VOC XML. A detector is its weights
file and settings of ``detectors.DetectorSpec``. The first is the primary, whose errors are counted, or the one that
--primary names. Detections, matching, signals, percentiles and hardness come from the same code as ``mining score``.

Errors of a frame: boxes of the primary at or above its threshold and labelled objects are matched one to one, class by
class (``mining.signals.errors``). A missed object, a false alarm, and a misplaced box (IoU 0.1 to 0.5 with its object) are
one error each; a box of the wrong class is two. Only classes count that the primary can see and the labels name. Errors per
object are errors / (objects + 1): the one keeps frames of one or no object from having the highest rate of all.

Percentiles are taken against the labelled frames themselves. Frames of --mix videos (one a second) are compared with the
same reference, and do not change it.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

import detectors
from detectors import ClassMap, Detector, DetectorError, DetectorSpec
from mining.boxes import iou_matrix, match_committee
from mining.calibration import Calibration
from mining.config import ScoreConfig, shipped
from mining.footage import Defaults, FootageError, Source, frame_times, read, sampled_indices
from mining.footage.images import read_image
from mining.score_frames import SIGNAL_NAMES, blend, reference_of
from mining.signals.calibration import ScoreCalibration, class_difficulty, fit_calibration
from mining.signals.disagreement import CommitteeBoxes
from mining.signals.errors import Errors, count_errors, real_boxes
from mining.signals.frame import Signals, frame_signals
from mining.signals.quality import measure_quality
from mining.signals.temporal import TimeSignals
from mining.types import MiningError, UsageError
from tools import labelled_images
from tools.labelled_images import LabelledImages
from tools.signal_statistics import (
    Interval,
    Worth,
    bootstrap,
    interval,
    lift,
    paired_difference,
    top_weights,
    worth,
)

BARS = {
    "yolov8n_weather": {"error_lift": 3.4, "rate_lift": 1.25, "rank_correlation": 0.70},
    "yolo11n_weather": {"rank_correlation": 0.65},
    "nanodet_m": {"error_lift": 3.0, "rank_correlation": 0.57},
}
"""What the default hardness must reach on weather/pool, by the primary's weights file."""
MIX_BARS = {"tmo324_desert": 0.02}
"""Largest share of the top tenth of a video with nothing to find."""

CACHE_VERSION = 1
_BATCH = 8
_ARRAYS = ("frame", "boxes_px", "class_scores", "box_std_px", "dense_max", "dense_mean", "ran")


@dataclasses.dataclass(frozen=True, slots=True)
class Pictures:
    """What is looked at: labelled images, or frames of a video."""

    name: str
    key: str
    """Digest of the files' paths, sizes and times."""
    paths: tuple[Path, ...]
    is_video: bool

    @classmethod
    def of(cls, name: str, paths: Sequence[Path], is_video: bool) -> Pictures:
        """Name a set by its files."""
        seen = hashlib.sha256()
        for path in paths:
            stat = path.stat()
            seen.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        return cls(name, seen.hexdigest()[:20], tuple(paths), is_video)

    def read(self) -> Iterator[NDArray[np.uint8] | None]:
        """Every picture in order; None where it cannot be read, which is said on stderr."""
        if not self.is_video:
            for path in self.paths:
                try:
                    yield read_image(str(path))
                except FootageError as error:
                    print(f"left out: {path}: {error}", file=sys.stderr)
                    yield None
            return
        source = Source(str(self.paths[0]), "video")
        try:
            times = frame_times(source, Defaults(1.0))
        except FootageError as error:
            raise UsageError(f"--mix {self.paths[0]}: {error}") from None
        for frame in read(source, times, sampled_indices(times, 1.0, None)):
            if frame.rgb is None:
                print(f"left out: {self.paths[0]} frame {frame.frame_index}: {frame.error}", file=sys.stderr)
            yield frame.rgb


def main() -> None:
    options = _options()
    try:
        print_report(options)
    except (MiningError, DetectorError) as error:
        sys.exit(f"measure_signals: {error}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a folder for --cache or --write-calibration that is not there or full
        sys.exit(f"measure_signals: {error.filename}: {error.strerror}")


def print_report(options: argparse.Namespace) -> None:
    class_map = ClassMap.load(options.classes or shipped("classes.toml"))
    # For the labels alone: the detectors' digests cover their class list, and must be those that the config has.
    label_map = dataclasses.replace(
        class_map, table={**class_map.table, **_extra_names(options.map, class_map)}
    )
    specs = _specs(options.detectors, options.primary)
    weights = _weights(options.hardness)
    labels = labelled_images.load(options.labels, options.images, label_map, options.split)
    pictures = Pictures.of("labelled", labels.paths, is_video=False)
    extra = [_video(path) for path in options.mix]

    cache = Cache(options.cache, specs, class_map)
    members = [cache.detections(pictures, i) for i in range(len(specs))]
    images = cache.images(pictures)
    seen = cache.seen()
    readable = images["ok"]
    if readable.sum() < 20:
        raise UsageError(
            f"{int(readable.sum())} labelled images can be read; ranks and tenths need at least 20"
        )

    counted = seen[0] & labels.known
    if not counted.any():
        raise UsageError("the primary can see none of the labelled classes: is --classes, or --map, right?")
    if options.write_calibration:
        _write_calibration(options, specs, cache, members, images, labels, seen, class_map)
    calibrations, class_weights = _calibration(options.calibration, cache, specs, class_map)
    signals = _signals(members, specs, seen, calibrations, class_weights)
    found = _errors(members[0], specs[0].threshold, labels, images["size_px"], counted)

    keep = np.flatnonzero(readable)
    reference = reference_of({name: v[keep] for name, v in signals.items()})
    signals = {name: v[keep] for name, v in reference.complete(signals).items()}
    if absent := [name for name in weights if np.isnan(signals[name]).all()]:
        raise UsageError(f"--hardness: {absent[0]} cannot be computed for these images and detectors")
    hardness = blend({name: reference.percentile(name, signals[name]) for name in weights}, weights)
    errors = found.total[keep].astype(np.float64)
    rate = found.rate[keep]
    if not errors.any():
        raise UsageError("the primary makes no error on these images: there is nothing to find")

    resamples = bootstrap(len(keep), options.resamples)
    rows = {
        "oracle (errors)": errors,
        "oracle (errors per object)": rate,
        "hardness": hardness,
        "baseline: darkness": -images["luma_mean"][keep],
        "baseline: blur": -images["sharpness"][keep],
        **{name: signals[name] for name in SIGNAL_NAMES if not np.isnan(signals[name]).all()},
    }
    table = {name: worth(values, errors, rate, resamples) for name, values in rows.items()}
    difference = paired_difference(hardness, signals["candidate_count"], errors, resamples)
    mixed = _mix(extra, cache, specs, seen, calibrations, class_weights, reference, weights, hardness)

    names = [spec.table_name for spec in specs]
    share = interval(
        lambda i: _pooled_lift(hardness[i], errors[i], found.objects[keep][i]), len(keep), resamples
    )
    _print_set(options, labels, images, class_map, counted, names, specs, found, keep, weights)
    _print_table(table)
    print(f"\nrank correlation, hardness less candidate_count: {_shown(difference)} (95 %, paired bootstrap)")
    print(f"errors over objects of the top tenth, over the same of all frames (hardness): {_shown(share)}")
    for name, (part, of_all) in mixed.items():
        print(f"mixed in: {name} is {of_all:.1%} of the frames and takes {part:.1%} of the top tenth")
    figures = _figures(Path(specs[0].weights).stem, table["hardness"], difference, mixed)
    for name, figure in figures.items():
        if figure["bar"] is not None:
            print(
                f"{'holds' if figure['holds'] else 'FAILS'}: {name} {figure['value']:.3f}, bar {figure['bar']}"
            )
    if options.json:
        plain = {name: dataclasses.asdict(row) for name, row in table.items()}
        counts = {
            n: int(getattr(found, n)[keep].sum()) for n in ("objects", "missed", "false_alarms", "misplaced")
        }
        print(json.dumps({
            "primary": names[0], "committee": names, "images": len(keep), **counts, "weights": weights,
            "figures": figures, "holds": all(f["holds"] for f in figures.values() if f["bar"] is not None),
            "signals": plain,
        }))  # fmt: skip


def _figures(
    primary: str, hardness: Worth, difference: Interval, mixed: dict[str, tuple[float, float]]
) -> dict[str, dict[str, Any]]:
    bars = BARS.get(primary, {})
    measured = {
        "error_lift": hardness.error_lift.value,
        "rate_lift": hardness.rate_lift.value,
        "rank_correlation": hardness.with_errors,
    }
    figures = {
        name: {"value": value, "bar": bars.get(name), "holds": value >= bars.get(name, -np.inf)}
        for name, value in measured.items()
    }
    low = difference.low
    figures["rank_correlation_above_candidate_count_low"] = {"value": low, "bar": 0.0, "holds": low > 0}
    for name, (part, _) in mixed.items():
        bar = MIX_BARS.get(name)
        figures[f"top_tenth_share_{name}"] = {"value": part, "bar": bar, "holds": bar is None or part <= bar}
    return {name: {**f, "holds": bool(f["holds"])} for name, f in figures.items()}


class Cache:
    """Detections of each detector on each set of pictures, kept in a folder under the detector's digest."""

    def __init__(self, folder: Path | None, specs: Sequence[DetectorSpec], class_map: ClassMap) -> None:
        self.folder, self.specs, self.class_map = folder, specs, class_map
        self.digests = [detectors.digest_of(spec, class_map) for spec in specs]
        self._loaded: dict[int, Detector] = {}
        self._images: dict[str, dict[str, NDArray[Any]]] = {}

    def member(self, index: int) -> Detector:
        """Load a detector, once."""
        if index not in self._loaded:
            self._loaded[index] = detectors.load(self.specs[index], self.class_map)
        return self._loaded[index]

    def seen(self) -> NDArray[np.bool_]:
        """[M, c] what each member can see."""
        rows = []
        for i, digest in enumerate(self.digests):
            kept = self._load(f"{digest[:20]}-seen")
            if kept is None:
                kept = {"seen": self.member(i).seen}
                self._save(f"{digest[:20]}-seen", kept)
            rows.append(kept["seen"])
        return np.array(rows)

    def images(self, pictures: Pictures) -> dict[str, NDArray[Any]]:
        """Of each picture: ``ok``, ``size_px`` (width, height), ``luma_mean``, ``sharpness``."""
        if pictures.key not in self._images:
            kept = self._load(f"{pictures.key}-images")
            if kept is None:
                kept = _measure_images(pictures)
                self._save(f"{pictures.key}-images", kept)
            self._images[pictures.key] = kept
        return self._images[pictures.key]

    def detections(self, pictures: Pictures, index: int) -> dict[str, NDArray[Any]]:
        """Everything that one member says about the pictures, as ``_ARRAYS``."""
        name = f"{self.digests[index][:20]}-{pictures.key}"
        kept = self._load(name)
        if kept is None:
            kept = _detect(self.member(index), pictures)
            self._save(name, kept)
        return kept

    def _load(self, name: str) -> dict[str, NDArray[Any]] | None:
        path = None if self.folder is None else self.folder / f"{name}-v{CACHE_VERSION}.npz"
        if path is None or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, zipfile.BadZipFile):
            raise UsageError(f"{path} is damaged; delete it") from None

    def _save(self, name: str, arrays: dict[str, NDArray[Any]]) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}-v{CACHE_VERSION}.npz"
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            np.savez(file, **arrays)
        part.replace(path)


def _measure_images(pictures: Pictures) -> dict[str, NDArray[Any]]:
    ok, size, luma, sharp = [], [], [], []
    for rgb in pictures.read():
        quality = None if rgb is None else measure_quality(rgb)
        ok.append(quality is not None)
        size.append((1, 1) if rgb is None else (rgb.shape[1], rgb.shape[0]))
        luma.append(np.nan if quality is None else quality.luma_mean)
        sharp.append(np.nan if quality is None else quality.sharpness)
    return {
        "ok": np.array(ok),
        "size_px": np.array(size),
        "luma_mean": np.array(luma),
        "sharpness": np.array(sharp),
    }


def _detect(member: Detector, pictures: Pictures) -> dict[str, NDArray[Any]]:
    """Run one detector over all pictures, a few of one size at a time."""
    from detectors.preprocess import Batch

    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in _ARRAYS}
    waiting: list[tuple[int, NDArray[np.uint8]]] = []
    classes = len(member.classes)

    def run() -> None:
        if not waiting:
            return
        position = np.array([i for i, _ in waiting])
        p = member.predict(Batch([rgb for _, rgb in waiting]))
        n = len(p.frame_index)
        std = np.full((n, 4), np.nan, np.float32) if p.box_std_px is None else p.box_std_px
        ran = np.array([slot not in p.errors for slot in range(len(waiting))])
        for name, array in zip(
            _ARRAYS,
            (
                position[p.frame_index],
                p.boxes_px,
                p.class_scores,
                std,
                p.dense_entropy_max,
                p.dense_entropy_mean,
                ran,
            ),
            strict=True,
        ):
            parts[name].append(array)
        waiting.clear()

    for i, rgb in enumerate(pictures.read()):
        if waiting and (rgb is None or len(waiting) == _BATCH or rgb.shape != waiting[0][1].shape):
            run()
        if rgb is None:
            parts["ran"].append(np.array([False]))
            for name in ("dense_max", "dense_mean"):
                parts[name].append(np.full((1, classes), np.nan, np.float32))
        else:
            waiting.append((i, rgb))
        if sys.stderr.isatty():
            print(f"\r{member.name}: {pictures.name} {i + 1}", end="", file=sys.stderr)
    run()
    if sys.stderr.isatty():
        print(file=sys.stderr)
    empty = {"frame": (0,), "boxes_px": (0, 4), "class_scores": (0, classes), "box_std_px": (0, 4)}
    joined = {n: np.concatenate(a) if a else np.zeros(empty.get(n, (0,))) for n, a in parts.items()}
    return {**joined, "frame": joined["frame"].astype(np.int64)}


def _signals(
    members: Sequence[dict[str, NDArray[Any]]],
    specs: Sequence[DetectorSpec],
    seen: NDArray[np.bool_],
    calibrations: Sequence[ScoreCalibration] | None,
    class_weights: NDArray[np.float64] | None,
) -> Signals:
    """Match the members' boxes and compute all signals: what the stages ``detect`` and ``score`` do between them."""
    member = np.concatenate([np.full(len(m["frame"]), i) for i, m in enumerate(members)])
    frame, boxes_px, class_scores, std = (np.concatenate([m[name] for m in members]) for name in _ARRAYS[:4])
    scores = _confidence(class_scores)
    boxes = CommitteeBoxes(
        frame=frame,
        member=member,
        match_id=match_committee(frame, member, boxes_px, scores, iou_threshold=0.5),
        boxes_px=boxes_px,
        scores=scores,
        class_scores=class_scores,
        thresholds=np.array([spec.threshold for spec in specs]),
        seen=seen,
        ran=np.stack([m["ran"] for m in members], axis=1),
        box_std_px=std,
    )
    found = frame_signals(
        boxes, members[0]["dense_max"], members[0]["dense_mean"], calibrations, class_weights
    )
    # Photos have no neighbours, and frames a second apart are none: signals of time cannot be computed.
    return found | {name: np.full(len(boxes.ran), np.nan) for name in TimeSignals.__dataclass_fields__}


def _errors(
    primary: dict[str, NDArray[Any]],
    threshold: float,
    labels: LabelledImages,
    size_px: NDArray[np.integer],
    counted: NDArray[np.bool_],
) -> Errors:
    scores = _confidence(primary["class_scores"])
    classes = _class_of(primary["class_scores"])
    kept = (scores >= threshold) & counted[classes]
    truth = counted[labels.classes]
    return count_errors(
        primary["frame"][kept], primary["boxes_px"][kept], classes[kept], scores[kept],
        labels.frame[truth], labels.boxes_px(size_px)[truth], labels.classes[truth],
        len(labels.paths), labels.ignore[truth],
    )  # fmt: skip


def _mix(
    extra: Sequence[Pictures], cache: Cache, specs: Sequence[DetectorSpec], seen: NDArray[np.bool_],
    calibrations: Sequence[ScoreCalibration] | None, class_weights: NDArray[np.float64] | None,
    reference: Any, weights: dict[str, float], hardness: NDArray[np.float64],
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Of each video: its share of the top tenth, and of all frames, when labelled images and all videos are ranked as one."""
    ranked, owner = [hardness], [np.full(len(hardness), -1)]
    for i, video in enumerate(extra):
        members = [cache.detections(video, m) for m in range(len(specs))]
        found = reference.complete(_signals(members, specs, seen, calibrations, class_weights))
        value = blend({name: reference.percentile(name, found[name]) for name in weights}, weights)
        value = value[~np.isnan(value)]
        ranked.append(value)
        owner.append(np.full(len(value), i))
    top, owners = top_weights(np.concatenate(ranked)), np.concatenate(owner)
    return {
        video.name: (float(top[owners == i].sum() / top.sum()), float((owners == i).mean()))
        for i, video in enumerate(extra)
    }


def _write_calibration(
    options: argparse.Namespace, specs: Sequence[DetectorSpec], cache: Cache,
    members: Sequence[dict[str, NDArray[Any]]], images: dict[str, NDArray[Any]], labels: LabelledImages,
    seen: NDArray[np.bool_], class_map: ClassMap,
) -> None:  # fmt: skip
    """Fit each detector's scores, and the primary's class difficulty, to these labels."""
    truth_px = labels.boxes_px(images["size_px"])
    fitted = {}
    for i, spec in enumerate(specs):
        m, counted = members[i], seen[i] & labels.known
        scores, classes = _confidence(m["class_scores"]), _class_of(m["class_scores"])
        of, truth = counted[classes], counted[labels.classes] & ~labels.ignore
        real = real_boxes(
            m["frame"][of], m["boxes_px"][of], classes[of], scores[of],
            labels.frame[truth], truth_px[truth], labels.classes[truth],
        )  # fmt: skip
        try:
            fitted[cache.digests[i]] = fit_calibration(scores[of], real)
        except ValueError as error:
            raise UsageError(f"{spec.table_name}: {error}") from None
    primary, truth = members[0], np.flatnonzero((seen[0] & labels.known)[labels.classes] & ~labels.ignore)
    kept = _confidence(primary["class_scores"]) >= specs[0].threshold
    p, u = np.zeros(len(truth)), np.zeros(len(truth))
    for f in np.unique(labels.frame[truth]):
        boxes = np.flatnonzero(kept & (primary["frame"] == f))
        objects = np.flatnonzero(labels.frame[truth] == f)
        if len(boxes):
            overlap = iou_matrix(truth_px[truth[objects]], primary["boxes_px"][boxes])
            best = overlap.argmax(axis=1)
            u[objects] = overlap[np.arange(len(objects)), best]
            p[objects] = primary["class_scores"][boxes[best], labels.classes[truth[objects]]]
    difficulty = class_difficulty(p, u, labels.classes[truth], len(class_map.fleet))
    by_name = {n: float(d) for n, d in zip(class_map.fleet, difficulty, strict=True) if not np.isnan(d)}
    source = f"{len(labels.paths)} images of {options.labels.name}"
    Calibration(fitted, by_name, source).save(options.write_calibration)
    for spec, c in zip(specs, fitted.values(), strict=True):
        print(f"calibration: {spec.table_name} temperature {c.temperature:.3f}, bias {c.bias:+.3f}")
    print(
        f"class difficulty: {', '.join(f'{n} {d:.2f}' for n, d in by_name.items())} -> {options.write_calibration}\n"
    )


def _calibration(
    path: Path | None, cache: Cache, specs: Sequence[DetectorSpec], class_map: ClassMap
) -> tuple[list[ScoreCalibration] | None, NDArray[np.float64] | None]:
    if path is None:
        return None, None
    file = Calibration.load(path)
    names = [spec.table_name for spec in specs]
    return file.of_members(cache.digests, names), file.class_weights(class_map.fleet)


def _confidence(class_scores: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.where(np.isnan(class_scores), -1.0, class_scores).max(axis=1, initial=-1.0)


def _class_of(class_scores: NDArray[np.floating]) -> NDArray[np.int64]:
    return np.where(np.isnan(class_scores), -1.0, class_scores).argmax(axis=1)


def _pooled_lift(
    signal: NDArray[np.float64], errors: NDArray[np.float64], objects: NDArray[np.int64]
) -> float:
    return lift(signal, errors) / lift(signal, objects.astype(np.float64))


def _shown(figure: Interval) -> str:
    return f"{figure.value:+.3f} [{figure.low:+.3f}, {figure.high:+.3f}]"


def _print_set(
    options: argparse.Namespace, labels: LabelledImages, images: dict[str, NDArray[Any]], class_map: ClassMap,
    counted: NDArray[np.bool_], names: Sequence[str], specs: Sequence[DetectorSpec], found: Errors,
    keep: NDArray[np.int64], weights: dict[str, float],
) -> None:  # fmt: skip
    print(f"labels: {options.labels}: {len(keep)} images, {int(found.objects[keep].sum())} objects")
    left_out = {
        "images without labels": labels.unlabelled,
        "images that cannot be read": int((~images["ok"]).sum()),
        **{f"objects labelled {n!r} (no fleet class)": c for n, c in labels.unmapped.items()},
        "crowds and difficult objects": int(labels.ignore.sum()),
    }
    for what, count in left_out.items():
        if count:
            print(f"left out: {count} {what}")
    classes = [n for n, c in zip(class_map.fleet, counted, strict=True) if c]
    print(f"classes counted: {', '.join(classes)}")
    for name, spec in zip(names, specs, strict=True):
        role = "primary" if name == names[0] else "member"
        print(
            f"{role}: {name} threshold {spec.threshold:g} floor {spec.floor:g} suppress_iou {spec.suppress_iou:g}"
        )
    total = {n: int(getattr(found, n)[keep].sum()) for n in ("missed", "false_alarms", "misplaced")}
    print(f"errors of {names[0]}: {', '.join(f'{c} {n}' for n, c in total.items())}")
    print(f"hardness: {', '.join(f'{n} x {w:g}' for n, w in weights.items())}\n")


def _print_table(table: dict[str, Worth]) -> None:
    print(f"{'':27}{'AUROC':>6}{'Spearman with':>16}{'error lift':>20}{'rate lift':>20}")
    print(f"{'':27}{'':>6}{'errors':>8}{'rate':>8}{'(top tenth)':>20}{'(top tenth)':>20}")
    first = [name for name in table if name in {"hardness"} or name.startswith(("oracle", "baseline"))]
    rest = sorted(set(table) - set(first), key=lambda name: -np.nan_to_num(table[name].with_errors, nan=-2))
    for name in [*first, *rest]:
        w = table[name]
        lifts = "".join(f"{i.value:7.2f} [{i.low:4.2f}, {i.high:4.2f}]" for i in (w.error_lift, w.rate_lift))
        print(f"{name:27}{w.auroc:6.2f}{w.with_errors:8.3f}{w.with_rate:8.3f} {lifts}")


def _video(path: Path) -> Pictures:
    if not path.is_file():
        raise UsageError(f"--mix {path}: no such video")
    return Pictures.of(path.stem, [path.resolve()], is_video=True)


def _specs(texts: Sequence[str], primary: str | None) -> list[DetectorSpec]:
    """Read ``WEIGHTS[,setting=value...]``; the primary comes first."""
    kinds = {
        "threshold": float,
        "floor": float,
        "suppress_iou": float,
        "image_size_px": int,
        "max_boxes": int,
        "scale": float,
        "flip": _truth,
        "class_agnostic": _truth,
    }
    texts_only = {"head", "name", "sha256", "device"}
    specs = []
    for text in texts:
        weights, *settings = text.split(",")
        values: dict[str, Any] = {}
        for setting in settings:
            key, sign, value = setting.partition("=")
            if not sign or (key not in kinds and key not in texts_only):
                known = ", ".join(sorted([*kinds, *texts_only]))
                raise UsageError(f"--detectors {text}: {setting!r} is no setting=value; settings: {known}")
            try:
                values[key] = kinds.get(key, str)(value)
            except ValueError:
                wanted = "true or false" if kinds[key] is _truth else "a number"
                raise UsageError(f"--detectors {text}: {key} needs {wanted}, got {value!r}") from None
        specs.append(DetectorSpec(weights=weights, **values))
    names = [spec.table_name for spec in specs]
    if len(specs) < 2 or len(specs) > 8:
        raise UsageError(f"a committee has 2 to 8 detectors, got {len(specs)}")
    if len(set(names)) < len(names):
        raise UsageError(f"two detectors have one name ({', '.join(names)}): give one of them ,name=...")
    if primary is not None:
        if primary not in names:
            raise UsageError(f"--primary {primary}: no such detector; there are {', '.join(names)}")
        specs.sort(key=lambda spec: spec.table_name != primary)  # stable
    return specs


def _truth(text: str) -> bool:
    """Read ``true`` or ``false``, as in a config."""
    if text not in {"true", "false"}:
        raise ValueError
    return text == "true"


def _weights(texts: Sequence[str]) -> dict[str, float]:
    """Read ``SIGNAL=WEIGHT``; the product's default where none is given."""
    if not texts:
        return dict(ScoreConfig().hardness)
    weights = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            weights[name] = float(value)
        except ValueError:
            raise UsageError(f"--hardness {text}: write it as SIGNAL=WEIGHT") from None
        if name not in SIGNAL_NAMES or not 0 < weights[name] < np.inf:
            raise UsageError(f"--hardness {text}: need a weight above 0 and one of {', '.join(SIGNAL_NAMES)}")
    return weights


def _extra_names(texts: Sequence[str], class_map: ClassMap) -> dict[str, str]:
    """Read ``NAME=FLEET_CLASS`` for names that the class list does not know."""
    names = {}
    for text in texts:
        name, sign, target = text.partition("=")
        if not sign:
            raise UsageError(f"--map {text}: write it as NAME=FLEET_CLASS")
        names[name] = target
    return dict(ClassMap.of(list(class_map.fleet), names, "--map").table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--labels", type=Path, required=True, help="data.yaml (or its folder), COCO JSON, folder of VOC XML"
    )
    parser.add_argument(
        "--images", type=Path, nargs="+", default=[], metavar="DIR", help="folders of images, searched below"
    )
    parser.add_argument("--split", help="with data.yaml, in place of --images: take the images of this key")
    parser.add_argument("--detectors", nargs="+", required=True, metavar="WEIGHTS[,setting=value...]")
    parser.add_argument(
        "--primary", metavar="NAME", help="the detector whose errors count; the first where absent"
    )
    parser.add_argument(
        "--classes", type=Path, help="fleet class list; the one that ships with mining where absent"
    )
    parser.add_argument(
        "--map", nargs="+", default=[], metavar="NAME=FLEET_CLASS", help="label names that it does not know"
    )
    parser.add_argument(
        "--hardness", nargs="+", default=[], metavar="SIGNAL=WEIGHT", help="another blend than the default"
    )
    parser.add_argument(
        "--mix",
        type=Path,
        nargs="+",
        default=[],
        metavar="VIDEO",
        help="rank frames of these among the images",
    )
    parser.add_argument("--calibration", type=Path, help="use this calibration file")
    parser.add_argument("--write-calibration", type=Path, metavar="FILE", help="fit one to these labels")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep detections here, so that a second run is quick"
    )
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (default 1000)")
    parser.add_argument(
        "--json",
        action="store_true",
        help="end with one line of JSON: each figure, its bar, whether it holds",
    )
    options = parser.parse_args()
    if options.resamples < 10:
        parser.error("--resamples needs at least 10")
    return options


if __name__ == "__main__":
    main()
