"""Everything that a report shows: checked first, then read, computed or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from maml_rl.experiments.report.entries import Entry, entries_of
from maml_rl.experiments.report.gathered import Gathered
from maml_rl.experiments.report.history import Columns
from maml_rl.experiments.report.media import drawn_media, found_media, require_drawable
from maml_rl.experiments.report.scores import Scores, cost_of, new_scores, saved_scores
from maml_rl.experiments.runs import WhichCheckpoint
from maml_rl.experiments.trust import by_trust, require_trust
from maml_rl.pictures.report.blocks import Media
from maml_rl.storage.checkpoint import iterations_on_disk
from maml_rl.storage.log import read_metrics

Pictures = Literal["found", "drawn", "none"]

UNASKED_TASKS = 40
"""Tasks of an evaluation that is made without being asked for, or that a note proposes."""


class Choices(NamedTuple):
    """The user's choices for a report."""

    num_tasks: int | None = None  # fresh tasks of a new evaluation; None for a saved one
    evaluation: str = "evaluation"  # name of the saved one
    pictures: Pictures = "found"
    seed: int = 1  # of new evaluations
    checkpoint: WhichCheckpoint = "last"
    trusted: tuple[str, ...] = ()  # the user's own classes that may be imported
    data_root: str | None = None  # of few-shot classification


def gather(paths: Sequence[Path], choices: Choices) -> list[Gathered]:
    """All that is to be said about runs and experiments.

    Raises:
        ValueError: if a folder holds neither, the runs do not fit together, or cannot be scored or drawn as asked.
        SamplingError: if an episode fails.
    """
    entries = entries_of(paths)
    if choices.num_tasks is not None and choices.num_tasks < 1:
        raise ValueError(f"num_tasks must be at least 1, got {choices.num_tasks}")
    for entry in entries:
        if choices.num_tasks is not None or choices.pictures == "drawn":
            for run, config in zip(entry.runs, entry.configs, strict=True):
                require_trust(run, config, choices.trusted, by_trust)
                _require_checkpoint(run)
        if choices.pictures == "drawn":
            require_drawable(entry)
    histories = [[read_metrics(run) for run in entry.runs] for entry in entries]
    scored = _scores(entries, histories, choices)
    return [
        Gathered(entry, own, scores, _pictures(entry, choices), remark)
        for entry, own, (scores, remark) in zip(entries, histories, scored, strict=True)
    ]


def _require_checkpoint(run: Path) -> None:
    if not iterations_on_disk(run / "checkpoints"):
        raise ValueError(
            f"run {run} must have a checkpoint to be scored or drawn, but it has none: leave out --num-tasks and take "
            "--pictures found"
        )


def _scores(
    entries: Sequence[Entry], histories: Sequence[Sequence[Columns]], choices: Choices
) -> list[tuple[Scores | None, str]]:
    """The scores of each entry, and a sentence where there are none or they are old.

    Without a saved evaluation one is made unasked only where that is cheap: a report on robots takes no minutes.
    """
    saved = [saved_scores(entry, choices.evaluation) for entry in entries]
    if choices.num_tasks is not None or (None in saved and all(map(_is_cheap, entries))):
        number, seed = choices.num_tasks or UNASKED_TASKS, choices.seed
        queries = getattr(entries[0].config.task, "test_queries", None)  # the same of all, so that tasks are the same
        own = choices.checkpoint, choices.trusted, choices.data_root, queries
        return [(new_scores(entry, number, seed, *own), "") for entry in entries]
    return [
        (scores, _missing(entry, own, choices) if scores is None else _stale(entry, scores))
        for entry, own, scores in zip(entries, histories, saved, strict=True)
    ]


def _is_cheap(entry: Entry) -> bool:
    """Whether an evaluation takes a second: numbers are drawn, no episodes are played and no pictures are needed."""
    has_all = all(iterations_on_disk(run / "checkpoints") for run in entry.runs)
    return has_all and entry.config.kind in ("regression", "density")


def _missing(entry: Entry, histories: Sequence[Columns], choices: Choices) -> str:
    named = "evaluation" if choices.evaluation == "evaluation" else f"evaluation named {choices.evaluation}"
    sentence = f"{entry.label} has no saved {named}, so there are no scores per task"
    if not all(iterations_on_disk(run / "checkpoints") for run in entry.runs):
        return f"{sentence}, and no checkpoint to make one from."
    if entry.config.kind != "reinforcement":
        return f"{sentence}: --num-tasks 600 makes one."
    cost = cost_of(entry, UNASKED_TASKS, histories[0])
    return f"{sentence}: --num-tasks {UNASKED_TASKS} makes one ({cost})."


def _stale(entry: Entry, scores: Scores) -> str:
    """A sentence if the runs have gone on since they were scored."""
    reached = max((max(iterations_on_disk(run / "checkpoints"), default=0) for run in entry.runs), default=0)
    if scores.iteration is None or scores.iteration >= reached:
        return ""
    return (
        f"{entry.label} was scored at iteration {scores.iteration:,} and has reached {reached:,} since: evaluate it "
        "again, or have it scored by --num-tasks."
    )


def _pictures(entry: Entry, choices: Choices) -> list[Media]:
    if choices.pictures == "none":
        return []
    if choices.pictures == "found":
        return found_media(entry)
    return drawn_media(entry, choices.seed, choices.checkpoint, choices.trusted, choices.data_root)
