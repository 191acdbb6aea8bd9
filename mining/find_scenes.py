"""Scores -> scenes: runs of hard frames of one drive and camera, over the files that the drive is cut into.

One file a night, in SQL (``sql/scenes.sql``). The night is the UTC day on which a recording began: a recording that goes
on after midnight keeps its scenes whole, while a drive cut into files at midnight has its second file in the next night,
and a run over that border is two scenes. A clip of either shows the other side as far as its margin reaches: it is cut
by time, not by night.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from mining.committee import Committee, committee_of
from mining.config import Config
from mining.schemas import SCENES
from mining.store import Store, digest, sql_file
from mining.types import StageReport

SCENES_VERSION = 2
"""Raise when the rows of this stage change for the same input."""


def run(store: Store, config: Config, recording_ids: Sequence[str]) -> StageReport:
    """Find the scenes of every night that holds one of these recordings, where scores or settings changed."""
    report = StageReport("scenes")
    committee = committee_of(config)
    scored = {
        where: m for where, m in store.markers("score").items() if m["committee_id"] == committee.committee_id
    }
    wanted = set(recording_ids)
    nights = sorted({night for (night, _), marker in scored.items() if marker["recording_id"] in wanted})
    committed = store.markers("scenes")
    rows = {marker["recording_id"]: marker["content"] for marker in store.markers("index").values()}
    for night in nights:
        content = digest(
            sorted(
                (marker["digest"], rows[marker["recording_id"]])
                for (n, _), marker in scored.items()
                if n == night
            ),
            config.scenes.model_dump(),
            SCENES_VERSION,
        )
        where = (night, committee.committee_id)
        if committed.get(where, {}).get("digest") == content:
            report.unchanged += 1
            continue
        scenes = _find(store, config, committee, night)
        store.commit(
            "scenes", *where, {"scenes": scenes}, digest=content, committee_id=committee.committee_id
        )
        report.done += 1
        report.add(scenes=scenes.num_rows)
    return report


def _find(store: Store, config: Config, committee: Committee, night: object) -> pa.Table:
    members = pa.table({"detector": list(committee.names), "threshold": list(committee.thresholds)})
    with store.connect() as con:
        con.register("members", members)
        return con.sql(
            sql_file("scenes"),
            params={
                "committee_id": committee.committee_id,
                "night": night,
                "min_hardness": config.scenes.min_hardness,
                "max_gap_ns": int(config.scenes.max_gap_s * 1e9),
                "min_frames": config.scenes.min_frames,
            },
        ).to_arrow_table().cast(SCENES)  # fmt: skip
