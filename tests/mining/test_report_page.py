"""The page in a real browser: filters, keys, the large view, light and dark; no request, no error, no text taken for code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from mining.report import data, page, write
from tests.mining.report_night import (
    BATCH,
    DRIVES,
    FORMULA,
    HOSTILE,
    REASON,
    SLICE,
    Night,
    know_committee,
    make,
    name,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Night, Path]:
    """The night, and its page as a file."""
    folder = tmp_path_factory.mktemp("night")
    with pytest.MonkeyPatch.context() as monkeypatch:
        know_committee(monkeypatch)
        night = make(folder)
        write.run(night.store, night.config, folder / "page.html", batch_id=BATCH)
    return night, folder / "page.html"


@dataclass
class Watched:
    """A tab, and what it did that it should not."""

    tab: Page
    faults: list[str] = field(default_factory=list)


Opener = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opener]:
    """Open a file; at the end, nothing must have been asked of any network, and no script have failed."""
    faults: list[str] = []
    contexts = []

    def open_file(file: Path, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        contexts.append(context)
        tab = context.new_page()
        tab.on(
            "request",
            lambda r: (
                None
                if r.url.startswith("data:") or r.url == file.as_uri()
                else faults.append(f"asked for {r.url}")
            ),
        )
        tab.on("console", lambda m: faults.append(m.text) if m.type in {"error", "warning"} else None)
        tab.on("pageerror", lambda e: faults.append(str(e)))
        tab.on("dialog", lambda d: (faults.append(f"dialog {d.message}"), d.dismiss()))
        tab.goto(file.as_uri())
        tab.wait_for_selector("html[data-ready]")
        return tab

    yield open_file
    for context in contexts:
        context.close()
    assert faults == []


def shown(tab: Page) -> list[str]:
    """Frame ids of the cards that are shown, in the order in which they lie."""
    return tab.evaluate("""() => [...document.querySelectorAll(".card:not([hidden])")]
        .sort((a, b) => a.style.order - b.style.order).map((card) => card.dataset.frame)""")


def test_hostile_names_are_text(written: tuple[Night, Path], opened: Opener) -> None:
    tab = opened(written[1])
    assert tab.locator(".card .reason").all_text_contents() == [REASON] * 9
    text = str(tab.locator("main").text_content())
    for said in (
        *DRIVES,
        f"broken: {HOSTILE}",
        f"/{FORMULA}.mp4".rsplit("/", maxsplit=1)[-1],
        SLICE,
        f"too few {HOSTILE}",
    ):
        assert said in text
    assert tab.locator('img[src="x"]').count() == 0
    tab.evaluate("M.open(0)")
    assert HOSTILE in tab.inner_text("#large .facts")
    assert tab.locator('img[src="x"]').count() == 0


def test_the_file_holds_everything(written: tuple[Night, Path], opened: Opener) -> None:
    html = written[1].read_text()
    assert len(re.findall(r"data:image/webp;base64,", html)) == 9
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", html)
    tab = opened(written[1], offline=True)
    widths = tab.evaluate("""() => Promise.all(M.frames.map(async (frame) => {
        const image = new Image();
        image.src = frame.image;
        await image.decode();
        return image.naturalWidth;
    }))""")
    assert widths == [160] * 9
    assert tab.locator("img:not([alt]), img[alt='']").count() == 0


def test_what_is_not_this_pages_own_does_not_run(written: tuple[Night, Path], browser: Browser) -> None:
    tab = browser.new_page()
    tab.goto(written[1].as_uri())
    tab.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.ran = true'>");
    }""")
    tab.wait_for_timeout(200)
    assert tab.evaluate("window.ran") is None
    assert tab.evaluate("fetch('https://example.invalid/').then(() => 'sent', () => 'refused')") == "refused"
    tab.close()


