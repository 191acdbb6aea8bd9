"""What a delivery of labels brought, for people and for ``--json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mining.vendors.labels import NO_FAULT


@dataclass(slots=True)
class ImportReport:
    """Counts, examples, and what deserves a second look."""

    batch_id: str
    vendor: str
    import_id: str | None = None
    """None where nothing was taken in."""
    refused: list[str] = field(default_factory=list)
    """What speaks against the delivery as a whole; taken in nevertheless where ``import_id`` says so."""
    unchanged: bool = False
    """The same delivery stands already."""
    frames: int = 0
    """Frames that the delivery labels."""
    boxes: int = 0
    """Boxes taken in, of all annotators."""
    empty_frames: int = 0
    """Frames that all who labelled them found empty."""
    clipped: int = 0
    """Boxes that hung over the image's edge by less than the limit."""
    rows: int = 0
    bad_rows: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    """By kind."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first reject of each kind."""
    fit: dict[str, float] | None = None
    """How the labels lie beside the committee's sure objects: sure, met, fitted."""
    annotators: list[dict[str, Any]] = field(default_factory=list)
    """Who shared frames with another: annotator, frames, boxes, agreement over all classes."""
    second_look: int = 0
    """Labels, and objects that the labels lack, which the committee contradicts: rows of the view ``second_look``."""
    worst: list[dict[str, Any]] = field(default_factory=list)
    """The first of them."""
    batch_frames: int = 0
    without_labels: int = 0
    """Frames of the batch that no import has labelled."""
    without_labels_named: list[str] = field(default_factory=list)
    """The first of them, in the order of the batch."""

    def text(self) -> str:
        """Say it to a person."""
        if self.unchanged:
            return f"{self.batch_id}: this delivery stands already, as import {self.import_id}; nothing to do\n{self._lacking()}"
        lines = [
            f"{self.batch_id}: {self.boxes} boxes in {self.frames} frames, {self.empty_frames} of them empty"
            + (f"; {self.clipped} boxes clipped to the image" if self.clipped else "")
        ]
        lines += self.reject_lines()
        if self.fit:
            lines.append(
                "of {sure} objects that the committee surely sees, labels meet {met} and fit {fitted}".format(
                    **self.fit
                )
            )
        if self.annotators:
            lines.append("annotators who shared frames")
            lines += [
                f"  {a['annotator'] or '(not named)':24} {a['frames']} frames, {a['boxes']} boxes, agreement "
                + ("-" if a["agreement"] is None else f"{a['agreement']:.0%}")
                for a in self.annotators
            ]
        if self.second_look:
            lines.append(f"{self.second_look} worth a second look (view second_look), the worst first")
            lines += [f"  {_told(row)}" for row in self.worst]
        lines.append(self._lacking())
        if self.import_id is not None:
            lines.append(f"import {self.import_id}")
        return "\n".join(lines)

    def reject_lines(self) -> list[str]:
        """What was not taken in, by kind, with an example each."""
        if not self.rejects:
            return []
        lines = [f"not taken in: {self.bad_rows} of {self.rows} rows for a fault"]
        for kind, count in self.rejects.items():
            mark = " (no fault)" if kind in NO_FAULT else ""
            lines.append(f"  {kind:14} {count:6}{mark}  {self.examples[kind]}")
        return lines

    def _lacking(self) -> str:
        if not self.without_labels:
            return f"all {self.batch_frames} frames of the batch have labels"
        more = ", ..." if self.without_labels > len(self.without_labels_named) else ""
        named = ", ".join(self.without_labels_named)
        return f"{self.without_labels} of {self.batch_frames} frames still without labels: {named}{more}"


def _told(row: dict[str, Any]) -> str:
    at = ", ".join(f"{row[f'{edge}_px']:.0f}" for edge in ("x1", "y1", "x2", "y2"))
    what = {
        "badly_placed": f"{row['class']} at {at} is badly placed",
        "swapped": f"{row['class']} at {at} looks like {row['seen_class']}",
        "overlooked": f"{row['seen_class']} at {at} is overlooked",
    }[row["kind"]]
    return f"{row['frame_id']}: {what} (quality {row['quality']:.2f})"
