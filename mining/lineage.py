"""What each `mining run` was: a row of ``runs``, written when it begins and again when it ends; and a text file for Prometheus."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from mining.committee import Committee, committee_of, member_digests
from mining.config import Config
from mining.schemas import RUNS
from mining.store import Store, digest, sql_file
from mining.types import MiningError

_PACKAGES = (
    "mining", "av", "duckdb", "numpy", "onnxruntime", "opencv-python", "pyarrow", "torch", "torchvision", "ultralytics",
)  # fmt: skip


@dataclass(slots=True)
class Run:
    """One run, as its row tells."""

    run_id: str
    row: dict[str, Any]

    @property
    def began_at(self) -> datetime:
        """When it began, UTC."""
        began: datetime = self.row["began_at"]
        return began


def begin(store: Store, config: Config) -> Run:
    """Write down that a run begins, with all that decides what comes out."""
    began_at = datetime.now(UTC)
    run_id = f"{began_at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    committee = committee_of(config)
    run = Run(
        run_id,
        {
            "run_id": run_id,
            "began_at": began_at,
            "state": "running",
            "config_digest": digest(config.model_dump(mode="json")),
            "committee_id": committee.committee_id,
            "detectors": _detectors(config, committee),
            "versions": _versions(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        },
    )
    _write(store, run)
    return run


def end(store: Store, run: Run, state: str, **told: Any) -> None:
    """Write down how it ended; ``told`` are further columns of ``runs``."""
    run.row.update(state=state, ended_at=datetime.now(UTC), **told)
    _write(store, run)


def _write(store: Store, run: Run) -> None:
    row = {name: run.row.get(name) for name in RUNS.names}
    table = pa.Table.from_pylist([row], RUNS)
    store.commit(
        "run", run.began_at.date(), run.run_id, {"runs": table}, digest=digest(run.run_id, run.row["state"])
    )


def _detectors(config: Config, committee: Committee) -> list[tuple[str, str]]:
    return list(zip(committee.names, member_digests(config), strict=True))


def _versions() -> list[tuple[str, str]]:
    found = []
    for package in _PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return found


def write_metrics(path: Path, store: Store, run: Run) -> None:
    """Write what is worth an alarm as Prometheus' text format (for node_exporter's textfile collector), wholly or not at all.

    Raises:
        MiningError: it cannot be written.
    """
    with store.connect() as con:
        lift = con.execute(sql_file("lift")).fetchall()[0][0]
        states = con.execute("SELECT status, count(*) FROM recordings GROUP BY ALL ORDER BY ALL").fetchall()
    row = run.row
    lines = [
        *_metric("mining_run_ended_timestamp_seconds", "when the last run ended", {"": row["ended_at"].timestamp()}),
        *_metric("mining_run_ok", "1 where the last run ended well", {"": float(row["state"] == "done")}),
        *_metric("mining_run_frames", "frames of the last run's footage", {"": row.get("frames")}),
        *_metric("mining_run_failed_frames", "of these, frames that failed", {"": row.get("failed_frames")}),
        *_metric("mining_run_recordings", "recordings of the last run's footage", {"": row.get("recordings")}),
        *_metric("mining_run_failed_recordings", "of these, unreadable", {"": row.get("failed_recordings")}),
        *_metric(
            "mining_run_stage_seconds", "seconds of each stage of the last run",
            {f'stage="{stage}"': seconds for stage, seconds in row.get("seconds") or []},
        ),
        *_metric(
            "mining_store_recordings", "recordings in the store",
            {f'status="{status}"': count for status, count in states},
        ),
        *_metric("mining_yield_lift", "errors a frame, mined arm over random arm, of all that is measured", {"": lift}),
    ]  # fmt: skip
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise MiningError(f"{path}: run.metrics cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _metric(name: str, doc: str, values: dict[str, float | None]) -> list[str]:
    known = {labels: value for labels, value in values.items() if value is not None}
    if not known:
        return []
    samples = [
        f"{name}{f'{{{labels}}}' if labels else ''} {float(value)!r}" for labels, value in known.items()
    ]
    return [f"# HELP {name} {doc}", f"# TYPE {name} gauge", *samples]
