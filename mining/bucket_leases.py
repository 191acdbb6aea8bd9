"""Leases in a bucket. There are no locks there; what there is, is that of two writes with a condition one is refused.

A lease is taken by creating its object, or by writing over one that has lapsed as it was seen. A job that writes to the store
holds the lease ``job-ID``, one that has it alone holds ``alone``: each writes its own down first and looks for the other's
then, so that of two at the same time one sees the other at least. Times are the service's, never this host's.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mining import buckets
from mining.lease import LASTS_S, Holder, has_lapsed
from mining.types import TemporaryError

if TYPE_CHECKING:
    from mining.lease import Leases
    from mining.places import BucketPath

_ALONE = "alone"
_JOB = "job-"


class BucketBoard:
    """Leases as objects ``STORE/leases/NAME.json``; conditional writes keep jobs apart."""

    def __init__(self, root: BucketPath) -> None:
        self.where = str(root)
        self._folder = f"{root}/leases"
        self._kept_at: dict[str, float] = {}
        """When each lease of this job's was last written, by this host's clock."""
        self._hold: str | None = None
        """The lease by which this job has the store, alone or beside others."""

    def claim(self, name: str, me: Holder) -> bool:
        """See ``lease.Board``."""
        uri = self._uri(name)
        content = self._content(me)
        if not buckets.create(uri, content):
            try:
                before, e_tag = buckets.read(uri)
                age_s = self._age_s(uri)
            except FileNotFoundError:  # given back just now: whoever looks again may have it
                return False
            if not has_lapsed(_parsed(before), age_s) or not buckets.replace(uri, content, e_tag):
                return False
        self._kept_at[name] = time.time()
        return True

    def keep(self, name: str, me: Holder) -> None:
        """See ``lease.Board``."""
        uri = self._uri(name)
        before, e_tag = buckets.read(uri)
        content = self._content(me)
        if _parsed(before).get("job") != me["job"] or not buckets.replace(uri, content, e_tag):
            raise OSError(5, "another job has taken it over", uri)
        self._kept_at[name] = time.time()

    def release(self, name: str, me: Holder) -> None:
        """See ``lease.Board``."""
        # One that nobody can take over while this is done. Else it lapses.
        if self._is_fresh(name):
            buckets.delete_if(self._uri(name), lambda content: _parsed(content).get("job") == me["job"])
        del self._kept_at[name]

    def holder(self, name: str) -> Holder | None:
        """See ``lease.Board``."""
        uri = self._uri(name)
        try:
            found = _parsed(buckets.read(uri)[0])
            return None if has_lapsed(found, self._age_s(uri)) else found
        except FileNotFoundError:
            return None

    def assure(self, me: Holder) -> None:
        """See ``lease.Board``."""
        if self._hold is None or self._is_fresh(self._hold):
            return
        try:
            self.keep(self._hold, me)
        except OSError:
            raise TemporaryError(
                f"{self.where}: this job slept, and another may have had the store meanwhile; what was committed stays, and "
                "the same command goes on from there"
            ) from None

    def _is_fresh(self, name: str) -> bool:
        """Whether a lease was kept so lately that nobody can take it over soon."""
        return abs(time.time() - self._kept_at[name]) < LASTS_S / 2

    @contextmanager
    def writing(self, leases: Leases) -> Iterator[None]:
        """See ``lease.Board``."""
        mine = f"{_JOB}{uuid.uuid4().hex}"
        leases.take(mine)
        try:
            if self.holder(_ALONE) is not None:
                raise TemporaryError(
                    f"{self.where}: is being tidied up or migrated by another job; try again later"
                )
            self._hold = mine
            yield
        finally:
            self._hold = None
            leases.drop(mine)

    @contextmanager
    def alone(self, leases: Leases) -> Iterator[None]:
        """See ``lease.Board``."""
        if not leases.take(_ALONE):
            raise TemporaryError(
                f"{self.where}: is being tidied up or migrated by another job; try again later"
            )
        try:
            for name in buckets.names(self._folder)[1]:
                job = name.removesuffix(".json")
                if job.startswith(_JOB) and self.holder(job) is not None:
                    raise TemporaryError(
                        f"{self.where}: another mining job is writing to it; try again later"
                    )
                if job.startswith(_JOB):
                    buckets.delete(self._uri(job))
            self._hold = _ALONE
            yield
        finally:
            self._hold = None
            leases.drop(_ALONE)

    def _uri(self, name: str) -> str:
        return f"{self._folder}/{name}.json"

    @staticmethod
    def _content(me: Holder) -> bytes:
        """Never the same twice: so each write gives another e_tag, and is known again by who wrote it."""
        return json.dumps({**me, "written": uuid.uuid4().hex}).encode()

    def _age_s(self, uri: str) -> float:
        """How long ago a lease was written, by the service's clock: it is asked what time it is by a write."""
        written_s = buckets.described(uri).modified_s
        clock = f"{self._folder}/.clock"
        buckets.put(clock, b"")
        with suppress(FileNotFoundError):
            return buckets.described(clock).modified_s - written_s
        return 0.0


def _parsed(content: bytes) -> Holder:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
