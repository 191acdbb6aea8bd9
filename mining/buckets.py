"""Objects of S3-compatible storage, by their URI ``s3://bucket/key``.

The endpoint comes from ``AWS_ENDPOINT_URL`` (else it is Amazon's), the region from ``AWS_REGION``, the credentials from the
environment, or from the machine's role. Requests that fail for a moment are tried again with growing pauses; what is left is a
``TemporaryError``. Needs ``obstore`` (``pip install 'mining[s3]'``).
"""

from __future__ import annotations

import errno
import functools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from mining import stop
from mining.types import TemporaryError, UsageError

if TYPE_CHECKING:
    from obstore.store import S3Store

SCHEME = "s3://"
RETRIES = 8
RETRY_FOR_S = 60.0
"""How long one request is tried: a restart of the service is outlived, and a job does not hang on one that is gone."""
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 8.0
_SILENT_FOR_S = 30.0
"""How long a service may say nothing; of a part of an upload, how long that may take."""
_AFTER_STOP_S = 3.0
"""How long a job that was told to stop still asks, to give back what it holds."""
_LOOK_EVERY_S = 0.1
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_STATUS = re.compile(r"non-2xx status code: (\d{3}[\w ]{0,40})")
_KIND = re.compile(r"kind: (Connect|Timeout)")
_WRONG_REGION = "incorrectly configured region"
_OF_ROLE = "//169.254."
"""Where a machine of Amazon's asks what it may do, when no key is set."""
_WRONG = {"NoSuchBucket": "no such bucket", "InvalidBucketName": "not a bucket's name"}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Object:
    """One object, as a listing tells of it."""

    uri: str
    size_bytes: int
    modified_s: float
    """Seconds since 1970 by the service's clock."""
    e_tag: str
    """Another content has another one."""


def is_uri(text: str) -> bool:
    """Tell whether a text names something in a bucket."""
    return text.startswith(SCHEME)


