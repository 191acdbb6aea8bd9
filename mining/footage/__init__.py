"""Footage: finding recordings, knowing them by content, listing their frames, reading exact pixels, and what lies beside.

``discover`` finds sources, ``probe`` describes one and lists its frames without decoding them, ``sampled_indices`` picks
some, ``read`` decodes those. ``companions`` and ``load_telemetry`` give what the vehicle logged meanwhile.
"""

from mining.footage.discover import discover
from mining.footage.identity import content_digest, stat_signature
from mining.footage.recordings import frame_times, frame_times_near, probe, read, read_facts
from mining.footage.sidecar import Sidecar, companions, find_sidecar, load_sidecar
from mining.footage.source import Defaults, Facts, FootageError, Problem, Source
from mining.footage.telemetry import Telemetry, load_telemetry
from mining.footage.timeline import sampled_indices

__all__ = [
    "Defaults",
    "Facts",
    "FootageError",
    "Problem",
    "Sidecar",
    "Source",
    "Telemetry",
    "companions",
    "content_digest",
    "discover",
    "find_sidecar",
    "frame_times",
    "frame_times_near",
    "load_sidecar",
    "load_telemetry",
    "probe",
    "read",
    "read_facts",
    "sampled_indices",
    "stat_signature",
]
