"""Two nights and two committees: what was planted is found, what was not is not, and mix is told from the footage itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats as scipy_stats

from mining import config as config_file
from mining.cli import cli
from mining.committee import Committee
from mining.compare import committees, nights, text
from mining.config import Config
from mining.store import Store
from mining.types import UsageError, frame_id
from tests.mining.synthetic import COMMITTEE, Drive, commit, commit_together, store_of

FIRST, SECOND = date(2026, 3, 13), date(2026, 3, 14)
NEW = "a+b-11111111"
HOSTILE = "\x1b[31mrain\nINJECTED'; DROP TABLE frames; --<script>"


@pytest.fixture(autouse=True)
def committee(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        nights, "committee_of", lambda _: Committee(COMMITTEE, ("a", "b"), ("car",), (0.25, 0.25))
    )


def config(**sections: Any) -> Config:
    return Config.model_validate_json(
        json.dumps({
            "footage": {"paths": ["x"]}, "detector": [{"weights": "a.pt"}],
            "score": {"hardness": {"entropy_max": 1.0, "presence_sum": 1.0}}, **sections,
        })
    )  # fmt: skip


def fleet(
    seed: int, night: date, level: Callable[[int, bool], float], rainy: int, drives: int = 14, **given: Any
) -> list[Drive]:
    """Drives of unequal length; a drive's frames are alike. The first ``rainy`` of them are tagged so."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(drives):
        rain, n = i < rainy, int(rng.integers(20, 50))
        hardness = np.clip(level(i, rain) + rng.normal(0, 0.05) + rng.normal(0, 0.08, n), 0, 1)
        found.append(
            Drive(
                f"r{night.day}{i:02d}", hardness.tolist(), night=night, tags=(("weather", "rain" if rain else "dry"),),
                start_s=i * 600.0, is_night=i % 2 == 0, vehicle_id=f"v{i % 4}",
                classes=["car,animal" if rain and k % 4 == 0 else "car" for k in range(n)],
                scores={
                    "entropy_max": (hardness * 3).tolist(), "box_count": rng.integers(0, 9, n).tolist(),
                    "reference_id": ["ref"] * n,
                },
                **given,
            )
        )  # fmt: skip
    return found


def two_nights(
    tmp_path: Path, before: list[Drive], after: list[Drive], conf: Config | None = None, **asked: Any
) -> nights.NightComparison:
    store = Store(tmp_path / "store", create=True)
    commit_together(store, before)
    commit_together(store, after)
    return nights.compare(store, conf or config(), (FIRST, FIRST), (SECOND, SECOND), **asked)


def kind(found: nights.NightComparison, dimension: str, value: str) -> nights.Kind:
    return next(one for one in found.kinds if (one.dimension, one.value) == (dimension, value))


def test_more_rain_is_told_from_harder_rain(tmp_path: Path) -> None:
    """Rain is .3 harder. One night only has more of it; in another all frames became harder by .25."""
    level = lambda i, rain: 0.3 + 0.3 * rain  # noqa: E731
    mix = two_nights(tmp_path / "mix", fleet(1, FIRST, level, 2), fleet(2, SECOND, level, 10))
    assert mix.hardness_change.told
    assert mix.mix.told
    assert mix.mix.value == pytest.approx(mix.hardness_change.value, abs=0.04)
    assert not mix.within.told
    assert not kind(mix, "tag weather", "rain").hardness_change.told
    assert kind(mix, "tag weather", "rain").share_change.told
    assert text.night_sentence(mix).startswith("2026-03-14 is harder than 2026-03-13: mean hardness 0.3")

    within = two_nights(
        tmp_path / "within",
        fleet(1, FIRST, level, 6),
        fleet(2, SECOND, lambda i, rain: level(i, rain) + 0.25, 6),
    )
    assert within.within.told
    assert within.within.value == pytest.approx(0.25, abs=0.04)
    assert abs(within.mix.value or 0) < 0.04
    assert kind(within, "tag weather", "rain").hardness_change.told
    assert kind(within, "tag weather", "dry").hardness_change.value == pytest.approx(0.25, abs=0.05)
    signals = {one.signal: one for one in within.signals}
    assert signals["entropy_max"].above.told
    assert signals["entropy_max"].of_hardness
    assert not signals["box_count"].above.told
    assert within.slices_by == ("light", "tag weather")
    total = sum(part.value or 0 for part in (within.within, within.mix, within.only_one_side))
    assert total == pytest.approx(within.hardness_change.value)


