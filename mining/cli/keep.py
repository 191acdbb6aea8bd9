"""Commands that keep a store and its machine in order, and the demo."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mining.cli.base import (
    cli,
    json_option,
    load,
    say,
    set_option,
    show_problems,
    store_argument,
    store_named,
)
from mining.places import Place
from mining.text import printable
from mining.types import nights_of


@cli.command()
@store_argument
@json_option
def migrate(store_path: Place | None, config_path: str | None, as_json: bool) -> None:
    """Bring a store that an older mining wrote to the columns of this one.

    Recordings, batches and exports stay. Detections, scores and scenes whose columns have changed are due again: the next
    `mining run` makes them, from the footage.

    Example: mining migrate /data/store
    """
    from dataclasses import asdict

    from mining import migrate as migrating

    report = migrating.run(store_named(store_path, config_path))
    click.echo(json.dumps(asdict(report)) if as_json else printable(report.text()))


@cli.command()
@store_argument
@click.option(
    "--retract", is_flag=True, help="Take damaged shards back, so that the next run makes them again."
)
@json_option
def verify(store_path: Place | None, config_path: str | None, retract: bool, as_json: bool) -> None:
    """Read the whole store again: every file must be as it was committed. Exit code 1 where one is not.

    Example: mining verify /data/store --retract
    """
    from dataclasses import asdict

    from mining import housekeeping
    from mining.store import Store

    store = Store(store_named(store_path, config_path))
    shards, damage = housekeeping.verify(store)
    retracted = 0
    if retract and damage:
        with store.alone():
            retracted = housekeeping.retract(store, damage)
    if as_json:
        found = {"shards": shards, "damaged": [asdict(one) for one in damage], "retracted": retracted}
        click.echo(json.dumps(found, default=str))
    else:
        show_problems(list(dict.fromkeys(one.reason for one in damage)))  # a pack holds many shards
        click.echo(
            f"{shards} shards, {len({(d.stage, d.night, d.key) for d in damage})} damaged, {retracted} taken back"
        )
    for_people = [one for one in damage if not one.is_made_again]
    if len(for_people) < len(damage):
        say(
            "`mining run CONFIG.toml` makes them again"
            if retract
            else "--retract has the next run make them again"
        )
    if for_people and retract:
        say(
            f"{len(for_people)} hold what no run can make again (batches, reviews, exports, labels): bring them back from a copy"
        )
    if damage:
        raise click.exceptions.Exit(1)


@cli.command()
@store_argument
@click.option(
    "--committee", "committees", multiple=True, metavar="ID",
    help="Also take away the detections, scores and scenes of this committee; may be given again. Batches stay.",
)  # fmt: skip
@click.option(
    "--grace-h", default=24.0, show_default=True, type=click.FloatRange(0),
    help="Hours for which files stay that `mining compact` has replaced: longer than any reader is at them.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
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

    store = Store(store_named(store_path, config_path))
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
@store_argument
@click.option("--nights", metavar="A..B", help="Only these nights: 2026-03-01, or 2026-03-01..2026-03-14.")
@click.option(
    "--min-files", default=10, show_default=True, type=click.IntRange(2),
    help="Leave a night alone in which a stage has fewer small files.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would be put together.")
@json_option
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
        Store(store_named(store_path, config_path)), span, min_files=min_files, dry_run=dry_run
    )
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        show_problems(report.problems)
        click.echo(report.text())
    if report.problems:
        raise click.exceptions.Exit(1)


@cli.command("config")
@click.option(
    "--config", "-c", "config_path", help="Check this file and print it with every default filled in."
)
@set_option
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
@json_option
def doctor(config_path: str | None, as_json: bool) -> None:
    """Check this machine: libraries, devices, codecs; with a config also store, footage and detectors.

    Example: mining doctor --config night.toml
    """
    from dataclasses import asdict

    from mining.doctor import examine

    checks = list(examine(None if config_path is None else load(config_path, ())))
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
@json_option
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
