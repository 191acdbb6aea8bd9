"""The review mode of the page, against a server of a few lines that can fail: no verdict is lost, what others say is seen."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from mining.report import data, page
from tests.mining.report_night import BATCH, HOSTILE, Night, know_committee, make, name

WEBP = cv2.imencode(".webp", np.full((90, 160, 3), 90, np.uint8))[1].tobytes()


class Server:
    """Answers as the review's server does; ``down`` hangs up, ``refuses`` says no."""

    def __init__(self, page_data: dict[str, Any], spare: dict[str, Any]) -> None:
        self.page_data, self.spare = page_data, spare
        self.added: list[dict[str, Any]] = []
        self.said: list[tuple[str, str | None, str | None]] = []
        self.verdicts: dict[str, list[dict[str, Any]]] = {}
        self.version = 0
        self.down = False
        self.refuses: str | None = None
        self.sql: dict[str, Any] | str = "no answer"
        self.headers: list[str | None] = []
        self.sheets_sent = 0

    def give(self, frame: str, reviewer: str, verdict: str | None, reason: str | None = None) -> None:
        others = [one for one in self.verdicts.get(frame, []) if one["reviewer"] != reviewer]
        mine = [{"reviewer": reviewer, "verdict": verdict, "reason": reason, "at": "2026-03-15T08:00:00Z"}]
        self.verdicts[frame] = others + (mine if verdict else [])
        self.version += 1

    def answer(self, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        if path == "/api/frames":
            self.sheets_sent += 1
            return 200, {"frames": self.page_data["frames"] + self.added, "version": self.version}
        if path == "/api/verdicts" and body is None:
            return 200, {"version": self.version, "verdicts": self.verdicts, "added": bool(self.added)}
        if self.refuses:
            return 400, {"error": self.refuses}
        assert body is not None
        if path == "/api/sql":
            return (400, {"error": self.sql}) if isinstance(self.sql, str) else (200, self.sql)
        if path == "/api/undo":
            frame = self.said.pop()[0]
            self.give(frame, "ada", None)
            return 200, {"version": self.version, "frame_id": frame, "verdict": None}
        self.said.append((body["frame_id"], body["verdict"], body["reason"]))
        self.give(body["frame_id"], "ada", body["verdict"], body["reason"])
        replacement = None
        if body["verdict"] == "drop" and not self.added:
            replacement = {**self.spare, "replaces": body["frame_id"]}
            self.added.append(replacement)
        return 200, {
            "version": self.version,
            "replacement": replacement,
            "similar": [] if body["verdict"] == "more" else None,
        }


def handler_of(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self, code: int, kind: str, content: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", page.policy("review"))
            self.end_headers()
            self.wfile.write(content)

        def _api(self, body: dict[str, Any] | None) -> None:
            if server.down:
                self.close_connection = True
                self.connection.close()
                return
            code, found = server.answer(self.path.partition("?")[0], body)
            self._answer(code, "application/json", json.dumps(found).encode())

        def do_GET(self) -> None:
            if self.path == "/":
                self._answer(200, "text/html; charset=utf-8", page.render(server.page_data).encode())
            elif self.path.startswith("/image/"):
                known = {frame["frame_id"] for frame in [*server.page_data["frames"], server.spare]}
                found = unquote(self.path.partition("?")[0].removeprefix("/image/")) in known
                self._answer(200 if found else 404, "image/webp", WEBP)
            else:
                self._api(None)

        def do_POST(self) -> None:
            server.headers.append(self.headers.get("X-Mining"))
            self._api(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def log_message(self, *_arguments: Any) -> None: ...

    return Handler


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Night, dict[str, Any], dict[str, Any]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        know_committee(monkeypatch)
        night = make(tmp_path_factory.mktemp("night"))
        page_data = data.collect(night.store, night.config, batch_id=BATCH)
        spare = data.cards(night.store, night.config, BATCH, [name(1, 11)])[0]
    page_data |= {"mode": "review", "reviewer": "ada"}
    for card in [*page_data["frames"], spare]:
        card["image"] = "image/" + quote(card["frame_id"], safe="")
    return night, page_data, spare


@pytest.fixture
def server(collected: tuple[Night, dict[str, Any], dict[str, Any]]) -> Iterator[tuple[Server, str]]:
    known = Server(deepcopy(collected[1]), deepcopy(collected[2]))
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(known))
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield known, f"http://127.0.0.1:{http.server_port}/"
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def tab(browser: Browser, server: tuple[Server, str]) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on(
        "dialog",
        lambda dialog: (
            faults.append(dialog.message) if dialog.type != "beforeunload" else None,
            dialog.accept(),
        ),
    )
    opened.goto(server[1])
    opened.wait_for_selector("html[data-ready]")
    yield opened
    context.close()
    assert faults == []


def ids(server: Server) -> list[str]:
    return [frame["frame_id"] for frame in server.page_data["frames"]]


def test_a_key_for_each_verdict(server: tuple[Server, str], tab: Page) -> None:
    known, _ = server
    first, second, third, *_ = ids(known)
    tab.keyboard.press("j")
    tab.keyboard.press("y")
    tab.keyboard.press("n")  # the next frame: keeping one goes on
    tab.keyboard.press("3")
    tab.keyboard.press("m")
    expect(tab.locator("#progress")).to_have_text(
        "3 of 10 reviewed by you"
    )  # one came in place of the dropped one
    assert known.said == [
        (first, "keep", None),
        (second, "drop", "much like another frame"),
        (third, "more", None),
    ]
    assert set(known.headers) == {"1"}
    expect(tab.locator(f'.card[data-frame="{second}"]')).to_have_class("card is-dropped")
    expect(tab.locator(f'.card[data-frame="{known.spare["frame_id"]}"]')).to_contain_text("replacement")
    tab.keyboard.press("u")
    expect(tab.locator("#progress")).to_have_text("2 of 10 reviewed by you")
    assert tab.evaluate("document.activeElement.dataset.frame") == third


def test_a_reason_in_ones_own_words(server: tuple[Server, str], tab: Page) -> None:
    known, _ = server
    tab.locator(".card .drop").first.click()
    tab.fill("#drop-reason", HOSTILE)
    tab.keyboard.press("Enter")
    expect(tab.locator(".card .others").first).to_contain_text(HOSTILE)
    expect(tab.locator("#progress")).to_have_text("1 of 10 reviewed by you")
    assert known.said == [(ids(known)[0], "drop", HOSTILE)]
    tab.locator(".card .drop").first.click()  # once more takes it back
    expect(tab.locator("#progress")).to_have_text("0 of 10 reviewed by you")
    assert known.said[-1] == (ids(known)[0], None, None)


def test_a_drop_without_a_reason_is_none(server: tuple[Server, str], tab: Page) -> None:
    tab.keyboard.press("j")
    tab.keyboard.press("n")
    tab.keyboard.press("Escape")
    tab.wait_for_timeout(200)
    assert server[0].said == []
    expect(tab.locator("#progress")).to_have_text("0 of 9 reviewed by you")


def test_what_the_server_did_not_get_is_said_and_sent_again(server: tuple[Server, str], tab: Page) -> None:
    known, _ = server
    known.down = True
    tab.keyboard.press("j")
    tab.keyboard.press("y")
    tab.keyboard.press("y")
    expect(tab.locator("#banner")).to_contain_text("2 verdicts not saved yet")
    assert known.said == []
    expect(tab.locator(".card .keep[aria-pressed=true]")).to_have_count(2)
    known.down = False
    expect(tab.locator("#banner")).to_be_hidden(timeout=15_000)
    assert known.said == [(frame, "keep", None) for frame in ids(known)[:2]]


def test_undo_while_a_verdict_is_being_saved_is_refused_for_all_to_see(
    server: tuple[Server, str], tab: Page
) -> None:
    known, _ = server
    known.down = True
    tab.keyboard.press("j")
    tab.keyboard.press("y")
    tab.keyboard.press("u")
    expect(tab.locator("#note")).to_contain_text("Not undone")
    known.down = False
    expect(tab.locator("#progress")).to_have_text("1 of 9 reviewed by you", timeout=15_000)
    tab.keyboard.press("u")
    expect(tab.locator("#note")).to_have_text("Undone.")
    assert known.said == []


def test_cards_are_sent_again_only_where_one_has_come(server: tuple[Server, str], tab: Page) -> None:
    known, _ = server
    first, second = ids(known)[:2]
    known.give(first, "bob", "drop", "dull")
    expect(tab.locator(f'.card[data-frame="{first}"]')).to_contain_text("bob: drop", timeout=15_000)
    assert known.sheets_sent == 0  # 500 cards are 3 MB
    known.added.append({**known.spare, "replaces": first})
    known.give(second, "bob", "keep")
    expect(tab.locator(".card")).to_have_count(10, timeout=15_000)
    assert known.sheets_sent == 1


def test_what_the_server_refuses_is_said_and_not_shown_as_given(
    server: tuple[Server, str], tab: Page
) -> None:
    known, _ = server
    known.refuses = f"no: {HOSTILE}"
    tab.keyboard.press("j")
    tab.keyboard.press("y")
    expect(tab.locator("#banner")).to_contain_text(f"Not saved: no: {HOSTILE}")
    expect(tab.locator(".card .keep[aria-pressed=true]")).to_have_count(0)


def test_what_others_decide_is_shown_and_contradictions_are_marked(
    server: tuple[Server, str], tab: Page
) -> None:
    known, _ = server
    first = ids(known)[0]
    tab.keyboard.press("j")
    tab.keyboard.press("y")
    expect(tab.locator("#progress")).to_have_text("1 of 9 reviewed by you")
    known.give(first, HOSTILE, "drop", "too dark")
    card = tab.locator(f'.card[data-frame="{first}"]')
    expect(card).to_contain_text(f"{HOSTILE}: drop – too dark", timeout=15_000)
    expect(card.locator(".contradiction")).to_be_visible()
    expect(tab.locator("#progress")).to_contain_text("1 contradiction")
    tab.select_option("#f-verdict", label="contradictions")
    assert tab.evaluate(
        "[...document.querySelectorAll('.card:not([hidden])')].map((card) => card.dataset.frame)"
    ) == [first]
    known.give(first, HOSTILE, None)
    expect(card.locator(".contradiction")).to_have_count(0, timeout=15_000)


def test_verdicts_in_the_large_view(server: tuple[Server, str], tab: Page) -> None:
    known, _ = server
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    tab.keyboard.press("y")
    expect(tab.locator("#large .facts")).to_contain_text(ids(known)[1])  # on to the next
    tab.locator("#large-verdict .more").click()
    expect(tab.locator("#large-verdict .more")).to_have_attribute("aria-pressed", "true")
    expect(tab.locator("#progress")).to_have_text("2 of 9 reviewed by you")
    assert known.said == [(ids(known)[0], "keep", None), (ids(known)[1], "more", None)]
    assert "?size=large" in str(tab.locator("#large img").get_attribute("src"))


def test_the_answer_of_a_query_as_table_chart_and_contact_sheet(
    server: tuple[Server, str], tab: Page
) -> None:
    known, _ = server
    columns = [
        {"name": "frame_id", "type": "VARCHAR"},
        {"name": "drive", "type": "VARCHAR"},
        {"name": "n", "type": "BIGINT"},
    ]
    known.sql = {
        "columns": columns,
        "rows": [[ids(known)[0], HOSTILE, 3], ["elsewhere", None, 1.5]],
        "truncated": True,
        "seconds": 0.1,
    }
    tab.focus("#sql-text")
    tab.keyboard.press("Control+Enter")
    answer = tab.locator("#sql-answer")
    expect(answer.locator("tbody tr")).to_have_count(2)
    assert answer.locator("tbody tr").all_inner_texts() == [
        f"{ids(known)[0]}\t{HOSTILE}\t3",
        "elsewhere\t–\t1.5",
    ]
    assert "there are more" in tab.inner_text("#sql-state")
    answer.get_by_role("tab", name="Chart").click()
    assert tab.evaluate(
        "Chart.getChart(document.querySelector('#sql-answer canvas')).data.datasets[0].data"
    ) == [3, 1.5]
    answer.get_by_role("tab", name="Contact sheet").click()
    expect(answer.locator("figure img")).to_have_count(1)
    assert "not in this batch" in answer.inner_text()
    known.sql = f"Parser Error: {HOSTILE}"
    tab.get_by_role("button", name="Run").click()
    expect(answer.get_by_role("alert")).to_have_text(known.sql)


def test_the_review_is_asked_for_nowhere_in_a_report(
    collected: tuple[Night, dict[str, Any], dict[str, Any]],
) -> None:
    html = page.render({**collected[1], "mode": "report"})
    assert "api/verdicts" not in html
    assert "sql-form" not in html
    assert "connect-src &#39;none&#39;" in html
