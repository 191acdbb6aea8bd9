"""The command line. Starts without torch, OpenCV or DuckDB: each command imports what it needs."""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import mining
from mining import places, stop
from mining.places import Place
from mining.progress import run_id
from mining.text import one_line, printable
from mining.types import MiningError, QueryError, TemporaryError, Terminated, UsageError, may_pass, nights_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mining.config import Config
    from mining.types import StageReport


class _StorePlace(click.ParamType):
    name = "store"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """Take a folder, or a place in a bucket."""
        return places.place(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "STORE"


STORE = _StorePlace()

# A shared library that OpenCV's wheel expects of the system -> the Debian package that brings it.
_DEBIAN_PACKAGES = {
    "libGL.so": "libgl1",
    "libgthread": "libglib2.0-0",
    "libglib": "libglib2.0-0",
    "libX11": "libx11-6",
    "libXau": "libxau6",
    "libxcb": "libxcb1",
}


def main() -> None:
    """Run the command line; every expected failure is one line on standard error.

    Exit codes: 0 done, 1 failed, 2 wrong use, 3 done but no batch or too many failed, 75 try again later, 130 and 143
    stopped by Ctrl-C and SIGTERM.
    """
    stop.listen()
    try:
        try:
            sys.exit(cli.main(standalone_mode=False) or 0)
        except Exception as error:
            if (told := _told(error)) is error:
                raise
            raise told from None
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt, Terminated):
        _say("stopped; what was committed stays, and the same command goes on from there")
        sys.exit(128 + (stop.seen() or signal.SIGINT))
    except QueryError as error:  # several lines: the message points into the query
        click.echo(printable(f"mining: error: {error}"), err=True)
        sys.exit(2)
    except UsageError as error:
        _say(f"error: {error}")
        sys.exit(2)
    except TemporaryError as error:
        _say(f"error: {error}")
        sys.exit(75)
    except MiningError as error:
        _say(f"error: {error}")
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing is wrong
        sys.exit(0)
    except OSError as error:
        if not may_pass(error):
            raise
        where = f"{error.filename}: " if error.filename else ""
        _say(
            f"error: {where}{error.strerror}; what was committed stays, and the same command goes on from there"
        )
        sys.exit(75)
    except ImportError as error:
        package = next((deb for lib, deb in _DEBIAN_PACKAGES.items() if lib in str(error)), None)
        if package is None:
            raise
        _say(f"error: a system library is missing ({error}); on Debian: apt-get install {package}")
        sys.exit(1)


def _told(error: Exception) -> BaseException:
    """What an error means, in the project's own words; itself where it has them, or is a fault in the code."""
    if isinstance(error, click.exceptions.Exit | click.ClickException | BrokenPipeError):
        return error
    from detectors.types import DetectorError

    if stop.seen() is not None:  # whatever was under way when the job was told to
        return Terminated()
    if isinstance(error, DetectorError):
        return MiningError(str(error))
    if "duckdb" in sys.modules:  # a file of the store that DuckDB opened only when it read the rows
        from mining.views import unreadable

        return unreadable(error) or error
    return error


