"""The pictures of a review: decoded once in a thread of their own, the ones that somebody waits for first, kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Condition, Thread

from mining.config import Config
from mining.progress import LOG
from mining.report.pictures import encoded
from mining.store import Store
from mining.types import MiningError

WIDTH_PX = {"thumb": 480, "large": 1920}
HELD_BYTES = 512 << 20
"""What is kept in memory; beyond it the pictures that were asked for longest ago are decoded again when they are wanted."""
_AT_ONCE = 32
"""Frames that are decoded in one go: of each recording in one pass, and few enough that who waits has a turn soon."""
_WAIT_S = 60.0

Wish = tuple[str, str]
"""frame_id and size."""


class Pictures:
    """Pictures of frames by size, as WebP."""

    def __init__(self, store: Store, config: Config, held_bytes: int = HELD_BYTES) -> None:
        self._store, self._config, self._held_bytes = store, config, held_bytes
        self._changed = Condition()
        self._held: OrderedDict[Wish, bytes] = OrderedDict()
        self._bytes = 0
        self._errors: dict[str, str] = {}
        self._asked: dict[Wish, None] = {}
        self._ahead: dict[Wish, None] = {}
        self._ended = False
        self._thread = Thread(target=self._work, name="pictures", daemon=True)

    def start(self, frame_ids: Sequence[str]) -> None:
        """Begin to make the small pictures of these frames, in this order."""
        self._ahead = {(name, "thumb"): None for name in frame_ids}
        self._thread.start()

    def end(self) -> None:
        """Make no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def get(self, frame_id: str, size: str) -> bytes:
        """Wait for a picture of a frame that is known to belong to the review.

        Raises:
            MiningError: it cannot be had, and why.
        """
        wish = (frame_id, size)
        with self._changed:
            if wish not in self._held and frame_id not in self._errors:
                self._asked[wish] = None
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: wish in self._held or frame_id in self._errors or self._ended, _WAIT_S
                )
            if wish in self._held:
                self._held.move_to_end(wish)
                return self._held[wish]
            raise MiningError(self._errors.get(frame_id, "the picture is not ready yet; ask again"))

    def error(self, frame_id: str) -> str | None:
        """Why a frame has no picture; None where it has one, or nobody has tried yet."""
        return self._errors.get(frame_id)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked or self._ahead or self._ended)
                if self._ended:
                    return
                source = self._asked or self._ahead
                size = next(iter(source))[1]
                wishes = [wish for wish in source if wish[1] == size][:_AT_ONCE]
                for wish in wishes:
                    self._asked.pop(wish, None)
                    self._ahead.pop(wish, None)
                names = [
                    name for name, _ in wishes if (name, size) not in self._held and name not in self._errors
                ]
            self._make(names, size)

    def _make(self, names: Sequence[str], size: str) -> None:
        try:
            for name, webp, error in encoded(self._store, self._config, names, width_px=WIDTH_PX[size]):
                with self._changed:
                    if webp is None:
                        self._errors[name] = error or "it could not be decoded"
                    else:
                        self._held[name, size] = webp
                        self._bytes += len(webp)
                    while self._bytes > self._held_bytes and len(self._held) > 1:
                        self._bytes -= len(self._held.popitem(last=False)[1])
                    self._changed.notify_all()
                    if self._ended:
                        return
        except Exception as error:  # the page lives on without these pictures
            LOG.error("pictures: %s", error)
            with self._changed:
                self._errors.update(
                    (name, "the picture could not be made; the terminal says why") for name in names
                )
                self._changed.notify_all()
