"""Commands that look into a store and write nothing there: SQL, pages, clips, comparisons."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from mining.cli.base import (
    STORE,
    cli,
    config_option,
    json_option,
    load,
    nights_option,
    say,
    set_option,
    store_argument,
    store_named,
    stores_option,
)
from mining.places import Place
from mining.text import printable
from mining.types import UsageError, nights_of


@cli.command()
@click.argument("scene_ids", metavar="SCENE_ID...", nargs=-1, required=True)
@config_option
@set_option
@json_option
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

    config = load(config_path, overrides)
    store = Store(config.store_path)
    clips = export_clip.run(store, config, scene_ids, to, margin_s=margin_s, boxes=boxes, crf=crf)
    if as_json:
        click.echo(json.dumps([asdict(done) for done in clips]))
    for done in clips:
        if done.error is not None:
            say(f"error: {done.error}")
        elif not as_json:
            lost = f"; {done.lost} frames could not be decoded and are left out" if done.lost else ""
            click.echo(printable(f"{done.path}: {done.seconds:.1f} s, {done.frames} frames{lost}"))
    if any(done.error is not None for done in clips):
        raise click.exceptions.Exit(1)


@cli.command()
@click.argument("example", metavar="FRAME_ID|IMAGE")
@config_option
@set_option
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

    config = load(config_path, overrides)
    if looking.is_image(example):
        example = str(Path(example).absolute())  # people name files from where they stand
    found = looking.find(Store(config.store_path), config, example, count=count, where=where, gap_s=gap_s)
    if found.num_rows < count:
        say(f"{found.num_rows} of {count} frames: no more are eligible")
    write_table(found, output_format, None)


@cli.command()
@store_argument
@set_option
@json_option
def status(
    store_path: Place | None, config_path: str | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Show what each night holds: recordings, frames, failures, chosen and labelled frames.

    Example: mining status --config night.toml
    """
    from mining.store import Store, sql_file

    store = Store(store_named(store_path, config_path, overrides))
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


@cli.command()
@click.argument("query", required=False)
@stores_option
@nights_option
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
        say("stopped")
        raise click.exceptions.Exit(130) from None
    except BrokenPipeError:  # as in main; click would make exit code 1 of it
        sys.stderr.close()
        raise click.exceptions.Exit(0) from None


@cli.command()
@stores_option
@nights_option
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
@stores_option
@nights_option
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
@set_option
@json_option
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
    config = load(config_path, overrides)
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
@config_option
@set_option
@json_option
@click.option("--batch", "batch_id", help="With respect to this batch; the newest where none is named.")
def explain(
    frame_id: str, config_path: str, overrides: tuple[str, ...], as_json: bool, batch_id: str | None
) -> None:
    """Tell the whole story of a frame: what it is, why a batch holds it, or what it would have needed.

    Example: mining explain 0c1d2e3f405162738495-0000042 --config night.toml
    """
    from mining import explain as explaining
    from mining.store import Store

    config = load(config_path, overrides)
    story = explaining.explain(Store(config.store_path), config, frame_id, batch_id)
    click.echo(json.dumps(story.as_dict(), default=str) if as_json else printable(story.text()))


@cli.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@config_option
@set_option
@json_option
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

    config = load(config_path, overrides)
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
@json_option
def diff(batches: tuple[str, str], store_path: Place, as_json: bool) -> None:
    """Compare two batches: settings, arms, slices, drives, and the frames that only one holds.

    Example: mining diff 2026-03-14-1f2e3d 2026-03-15-4a5b6c --store store
    """
    from dataclasses import asdict

    from mining.compare import batches as comparing
    from mining.store import Store

    found = comparing.diff(Store(store_path), *batches)
    click.echo(json.dumps(asdict(found), default=str) if as_json else printable(found.text()))
