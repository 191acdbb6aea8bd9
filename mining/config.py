"""The config file: TOML, checked before anything runs. One default in one place: here, or in ``DetectorSpec``."""

from __future__ import annotations

import difflib
import json
import math
import string
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from detectors.types import DetectorError, DetectorSpec
from mining import buckets, places
from mining.places import Place
from mining.text import one_line
from mining.types import UsageError

DEFAULT_SAMPLE_HZ = 2.0
IMAGE_URI_NAMES = ("batch_id", "file_name", "frame_id", "recording_id", "drive_id", "camera")
"""What `export.image_uri` may name."""
_MAX_BYTES = 1_000_000


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True, allow_inf_nan=False
    )


class FootageConfig(_Section):
    """Where the recordings are, and which of their frames are looked at."""

    paths: list[str] = Field(min_length=1)
    """Folders, files, globs, or @lists (one path a line), on disk or as s3://bucket/key. Relative paths start at the config
    file's folder."""
    sample_hz: float | None = Field(default=None, gt=0, le=1000)
    """Frames looked at in a second of footage; 2.0 where neither this nor `every` is given."""
    every: int | None = Field(default=None, ge=1)
    """Look at every n-th frame instead; 1 looks at all of them."""
    image_rate_hz: float = Field(default=1.0, gt=0, le=1000)
    """Frame rate of image folders whose sidecar names none."""
    cache_gb: float = Field(default=20.0, gt=0)
    """Gigabytes of footage from buckets that a job keeps on the local disk (in TMPDIR), so that its stages need not fetch it
    again."""

    @model_validator(mode="after")
    def _one_sampling(self) -> FootageConfig:
        if self.sample_hz is not None and self.every is not None:
            raise ValueError("sample_hz and every exclude each other: keep one of them")
        return self

    @property
    def effective_sample_hz(self) -> float | None:
        """The rate in force; None where every n-th frame is taken."""
        if self.every is not None:
            return None
        return DEFAULT_SAMPLE_HZ if self.sample_hz is None else self.sample_hz


class DetectConfig(_Section):
    """How the committee runs over the footage."""

    batch_size: int = Field(default=16, ge=1, le=4096)
    """Frames in one forward pass."""
    decode_workers: int = Field(default=2, ge=1, le=64)
    """Recordings that are decoded side by side, ahead of the detectors."""
    decode_timeout_s: float = Field(default=60.0, gt=0)
    """A decoder that gives no frame for so long is ended; the frame counts as damaged."""
    skip_repeats: bool = True
    """Frames that show the same picture as an earlier one (a standing car, doubled frames) take over what was seen there
    (`observations.repeat_of`); only where nothing at all has moved."""
    shard_minutes: float = Field(default=5.0, ge=0.001)
    """Length of footage that is committed as one piece, and lost at most when a job is killed."""
    match_iou: float = Field(default=0.5, gt=0, lt=1)
    """Boxes of two members are the same object from this overlap on."""


class RunConfig(_Section):
    """When a night counts as failed."""

    max_failed_share: float = Field(default=0.1, ge=0, le=1)
    """`mining run` ends with exit code 3 where a larger share of the recordings, or of the frames, failed."""
    metrics: str | None = None
    """Text file for Prometheus, written at the end of each run. Relative paths start at the config file's folder."""


class ScoreConfig(_Section):
    """How signals blend into one number."""

    hardness: dict[str, float] = Field(
        default={
            "committee_errors": 2.0,
            "expected_error_rate": 1.0,
            "expected_missed": 1.0,
            "presence_sum": 1.0,
            "dense_entropy_mean": 1.0,
        },
        min_length=1,
    )
    """Weight of each signal's percentile in `hardness`; the evidence for the default is in docs/signals.md."""
    calibration: str | None = None
    """File that `tools/measure_signals.py --write-calibration` made from labelled images: what the detectors' scores are
    worth, and how difficult each class is. Relative paths start at the config file's folder."""
    max_step_s: float = Field(default=0.6, gt=0)
    """Frames further apart are no neighbours: no object is followed from one to the other."""
    max_gap_s: float = Field(default=0.25, gt=0)
    """Longest absence of an object, from its last box to its next, that counts as flicker. Who is away longer has often
    gone."""

    @model_validator(mode="after")
    def _weights(self) -> ScoreConfig:
        if (
            any(w < 0 or not math.isfinite(w) for w in self.hardness.values())
            or sum(self.hardness.values()) <= 0
        ):
            raise ValueError("hardness: weights must not be negative, and one must be above 0")
        return self


