"""How much of the bare detectors' speed does the whole pipeline keep?

    python tools/bench_throughput.py --footage CLIP [CLIP ...] [--weights yolo11n.yaml yolov8n.yaml] [--size 640]
        [--batch 16] [--precision auto] [--frames 200] [--rounds 3] [--part speed|memory|flat|start] [--json]

``--weights`` takes checkpoints, or Ultralytics model files (.yaml: random weights, which serve for speed). Every frame is
looked at, repeats too.

speed: in each round, in turn: Ultralytics' ``predict(stream=True)`` over the clip with each model, the bare forward passes of
all models on ready tensors (same precision, batch size and input shape), and ``mining index`` + ``detect`` + ``score``. The
median round counts. All three have their detectors loaded, and have looked at a picture of the clip's size, before the clock starts. On
a CPU, Ultralytics takes a thread less than
there are cores, by its own default; the bare passes take all. Bars: the whole at least 2.0 times as fast as ``predict`` with
one model and then the other, and at least 0.85 of the bare passes.
memory: peak memory of the job, and of its decoders, which are processes of their own, over 60 minutes of footage against 3
minutes (long clips are made by repeating the first clip's packets; one frame a second). Bar: at most 1.1 times.
flat: cost a frame of 200 recordings of 3 s against one of 10 minutes (five frames a second). Bar: within 10 %.
Both are harder to hold with a small ``--size``: what does not grow with the pictures weighs more then.
start: seconds from the command to the first committed shard. Bar: under 15 s.

With FAIL_WITHOUT_CUDA=1 a machine without a GPU is an error; on a GPU the bar against ``predict`` with one model is 5.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it runs as a script from anywhere

RECORDINGS = 200
ENVIRONMENT = dict(os.environ)
"""As it is before Ultralytics is imported, which sets OMP_NUM_THREADS to 1 for whatever is started after it."""


def main() -> None:
    options = _options()
    import torch

    if os.environ.get("FAIL_WITHOUT_CUDA") and not torch.cuda.is_available():
        sys.exit("FAIL_WITHOUT_CUDA is set, and torch sees no CUDA device")
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-throughput-") as folder:
        work = Path(folder)
        weights = [_checkpoint(name, work) for name in options.weights]
        parts = {"speed": speed, "memory": memory, "flat": flat, "start": start}
        for name, part in parts.items():
            if options.part in (None, name):
                figures += part(options, weights, work)
    for row in figures:
        said = {True: "holds", False: "FAILS", None: "     "}[row["holds"]]
        bar = "" if row["bar"] is None else f" (bar {row['bar']:g})"
        print(f"{said}  {row['what']}: {row['value']:.4g}{bar}")
    if options.json:
        device = (
            torch.cuda.get_device_name()
            if torch.cuda.is_available()
            else torch.backends.cpu.get_cpu_capability()
        )
        holds = all(row["holds"] is not False for row in figures)
        print(json.dumps({"figures": figures, "device": device, "cores": os.cpu_count(), "holds": holds}))


def speed(options: argparse.Namespace, weights: list[Path], work: Path) -> list[dict[str, Any]]:
    """Frames a second of ``predict``, of the bare passes, and of the whole, on every clip."""
    import torch

    cuda, figures = torch.cuda.is_available(), []
    for clip in options.footage:
        short = _first_frames(clip, options.frames, work)
        count = _frame_count(short)
        rounds = []
        for number in range(options.rounds):
            rates = {
                "predict, each in turn": count
                / sum(_predict_s(path, short, options.size) for path in weights),
                "predict, the first alone": count / _predict_s(weights[0], short, options.size),
                "bare passes": _bare_rate(options, weights, short),
                "whole": count / _whole_s(options, weights, [short], work / f"speed-{number}")["stages"],
            }
            rounds.append(rates)
            print(
                f"{clip.name}: "
                + ", ".join(f"{what} {rate:.1f}" for what, rate in rates.items())
                + " frames/s"
            )
        median = {what: statistics.median(rates[what] for rates in rounds) for what in rounds[0]}
        ratio = {
            what: statistics.median(rates["whole"] / rates[what] for rates in rounds) for what in rounds[0]
        }
        figures += [figure(f"{clip.name}: frames/s, {what}", rate) for what, rate in median.items()]
        figures += [
            figure(f"{clip.name}: whole / predict, each in turn", ratio["predict, each in turn"], 2.0),
            figure(
                f"{clip.name}: whole / predict, the first alone",
                ratio["predict, the first alone"],
                5.0 if cuda else None,
            ),
            figure(f"{clip.name}: whole / bare passes", ratio["bare passes"], 0.85),
        ]
    return figures


def memory(options: argparse.Namespace, weights: list[Path], work: Path) -> list[dict[str, Any]]:
    """Peak memory over an hour of footage against three minutes."""
    peaks, decoders = {}, {}
    for minutes in (3, 60):
        clip = _repeated(options.footage[0], minutes * 60, work / f"{minutes}min.mp4")
        run = _whole_s(options, weights, [clip], work / f"memory-{minutes}", hz=1.0)
        peaks[minutes], decoders[minutes] = run["peak_bytes"], run["decoder_peak_bytes"]
        print(f"{minutes} minutes: {peaks[minutes] / 1e9:.2f} GB, a decoder {decoders[minutes] / 1e9:.2f} GB")
    return [
        figure("peak GB over 3 minutes", peaks[3] / 1e9),
        figure("peak memory, 60 minutes / 3 minutes", peaks[60] / peaks[3], 1.1, at_most=True),
        figure("a decoder's peak GB over 60 minutes", decoders[60] / 1e9),
        figure("a decoder's peak memory, 60 minutes / 3 minutes", decoders[60] / decoders[3]),
    ]


def flat(options: argparse.Namespace, weights: list[Path], work: Path) -> list[dict[str, Any]]:
    """Cost a frame over many recordings against one."""
    one_s = 3.0
    long = _repeated(options.footage[0], RECORDINGS * one_s, work / "long.mp4")
    short = _repeated(options.footage[0], one_s, work / "short.mp4")
    copies = []
    for i in range(RECORDINGS):
        copies.append(work / "many" / f"{i:03}.mp4")
        copies[-1].parent.mkdir(exist_ok=True)
        # Another comment makes another file, thus another recording; the frames stay.
        _remux(short, copies[-1], comment=str(i))
    costs = {"one": [], "many": []}
    for number in range(options.rounds):
        for name, clips in (("one", [long]), ("many", copies)):
            run = _whole_s(options, weights, clips, work / f"flat-{name}-{number}", hz=5.0)
            costs[name].append(run["stages"] / run["frames"])
            print(f"{name}: {run['frames']} frames, {1000 * costs[name][-1]:.2f} ms a frame")
    ratio = statistics.median(many / one for one, many in zip(costs["one"], costs["many"], strict=True))
    return [figure(f"cost a frame, {RECORDINGS} recordings / 1", ratio, 1.1, at_most=True)]


def start(options: argparse.Namespace, weights: list[Path], work: Path) -> list[dict[str, Any]]:
    """Seconds from the command to the first committed shard of a short clip."""
    clip = _repeated(options.footage[0], 2.0, work / "start.mp4")
    run = _whole_s(options, weights, [clip], work / "start", stages=("index", "detect"))
    return [figure("seconds to the first committed shard", run["command"], 15.0, at_most=True)]


def figure(what: str, value: float, bar: float | None = None, *, at_most: bool = False) -> dict[str, Any]:
    """Put one figure and its bar together."""
    holds = None if bar is None else bool(value <= bar if at_most else value >= bar)
    return {"what": what, "value": value, "bar": bar, "holds": holds}


# -- the three that are compared ---------------------------------------------------------------------------------------


def _predict_s(weights: Path, clip: Path, size: int) -> float:
    from ultralytics import YOLO

    model = YOLO(str(weights))
    model.predict(next(_frames(clip, 1)), imgsz=size, verbose=False)  # loads and fuses
    began = time.perf_counter()
    for _ in model.predict(source=str(clip), stream=True, imgsz=size, verbose=False):
        pass
    return time.perf_counter() - began


def _bare_rate(options: argparse.Namespace, weights: list[Path], clip: Path) -> float:
    """Frames a second of the forward passes alone, all models in turn, whole batches at a time."""
    import torch

    import detectors
    from detectors.preprocess import Batch
    from detectors.types import DetectorSpec

    torch.set_num_threads(len(os.sched_getaffinity(0)))  # Ultralytics' predict leaves the process with fewer
    frames = list(_frames(clip, options.batch))
    members: list[Any] = [
        detectors.load(
            DetectorSpec(weights=str(path), image_size_px=options.size, precision=options.precision)
        )
        for path in weights
    ]
    # Torch's, also where the pipeline has OpenVINO run the network.
    models = [
        member.model.to(member.device, member.dtype, memory_format=torch.channels_last) for member in members
    ]
    passes = max(2, options.frames // options.batch)
    with torch.inference_mode():
        ready = [member._prepare(Batch(frames)).normalised(member.dtype) for member in members]
        for number in range(passes + 1):
            if number == 1:  # the first round warms up
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                began = time.perf_counter()
            for model, images in zip(models, ready, strict=True):
                model(images)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return passes * len(frames) / (time.perf_counter() - began)


def _whole_s(
    options: argparse.Namespace,
    weights: list[Path],
    clips: list[Path],
    folder: Path,
    *,
    hz: float | None = None,
    stages: tuple[str, ...] = ("index", "detect", "score"),
) -> dict[str, float]:
    """Run the stages in one process: seconds of the stages and of the command, peak bytes, frames."""
    folder.mkdir(parents=True)
    config = folder / "night.toml"
    lines = [
        'store = "store"',
        "[footage]",
        f"paths = {json.dumps([str(clip) for clip in clips])}",
        "every = 1" if hz is None else f"sample_hz = {hz}",
        "[detect]",
        f"batch_size = {options.batch}",
        "skip_repeats = false",
        "shard_minutes = 1.0",
    ]
    for path in weights:
        lines += [
            "[[detector]]",
            f"weights = {json.dumps(str(path))}",
            f"image_size_px = {options.size}",
            f"precision = {json.dumps(options.precision)}",
        ]
    config.write_text("\n".join(lines) + "\n")
    began = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", _CHILD, str(config), *stages],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    command = time.perf_counter() - began
    if run.returncode:
        sys.exit(f"the pipeline failed:\n{run.stderr[-2000:]}")
    found = json.loads(run.stdout.splitlines()[-1])
    shutil.rmtree(folder)
    return {**found, "command": command}


_CHILD = """
import contextlib, json, psutil, resource, sys, threading, time
from pathlib import Path
from mining.config import load
decoder_peak = 0
def watch_decoders():
    # RUSAGE_CHILDREN would count this process, too: a child is as large as its parent until it runs its own program.
    global decoder_peak
    while True:
        time.sleep(0.5)
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if "mining.isolated" in " ".join(child.cmdline()):
                    decoder_peak = max(decoder_peak, child.memory_info().rss)
