"""A vendor's delivery -> labels: read against the batch as it went out, checked, consolidated, committed as one piece.

An import is all or nothing, and nothing of an earlier one is ever changed: it stays in ``labels`` as history, and the view
``truth`` holds, of each frame, the newest. The same delivery again is nothing to do, unless something newer came between:
then it is taken in anew, and stands again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from detectors.classes import ClassMap
from mining.check_delivery import (
    SURE,
    UNTOUCHED_AT_LEAST,
    Checked,
    Fit,
    Names,
    asked_for,
    check_delivery,
    count_kinds,
    leave_out_dropped,
    measure_fit,
    unchanged,
)
from mining.committee import sees_of
from mining.config import Config
from mining.import_report import ImportReport
from mining.label_checks import OBJECT_CONFIDENCE
from mining.label_rows import Drawn, Import, Objects, tables_of
from mining.store import Store, digest, sql_file
from mining.types import StageReport, UsageError
from mining.vendors import VENDORS
from mining.vendors.contents import FILE_NAME as CONTENTS
from mining.vendors.labels import NO_FAULT, DeliveryError, Reject, Sent, SentImage
from mining.vendors.reading import IMAGE_ENDINGS
from mining.vendors.untrusted import LIMIT_BYTES, files_of

IMPORT_VERSION = 1
"""Raise when the rows of this stage change for the same delivery."""

_NAMED = 20
_WORST = 5
_KNOWS = pa.schema([("detector", pa.string()), ("class", pa.string()), ("class_index", pa.int32())])


class RefusedDelivery(DeliveryError):
    """A delivery of which nothing was taken in; ``report`` says what was found."""

    def __init__(self, message: str, report: ImportReport) -> None:
        super().__init__(message)
        self.report = report


def run(
    store: Store,
    config: Config,
    batch_id: str,
    vendor: str,
    files: Sequence[Path],
    *,
    annotator: str | None = None,
    add: bool = False,
    accept_bad: bool = False,
    dry_run: bool = False,
) -> tuple[StageReport, ImportReport]:
    """Take in the labels of a batch.

    Args:
        store: holds the batch as it was exported; hold ``store.writing()``.
        config: class list, and the section ``labels``.
        batch_id: the batch that the labels are of.
        vendor: the format, a key of ``VENDORS``.
        files: files or folders of the delivery.
        annotator: whose labels these are where the delivery names nobody.
        add: put them beside the labels that stand for the same frames, as another annotator's; else they take their place.
        accept_bad: take the good rows of a delivery that would be refused.
        dry_run: check, and commit nothing.

    Raises:
        UsageError: no such batch or format, or the batch was never exported.
        RefusedDelivery: too many bad rows, or boxes that lie beside the objects; nothing was taken in.
        DeliveryError: the files cannot be read.
    """
    report = StageReport("import")
    read_labels = _reader(vendor)
    fleet = ClassMap.load(config.classes_path)
    names = Names.of(fleet, config.labels.names)
    asked = asked_for(config.labels, names.fleet)
    with store.connect() as con:
        sent, night, committee_id, lost = sent_batch(store, con, names.fleet, batch_id, vendor)
        content = _content(files)
        delivery = digest(
            batch_id, vendor, content, annotator, add,
            names.fleet, sorted(names.table.items()), asked, config.labels.max_overhang_px, IMPORT_VERSION,
        )  # fmt: skip
        found = ImportReport(batch_id, vendor, batch_frames=len(sent.images))
        _tell_lacking(found, con, sent, ())
        earlier = [marker for marker in store.markers("import").values() if marker["delivery"] == delivery]
        if earlier and _stands(con, newest := max(earlier, key=lambda marker: marker["imported_at"])):
            report.unchanged = 1
            report.counts = {"frames": newest["frames"], "boxes": newest["boxes"]}
            found.unchanged, found.import_id = True, newest["import_id"]
            found.frames, found.boxes = newest["frames"], newest["boxes"]
            return report, found

        dropped = con.execute(
            "SELECT frame_id FROM batch_frames WHERE batch_id = $batch_id AND NOT in_batch",
            {"batch_id": batch_id},
        ).fetchall()
        delivered = leave_out_dropped(read_labels(files, sent), sent, [name for (name,) in dropped])
        checked = check_delivery(delivered, sent, names, config.labels, annotator)
        objects = committee_objects(store, con, sent, committee_id, asked)
        fit = _fit(checked, objects)
        _tell(found, checked, fit)
        kept = unchanged(
            checked.frame, checked.boxes_px, checked.classes, objects.frame, objects.boxes_px, objects.classes
        )
        went_out = _went_out_so(content, store.markers("export").get((night, batch_id), {}))
        found.refused = _against(checked, fit, 0 if went_out else kept, config)
        if went_out:
            found.refused.append(
                "it is what went out, unchanged: nobody has labelled it; send the labelers' file"
            )
        if (found.refused and not accept_bad) or not len(checked.view_frame):
            what = "; ".join(found.refused) or "it labels no image of the batch"
            way_out = "; --accept-bad takes the rest" if len(checked.view_frame) else ""
            raise RefusedDelivery(f"nothing of this delivery is taken in: {what}{way_out}", found)
        report.problems += [f"taken in with --accept-bad, although {reason}" for reason in found.refused]
        report.problems += lost
        if 2 * kept > len(checked.frame):
            report.problems.append(f"{kept} of {len(checked.frame)} boxes are the committee's, unchanged")
        if committee_id is None:
            report.problems.append(
                "no committee has looked at these frames: the labels were not compared with what it sees"
            )
        drawn = Drawn.of(checked, vendor)
        if add:
            drawn = drawn.joined(_standing(con, sent, drawn), _positions(sent), sent.classes)
        which = Import(batch_id, digest(delivery, len(earlier))[:16], vendor, _next_time(store))
        tables = tables_of(which, drawn, objects, checked.rejects, sent)
        _tell_rows(found, tables, con, sent)
    report.add(frames=found.frames, boxes=found.boxes, rejects=len(checked.rejects), clipped=found.clipped)
    if not dry_run:
        found.import_id = which.import_id
        store.commit(
            "import", night, which.import_id, tables, digest=delivery, delivery=delivery, import_id=which.import_id,
            batch_id=batch_id, vendor=vendor, annotator=annotator, add=add, refused=found.refused,
            files=[str(file) for file in files], frames=found.frames, boxes=found.boxes,
            imported_at=which.imported_at.isoformat(), fit=found.fit,
        )  # fmt: skip
        report.done = 1
    else:
        report.would_do = 1
    return report, found


def _reader(vendor: str) -> Any:
    readable = sorted(name for name, known in VENDORS.items() if known.read_labels)
    read_labels = VENDORS[vendor].read_labels if vendor in VENDORS else None
    if read_labels is None:
        what = "can be written, and not read" if vendor in VENDORS else "is not known"
        raise UsageError(f"--vendor {vendor}: {what}; can be read: {', '.join(readable) or 'none'}")
    return read_labels


def sent_batch(
    store: Store, con: duckdb.DuckDBPyConnection, classes: tuple[str, ...], batch_id: str, vendor: str
) -> tuple[Sent, date, str | None, list[str]]:
    """The batch as it went out, its night, the committee that looked at it, and what is to be said of it."""
    rows = (
        con.sql(sql_file("sent"), params={"batch_id": batch_id, "vendor": vendor})
        .to_arrow_table()
        .to_pylist()
    )
    if not rows:
        chosen = {name: marker["chosen_at"] for (_, name), marker in store.markers("select").items()}
        if batch_id in chosen:
            raise UsageError(
                f"batch {batch_id} was never exported, so no label can belong to it: "
                f"`mining export --config CONFIG.toml --batch {batch_id}` exports it"
            )
        known = ", ".join(sorted(chosen, key=lambda name: chosen[name])[-5:]) or "none yet"
        raise UsageError(f"no batch is called {batch_id!r}; the latest: {known}")
    if any(row["file_name"] is None for row in rows):
        raise UsageError(
            f"batch {batch_id} was exported by an older mining, which did not keep how the images went out: "
            f"`mining export --config CONFIG.toml --batch {batch_id}` exports it again"
        )
    there = [row for row in rows if row["is_there"]]
    lost = [
        f"{len(rows) - len(there)} frames of the batch are not in the store any more: their labels cannot be taken in"
    ] * (len(there) < len(rows))
    images = tuple(
        SentImage(*(row[key] for key in ("frame_id", "file_name", "sha256", "width_px", "height_px")))
        for row in there
    )
    committee_id = next((row["committee_id"] for row in rows if row["committee_id"]), None)
    if committee_id is None:  # chosen at another site
        con.register("named", pa.table({"frame_id": [row["frame_id"] for row in rows]}))
        looked = con.execute(
            "SELECT DISTINCT committee_id FROM observations SEMI JOIN named USING (frame_id)"
        ).fetchall()
        committee_id = looked[0][0] if len(looked) == 1 else None
    return Sent(batch_id, classes, images), rows[0]["night"], committee_id, lost


def _content(files: Sequence[Path]) -> list[tuple[str, str]]:
    """Name (below its folder) and sha256 of every file of the delivery."""
    found = []
    for path in files:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        if path.is_dir():
            parts = [part for part in files_of(path) if part.is_file()]
            found += [(str(part.relative_to(path)), _sha256(part)) for part in parts]
        elif path.is_file():
            found.append((path.name, _sha256(path)))
        else:
            raise DeliveryError(f"{path}: is neither a file nor a folder")
    return found


def _went_out_so(content: list[tuple[str, str]], exported: dict[str, Any]) -> bool:
    """True where all files but the images are files of the delivery as it was exported."""
    given = {
        sha256
        for name, sha256 in content
        if Path(name).name != CONTENTS and Path(name).suffix.lower() not in IMAGE_ENDINGS
    }
    return bool(given) and given <= set(exported.get("manifests", ()))


def _sha256(path: Path) -> str:
    """Digest a file; one that is so large that no reader takes it counts with its size alone."""
    try:
        if (size := path.stat().st_size) > LIMIT_BYTES:
            return f"{size} bytes"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DeliveryError(f"{path}: cannot be read: {error.strerror}") from None


def _stands(con: duckdb.DuckDBPyConnection, marker: dict[str, Any]) -> bool:
    """True where every frame of an import still has that import's labels."""
    replaced = con.execute(
        "SELECT count(*) FROM labels WHERE import_id = $id "
        "AND frame_id NOT IN (SELECT frame_id FROM truth WHERE import_id = $id)",
        {"id": marker["import_id"]},
    ).fetchall()
    return bool(replaced[0][0] == 0)


