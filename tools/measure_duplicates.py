"""How many frames of footage that was uploaded twice are found, and how many pairs are false alarms?

    python tools/measure_duplicates.py make --clip drive.mp4 --clip other.mp4 --out variants/
    mining index -c night.toml && mining detect -c night.toml        # over the clips and variants/
    python tools/measure_duplicates.py measure --store STORE [--store STORE] [--json]
    python tools/measure_duplicates.py bench [--pool 8000 --taken 20000 --width 128]

``make`` writes each clip again: other bit rate, size, crop, start, frame rate, brightness, container (CLIP__VARIANT.mp4).
``measure`` reads the stores and compares every frame with every other. A frame of a variant is found where it is paired with
a frame of its clip less than 2.5 s from the same moment. A pair of different footage is a false alarm. For more of it, each clip is also cut in two halves that are compared with each other. ``picture`` is the rule for single
frames (difference hash and embedding), ``moment`` is mining.same_moment.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from mining.config import SelectConfig
from mining.same_moment import SAME_S, SLOT_S, Footage, SameMoments, first_of_each
from mining.signals.quality import hamming
from mining.store import Store

EDITED = {("kartik_dashcam1", "kartik_dashcam2"): (-84 / 30, 156 / 30)}
"""Clips known to share footage: time in the second less time in the first, of the drive and of its replay."""
NEAR_S = SAME_S + SLOT_S
RECALL_BAR, FALSE_BAR = 0.9, 0


@dataclass(frozen=True, slots=True)
class Variant:
    """How a clip is written again."""

    start_s: float = 0.0
    crop: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Shares cut off at left, top, right and bottom."""
    scale: float = 1.0
    rate_hz: int | None = None
    gain: float = 1.0
    add: float = 0.0
    crf: int = 26
    codec: str = "libx264"
    suffix: str = ".mp4"


