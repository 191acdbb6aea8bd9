"""A page's data -> one HTML file that needs nothing else: styles, scripts and pictures are in it."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

# In the order in which they run. Chart.js is the library; all else is this project's own.
_SCRIPTS = ("chart.js", "base.js", "plots.js", "frames.js", "large.js")
_REVIEW_SCRIPTS = ("review.js", "sql.js")
_LAST_SCRIPT = "keys.js"
_STYLE = "page.css"


def render(data: dict[str, Any]) -> str:
    """Make the page.

    Args:
        data: as ``mining.report.data.collect`` gives it; ``mode`` is "report" or "review".

    Returns:
        The HTML. Text from outside is escaped by the template, and the scripts bring it in as text only.
    """
    summary, batch = data["summary"], data["summary"]["batch"] or {}
    counts = ("unreadable", "partial", "failed_frames")
    return _environment().get_template("page.html").render(
        page=data,
        data=_json(data),
        style=_static(_STYLE),
        scripts=[_static(name) for name in scripts(data["mode"])],
        policy=policy(data["mode"]),
        failed=sum(summary[name] for name in counts) + batch.get("not_delivered", 0),
        lost_pictures=[frame for frame in data["frames"] if frame["image_error"]],
    )  # fmt: skip


def scripts(mode: str) -> tuple[str, ...]:
    """Names of the scripts that a page runs, in order."""
    return (*_SCRIPTS, *(_REVIEW_SCRIPTS if mode == "review" else ()), _LAST_SCRIPT)


def policy(mode: str) -> str:
    """Content-Security-Policy of the page: only its own scripts run, by their hashes, and nothing is fetched.

    In review mode the page's own server may be asked.
    """
    sources = "data: 'self'" if mode == "review" else "data:"
    connect = "'self'" if mode == "review" else "'none'"
    allowed = " ".join(_hash(_static(name)) for name in scripts(mode))
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(_static(_STYLE))}; img-src {sources}; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mining.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=_number, counted=_counted, duration=_duration, size=_size, share=_share, when=_when
    )
    return environment


@cache
def _static(name: str) -> str:
    return (resources.files("mining.report") / "static" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: dict[str, Any]) -> str:
    """Write JSON that can stand in a script element: no text in it can end that, or begin a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _number(value: int) -> str:
    return f"{value:,}"


def _counted(value: int, what: str) -> str:
    return f"{value:,} {what}{'' if value == 1 else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _when(text: str) -> str:
    """A time in ISO 8601, to the minute."""
    return f"{text[:10]} {text[11:16]} UTC"
