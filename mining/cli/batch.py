"""Commands of a batch: its review, its way to the annotators and back, and what it was worth."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mining.cli.base import cli, config_option, json_option, load, set_option, show_problems, show_summary
from mining.text import one_line, printable
from mining.types import UsageError


@cli.command()
@config_option
@set_option
@json_option
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

    config = load(config_path, overrides)
    changed: dict[str, object] = {}
    if vendors:
        changed["vendors"] = list(vendors)
    if to is not None:  # people name folders from where they stand
        changed["to"] = to if "://" in to else str(Path(to).absolute())
    if changed:
        config = config.model_copy(update={"export": config.export.model_copy(update=changed)})
    report, folder = pipeline.run_export(config, batch_id, None if chosen_in is None else Store(chosen_in))
    show_problems(report.problems)
    if as_json:
        click.echo(json.dumps({**asdict(report), "folder": str(folder)}, default=str))
    else:
        show_summary(pipeline.one_line(report))
        click.echo(printable(str(folder)))


@cli.command()
@click.argument("config_path", metavar="CONFIG.toml")
@set_option
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
    serve(load(config_path, overrides), batch_id, reviewer, door, open_browser=open_browser)


@cli.command("import-labels")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@config_option
@set_option
@json_option
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

    config = load(config_path, overrides)
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
    show_problems(report.problems)
    if as_json:
        click.echo(json.dumps(importing.as_dict(report, found), default=str))
    else:
        click.echo(printable(found.text() + ("\nnothing was taken in: --dry-run" if dry_run else "")))


@cli.command()
@config_option
@set_option
@json_option
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

    config = load(config_path, overrides)
    report, found = pipeline.run_measure(config, batch_ids)
    show_problems(report.problems)
    if as_json:
        click.echo(json.dumps({**asdict(report), "summary": measure_text.as_dict(found)}, default=str))
    else:
        show_summary(pipeline.one_line(report))
        click.echo(printable(measure_text.text(found)))
