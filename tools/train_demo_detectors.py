"""Train the two small detectors that ship with the demo, on other seeds of the demo's world.

    python tools/train_demo_detectors.py --out detectors/demo_weights

They are good by day and weak by night, in fog and on what is rare, as a young fleet's detectors are: animals are in one
training image in twenty, lost cargo in none. Takes about half an hour on two cores; `--start FOLDER` goes on from
checkpoints trained before. Both are Ultralytics networks
(AGPL-3.0, or Ultralytics' commercial licence).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CLASSES = ("car", "truck", "bus", "pedestrian", "cyclist", "animal")
IMAGE_PX = 320
TRAIN_SEED, HELD_OUT_SEED = 1000, 9000
SMALLEST_PX, LEAST_VISIBLE = 9.0, 0.25
ANIMALS_PER_WORLD = 4
# How often each script of the demo is seen in training: much city by day, little night and fog.
SHARES = np.array([5.0, 1.0, 1.2, 2.0, 3.0, 1.0, 1.2, 3.0])
FRAMES_PER_WORLD = 10

_V8_HEAD = [
    [-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [[-1, 6], 1, "Concat", [1]], [-1, 3, "C2f", [512]],
    [-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [[-1, 4], 1, "Concat", [1]], [-1, 3, "C2f", [256]],
    [-1, 1, "Conv", [256, 3, 2]], [[-1, 12], 1, "Concat", [1]], [-1, 3, "C2f", [512]],
    [-1, 1, "Conv", [512, 3, 2]], [[-1, 9], 1, "Concat", [1]], [-1, 3, "C2f", [1024]],
    [[15, 18, 21], 1, "Detect", ["nc"]],
]  # fmt: skip
_V11_HEAD = [
    [-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [[-1, 6], 1, "Concat", [1]], [-1, 2, "C3k2", [512, False]],
    [-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [[-1, 4], 1, "Concat", [1]], [-1, 2, "C3k2", [256, False]],
    [-1, 1, "Conv", [256, 3, 2]], [[-1, 13], 1, "Concat", [1]], [-1, 2, "C3k2", [512, False]],
    [-1, 1, "Conv", [512, 3, 2]], [[-1, 10], 1, "Concat", [1]], [-1, 2, "C3k2", [1024, True]],
    [[16, 19, 22], 1, "Detect", ["nc"]],
]  # fmt: skip
# Ultralytics' own layouts, narrower: width 0.125 where the smallest official ones have 0.25.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "demo_yolov8": {
        "backbone": [
            [-1, 1, "Conv", [64, 3, 2]], [-1, 1, "Conv", [128, 3, 2]], [-1, 3, "C2f", [128, True]],
            [-1, 1, "Conv", [256, 3, 2]], [-1, 6, "C2f", [256, True]], [-1, 1, "Conv", [512, 3, 2]],
            [-1, 6, "C2f", [512, True]], [-1, 1, "Conv", [1024, 3, 2]], [-1, 3, "C2f", [1024, True]],
            [-1, 1, "SPPF", [1024, 5]],
        ],
        "head": _V8_HEAD,
    },
    "demo_yolo11": {
        "backbone": [
            [-1, 1, "Conv", [64, 3, 2]], [-1, 1, "Conv", [128, 3, 2]], [-1, 2, "C3k2", [256, False, 0.25]],
            [-1, 1, "Conv", [256, 3, 2]], [-1, 2, "C3k2", [512, False, 0.25]], [-1, 1, "Conv", [512, 3, 2]],
            [-1, 2, "C3k2", [512, True]], [-1, 1, "Conv", [1024, 3, 2]], [-1, 2, "C3k2", [1024, True]],
            [-1, 1, "SPPF", [1024, 5]], [-1, 2, "C2PSA", [1024]],
        ],
        "head": _V11_HEAD,
    },
}  # fmt: skip
SCALE = [0.33, 0.125, 1024]


def render_world(folder: Path, seed: int, script_number: int, animals: int, easy: bool) -> int:
    """Write images and labels of one world; frames with rare events only where animals are asked for."""
    from mining.demo.layout import build
    from mining.demo.render import Renderer
    from mining.demo.scripts import SCRIPTS

    cv2.setNumThreads(1)
    script = SCRIPTS[script_number]
    world = build(script, seed)
    renderer = Renderer(world)
    rng = np.random.default_rng([seed, script_number])
    wanted, written = FRAMES_PER_WORLD, 0
    for index in rng.permutation(len(world.time_s)):
        image, boxes = renderer.frame(int(index))
        rare = [box for box in boxes if box.event]
        if rare:
            if animals == 0 or any(box.kind != "animal" for box in rare):
                continue
            animals -= 1
        elif written >= wanted:
            if animals == 0:
                break
            continue
        h, w = image.shape[:2]
        lines = [
            f"{CLASSES.index(b.kind)} {(b.x1_px + b.x2_px) / 2 / w:.5f} {(b.y1_px + b.y2_px) / 2 / h:.5f} "
            f"{(b.x2_px - b.x1_px) / w:.5f} {(b.y2_px - b.y1_px) / h:.5f}"
            for b in boxes
            if b.y2_px - b.y1_px >= SMALLEST_PX and b.visible_fraction >= LEAST_VISIBLE
        ]
        if not lines and rng.random() < 0.7:
            continue
        name = f"{rng.integers(1 << 40):010x}_{script.weather}_{script.time_of_day}_{script.camera}"
        small = cv2.resize(image, (w // 2, h // 2), interpolation=cv2.INTER_AREA)
        splits = ["all"] + (
            ["easy"]
            if easy and script.time_of_day == "day" and script.weather in {"clear", "overcast"}
            else []
        )
        for split in splits:
            for part in ("images", "labels"):
                (folder / split / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(
                str(folder / split / "images" / f"{name}.jpg"),
                small[..., ::-1],
                [cv2.IMWRITE_JPEG_QUALITY, 92],
            )
            (folder / split / "labels" / f"{name}.txt").write_text("\n".join(lines) + "\n")
        written += 1
    return written


def render(folder: Path, images: int, seed: int) -> None:
    """Render training images, and a fifth as many held-out ones, in all processes that the machine has."""
    jobs = []
    for split, first_seed, count in (("train", seed, images), ("held_out", HELD_OUT_SEED, images // 5)):
        turns = np.maximum(1, np.round(SHARES / SHARES.sum() * count / FRAMES_PER_WORLD)).astype(int)
        for script_number, worlds in enumerate(turns):
            for turn in range(worlds):
                animals = 0
                if script_number in {2, 5}:
                    animals = ANIMALS_PER_WORLD if split == "train" else 6
                jobs.append((folder / split, first_seed + turn, script_number, animals, split == "held_out"))
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        written = sum(pool.map(render_world, *zip(*jobs, strict=True)))
    print(f"rendered {written} images", flush=True)
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(CLASSES))
    for split in ("all", "easy"):
        text = f"path: {folder}\ntrain: train/all/images\nval: held_out/{split}/images\nnames:\n{names}"
        (folder / f"{split}.yaml").write_text(text)


def train(name: str, folder: Path, out: Path, epochs: int, seed: int, start: Path | None) -> None:
    """Train one network, write its stripped checkpoint, and print how good it is on worlds that it never saw."""
    os.environ["YOLO_CONFIG_DIR"] = str(folder / f"config_{name}")
    import torch
    import yaml
    from ultralytics import YOLO, settings
    from ultralytics.data import build_dataloader
    from ultralytics.models.yolo.detect import DetectionTrainer

    settings.update({"sync": False})

    class Trainer(DetectionTrainer):
        """All images have one size, so that wide batches may be shuffled too."""

        def get_dataloader(
            self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train"
        ) -> Any:
            dataset = self.build_dataset(dataset_path, mode, batch_size)
            return build_dataloader(dataset, batch=batch_size, workers=0, shuffle=mode == "train", rank=rank)

    description = folder / f"{name}.yaml"
    layout = {"nc": len(CLASSES), "scales": {"n": SCALE}, "scale": "n", **ARCHITECTURES[name]}
    description.write_text(yaml.safe_dump(layout))
    model = YOLO(str(description), task="detect")
    if start is not None:
        model.load(str(start / f"{name}.pt"))
    model.train(
        trainer=Trainer, data=str(folder / "all.yaml"), imgsz=IMAGE_PX, rect=True, epochs=epochs, batch=16, nbs=16, device="cpu",
        seed=seed, workers=0, cache="ram", amp=False, plots=False, val=False, save_period=-1, project=str(folder),
        name=f"train_{name}", exist_ok=True, optimizer="AdamW", lr0=0.003 if start is None else 0.0015, lrf=0.02, warmup_epochs=1.0, cos_lr=True,
        mosaic=0.0, scale=0.35, translate=0.12, hsv_v=0.3, hsv_s=0.4, hsv_h=0.02, erasing=0.0, verbose=False,
    )  # fmt: skip
    last = torch.load(
        folder / f"train_{name}" / "weights" / "last.pt", map_location="cpu", weights_only=False
    )
    save_stripped(last["ema"] if last.get("ema") is not None else last["model"], name, out / f"{name}.pt")
    for split in ("easy", "all"):
        metrics = YOLO(str(out / f"{name}.pt")).val(
            data=str(folder / f"{split}.yaml"), imgsz=IMAGE_PX, rect=True, batch=16, device="cpu", workers=0, plots=False,
            project=str(folder), name=f"val_{name}_{split}", exist_ok=True, verbose=False,
        )  # fmt: skip
        parts = [f"{CLASSES[c]} {metrics.box.ap50[i]:.3f}" for i, c in enumerate(metrics.box.ap_class_index)]
        print(f"{name} held-out {split}: mAP50 {metrics.box.map50:.3f} ({', '.join(parts)})", flush=True)


def save_stripped(model: Any, name: str, path: Path) -> None:
    """Write a half-precision checkpoint that holds the network and nothing of this machine."""
    import torch

    model = model.float().eval()
    arguments = {"task": "detect", "imgsz": IMAGE_PX, "model": f"{name}.yaml", "single_cls": False}
    model.args = arguments
    model.criterion = None
    model.__dict__.pop("pt_path", None)  # where --start was read from
    model.yaml = {k: v for k, v in model.yaml.items() if k != "yaml_file"} | {"yaml_file": f"{name}.yaml"}
    model.names = dict(enumerate(CLASSES))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    checkpoint = {"epoch": -1, "best_fitness": None, "model": model.half(), "ema": None, "updates": None, "optimizer": None,
                  "train_args": arguments}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
    content = path.read_bytes()
    for trace in (b"/work", b"/tmp", b"/root", b"/home", str(Path.home()).encode(), str(Path.cwd()).encode()):
        if trace in content:
            raise SystemExit(f"{path} names {trace.decode()}: strip it before it is committed")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("detectors/demo_weights"), help="folder for the two checkpoints"
    )
    parser.add_argument("--images", type=int, default=1000, help="training images to render")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--seed", type=int, default=TRAIN_SEED, help="first training seed (the demo's own is 7)"
    )
    parser.add_argument(
        "--keep", type=Path, help="folder for images and training runs; a temporary one otherwise"
    )
    parser.add_argument(
        "--start", type=Path, help="folder of checkpoints to go on from; from nothing otherwise"
    )
    args = parser.parse_args()
    folder = (args.keep or Path(tempfile.mkdtemp(prefix="demo_detectors_"))).resolve()
    try:
        if not (folder / "all.yaml").exists():
            render(folder, args.images, args.seed)
        context = multiprocessing.get_context(
            "spawn"
        )  # one network a core: Ultralytics trains with one thread on CPUs
        runs = [
            context.Process(target=train, args=(name, folder, args.out, args.epochs, args.seed, args.start))
            for name in ARCHITECTURES
        ]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        if any(run.exitcode for run in runs):
            raise SystemExit("a training run failed; its message is above")
        for name in ARCHITECTURES:
            path = args.out / f"{name}.pt"
            print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    finally:
        if args.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