def _say(text: str) -> None:
    """One line on standard error, through the log, so that JSON logs stay JSON."""
    log = logging.getLogger("mining")
    if log.handlers:
        log.error("%s", text)
    else:  # not set up yet: the command line itself is wrong
        click.echo(f"mining: {one_line(text)}", err=True)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "message": record.getMessage(),
            "run_id": run_id(),
        }
        return json.dumps(row, ensure_ascii=False)


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"mining: {one_line(record.getMessage())}"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(mining.__version__, prog_name="mining")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--quiet", "-q", is_flag=True, help="Say only what went wrong.")
def cli(log_format: str, quiet: bool) -> None:
    """Find the frames of recorded driving that are worth a labeler's time.

    Start with `mining demo`, then `mining run CONFIG.toml`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if log_format == "json" else _TextLines())
    log = logging.getLogger("mining")
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.INFO)


_config_option = click.option("--config", "-c", "config_path", required=True, help="The config file (TOML).")
_set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, such as select.budget=60."
)
_json_option = click.option(
    "--json", "as_json", is_flag=True, help="End in one JSON object on standard output."
)


def _store_argument(command: Callable[..., None]) -> Callable[..., None]:
    """Take the store as STORE, or from --config: for commands that are about a store as a whole."""
    named = click.option(
        "--config", "-c", "config_path", help="The config that names the store, in place of STORE."
    )
    return click.argument("store_path", metavar="[STORE]", required=False, type=STORE)(named(command))


def _store_named(store_path: Place | None, config_path: str | None, overrides: tuple[str, ...] = ()) -> Place:
    if (store_path is None) == (config_path is None):
        raise click.UsageError(
            "give the STORE, or --config FILE, which names it" + (", not both" if store_path else "")
        )
    return store_path or _load(config_path or "", overrides).store_path


@cli.command()
@click.argument("config_path", metavar="CONFIG.toml")
@_set_option
@click.option("--retry-failed", is_flag=True, help="Try again what could not be read, or not wholly, before.")
@_json_option
def run(config_path: str, overrides: tuple[str, ...], retry_failed: bool, as_json: bool) -> None:
    """Run the nightly job: index, detect, score, scenes, select, export.

    Only what is not committed yet is done; a second run has nothing to do and says so.

    Exit codes: 0 done, 1 failed, 2 wrong use or config, 3 done but no batch could be made or too many failed
    (run.max_failed_share), 75 try again later (no space, another job), 130 and 143 stopped.

    Example: mining run configs/nightly.toml --set select.budget=2000
    """
    from mining import pipeline

    night = pipeline.run_night(_load(config_path, overrides), retry_failed=retry_failed)
    if as_json:
        click.echo(json.dumps(night.as_dict(), default=str))
        raise click.exceptions.Exit(3 if night.batch_id is None or night.too_many_failed else 0)
    _show_problems(night.problems)
    if night.nothing_to_do:
        click.echo(f"Nothing to do: everything was mined before ({night.seconds:.1f} s).")
    if night.batch_id is None:
        click.echo("No batch was made.")
        raise click.exceptions.Exit(3)
    click.echo(f"Batch {printable(night.batch_id)}: {printable(night.batch_folder or '')}")
    if night.too_many_failed:
        _say(
            f"too many failed: {night.failed_recordings} of {night.recordings} recordings, {night.failed_frames} of "
            f"{night.frames} frames (run.max_failed_share); `mining status --config {config_path}` names them"
        )
        raise click.exceptions.Exit(3)


def _stage_command(name: str, text: str, example: str) -> None:
    """Add one stage as a command of its own."""

    @cli.command(name, help=f"{text}\n\nExample: {example}")
    @_config_option
    @_set_option
    @_json_option
    def command(config_path: str, overrides: tuple[str, ...], as_json: bool) -> None:
        from mining import pipeline

        _show_stage(pipeline.run_stage(name, _load(config_path, overrides)), as_json)


def _show_stage(report: StageReport, as_json: bool) -> None:
    from mining import pipeline

    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(report), default=str))
    else:
        _show_problems(report.problems)
        _show_summary(pipeline.one_line(report))


_stage_command("index", "List the recordings and the frames to look at.", "mining index --config night.toml")


@cli.command()
@_config_option
@_set_option
@_json_option
@click.option("--profile", is_flag=True, help="Say where the time went.")
def detect(config_path: str, overrides: tuple[str, ...], as_json: bool, profile: bool) -> None:
    """Run the committee over the frames.

    Example: mining detect --config night.toml --profile
    """
    from mining import pipeline

    report = pipeline.run_stage("detect", _load(config_path, overrides))
    _show_stage(report, as_json)
    if profile and not as_json:
        click.echo(printable(pipeline.where_time_went(report)))


_stage_command(
    "score", "Compute signals and hardness from the detections.", "mining score --config night.toml"
)
_stage_command("scenes", "Find runs of hard frames.", "mining scenes --config night.toml")


@cli.command()
@_config_option
@_set_option
@_json_option
@click.option(
    "--store", "stores", multiple=True, type=STORE,
    help="Another site's store, beside the config's other_stores, whose frames are candidates too; may be given again.",
)  # fmt: skip
def select(config_path: str, overrides: tuple[str, ...], as_json: bool, stores: tuple[Place, ...]) -> None:
    """Choose a batch. Exit code 2 where no frame could be chosen.

    Example: mining select --config night.toml --set select.budget=500
    """
    from mining import pipeline

    config = _load(config_path, overrides)
    if stores:
        others = [*config.select.other_stores, *(str(store.absolute()) for store in stores)]
        config = config.model_copy(
            update={"select": config.select.model_copy(update={"other_stores": others})}
        )
    report = pipeline.run_stage("select", config)
    _show_stage(report, as_json)
    if not (report.done or report.unchanged):
        raise click.exceptions.Exit(2)


@cli.command()
@_config_option
@_set_option
@_json_option
@click.option("--nights", metavar="A..B", help="Only these nights: 2026-03-01, or 2026-03-01..2026-03-14.")
@click.option("--drive", "drives", multiple=True, metavar="ID", help="Only this drive; may be given again.")
def calibrate(
    config_path: str, overrides: tuple[str, ...], as_json: bool, nights: str | None, drives: tuple[str, ...]
) -> None:
    """Make what percentiles are taken against from chosen drives.

    Percentiles of two nights or sites compare only against one reference, and the first scoring run took its own footage
    for it. Scores are due again afterwards.

    Example: mining calibrate --config night.toml --nights 2026-03-01..2026-03-14
    """
    from dataclasses import asdict

    from mining import calibrate as calibrating
    from mining.store import Store

    config = _load(config_path, overrides)
    report = calibrating.run(Store(config.store_path), config, nights, drives)
    click.echo(json.dumps(asdict(report), default=str) if as_json else printable(report.text()))


@cli.command()
@_config_option
@_set_option
@_json_option
@click.option("--batch", "batch_id", help="The batch; the newest where none is named.")
@click.option(
    "--chosen-in",
    type=click.Path(path_type=Path),
    help="The store that holds the batch, where another site chose it: this site's frames are written.",
)
@click.option(
    "--vendor", "vendors", multiple=True, metavar="NAME",
    help="A manifest to write, in place of export.vendors; may be given again.",
)  # fmt: skip
@click.option(
    "--to", metavar="DIR|s3://BUCKET/PREFIX", help="Where the batch's folder goes, in place of export.to."
)
def export(
    config_path: str,
    overrides: tuple[str, ...],
    as_json: bool,
    batch_id: str | None,
    chosen_in: Path | None,
    vendors: tuple[str, ...],
    to: str | None,
) -> None:
    """Write a batch's delivery: images, manifests, delivery.json, instructions.

    To a bucket, credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), another endpoint from
    AWS_ENDPOINT_URL; delivery.json comes last.

    Example: mining export --config night.toml --batch 2026-03-14-1f2e3d --vendor coco --to s3://labels/out
    """
    from dataclasses import asdict

    from mining import pipeline
    from mining.store import Store

    config = _load(config_path, overrides)
    changed: dict[str, object] = {}
    if vendors:
        changed["vendors"] = list(vendors)
    if to is not None:  # people name folders from where they stand
        changed["to"] = to if "://" in to else str(Path(to).absolute())
    if changed:
        config = config.model_copy(update={"export": config.export.model_copy(update=changed)})
    report, folder = pipeline.run_export(config, batch_id, None if chosen_in is None else Store(chosen_in))
    _show_problems(report.problems)
    if as_json:
        click.echo(json.dumps({**asdict(report), "folder": str(folder)}, default=str))
    else:
        _show_summary(pipeline.one_line(report))
        click.echo(printable(str(folder)))


@cli.command()
@click.argument("config_path", metavar="CONFIG.toml")
@_set_option
@click.option("--batch", "batch_id", help="The batch; the committee's newest where none is named.")
@click.option("--reviewer", metavar="NAME", help="Whose verdicts these are; the login name where absent.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@click.option(
    "--token", envvar="MINING_REVIEW_TOKEN", metavar="TOKEN",
    help="What the page's link must hold, 16 letters and digits or more; made anew where absent. MINING_REVIEW_TOKEN "
    "gives it without showing it in the list of processes.",
)  # fmt: skip
@click.option("--no-token", is_flag=True, help="Let in whoever reaches the port; on loopback only.")
@click.option(
    "--open/--no-open", "open_browser", default=False, help="Open the page in a browser.  [default: no-open]"
)
def review(
    config_path: str,
    overrides: tuple[str, ...],
    batch_id: str | None,
    reviewer: str | None,
    host: str,
    port: int,
    token: str | None,
    no_token: bool,
    open_browser: bool,
) -> None:
    """Serve a batch as a page on which people keep and drop frames before it is sent.

    Verdicts are rows of the table `reviews`; what is dropped is replaced by the next best frame, and `mining export` writes
    the batch as it stands. Listens on this machine only, unless --host says otherwise; whoever has the printed link may
    look and judge. Ctrl-C ends it. docs/review.md tells the rest.

    Example: mining review night.toml --reviewer ada --open
    """
    try:
        from mining.review.serve import Door, serve
    except ModuleNotFoundError as error:
        if error.name not in {"flask", "werkzeug", "waitress"}:
            raise
        raise UsageError(f"mining review needs {error.name}: pip install 'mining[review]'") from None
    door = Door(host, port, token, no_token)
    serve(_load(config_path, overrides), batch_id, reviewer, door, open_browser=open_browser)


@cli.command("import-labels")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@_config_option
@_set_option
@_json_option
@click.option("--batch", "batch_id", required=True, help="The batch that the labels are of.")
@click.option("--vendor", required=True, help="The format that they come in: coco, cvat, ...")
@click.option("--annotator", metavar="NAME", help="Whose labels these are, where the delivery names nobody.")
@click.option(
    "--add",
    is_flag=True,
    help="Put them beside the labels that stand for the same frames, as another annotator's, instead of in their place.",
)
@click.option("--accept-bad", is_flag=True, help="Take the good rows of a delivery that would be refused.")
@click.option("--dry-run", is_flag=True, help="Check the delivery, and take nothing in.")
def import_labels(
    files: tuple[Path, ...],
    config_path: str,
    overrides: tuple[str, ...],
    as_json: bool,
    batch_id: str,
    vendor: str,
    annotator: str | None,
    add: bool,
    accept_bad: bool,
    dry_run: bool,
) -> None:
    """Take in the labels that a vendor delivers for a batch: files, folders or zips.

    Everything is checked first, and a delivery with too many bad rows, or whose boxes lie beside the objects, is refused as a
    whole, with exit code 1. A newer delivery replaces an older one frame by frame. docs/labels.md tells the rest.

    Example: mining import-labels --config night.toml --batch 2026-03-14-1f2e3d --vendor cvat annotations.xml
    """
    from mining import import_labels as importing
    from mining import pipeline
    from mining.types import StageReport

    config = _load(config_path, overrides)
    try:
        report, found = pipeline.run_import(
            config,
            batch_id,
            vendor,
            files,
            annotator=annotator,
            add=add,
            accept_bad=accept_bad,
            dry_run=dry_run,
        )
    except importing.RefusedDelivery as error:
        for line in error.report.reject_lines():
            click.echo(one_line(line), err=True)
        if as_json:
            refused = StageReport("import", problems=[str(error)])
            click.echo(json.dumps(importing.as_dict(refused, error.report), default=str))
        raise
    _show_problems(report.problems)
    if as_json:
        click.echo(json.dumps(importing.as_dict(report, found), default=str))
    else:
        click.echo(printable(found.text() + ("\nnothing was taken in: --dry-run" if dry_run else "")))


@cli.command()
@_config_option
@_set_option
@_json_option
@click.option(
    "--batch",
    "batch_ids",
    multiple=True,
    help="Measure this batch; may be given again. Every batch with labels where none is named.",
)
def measure(config_path: str, overrides: tuple[str, ...], as_json: bool, batch_ids: tuple[str, ...]) -> None:
    """Measure labels against what the primary detector saw when the batch was chosen: did mining pay?

    Writes the table `yields` and prints a summary over the batches named: errors of the mined arm and of the random arm,
    the lift with its interval, by slice and by signal.

    Example: mining measure --config night.toml --batch 2026-03-14-1f2e3d
    """
    from dataclasses import asdict

    from mining import measure_text, pipeline

    config = _load(config_path, overrides)
    report, found = pipeline.run_measure(config, batch_ids)
    _show_problems(report.problems)
    if as_json:
        click.echo(json.dumps({**asdict(report), "summary": measure_text.as_dict(found)}, default=str))
    else:
        _show_summary(pipeline.one_line(report))
        click.echo(printable(measure_text.text(found)))


@cli.command()
@click.argument("scene_ids", metavar="SCENE_ID...", nargs=-1, required=True)
@_config_option
@_set_option
@_json_option
@click.option(
    "--to",
    default=".",
    type=click.Path(path_type=Path),
    help="FILE.mp4, or a folder that gets SCENE_ID.mp4 for each scene; this folder where absent.",
)
@click.option(
    "--margin-s",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0, 86400),
    help="Seconds before the first hard frame and after the last.",
)
@click.option("--boxes", is_flag=True, help="Draw what each detector saw, held until the next sampled frame.")
@click.option(
    "--crf",
    default=20,
    show_default=True,
    type=click.IntRange(1, 51),
    help="Quality of H.264 (x264's constant rate factor): 1 is the best.",
)
def clip(
    scene_ids: tuple[str, ...],
    config_path: str,
    overrides: tuple[str, ...],
    as_json: bool,
    to: Path,
    margin_s: float,
    boxes: bool,
    crf: int,
) -> None:
    """Write scenes as clips: MP4, H.264 (x264), every frame of the footage at its own time.

    A scene that lies in several files of a drive and camera becomes one clip. Ids are in the table `scenes`. Exit code 1
    where a scene could not be written: its footage is gone, or has changed since it was indexed.

    Example: mining clip 3f1c9a0b5d7e2468 --config night.toml --to crash.mp4 --boxes
    """
    from dataclasses import asdict

    from mining import export_clip
    from mining.store import Store

    config = _load(config_path, overrides)
    store = Store(config.store_path)
    clips = export_clip.run(store, config, scene_ids, to, margin_s=margin_s, boxes=boxes, crf=crf)
    if as_json:
        click.echo(json.dumps([asdict(done) for done in clips]))
    for done in clips:
        if done.error is not None:
            _say(f"error: {done.error}")
        elif not as_json:
            lost = f"; {done.lost} frames could not be decoded and are left out" if done.lost else ""
            click.echo(printable(f"{done.path}: {done.seconds:.1f} s, {done.frames} frames{lost}"))
    if any(done.error is not None for done in clips):
        raise click.exceptions.Exit(1)


@cli.command()
@click.argument("example", metavar="FRAME_ID|IMAGE")
@_config_option
@_set_option
@click.option("--count", "-n", default=20, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--where", default="true", help="Only frames for which this SQL condition over `mined` holds.")
@click.option(
    "--gap-s",
    type=click.FloatRange(0, 86400),
    help="Least time between two answers of one drive and camera; select.min_gap_s where absent, 0 for every frame.",
)
@click.option("--format", "output_format", type=click.Choice(["table", "csv", "json"]), default="table")
def similar(
    example: str,
    config_path: str,
    overrides: tuple[str, ...],
    count: int,
    where: str,
    gap_s: float | None,
    output_format: str,
) -> None:
    """Find the frames of all nights that look most like a frame, or like an image file.

    Near is by embedding: Euclidean distance of the L2-normalised embeddings of the config's first detector, 0 to 2, and
    their cosine. The frame itself and its own moment are left out, and of each other moment the nearest frame is shown.

    Example: mining similar deer.jpg --config night.toml -n 50 --where "luma_mean < 40"
    """
    from mining import similar as looking
    from mining.results import write_table
    from mining.store import Store

    config = _load(config_path, overrides)
    if looking.is_image(example):
        example = str(Path(example).absolute())  # people name files from where they stand
    found = looking.find(Store(config.store_path), config, example, count=count, where=where, gap_s=gap_s)
    if found.num_rows < count:
        _say(f"{found.num_rows} of {count} frames: no more are eligible")
    write_table(found, output_format, None)


@cli.command()
@_store_argument
@_set_option
@_json_option
def status(
    store_path: Place | None, config_path: str | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Show what each night holds: recordings, frames, failures, chosen and labelled frames.

    Example: mining status --config night.toml
    """
    from mining.store import Store, sql_file

    store = Store(_store_named(store_path, config_path, overrides))
    with store.connect() as con:
        nights = con.sql(sql_file("status")).to_arrow_table()
        broken = con.execute(sql_file("broken")).fetchall()
    if as_json:
        click.echo(json.dumps({"nights": nights.to_pylist(), "broken": broken}, default=str))
        return
    from mining.results import show

    show(nights)
    for uri, state, reason in broken:
        click.echo(printable(f"{state}: {uri}: {reason}"))


