"""Footage: finding recordings, knowing them by content, listing their frames, reading exact pixels, and what lies beside.

``discover`` finds sources, ``at_hand`` brings those in buckets to the local disk, ``probe`` describes one and lists its frames without decoding them, ``sampled_indices`` picks
some, ``read`` decodes those. ``companions`` and ``load_telemetry`` give what the vehicle logged meanwhile.
"""

from mining.footage.bucket import described
from mining.footage.cache import at_hand
from mining.footage.discover import discover
from mining.footage.identity import content_digest, stat_signature
from mining.footage.recordings import (
    NO_FRAMES,
    frame_times,
    frame_times_near,
    id_of_unreadable,
    out_of_reach,
    probe,
    read,
    read_facts,
)
from mining.footage.sidecar import Sidecar, companions, find_sidecar, load_sidecar
from mining.footage.source import Defaults, Facts, FootageError, OutOfReach, Problem, Source
from mining.footage.telemetry import Telemetry, load_telemetry
from mining.footage.timeline import sampled_indices

__all__ = [
    "NO_FRAMES",
    "Defaults",
    "Facts",
    "FootageError",
    "OutOfReach",
    "Problem",
    "Sidecar",
    "Source",
    "Telemetry",
    "at_hand",
    "companions",
    "content_digest",
    "described",
    "discover",
    "find_sidecar",
    "frame_times",
    "frame_times_near",
    "id_of_unreadable",
    "load_sidecar",
    "load_telemetry",
    "out_of_reach",
    "probe",
    "read",
    "read_facts",
    "sampled_indices",
    "stat_signature",
]
