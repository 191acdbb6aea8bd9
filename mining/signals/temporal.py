"""What one frame cannot show: objects that vanish and come back, change class, shake, or come and go all at once.

Entropy is blind to a confident miss: where a detector sees nothing, there is nothing to be unsure about. Its own frames
before and after are not. All functions work on the sampled frames of one recording, in time order, their boxes flat.

**Neighbours.** Two frames are neighbours where nothing lies between them and they belong together: at most ``max_step_s``
apart, and no scene cut. A frame that a detector did not look at is left out; a frame that repeats the picture before it
takes that frame's values. Where the neighbours that a signal needs are missing, it is NaN, never 0.

**Links.** A box is linked to at most one box of the next frame, by optimal one-to-one assignment, in three rounds: boxes
at or above the threshold by overlap; all boxes still free by overlap; confident boxes still free by distance, within a
class and a like size. The links of one pair of frames do not depend on those of another, so all pairs are assigned at
once (trackers with a state, such as ByteTrack or SORT, go frame by frame). A box that is confident on both sides of a gap
of at most ``MAX_GAP_FRAMES`` frames is linked across it. A track is a chain of links.

**Confident** means a full vote (``disagreement.votes``): a score of 5/3 of the operating threshold, 0.42 for one of 0.25.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mining.boxes import area, assign, iou_pairs, pairs_by_key
from mining.signals.uncertainty import sum_by

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

LINK_IOU = 0.3
"""Boxes of neighbouring frames that overlap at least so much may be one object."""

LINK_DISTANCE = 0.7
"""Else: centres at most so far apart, as a share of the root of the mean area ..."""

LINK_SIZE_RATIO = 1.6
"""... and neither area more than this many times the other."""

MAX_GAP_FRAMES = 5
"""A vanished object is looked for in so many frames; one that is away longer has probably really gone."""

MAX_GAP_S = 1.0
"""... and no longer than this from the last frame before to the first after."""

SEEN_IOU = 0.1
"""A candidate that overlaps the place of a vanished object this much shows that it was seen, if weakly."""

HIDDEN_SHARE = 0.5
"""A box that covers so much of the place of a vanished object may hide it."""