def test_counts_are_those_of_the_store(tmp_path: Path) -> None:
    level = lambda i, rain: 0.3 + 0.3 * rain  # noqa: E731
    before, after = fleet(1, FIRST, level, 2), fleet(2, SECOND, level, 5)
    found = two_nights(tmp_path, before, after)
    for side, drives, rainy in ((0, before, 2), (1, after, 5)):
        told = (found.before, found.after)[side]
        hardness = np.concatenate([drive.hardness for drive in drives]).astype(np.float32)
        rain = np.concatenate([drive.hardness for drive in drives[:rainy]])
        assert (told.drives, told.vehicles, told.compared_frames) == (14, 4, len(hardness))
        assert told.mean_hardness == pytest.approx(hardness.mean(), rel=1e-6)
        assert told.hard_share == pytest.approx((hardness >= 0.75).mean())
        assert told.deciles[4] == pytest.approx(np.median(hardness))
        of_rain, animals = kind(found, "tag weather", "rain"), kind(found, "class", "animal")
        assert of_rain.frames[side] == len(rain)
        assert of_rain.hardness[side] == pytest.approx(rain.mean(), rel=1e-6)
        assert animals.share[side] == pytest.approx(
            sum("animal" in seen for drive in drives for seen in drive.classes or ()) / len(hardness)
        )
    entropy = next(one for one in found.signals if one.signal == "entropy_max")
    values = [
        np.concatenate([d.scores["entropy_max"] for d in drives]).astype(np.float32)
        for drives in (before, after)
    ]
    u = scipy_stats.mannwhitneyu(values[1], values[0]).statistic
    assert entropy.above.value == pytest.approx(u / (len(values[0]) * len(values[1])))


def test_alike_nights_are_seldom_told_apart(tmp_path: Path) -> None:
    """8 pairs of nights without a difference; test_compare_stats.py asks 400 how often an interval is wrong."""
    stars = headlines = 0
    for n in range(8):
        level = lambda i, rain: 0.4 + 0.1 * rain  # noqa: E731
        found = two_nights(
            tmp_path / str(n),
            fleet(2 * n, FIRST, level, 4, drives=8),
            fleet(2 * n + 1, SECOND, level, 4, drives=8),
        )
        headlines += bool(found.hardness_change.told)
        stars += any(one.hardness_change.told for one in found.kinds) + any(
            one.above.told for one in found.signals
        )
    assert headlines <= 2  # at 5 %, more come once in 170 draws
    assert stars <= 4  # of 16 tables


def test_too_few_drives_cannot_be_told_and_are_not(tmp_path: Path) -> None:
    found = two_nights(
        tmp_path, fleet(1, FIRST, lambda i, r: 0.2, 0, drives=2), fleet(2, SECOND, lambda i, r: 0.8, 0)
    )
    assert found.hardness_change.told is None
    assert found.hardness_change.low is None
    assert "cannot be told" in text.night_sentence(found)
    assert "2 and 14 drives" in text.night_sentence(found)


