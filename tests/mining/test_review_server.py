"""The review's server: who may ask, what may be asked, and that two servers lose nothing."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from flask.testing import FlaskClient

from mining import config as configs
from mining.config import Config
from mining.review import serve, sql_box
from mining.review.pictures import Pictures
from mining.review.server import Access, make_app
from mining.review.sql_box import SqlBox
from mining.store import Store
from mining.types import UsageError
from tests.mining import review_store
from tests.mining.review_store import ROOT, batch_frames, reviewing, rows, session

TOKEN = "t0ken0123456789abcdef"
HOSTILE = "</script><script>alert(1)</script>"
OURS = {"X-Mining": "1"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review")
    conf = review_store.make(folder, drives=("d0", HOSTILE), seconds=40)
    review_store.select(conf)
    return folder


@pytest.fixture
def conf(template: Path, tmp_path: Path) -> Config:
    return review_store.copied(template, tmp_path)


@pytest.fixture(scope="module")
def served(template: Path) -> Iterator[Callable[..., FlaskClient]]:
    """Make clients of one server over the template, which no test here changes; each with the token unless told otherwise."""
    conf = configs.load(template / "night.toml")
    store = Store(conf.store_path)
    pictures = Pictures(store, conf)
    review = session(conf)
    pictures.start(review.frame_ids)
    box = SqlBox([conf.store_path])

    def client(token: str | None = TOKEN, cookie: str | None = TOKEN, port: int = 80) -> FlaskClient:
        access = Access(token, frozenset({"localhost"}), port)
        made = make_app(review, pictures, box, lambda: access).test_client(use_cookies=cookie is not None)
        if cookie is not None:
            made.set_cookie(access.cookie, cookie)
        return made

    yield client
    pictures.end()


def test_nothing_is_told_without_the_token(served: Callable[..., FlaskClient]) -> None:
    paths = ["/", "/api/frames", "/api/verdicts?since=0", "/image/x", "/nowhere"]
    for client in (
        served(cookie=None),
        served(cookie="wrong"),
        served(cookie=TOKEN[:-1]),
        served(cookie="t\u00f6ken"),
    ):
        for path in paths:
            answer = client.get(path)
            assert answer.status_code == 401, path
            assert len(answer.data) < 200
        for path in ("/api/verdicts", "/api/undo", "/api/sql"):
            assert client.post(path, json={}, headers=OURS).status_code == 401
    assert (
        served(cookie=None).get(f"/api/frames?token={TOKEN}").status_code == 401
    )  # a link opens the page alone
    assert served(cookie=None).get("/?token=wrong").status_code == 401
    assert served(token=None, cookie=None).get("/api/frames").status_code == 200


def test_the_link_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(
    served: Callable[..., FlaskClient],
) -> None:
    answer = served(cookie=None).get(f"/?token={TOKEN}")
    assert answer.status_code == 200
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"mining_review_80={TOKEN};")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("host", "port", "admitted"),
    [
        ("localhost:8000", 8000, True), ("127.0.0.1:8000", 8000, True), ("[::1]:8000", 8000, True), ("LOCALHOST:8000", 8000, True),
        ("localhost", 80, True), ("[::1]", 80, True), ("localhost.:8000", 8000, True),
        ("evil.example:8000", 8000, False), ("localhost.evil.example:8000", 8000, False), ("localhost:8001", 8000, False),
        ("127.0.0.1", 8000, False), ("evil.example@localhost:8000", 8000, False), ("localhost:8000:8000", 8000, False),
        ("", 80, False), ("[::1", 80, False), ("127.0.0.1.evil.example", 80, False), ("localhost:99999", 8000, False),
    ],
)  # fmt: skip
def test_a_name_that_is_not_ours_is_not_answered(
    served: Callable[..., FlaskClient], host: str, port: int, admitted: bool
) -> None:
    cookie = f"mining_review_{port}={TOKEN}"
    answer = served(cookie=None, port=port).get("/api/verdicts", headers={"Host": host, "Cookie": cookie})
    assert answer.status_code == (200 if admitted else 421)


def test_a_post_needs_our_header_and_json(served: Callable[..., FlaskClient]) -> None:
    client = served()
    name = client.get("/api/frames").get_json()["frames"][0]["frame_id"]
    body = {"frame_id": name, "verdict": "keep", "reason": None}
    for headers in ({}, {"X-Mining": "0"}):
        for path in ("/api/verdicts", "/api/undo", "/api/sql"):
            assert client.post(path, json=body, headers=headers).status_code == 403
    assert client.get("/api/undo").status_code == 405
    for content, said in [
        (b"", "a JSON object"), (b"[]", "a JSON object"), (b"{", "a JSON object"), (b"[" * 60_000, "a JSON object"), (b"\xff\xfe{}", "a JSON object"),
        (b"{}", "frame_id is missing"), (b'{"frame_id": 7}', "frame_id must be text"), (b'{"frame_id": "\\ud800"}', "must be text"),
        (json.dumps({**body, "reason": "x" * 1001}).encode(), "reason has 1001 characters; at most 1000"),
        (json.dumps({**body, "verdict": ["drop"]}).encode(), "verdict must be text"),
        (json.dumps({**body, "verdict": "burn"}).encode(), "known: keep, drop, more"),
    ]:  # fmt: skip
        answer = client.post("/api/verdicts", data=content, headers=OURS)
        assert answer.status_code == 400, content[:40]
        assert said in answer.get_json()["error"]
    assert client.post("/api/verdicts", data=b"x" * 70_000, headers=OURS).status_code == 413
    assert client.get("/api/verdicts").get_json()["version"] == 0  # none of all that was a verdict


def test_only_pictures_of_the_review_are_served(served: Callable[..., FlaskClient], template: Path) -> None:
    client = served()
    frames = client.get("/api/frames").get_json()["frames"]
    for card in frames[:3]:
        answer = client.get("/" + card["image"] + "?size=large")
        assert (answer.status_code, answer.content_type) == (200, "image/webp")
        conf = configs.load(template / "night.toml")
        row = rows(conf, f"SELECT uri, frame_index FROM mined WHERE frame_id = '{card['frame_id']}'")[0]
        written = cv2.imread(f"{row['uri']}/{row['frame_index']:04d}.png").astype(int)
        got = cv2.imdecode(np.frombuffer(answer.data, np.uint8), cv2.IMREAD_COLOR).astype(int)
        assert np.abs(got - written).mean() < 12  # WebP; another frame is about 85 away
    assert client.get("/" + frames[0]["image"] + "?size=huge").status_code == 400
    held = {card["frame_id"] for card in frames}
    other = rows(configs.load(template / "night.toml"), "SELECT frame_id FROM frames ORDER BY frame_id")
    outside = next(row["frame_id"] for row in other if row["frame_id"] not in held)
    for name in (
        outside,
        "..%2f..%2fnight.toml",
        "../night.toml",
        "%2e%2e/%2e%2e/etc/passwd",
        "/etc/passwd",
        "%00",
        "x'%20OR%20'1'='1",
        "a" * 5000,
    ):
        assert client.get(f"/image/{name}").status_code in {404, 308}, name
    for path in ("/static/page.js", "/night.toml", "/store", "/../night.toml", "/image/", "/api"):
        assert client.get(path).status_code == 404, path


def test_pages_carry_the_headers_that_keep_them_to_themselves(served: Callable[..., FlaskClient]) -> None:
    client = served()
    for path in ("/", "/api/frames", "/image/x", "/nowhere"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "unsafe-inline" not in policy
    assert "script-src 'sha256-" in policy


def test_hostile_names_stay_data(served: Callable[..., FlaskClient]) -> None:
    client = served()
    page = client.get("/").get_data(as_text=True)
    assert HOSTILE not in page
    assert any(card["drive_id"] == HOSTILE for card in client.get("/api/frames").get_json()["frames"])


def test_the_sql_box_reads_and_nothing_else(served: Callable[..., FlaskClient], template: Path) -> None:
    client = served()

    def ask(text: str) -> Any:
        return client.post("/api/sql", json={"sql": text}, headers=OURS)

    answer = ask("SELECT 1 AS a, 'x' AS b, 18446744073709551615::UBIGINT AS big, 9007199254740991 AS exact, 'nan'::DOUBLE AS n, "
                 "TIMESTAMP '2026-03-14 20:00:00' AS t, [1, 2] AS l, NULL AS nothing").get_json()  # fmt: skip
    assert answer["rows"] == [
        [1, "x", "18446744073709551615", 9007199254740991, None, "2026-03-14 20:00:00", [1, 2], None]
    ]
    assert [column["name"] for column in answer["columns"]] == [
        "a",
        "b",
        "big",
        "exact",
        "n",
        "t",
        "l",
        "nothing",
    ]
    assert answer["columns"][2]["type"] == "UBIGINT"
    assert answer["truncated"] is False
    many = ask("SELECT i FROM range(5000) AS r(i) ORDER BY i DESC").get_json()
    assert (len(many["rows"]), many["rows"][0], many["truncated"]) == (1000, [4999], True)
    assert len(ask("SELECT i FROM range(1000) AS r(i)").get_json()["rows"]) == 1000
    assert ask("SELECT i FROM range(1000) AS r(i)").get_json()["truncated"] is False
    assert (
        ask("SELECT repeat('x', 17000000)")
        .get_json()["error"]
        .startswith("its first row alone is larger than 16 MB")
    )
    for text, said in [
        ("SELEC 1", 'syntax error at or near "SELEC"'), ("", "sql is missing"), ("SELECT nope FROM mined", "nope"),
        ("COPY mined TO '/tmp/out.csv'", "only reading"), ("DROP VIEW mined", "only reading"), ("SET threads = 1", "only reading"),
        ("WITH x AS (COPY mined TO '/tmp/out.csv') FROM x", "only reading"), ("SELECT 1; SELECT 2", "one statement"),
        (f"SELECT * FROM read_text('{template}/night.toml')", "file"), ("SELECT * FROM '/etc/passwd'", ""), ("ATTACH ':memory:' AS x", "only reading"),
        ("SELECT $x", "x"),
    ]:  # fmt: skip
        refused = ask(text)
        assert refused.status_code == 400, text
        assert said in refused.get_json()["error"], refused.get_json()


def test_a_query_that_takes_too_long_or_too_much_is_stopped(
    template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mining.types import QueryError, TemporaryError

    store = template / "store"
    slow = "SELECT count(*) FROM range(10000000000) AS a(i) WHERE i % 7 = 3"
    with pytest.raises(QueryError, match=r"stopped after 0.3 s; ask for less"):
        SqlBox([store], timeout_s=0.3).answer(slow)
    monkeypatch.setattr(sql_box, "MEMORY_MB", 64)
    with pytest.raises(QueryError, match=r"(?i)memory"):
        SqlBox([store]).answer(
            "SELECT max(len(l)) FROM (SELECT list(i::VARCHAR || 'xxxxxxxxxxxxxxxxxxxx') AS l FROM range(20000000) AS a(i))"
        )
    # One at a time: of many at once all are answered in turn or told to come again, and none at the same time.
    box, said = SqlBox([store], timeout_s=0.5), []

    def ask() -> None:
        try:
            box.answer(slow)
        except (QueryError, TemporaryError) as error:
            said.append(type(error).__name__)

    threads = [threading.Thread(target=ask) for _ in range(7)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == ["QueryError"] * 5 + ["TemporaryError"] * 2
    assert time.monotonic() - began >= 5 * 0.5


def test_a_door_that_would_stand_open_is_refused() -> None:
    for door, said in [
        (serve.Door(host="0.0.0.0", no_token=True), "bind to 127.0.0.1"),
        (serve.Door(host="192.168.1.4", no_token=True), "bind to 127.0.0.1"),
        (serve.Door(host="example.org", no_token=True), "bind to 127.0.0.1"),
        (serve.Door(token=TOKEN, no_token=True), "not both"),
        (serve.Door(token="short"), "at least 16"),
        (serve.Door(token="with space and ünicode ..."), "letters and digits"),
    ]:
        with pytest.raises(UsageError, match=said):
            serve._token(door)
    assert serve._token(serve.Door(host="::1", no_token=True)) is None
    assert serve._token(serve.Door(token=TOKEN)) == TOKEN
    made = {serve._token(serve.Door()) for _ in range(5)}
    assert len(made) == 5
    assert all(len(token or "") == 48 for token in made)


# -- the command ------------------------------------------------------------------------------------------------------


def post(link: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    base, _, token = link.partition("?token=")
    port = base.rsplit(":", 1)[1].strip("/")
    headers = {"X-Mining": "1", "Cookie": f"mining_review_{port}={token}"}
    request = urllib.request.Request(base + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_two_servers_at_once_lose_no_verdict_and_give_no_frame_twice(conf: Config) -> None:
    names = [row["frame_id"] for row in batch_frames(conf)]
    wanted = {
        "ada": [(name, "drop" if i % 4 == 0 else "keep") for i, name in enumerate(names)],
        "bo": [(name, "drop" if i % 3 == 0 else "keep") for i, name in enumerate(reversed(names))],
    }
    failed: list[Any] = []

    def judge(link: str, verdicts: list[tuple[str, str]]) -> None:
        for name, verdict in verdicts:
            code, answer = post(
                link, "api/verdicts", {"frame_id": name, "verdict": verdict, "reason": f"{verdict} it"}
            )
            if code != 200:
                failed.append((code, answer))

    with reviewing(conf, "ada") as (ada, _), reviewing(conf, "bo") as (bo, _):
        # Two tabs each: every verdict of a reviewer comes from one of two threads.
        threads = [
            threading.Thread(target=judge, args=(link, verdicts[half::2]))
            for link, verdicts in ((ada, wanted["ada"]), (bo, wanted["bo"]))
            for half in (0, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
    said = rows(conf, "SELECT reviewer, frame_id, verdict, reason FROM verdicts")
    expected = {
        (who, name, verdict, f"{verdict} it")
        for who, verdicts in wanted.items()
        for name, verdict in verdicts
    }
    assert {tuple(row.values()) for row in said} == expected
    assert rows(conf, "SELECT count(*) AS n FROM reviews")[0]["n"] == len(expected)
    now = batch_frames(conf)
    dropped = {name for who in wanted.values() for name, verdict in who if verdict == "drop"}
    assert {row["frame_id"] for row in now if row["origin"] == "chosen" and not row["in_batch"]} == dropped
    brought = [row for row in now if row["origin"] == "replacement"]
    assert len({row["frame_id"] for row in brought}) == len(brought)
    assert len({row["place"] for row in brought}) == len(brought)  # one each, though both dropped some


def test_the_command_ends_cleanly_keeps_verdicts_and_tells_no_token(conf: Config) -> None:
    name = batch_frames(conf)[0]["frame_id"]
    with reviewing(conf, "ada", "--token", TOKEN) as (link, process):
        assert re.fullmatch(rf"http://127\.0\.0\.1:\d+/\?token={TOKEN}", link)
        assert post(link, "api/verdicts", {"frame_id": name, "verdict": "drop", "reason": "dull"})[0] == 200
        assert post(link.replace(TOKEN, "x" * 20), "api/undo", {})[0] == 401
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert (
            err.splitlines()[-1]
            == "mining: stopped; what was committed stays, and the same command goes on from there"
        )
        assert TOKEN not in err
        assert TOKEN not in out  # the one line that holds it was read above
    with reviewing(conf, "ada") as (link, process):
        code, answer = post(link, "api/undo", {})
        assert (code, answer["frame_id"]) == (200, name)
        process.terminate()
        assert process.wait(timeout=20) == 143


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--batch", "nope"], "no batch is called 'nope'"),
        (["--host", "0.0.0.0", "--no-token"], "--no-token with --host 0.0.0.0"),
        (["--host", "203.0.113.7"], "cannot listen there"),
        (["--reviewer", "a\nb"], "printable characters"),
    ],
)
def test_what_cannot_be_served_is_one_line(conf: Config, options: list[str], said: str) -> None:
    command = [
        sys.executable,
        "-c",
        "from mining.cli import main; main()",
        "review",
        f"{conf.folder}/night.toml",
        *options,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]