_stores_option = click.option(
    "--store", "store_paths", required=True, multiple=True, type=STORE,
    help="A store's folder; may be given again: the stores are read as one.",
)  # fmt: skip
_nights_option = click.option(
    "--nights",
    metavar="A..B",
    help="List and read only these nights of footage: 2026-03-01, or 2026-03-01..2026-03-14. Batches are seen whole.",
)


@cli.command()
@click.argument("query", required=False)
@_stores_option
@_nights_option
@click.option("--file", "-f", "file", type=click.Path(path_type=Path), help="Read the query from this file.")
@click.option(
    "--param",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="A value for $NAME in the query; may be given again.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    help="What --output ends in (.csv, .json, .parquet) where absent, else a table for the screen.",
)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write here, not to the screen."
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up after this long.",
)
def sql(
    query: str | None,
    store_paths: tuple[Place, ...],
    nights: str | None,
    file: Path | None,
    parameters: tuple[str, ...],
    output_format: str | None,
    output: Path | None,
    timeout_s: float | None,
) -> None:
    """Ask the store in DuckDB's SQL; it can only read.

    QUERY is one statement; `-` reads it from standard input. Without one, on a terminal, statements are asked for one
    after another.

    Views: recordings, frames, observations, detections, tracks, scores, scenes, selections, exports; mined (a frame with
    everything that is known of it); labels, truth (the labels that stand), second_look (those worth one), yields.

    Macros: at_night(mined), has_class(mined, 'animal'), near(mined, 59.91, 10.75, 200), distance_m(lat, lon, lat, lon).

    Example: mining sql "SELECT frame_id, hardness FROM mined ORDER BY hardness DESC LIMIT 10" --store demo/store
    """
    from functools import partial

    from mining import ask, results

    asked = partial(
        ask.asked, store_paths, parameters=dict(map(ask.parameter, parameters)),
        nights=None if nights is None else nights_of(nights), timeout_s=timeout_s,
    )  # fmt: skip

    def answer(text: str, output_format: str = "table", output: Path | None = None) -> None:
        with asked(text) as rows:
            results.write(rows, output_format, output)

    if query is not None and file is not None:
        raise click.UsageError("give a QUERY or --file, not both")
    if output is not None and output_format in (None, "table"):
        # A table for the screen leaves rows out, and nobody looks for that in a file.
        output_format = output.suffix.lower().removeprefix(".")
        if output_format not in {"csv", "json", "parquet"}:
            raise click.UsageError(f"--output {output}: give --format csv, json or parquet")
    if file is not None:
        text = ask.text_of(file)
    elif query == "-":
        text = sys.stdin.read()
    elif query is not None:
        text = query
    elif sys.stdin.isatty():
        from mining import prompt

        prompt.run(answer)
        return
    else:
        raise click.UsageError("give a QUERY, --file FILE, or `-` to read it from standard input")
    try:
        answer(text, output_format or "table", output)
    except KeyboardInterrupt:
        _say("stopped")
        raise click.exceptions.Exit(130) from None
    except BrokenPipeError:  # as in main; click would make exit code 1 of it
        sys.stderr.close()
        raise click.exceptions.Exit(0) from None


