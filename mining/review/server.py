"""The review's web server: the page, its pictures, and the API that its script calls. Nothing else of the host is served.

Who may ask: whoever has the token (``Access``), from the page itself. A browser that is tricked into asking for another site
sends a Host that is none of ours (DNS rebinding), or lacks the header that only our script sends (cross-site requests).
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from mining.progress import LOG
from mining.report.page import policy, render
from mining.review.pictures import WIDTH_PX, Pictures
from mining.review.session import REASON_CHARACTERS, NoSuchFrame, Session
from mining.review.sql_box import SqlBox
from mining.text import one_line
from mining.types import MiningError, TemporaryError

BODY_BYTES = 64 << 10
_OURS = "X-Mining"
_MESSAGE = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask."""

    token: str | None
    """None lets everybody in who reaches the port."""
    hosts: frozenset[str]
    """Names that the server may be asked by; addresses always may be. No name of these can be another site's."""
    port: int

    @property
    def cookie(self) -> str:
        """Cookies know no ports: two reviews on one machine must not throw each other's out."""
        return f"mining_review_{self.port}"

    def is_own_host(self, host: str) -> bool:
        """Whether a request's Host is this server: by an address, or by a name that is known, and by its port."""
        match = re.fullmatch(
            r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})",
            host if ":" in host.rpartition("]")[2] else f"{host}:80",
        )
        if match is None or int(match[2]) != self.port:
            return False
        name = match[1].strip("[]").lower()
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.rstrip(".") in self.hosts
        return True

    def is_token(self, given: str | None) -> bool:
        """Whether this is the token; takes as long whatever is wrong with it."""
        if self.token is None:
            return True
        return given is not None and hmac.compare_digest(
            given.encode("utf-8", "replace"), self.token.encode()
        )


def make_app(session: Session, pictures: Pictures, box: SqlBox, access: Callable[[], Access]) -> Flask:
    """Make the WSGI application.

    Args:
        session: the review.
        pictures: of its frames.
        box: answers SQL.
        access: who may ask; called at each request, for the port is known only when the server listens.
    """
    app = Flask("mining.review", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]

    @app.before_request
    def admit() -> Response | None:
        known = access()
        if not known.is_own_host(request.headers.get("Host", "")):
            return _error(421, "this server is not asked by that name")
        by_link = request.args.get("token") if request.path == "/" else None
        if not (known.is_token(request.cookies.get(known.cookie)) or known.is_token(by_link)):
            if request.path == "/":
                return Response(
                    "Open the link that `mining review` printed: it holds the token.\n",
                    401,
                    content_type=_MESSAGE,
                )
            return _error(401, "no token: open the link that `mining review` printed")
        if request.method == "POST" and request.headers.get(_OURS) != "1":
            return _error(403, f"a POST needs the header {_OURS}: 1")
        return None

    @app.after_request
    def guard(response: Response) -> Response:
        headers = response.headers
        headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        headers.setdefault("Cache-Control", "no-store")
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        return response

    @app.get("/")
    def page() -> Response:
        response = Response(render(session.page()), content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = f"{policy('review')}; frame-ancestors 'none'"
        known = access()
        if known.token is not None:
            # The page is served at once: behind a redirect a browser that came from a link elsewhere would not send it.
            response.set_cookie(known.cookie, known.token, httponly=True, samesite="Strict", path="/")
        return response

    @app.get("/image/<frame_id>")
    def image(frame_id: str) -> Response:
        size = request.args.get("size", "thumb")
        if size not in WIDTH_PX:
            return _error(400, f"size: one of {', '.join(WIDTH_PX)}")
        if not session.holds(frame_id):
            return _error(404, "no frame of this review is called so")
        try:
            content = pictures.get(frame_id, size)
        except MiningError as error:
            return _error(404, str(error))
        return Response(
            content, content_type="image/webp", headers={"Cache-Control": "private, max-age=3600"}
        )

    @app.get("/api/frames")
    def frames() -> Response:
        found = session.frames()
        for card in found["frames"]:
            card["image_error"] = pictures.error(card["frame_id"])
        return _answer(found)

    @app.get("/api/verdicts")
    def verdicts() -> Response:
        since = request.args.get("since", "0")
        if not re.fullmatch(r"\d{1,9}", since):
            return _error(400, "since: a version that this server gave")
        return _answer(session.verdicts(int(since)))

    @app.post("/api/verdicts")
    def judge() -> Response:
        asked = _body()
        frame_id = _text(asked, "frame_id", 300)
        if frame_id is None:
            raise _BadRequest("frame_id is missing")
        reason = _text(asked, "reason", REASON_CHARACTERS)
        return _answer(
            session.judge(frame_id, _text(asked, "verdict", 20), (reason and reason.strip()) or None)
        )

    @app.post("/api/undo")
    def undo() -> Response:
        return _answer(session.undo())

    @app.post("/api/sql")
    def sql() -> Response:
        text = _text(_body(), "sql", BODY_BYTES)
        if text is None or not text.strip():
            raise _BadRequest("sql is missing")
        return Response(box.answer(text), content_type="application/json")

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return _error(error.code or 500, error.description or error.name)
        if isinstance(error, NoSuchFrame):
            return _error(404, str(error))
        if isinstance(error, TemporaryError):
            return _error(503, str(error))
        if isinstance(error, MiningError):
            return _error(400, str(error))
        # Of a fault in the code the terminal tells where it lies; a path never shows the token.
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        LOG.error("%s %s: %s", request.method, one_line(request.path), one_line(what))
        return _error(500, f"this failed within mining ({type(error).__name__}); the terminal says more")

    return app


class _BadRequest(MiningError):
    """What came is not what the API takes."""


def _body() -> dict[str, Any]:
    """The request's JSON object."""
    try:
        asked = json.loads(request.get_data(cache=False))
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise _BadRequest("send a JSON object")
    return asked


def _text(asked: dict[str, Any], name: str, most: int) -> str | None:
    """One text of it; None where it is absent or null."""
    value = asked.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not _is_text(value):
        raise _BadRequest(f"{name} must be text")
    if len(value) > most:
        raise _BadRequest(f"{name} has {len(value)} characters; at most {most}")
    return value


def _is_text(value: str) -> bool:
    """Whether it can be written down: half a surrogate pair is no text."""
    try:
        return bool(value.encode()) or not value
    except UnicodeEncodeError:
        return False


def _answer(found: dict[str, Any]) -> Response:
    return Response(
        json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False),
        content_type="application/json",
    )


def _error(code: int, text: str) -> Response:
    return Response(json.dumps({"error": text}), code, content_type="application/json")
