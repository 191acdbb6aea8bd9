"""Does a night survive broken footage? Breaks clips in many ways, runs them, and counts what should not be.

    python tools/fuzz_footage.py CLIP [CLIP ...] [--forms 40] [--seed 0] [--work FOLDER] [--json]

Each clip is broken in ``--forms`` ways: cut at random, blocks zeroed, bits flipped, its index (the moov atom) gone, garbage
before or behind it, a wrong ending, parts doubled, and sizes changed within one stream (two clips joined). `mining run` looks
at all of them with a small detector. What is held:

- the process ends by itself, with exit code 0 or 3, and no decoder hung (gave no frame for 60 s);
- every file has a row in `recordings`, and every one that is not sound a reason;
- frames that lie wholly before the damage, by their bytes, are mined, with the very pixels of the sound clip (luma_mean and
  perceptual hash are compared). Files whose index is behind the damage are not judged by this: they may be unreadable.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from mining.store import Store

ROOT = Path(__file__).resolve().parents[1]

Random = np.random.Generator
MAIN = "import sys; sys.path.insert(0, {root!r}); from mining.cli import main; main()"
CONFIG = """
store = "store"
[footage]
paths = ["footage"]
sample_hz = 1.0
[[detector]]
weights = "{weights}"
image_size_px = 160
[detect]
skip_repeats = false
[select]
budget = 10
"""


@dataclass(frozen=True, slots=True)
class Broken:
    """A clip, broken."""

    content: bytes
    ending: str
    sound_until: int | None
    """Bytes up to here are those of the clip, at their places; None where no frame is promised."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--forms", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--weights", type=Path, default=ROOT / "detectors" / "demo_weights" / "demo_yolov8.pt"
    )
    parser.add_argument("--work", type=Path, help="keep the broken files and the store here")
    parser.add_argument("--json", action="store_true", help="end in one line of JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-footage-") as folder:
        figures = fuzz(options, options.work or Path(folder))
    for name, figure in figures.items():
        print(f"{name:<40}{figure}")
    if options.json:
        print(json.dumps(figures))


