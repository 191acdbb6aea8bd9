"""Commands of the night: `run`, and its stages one by one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from mining.cli.base import (
    STORE,
    cli,
    config_option,
    json_option,
    load,
    say,
    set_option,
    show_problems,
    show_summary,
)
from mining.places import Place
from mining.text import printable

if TYPE_CHECKING:
    from mining.types import StageReport


@cli.command()
@click.argument("config_path", metavar="CONFIG.toml")
@set_option
@click.option("--retry-failed", is_flag=True, help="Try again what could not be read, or not wholly, before.")
@json_option
def run(config_path: str, overrides: tuple[str, ...], retry_failed: bool, as_json: bool) -> None:
    """Run the nightly job: index, detect, score, scenes, select, export.

    Only what is not committed yet is done; a second run has nothing to do and says so.

    Exit codes: 0 done, 1 failed, 2 wrong use or config, 3 done but no batch could be made or too many failed
    (run.max_failed_share), 75 try again later (no space, another job), 130 and 143 stopped.

    Example: mining run configs/nightly.toml --set select.budget=2000
    """
    from mining import pipeline

    night = pipeline.run_night(load(config_path, overrides), retry_failed=retry_failed)
    if as_json:
        click.echo(json.dumps(night.as_dict(), default=str))
        raise click.exceptions.Exit(3 if night.batch_id is None or night.too_many_failed else 0)
    show_problems(night.problems)
    if night.nothing_to_do:
        click.echo(f"Nothing to do: everything was mined before ({night.seconds:.1f} s).")
    if night.batch_id is None:
        click.echo("No batch was made.")
        raise click.exceptions.Exit(3)
    click.echo(f"Batch {printable(night.batch_id)}: {printable(night.batch_folder or '')}")
    if night.too_many_failed:
        say(
            f"too many failed: {night.failed_recordings} of {night.recordings} recordings, {night.failed_frames} of "
            f"{night.frames} frames (run.max_failed_share); `mining status --config {config_path}` names them"
        )
        raise click.exceptions.Exit(3)


def _stage_command(name: str, text: str, example: str) -> None:
    """Add one stage as a command of its own."""

    @cli.command(name, help=f"{text}\n\nExample: {example}")
    @config_option
    @set_option
    @json_option
    def command(config_path: str, overrides: tuple[str, ...], as_json: bool) -> None:
        from mining import pipeline

        _show_stage(pipeline.run_stage(name, load(config_path, overrides)), as_json)


def _show_stage(report: StageReport, as_json: bool) -> None:
    from mining import pipeline

    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(report), default=str))
    else:
        show_problems(report.problems)
        show_summary(pipeline.one_line(report))


_stage_command("index", "List the recordings and the frames to look at.", "mining index --config night.toml")


@cli.command()
@config_option
@set_option
@json_option
@click.option("--profile", is_flag=True, help="Say where the time went.")
def detect(config_path: str, overrides: tuple[str, ...], as_json: bool, profile: bool) -> None:
    """Run the committee over the frames.

    Example: mining detect --config night.toml --profile
    """
    from mining import pipeline

    report = pipeline.run_stage("detect", load(config_path, overrides))
    _show_stage(report, as_json)
    if profile and not as_json:
        click.echo(printable(pipeline.where_time_went(report)))


_stage_command(
    "score", "Compute signals and hardness from the detections.", "mining score --config night.toml"
)
_stage_command("scenes", "Find runs of hard frames.", "mining scenes --config night.toml")


@cli.command()
@config_option
@set_option
@json_option
@click.option(
    "--store", "stores", multiple=True, type=STORE,
    help="Another site's store, beside the config's other_stores, whose frames are candidates too; may be given again.",
)  # fmt: skip
def select(config_path: str, overrides: tuple[str, ...], as_json: bool, stores: tuple[Place, ...]) -> None:
    """Choose a batch. Exit code 2 where no frame could be chosen.

    Example: mining select --config night.toml --set select.budget=500
    """
    from mining import pipeline

    config = load(config_path, overrides)
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
@config_option
@set_option
@json_option
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

    config = load(config_path, overrides)
    report = calibrating.run(Store(config.store_path), config, nights, drives)
    click.echo(json.dumps(asdict(report), default=str) if as_json else printable(report.text()))
