"""Write docs/cookbook.md: questions about a store, their queries, and the answers of the demo's store.

    mining demo && python tools/make_cookbook.py demo/store

tests/mining/test_cookbook.py asks every question of a small store; the demo's own test asks them of the demo's.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from mining import ask
from mining.text import one_line

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cookbook.md"
_SHOWN = 6
"""Rows of an answer on the page."""


@dataclass(frozen=True)
class Question:
    """A question as people ask it, and the query that answers it."""

    asked: str
    sql: str
    note: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)


QUESTIONS = (
    Question(
        "Which frames are hardest?",
        """
SELECT frame_id, drive_id, camera, round(hardness, 3) AS hardness, classes
FROM mined
ORDER BY hardness DESC, frame_id
LIMIT 10
""",
    ),
    Question(
        "Which are the 2,000 hardest night frames with a pedestrian, at most 5 a drive?",
        """
SELECT frame_id, drive_id, hardness
FROM scores
WHERE at_night(scores) AND has_class(scores, 'pedestrian')
QUALIFY row_number() OVER (PARTITION BY drive_id ORDER BY hardness DESC) <= 5
ORDER BY hardness DESC
LIMIT 2000
""",
        "`scores` holds all that this needs, so it stays quick over a hundred million frames (`tools/bench_sql.py`). "
        "`FROM mined` gives the same rows and can show more columns, but joins every frame; name some `--nights` then.",
    ),
    Question(
        "Where is the committee of two minds whether something is there?",
        """
SELECT drive_id, camera, count(*) AS frames, round(avg(presence_sum), 2) AS disagreement
FROM mined
GROUP BY ALL
ORDER BY disagreement DESC, drive_id, camera
""",
    ),
    Question(
        "Which pedestrians did only one detector see, and surely?",
        """
SELECT frame_id, any_value(detector) AS seen_by, round(max(confidence), 2) AS confidence
FROM detections
WHERE class = 'pedestrian'
GROUP BY committee_id, frame_id, match_id
HAVING count(DISTINCT detector) = 1 AND max(confidence) > 0.4
ORDER BY confidence DESC, frame_id
LIMIT 10
""",
        "`match_id` is the same for boxes of one object in a frame.",
    ),
    Question(
        "What do the detectors call differently?",
        """
SELECT a.class AS one_says, b.class AS another_says, count(*) AS objects
FROM detections AS a
JOIN detections AS b USING (committee_id, frame_id, match_id)
WHERE a.detector < b.detector AND a.class <> b.class AND least(a.confidence, b.confidence) > 0.1
GROUP BY ALL
ORDER BY objects DESC, one_says, another_says
LIMIT 10
""",
    ),
    Question(
        "In how many frames is each class seen, and how hard are these?",
        """
SELECT class, count(*) AS frames, round(avg(hardness), 2) AS mean_hardness
FROM (SELECT unnest(string_split(classes, ',')) AS class, hardness FROM scores WHERE classes <> '')
GROUP BY class
ORDER BY frames DESC, class
""",
    ),
    Question(
        "Where were animals seen?",
        """
SELECT drive_id, count(*) AS frames, min(captured_at) AS first_seen, round(max(hardness), 2) AS hardest
FROM mined
WHERE has_class(mined, 'animal')
GROUP BY drive_id
ORDER BY frames DESC, drive_id
""",
    ),
    Question(
        "What was seen within 500 m of a place?",
        """
SELECT drive_id, count(*) AS frames, round(min(distance_m(latitude_deg, longitude_deg, $lat, $lon))) AS nearest_m,
       round(avg(speed_mps) * 3.6) AS mean_kmh
FROM mined
WHERE near(mined, $lat, $lon, 500)
GROUP BY drive_id
ORDER BY nearest_m, drive_id
""",
        "Parameters are values and never SQL, so a script can hand on whatever it was given.",
        {"lat": 53.553, "lon": 9.993},
    ),
    Question(
        "How hard is each weather?",
        """
