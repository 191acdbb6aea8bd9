"""What all commands share: exit codes, the log, options, and how a stage is told of."""

from __future__ import annotations

import json
import logging
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

import mining
from mining import places, stop
from mining.places import Place
from mining.progress import run_id
from mining.text import one_line, printable
from mining.types import MiningError, QueryError, TemporaryError, Terminated, UsageError, may_pass

if TYPE_CHECKING:
    from collections.abc import Callable

    from mining.config import Config


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
        say("stopped; what was committed stays, and the same command goes on from there")
        sys.exit(128 + (stop.seen() or signal.SIGINT))
    except QueryError as error:  # several lines: the message points into the query
        click.echo(printable(f"mining: error: {error}"), err=True)
        sys.exit(2)
    except UsageError as error:
        say(f"error: {error}")
        sys.exit(2)
    except TemporaryError as error:
        say(f"error: {error}")
        sys.exit(75)
    except MiningError as error:
        say(f"error: {error}")
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing is wrong
        sys.exit(0)
    except OSError as error:
        if not may_pass(error):
            raise
        where = f"{error.filename}: " if error.filename else ""
        say(
            f"error: {where}{error.strerror}; what was committed stays, and the same command goes on from there"
        )
        sys.exit(75)
    except ImportError as error:
        package = next((deb for lib, deb in _DEBIAN_PACKAGES.items() if lib in str(error)), None)
        if package is None:
            raise
        say(f"error: a system library is missing ({error}); on Debian: apt-get install {package}")
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


def say(text: str) -> None:
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


config_option = click.option("--config", "-c", "config_path", required=True, help="The config file (TOML).")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, such as select.budget=60."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="End in one JSON object on standard output."
)


def store_argument(command: Callable[..., None]) -> Callable[..., None]:
    """Take the store as STORE, or from --config: for commands that are about a store as a whole."""
    named = click.option(
        "--config", "-c", "config_path", help="The config that names the store, in place of STORE."
    )
    return click.argument("store_path", metavar="[STORE]", required=False, type=STORE)(named(command))


def store_named(store_path: Place | None, config_path: str | None, overrides: tuple[str, ...] = ()) -> Place:
    """Give the store that ``store_argument`` was given."""
    if (store_path is None) == (config_path is None):
        raise click.UsageError(
            "give the STORE, or --config FILE, which names it" + (", not both" if store_path else "")
        )
    return store_path or load(config_path or "", overrides).store_path


stores_option = click.option(
    "--store", "store_paths", required=True, multiple=True, type=STORE,
    help="A store's folder; may be given again: the stores are read as one.",
)  # fmt: skip
nights_option = click.option(
    "--nights",
    metavar="A..B",
    help="List and read only these nights of footage: 2026-03-01, or 2026-03-01..2026-03-14. Batches are seen whole.",
)


def load(config_path: str, overrides: tuple[str, ...]) -> Config:
    """Read a config, with the keys of --set in place of its own."""
    from mining import config

    return config.load(config_path, overrides)


def show_summary(line: str) -> None:
    """Print what a stage did, unless its log has just said so on the same terminal."""
    logged = sys.stderr.isatty() and logging.getLogger("mining").isEnabledFor(logging.INFO)
    if not (logged and sys.stdout.isatty()):
        click.echo(printable(line))


def show_problems(problems: list[str]) -> None:
    """Say what went wrong, a line each; of many the first."""
    shown = 20
    for problem in problems[:shown]:
        say(problem)
    if len(problems) > shown:
        say(f"... and {len(problems) - shown} more; `mining status` and the tables list them all")
