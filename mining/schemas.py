"""Each table's columns. This is the public interface: people query these tables.

``night`` is the hive partition (``night=YYYY-MM-DD``) and stands in the path, not in the files. A column that was not
computed is NULL. Times are UTC. Boxes are x1, y1, x2, y2 in pixels of the source frame.
"""

from __future__ import annotations

import pyarrow as pa

STORE_VERSION = 2
"""Version of everything below; written into each store, checked when one is opened."""

_TIME = pa.timestamp("us", tz="UTC")
_F32 = pa.float32()


def _table(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    """Build a schema whose fields carry their documentation."""
    return pa.schema([pa.field(n, t, metadata={"doc": d}) for n, t, d in columns])


RECORDINGS = _table(
    ("recording_id", pa.string(), "first 20 hexadecimal digits of the sha256 of the content"),
    ("drive_id", pa.string(), "from the sidecar; the recording's folder and name where it says nothing"),
    ("vehicle_id", pa.string(), "from the sidecar"),
    ("camera", pa.string(), "from the sidecar; 'front' where it says nothing"),
    ("uri", pa.string(), "where the footage lay when it was last seen"),
    ("kind", pa.string(), "'video' or 'images'"),
    ("started_at", _TIME, "time of the first frame"),
    ("started_at_source", pa.string(), "'sidecar', 'container' or 'file_time'"),
    ("duration_s", pa.float64(), "first to last frame, plus one frame"),
    ("frame_rate_hz", pa.float64(), "mean over the frames that are there"),
    ("width_px", pa.int32(), "as displayed"),
    ("height_px", pa.int32(), "as displayed"),
    ("codec", pa.string(), "as FFmpeg names it"),
    ("frame_count", pa.int64(), "frames that the packets hold"),
    ("frame_count_from_header", pa.int64(), "frames that the header promises; often wrong"),
    ("size_bytes", pa.int64(), "of the file, or of all files of the folder"),
    ("modified_ns", pa.int64(), "modification time, nanoseconds since 1970"),
    ("tags", pa.map_(pa.string(), pa.string()), "from the sidecar: weather, city, route, ..."),
    ("status", pa.string(), "'ok', 'partial' or 'unreadable'"),
    ("error", pa.string(), "why, where status is not 'ok'"),
)

FRAMES = _table(
    ("frame_id", pa.string(), "(recording, frame_index); opaque"),
    ("recording_id", pa.string(), ""),
    ("drive_id", pa.string(), ""),
    ("vehicle_id", pa.string(), ""),
    ("camera", pa.string(), ""),
    (
        "frame_index",
        pa.int64(),
        "position in the order in which a decoder hands frames out (display order), from 0 over all frames",
    ),
    ("pts_ns", pa.int64(), "exact presentation time in the recording, nanoseconds"),
    ("captured_at", _TIME, "started_at + (pts_ns - pts_ns of the first frame)"),
    ("speed_mps", pa.float64(), "telemetry at captured_at"),
    ("latitude_deg", pa.float64(), "telemetry at captured_at, WGS 84"),
    ("longitude_deg", pa.float64(), "telemetry at captured_at, WGS 84"),
    ("heading_deg", pa.float64(), "telemetry at captured_at, clockwise from north"),
    ("telemetry", pa.map_(pa.string(), pa.float64()), "every other numeric telemetry column"),
)

OBSERVATIONS = _table(
    ("frame_id", pa.string(), ""),
    ("committee_id", pa.string(), "which detectors, with which weights and settings"),
    ("recording_id", pa.string(), ""),
    ("luma_mean", _F32, "mean luma, 0..255"),
    ("sharpness", _F32, "variance of the Laplacian of luma at 320 px width"),
    ("overexposed_share", _F32, "share of pixels with luma of 250 or more"),
    ("perceptual_hash", pa.uint64(), "64-bit difference hash of luma; near-equal images differ in few bits"),
    ("embedding", pa.list_(_F32), "pooled feature map of the first detector, L2-normalised"),
    ("box_count", pa.map_(pa.string(), pa.int32()), "per detector: candidates kept, at or above its floor"),
    ("luma_histogram", pa.list_(_F32), "share of pixels in each 16th of the range of luma"),
    (
        "dense_entropy_max",
        pa.map_(pa.string(), pa.list_(_F32)),
        "per detector and fleet class, nats, over all positions",
    ),
    (
        "dense_entropy_mean",
        pa.map_(pa.string(), pa.list_(_F32)),
        "per detector and fleet class, nats, over all positions",
    ),
    (
        "repeat_of",
        pa.string(),
        "frame_id of the earlier frame of the same picture, whose detections it takes over; else NULL",
    ),
    (
        "status",
        pa.string(),
        "'ok', 'partial' (a detector failed) or 'failed' (no frame, or every detector failed)",
    ),
    ("error", pa.string(), "why, where status is not 'ok'"),
)

DETECTIONS = _table(
    ("frame_id", pa.string(), ""),
    ("committee_id", pa.string(), ""),
    ("detector", pa.string(), "which member saw it"),
    ("box_index", pa.int32(), "in a frame and detector, by falling confidence"),
    ("class", pa.string(), "the fleet class with the highest score"),
    ("confidence", _F32, "that score; candidates reach down to the detector's floor"),
    ("x1_px", _F32, ""),
    ("y1_px", _F32, ""),
    ("x2_px", _F32, ""),
    ("y2_px", _F32, ""),
    (
        "class_scores",
        pa.list_(_F32),
        "one a fleet class in the order of the class list; NULL where unseen by this detector",
    ),
    (
        "box_std_px",
        pa.list_(_F32),
        "standard deviation of left, top, right and bottom edge; NULL where the head has none",
    ),
    ("match_id", pa.int32(), "same number in a frame: the same object, seen by several members"),
)

TRACKS = _table(
    ("frame_id", pa.string(), ""),
    ("committee_id", pa.string(), ""),
    ("recording_id", pa.string(), ""),
    ("detector", pa.string(), "with frame_id, committee_id and box_index: the box in detections"),
    (
        "box_index",
        pa.int32(),
        "boxes under the threshold, and those of frames that repeat the one before or have its time, have no track",
    ),
    ("track_id", pa.int64(), "same object over time in one recording, as one detector sees it"),
)

# One column a signal; `signals/` documents formulas, docs/signals.md what each is worth. `_pct` is the rank against the
# committee's stored reference. "Kept" boxes are those of the first detector at or above its threshold.
_BOX_MEASURES = (
    ("least_confidence", "1 - p of kept boxes"),
    ("margin", "1 - (p1 - p2) of kept boxes"),
    ("entropy", "entropy (nats) of the normalised class vector of kept boxes"),
    ("bernoulli_entropy", "entropy (nats) summed class by class, of kept boxes"),
    ("box_std_px", "standard deviation of the edges (root mean square of four, pixels) of kept boxes"),
    ("box_std_relative", "the same as a share of the box's width and height, of kept boxes"),
)
_OBJECT_MEASURES = (
    ("presence", "vote entropy of presence (nats) of the committee's objects"),
    ("class_disagreement", "Jensen-Shannon divergence (nats) of class vectors of matched objects"),
    ("box_disagreement", "1 - mean IoU of matched objects"),
    ("edge_deviation_px", "root mean square distance of edges from the mean box (pixels) of matched objects"),
)
SIGNALS = (
    ("box_count", "kept boxes"),
    ("candidate_count", "boxes of the first detector at or above its floor"),
    *(
        (f"{name}_{how}", f"{said}: {doc}")
        for name, doc in _BOX_MEASURES
        for how, said in (
            ("max", "largest"),
            ("mean", "mean"),
            ("sum", "sum (counts boxes)"),
            ("top3", "mean of the three largest"),
            ("excess", "sum less what as many usual boxes have (count-corrected)"),
        )
    ),
    (
        "entropy_weighted_sum",
        "sum of entropy times PPAL's class weight, kept boxes; NULL without a calibration",
    ),
    ("candidate_box_std_px_sum", "sum of box_std_px over all candidates of the first detector"),
    (
        "dense_entropy_max",
        "largest binary entropy (nats) over positions and classes before suppression, first detector",
    ),
    ("dense_entropy_mean", "mean binary entropy (nats) over positions, summed over classes, first detector"),
    ("expected_missed", "sum of the scores of candidates under the threshold, first detector"),
    ("expected_false", "sum of (1 - score) over kept boxes"),
    ("expected_error_rate", "(expected_missed + expected_false) / (expected objects + 1)"),
    *(
        (f"{name}_{how}", f"{said}: {doc}")
        for name, doc in _OBJECT_MEASURES
        for how, said in (("max", "largest"), ("mean", "mean"), ("sum", "sum"))
    ),
    ("committee_missed", "objects that the first detector missed, expected from what the committee sees"),
    ("committee_false", "false alarms of the first detector, expected from what the committee sees"),
    ("committee_errors", "committee_missed + committee_false"),
    ("committee_error_rate", "committee_errors / (objects that the committee expects + 1)"),
    (
        "flicker",
        "objects of the first detector that vanish here without a trace; NULL where frames lie too far apart",
    ),
    (
        "dips",
        "objects of the first detector whose score falls under the threshold here alone; NULL where flicker is",
    ),
    ("class_flips", "kept boxes whose object has another class in the frame before or after"),
    ("box_jitter_max", "largest deviation of a kept box from even motion, as a share of its size"),
    ("box_jitter_mean", "mean of the same"),
    ("count_change", "|box_count - m| / sqrt(m + 1), m the median box_count of the four frames around"),
)

SCORES = _table(
    ("frame_id", pa.string(), ""),
    ("committee_id", pa.string(), ""),
    ("recording_id", pa.string(), ""),
    ("drive_id", pa.string(), "as in frames"),
    (
        "classes",
        pa.string(),
        "fleet classes that any member sees at its threshold, sorted, with commas between; '' where none",
    ),
    (
        "sun_elevation_deg",
        _F32,
        "height of the sun's centre over the horizon, without refraction; NULL without a position",
    ),
    (
        "is_night",
        pa.bool_(),
        "the sun stands lower than -6 degrees (civil twilight has ended); by luma_mean without a position",
    ),
    *((name, _F32, doc) for name, doc in SIGNALS),
    *((f"{name}_pct", _F32, f"share of reference frames below this frame's {name}") for name, _ in SIGNALS),
    (
        "hardness",
        _F32,
        "the config's blend of percentiles, in 0..1; one that has no value counts as the middle, 0.5",
    ),
    (
        "reference_id",
        pa.string(),
        "what percentiles are taken against; those of different references do not compare",
    ),
    ("repeats_previous", pa.bool_(), "shows the same picture as the sampled frame before"),
    ("scene_cut", pa.bool_(), "another scene begins here"),
    ("status", pa.string(), "'ok', 'partial' or 'failed', as in observations"),
    ("error", pa.string(), ""),
)

SCENES = _table(
    (
        "scene_id",
        pa.string(),
        "made from committee, drive, camera and start; a run that goes on in a file of the next night is a scene of each",
    ),
    ("committee_id", pa.string(), ""),
    ("drive_id", pa.string(), ""),
    ("camera", pa.string(), ""),
    ("recording_id", pa.string(), "the recording of the peak"),
    (
        "recording_ids",
        pa.list_(pa.string()),
        "every recording that holds a hard frame of the run: a drive may be cut into files",
    ),
    ("start_ns", pa.int64(), "nanoseconds since 1970 of the first hard frame"),
    ("end_ns", pa.int64(), "of the last"),
    ("duration_s", pa.float64(), "first to last hard frame; 0 for a run of one frame"),
    ("frames", pa.int32(), "hard frames in the run, of those that were sampled"),
    ("mean_hardness", _F32, ""),
    ("peak_hardness", _F32, ""),
    ("peak_frame_id", pa.string(), ""),
    ("classes", pa.list_(pa.string()), "fleet classes seen in the run, by any member at its threshold"),
    ("speed_min_mps", pa.float64(), "telemetry of the hard frames; NULL where none of them has it"),
    ("speed_max_mps", pa.float64(), ""),
    ("latitude_min_deg", pa.float64(), "with the next three: box around the hard frames, NULL where unknown"),
    ("latitude_max_deg", pa.float64(), ""),
    ("longitude_min_deg", pa.float64(), ""),
    ("longitude_max_deg", pa.float64(), ""),
)

SELECTIONS = _table(
    ("batch_id", pa.string(), ""),
    ("frame_id", pa.string(), ""),
    ("committee_id", pa.string(), ""),
    ("rank", pa.int32(), "1 is the first pick of its arm"),
    ("arm", pa.string(), "'mined', or 'random' (drawn blindly, to measure mining against)"),
    ("slice", pa.string(), "the quota that it fills; NULL where none"),
    ("reason", pa.string(), "why it was chosen, for people"),
    ("hardness", _F32, ""),
    (
        "distance_to_chosen",
        _F32,
        "of its embedding to the nearest frame chosen before, 0 to 2; NULL for the first and for the random arm",
    ),
    ("estimated_boxes", _F32, "boxes a labeler will draw, expected from the detections"),
)

REVIEWS = _table(
    ("review_id", pa.string(), "rises with time within a batch"),
    ("batch_id", pa.string(), ""),
    ("frame_id", pa.string(), "the frame that was looked at"),
    ("reviewer", pa.string(), "as `mining review --reviewer` named them"),
    (
        "verdict",
        pa.string(),
        "'keep', 'drop', 'more' (keep, and find more like it), or 'none' (taken back); a reviewer's last one on a frame holds",
    ),
    ("reason", pa.string(), "in the reviewer's words; NULL where none was given"),
    (
        "undoes",
        pa.string(),
        "review_id of the verdict that this one takes back; NULL where it is one of its own",
    ),
    ("reviewed_at", _TIME, ""),
)

ADDITIONS = _table(
    *((field.name, field.type, field.metadata[b"doc"].decode()) for field in SELECTIONS),
    ("review_id", pa.string(), "the verdict that brought it"),
    ("replaces", pa.string(), "the dropped frame that it came for; NULL where it came as more like another"),
    (
        "place",
        pa.string(),
        "the frame of `selections` whose place in the batch it may take: the first of a place that nobody drops is in; "
        "NULL where it came as more like another",
    ),
    ("like_frame_id", pa.string(), "the frame that it is like; NULL where it replaces one"),
)

SLICES = _table(
    ("batch_id", pa.string(), ""),
    ("slice", pa.string(), "a quota of the config, or one of its values"),
    ("floor", pa.int32(), "frames that the batch should hold of it at least"),
    ("ceiling", pa.int32(), "and at most"),
    ("eligible", pa.int32(), "frames of the slice that might be chosen"),
    ("chosen", pa.int32(), "frames of the slice in the batch, the random arm included"),
    (
        "lack",
        pa.string(),
        "why it holds fewer than its floor, or more than its ceiling; NULL where it does not",
    ),
)

EXPORTS = _table(
    ("batch_id", pa.string(), ""),
    ("frame_id", pa.string(), ""),
    ("vendor", pa.string(), "the manifest format"),
    ("position", pa.int32(), "in the manifests, from 0; NULL where the image could not be written"),
    ("file_name", pa.string(), "in the manifests; NULL where the image could not be written"),
    ("width_px", pa.int32(), "of the image; in a folder of images they may be of many sizes"),
    ("height_px", pa.int32(), ""),
    (
        "image_uri",
        pa.string(),
        "where the image was written; in a zip after '!/', and where none was written its address in the manifests",
    ),
    ("sha256", pa.string(), "of the image file"),
    ("status", pa.string(), "'ok' or 'failed'"),
    ("error", pa.string(), "why the image could not be written"),
)

LABELS = _table(
    ("batch_id", pa.string(), ""),
    ("frame_id", pa.string(), ""),
    ("import_id", pa.string(), "the delivery that brought it; the view `truth` holds each frame's newest"),
    ("vendor", pa.string(), "the format that it came in"),
    ("annotator", pa.string(), "who drew it; NULL where the delivery does not say, and where is_fused"),
    ("label_index", pa.int32(), "from 0 in a frame and import; NULL where the frame is labelled as empty"),
    ("class", pa.string(), "fleet class; NULL where the frame is labelled as empty"),
    ("vendor_class", pa.string(), "as the vendor wrote it"),
    ("x1_px", _F32, "in pixels of the source frame"),
    ("y1_px", _F32, ""),
    ("x2_px", _F32, ""),
    ("y2_px", _F32, ""),
    ("ignore", pa.bool_(), "a crowd or a difficult object: neither finding it nor missing it counts"),
    ("is_fused", pa.bool_(), "made from the boxes of several annotators"),
    (
        "is_truth",
        pa.bool_(),
        "counts as the frame's truth; false for one annotator's view where several drew",
    ),
    ("agreement", _F32, "share of the frame's annotators who drew it; NULL where there was one"),
    (
        "location_quality",
        _F32,
        "0..1, low: the committee sees the object elsewhere (ObjectLab); NULL where it says nothing",
    ),
    (
        "class_quality",
        _F32,
        "0..1, low: the committee sees another class there (ObjectLab); NULL where it says nothing",
    ),
    ("seen_class", pa.string(), "fleet class of the committee's object there; NULL where it sees none"),
    ("imported_at", _TIME, ""),
)

OVERLOOKED = _table(
    ("batch_id", pa.string(), ""),
    ("frame_id", pa.string(), ""),
    ("import_id", pa.string(), ""),
    ("class", pa.string(), "fleet class of an object that the committee sees and no label has"),
    ("confidence", _F32, "mean over the members that know the class"),
    ("x1_px", _F32, ""),
    ("y1_px", _F32, ""),
    ("x2_px", _F32, ""),
    ("y2_px", _F32, ""),
    ("detectors", pa.list_(pa.string()), "members that saw it"),
    ("overlooked_quality", _F32, "0..1, low: more likely overlooked by the labelers (ObjectLab)"),
)

LABEL_REJECTS = _table(
    ("batch_id", pa.string(), ""),
    ("import_id", pa.string(), ""),
    ("vendor", pa.string(), ""),
    ("place", pa.string(), "file and record of the delivery"),
    ("kind", pa.string(), "a key of mining.vendors.labels.KINDS"),
    ("reason", pa.string(), "for people"),
    ("frame_id", pa.string(), "NULL where no frame was found"),
)

ANNOTATORS = _table(
    ("batch_id", pa.string(), ""),
    ("import_id", pa.string(), ""),
    ("annotator", pa.string(), "'' where the delivery does not say"),
    ("class", pa.string(), "fleet class"),
    ("frames", pa.int32(), "frames that this annotator and at least one other labelled"),
    ("boxes", pa.int32(), "boxes drawn there"),
    (
        "agreed",
        pa.int32(),
        "of these, boxes that became part of a fused box that counts as truth, of this class",
    ),
    ("missed", pa.int32(), "fused boxes of this class, in those frames, that the annotator did not draw so"),
    ("mean_iou", pa.float64(), "of the agreed boxes with the fused ones; NULL where none agreed"),
    (
        "agreement",
        pa.float64(),
        "agreed / (boxes + missed): 1 is full agreement; NULL where there is nothing",
    ),
)

YIELDS = _table(
    ("batch_id", pa.string(), ""),
    ("frame_id", pa.string(), ""),
    ("import_id", pa.string(), "the labels that it was measured against"),
    ("committee_id", pa.string(), "the committee that chose the frame"),
    ("detector", pa.string(), "the member whose errors are counted: the primary"),
    ("arm", pa.string(), "as in selections"),
    ("objects", pa.int32(), "labelled boxes that count"),
    (
        "boxes",
        pa.int32(),
        "what the detector saw at its threshold, of the classes that labels and detector know",
    ),
    ("missed", pa.int32(), "objects that it did not see"),
    ("false_alarms", pa.int32(), "boxes where nothing is"),
    ("misplaced", pa.int32(), "right class, overlap of .1 to .5"),
    ("wrong_class", pa.int32(), "right place, wrong class"),
    ("errors", pa.int32(), "sum of the four"),
    ("measured_at", _TIME, ""),
)

RUNS = _table(
    ("run_id", pa.string(), "also in JSON logs"),
    ("began_at", _TIME, ""),
    ("ended_at", _TIME, "NULL while it runs, and for ever where it was killed"),
    (
        "state",
        pa.string(),
        "'running' (or killed), 'done', 'too many failed', 'no batch', 'failed' or 'stopped'",
    ),
    ("error", pa.string(), "why it failed"),
    ("config_digest", pa.string(), "of the config with every default filled in"),
    ("committee_id", pa.string(), ""),
    ("detectors", pa.map_(pa.string(), pa.string()), "per detector: digest of its weights and settings"),
    ("versions", pa.map_(pa.string(), pa.string()), "of mining and the packages that decide what comes out"),
    ("host", pa.string(), ""),
    ("pid", pa.int64(), ""),
    ("batch_id", pa.string(), "the batch that it made or found"),
    ("recordings", pa.int64(), "of its footage"),
    ("failed_recordings", pa.int64(), "of these, unreadable"),
    ("frames", pa.int64(), "sampled frames of its footage"),
    ("failed_frames", pa.int64(), "of these, without a picture, or on which every detector failed"),
    ("seconds", pa.map_(pa.string(), pa.float64()), "of each stage"),
)

TABLES: dict[str, pa.Schema] = {
    "recordings": RECORDINGS,
    "frames": FRAMES,
    "observations": OBSERVATIONS,
    "detections": DETECTIONS,
    "tracks": TRACKS,
    "scores": SCORES,
    "scenes": SCENES,
    "selections": SELECTIONS,
    "slices": SLICES,
    "reviews": REVIEWS,
    "additions": ADDITIONS,
    "exports": EXPORTS,
    "labels": LABELS,
    "overlooked": OVERLOOKED,
    "label_rejects": LABEL_REJECTS,
    "annotators": ANNOTATORS,
    "yields": YIELDS,
    "runs": RUNS,
}
