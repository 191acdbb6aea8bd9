"""Fixtures that every test package shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The suite tries the same few examples each time. `pytest --hypothesis-profile=long` (or HYPOTHESIS_PROFILE=long) looks for
# new ones, where a test does not name their number itself.
_PLAIN = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.register_profile("quick", _PLAIN, max_examples=60, derandomize=True)
settings.register_profile("long", _PLAIN, max_examples=500, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real footage, labels and weights; a failure in CI where it is missing, elsewhere a skip."""
    if not SHARED_DATA.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SHARED_DATA} is missing, and CI=true promises it")
        pytest.skip(f"needs the real test data at {SHARED_DATA}")
    return SHARED_DATA


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests skip where no GPU is, and fail where one is promised."""
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if torch.cuda.is_available() or os.environ.get("FAIL_WITHOUT_CUDA") == "1":
        return
    for item in gpu_items:
        item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
