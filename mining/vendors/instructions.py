"""``instructions.md``: one page for the people who label, in plain words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mining.config import ExportConfig
from mining.vendors.delivery import Delivery

REASONS = (
    (r"committee_", "the detectors together make a mistake of the first one likely here"),
    (r"expected_|dips", "the detector itself expects to miss something, or to see what is not there"),
    (r"presence_", "some detectors see an object where others see none"),
    (r"class_disagreement_|class_flips", "it is not clear what an object is"),
    (r"box_disagreement_|edge_deviation_|box_std_|box_jitter_", "it is not clear where an object ends"),
    (r"candidate_box_std_", "it is not clear where an object ends"),
    (r"flicker|count_change", "objects come and go from one moment to the next"),
    (r"(bernoulli_|dense_)?entropy_|margin_|least_confidence_", "the detectors are unsure what they see"),
    (r"box_count|candidate_count", "there is much to see"),
)
"""Beginning of a signal's name -> what it says of a frame; the first match counts."""


def plain_words(signal: str) -> str | None:
    """Say what a signal means; None for what is no signal."""
    return next((words for pattern, words in REASONS if re.match(pattern, signal)), None)


def write_instructions(delivery: Delivery, folder: Path, export: ExportConfig, asked: Sequence[str]) -> None:
    """Write ``instructions.md`` for the classes that are ``asked`` for."""
    parts = [
        f"# Labeling batch {delivery.batch_id}",
        f"{_count(len(delivery.images), 'image')} of recorded drives. Draw a box around every object of these classes:",
        "\n".join(f"- {_text(name)}" for name in asked),
        "## How to draw",
        "- The box holds what is visible of the object, and fits tightly. Do not guess what is hidden.\n"
        "- Label every object of the classes, small and partly hidden ones too, up to the edge of the image.\n"
        "- An image with no such object is labelled as empty, not left out.\n"
        "- Where you cannot tell a single object from a crowd, draw one box and mark it as a crowd or as ignored, if "
        "your tool can.\n"
        "- Do not change the size, the name or the order of images.",
        "## Boxes that are there already",
        *_preannotated(delivery, export),
    ]
    if any(image.context for image in delivery.images):
        parts += [
            "## Images around",
            f"`context/` shows each scene up to {export.context_frames * export.context_step_s:g} s before and after, to "
            "tell what an object is. Never label them.",
        ]
    if export.blur is not None:
        parts += [
            "## Blurred places",
            f"Blurred on purpose: {', '.join(map(_text, export.blur.classes))}. Label what you can still tell.",
        ]
    parts += ["## Why these images", _why(delivery)]
    (folder / "instructions.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _preannotated(delivery: Delivery, export: ExportConfig) -> list[str]:
    boxes = [box for image in delivery.images for box in image.boxes]
    doubtful = sum(box.in_doubt for box in boxes)
    if not boxes:
        return ["None: draw every box yourself."]
    said = [
        f"{_count(len(boxes) - doubtful, 'box', 'boxes')} on which all our detectors agree are drawn already. They are "
        "mostly right, and not always: correct the edges and the class, delete what is wrong, and look for what is "
        "missing. An image without a box is not an empty image."
    ]
    if doubtful:
        said.append(
            f"{_count(doubtful, 'more box is', 'more boxes are')} marked `in_doubt`: not all detectors see that object. "
            "Decide for each whether it is there; delete it where it is not. Formats that cannot mark a box leave these out."
        )
    return said


def _why(delivery: Delivery) -> str:
    mined = [image for image in delivery.images if image.arm == "mined"]
    drawn = len(delivery.images) - len(mined)
    slices = Counter(image.slice for image in mined if image.slice is not None)
    # Signals stand in the reasons by name, with their percentile: "presence_sum 98 %".
    meant: Counter[str] = Counter()
    for image in mined:
        named = (plain_words(name) for name in re.findall(r"\b([a-z][a-z0-9_]+) \d+ %", image.reason))
        meant.update({words for words in named if words})
    lines = [f"- {words}: {_count(n, 'image')}" for words, n in sorted(meant.items(), key=_most_first)]
    if lines:
        lines.insert(
            0,
            "They were chosen because they are hard for our detectors. One image may have several reasons:\n",
        )
    lines += [
        f"- wanted for “{_text(name)}”: {_count(n, 'image')}"
        for name, n in sorted(slices.items(), key=_most_first)
    ]
    if drawn:
        lines.append(
            f"- drawn by lot, to compare with: {_count(drawn, 'image')}. Label them just as carefully."
        )
    return "\n".join(lines) or "They were chosen by hand."


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _text(name: str) -> str:
    """A name from outside as plain Markdown text on one line."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~-])", r"\\\1", " ".join(name.split()))
