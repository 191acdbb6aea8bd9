"""The store -> one plain dict, which a page shows. Everything is counted in SQL; only samples and chosen frames are rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from mining.config import Config
from mining.report.cards import cards_of, chosen_rows, iso, named_rows
from mining.report.scope import Scope, scope_of
from mining.store import Store


def collect(
    store: Store, config: Config, *, night: date | None = None, batch_id: str | None = None
) -> dict[str, Any]:
    """Gather all that a page says, but the pictures: every card's ``image`` is None.

    Args:
        store: the config's.
        config: names the committee.
        night: show this night, and what of it the newest batch holds; without a batch, its hardest frames.
        batch_id: show this batch; the committee's newest where neither is given.

    Returns:
        JSON values: mode, title, made_at, night, batch_id, committee_id, members, summary, charts, frames, reviewer.

    Raises:
        UsageError: no such night or batch, or another committee chose it.
    """
    scope = scope_of(store, config, night=night, batch_id=batch_id)
    with scope.connect() as con:
        frames = (
            []
            if scope.batch_id is None
            else cards_of(con, scope, chosen_rows(con, scope.batch_id, here_only=scope.is_night))
        )
    return {
        "mode": "report",
        "title": _title(scope),
        "made_at": iso(datetime.now(UTC)),
        "night": None if scope.night is None else scope.night.isoformat(),
        "batch_id": scope.batch_id,
        "committee_id": scope.committee.committee_id,
        "members": [
            {"name": name, "threshold": threshold}
            for name, threshold in zip(scope.committee.names, scope.committee.thresholds, strict=True)
        ],
        "summary": {},
        "charts": {},
        "frames": frames,
        "reviewer": None,
    }  # fmt: skip


def cards(store: Store, config: Config, batch_id: str, frame_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Make the cards of any mined frames, such as replacements, in the order given; ``image`` is None.

    How a frame was chosen (rank, arm, slice, reason) is None where the batch does not hold it.

    Raises:
        UsageError: no such batch, or another committee chose it.
    """
    scope = scope_of(store, config, batch_id=batch_id)
    with scope.connect() as con:
        return cards_of(con, scope, named_rows(con, frame_ids, batch_id))


def _title(scope: Scope) -> str:
    return f"Batch {scope.batch_id}" if scope.night is None else f"Night of {scope.night.isoformat()}"