@cli.command()
@_stores_option
@_nights_option
def views(store_paths: tuple[Place, ...], nights: str | None) -> None:
    """Print the views and macros as SQL that any DuckDB client runs.

    They list the files that are committed now, by absolute path: print them again after the next night.

    Example: mining views --store demo/store > mining.sql && duckdb -init mining.sql
    """
    from mining.store import Store
    from mining.views import script

    stores = [Store(path) for path in store_paths]
    click.echo(script(stores, nights=None if nights is None else nights_of(nights)), nl=False)


@cli.command()
@_stores_option
@_nights_option
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="The DuckDB file; it is replaced where it is there.",
)
def database(store_paths: tuple[Place, ...], nights: str | None, output: Path) -> None:
    """Copy the tables into one DuckDB file, for BI tools; DuckDB 1.0 and newer read it.

    Example: mining database --store demo/store --output lake.duckdb --nights 2026-03-01..2026-03-31
    """
    from mining.store import Store
    from mining.views import save_database

    stores = [Store(path) for path in store_paths]
    rows = save_database(stores, output, nights=None if nights is None else nights_of(nights))
    click.echo(
        printable(f"{output}: " + ", ".join(f"{count} {table}" for table, count in rows.items() if count))
    )


@cli.command()
@click.argument("config_path", metavar="CONFIG.toml")
@_set_option
@_json_option
@click.option("--night", metavar="DATE", help="The page of this night: 2026-03-14.")
@click.option(
    "--batch", "batch_id", help="The page of this batch; the committee's newest where neither is named."
)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False),
    help="The HTML file; BATCH.html or NIGHT.html in this folder where absent. It is replaced where it is there.",
)  # fmt: skip
def report(
    config_path: str,
    overrides: tuple[str, ...],
    as_json: bool,
    night: str | None,
    batch_id: str | None,
    output: Path | None,
) -> None:
    """Write the night, or a batch, as one HTML file: what was recorded, mined, chosen and failed, with every picture.

    The file needs no network and opens from a mail attachment: under 10 MB for 500 frames. docs/report.md tells what it shows.

    Example: mining report night.toml --night 2026-03-14 --output night.html
    """
    from dataclasses import asdict

    from mining.report import write
    from mining.store import Store

    if night is not None and batch_id is not None:
        raise click.UsageError("give --night or --batch, not both")
    if night is not None and ".." in night:
        raise UsageError(f"--night {night}: name one night, such as 2026-03-14")
    config = _load(config_path, overrides)
    day = None if night is None else nights_of(night)[0]
    written = write.run(Store(config.store_path), config, output, night=day, batch_id=batch_id)
    if as_json:
        click.echo(json.dumps(asdict(written)))
        return
    lost = f", {written.without_picture} of them without a picture" if written.without_picture else ""
    what = f"{written.title}, frames: {written.frames}{lost}"
    click.echo(printable(f"{written.path}: {what}, {written.size_bytes / 1e6:.1f} MB"))