def test_each_filter_leaves_what_it_says(written: tuple[Night, Path], opened: Opener) -> None:
    night, file = written
    tab = opened(file)
    frames = {frame["frame_id"]: frame for frame in night.frames}

    def left(**chosen: str) -> list[str]:
        tab.click("#f-reset")
        for filter_name, value in chosen.items():
            tab.select_option(f"#f-{filter_name}", label=value)
        found = shown(tab)
        count = f"{len(found)} of 9 frames"
        assert tab.inner_text("#shown") == count
        return found

    assert left() == night.chosen
    assert left(slice=SLICE) == night.chosen[::3]
    assert left(slice="in no slice") == [frame for i, frame in enumerate(night.chosen) if i % 3]
    assert left(**{"class": "truck"}) == [f for f in night.chosen if "truck" in frames[f]["classes"]]
    assert left(drive=DRIVES[1]) == [f for f in night.chosen if frames[f]["drive_id"] == DRIVES[1]]
    assert left(arm="random") == night.chosen[7:]
    assert left(drive=DRIVES[0], arm="random") == [night.chosen[8]]
    assert left(sort="hardest first") == sorted(night.chosen, key=lambda f: -frames[f]["hardness"])
    assert left(sort="time") == sorted(night.chosen, key=lambda f: frames[f]["captured_at"])

    left(signal="entropy max")
    tab.locator("#f-least").evaluate(
        "(range) => { range.value = 50; range.dispatchEvent(new Event('input')); }"
    )
    assert shown(tab) == [f for f in night.chosen if frames[f]["entropy_max_pct"] >= 0.5]
    assert 0 < len(shown(tab)) < 9

    left()
    tab.check("#f-dispute")
    known = {card["frame_id"]: card["disagreements"] for card in tab.evaluate("M.data.frames")}
    assert shown(tab) == [f for f in night.chosen if known[f]]
    assert 0 < len(shown(tab)) < 9


def test_filters_that_leave_nothing_say_so(written: tuple[Night, Path], opened: Opener) -> None:
    tab = opened(written[1])
    tab.select_option("#f-signal", label="entropy max")
    tab.locator("#f-least").evaluate(
        "(range) => { range.value = 100; range.dispatchEvent(new Event('input')); }"
    )
    assert shown(tab) == []
    expect(tab.locator("#none")).to_have_text("No frame passes these filters. Reset shows all again.")


