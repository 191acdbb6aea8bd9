"""More like this: the frames of the whole store whose embedding lies nearest to an example's.

Embeddings are those of the committee's first detector, L2-normalised. The distance d of two of them is Euclidean, 0 to 2,
and their cosine is 1 - d^2 / 2. The answer is exact: DuckDB reads every embedding once and keeps only the nearest.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mining.committee import Committee, committee_of, load_member
from mining.config import Config
from mining.decode import Decoder
from mining.footage import FootageError
from mining.footage.images import read_image
from mining.footage.names import IMAGE_ENDINGS, ending
from mining.isolated import Crashed
from mining.store import Store, sql_file
from mining.types import FloatArray, MiningError, QueryError, UsageError
from mining.views import check_that_it_reads, unreadable

_NEIGHBOURS_PER_ANSWER = 200
"""How many frames are looked through at first for each answer: the moments of 3 s at 30 Hz, and some."""


def is_image(example: str) -> bool:
    """Whether an example is an image file, told by its ending; everything else is a frame id."""
    return ending(example) in IMAGE_ENDINGS


def embeddings_of(store: Store, config: Config, committee: Committee, examples: Sequence[str]) -> FloatArray:
    """Look up or make the embedding of each example.

    Args:
        store: holds the frames.
        config: its first detector looks at image files, prepared as in the detect stage.
        committee: the config's, in whose observations frames are looked up.
        examples: frame ids, or image files (see ``is_image``); relative paths start at the config file's folder.

    Returns:
        [m, d] L2-normalised, in the order of the examples.

    Raises:
        UsageError: a frame or file that is not there, or has no embedding; one line that says the way out.
        MiningError: the detector fails on an image.
    """
    images = list(dict.fromkeys(example for example in examples if is_image(example)))
    frames = list(dict.fromkeys(example for example in examples if not is_image(example)))
    found = _of_frames(store, committee, frames) | _of_images(config, images)
    return np.stack([found[example] for example in examples]) if examples else np.zeros((0, 0), np.float32)


def image_digests(config: Config, examples: Sequence[str]) -> list[str]:
    """Hash the pixels of the image files among the examples; one that cannot be read is a UsageError."""
    paths = [example for example in examples if is_image(example)]
    return [hashlib.sha256(rgb.tobytes()).hexdigest() for rgb in _pixels(config, paths)]


def find(
    store: Store,
    config: Config,
    example: str,
    *,
    count: int = 20,
    where: str = "true",
    gap_s: float | None = None,
) -> pa.Table:
    """Find the frames that look most like an example, over all nights, for the config's committee.

    Args:
        store: where frames are looked for.
        config: names the committee; ``select.min_gap_s`` is the gap where none is given.
        example: a frame id or an image file (see ``embeddings_of``); the frame itself is left out.
        count: how many; fewer come back only where no more are eligible.
        where: SQL condition over the columns of the view ``mined``.
        gap_s: least time between two answers of one drive and camera, and between an answer and the example: the nearest
            one of each moment is kept. 0 gives every frame.

    Returns:
        Nearest first, ties by frame_id: rank, frame_id, distance, cosine, hardness, drive_id, camera, captured_at,
        frame_index, uri.

    Raises:
        UsageError: as ``embeddings_of``, or where the condition is wrong.
    """
    committee = committee_of(config)
    embedding = embeddings_of(store, config, committee, [example])[0]
    gap_us = int((config.select.min_gap_s if gap_s is None else gap_s) * 1e6)
    with store.connect(locked=True) as con:
        _open_observations(con, committee, where)
        own_moment = con.execute(
            "SELECT drive_id, camera, epoch_us(captured_at) FROM frames WHERE frame_id = $frame_id",
            {"frame_id": example},
        ).fetchall()
        asked = count * _NEIGHBOURS_PER_ANSWER
        while True:
            parameters = {
                "example": embedding.tolist(),
                "committee_id": committee.committee_id,
                "count": asked,
            }
            nearest = con.sql(sql_file("similar"), params=parameters).to_arrow_table()
            if not nearest.num_rows:
                raise UsageError(
                    f"{store.root}: committee {committee.committee_id} has looked at no frame"
                    + (
                        f" that satisfies {where!r}"
                        if _is_condition(where)
                        else "; run `mining detect` first"
                    )
                )
            taken = _one_a_moment(nearest, example, own_moment, gap_us)[:count]
            if len(taken) == count or nearest.num_rows < asked:
                return _answer(nearest.take(pa.array(taken, pa.int64())))
            asked *= 8


def nearest(
    con: duckdb.DuckDBPyConnection,
    committee: Committee,
    example: FloatArray,
    frame_ids: pa.StringArray,
    count: int,
) -> list[str]:
    """Name those of some frames that lie nearest to an example's embedding [d], the nearest first, ties by frame_id."""
    con.register("admitted", pa.table({"frame_id": frame_ids}))
    try:
        con.execute(
            "CREATE OR REPLACE TEMP VIEW looked_at AS FROM observations SEMI JOIN admitted USING (frame_id)"
        )
        asked = {"example": example.tolist(), "committee_id": committee.committee_id, "count": count}
        found = con.sql(sql_file("similar"), params=asked).to_arrow_table()
    finally:
        con.unregister("admitted")
    return [str(name) for name in found["frame_id"].to_pylist()]


