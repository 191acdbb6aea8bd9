"""Who is doing what: jobs that share a store take a lease on a piece of work, so that it is done once.

A lease is a small file, ``STORE/leases/NAME.json``, that says which job holds it. The job touches it as long as it lives. A
lease that was not touched for LASTS_S, or whose process is gone from this host, has lapsed: another job takes it over.

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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mining.progress import LOG
from mining.types import TemporaryError

LASTS_S = 120.0
_LOOK_EVERY_S = 0.5


class Leases:
    """The leases of one job."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._me = {
            "job": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "began": _began(os.getpid()),
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
        path = self._path(name)
        try:
            with self._alone():
                if _holder(path) is not None:
                    return False
                path.write_text(json.dumps(self._me))
        except OSError as error:
            raise TemporaryError(f"{path}: cannot write to the store: {error.strerror}") from None
        with self._lock:
            self._held.add(name)
            if self._beating is None:
                self._beating = threading.Thread(target=self._beat, name="leases", daemon=True)
                self._beating.start()
        return True

    def drop(self, name: str) -> None:
        """Give a lease back; nothing happens where this job does not hold it."""
        with self._lock:
            if name not in self._held:
                return
            self._held.discard(name)
        path = self._path(name)
        try:
            with self._alone():
                if (_read(path) or {}).get("job") == self._me["job"]:
                    path.unlink()
        except OSError:  # it lapses
            pass

    def drop_all(self) -> None:
        """Give back what this job still holds."""
        for name in sorted(self._held):
            self.drop(name)

    def holder(self, name: str) -> str | None:
        """Say who holds a lease that has not lapsed."""
        found = _holder(self._path(name))
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

    def _path(self, name: str) -> Path:
        return self._folder / f"{re.sub(r'[^A-Za-z0-9._+-]', '_', name)}.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """For the moment of looking at a lease and taking it."""
        self._folder.mkdir(exist_ok=True)
        with (self._folder / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _beat(self) -> None:
        while not self._ended.wait(LASTS_S / 6):
            with self._lock:
                held = sorted(self._held)
            for name in held:
                try:
                    os.utime(self._path(name))
                except OSError as error:
                    LOG.warning("lease %s: cannot be kept: %s", name, error.strerror)


def _holder(path: Path) -> dict[str, Any] | None:
    """Who holds a lease; None where nobody does, or it has lapsed."""
    found = _read(path)
    if found is None:
        return None
    try:
        if time.time() - path.stat().st_mtime > LASTS_S:
            return None
    except OSError:
        return None
    pid = found.get("pid")
    if found.get("host") == socket.gethostname() and isinstance(pid, int):
        # Numbers of processes come round again; the time at which this one began does not.
        return found if _began(pid) == found.get("began") else None
    return found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _began(pid: int) -> str | None:
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
