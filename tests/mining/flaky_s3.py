"""A local S3 (moto's) that fails now and then, as services do: for tests of whatever lies in a bucket, and for tools/chaos.py.

with flaky_s3(rate=0.05, seed=3) as s3:
    s3.make_bucket("fleet")
    os.environ.update(s3.environment)      # or hand it to a process that is started
    ...
    s3.rate = 1.0                          # nothing works for a while
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

FAULTS = ("500", "503", "reset", "lost", "cut")
"""``500``, ``503``: says so and does nothing. ``reset``: the connection ends before anything is done. ``lost``: the request is
done, and the connection ends before the answer. ``cut``: the answer breaks off half-way. Not by itself: ``hang``: nothing
comes until ``released`` is set."""
_ANSWER = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>Try again.</Message></Error>'
)
_STATUS = {"500": ("500 Internal Server Error", "InternalError"), "503": ("503 Slow Down", "SlowDown")}


class FlakyS3:
    """The service; what may be set, may be set at any time."""

    def __init__(self, application: Application, rate: float, seed: int, faults: Iterable[str]) -> None:
        self.rate = rate
        """Share of the requests that fail, 0 to 1."""
        self.only: Callable[[str, str], bool] = lambda method, path: True
        """Which requests may fail at all, by method and path (``/bucket/key``)."""
        self.faults = tuple(faults)
        self.requests: Counter[str] = Counter()
        """By method."""
        self.failed: Counter[str] = Counter()
        """By fault."""
        self.bytes_out: Counter[str] = Counter()
        """Of bodies that were sent in answer to GET, by path."""
        self.released = threading.Event()
        self.url = ""
        self._application = application
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables by which a client finds the service."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "hunter2",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        self._ask("PUT", f"/{name}")

    def _ask(self, method: str, path: str) -> None:
        before, self.rate = self.rate, 0.0
        try:
            urllib.request.urlopen(urllib.request.Request(self.url + path, method=method)).close()
        finally:
            self.rate = before

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request, or fail."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            self.requests[method] += 1
            fault = None
            if self._random.random() < self.rate and self.only(method, path):
                fault = self._random.choice(self.faults)
                self.failed[fault] += 1
        if fault in _STATUS:
            return _says(fault, environ, start_response)
        if fault == "hang":
            self.released.wait()
        if fault in {"reset", "hang"}:
            return _hang_up(environ)
        # One request at a time: a conditional write must be one step, and moto's is not.
        with self._lock:
            body = b"".join(self._application(environ, start_response))
        if fault == "lost":
            return _hang_up(environ)
        if fault == "cut" and len(body) > 1:
            return _half(environ, body)
        if method == "GET":
            with self._lock:
                self.bytes_out[path] += len(body)
        return [body]


def _says(fault: str, environ: dict[str, Any], start_response: Any) -> list[bytes]:
    status, code = _STATUS[fault]
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response(status, [("Content-Type", "application/xml")])
    return [_ANSWER.format(code=code).encode()]


def _hang_up(environ: dict[str, Any]) -> Iterator[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("as asked")


def _half(environ: dict[str, Any], body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    _hang_up(environ)


@contextmanager
def flaky_s3(rate: float = 0.0, seed: int = 0, faults: Iterable[str] = FAULTS) -> Iterator[FlakyS3]:
    """Serve until the block ends. The process's moto is empty after it."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    class Quiet(MotoRequestHandler):
        def log(self, *_what: Any) -> None:
            pass

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    service = FlakyS3(DomainDispatcherApplication(create_backend_app), rate, seed, faults)
    server = make_server("127.0.0.1", 0, service, threaded=True, request_handler=Quiet)  # type: ignore[arg-type]
    server.daemon_threads = True  # type: ignore[attr-defined]
    host, port = server.server_address[:2]
    service.url = f"http://{host!s}:{port}"
    thread = threading.Thread(target=server.serve_forever, name="s3", daemon=True)
    thread.start()
    try:
        yield service
        service._ask("POST", "/moto-api/reset")
    finally:
        service.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