def test_keys_move_open_close_and_switch(written: tuple[Night, Path], opened: Opener) -> None:
    night, file = written
    tab = opened(file)

    def focused() -> str:
        return str(tab.evaluate("document.activeElement.closest('.card')?.dataset.frame"))

    for key, expected in (("j", 0), ("j", 1), ("j", 2), ("k", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        tab.keyboard.press(key)
        assert focused() == night.chosen[expected]
    tab.keyboard.press("ArrowDown")
    below = tab.evaluate("document.activeElement.offsetTop")
    tab.keyboard.press("ArrowUp")
    assert focused() == night.chosen[1]
    assert tab.evaluate("document.activeElement.offsetTop") < below

    tab.keyboard.press("Enter")
    assert tab.locator("#large").get_attribute("open") is not None
    assert night.chosen[1] in tab.inner_text("#large .facts")
    tab.keyboard.press("j")
    assert night.chosen[2] in tab.inner_text("#large .facts")
    tab.keyboard.press("Escape")
    assert tab.locator("#large").get_attribute("open") is None
    # The browser gives the focus back at once, and tells the page that it has closed a moment later.
    tab.wait_for_function(
        "frame => document.activeElement.closest('.card')?.dataset.frame === frame", arg=night.chosen[2]
    )

    boxes = tab.locator(".card .m0").first
    assert boxes.is_visible()
    tab.keyboard.press("1")
    assert not boxes.is_visible()
    assert tab.locator(".card .m1").first.is_visible()
    assert tab.locator("#member-0").get_attribute("aria-pressed") == "false"
    tab.keyboard.press("1")
    assert boxes.is_visible()

    tab.keyboard.press("d")
    assert tab.is_checked("#f-dispute")
    tab.keyboard.press("r")
    assert not tab.is_checked("#f-dispute")
    tab.keyboard.press("?")
    assert "next frame" in tab.inner_text("#help")
    tab.keyboard.press("Escape")
    tab.keyboard.press("f")
    assert tab.evaluate("document.activeElement.id") == "f-slice"


def test_every_control_is_reached_with_tab(written: tuple[Night, Path], opened: Opener) -> None:
    tab = opened(written[1])
    reached = set()
    for _ in range(60):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {
        "theme",
        "help-open",
        "f-slice",
        "f-class",
        "f-drive",
        "f-arm",
        "f-signal",
        "f-sort",
        "f-dispute",
        "f-reset",
        "member-0",
        "card",
    } <= reached


def test_the_large_view_tells_the_frame(written: tuple[Night, Path], opened: Opener) -> None:
    night, file = written
    tab = opened(file)
    tab.locator(f'.card[data-frame="{night.chosen[0]}"] .open').click()
    large = tab.locator("#large")
    text = large.inner_text()
    assert REASON in text
    for second in (0, 1, 3, 4, 5, 6):  # the neighbours of second 2, by name
        assert name(0, second) in text
    assert "shown here" in text  # second 4 is in the batch too
    large.get_by_role("button", name=name(0, 4)).click()
    assert name(0, 4) in large.locator(".facts").inner_text()
    rows = large.locator("section", has_text="Objects").locator("tbody tr")
    assert [row.split() for row in rows.all_inner_texts()] == [
        ["≠", "pedestrian", "0.60", "not", "seen"],
        ["=", "car", "0.90", "car", "0.80"],
    ]
    assert tab.evaluate("Chart.getChart('drive-plot').data.datasets.map((set) => set.data.length)") == [
        1,
        4,
        12,
    ]


def test_boxes_lie_where_the_detector_saw_them(written: tuple[Night, Path], opened: Opener) -> None:
    """What the browser draws, measured on the screen, against the box in pixels of the frame."""
    tab = opened(written[1])
    found = tab.evaluate("""() => {
        const card = document.querySelector(".card"), image = card.querySelector("img");
        const frame = M.frames[M.placeOf(card.dataset.frame)], seen = card.querySelector("img").getBoundingClientRect();
        const scale = Math.min(seen.width / image.naturalWidth, seen.height / image.naturalHeight) * image.naturalWidth / frame.width_px;
        const left = seen.x + (seen.width - scale * frame.width_px) / 2, top = seen.y + (seen.height - scale * frame.height_px) / 2;
        const path = card.querySelector(".m0 .agreed").getBoundingClientRect(), box = frame.boxes.find((one) => one.detector === "one" && !one.disagrees).box;
        return {drawn: [path.left, path.top, path.right, path.bottom],
                wanted: [left + scale * box[0], top + scale * box[1], left + scale * box[2], top + scale * box[3]]};
    }""")
    assert found["drawn"] == pytest.approx(found["wanted"], abs=1.5)


def test_charts_are_drawn_and_told_in_words(written: tuple[Night, Path], opened: Opener) -> None:
    tab = opened(written[1])
    charts = tab.locator("#charts figure")
    assert charts.locator("h3").all_inner_texts() == [
        "Hardness", "Signals of hardness", "One signal", "Time of day (UTC)", "Classes", "Where", "What the frames look like", "Slices and quotas",
    ]  # fmt: skip
    drawn = tab.evaluate("""() => [...document.querySelectorAll("#charts canvas")].map((canvas) => {
        const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, i) => i % 4 === 3 && value > 0).length / (canvas.width * canvas.height);
    })""")
    assert len(drawn) == 7
    assert min(drawn) > 0.01
    assert all(tab.locator("#charts canvas").nth(i).get_attribute("aria-label") for i in range(7))
    assert "1 of 2 slices holds fewer frames than wanted" in charts.last.inner_text()
    # As many metres across as up and down: a degree of longitude is shorter by the cosine of the latitude.
    ratio = tab.evaluate("""() => {
        const {scales, chartArea} = Chart.getChart([...document.querySelectorAll("#charts figure")].find((one) => one.textContent.startsWith("Where")).querySelector("canvas"));
        return ((scales.x.max - scales.x.min) / chartArea.width) * Math.cos(47 * Math.PI / 180) / ((scales.y.max - scales.y.min) / chartArea.height);
    }""")
    assert ratio == pytest.approx(1, abs=0.03)


def test_a_point_of_the_plane_opens_its_frame(written: tuple[Night, Path], opened: Opener) -> None:
    night, file = written
    tab = opened(file)
    figure = tab.locator("#charts figure", has_text="What the frames look like")
    figure.scroll_into_view_if_needed()
    at = figure.locator("canvas").evaluate("""(canvas) => {
        const chart = Chart.getChart(canvas), point = chart.getDatasetMeta(0).data[0];
        return {x: point.x, y: point.y, frame: chart.data.datasets[0].data[0].frame};
    }""")
    figure.locator("canvas").click(position={"x": at["x"], "y": at["y"]})
    opened_frame = tab.locator("#large .facts dd").first.inner_text()
    assert opened_frame in night.chosen


@pytest.mark.parametrize("width", [1400, 390])
def test_it_fits_laptop_and_phone(written: tuple[Night, Path], opened: Opener, width: int) -> None:
    tab = opened(written[1], viewport={"width": width, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.locator(".card .open").first.click()
    assert tab.evaluate("document.querySelector('#large').scrollWidth") <= width
    sizes = tab.evaluate(
        "[...document.querySelectorAll('#large .large-bar button')].map((b) => Math.min(b.offsetWidth, b.offsetHeight))"
    )
    assert min(sizes) >= 40  # a finger's width


def test_light_and_dark_follow_the_system_until_chosen(written: tuple[Night, Path], opened: Opener) -> None:
    def luma(tab: Page) -> int:
        return sum(
            map(int, re.findall(r"\d+", tab.evaluate("getComputedStyle(document.body).backgroundColor"))[:3])
        )

    light, dark = (opened(written[1], color_scheme=scheme) for scheme in ("light", "dark"))
    assert luma(light) > 600
    assert luma(dark) < 150
    light.click("#theme")
    assert luma(light) < 150
    light.reload()
    light.wait_for_selector("html[data-ready]")
    assert luma(light) < 150  # what was chosen stays
    dark.keyboard.press("t")
    assert luma(dark) > 600


def test_text_stands_out_from_its_ground(written: tuple[Night, Path], opened: Opener) -> None:
    """WCAG's contrast of 4.5 for what people read, light and dark; formula: https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio"""

    def channel(value: int) -> float:
        share = value / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    def luminance(colour: str) -> float:
        r, g, b = (channel(int(part)) for part in re.findall(r"\d+", colour)[:3])
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    for scheme in ("light", "dark"):
        tab = opened(written[1], color_scheme=scheme)
        for front, back in (
            (".card .reason", ".card"),
            (".card .where", ".card"),
            ("h2", "body"),
            (".badge.mined", ".badge.mined"),
            (".badge.random", ".badge.random"),
        ):
            colours = [
                luminance(tab.evaluate(f"getComputedStyle(document.querySelector('{one}')).{what}"))
                for one, what in ((front, "color"), (back, "backgroundColor"))
            ]
            assert (max(colours) + 0.05) / (min(colours) + 0.05) >= 4.5, (scheme, front)


def test_a_page_without_a_frame_is_sentences(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know_committee(monkeypatch)
    night = make(tmp_path, batch=False)
    for marker in ("score", "detect"):
        for _, key in list(night.store.markers(marker)):
            night.store.retract(marker, night.frames[0]["captured_at"].date(), key)
    (tmp_path / "empty.html").write_text(
        page.render(data.collect(night.store, night.config, night=night.frames[0]["captured_at"].date()))
    )
    tab = opened(tmp_path / "empty.html")
    text = tab.inner_text("main")
    for said in (
        "No batch holds a frame of this night, and none is scored", "No frame of this footage is scored yet", "There is no frame to show",
        "so there is no map", "Too few frames have an embedding", "there are no quotas to fill",
    ):  # fmt: skip
        assert said in text
    assert tab.locator("canvas").count() == 0