class ScenesConfig(_Section):
    """Runs of hard frames."""

    min_hardness: float = Field(default=0.75, ge=0, le=1)
    """A frame is hard from this hardness on."""
    max_gap_s: float = Field(default=2.0, gt=0, le=86400)
    """Hard frames of one camera that are further apart belong to different scenes."""
    min_frames: int = Field(default=2, ge=1)
    """Shorter runs are no scene."""


class QuotaConfig(_Section):
    """A floor or ceiling for a slice of the batch, the random arm included."""

    name: str | None = Field(default=None, min_length=1)
    """What reasons and reports call the slice; the text of `where` or `by` where absent."""
    where: str | None = None
    """SQL condition over `mined`: the slice is the frames that fulfil it, such as "luma_mean < 40"."""
    by: str | None = None
    """SQL expression over `mined`: each of its values is a slice of its own, such as "vehicle_id". Frames for which it is
    NULL are in none."""
    min: int | None = Field(default=None, ge=1)
    """At least this many frames."""
    min_share: float | None = Field(default=None, gt=0, le=1)
    """At least this share of the budget."""
    max: int | None = Field(default=None, ge=0)
    """At most this many frames."""
    max_share: float | None = Field(default=None, ge=0, le=1)
    """At most this share of the budget."""

    @model_validator(mode="after")
    def _one_of_each(self) -> QuotaConfig:
        if (self.where is None) == (self.by is None):
            raise ValueError("a quota needs `where` or `by`, and not both")
        for kind, count, share in (
            ("min", self.min, self.min_share),
            ("max", self.max, self.max_share),
        ):
            if count is not None and share is not None:
                raise ValueError(f"quota {self.title!r}: give `{kind}` or `{kind}_share`, not both")
        if self.min is self.min_share is self.max is self.max_share is None:
            raise ValueError(f"quota {self.title!r}: give `min`, `min_share`, `max` or `max_share`")
        return self

    @property
    def title(self) -> str:
        """What the slice is called."""
        return self.name or self.where or self.by or ""

    def floor(self, budget: int) -> int:
        """Least number of frames; 0 where there is no floor."""
        return self.min or (math.ceil(self.min_share * budget - 1e-9) if self.min_share else 0)

    def ceiling(self, budget: int) -> int:
        """Largest number of frames; the budget where there is no ceiling."""
        if self.max is not None:
            return self.max
        return budget if self.max_share is None else math.floor(self.max_share * budget + 1e-9)


class CostConfig(_Section):
    """What labeling costs, in any unit: boxes, seconds, cents."""

    limit: float | None = Field(default=None, gt=0)
    """The batch costs at most this; no limit where absent. `budget` stays the largest number of frames."""
    per_frame: float = Field(default=0.0, ge=0)
    per_box: float = Field(default=1.0, ge=0)
    """The boxes of a frame are estimated: the objects that the committee sees at its thresholds."""

    @model_validator(mode="after")
    def _costs(self) -> CostConfig:
        if self.limit is not None and self.per_frame + self.per_box <= 0:
            raise ValueError("cost.limit needs `per_frame` or `per_box` above 0")
        return self