@cli.command()
@click.argument("frame_id")
@_config_option
@_set_option
@_json_option
@click.option("--batch", "batch_id", help="With respect to this batch; the newest where none is named.")
def explain(
    frame_id: str, config_path: str, overrides: tuple[str, ...], as_json: bool, batch_id: str | None
) -> None:
    """Tell the whole story of a frame: what it is, why a batch holds it, or what it would have needed.

    Example: mining explain 0c1d2e3f405162738495-0000042 --config night.toml
    """
    from mining import explain as explaining
    from mining.store import Store

    config = _load(config_path, overrides)
    story = explaining.explain(Store(config.store_path), config, frame_id, batch_id)
    click.echo(json.dumps(story.as_dict(), default=str) if as_json else printable(story.text()))


@cli.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@_config_option
@_set_option
@_json_option
@click.option(
    "--by", multiple=True, metavar="NAME|EXPRESSION",
    help="What makes the slices: light, camera, vehicle, hours, 'tag NAME', 'quota NAME', or SQL over `mined`; may be given "
    "again. Light, camera, quotas and tags of few values where absent.",
)  # fmt: skip
@click.option("--nights", metavar="A..B", help="Of two committees: only frames of these nights.")
@click.option(
    "--top", default=10, show_default=True, type=click.IntRange(0, 10_000),
    help="Of two committees: frames to name in each direction.",
)  # fmt: skip
def compare(
    before: str,
    after: str,
    config_path: str,
    overrides: tuple[str, ...],
    as_json: bool,
    by: tuple[str, ...],
    nights: str | None,
    top: int,
) -> None:
    """Compare two nights, or two committees on the same footage: what got harder, what got easier?

    A and B are nights (2026-03-14, or 2026-03-01..2026-03-07), seen by the config's committee; or two committees of its store:
    their ids, or enough of the beginning or the end of each. What is more than noise is marked: docs/operations.md.

    Example: mining compare 2026-03-13 2026-03-14 --config night.toml
    """
    from mining.compare import committees, text
    from mining.compare import nights as of_nights
    from mining.store import Store

    config = _load(config_path, overrides)
    store = Store(config.store_path)
    one, other = spans = of_nights.span_of(before), of_nights.span_of(after)
    found: of_nights.NightComparison | committees.CommitteeComparison
    if one is not None and other is not None:
        if nights is not None:
            raise click.UsageError(
                "--nights narrows a comparison of committees; two nights are named already"
            )
        found = of_nights.compare(store, config, one, other, by)
    elif spans != (None, None):
        raise UsageError(f"{before} and {after}: name two nights, or two committees")
    else:
        only = None if nights is None else nights_of(nights)
        found = committees.compare(store, config, before, after, nights=only, by=by, top=top)
    click.echo(json.dumps(text.as_dict(found), default=str) if as_json else printable(text.text(found)))