def _next_time(store: Store) -> datetime:
    """Now, and later than every import before: what is newest must not hang on a clock that was set back."""
    times = [datetime.fromisoformat(marker["imported_at"]) for marker in store.markers("import").values()]
    return max([datetime.now(UTC), *(time + timedelta(microseconds=1) for time in times)])


def committee_objects(
    store: Store, con: duckdb.DuckDBPyConnection, sent: Sent, committee_id: str | None, asked: Sequence[str]
) -> Objects:
    """What the committee sees in the batch, of the classes that were asked for; nothing where none has looked at it."""
    sees = {} if committee_id is None else sees_of(store, committee_id)
    known = np.zeros(len(sent.classes), bool)
    rows: list[dict[str, Any]] = []
    if any(len(seen) != len(known) for seen in sees.values()):
        raise _other_classes(sent)
    if sees:
        known = np.any(list(sees.values()), axis=0) & np.isin(sent.classes, asked)
        knows = [
            {"detector": name, "class": sent.classes[i], "class_index": i + 1}  # SQL counts from 1
            for name, seen in sees.items()
            for i in np.flatnonzero(seen).tolist()
        ]
        con.register("chosen", pa.table({"frame_id": [image.frame_id for image in sent.images]}))
        con.register("knows", pa.Table.from_pylist(knows, _KNOWS))
        # An object's class is where its class vector is highest: with another list it would be another name.
        strange = con.execute(
            "SELECT count(*) FROM detections SEMI JOIN chosen USING (frame_id) WHERE committee_id = $committee_id "
            'AND "class" <> ($fleet::VARCHAR[])[list_position(class_scores, list_max(class_scores))]',
            {"committee_id": committee_id, "fleet": list(sent.classes)},
        ).fetchall()[0][0]
        if strange:
            raise _other_classes(sent)
        parameters = {"committee_id": committee_id, "confidence": min(OBJECT_CONFIDENCE, SURE)}
        found = con.sql(sql_file("preannotations"), params=parameters).to_arrow_table().to_pylist()
        rows = [row for row in found if row["class"] in asked]
    position, column = _positions(sent), {name: i for i, name in enumerate(sent.classes)}
    rows.sort(key=lambda row: position[row["frame_id"]])
    edges = [[row[f"{edge}_px"] for edge in ("x1", "y1", "x2", "y2")] for row in rows]
    detectors = np.empty(len(rows), object)
    detectors[:] = [row["detectors"] for row in rows]
    return Objects(
        frame=np.array([position[row["frame_id"]] for row in rows], np.int64),
        boxes_px=np.array(edges, np.float64).reshape(-1, 4),
        classes=np.array([column[row["class"]] for row in rows], np.int64),
        confidence=np.array([row["confidence"] for row in rows], np.float64),
        detectors=detectors,
        known_classes=known,
    )