class SelectConfig(_Section):
    """Which frames make the batch."""

    budget: int = Field(default=100, ge=1)
    """Frames in a batch, the random arm included."""
    cost: CostConfig = CostConfig()
    min_gap_s: float = Field(default=3.0, ge=0, le=86400)
    """Least time between two chosen frames of one drive and camera."""
    where: str = "true"
    """SQL condition over the columns of the view `mined`, such as "luma_mean > 20 AND tags['city'] = 'Oslo'"."""
    order_by: str | None = None
    """SQL expression over `mined`, the largest first: what the pool is the best of. `hardness` where absent, or `likeness`
    where `like` names examples."""
    pool_factor: float = Field(default=4.0, ge=1, le=1000)
    """The strategy picks from this many times the budget of the best frames (PPAL, CVPR 2024, uses 4)."""
    strategy: str = "k_center"
    """How the batch is picked from the pool: a key of `mining.strategies.STRATEGIES`."""
    stratify_by: str = "drive_id"
    """SQL expression over `mined`: the strategy `stratified` shares the budget over its values."""
    quota: list[QuotaConfig] = []
    """Floors and ceilings by slice. Floors are filled first, the scarcest slice first."""
    like: list[str] = []
    """Examples, as frame_id or image file: candidates get a column `likeness`, the cosine similarity to the nearest."""
    random_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the budget (rounded to frames: none of a budget below 11, by default) drawn at random from all eligible
    frames, so that mining can be measured against it."""
    max_duplicate_bits: int = Field(default=6, ge=-1, le=64)
    """Frames whose perceptual hashes differ in at most this many of 64 bits are the same picture when their embeddings
    are near-equal too; only one is kept. -1 keeps all."""
    max_duplicate_distance: float = Field(default=0.10, ge=0, le=2)
    """Largest distance of two L2-normalised embeddings of the same picture."""
    same_moment_once: bool = True
    """Keep one side of footage that was uploaded twice: encoded again, cut or cropped (docs/selection.md)."""
    exclude_chosen: bool = True
    """Leave out frames that an earlier batch of this store holds."""
    exclude_labelled: bool = True
    """Leave out frames that have labels."""
    other_stores: list[str] = []
    """Stores of other sites, whose frames are candidates too. Relative paths start at the config file's folder."""
    seed: int = 0

    @model_validator(mode="after")
    def _quotas(self) -> SelectConfig:
        titles = [quota.title for quota in self.quota]
        for quota in self.quota:
            if titles.count(quota.title) > 1:
                raise ValueError(f"two quotas are called {quota.title!r}: give each its own `name`")
            floor, ceiling = quota.floor(self.budget), quota.ceiling(self.budget)
            if quota.max_share and not ceiling:
                raise ValueError(
                    f"quota {quota.title!r}: max_share = {quota.max_share:g} of a budget of {self.budget} is less than one "
                    "frame; give `max`, or max_share = 0 to leave the slice out"
                )
            if floor > ceiling:
                raise ValueError(
                    f"quota {quota.title!r} asks for at least {floor} and at most {ceiling} frames of a budget of "
                    f"{self.budget}"
                )
        return self


class BlurConfig(_Section):
    """What is made unrecognisable in every delivered image, such as faces and plates."""

    detector: DetectorSpec
    """Finds it: as a `[[detector]]`, and no member of the committee. Its own class names count, not the fleet's; its
    `threshold` decides. Choose a low one: what it misses goes out as it is."""
    classes: list[str] = Field(min_length=1)
    """The detector's classes to blur."""
    cells: int = Field(default=4, ge=1, le=64)
    """Strength: this many patches are left of a box's longer side; fewer hide more."""
    margin: float = Field(default=0.1, ge=0, le=2)
    """Boxes are grown by this share of their size on each side."""


class ExportConfig(_Section):
    """What a delivery looks like."""

    to: str = "batches"
    """Folder, or `s3://bucket/prefix`, that gets one folder a batch. Relative paths start at the config file's folder."""
    vendors: list[str] = Field(default=["coco", "csv", "jsonl"], min_length=1)
    """Manifests to write: keys of `mining.vendors.VENDORS`."""
    images: Literal["files", "zip", "none"] = "files"
    """`files` in `images/`, packed as `images.zip`, or `none`: manifests alone, for images that lie at `image_uri` already."""
    image_format: Literal["jpeg", "png"] = "jpeg"
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    image_uri: str | None = None
    """Where the vendor finds an image, such as "s3://bucket/{batch_id}/{file_name}", for manifests that take URLs; the
    path within the delivery where absent. Known: batch_id, file_name, frame_id, recording_id, drive_id, camera."""
    preannotate: Literal["agreed", "all", "none"] = "agreed"
    """Which objects are drawn already. `agreed`: every member that knows the class sees the object, as that class, at its
    threshold. `all`: those that only some see too, marked as in doubt. `none`: an empty canvas."""
    preannotation_confidence: float = Field(default=0.5, ge=0, le=1)
    """An object of less mean confidence, over the members that know its class, is in doubt."""
    context_frames: int = Field(default=0, ge=0, le=10)
    """Images before and as many after each chosen frame, to look at, never to label."""
    context_step_s: float = Field(default=0.5, gt=0, le=60)
    """Time from one context image to the next."""
    blur: BlurConfig | None = None
    """Hides faces, plates and the like."""

    @model_validator(mode="after")
    def _uris(self) -> ExportConfig:
        if self.image_uri is not None:
            try:
                parts = list(string.Formatter().parse(self.image_uri))
            except ValueError as error:
                raise ValueError(f"image_uri {self.image_uri!r}: {error}") from None
            names = [name for _, name, _, _ in parts if name is not None]
            for _, name, form, conversion in parts:
                if name is not None and (name not in IMAGE_URI_NAMES or form or conversion):
                    raise ValueError(
                        f"image_uri {self.image_uri!r}: {{{name}}} with what follows it is not known; known are "
                        f"{', '.join(f'{{{known}}}' for known in IMAGE_URI_NAMES)}"
                    )
            if not {"file_name", "frame_id"} & set(names):
                raise ValueError(
                    f"image_uri {self.image_uri!r}: needs {{file_name}} or {{frame_id}}: one URI an image"
                )
        elif self.images == "none":
            raise ValueError('images = "none" needs `image_uri`: where the vendor finds the images')
        return self


