"""Which objects a labeler finds drawn already: what the committee agrees on, or also what only some of it see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mining.committee import Committee, committee_sees
from mining.config import ExportConfig
from mining.store import Store, sql_file
from mining.vendors.delivery import PreAnnotation

_KNOWS = pa.schema([("detector", pa.string()), ("class", pa.string()), ("class_index", pa.int32())])


def preannotations(
    store: Store, committee: Committee, frame_ids: Sequence[str], export: ExportConfig
) -> dict[str, list[PreAnnotation]]:
    """Read the objects to deliver, by frame; the surest first.

    Agreed is an object that every member that knows its class sees as that class at the member's threshold, with a mean
    confidence of at least ``preannotation_confidence``. In doubt is any other that some member sees at its threshold.
    """
    if export.preannotate == "none":
        return {}
    sees = committee_sees(store, committee)
    knows: list[dict[str, Any]] = [
        {"detector": name, "class": committee.classes[i], "class_index": i + 1}  # SQL counts from 1
        for name, seen in sees.items()
        for i in np.flatnonzero(seen).tolist()
    ]
    members: dict[str, set[str]] = defaultdict(set)
    for row in knows:
        members[row["class"]].add(row["detector"])
    threshold = dict(zip(committee.names, committee.thresholds, strict=True))
    least = export.preannotation_confidence
    with store.connect() as con:
        con.register("chosen", pa.table({"frame_id": pa.array(frame_ids, pa.string())}))
        con.register("knows", pa.Table.from_pylist(knows, _KNOWS))
        parameters = {
            "committee_id": committee.committee_id,
            "confidence": least if export.preannotate == "agreed" else 0.0,
        }
        found = con.sql(sql_file("preannotations"), params=parameters).to_arrow_table().to_pylist()
    boxes: dict[str, list[PreAnnotation]] = defaultdict(list)
    for row in found:
        sure = {vote["detector"]: vote["class"] for vote in row["votes"] if _is_sure(vote, threshold)}
        agreed = {name for name, class_name in sure.items() if class_name == row["class"]}
        in_doubt = not (members[row["class"]] <= agreed and row["confidence"] >= least)
        if in_doubt and (export.preannotate == "agreed" or not sure):
            continue
        boxes[row["frame_id"]].append(
            PreAnnotation(
                class_name=row["class"],
                confidence=row["confidence"],
                **{name: row[name] for name in ("x1_px", "y1_px", "x2_px", "y2_px")},
                detectors=tuple(row["detectors"]),
                in_doubt=in_doubt,
            )
        )
    return boxes


def _is_sure(vote: dict[str, Any], threshold: dict[str, float]) -> bool:
    # Tables hold 32-bit scores: 0.4 in the config is 0.4000000059 there, and equal to it.
    return bool(vote["confidence"] >= np.float32(threshold[vote["detector"]]))