def _other_classes(sent: Sent) -> UsageError:
    return UsageError(
        f"batch {sent.batch_id} was looked at with another class list than the config's: import with the `classes` of the "
        "config that chose it"
    )


def _fit(checked: Checked, objects: Objects) -> Fit:
    sure = (objects.confidence >= SURE) & np.isin(objects.frame, checked.view_frame)
    return measure_fit(
        checked.frame, checked.boxes_px, checked.classes,
        objects.frame[sure], objects.boxes_px[sure], objects.classes[sure],
    )  # fmt: skip


def _against(checked: Checked, fit: Fit, kept: int, config: Config) -> list[str]:
    """What speaks against the delivery as a whole."""
    found = []
    limit = config.labels.max_bad_share
    if checked.bad_share > limit:
        kinds = count_kinds(r for r in checked.rejects if r.kind not in NO_FAULT)
        named = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        found.append(
            f"{checked.bad_rows} of {checked.rows} rows are bad ({checked.bad_share:.1%}; labels.max_bad_share = {limit:g} "
            f"allows {math.floor(limit * checked.rows + 1e-9)}): {named}"
        )
    if fit.misaligned(config.labels.min_fit):
        found.append(
            f"its boxes lie beside the objects: of {fit.sure} objects that the committee surely sees, labels meet {fit.met} "
            f"and fit {fit.fitted} (labels.min_fit = {config.labels.min_fit:g}); are they of these images, and of this size?"
        )
    if kept == len(checked.frame) >= UNTOUCHED_AT_LEAST:
        found.append(
            f"all of its {kept} boxes are the committee's own, unchanged: this is the batch as it went out, not what came back"
        )
    return found