def fuzz(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Break, run, and count."""
    footage = work / "footage"
    footage.mkdir(parents=True, exist_ok=True)
    (work / "fuzz.toml").write_text(CONFIG.format(weights=options.weights.resolve()))
    promised: dict[str, tuple[str, set[int]]] = {}
    files = 0
    for number, clip in enumerate(options.clips):
        content = clip.read_bytes()
        (footage / f"{clip.stem}.000-sound{clip.suffix}").write_bytes(content)
        ends = _frame_ends(clip)
        other = options.clips[(number + 1) % len(options.clips)]
        for form in range(options.forms):
            name, how = FORMS[form % len(FORMS)]
            broken = how(np.random.default_rng([options.seed, number, form]), content, clip, other)
            path = footage / f"{clip.stem}.{form + 1:03d}-{name}{broken.ending}"
            path.write_bytes(broken.content)
            files += 1
            if broken.sound_until is not None and _index_end(content) <= broken.sound_until:
                promised[str(path.resolve())] = (
                    clip.stem,
                    {pts for pts, end in ends.items() if end <= broken.sound_until},
                )
    began = time.perf_counter()
    command = [sys.executable, "-c", MAIN.format(root=str(ROOT)), "run", str(work / "fuzz.toml"), "--json"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60 * files, check=False)
        code, said = run.returncode, run.stdout + run.stderr
    except subprocess.TimeoutExpired:
        code, said = -1, "did not end"
    if code not in (0, 3):
        print(said[-2000:])
    with Store(work / "store").connect() as con:
        rows = con.execute("SELECT uri, status, error FROM recordings").fetchall()
        seen = con.execute(
            "SELECT r.uri, f.pts_ns, o.status, o.luma_mean, o.perceptual_hash, o.error FROM frames AS f "
            "JOIN recordings AS r USING (recording_id) LEFT JOIN observations AS o USING (frame_id)"
        ).fetchall()
    return {
        **_figures(files, code, rows, seen, promised, said),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _figures(
    files: int,
    code: int,
    rows: list[tuple[Any, ...]],
    seen: list[tuple[Any, ...]],
    promised: dict[str, tuple[str, set[int]]],
    said: str,
) -> dict[str, Any]:
    sound = {
        (Path(uri).name.split(".")[0], pts): (luma, picture)
        for uri, pts, status, luma, picture, _ in seen
        if "-sound." in uri and status == "ok"
    }
    found = {(uri, pts): (status, luma, picture) for uri, pts, status, luma, picture, _ in seen}
    # Which frames are sampled follows from the times: of a cut file they are those of the sound one, as far as it goes.
    wanted = lost = other = 0
    for uri, (clip, times) in promised.items():
        for pts in sorted(times & {pts for name, pts in sound if name == clip}):
            wanted += 1
            status, *picture = found.get((uri, pts), (None, None, None))
            if status not in {"ok", "partial"}:
                lost += 1
                print(f"lost: {Path(uri).name} at {pts / 1e9:.3f} s")
            other += status in {"ok", "partial"} and tuple(picture) != sound[clip, pts]
    # A file of the very same content as another is mined once.
    twice = said.count(": the same content as ") // 2  # among the problems of the stage, and of the night
    without = files + len({name for name, _ in sound}) - len(rows) - twice
    hung = sum("gave no answer" in (error or "") for *_, error in [*rows, *seen])
    silent = sum(status != "ok" and not error for _, status, error in rows)
    states = {state: sum(row[1] == state for row in rows) for state in ("ok", "partial", "unreadable")}
    return {
        "files": files,
        "recordings": states,
        "frames": len(seen),
        "exit_code": {"value": code, "bar": "0 or 3", "holds": code in (0, 3)},
        "files_without_a_row": {"value": without, "bar": 0, "holds": without == 0},
        "broken_without_a_reason": {"value": silent, "bar": 0, "holds": silent == 0},
        "hung": {"value": hung, "bar": 0, "holds": hung == 0},
        "frames_before_the_damage": wanted,
        "of_these_lost": {"value": lost, "bar": 0, "holds": wanted > 0 and lost == 0},
        "of_these_other_pixels": {"value": other, "bar": 0, "holds": wanted > 0 and other == 0},
    }


def _frame_ends(clip: Path) -> dict[int, int]:
    """Presentation time (ns) -> byte at which the frame, and all that was decoded before it, ends."""
    ends, until = {}, 0
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if packet.pts is None or packet.pos is None or stream.time_base is None:
                continue
            until = max(until, packet.pos + packet.size)
            ends[round(packet.pts * stream.time_base * 10**9)] = until
    return ends


def _index_end(content: bytes) -> int:
    """Byte at which the moov atom ends."""
    at = 0
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        header = 8
        if size == 1:
            size = int.from_bytes(content[at + 8 : at + 16], "big")
            header = 16
        if content[at + 4 : at + 8] == b"moov":
            return at + size
        at += max(size, header)
    return len(content)


# The forms. Each takes (random, the clip's bytes, its path, another clip's path).


def cut(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    at = int(random.integers(1, len(content)))
    return Broken(content[:at], clip.suffix, at)


def zeroed(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    changed = bytearray(content)
    starts = random.integers(0, len(content), random.integers(1, 8))
    for start in starts:
        size = min(int(random.integers(512, 65536)), len(content) - int(start))
        changed[start : start + size] = bytes(size)
    return Broken(bytes(changed), clip.suffix, int(starts.min()))


def flipped(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    changed = np.frombuffer(content, np.uint8).copy()
    places = random.integers(0, len(content), random.integers(1, 200))
    changed[places] ^= (1 << random.integers(0, 8, len(places))).astype(np.uint8)
    return Broken(changed.tobytes(), clip.suffix, int(places.min()))


def no_index(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    return Broken(content.replace(b"moov", b"gone", 1), clip.suffix, None)


def broken_index(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    end = _index_end(content)
    start = content.index(b"moov")
    changed = np.frombuffer(content, np.uint8).copy()
    places = random.integers(start, end, random.integers(1, 40))
    changed[places] = random.integers(0, 256, len(places))
    return Broken(changed.tobytes(), clip.suffix, None)


def garbage_behind(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    return Broken(content + random.bytes(int(random.integers(1, 100_000))), clip.suffix, len(content))


def garbage_before(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    return Broken(random.bytes(int(random.integers(1, 5_000))) + content, clip.suffix, None)


def wrong_ending(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    # Some bytes more: the very same content is mined once, whatever its name.
    more = random.bytes(int(random.integers(8, 64)))
    return Broken(content + more, str(random.choice([".avi", ".mkv", ".ts", ".webm", ".mov"])), len(content))


def doubled(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    at, size = int(random.integers(0, len(content))), int(random.integers(100, 50_000))
    return Broken(content[: at + size] + content[at:], clip.suffix, at)


def taken_out(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    at, size = int(random.integers(0, len(content))), int(random.integers(100, 50_000))
    return Broken(content[:at] + content[at + size :], clip.suffix, at)


def joined_streams(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    """Two clips one behind the other in a transport stream: another size from the middle on."""
    return Broken(_transport_stream(clip) + _transport_stream(other), ".ts", None)


def cut_stream(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    stream = _transport_stream(clip)
    at = int(random.integers(1, len(stream)))
    return Broken(stream[at:] + _transport_stream(other)[:at], ".ts", None)


def joined_files(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    return Broken(content + other.read_bytes(), clip.suffix, len(content))


def hardly_any(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    return Broken(content[: int(random.integers(0, 64))], clip.suffix, None)


def noise(random: Random, content: bytes, clip: Path, other: Path) -> Broken:
    return Broken(random.bytes(int(random.integers(1, 200_000))), clip.suffix, None)


def _transport_stream(clip: Path) -> bytes:
    with tempfile.NamedTemporaryFile(suffix=".ts") as file:
        with av.open(str(clip)) as source, av.open(file.name, "w", format="mpegts") as target:
            stream = source.streams.video[0]
            copy = target.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    target.mux(packet)
        return Path(file.name).read_bytes()


FORMS: list[tuple[str, Callable[[Random, bytes, Path, Path], Broken]]] = [
    (form.__name__, form)
    for form in (
        cut, zeroed, flipped, broken_index, cut, zeroed, flipped, doubled, taken_out, garbage_behind,
        cut, zeroed, flipped, no_index, wrong_ending, joined_streams, cut_stream, joined_files, garbage_before, hardly_any,
        cut, zeroed, flipped, broken_index, noise,
    )
]  # fmt: skip
"""In the order in which a clip is broken; begun again where more are asked for."""


if __name__ == "__main__":
    main()
