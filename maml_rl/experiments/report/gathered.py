"""All that a report knows about an entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from maml_rl.experiments.report.entries import Entry
from maml_rl.experiments.report.history import Columns
from maml_rl.experiments.report.scores import Scores
from maml_rl.pictures.report.blocks import Media


class Gathered(NamedTuple):
    """All that is known about an entry."""

    entry: Entry
    histories: Sequence[Columns]  # of each run
    scores: Scores | None
    media: Sequence[Media]
    remark: str = ""  # a sentence on scores that are missing


def metric_of(history: Columns) -> str | None:
    """The measure that a run is trained by: the one with a spread over tasks."""
    ends = [name.removesuffix("_after_std") for name in history if name.endswith("_after_std")]
    return ends[0] if ends else None


def in_steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"