SELECT tags['weather'] AS weather, count(*) AS frames, round(median(hardness), 2) AS median_hardness,
       round(quantile_cont(hardness, 0.95), 2) AS hardest_20th
FROM mined
GROUP BY ALL
ORDER BY median_hardness DESC, weather
""",
        "Tags come from the sidecars. A tag that a recording lacks is NULL.",
    ),
    Question(
        "What was hard at dusk and dawn?",
        """
SELECT frame_id, drive_id, round(sun_elevation_deg, 1) AS sun_deg, round(luma_mean) AS luma, round(hardness, 2) AS hardness
FROM mined
WHERE sun_elevation_deg BETWEEN -12 AND 8
ORDER BY hardness DESC, frame_id
LIMIT 10
""",
    ),
    Question(
        "Is the committee less sure when the car is fast?",
        """
SELECT floor(speed_mps * 3.6 / 20) * 20 AS kmh_from, count(*) AS frames, round(avg(entropy_mean_pct), 2) AS doubt,
       round(avg(hardness), 2) AS hardness
FROM mined
WHERE speed_mps IS NOT NULL
GROUP BY ALL
ORDER BY kmh_from
""",
        "`..._pct` are percentiles against the committee's reference, so drives and nights compare.",
    ),
    Question(
        "How does a drive's hardness run over time?",
        """
SELECT drive_id, time_bucket(INTERVAL 10 SECONDS, captured_at) AS from_time, count(*) AS frames,
       round(max(hardness), 2) AS hardest, bar(max(hardness), 0, 1, 20) AS picture
FROM mined
WHERE drive_id = (SELECT min(drive_id) FROM frames)
GROUP BY ALL
ORDER BY from_time
LIMIT 20
""",
    ),
    Question(
        "Which scenes are hard for longest?",
        """
SELECT drive_id, camera, (end_ns - start_ns) / 1e9 AS length_s, frames, round(peak_hardness, 2) AS peak, classes
FROM scenes
ORDER BY length_s DESC, scene_id
LIMIT 10
""",
    ),
    Question(
        "Why was a frame chosen?",
        """
SELECT arm, rank, frame_id, reason
FROM selections
ORDER BY batch_id, arm, rank
LIMIT 10
""",
    ),
    Question(
        "Is what was mined harder than what was drawn at random?",
        """
SELECT coalesce(arm, 'not chosen') AS arm, count(*) AS frames, round(avg(m.hardness), 2) AS mean_hardness,
       round(avg(m.box_count), 1) AS mean_boxes
FROM mined AS m
LEFT JOIN selections AS s USING (frame_id)
GROUP BY ALL
ORDER BY mean_hardness DESC
""",
        "A frame that several batches hold counts once for each.",
    ),
    Question(
        "Which hard frames did no batch take?",
        """
SELECT frame_id, drive_id, round(hardness, 2) AS hardness
FROM mined
WHERE NOT chosen
ORDER BY hardness DESC, frame_id
LIMIT 10
""",
        "Mostly neighbours of frames that were taken: `select.min_gap_s` keeps a batch apart in time.",
    ),
    Question(
        "Which frames look like the hardest one?",
        """
WITH wanted AS (SELECT frame_id, committee_id, embedding FROM mined ORDER BY hardness DESC, frame_id LIMIT 1)
SELECT m.frame_id, m.drive_id, round(list_cosine_distance(m.embedding, w.embedding), 5) AS distance
FROM mined AS m
JOIN wanted AS w ON w.committee_id = m.committee_id AND w.frame_id <> m.frame_id
ORDER BY distance, m.frame_id
LIMIT 10
""",
    ),
    Question(
        "How long does each detector hold on to an object?",
        """
SELECT detector, count(*) AS objects, median(boxes) AS median_boxes, max(boxes) AS longest
FROM (SELECT detector, recording_id, track_id, count(*) AS boxes FROM tracks GROUP BY ALL)
GROUP BY detector
ORDER BY detector
""",
        "Counted in looked-at frames. `track_id` is of one recording and one detector.",
    ),
    Question(
        "How small are the objects that each detector is sure of?",
        """
