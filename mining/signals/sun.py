"""Where the sun stands, and from where on it is night."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NIGHT_ELEVATION_DEG = -6.0
"""Civil twilight ends here: without lamps there is too little light to drive by."""

NIGHT_LUMA = 50.0
"""A frame whose mean luma (0..255) is below this counts as taken at night where no position is known. The clips and demo
drives at hand have a mean of 6 to 41 at night, 78 at dusk and 86 or more by day."""

_J2000_S = 946_728_000.0
"""2000-01-01 12:00 UTC in seconds since 1970: the epoch of the formula."""


def sun_elevation_deg(
    at_s: NDArray[np.float64], latitude_deg: NDArray[np.float64], longitude_deg: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Height of the sun's centre over the horizon, in degrees, without refraction; NaN where an input is NaN.

    The low-precision formula of the Astronomical Almanac (section C, "Low precision formulas for the Sun"): within 0.01
    degrees from 1950 to 2050 for the sun's place, and far finer than "is it dark?" needs.

    Args:
        at_s: seconds since 1970, UTC.
        latitude_deg: WGS 84, north is positive.
        longitude_deg: WGS 84, east is positive.
    """
    days = (at_s - _J2000_S) / 86_400
    anomaly = np.radians(357.528 + 0.985_600_3 * days)
    longitude = np.radians(
        280.460 + 0.985_647_4 * days + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly)
    )
    tilt = np.radians(23.439 - 0.000_000_4 * days)
    right_ascension = np.arctan2(np.cos(tilt) * np.sin(longitude), np.cos(longitude))
    declination = np.arcsin(np.sin(tilt) * np.sin(longitude))
    sidereal = np.radians(280.460_618_37 + 360.985_647_366_29 * days)
    hour_angle = sidereal + np.radians(longitude_deg) - right_ascension
    latitude = np.radians(latitude_deg)
    return np.degrees(
        np.arcsin(
            np.sin(latitude) * np.sin(declination)
            + np.cos(latitude) * np.cos(declination) * np.cos(hour_angle)
        )
    )
