"""What several test files share: a real browser, and a bucket."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from mining import buckets
from tests.mining.flaky_s3 import FlakyS3, flaky_s3


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless; a failure in CI where it is missing, elsewhere a skip."""
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is missing, and CI=true promises it: `make test` installs it")
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield opened
        opened.close()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyS3]:
    """A bucket ``fleet``; nothing fails until a test says so."""
    monkeypatch.setattr(buckets, "RETRY_FOR_S", 20.0)
    monkeypatch.setattr(buckets, "_FIRST_PAUSE_S", 0.02)
    with flaky_s3(seed=5) as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        buckets._client.cache_clear()
        service.make_bucket("fleet")
        yield service
    buckets._client.cache_clear()