def check_uri(uri: str, setting: str) -> None:
    """Refuse a URI that is no place in a bucket; a path is let pass. The message names the ``setting`` and holds no secret."""
    if "://" not in uri:
        return
    try:
        url = urlsplit(uri)
    except ValueError:
        raise UsageError(f"{setting}: not a URI; give a folder, or s3://bucket/prefix") from None
    shown = f"{url.scheme}://{url.hostname or ''}{url.path}"
    if url.scheme != "s3" or not url.hostname:
        raise UsageError(f"{setting} {shown}: give a folder, or s3://bucket/prefix")
    if "@" in url.netloc or "secret_key" in url.query or "access_key" in url.query:
        raise UsageError(
            f"{setting} {shown}: credentials do not belong here; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def check_library() -> None:
    """Refuse, where the library for buckets is not installed, by one line."""
    _library()


def described(uri: str) -> Object:
    """Look at an object. FileNotFoundError where there is none."""
    client, key = _opened(uri)
    return _object(uri, _asked(uri, lambda: _library().head(client, key)))


def listed(prefix: str) -> Iterator[Object]:
    """Yield every object below ``prefix`` (taken for a folder), at any depth, in the order of their names."""
    client, key = _opened(prefix)
    base = prefix.rstrip("/").removesuffix(key) if key else prefix.rstrip("/") + "/"

    def found() -> list[Object]:
        return [
            _object(base + meta["path"], meta)
            for page in _library().list(client, prefix=key or None, chunk_size=1000)
            for meta in page
        ]

    yield from sorted(_asked(prefix, found), key=lambda one: one.uri)


def names(folder: str) -> tuple[list[str], list[str]]:
    """List what lies directly in a folder: names of folders, and names of objects. Nothing where there is no such folder."""
    client, key = _opened(folder)
    result = _asked(folder, lambda: _library().list_with_delimiter(client, prefix=key or None))
    return (
        sorted(prefix.rpartition("/")[2] for prefix in result["common_prefixes"]),
        sorted(meta["path"].rpartition("/")[2] for meta in result["objects"]),
    )


def read(uri: str) -> tuple[bytes, str]:
    """Read a small object whole: its bytes and its e_tag. FileNotFoundError where there is none."""
    client, key = _opened(uri)

    def got() -> tuple[bytes, str]:
        answer = _library().get(client, key)
        return bytes(answer.bytes()), str(answer.meta["e_tag"])

    return _asked(uri, got)


def read_small(
    uri: str, up_to_bytes: int, given_up: threading.Event | None = None
) -> tuple[Object, bytes | None]:
    """Look at an object and read it by the same request; None for the content of a larger one."""
    client, key = _opened(uri)

    def got() -> tuple[Object, bytes | None]:
        answer = _library().get(client, key)
        found = _object(uri, answer.meta)
        return found, bytes(answer.bytes()) if found.size_bytes <= up_to_bytes else None

    return _asked(uri, got, given_up)


def read_range(uri: str, start: int, end: int, e_tag: str, given_up: threading.Event | None = None) -> bytes:
    """Read bytes ``start`` up to ``end`` of an object; ``Changed`` where it is no longer the one with this e_tag."""
    client, key = _opened(uri)

    def got() -> bytes:
        options: Any = {"if_match": e_tag, "range": (start, end)}
        return bytes(_library().get(client, key, options=options).bytes())

    return _asked(uri, got, given_up)


def fetch(uri: str, to: Path, e_tag: str) -> None:
    """Write an object's content to a file, piece by piece.

    Raises:
        Changed: it is no longer the one with this e_tag.
        OSError: the file cannot be written.
    """
    client, key = _opened(uri)

    def fetched() -> None:
        # One that breaks off in the middle begins again: the service's own retries end where the answer begins.
        answer = _library().get(client, key, options={"if_match": e_tag})
        with to.open("wb") as file:
            for piece in answer.stream(min_chunk_size=8 << 20):
                file.write(piece)

    _asked(uri, fetched)


def put(uri: str, content: bytes | Path) -> None:
    """Write an object, over one that may be there. It is there wholly or not at all."""
    client, key = _opened(uri)
    _asked(uri, lambda: _library().put(client, key, content, max_concurrency=4))


def copy(uri: str, target: str) -> None:
    """Copy an object within its bucket, over one that may be there. FileNotFoundError where there is none."""
    client, key = _opened(uri)
    _, to = _opened(target)
    _asked(uri, lambda: _library().copy(client, key, to))


def create(uri: str, content: bytes) -> bool:
    """Write an object if there is none; tells whether it was this call that did.

    ``content`` must be this caller's alone: an answer that was lost on the way is told from another's object by it.
    """
    return _put_if(uri, content, "create")


def replace(uri: str, content: bytes, e_tag: str) -> bool:
    """Write an object over the one with this e_tag; False where there is another, or none, by now. See ``create``."""
    return _put_if(uri, content, {"e_tag": e_tag})


def delete(uri: str) -> None:
    """Delete an object; nothing happens where there is none."""
    client, key = _opened(uri)
    with suppress(FileNotFoundError):
        _asked(uri, lambda: _library().delete(client, key))


def delete_if(uri: str, is_mine: Callable[[bytes], bool]) -> None:
    """Delete an object whose content is one's own. Nobody else may write to it while it is."""
    client, key = _opened(uri, retries=0)  # a second try may find another's object there

    def tried() -> None:
        answer = _library().get(client, key)
        if is_mine(bytes(answer.bytes())):
            _library().delete(client, key)

    with suppress(FileNotFoundError):
        _asked(uri, tried)


class BadName(UsageError):
    """A listing holds an object that this library cannot name."""


class Changed(OSError):
    """An object is no longer the one that was asked for."""


def _put_if(uri: str, content: bytes, mode: Any) -> bool:
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    client, key = _opened(uri)

    def tried() -> bool:
        try:
            _library().put(client, key, content, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            with suppress(FileNotFoundError):
                answer = _library().get(client, key)
                return bytes(answer.bytes()) == content
            return False
        return True

    return _asked(uri, tried)


def _object(uri: str, meta: Any) -> Object:
    return Object(uri, meta["size"], meta["last_modified"].timestamp(), str(meta["e_tag"]))


def _opened(uri: str, retries: int = RETRIES) -> tuple[S3Store, str]:
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    return _client(bucket, os.getpid(), retries), key.strip("/")


@functools.lru_cache(maxsize=64)
def _client(bucket: str, _pid: int, retries: int) -> S3Store:
    """One client a bucket and process; what it finds in the environment stays."""
    _library()
    from obstore.store import S3Store

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and not re.match(r"https?://[\w.:\[\]-]+", endpoint):
        raise UsageError("AWS_ENDPOINT_URL: give a URL like https://storage.example.com:9000")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    where: Any = {"endpoint": endpoint} if endpoint else {}
    return S3Store(
        bucket,
        region=region,
        client_options={
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
            "connect_timeout": timedelta(seconds=10),
            "read_timeout": timedelta(seconds=_SILENT_FOR_S),
            "timeout": timedelta(days=1),  # of one request with its body, which may be a long recording
        },
        retry_config={
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=RETRY_FOR_S),
            "backoff": {
                "init_backoff": timedelta(seconds=_FIRST_PAUSE_S),
                "max_backoff": timedelta(seconds=_LONGEST_PAUSE_S),
                "base": 2,
            },
        },
        **where,
    )


def _library() -> Any:
    try:
        import obstore
    except ImportError:
        raise UsageError("s3:// needs a further library: pip install 'mining[s3]'") from None
    return obstore


def _asked(uri: str, request: Callable[[], _T], given_up: threading.Event | None = None) -> _T:
    """Make a request; what it may raise besides FileNotFoundError and what is told here is a programmer's mistake.

    It ends soon where the job is told to stop, or ``given_up`` is set.
    """
    import obstore.exceptions as kinds

    given_up = given_up or threading.Event()
    until, pause_s = time.monotonic() + RETRY_FOR_S, _FIRST_PAUSE_S
    while True:
        try:
            return _waited_for(request, uri, given_up)
        except kinds.PreconditionError:
            raise Changed(errno.ESTALE, "was written anew while it was read", uri) from None
        except (kinds.PermissionDeniedError, kinds.UnauthenticatedError) as error:
            raise UsageError(
                f"{uri}: refused ({_said(error)}); see AWS_ACCESS_KEY_ID and its rights"
            ) from None
        except FileNotFoundError as error:
            if error.errno is not None:
                raise  # of a local file
            if (code := _code(error)) in _WRONG:
                raise UsageError(f"{uri}: {_WRONG[code]}") from None
            raise FileNotFoundError(2, "no such object", uri) from None
        except kinds.InvalidPathError:
            raise BadName(
                f"{uri}: a name in it has an empty part, or `.` or `..` as one (`a//b`, `a/../b`); rename that object"
            ) from None
        except kinds.UnknownConfigurationKeyError as error:
            raise UsageError(f"{uri}: not usable: {_said(error)}") from None
        except (kinds.BaseError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of a local file
            if (code := _code(error)) in _WRONG:
                raise UsageError(f"{uri}: {_WRONG[code]}") from None
            if _is_final(error):
                raise UsageError(
                    f"{uri}: refused ({_said(error)}); see AWS_ENDPOINT_URL, AWS_REGION and AWS_ACCESS_KEY_ID"
                ) from None
            if time.monotonic() + pause_s > until:
                raise TemporaryError(f"{uri}: {_said(error)}; try again later") from None
        # The library tries again by itself, but not a body that breaks off, nor a write that may have been done.
        resume = time.monotonic() + pause_s
        while (left_s := resume - time.monotonic()) > 0:
            _check_on(uri, given_up)
            given_up.wait(min(left_s, _LOOK_EVERY_S))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _waited_for(request: Callable[[], _T], uri: str, given_up: threading.Event) -> _T:
    """Make a request in a thread and wait for it here: obstore's own code hears of no signal, however long it takes."""
    answer: Future[_T] = Future()

    def make() -> None:
        try:
            answer.set_result(request())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=make, name="storage", daemon=True).start()
    while not answer.done():
        _check_on(uri, given_up)
        wait([answer], timeout=_LOOK_EVERY_S)
    return answer.result()


def _check_on(uri: str, given_up: threading.Event) -> None:
    if given_up.is_set() or (stop.told_s() or 0.0) > _AFTER_STOP_S:
        raise TemporaryError(f"{uri}: the storage was no longer waited for")


def _code(error: BaseException) -> str:
    match = _CODE.search(str(error))
    return match[1] if match else ""


def _is_final(error: BaseException) -> bool:
    """Whether the next try would be refused as well: another region's bucket, an old key, a service that cannot do this."""
    status = _STATUS.search(str(error))
    if _OF_ROLE in str(error) or status is None:
        return _WRONG_REGION in str(error)
    return status[1][:3] in {"301", "400", "401", "403", "501"} and _code(error) != "RequestTimeout"


def _said(error: BaseException) -> str:
    """What the service said, in a few words: its own text may hold addresses and keys."""
    text = str(error)
    if _OF_ROLE in text:
        return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role"
    status = _STATUS.search(text)
    code = _code(error)
    if status or code:
        return " ".join(part for part in (status[1].strip() if status else "", code) if part)
    if _WRONG_REGION in text:
        return "another region"
    if kind := _KIND.search(text):
        return (
            "the storage cannot be reached" if kind[1] == "Connect" else "the storage did not answer in time"
        )
    return f"the request failed ({type(error).__name__})"
