"""All that a report knows about an entry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from maml_rl.experiments.report.entries import Entry
from maml_rl.experiments.report.history import Columns
from maml_rl.experiments.report.scores import Scores
from maml_rl.pictures.report.blocks import Media
from maml_rl.storage.columns import SCORES


class Gathered(NamedTuple):
    """All that is known about an entry."""

    entry: Entry
    histories: Sequence[Columns]  # of each run
    scores: Scores | None
    media: Sequence[Media]
    remark: str = ""  # a sentence on scores that are missing


def metric_of(history: Columns) -> str | None:
    """The measure that a run is trained by: the first score of its tasks after adaptation."""
    ends = [name.removesuffix("_after") for name in history if name.endswith("_after")]
    return next((name for name in ends if name in SCORES), None)


def evaluated_after(history: Columns, metric: str | None) -> list[int]:
    """The numbers of adaptations that held-out tasks were scored after, during training."""
    found = (re.fullmatch(rf"eval_{metric}_(\d+)", name) for name in history)
    return sorted(int(each[1]) for each in found if each)


def in_steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"