@cli.command()
@click.argument("batches", nargs=2, metavar="BATCH BATCH")
@click.option(
    "--store", "store_path", required=True, type=STORE, help="The store's folder, or s3://bucket/prefix."
)
@_json_option
def diff(batches: tuple[str, str], store_path: Place, as_json: bool) -> None:
    """Compare two batches: settings, arms, slices, drives, and the frames that only one holds.

    Example: mining diff 2026-03-14-1f2e3d 2026-03-15-4a5b6c --store store
    """
    from dataclasses import asdict

    from mining.compare import batches as comparing
    from mining.store import Store

    found = comparing.diff(Store(store_path), *batches)
    click.echo(json.dumps(asdict(found), default=str) if as_json else printable(found.text()))


@cli.command()
@_store_argument
@_json_option
def migrate(store_path: Place | None, config_path: str | None, as_json: bool) -> None:
    """Bring a store that an older mining wrote to the columns of this one.

    Recordings, batches and exports stay. Detections, scores and scenes whose columns have changed are due again: the next
    `mining run` makes them, from the footage.

    Example: mining migrate /data/store
    """
    from dataclasses import asdict

    from mining import migrate as migrating

    report = migrating.run(_store_named(store_path, config_path))
    click.echo(json.dumps(asdict(report)) if as_json else printable(report.text()))