def _positions(sent: Sent) -> dict[str, int]:
    return {image.frame_id: i for i, image in enumerate(sent.images)}


def _standing(con: duckdb.DuckDBPyConnection, sent: Sent, drawn: Drawn) -> pa.Table:
    """What annotators drew before in the frames that are labelled now."""
    frames = sorted({sent.images[i].frame_id for i in drawn.view_frame.tolist()})
    con.register("named", pa.table({"frame_id": frames}))
    try:
        return con.sql(sql_file("standing_labels")).to_arrow_table()
    finally:
        con.unregister("named")


def _tell(found: ImportReport, checked: Checked, fit: Fit) -> None:
    labelled = np.unique(checked.view_frame)
    found.frames, found.boxes = len(labelled), len(checked.frame)
    found.empty_frames = len(np.setdiff1d(labelled, checked.frame))
    found.clipped, found.rows, found.bad_rows = checked.clipped, checked.rows, checked.bad_rows
    found.rejects = count_kinds(checked.rejects)
    found.examples = {}
    for reject in checked.rejects:
        found.examples.setdefault(reject.kind, _shown(reject))
    found.fit = {"sure": fit.sure, "met": fit.met, "fitted": fit.fitted}


def _shown(reject: Reject) -> str:
    return f"{reject.place[:120]}: {reject.reason[:240]}"


def _tell_rows(
    found: ImportReport, tables: dict[str, pa.Table], con: duckdb.DuckDBPyConnection, sent: Sent
) -> None:
    """Annotators, second look and what is lacking, from the rows that are to be committed."""
    labels = tables["labels"]
    with duckdb.connect() as new:  # the view, over these rows alone
        new.register("truth", labels.filter(pc.field("is_truth")))
        new.register("overlooked", tables["overlooked"])
        new.register("annotators", tables["annotators"])
        looks = new.sql(sql_file("second_look")).to_arrow_table()
        found.second_look = looks.num_rows
        found.worst = looks.slice(0, _WORST).to_pylist()
        found.annotators = new.sql(
            "SELECT annotator, max(frames) AS frames, sum(boxes)::BIGINT AS boxes, "
            "sum(agreed) / nullif(sum(boxes) + sum(missed), 0) AS agreement FROM annotators GROUP BY annotator ORDER BY annotator"
        ).to_arrow_table().to_pylist()  # fmt: skip
    _tell_lacking(found, con, sent, pc.unique(labels["frame_id"]).to_pylist())


def _tell_lacking(
    found: ImportReport, con: duckdb.DuckDBPyConnection, sent: Sent, labelled: Iterable[str]
) -> None:
    there = {name for (name,) in con.execute("SELECT DISTINCT frame_id FROM labels").fetchall()} | set(
        labelled
    )
    lacking = [image.frame_id for image in sent.images if image.frame_id not in there]
    found.without_labels, found.without_labels_named = len(lacking), lacking[:_NAMED]


def as_dict(stage: StageReport, found: ImportReport) -> dict[str, Any]:
    """Both reports as one JSON object; ``unchanged`` is a count, as of every stage."""
    return {**asdict(found), **asdict(stage)}
