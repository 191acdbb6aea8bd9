"""A page's data -> one HTML file that needs nothing else: styles, scripts and pictures are in it."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

SCRIPTS = ("chart.js", "page.js")
"""In the order in which they run."""


def render(data: dict[str, Any]) -> str:
    """Make the page.

    Args:
        data: as ``mining.report.data.collect`` gives it; ``mode`` is "report" or "review".

    Returns:
        The HTML. Text from outside is escaped by the template, and the scripts bring it in as text only.
    """
    environment = Environment(
        loader=PackageLoader("mining.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        page=data,
        data=Markup(_json(data)),
        styles=[Markup(_static("page.css"))],
        scripts=[Markup(_static(name)) for name in SCRIPTS],
        policy=policy(data["mode"]),
    )


def policy(mode: str) -> str:
    """Content-Security-Policy of the page: only its own scripts run, by their hashes, and nothing is fetched.

    In review mode the page's own server may be asked.
    """
    sources = "data: 'self'" if mode == "review" else "data:"
    connect = "'self'" if mode == "review" else "'none'"
    scripts = " ".join(_hash(_static(name)) for name in SCRIPTS)
    return (
        f"default-src 'none'; script-src {scripts}; style-src {_hash(_static('page.css'))}; img-src {sources}; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


@cache
def _static(name: str) -> str:
    return (resources.files("mining.report") / "static" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: dict[str, Any]) -> str:
    """Write JSON that can stand in a script element: no text in it can end that, or begin a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