@cli.command()
@_store_argument
@click.option(
    "--retract", is_flag=True, help="Take damaged shards back, so that the next run makes them again."
)
@_json_option
def verify(store_path: Place | None, config_path: str | None, retract: bool, as_json: bool) -> None:
    """Read the whole store again: every file must be as it was committed. Exit code 1 where one is not.

    Example: mining verify /data/store --retract
    """
    from dataclasses import asdict

    from mining import housekeeping
    from mining.store import Store

    store = Store(_store_named(store_path, config_path))
    shards, damage = housekeeping.verify(store)
    retracted = 0
    if retract and damage:
        with store.alone():
            retracted = housekeeping.retract(store, damage)
    if as_json:
        found = {"shards": shards, "damaged": [asdict(one) for one in damage], "retracted": retracted}
        click.echo(json.dumps(found, default=str))
    else:
        _show_problems(list(dict.fromkeys(one.reason for one in damage)))  # a pack holds many shards
        click.echo(
            f"{shards} shards, {len({(d.stage, d.night, d.key) for d in damage})} damaged, {retracted} taken back"
        )
    for_people = [one for one in damage if not one.is_made_again]
    if len(for_people) < len(damage):
        _say(
            "`mining run CONFIG.toml` makes them again"
            if retract
            else "--retract has the next run make them again"
        )
    if for_people and retract:
        _say(
            f"{len(for_people)} hold what no run can make again (batches, reviews, exports, labels): bring them back from a copy"
        )
    if damage:
        raise click.exceptions.Exit(1)


