"""Write the reference pages from the code: docs/commands.md and docs/tables.md.

python tools/make_docs.py            write them
python tools/make_docs.py --check    exit 1 where they are out of date
"""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path

import click

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that it describes this tree, not an installed one

from mining.cli import cli
from mining.schemas import SIGNALS, TABLES
from mining.views import VIEW_DOCS, sql_type

DOCS = Path(__file__).resolve().parents[1] / "docs"
_SOURCE = "<!-- Written by tools/make_docs.py from the code; edit the code instead. -->\n\n"


def commands() -> str:
    """Every command with its help, as the terminal shows it."""
    parts = [_SOURCE, "# Commands\n\nEach also answers `--help`.\n"]
    # As the program runs: click keeps the help option that a command was first shown with.
    settings = {**cli.context_settings, "max_content_width": 100, "terminal_width": 100}
    context = click.Context(cli, info_name="mining", **settings)
    parts.append(f"\n```text\n{cli.get_help(context)}\n```\n")
    for name, command in sorted(cli.commands.items()):
        inner = click.Context(
            command, info_name=name, parent=context, max_content_width=100, terminal_width=100
        )
        parts.append(f"\n## mining {name}\n\n```text\n{command.get_help(inner)}\n```\n")
    return "".join(parts)


def tables() -> str:
    """Every table with its columns."""
    parts = [
        _SOURCE,
        "# Tables\n\nParquet under `STORE/tables/TABLE/night=YYYY-MM-DD/`. `night` is the partition and a column of "
        "every view. Read them through the views (`mining sql`, `mining views`): not every file there counts, and after "
        "`mining compact` one file holds many recordings. A value that was not computed is NULL. Boxes are in pixels of the source frame.\n\n"
        "The view `mined` joins `frames` with recording, scores and observations, and adds `chosen` and `exported`. "
        "[cookbook.md](cookbook.md) asks these tables twenty questions.\n",
    ]
    for name, schema in TABLES.items():
        parts.append(
            f"\n## {name}\n\nOne row is {VIEW_DOCS[name]}.\n\n| column | type | what |\n|---|---|---|\n"
        )
        folded = {f"{signal}_pct" for signal, _ in SIGNALS}
        for field in schema:
            if field.name in folded:
                continue
            doc = field.metadata[b"doc"].decode()
            parts.append(f"| {field.name} | {sql_type(field.type)} | {doc} |\n")
        if folded & set(schema.names):
            parts.append(
                "| (signal)_pct | FLOAT | share of reference frames below this frame's signal, ties half |\n"
            )
    return "".join(parts)


PAGES = {"commands.md": commands, "tables.md": tables}


def main() -> None:
    parser = argparse.ArgumentParser(description=inspect.cleandoc(__doc__ or ""))
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not options.check:
                path.write_text(text)
    if options.check and stale:
        sys.exit(f"out of date: {', '.join(stale)}; run python tools/make_docs.py")
    print("written: " + ", ".join(stale) if stale else "up to date")


if __name__ == "__main__":
    main()