class LabelsConfig(_Section):
    """What of a delivery of labels is taken in."""

    classes: list[str] = []
    """Fleet classes that the labelers are asked for, where not for all: the instructions name them, and only these are drawn
    already; nothing is held against labels or detector of the others."""
    names: dict[str, str] = {}
    """A vendor's class name = fleet class, on top of the class list; "" for what is none of ours and left out. (A new name in
    the class list itself would make another committee.)"""
    max_bad_share: float = Field(default=0.02, ge=0, le=1)
    """Largest share of bad rows (boxes, and images without boxes) in a delivery that is taken in."""
    max_overhang_px: float = Field(default=5.0, ge=0)
    """A box may hang over the edge of its image by this much; it is clipped."""
    min_fit: float = Field(default=0.5, ge=0, le=1)
    """Of the objects that the committee surely sees and that a label meets, the share that a label must fit; a delivery that
    stays surely below lies beside the objects (docs/labels.md). 0 takes any."""


class Config(_Section):
    """The whole file."""

    store: str = "store"
    """Folder of the tables, or ``s3://bucket/prefix`` (see docs/operations.md). Relative paths start at the config file's folder."""
    classes: str | None = None
    """TOML file that maps class names onto the fleet's list; the list that ships with mining where absent."""
    footage: FootageConfig
    detector: list[DetectorSpec] = Field(min_length=1, max_length=8)
    """The committee. The first member is the primary: the detector whose errors are looked for."""
    run: RunConfig = RunConfig()
    detect: DetectConfig = DetectConfig()
    score: ScoreConfig = ScoreConfig()
    scenes: ScenesConfig = ScenesConfig()
    select: SelectConfig = SelectConfig()
    export: ExportConfig = ExportConfig()
    labels: LabelsConfig = LabelsConfig()

    folder: str = Field(default=".", exclude=True)
    """Set by `load`: the folder that relative paths start from; not a key of the file."""

    @model_validator(mode="after")
    def _names(self) -> Config:
        names = self.detector_names
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two detectors are called {name!r}: give each its own `name`")
        return self

    @property
    def detector_names(self) -> list[str]:
        """The members' names in the tables."""
        return [spec.table_name for spec in self.detector]

    def path(self, value: str) -> Path:
        """Resolve a path of the config against the config file's folder. ``UsageError`` where it can be no path."""
        if "\0" in value:
            raise UsageError(f"{one_line(value)}: a path cannot hold a NUL character")
        try:
            return Path(self.folder, Path(value).expanduser()).absolute()
        except RuntimeError:
            raise UsageError(
                f"{one_line(value)}: this machine knows no such user; write the folder out"
            ) from None

    @property
    def store_path(self) -> Place:
        """Where the store lies: an absolute path, or ``s3://bucket/prefix``."""
        return self.place(self.store)

    def place(self, value: str) -> Place:
        """Resolve what names a store: a path against the config file's folder, or ``s3://bucket/prefix``."""
        named = places.place(value)
        return self.path(value) if isinstance(named, Path) else named

    @property
    def footage_paths(self) -> list[str]:
        """Absolute footage paths, and URIs as they are; an @list keeps its sign."""
        return [
            f"@{self._footage_path(p[1:])}" if p.startswith("@") else self._footage_path(p)
            for p in self.footage.paths
        ]

    def _footage_path(self, value: str) -> str:
        return value if buckets.is_uri(value) else str(self.path(value))

    @property
    def classes_path(self) -> Path:
        """Absolute path of the class list: the config's own, or the one that ships."""
        return shipped("classes.toml") if self.classes is None else self.path(self.classes)

    @property
    def resolved_detectors(self) -> list[DetectorSpec]:
        """The specs with weights that are relative paths resolved; names without a file stay as they are."""
        return [self.resolved(spec) for spec in self.detector]

    def resolved(self, spec: DetectorSpec) -> DetectorSpec:
        """Resolve the weights of one spec so."""
        here = self.path(spec.weights)
        return replace(spec, weights=str(here)) if here.exists() or "/" in spec.weights else spec