threading.Thread(target=watch_decoders, daemon=True).start()
from mining import detect_objects, pipeline
config = load(Path(sys.argv[1]))
if len(sys.argv) == 5:  # a night loads its detectors once; `predict` and the bare passes have theirs loaded, too
    import av
    from detectors.preprocess import Batch
    loaded = [detect_objects.load_members(config)]
    with av.open(config.footage_paths[0]) as clip:
        picture = next(clip.decode(video=0)).to_ndarray(format="rgb24")
    for member in loaded[0]:
        member.predict(Batch([picture]))
    del member
    detect_objects.load_members = lambda config: loaded.pop()  # nothing else holds on to them
seconds, frames = 0.0, 0
for stage in sys.argv[2:]:
    began = time.perf_counter()
    report = pipeline.run_stage(stage, config)
    seconds += time.perf_counter() - began
    frames = max(frames, report.counts.get("frames", 0))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"stages": seconds, "peak_bytes": peak, "decoder_peak_bytes": decoder_peak, "frames": frames}))
"""


# -- clips and checkpoints ---------------------------------------------------------------------------------------------


def _checkpoint(name: str, work: Path) -> Path:
    """Make a checkpoint with random weights of a .yaml; a checkpoint stays what it is."""
    if not name.endswith((".yaml", ".yml")):
        return Path(name).absolute()
    import torch
    from ultralytics import YOLO
    from ultralytics.utils import ROOT as ULTRALYTICS
    from ultralytics.utils import YAML

    torch.manual_seed(0)
    path, model = work / f"{Path(name).stem}.pt", YOLO(name)
    # Untouched random weights let activations die away into denormal numbers, on which a CPU is several times slower.
    norms = [module for module in model.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean of what it sees
    with torch.no_grad():
        model.model.train()(torch.rand(4, 3, 320, 320))
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    model.model.names = YAML.load(ULTRALYTICS / "cfg" / "datasets" / "coco8.yaml")["names"]
    model.save(str(path))
    return path


def _frames(clip: Path, count: int) -> Iterator[np.ndarray]:
    with av.open(str(clip)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == count:
                return
            yield frame.to_ndarray(format="rgb24")


def _frame_count(clip: Path) -> int:
    with av.open(str(clip)) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def _first_frames(clip: Path, count: int, work: Path) -> Path:
    """Cut a clip after about ``count`` packets, without encoding anything again."""
    path = work / f"{clip.stem}-{count}.mp4"
    _remux(clip, path, packets=count)
    return path


def _repeated(clip: Path, seconds: float, path: Path) -> Path:
    """Repeat a clip's packets until it lasts ``seconds``."""
    _remux(clip, path, seconds=seconds)
    return path


