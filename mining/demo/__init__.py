"""The embedded default: a night of rendered drives whose truth is known.

``scripts`` says what each recording shows, ``layout`` builds its world, ``render`` paints a frame, ``drives`` writes videos
with sidecars and telemetry, ``truth`` tells what was planted and what of it a batch caught.
"""

from mining.demo.drives import make_drives
from mining.demo.scripts import EVENTS
from mining.demo.truth import caught, rare_events

__all__ = ["EVENTS", "caught", "make_drives", "rare_events"]