def _of_frames(store: Store, committee: Committee, frame_ids: list[str]) -> dict[str, FloatArray]:
    if not frame_ids:
        return {}
    asked = {"frame_ids": frame_ids}
    with store.connect() as con:
        rows = con.execute(
            "SELECT frame_id, embedding, error FROM observations "
            "WHERE committee_id = $committee_id AND list_contains($frame_ids::VARCHAR[], frame_id)",
            {**asked, "committee_id": committee.committee_id},
        ).fetchall()
        known = con.execute(
            "SELECT frame_id FROM frames WHERE list_contains($frame_ids::VARCHAR[], frame_id)", asked
        ).fetchall()
    looked_at = {frame_id: (embedding, error) for frame_id, embedding, error in rows}
    for frame_id in frame_ids:
        if frame_id in looked_at:
            if looked_at[frame_id][0] is None:
                raise UsageError(
                    f"frame {frame_id} has no embedding ({looked_at[frame_id][1]}); take another one, or an image file"
                )
        elif (frame_id,) in known:
            raise UsageError(
                f"frame {frame_id} was never shown to committee {committee.committee_id}; run `mining detect` with "
                "this config, or use the config that looked at it"
            )
        else:
            raise UsageError(
                f'no frame is called {frame_id!r} in {store.root}; `mining sql "SELECT frame_id FROM mined"` lists '
                f"them, and an image file ends in {', '.join(sorted(IMAGE_ENDINGS))}"
            )
    return {frame_id: np.asarray(embedding, np.float32) for frame_id, (embedding, _) in looked_at.items()}


def _of_images(config: Config, paths: list[str]) -> dict[str, FloatArray]:
    """Show image files to the committee's first detector."""
    if not paths:
        return {}
    pixels = _pixels(config, paths)
    from detectors.preprocess import Batch  # torch: only where there is an image to look at

    primary = load_member(config, 0)
    found = {}
    for path, rgb in zip(paths, pixels, strict=True):  # one by one: images differ in size
        predictions = primary.predict(Batch([rgb]))
        if predictions.errors:
            raise MiningError(f"{path}: {primary.name} fails on it: {predictions.errors[0]}")
        found[path] = predictions.embeddings[0]
    return found


def _pixels(config: Config, paths: Sequence[str]) -> list[NDArray[np.uint8]]:
    found = []
    with Decoder(config) as decoder:
        for path in map(config.path, paths):
            try:
                found.append(decoder.call(read_image, str(path)))
            except FootageError as error:
                raise UsageError(f"{path.parent}/{error}") from None
            except Crashed as error:
                raise UsageError(f"{path}: the decoder {error}; take another image") from None
    return found


def _is_condition(where: str) -> bool:
    return where.strip().lower() != "true"


def _open_observations(con: duckdb.DuckDBPyConnection, committee: Committee, where: str) -> None:
    """Make the view ``looked_at``: observations of the frames that the condition admits."""
    if not _is_condition(where):
        con.execute("CREATE TEMP VIEW looked_at AS FROM observations")
        return
    try:
        condition = duckdb.SQLExpression(where)
        check_that_it_reads(con, f"SELECT {where}")
        mine = con.sql(
            "FROM mined WHERE committee_id = $committee_id", params={"committee_id": committee.committee_id}
        )
        mine.filter(condition).select("frame_id").create("wanted")
    except duckdb.Error as error:
        text = " ".join(str(error).split())
        raise unreadable(error) or UsageError(
            f"--where is not one SQL condition over `mined`: {text}"
        ) from None
    except QueryError as error:
        raise UsageError(f"--where: {error}") from None
    con.execute("CREATE TEMP VIEW looked_at AS FROM observations SEMI JOIN wanted USING (frame_id)")


def _one_a_moment(
    nearest: pa.Table, example: str, own_moment: list[tuple[str, str, int]], gap_us: int
) -> list[int]:
    """Walk from the nearest on; leave out the example, and what lies within the gap of it or of an earlier answer."""
    names = ("frame_id", "drive_id", "camera")
    at_us = nearest["captured_at"].cast(pa.int64()).to_pylist()
    moments: dict[tuple[str, str], list[int]] = defaultdict(list)
    for drive_id, camera, moment_us in own_moment:
        moments[drive_id, camera].append(moment_us)
    taken: list[int] = []
    rows = zip(*(nearest[name].to_pylist() for name in names), at_us, strict=True)
    for i, (frame_id, drive_id, camera, moment_us) in enumerate(rows):
        if frame_id == example or drive_id is None:
            continue
        others = moments[drive_id, camera]
        if all(abs(moment_us - other) >= gap_us for other in others):
            others.append(moment_us)
            taken.append(i)
    return taken


def _answer(found: pa.Table) -> pa.Table:
    distance = found["distance"].to_numpy().astype(np.float64)
    columns = {
        "rank": pa.array(np.arange(1, len(distance) + 1), pa.int32()),
        "frame_id": found["frame_id"],
        "distance": found["distance"],
        "cosine": pa.array(1 - distance**2 / 2, pa.float32()),
    }
    rest = ("hardness", "drive_id", "camera", "captured_at", "frame_index", "uri")
    return pa.table({**columns, **{name: found[name] for name in rest}})
