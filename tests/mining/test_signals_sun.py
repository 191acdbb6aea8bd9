"""The sun's height against astral 3.2 (another formula: Meeus), recorded with
``astral.sun.elevation(Observer(latitude, longitude), at, with_refraction=False)``."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from mining.signals.sun import sun_elevation_deg

# UTC, latitude, longitude, elevation: Oslo, Quito, Sydney, Tromso, Anchorage.
BY_ASTRAL = [
    ("1999-12-31T23:30", 59.91, 10.75, -53.121),
    ("2026-03-20T06:00", 59.91, 10.75, 4.312),
    ("2026-06-21T22:15", 59.91, 10.75, -5.629),
    ("2026-09-22T17:40", 59.91, 10.75, -3.704),
    ("2026-12-21T11:00", 59.91, 10.75, 6.596),
    ("2040-02-29T03:00", 59.91, 10.75, -24.733),
    ("1999-12-31T23:30", -0.18, -78.47, -2.934),
    ("2026-03-20T06:00", -0.18, -78.47, -80.341),
    ("2026-06-21T22:15", -0.18, -78.47, 13.845),
    ("2026-09-22T17:40", -0.18, -78.47, 81.629),
    ("2026-12-21T11:00", -0.18, -78.47, -2.666),
    ("2040-02-29T03:00", -0.18, -78.47, -52.677),
    ("1999-12-31T23:30", -33.87, 151.21, 55.899),
    ("2026-03-20T06:00", -33.87, 151.21, 25.143),
    ("2026-06-21T22:15", -33.87, 151.21, 12.100),
    ("2026-09-22T17:40", -33.87, 151.21, -26.133),
    ("2026-12-21T11:00", -33.87, 151.21, -19.434),
    ("2040-02-29T03:00", -33.87, 151.21, 61.235),
    ("1999-12-31T23:30", 69.65, 18.96, -42.986),
    ("2026-03-20T06:00", 69.65, 18.96, 5.729),
    ("2026-06-21T22:15", 69.65, 18.96, 3.255),
    ("2026-09-22T17:40", 69.65, 18.96, -5.333),
    ("2026-12-21T11:00", 69.65, 18.96, -3.142),
    ("2040-02-29T03:00", 69.65, 18.96, -17.131),
    ("1999-12-31T23:30", 61.22, -149.9, 3.880),
    ("2026-03-20T06:00", 61.22, -149.9, -13.288),
    ("2026-06-21T22:15", 61.22, -149.9, 52.146),
    ("2026-09-22T17:40", 61.22, -149.9, 12.692),
    ("2026-12-21T11:00", 61.22, -149.9, -50.723),
    ("2040-02-29T03:00", 61.22, -149.9, 1.663),
]


def test_agrees_with_an_independent_formula_everywhere_and_at_every_season() -> None:
    at_s, latitude, longitude, expected = (np.array(column) for column in zip(*(
        (datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp(), *rest) for at, *rest in BY_ASTRAL
    ), strict=True))  # fmt: skip
    assert sun_elevation_deg(at_s, latitude, longitude) == pytest.approx(expected, abs=0.03)


def test_unknown_stays_unknown() -> None:
    one, nan = np.array([0.0]), np.array([np.nan])
    assert np.isnan(sun_elevation_deg(nan, one, one))
    assert np.isnan(sun_elevation_deg(one, nan, one))
    assert np.isnan(sun_elevation_deg(one, one, nan))