@cli.command()
@_store_argument
@click.option(
    "--committee", "committees", multiple=True, metavar="ID",
    help="Also take away the detections, scores and scenes of this committee; may be given again. Batches stay.",
)  # fmt: skip
@click.option(
    "--grace-h", default=24.0, show_default=True, type=click.FloatRange(0),
    help="Hours for which files stay that `mining compact` has replaced: longer than any reader is at them.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@_json_option
def gc(
    store_path: Place | None,
    config_path: str | None,
    committees: tuple[str, ...],
    grace_h: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take away what nobody reads: files of killed jobs, of commits taken back, replaced by packs; committees on request.

    Rows of a committee that lie in packs with those of others take up their space until `mining compact` runs next.

    Example: mining gc /data/store --dry-run
    """
    from mining import housekeeping
    from mining.store import Store

    store = Store(_store_named(store_path, config_path))
    with store.alone():
        found = housekeeping.garbage(store, committees, grace_h)
        if not dry_run:
            housekeeping.collect(store, found)
    if as_json:
        counts = {
            "files": len(found.files),
            "shards": len(found.shards),
            "size_bytes": found.size_bytes,
            "waiting": found.waiting,
            "dry_run": dry_run,
        }
        click.echo(json.dumps(counts))
        return
    click.echo(
        f"{'Would free' if dry_run else 'Freed'} {found.size_bytes / 1e6:.1f} MB: {len(found.files)} files without a commit "
        f"or replaced, {len(found.shards)} shards of committees"
        + (f"; {found.waiting} more were replaced less than {grace_h:g} h ago" if found.waiting else "")
    )


@cli.command()
@_store_argument
@click.option("--nights", metavar="A..B", help="Only these nights: 2026-03-01, or 2026-03-01..2026-03-14.")
@click.option(
    "--min-files", default=10, show_default=True, type=click.IntRange(2),
    help="Leave a night alone in which a stage has fewer small files.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would be put together.")
@_json_option
def compact(
    store_path: Place | None,
    config_path: str | None,
    nights: str | None,
    min_files: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put the small files of each night together, so that queries open few files.

    Readers notice nothing: the old files stay until `mining gc` takes them away, a day later. No job may be writing
    meanwhile. Exit code 1 where a file is damaged; it is left out, and `mining verify --retract` mends it.

    Example: mining compact /data/store --nights 2026-03-01..2026-03-14
    """
    from dataclasses import asdict

    from mining import compact as compacting
    from mining.store import Store

    span = None if nights is None else nights_of(nights)
    report = compacting.run(
        Store(_store_named(store_path, config_path)), span, min_files=min_files, dry_run=dry_run
    )
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        _show_problems(report.problems)
        click.echo(report.text())
    if report.problems:
        raise click.exceptions.Exit(1)


@cli.command("config")
@click.option(
    "--config", "-c", "config_path", help="Check this file and print it with every default filled in."
)
@_set_option
@click.option("--schema", is_flag=True, help="Print the JSON schema, for editors.")
def config_command(config_path: str | None, overrides: tuple[str, ...], schema: bool) -> None:
    """Check a config file, or print the schema of all of them.

    Example: mining config --schema > mining.schema.json
    """
    from mining import config

    if schema:
        click.echo(json.dumps(config.schema(), indent=2))
    elif config_path:
        click.echo(config.load(config_path, overrides).model_dump_json(indent=2))
    else:
        raise click.UsageError("give --config FILE or --schema")


@cli.command()
@click.option("--config", "-c", "config_path", help="Check this config's store, footage and detectors too.")
@_json_option
def doctor(config_path: str | None, as_json: bool) -> None:
    """Check this machine: libraries, devices, codecs; with a config also store, footage and detectors.

    Example: mining doctor --config night.toml
    """
    from dataclasses import asdict

    from mining.doctor import examine

    checks = list(examine(None if config_path is None else _load(config_path, ())))
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks]))
    else:
        for check in checks:
            click.echo(printable(f"{'ok  ' if check.ok else 'FAIL'}  {check.what}: {check.found}"))
    if not all(check.ok for check in checks):
        raise click.exceptions.Exit(1)


@cli.command()
@click.argument("folder", default="demo", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", default=7, show_default=True, help="Another seed makes other drives.")
@_json_option
def demo(folder: Path, seed: int, as_json: bool) -> None:
    """Make drives with known truth in FOLDER, mine them, and say what the batch caught.

    Example: mining demo
    """
    from mining.run_demo import run_demo

    result = run_demo(folder, seed)
    if as_json:
        click.echo(json.dumps(result.as_dict(), default=str))
    else:
        click.echo(result.text())


def _load(config_path: str, overrides: tuple[str, ...]) -> Config:
    from mining import config

    return config.load(config_path, overrides)


def _show_summary(line: str) -> None:
    """Print what a stage did, unless its log has just said so on the same terminal."""
    logged = sys.stderr.isatty() and logging.getLogger("mining").isEnabledFor(logging.INFO)
    if not (logged and sys.stdout.isatty()):
        click.echo(printable(line))


def _show_problems(problems: list[str]) -> None:
    shown = 20
    for problem in problems[:shown]:
        _say(problem)
    if len(problems) > shown:
        _say(f"... and {len(problems) - shown} more; `mining status` and the tables list them all")