def _remux(
    clip: Path, path: Path, *, packets: int | None = None, seconds: float | None = None, comment: str = ""
) -> None:
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(av.open(str(path), "w"))
        out.metadata["comment"] = comment
        target, offset, written = None, 0, 0
        while True:
            with av.open(str(clip)) as source:
                stream = source.streams.video[0]
                target = target or out.add_stream_from_template(stream)
                end = offset
                for packet in source.demux(stream):
                    if not packet.size:
                        continue
                    assert packet.dts is not None
                    assert packet.pts is not None
                    packet.dts, packet.pts, packet.stream = packet.dts + offset, packet.pts + offset, target
                    end = max(end, packet.dts + (packet.duration or 1))
                    # Before it is written: that changes its times to the time base of the new file.
                    done_s = float((packet.dts + (packet.duration or 1)) * stream.time_base)
                    out.mux(packet)
                    written += 1
                    if written == packets or (seconds is not None and done_s >= seconds):
                        return
                offset = end
                if seconds is None:
                    return


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--footage", nargs="+", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=["yolo11n.yaml", "yolov8n.yaml"])
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=["speed", "memory", "flat", "start"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for clip in options.footage:
        if not clip.is_file():
            parser.error(f"--footage: no file {clip}")
    return options


if __name__ == "__main__":
    main()
