"""``mining review``: collects the batch, listens, says where, and serves until it is told to stop."""

from __future__ import annotations

import getpass
import ipaddress
import secrets
import socket
import threading
import webbrowser
from dataclasses import dataclass

from waitress.server import create_server

from mining.config import Config
from mining.progress import LOG
from mining.review.pictures import Pictures
from mining.review.server import BODY_BYTES, Access, make_app
from mining.review.session import Session, batch_to_review
from mining.review.sql_box import SqlBox
from mining.select_batch import other_stores
from mining.store import Store
from mining.types import MiningError, UsageError

_THREADS = 16
"""Some wait for pictures, one for SQL, one for a replacement; a browser opens six connections at most."""
_NAME_CHARACTERS = 100
_TOKEN_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Door:
    """Where the server listens, and to whom."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    token: str | None = None
    """Made anew where absent."""
    no_token: bool = False


def serve(
    config: Config, batch_id: str | None, reviewer: str | None, door: Door, *, open_browser: bool
) -> None:
    """Serve the review of a batch until Ctrl-C or SIGTERM, which pass through.

    Raises:
        UsageError: no such batch, no such address, or a door that would stand open.
    """
    token = _token(door)
    name = _reviewer(reviewer)
    store = Store(config.store_path)
    batch = batch_to_review(store, config, batch_id)
    LOG.info("review: collecting batch %s; the link comes when it is ready", batch.batch_id)
    session = Session(store, config, batch, name)
    pictures = Pictures(store, config)
    box = SqlBox([config.store_path, *(site.root for site in other_stores(config))])
    access = Access(token, _names(door.host), door.port)
    app = make_app(session, pictures, box, lambda: access)
    try:
        server = create_server(
            app, host=door.host, port=door.port, threads=_THREADS, max_request_body_size=BODY_BYTES, ident=None,
            max_request_header_size=16 << 10, channel_timeout=60, clear_untrusted_proxy_headers=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise UsageError(f"--host {door.host} --port {door.port}: cannot listen there: {error}") from None
    port = server.socket.getsockname()[1]
    access = Access(token, access.hosts, port)
    pictures.start(session.frame_ids)
    ended = threading.Event()
    threading.Thread(target=_prepare, args=(session, ended), name="replacements", daemon=True).start()
    serving = threading.Thread(target=server.run, name="review", daemon=True)
    serving.start()
    url = f"http://{_in_url(door.host)}:{port}/" + ("" if token is None else f"?token={token}")
    print(f"Review of batch {batch.batch_id} as {name}: {url}", flush=True)
    print("Ctrl-C ends it; every verdict is kept.", flush=True)
    if open_browser:
        webbrowser.open(url)
    try:
        while serving.is_alive():  # a wait without an end would not hear signals
            serving.join(0.5)
        raise MiningError("the web server ended by itself; start it again: every verdict is kept")
    finally:
        ended.set()
        pictures.end()
        server.close()
        server.task_dispatcher.shutdown(cancel_pending=True, timeout=5)
        session.end()


def _prepare(session: Session, ended: threading.Event) -> None:
    """Read the candidates before the first drop; what fails here fails again then, and is told to the reviewer."""
    try:
        session.prepare()
        said = "ready to replace what is dropped"
    except Exception as error:
        said = f"candidates for replacements cannot be read: {error}"
    if not ended.is_set():
        LOG.info("review: %s", said)


def _token(door: Door) -> str | None:
    if door.no_token:
        if door.token is not None:
            raise UsageError("give --token or --no-token, not both")
        if not _is_loopback(door.host):
            raise UsageError(
                f"--no-token with --host {door.host}: whoever reaches this machine could judge the batch and query the store; "
                "leave --no-token out, or bind to 127.0.0.1"
            )
        return None
    if door.token is not None and (
        len(door.token) < _TOKEN_CHARACTERS or not door.token.isascii() or not door.token.isalnum()
    ):
        raise UsageError(
            f"the token (--token, MINING_REVIEW_TOKEN) must be at least {_TOKEN_CHARACTERS} letters and digits"
        )
    return door.token or secrets.token_hex(24)


def _reviewer(name: str | None) -> str:
    if name is None:
        try:
            name = getpass.getuser()
        except (OSError, KeyError):
            raise UsageError("nobody is logged in here: give --reviewer NAME") from None
    name = name.strip()
    if not name or len(name) > _NAME_CHARACTERS or not name.isprintable():
        raise UsageError(f"--reviewer: 1 to {_NAME_CHARACTERS} printable characters")
    return name


def _names(host: str) -> frozenset[str]:
    """Names by which this server may be asked: its own."""
    names = {"localhost"}
    if not _is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        if not _is_address(host):
            names.add(host.lower())
    return frozenset(names)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _in_url(host: str) -> str:
    if host in {"0.0.0.0", "::"}:  # noqa: S104
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