VARIANTS = {
    "bitrate": Variant(crf=38),
    "half": Variant(scale=0.5),
    "crop8": Variant(crop=(0.04, 0.04, 0.04, 0.04)),
    "crop10corner": Variant(crop=(0.10, 0.10, 0.0, 0.0)),
    "trim": Variant(start_s=2.77),
    "rate20": Variant(rate_hz=20),
    "bright": Variant(gain=1.15, add=18),
    "mkv_mpeg4": Variant(codec="mpeg4", suffix=".mkv"),
    "all": Variant(1.71, (0.03, 0.02, 0.03, 0.04), 0.6, 24, 0.9, 8, 33),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One recording as the store holds it."""

    name: str
    time_s: NDArray[np.float64]
    embedding: NDArray[np.float32]
    perceptual_hash: NDArray[np.uint64]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["make", "measure", "bench"])
    parser.add_argument("--clip", type=Path, action="append", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--store", type=Path, action="append", default=[])
    parser.add_argument("--pool", type=int, default=8000)
    parser.add_argument("--taken", type=int, default=20000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--json", action="store_true", help="end in one line of JSON")
    options = parser.parse_args()
    if options.what == "make" and not (options.clip and options.out):
        parser.error("make needs --clip and --out")
    if options.what == "measure" and not options.store:
        parser.error("measure needs --store")
    if options.what == "make":
        options.out.mkdir(parents=True, exist_ok=True)
        for name, variant in VARIANTS.items():
            for clip in options.clip:
                print(write_variant(clip, options.out, name, variant))
        return
    result = measure(options.store) if options.what == "measure" else bench(options)
    if options.json:
        print(json.dumps(result))


def write_variant(clip: Path, folder: Path, name: str, how: Variant) -> Path:
    """Write a clip again, as ``how`` says."""
    path = folder / f"{clip.stem}__{name}{how.suffix}"
    container = "matroska" if how.suffix == ".mkv" else "mp4"
    with av.open(str(clip)) as source, av.open(str(path), "w", format=container) as target:
        source_hz = float(source.streams.video[0].average_rate or 25)
        rate_hz = how.rate_hz or round(source_hz)
        stream: Any = None
        written = 0
        for index, frame in enumerate(source.decode(video=0)):
            if index / source_hz - how.start_s < written / rate_hz - 1e-6:
                continue
            image = _edited(frame.to_ndarray(format="rgb24"), how)
            if stream is None:
                settings = {"crf": str(how.crf), "preset": "veryfast"} if how.codec == "libx264" else {}
                stream = target.add_stream(how.codec, rate=rate_hz, options=settings)
                stream.height, stream.width, stream.pix_fmt, stream.thread_count = (
                    *image.shape[:2],
                    "yuv420p",
                    1,
                )
            again = av.VideoFrame.from_ndarray(image, format="rgb24")
            again.pts, again.time_base = written, Fraction(1, rate_hz)
            written += 1
            target.mux(stream.encode(again))
        if stream is None:
            raise SystemExit(f"{clip}: no frame after {how.start_s} s")
        target.mux(stream.encode(None))
    return path


def _edited(image: NDArray[np.uint8], how: Variant) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    left, top, right, bottom = how.crop
    image = image[
        int(top * height) : height - int(bottom * height), int(left * width) : width - int(right * width)
    ]
    # Codecs want even numbers.
    size = [int(edge * how.scale) // 2 * 2 for edge in (image.shape[1], image.shape[0])]
    image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.clip(image * how.gain + how.add, 0, 255).astype(np.uint8)


def measure(stores: list[Path]) -> dict[str, Any]:
    """Print the table; returns the figures with their bars."""
    seen = [recording for store in stores for recording in read(store)]
    names = [recording.name for recording in seen]
    position = np.concatenate([np.full(len(r.time_s), n, np.int64) for n, r in enumerate(seen)])
    embedding = np.concatenate([r.embedding for r in seen])
    footage = Footage(position, np.concatenate([r.time_s for r in seen]), embedding)
    hashes = np.concatenate([r.perceptual_hash for r in seen])
    rules = {
        "picture": picture_pairs(hashes, embedding),
        "moment": moment_pairs(footage),
    }
    rules["either"] = tuple(np.concatenate(side) for side in zip(*rules.values(), strict=True))  # type: ignore[assignment]
    found: dict[str, dict[str, list[float]]] = {}
    false: dict[str, dict[tuple[str, str], int]] = {}
    late = dict.fromkeys(rules, 0)
    for rule, (i, j) in rules.items():
        false[rule] = {}
        a, b = footage.recording[i], footage.recording[j]
        for x, y in {(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True) if x != y}:
            pair = (a == x) & (b == y)
            offsets = offsets_s(names[x], names[y])
            off = footage.time_s[j[pair]] - footage.time_s[i[pair]]
            wrong = (
                np.all([np.abs(off - right) > NEAR_S for right in offsets], axis=0)
                if offsets
                else np.ones(len(off), np.bool_)
            )
            if offsets:
                late[rule] += int(wrong.sum())
            elif x < y:
                false[rule][names[x], names[y]] = int(wrong.sum())
        for x, name in enumerate(names):
            clip = name.split("__")[0]
            for y in [y for y, other in enumerate(names) if other == clip and y != x] + [
                y for y, other in enumerate(names) if (other, name) in EDITED
            ]:
                rows = np.flatnonzero(footage.recording == x)
                offsets = offsets_s(name, names[y])
                off = footage.time_s[j] - footage.time_s[i]
                right = (a == x) & (b == y) & np.any([np.abs(off - o) <= NEAR_S for o in offsets], axis=0)
                kind = name.split("__")[1] if "__" in name else "edited"
                found.setdefault(kind, {}).setdefault(rule, []).extend(np.isin(rows, i[right]).tolist())
    print(f"{len(names)} recordings, {len(footage)} frames")
    print(f"{'written again as':<18}{'frames':>8}" + "".join(f"{rule:>10}" for rule in rules))
    recall = {kind: {rule: float(np.mean(hits)) for rule, hits in by.items()} for kind, by in found.items()}
    for kind, by in recall.items():
        print(f"{kind:<18}{len(found[kind]['either']):>8}" + "".join(f"{by[rule]:>10.3f}" for rule in rules))
    halves = halves_false(seen)
    for rule in ("picture", "moment"):
        print(f"false pairs, {rule}: {sum(false[rule].values())} {false[rule] or ''}")
        share = late[rule] / max(len(rules[rule][0]), 1)
        print(
            f"pairs of the same footage, {rule}, but {NEAR_S} s or more from the moment: {share:.3f} of its pairs"
        )
    print(f"false pairs, moment, halves of one clip: {sum(halves.values())} {halves or ''}")
    worst = min((by["either"] for by in recall.values()), default=0.0)
    wrong_moments = sum(false["moment"].values()) + sum(halves.values())
    return {
        "frames": len(footage),
        "recall": recall,
        "worst_recall": {"value": worst, "bar": RECALL_BAR, "holds": worst >= RECALL_BAR},
        "false_moment_pairs": {"value": wrong_moments, "bar": FALSE_BAR, "holds": wrong_moments <= FALSE_BAR},
    }


def offsets_s(name: str, other: str) -> tuple[float, ...]:
    """Time in ``other`` less time in ``name`` where both show the same; empty where they show different footage."""
    (clip, _, how), (clip_2, _, how_2) = name.partition("__"), other.partition("__")
    start = (VARIANTS[how].start_s if how in VARIANTS else 0.0) - (
        VARIANTS[how_2].start_s if how_2 in VARIANTS else 0.0
    )
    if clip == clip_2:
        return (start,)
    forward = EDITED.get((clip, clip_2))
    if forward is not None:
        return tuple(start + offset for offset in forward)
    return tuple(start - offset for offset in EDITED.get((clip_2, clip), ()))


def moment_pairs(footage: Footage) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs by mining.same_moment, where every frame is in the pool."""
    same = SameMoments(footage, np.zeros(0, np.int64)).of(np.arange(len(footage)))
    pairs = [(row, other) for row, others in same.items() for other in others]
    i, j = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    return i, j


def picture_pairs(
    hashes: NDArray[np.uint64], embedding: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs by the config's rule for single frames: bits of the hash, and distance of the embeddings."""
    select = SelectConfig()
    i, j = np.nonzero(hamming(hashes[:, None], hashes[None]) <= select.max_duplicate_bits)
    near = np.linalg.norm(embedding[i] - embedding[j], axis=1) <= select.max_duplicate_distance
    return i[near], j[near]


def halves_false(seen: list[Seen]) -> dict[str, int]:
    """Pairs between the first and the second half of each clip, taken as recordings of their own."""
    clips = [r for r in seen if "__" not in r.name]
    half = [np.arange(len(r.time_s)) >= len(r.time_s) // 2 for r in clips]
    number = np.concatenate([2 * n + h for n, h in enumerate(half)]).astype(np.int64)
    footage = Footage(
        number, np.concatenate([r.time_s for r in clips]), np.concatenate([r.embedding for r in clips])
    )
    i, j = moment_pairs(footage)
    a, b = number[i], number[j]
    across = (a < b) & (a // 2 == b // 2)
    # The replay at the end of an edited clip is no false alarm.
    edited = {name for pair in EDITED for name in pair}
    return {
        clips[n].name: int((a[across] // 2 == n).sum())
        for n in np.unique(a[across] // 2).tolist()
        if clips[n].name not in edited
    }


def read(store: Path) -> list[Seen]:
    """Read every recording of a store that a detector looked at."""
    with Store(store).connect() as con:
        table = con.sql(
            "SELECT r.recording_id, r.uri, f.pts_ns / 1e9 AS time_s, o.embedding, o.perceptual_hash FROM frames AS f "
            "JOIN observations AS o USING (frame_id) JOIN recordings AS r ON r.recording_id = f.recording_id "
            "WHERE o.embedding IS NOT NULL ORDER BY r.recording_id, f.pts_ns"
        ).to_arrow_table()
    ids = np.asarray(table["recording_id"].to_pylist(), np.str_)
    seen = []
    for recording in np.unique(ids):
        mine = table.filter(ids == recording)
        path = Path(mine["uri"][0].as_py())
        time_s = mine["time_s"].to_numpy()
        seen.append(
            Seen(
                name=path.parent.name if path.name == "images" else path.stem,
                time_s=time_s - time_s[0],
                embedding=np.asarray(mine["embedding"].to_pylist(), np.float32),
                perceptual_hash=mine["perceptual_hash"].to_numpy().astype(np.uint64),
            )
        )
    return seen


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Time the search on drives that wander at random: 40 looked-at frames around each frame of pool and taken."""
    rng = np.random.default_rng(0)
    count, length = options.pool + options.taken, 57
    embedding = rng.standard_normal((count, length, options.width), dtype=np.float32)
    for step in range(1, length):
        embedding[:, step] = 0.8 * embedding[:, step - 1] + 0.6 * embedding[:, step]
    embedding = embedding.reshape(count * length, options.width)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    footage = Footage(
        np.repeat(np.arange(count), length), np.tile(np.arange(length) * SLOT_S, count), embedding
    )
    middle = np.arange(count) * length + length // 2
    began = time.perf_counter()
    pool, taken = middle[: options.pool], middle[options.pool :]
    keep = first_of_each(pool.tolist(), SameMoments(footage, taken).of(pool), set(taken.tolist()))
    seconds = time.perf_counter() - began
    print(
        f"pool {options.pool}, taken {options.taken}, {len(footage)} frames around them, {options.width}-d:"
    )
    print(f"{seconds:.1f} s, {int((~keep).sum())} frames dropped (all different: 0 is right)")
    return {
        "pool": options.pool,
        "taken": options.taken,
        "seconds": seconds,
        "dropped": int((~keep).sum()),
    }


if __name__ == "__main__":
    main()