def test_quotas_and_expressions_part_the_frames(tmp_path: Path) -> None:
    level = lambda i, rain: 0.4 + 0.2 * rain  # noqa: E731
    conf = config(
        select={
            "quota": [
                {"name": "wet", "where": "tags['weather'] = 'rain'", "min": 1},
                {"by": "vehicle_id", "max": 9},
            ]
        }
    )
    before, after = fleet(1, FIRST, level, 4), fleet(2, SECOND, level, 9)
    found = two_nights(tmp_path, before, after, conf, by=["vehicle", "quota wet", "hour(captured_at) < 1"])
    assert found.slices_by == ("vehicle", "quota wet", "hour(captured_at) < 1")
    assert {one.value for one in found.slices} >= {"v0, wet, true", "v1, other, false"}
    assert sum(one.frames[0] for one in found.slices) == found.before.compared_frames
    assert kind(found, "quota wet", "wet").frames == kind(found, "tag weather", "rain").frames
    store = Store(tmp_path / "store")
    for by, words in (
        ("no_such_column", "--by no_such_column is not one SQL expression over `mined`"),
        ("frame_id", "at most 200 can be compared"),
        ("count(*)", "--by count(*)"),
        ("(SELECT 1); DROP VIEW mined", "is not one SQL expression"),
    ):
        with pytest.raises(UsageError) as caught:
            nights.compare(store, conf, (FIRST, FIRST), (SECOND, SECOND), [by])
        assert words in str(caught.value)


def test_a_quota_that_is_no_sql_is_said_in_one_line(tmp_path: Path) -> None:
    conf = config(select={"quota": [{"where": "no_such_column > 1", "min": 1}]})
    with pytest.raises(
        UsageError, match=r"^select\.quota\.0\.where is not one SQL condition.*no_such_column"
    ):
        two_nights(tmp_path, [Drive("r1", [0.5], night=FIRST)], [Drive("r2", [0.5], night=SECOND)], conf)


def test_names_from_vehicles_are_text(tmp_path: Path) -> None:
    def named(night: date) -> list[Drive]:
        return [
            Drive(
                f"r{night.day}{i}", [0.4, 0.5, 0.6], night=night, drive_id=f"{HOSTILE}{i}", vehicle_id=HOSTILE,
                tags=((HOSTILE, HOSTILE if i % 2 else "dry"),), classes=["car"] * 3,
            )
            for i in range(4)
        ]  # fmt: skip

    found = two_nights(tmp_path, named(FIRST), named(SECOND))
    assert found.slices_by == (f"tag {HOSTILE}",)
    assert kind(found, f"tag {HOSTILE}", HOSTILE).frames == (6, 6)
    page = text.text(found)
    assert "\x1b" not in page
    assert not any(line.startswith("INJECTED") for line in page.splitlines())
    assert max(len(line) for line in page.splitlines()) <= 120
    assert json.loads(json.dumps(text.as_dict(found)))["slices_by"] == [f"tag {HOSTILE}"]

    again = [replace(drive, committee_id=NEW, hardness=[0.9, 0.1, 0.5]) for drive in named(FIRST)]
    commit_together(Store(tmp_path / "store"), again)
    paired = committees.compare(Store(tmp_path / "store"), config(), COMMITTEE, NEW)
    page = text.text(paired)
    assert "\x1b" not in page
    assert not any(line.startswith("INJECTED") for line in page.splitlines())


def test_what_cannot_be_compared_is_said_in_one_line(tmp_path: Path) -> None:
    store = store_of(
        tmp_path, Drive("r1", [0.5] * 5, night=FIRST), Drive("r2", [0.5] * 5, night=SECOND, committee_id=NEW)
    )
    conf, third = config(), date(2026, 3, 15)

    def said(before: date, after: date) -> str:
        with pytest.raises(UsageError) as caught:
            nights.compare(store, conf, (before, before), (after, after))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "overlap" in said(FIRST, FIRST)
    assert "holds no footage of then; it holds 2 nights: 2026-03-13, 2026-03-14" in said(FIRST, third)
    assert f"none of its 5 frames is scored by {COMMITTEE}; scored by {NEW}" in said(FIRST, SECOND)
    commit(store, Drive("r3", [0.5] * 5, night=SECOND, scores={"reference_id": ["other"] * 5}))
    assert "2 references (none, other), which do not compare; `mining score" in said(FIRST, SECOND)
    commit(store, Drive("r4", [float("nan")] * 5, night=third))
    assert "no frame has a hardness" in said(FIRST, third)


