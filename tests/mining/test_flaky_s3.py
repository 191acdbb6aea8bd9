"""The service that fails on purpose does so as often as asked, in every way, and never with what it stored."""

from __future__ import annotations

import http.client
from collections import Counter
from urllib.parse import urlsplit

import pytest

from tests.mining.flaky_s3 import FAULTS, FlakyS3, flaky_s3

SIGNED = (
    "AWS4-HMAC-SHA256 Credential=testing/20260314/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
)
"""Moto looks at who asks, not whether it is true."""


def ask(s3: FlakyS3, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes] | str:
    connection = http.client.HTTPConnection(urlsplit(s3.url).netloc, timeout=20)
    try:
        connection.request(method, path, body, {"Authorization": SIGNED})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.IncompleteRead:
        return "cut"
    except (ConnectionError, http.client.BadStatusLine):
        return "no answer"
    finally:
        connection.close()


def test_it_fails_as_often_as_asked_and_keeps_what_it_said_it_has() -> None:
    content = b"x" * 1000
    with flaky_s3(seed=1) as s3:
        s3.make_bucket("fleet")
        assert ask(s3, "PUT", "/fleet/k", content) == (200, b"")
        s3.rate = 0.4
        said = Counter(
            answer if isinstance(answer, str) else answer[0]
            for answer in (ask(s3, "GET", "/fleet/k") for _ in range(200))
        )
        assert 120 - 30 < said[200] < 120 + 30
        assert said[500] == s3.failed["500"] > 5
        assert said[503] == s3.failed["503"] > 5
        assert said["no answer"] == s3.failed["reset"] + s3.failed["lost"] > 10
        assert said["cut"] == s3.failed["cut"] > 5
        s3.rate = 1.0
        assert all(ask(s3, "GET", "/fleet/k") != (200, content) for _ in range(10))
        s3.only = lambda method, path: method == "PUT"
        assert ask(s3, "GET", "/fleet/k") == (200, content)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_that_fails_is_done_only_where_its_answer_was_lost(fault: str) -> None:
    with flaky_s3(faults=[fault]) as s3:
        s3.make_bucket("fleet")
        s3.rate = 1.0
        ask(s3, "PUT", "/fleet/k", b"new")
        s3.rate = 0.0
        status, _ = ask(s3, "GET", "/fleet/k")
        assert status == (200 if fault in {"lost", "cut"} else 404)


def test_the_same_seed_fails_the_same_requests() -> None:
    def run() -> list[object]:
        with flaky_s3(rate=0.5, seed=7) as s3:
            s3.make_bucket("fleet")
            return [ask(s3, "GET", "/fleet/none") for _ in range(20)]

    first, second = run(), run()
    assert [type(a) for a in first] == [type(b) for b in second]
    assert [a[0] for a in first if isinstance(a, tuple)] == [b[0] for b in second if isinstance(b, tuple)]
