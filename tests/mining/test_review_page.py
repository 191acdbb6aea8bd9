"""The review in a real browser: verdicts by keys, reload, two tabs, a replacement, the SQL box, hostile names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from mining.config import Config
from tests.mining import review_store
from tests.mining.review_store import batch_frames, reviewing, rows

expect.set_options(timeout=30_000)  # the page asks for news every 3 s; other work may share the machine
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review")
    conf = review_store.make(folder, drives=("d0", HOSTILE), seconds=40)
    review_store.select(conf)
    return folder


@pytest.fixture
def conf(template: Path, tmp_path: Path) -> Config:
    return review_store.copied(template, tmp_path)


@pytest.fixture
def link(conf: Config) -> Iterator[str]:
    with reviewing(conf, "ada") as (link, _):
        yield link


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1400, "height": 900})
    made.set_default_timeout(20_000)
    yield made
    made.close()


def opened(context: BrowserContext, link: str) -> tuple[Page, list[str]]:
    """Open the page; what it complains of is listed."""
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.goto(link)
    page.wait_for_selector("html[data-ready=yes]")
    return page, wrong


def until(page: Page, script: str) -> None:
    """Wait for something to become true; the page's policy lets Playwright not do so by itself."""
    for _ in range(100):
        if page.evaluate(script):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"never true: {script}")


def verdicts(conf: Config) -> dict[str, tuple[str, str | None]]:
    return {row["frame_id"]: (row["verdict"], row["reason"]) for row in rows(conf, "FROM verdicts")}


def test_verdicts_by_keys_are_kept_and_a_reload_shows_them(
    context: BrowserContext, link: str, conf: Config
) -> None:
    page, wrong = opened(context, link)
    cards = page.locator(".card")
    expect(cards).to_have_count(20)
    assert page.url == link.partition("?")[0]  # the token does not stay in the address bar
    shown = page.evaluate("M.frames.map((frame) => frame.frame_id)")
    page.keyboard.press("j")
    page.keyboard.press("y")  # keep, and on to the next
    page.keyboard.press("n")
    page.keyboard.press("2")  # the second reason of the list
    expect(page.locator("#progress")).to_have_text("2 of 21 reviewed by you")
    assert {name: said[0] for name, said in verdicts(conf).items()} == {shown[0]: "keep", shown[1]: "drop"}
    assert verdicts(conf)[shown[1]][1] == "nothing to label"
    # The replacement is a card, and says what it is for.
    [given] = [row for row in batch_frames(conf) if row["origin"] == "replacement"]
    expect(cards).to_have_count(21)
    assert (
        page.evaluate(f"M.frames.find((frame) => frame.replaces === {json.dumps(shown[1])}).frame_id")
        == given["frame_id"]
    )
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    expect(page.locator("#progress")).to_have_text("2 of 21 reviewed by you")
    expect(page.locator(".card.is-dropped")).to_have_count(1)
    expect(page.locator(".card.is-kept")).to_have_count(1)
    page.keyboard.press("u")
    expect(page.locator(".card.is-dropped")).to_have_count(0)
    assert [row["in_batch"] for row in batch_frames(conf) if row["origin"] == "replacement"] == [False]
    # Every picture of a card that is looked at has come.
    until(
        page,
        "[...document.querySelectorAll('.card img')].slice(0, 4).every((image) => image.complete && image.naturalWidth > 0)",
    )
    assert wrong == []


def test_two_tabs_show_each_others_verdicts_and_lose_none(
    context: BrowserContext, link: str, conf: Config
) -> None:
    one, wrong_one = opened(context, link)
    other, wrong_other = opened(context, link.partition("?")[0])  # the cookie lets it in
    names = one.evaluate("M.frames.map((frame) => frame.frame_id)")
    for i in range(5):  # both at once, on other frames
        one.evaluate(f"M.decide({i}, 'keep')")
        other.evaluate(f"M.decide({i + 5}, 'keep')")
    for page in (one, other):
        expect(page.locator(".card.is-kept")).to_have_count(10)
        expect(page.locator("#progress")).to_have_text("10 of 20 reviewed by you")
    assert set(verdicts(conf)) == set(names[:10])
    assert (wrong_one, wrong_other) == ([], [])


def test_more_like_this_brings_cards_that_keep_adds_to_the_batch(
    context: BrowserContext, link: str, conf: Config
) -> None:
    page, wrong = opened(context, link)
    page.evaluate("M.decide(3, 'more')")
    until(page, "M.frames.length > 20")
    offered = [row["frame_id"] for row in batch_frames(conf) if row["origin"] == "extra"]
    page.evaluate(f"M.decide(M.placeOf({json.dumps(offered[0])}), 'keep')")
    expect(page.locator("#progress")).to_have_text(f"2 of {20 + len(offered)} reviewed by you")
    assert [
        row["frame_id"] for row in batch_frames(conf) if row["origin"] == "extra" and row["in_batch"]
    ] == [offered[0]]
    assert wrong == []


def test_the_sql_box_answers_and_says_what_is_wrong(context: BrowserContext, link: str) -> None:
    page, _ = opened(context, link)
    page.fill("#sql-text", "SELECT drive_id, count(*) AS frames FROM mined GROUP BY ALL ORDER BY drive_id")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#sql-answer td").first).to_have_text(HOSTILE)  # as text
    expect(page.locator("#sql-state")).to_contain_text("2 rows")
    page.get_by_role("tab", name="Chart").click()
    expect(page.locator("#sql-answer canvas")).to_be_visible()
    page.fill("#sql-text", "SELECT frame_id, hardness FROM selections ORDER BY rank LIMIT 3")
    page.keyboard.press("Control+Enter")
    page.get_by_role("tab", name="Contact sheet").click()
    expect(page.locator("#sql-answer figure img")).to_have_count(3)
    page.fill("#sql-text", "DROP VIEW mined")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#sql-answer [role=alert]")).to_contain_text("only reading is allowed here, not DROP")


def test_hostile_names_are_text_and_the_link_without_its_token_is_a_closed_door(
    context: BrowserContext, browser: Browser, link: str
) -> None:
    page, wrong = opened(context, link)
    expect(page.locator(".card").filter(has_text=HOSTILE).first).to_be_visible()
    assert page.title().startswith("Batch ")
    assert page.locator("img[src=x]").count() == 0
    assert wrong == []
    stranger = browser.new_context()
    answer = stranger.new_page().goto(link.partition("?")[0])
    assert answer is not None
    assert answer.status == 401
    stranger.close()