def test_a_store_without_scores_says_so(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r1", [0.5] * 5, night=FIRST), Drive("r2", [0.5] * 5, night=SECOND))
    for night, key in ((FIRST, "r1"), (SECOND, "r2")):
        store.retract("score", night, key)
    with pytest.raises(
        UsageError, match=f"none of its 5 frames is scored by {COMMITTEE.replace('+', '.')}; `mining run`"
    ):
        nights.compare(store, config(), (FIRST, FIRST), (SECOND, SECOND))
    with pytest.raises(UsageError, match=r"no committee is called 'a'.*scored have none yet"):
        committees.compare(store, config(), "a", "b")


# -- committees --------------------------------------------------------------------------------------------------------


def seen_by_both(
    tmp_path: Path, seed: int = 5, drives: int = 10
) -> tuple[Store, dict[str, tuple[float, float]]]:
    """The new committee finds rain harder, and one frame above all; its hardness lies lower everywhere."""
    rng = np.random.default_rng(seed)
    store, hardness = Store(tmp_path / "store", create=True), {}
    each: dict[str, list[Drive]] = {COMMITTEE: [], NEW: []}
    for i in range(drives):
        n, rain = int(rng.integers(20, 40)), i < 4
        old = np.clip(0.5 + rng.normal(0, 0.15, n), 0, 1)
        new = np.clip(0.6 * (old + 0.2 * rain + rng.normal(0, 0.03, n)), 0, 1)
        if i == 7:
            old[3], new[3] = 0.02, 0.99
        for which, values, count in ((COMMITTEE, old, 2.0), (NEW, new, 3.0)):
            each[which].append(Drive(
                f"r{i}", values.tolist(), committee_id=which, tags=(("weather", "rain" if rain else "dry"),),
                classes=["car,animal" if rain and which == NEW else "car"] * n,
                scores={
                    "entropy_max_pct": values.tolist(), "presence_sum_pct": [0.5] * n, "box_count": [count + i] * n,
                    "reference_id": [f"of {which}"] * n,
                },
            ))  # fmt: skip
        hardness.update({frame_id(f"r{i}", k): (float(old[k]), float(new[k])) for k in range(n)})
    for of_one in each.values():
        commit_together(store, of_one)
    return store, hardness


def test_two_committees_on_the_same_footage(tmp_path: Path) -> None:
    store, hardness = seen_by_both(tmp_path)
    found = committees.compare(store, config(select={"budget": 30}), COMMITTEE, NEW)
    old, new = np.array(list(hardness.values()), np.float32).T
    assert (found.before, found.after, found.frames, found.drives) == (COMMITTEE, NEW, len(old), 10)
    assert (found.only_before, found.only_after) == (0, 0)
    assert found.rank_correlation == pytest.approx(scipy_stats.spearmanr(old, new).statistic)
    same = len(set(np.argsort(-old)[:30]) & set(np.argsort(-new)[:30]))
    assert (found.overlaps[0].size, found.overlaps[0].same) == (30, same)
    shifts = {(one.dimension, one.value): one for one in found.shifts}
    rain, dry = shifts["tag weather", "rain"], shifts["tag weather", "dry"]
    assert rain.shift.told
    assert (rain.shift.value or 0) > 0.1
    assert (dry.shift.value or 0) < 0  # the level fell for all; what is said is who moved among the others
    assert rain.frames * (rain.shift.value or 0) == pytest.approx(-dry.frames * (dry.shift.value or 0))
    first = found.harder[0]
    assert (first.frame_id, first.drive_id, first.signal) == (frame_id("r7", 3), "r7", "entropy_max")
    assert first.percentile == (pytest.approx(0.02), pytest.approx(0.99))
    claims = {one.signal: one for one in found.claims}
    assert claims["box_count"].change.value == pytest.approx(1.0)
    assert set(claims) == {"box_count"}
    animal = next(one for one in found.sights if one.name == "animal")
    assert (animal.only_before, animal.both) == (0, 0)
    assert animal.only_after == rain.frames


def test_no_two_frames_of_a_moment_are_named(tmp_path: Path) -> None:
    store, _ = seen_by_both(tmp_path)
    found = committees.compare(store, config(select={"min_gap_s": 5.0}), COMMITTEE, NEW, top=1000)
    for frames in (found.harder, found.easier):
        for i, one in enumerate(frames):
            for other in frames[:i]:
                if one.drive_id == other.drive_id:
                    assert abs((one.captured_at - other.captured_at).total_seconds()) >= 5
    assert {one.frame_id for one in found.harder}.isdisjoint(one.frame_id for one in found.easier)
    assert all(one.place[1] > one.place[0] for one in found.harder)
    assert len(committees.compare(store, config(), COMMITTEE, NEW, top=3).easier) == 3


def test_frames_that_one_alone_scored_are_counted_and_not_compared(tmp_path: Path) -> None:
    store, hardness = seen_by_both(tmp_path, drives=4)
    commit(store, Drive("s1", [0.9] * 7))
    commit(store, Drive("s2", [0.9] * 5, committee_id=NEW, night=date(2026, 3, 20)))
    commit(store, Drive("s3", [0.9] * 3))
    commit(store, Drive("s3", [float("nan")] * 3, committee_id=NEW))
    found = committees.compare(store, config(), COMMITTEE, NEW)
    assert (found.only_before, found.only_after, found.frames) == (10, 5, len(hardness))
    with pytest.raises(
        UsageError, match=r"no frame was scored by both .*-00000000 \(0 frames\) and .*-11111111 \(5 frames\)"
    ):
        committees.compare(store, config(), COMMITTEE, NEW, nights=(date(2026, 3, 20), date(2026, 3, 20)))


def test_committees_are_known_by_their_beginning_or_end(tmp_path: Path) -> None:
    store, _ = seen_by_both(tmp_path, drives=3)
    found = committees.compare(store, config(), "00000000", "a+b-1")
    assert (found.before, found.after) == (COMMITTEE, NEW)
    with pytest.raises(
        UsageError, match=f"several committees are called 'a.b'.*{COMMITTEE.replace('+', '.')}, "
    ):
        committees.compare(store, config(), "a+b", NEW)
    with pytest.raises(UsageError, match=r"both are a\+b-11111111"):
        committees.compare(store, config(), NEW, "11111111")
    for which in (COMMITTEE, NEW):
        commit(
            store,
            Drive("r9", [0.5] * 3, committee_id=which, scores={"reference_id": [f"of {COMMITTEE}"] * 3}),
        )
    with pytest.raises(UsageError, match=r"a\+b-11111111 holds scores against 2 references"):
        committees.compare(store, config(), COMMITTEE, NEW)


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_tells_nights_from_committees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = seen_by_both(tmp_path)
    level = lambda i, rain: 0.3 + 0.3 * rain  # noqa: E731
    commit_together(store, fleet(1, FIRST, level, 2))
    commit(store, Drive("last", [0.5] * 3, night=date(2026, 3, 20), scores={"reference_id": ["ref"] * 3}))
    monkeypatch.setattr(config_file, "load", lambda *_: config(store=str(store.root)))

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(cli, ["compare", *arguments, "--config", "c.toml"], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    of_nights = json.loads(said("2026-03-13", "2026-03-15..2026-03-20", "--json"))
    assert (of_nights["compares"], of_nights["after"]["nights"]) == ("nights", "2026-03-15..2026-03-20")
    assert set(of_nights["hardness_change"]) == {"value", "low", "high", "p_adjusted", "told"}
    assert said("2026-03-13", "2026-03-20").startswith(
        "Whether 2026-03-20 is harder than 2026-03-13 cannot be told"
    )
    of_committees = json.loads(said("00000000", "11111111", "--json", "--top", "2", "--nights", "2026-03-14"))
    assert (of_committees["compares"], len(of_committees["harder"])) == ("committees", 2)
    page = said("00000000", "11111111")
    assert page.splitlines()[0].startswith(f"{COMMITTEE} -> {NEW}: rank correlation of hardness 0.")
    assert max(map(len, page.splitlines())) <= 120
    for arguments, words in (
        (["2026-03-13", "00000000"], "name two nights, or two committees"),
        (["2026-02-30", "2026-03-13"], "night 2026-02-30: write it as"),
        (["2026-3-1", "2026-03-13"], "name two nights"),
    ):
        with pytest.raises(UsageError, match=words):
            said(*arguments)
