"""The embedded default: a night of rendered drives whose truth is known.

``world`` lays out roads and traffic, ``render`` paints a frame, ``drives`` writes videos with sidecars and telemetry,
``truth`` tells what was planted and what of it a batch caught.
"""

from mining.demo.drives import make_drives
from mining.demo.truth import caught, events, rare_events
from mining.demo.world import EVENTS

__all__ = ["EVENTS", "caught", "events", "make_drives", "rare_events"]