SELECT detector, class, count(*) AS boxes, round(median(y2_px - y1_px)) AS median_height_px,
       round(avg((y2_px - y1_px < 24)::INTEGER), 2) AS share_below_24_px
FROM detections
WHERE confidence > 0.5
GROUP BY ALL
ORDER BY boxes DESC, detector, class
LIMIT 10
""",
    ),
    Question(
        "What does each night hold, and what failed?",
        """
SELECT night, count(*) AS recordings, count_if(r.status <> 'ok') AS not_whole, sum(frame_count)::BIGINT AS frames_in_footage,
       (SELECT count(*) FROM frames AS f WHERE f.night = r.night) AS frames_looked_at,
       (SELECT count(*) FROM observations AS o WHERE o.night = r.night AND o.status = 'failed') AS failed
FROM recordings AS r
GROUP BY night
ORDER BY night
""",
        "`SELECT uri, status, error FROM recordings WHERE status <> 'ok'` says what is wrong with which file.",
    ),
)

_HEAD = """\
<!-- Written by tools/make_cookbook.py from the demo's store; edit the questions there. -->

# Cookbook

{count} questions about a store, as people ask them. Every query runs with `mining sql`:

```sh
mining sql "SELECT count(*) FROM mined" --store demo/store
mining sql --file question.sql --store demo/store --param lat=53.553 --param lon=9.993 --format csv
mining sql --store demo/store                # a prompt: .tables, .schema NAME, .macros, .help
mining sql --file question.sql --store /site/a --store /site/b --nights 2026-03-01..2026-03-14
```

The answers below are those of the store that `mining demo` makes (eight drives of one night); at most {shown} rows are
shown. Every column stands in [tables.md](tables.md).

Four macros make conditions over a row. Their first argument is the view, or its alias:

| macro | true where | asks for |
|---|---|---|
| `at_night(mined)` | the sun stands lower than 6 degrees below the horizon; where no position is known: `luma_mean` is below 50 | mined, scores |
| `has_class(mined, 'animal')` | any member of the committee sees this class at its threshold | mined, scores |
| `near(mined, lat, lon, metres)` | the frame was taken within so many metres | mined, frames |
| `distance_m(lat, lon, lat, lon)` | (a number) metres between two places | |

Where what they need is NULL, so is their answer, and `WHERE` leaves the row out: a frame that did not decode is neither
night nor day. `mining sql` reads only what is committed, writes nothing, and opens no other file.

To ask from another program, run what `mining views` prints in any DuckDB, or hand on the file that `mining database` writes:
it holds copies of the tables, so it shows one moment and can be moved. DuckDB reads it from release 1.0 on (macros over
`mined` from 1.1).
"""


def page(store: Path) -> str:
    """Ask every question of a store, and write the page."""
    parts = [_HEAD.format(count=len(QUESTIONS), shown=_SHOWN)]
    for number, question in enumerate(QUESTIONS, 1):
        answer = ask.query([store], question.sql, parameters=question.parameters)
        given = "".join(f" --param {name}={value}" for name, value in question.parameters.items())
        parts.append(f"\n## {number}. {question.asked}\n\n```sql\n{question.sql.strip()}\n```\n")
        if question.note or given:
            parts.append(
                f"\n{' '.join(filter(None, [question.note, given and f'Here with `{given.strip()}`.']))}\n"
            )
        parts.append(f"\n{as_markdown(answer)}")
    return "".join(parts)


def as_markdown(table: pa.Table) -> str:
    """Write the first rows of an answer as a Markdown table."""
    rows = [[_cell(value) for value in row.values()] for row in table.slice(0, _SHOWN).to_pylist()]
    lines = [table.column_names, ["---"] * table.num_columns, *rows]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return text + (f"\n{table.num_rows} rows.\n" if table.num_rows > _SHOWN else "")


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return one_line(str(value)).replace("|", "\\|")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=inspect.cleandoc(__doc__ or ""), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    PAGE.write_text(page(parser.parse_args().store))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
