"""Who is doing what: jobs that share a store take a lease on a piece of work, so that it is done once.

A lease is a small file, ``STORE/leases/NAME.json``, that says which job holds it. The job touches it as long as it lives. A
lease that was not touched for LASTS_S, or whose process is gone from this host, has lapsed: another job takes it over. In a
folder, file locks see to it that one job at a time looks and takes; in a bucket, conditional writes do: see ``bucket_leases``.

Leases spare work; they do not guard what is written. Two jobs that do the same piece, because one slept for an hour, commit
the same rows.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from mining.progress import LOG
from mining.types import MiningError, TemporaryError

LASTS_S = 120.0
_LOOK_EVERY_S = 0.5

Holder = dict[str, Any]
"""Of a lease: the job's number, its host, its process and when that began."""


class Board(Protocol):
    """Where leases are written down."""

    where: str
    """For messages: where the store lies."""

    def claim(self, name: str, me: Holder) -> bool:
        """Write a lease down as held by a job; False where another holds it. OSError where nothing can be written."""
        ...

    def keep(self, name: str, me: Holder) -> None:
        """Show that the job lives. OSError where that cannot be shown."""
        ...

    def release(self, name: str, me: Holder) -> None:
        """Take a lease of this job's away. OSError where that fails: it lapses."""
        ...

    def holder(self, name: str) -> Holder | None:
        """Who holds a lease that has not lapsed."""
        ...

    def assure(self, me: Holder) -> None:
        """``TemporaryError`` where this job has ``writing`` or ``alone`` no more."""
        ...

    def writing(self, leases: Leases) -> AbstractContextManager[None]:
        """Hold the store to write to it; ``TemporaryError`` where a job has it alone."""
        ...

    def alone(self, leases: Leases) -> AbstractContextManager[None]:
        """Hold the store alone; ``TemporaryError`` where another job holds it."""
        ...


class Leases:
    """The leases of one job."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._me = {
            "job": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "began": began(os.getpid()),
        }
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._beating: threading.Thread | None = None
        self._ended = threading.Event()

    def take(self, name: str) -> bool:
        """Take a lease; False where another job holds it.

        Raises:
            TemporaryError: the store cannot be written to.
        """
        name = file_name(name)
        try:
            if not self._board.claim(name, self._me):
                return False
        except OSError as error:
            raise TemporaryError(
                f"{self._board.where}: cannot write to the store: {error.strerror}"
            ) from None
        with self._lock:
            self._held.add(name)
            if self._beating is None:
                self._beating = threading.Thread(target=self._beat, name="leases", daemon=True)
                self._beating.start()
        return True

    def drop(self, name: str) -> None:
        """Give a lease back; nothing happens where this job does not hold it."""
        name = file_name(name)
        with self._lock:
            if name not in self._held:
                return
            self._held.discard(name)
        with suppress(OSError, MiningError):  # it lapses
            self._board.release(name, self._me)

    def drop_all(self) -> None:
        """Give back what this job still holds."""
        for name in sorted(self._held):
            self.drop(name)

    def holder(self, name: str) -> str | None:
        """Say who holds a lease that has not lapsed."""
        found = self._board.holder(file_name(name))
        return None if found is None else f"process {found.get('pid')} on {found.get('host')}"

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait for a lease and hold it: for work that is short, and that finds itself done when its turn comes."""
        said = False
        while not self.take(name):
            if not said:
                LOG.info("%s: waiting for another job (%s)", name, self.holder(name) or "just ended")
                said = True
            time.sleep(_LOOK_EVERY_S)
        try:
            yield
        finally:
            self.drop(name)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write to the store beside other jobs; what is left of the leases is given back at the end."""
        with self._board.writing(self):
            try:
                yield
            finally:
                self.drop_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the store alone."""
        with self._board.alone(self):
            yield

    def assure(self) -> None:
        """Make sure that this job still holds the store: where it slept, another may have had it ``alone`` meanwhile.

        Raises:
            TemporaryError: it does not.
        """
        self._board.assure(self._me)

    def _beat(self) -> None:
        while not self._ended.wait(LASTS_S / 6):
            with self._lock:
                held = sorted(self._held)
            for name in held:
                try:
                    self._board.keep(name, self._me)
                except (OSError, MiningError) as error:
                    with self._lock:
                        if name not in self._held:  # given back meanwhile
                            continue
                    LOG.warning(
                        "lease %s: cannot be kept: %s", name, getattr(error, "strerror", None) or error
                    )


class FolderBoard:
    """Leases in a folder that jobs share; file locks keep them apart."""

    def __init__(self, root: Path) -> None:
        self.where = str(root)
        self._root = root
        self._folder = root / "leases"

    def claim(self, name: str, me: Holder) -> bool:
        """See ``Board``."""
        with self._alone():
            if self.holder(name) is not None:
                return False
            self._path(name).write_text(json.dumps(me))
        return True

    def keep(self, name: str, me: Holder) -> None:
        """See ``Board``."""
        os.utime(self._path(name))

    def release(self, name: str, me: Holder) -> None:
        """See ``Board``."""
        with self._alone():
            if (_read(self._path(name)) or {}).get("job") == me["job"]:
                self._path(name).unlink()

    def holder(self, name: str) -> Holder | None:
        """See ``Board``."""
        found = _read(self._path(name))
        try:
            age_s = time.time() - self._path(name).stat().st_mtime
        except OSError:
            return None
        return None if found is None or has_lapsed(found, age_s) else found

    def assure(self, me: Holder) -> None:
        """See ``Board``. The lock lasts as long as the process."""

    def writing(self, leases: Leases) -> AbstractContextManager[None]:
        """See ``Board``."""
        return self._locked(fcntl.LOCK_SH, "is being tidied up or migrated by another job")

    def alone(self, leases: Leases) -> AbstractContextManager[None]:
        """See ``Board``."""
        return self._locked(fcntl.LOCK_EX, "another mining job is writing to it")

    @contextmanager
    def _locked(self, how: int, reason: str) -> Iterator[None]:
        try:
            file = (self._root / "lock").open("a")
        except OSError as error:
            raise TemporaryError(f"{self._root}: cannot write to the store: {error.strerror}") from None
        with file:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
            except OSError:
                raise TemporaryError(f"{self._root}: {reason}; try again later") from None
            yield

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """For the moment of looking at a lease and taking it."""
        self._folder.mkdir(exist_ok=True)
        with (self._folder / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def file_name(name: str) -> str:
    """Make a file's name of a lease's."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name)


def has_lapsed(found: Holder, age_s: float) -> bool:
    """Tell whether a lease holds no more that was kept so long ago."""
    if age_s > LASTS_S:
        return True
    pid = found.get("pid")
    here = found.get("host") == socket.gethostname() and found.get("machine") == _machine()
    if here and isinstance(pid, int):
        # Numbers of processes come round again; the time at which this one began does not.
        return began(pid) != found.get("began")
    return False


def _machine() -> str:
    """What numbers of processes count in: hosts and containers may bear one name. This host since it was started."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _read(path: Path) -> Holder | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def began(pid: int) -> str | None:
    """When a process began, in ticks since the host did, with the host's own number; None where there is none (any more)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _alive(pid)
    return None if fields[0] == "Z" else f"{boot} {fields[19]}"


def _alive(pid: int) -> str | None:
    """``_began`` where the system has no /proc: only whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