def load(path: str | Path, overrides: tuple[str, ...] = ()) -> Config:
    """Read and check a config file.

    ``overrides`` are ``a.b=value`` strings; the value is read as TOML, or taken as text where it is none. Raises
    ``UsageError`` with one line that names the file and the key.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise UsageError(f"{path}: cannot be read: larger than {_MAX_BYTES} bytes")
        data = tomllib.loads(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such config file (`mining demo` writes an example into demo/)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply") from None
    except ValueError as error:  # what the parser raises, and Python for numbers of thousands of digits
        raise UsageError(f"{path}: not valid TOML: {_brief(error)}") from None
    for override in overrides:
        _apply(data, override)
    if "folder" in data:
        raise UsageError(f"{path}: unknown key 'folder'")
    return _validate(data, source=str(path), folder=str(path.absolute().parent))


def _validate(data: dict[str, Any], source: str, folder: str) -> Config:
    try:
        # JSON mode: strict about types, yet TOML arrays may fill tuples.
        return Config.model_validate_json(json.dumps({**data, "folder": folder}, default=str))
    except RecursionError:
        raise UsageError(f"{source}: nested too deeply") from None
    except ValidationError as error:
        # A misspelt key is also a missing one: say the misspelling.
        problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] == "missing")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UsageError(f"{source}: {one_line(_explain(problems[0]))[:1000]}{more}") from None
    except DetectorError as error:
        raise UsageError(f"{source}: detector: {one_line(str(error))}") from None
    except ValueError as error:  # Python's limit for the digits of a number
        raise UsageError(f"{source}: {_brief(error)}") from None


def _explain(problem: Any) -> str:
    key = ".".join(str(part)[:100] for part in problem["loc"])
    kind = problem["type"]
    if kind in {"extra_forbidden", "unexpected_keyword_argument"}:
        known = _known_keys(problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"; did you mean '{close[0]}'?" if close else f"; known here: {', '.join(known)}"
        return f"unknown key '{key}'{hint}"
    if kind == "missing":
        return f"'{key}' is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key} is {_show(problem['input'])}: {message[0].lower()}{message[1:]}"


def _show(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _brief(error: Exception) -> str:
    return one_line(" ".join(str(error).split()))[:300]


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """List the keys that the section at ``location`` knows."""
    section: Any = Config
    for part in location:
        if isinstance(part, int):
            continue
        if part == "detector":
            section = DetectorSpec
            continue
        field = getattr(section, "model_fields", {}).get(part)
        if field is not None:
            # Of a list, what it holds.
            section = (*get_args(field.annotation), field.annotation)[0]
    fields = getattr(section, "model_fields", None) or getattr(section, "__dataclass_fields__", {})
    return sorted(name for name in fields if name != "folder")


def _apply(data: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    override = one_line(override if len(override) <= 80 else override[:77] + "...")
    if not sign or not key.strip():
        raise UsageError(f"--set {override}: write it as key.subkey=value, such as select.budget=60")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    except RecursionError:
        raise UsageError(f"--set {override}: nested too deeply") from None
    except ValueError as error:  # Python's limit for the digits of a number
        raise UsageError(f"--set {override}: {_brief(error)}") from None
    *parents, last = key.strip().split(".")
    target: Any = data
    for part in parents:
        if isinstance(target, list):
            target = target[_position(part, target, override)]
        elif isinstance(target, dict):
            target = target.setdefault(part, {})
    if isinstance(target, list):
        target[_position(last, target, override)] = value
    elif isinstance(target, dict):
        target[last] = value
    else:
        raise UsageError(f"--set {override}: '{one_line('.'.join(parents)[:80])}' holds a value, not keys")


def _position(part: str, target: list[Any], override: str) -> int:
    if not part.isdecimal() or len(part) > 9 or int(part) >= len(target):
        raise UsageError(
            f"--set {override}: '{one_line(part[:80])}' is not a position in a list of {len(target)}"
        )
    return int(part)


def schema() -> dict[str, Any]:
    """JSON schema of the file, for editors."""
    result = Config.model_json_schema()
    result["properties"].pop("folder")
    result["title"] = "mining config"
    return result


def shipped(name: str) -> Path:
    """Path of a config that ships with mining: ``demo.toml``, ``nightly.toml``, ``classes.toml``."""
    here = Path(__file__).parent
    # In a wheel the folder lies inside the package; in the source tree it lies beside it.
    return next(p for p in (here / "configs" / name, here.parent / "configs" / name) if p.exists())
