"""A report's page: what is known about its entries, put into sections."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from maml_rl.evaluation.statistics import Estimate
from maml_rl.experiments.report.curves import curve_blocks
from maml_rl.experiments.report.entries import tasks_of
from maml_rl.experiments.report.gathered import Gathered, in_steps, metric_of
from maml_rl.experiments.report.history import course_of, smoothed, time_spent
from maml_rl.experiments.report.settings import settings_blocks
from maml_rl.experiments.report.side_by_side import comparison_blocks
from maml_rl.experiments.report.tasks import task_blocks
from maml_rl.pictures.report.blocks import Block, Pair, Section, Tile, number
from maml_rl.pictures.report.figures import time_figure
from maml_rl.pictures.report.page import Page


def report_page(found: Sequence[Gathered], made_with: str) -> Page:
    """The page on one or several entries.

    Args:
        made_with: a sentence for its end.
    """
    first = found[0].entry
    title = f"{first.config.env_name}: {', '.join(each.entry.label for each in found)}"
    about = f"Meta-learning on {tasks_of(first.config)}."
    if len(found) == 1:
        title = f"{first.config.learner} on {tasks_of(first.config)}"
        about = first.label
    sections = [
        Section("What was run", settings_blocks([each.entry for each in found], [_course(each) for each in found])),
        Section("Learning and adaptation", curve_blocks(found)),
        Section("Film and pictures", _seen(found)),
        Section("Tasks", task_blocks(found)),
        Section("Side by side", comparison_blocks(found)),
        Section("Time", _time(found)),
    ]
    return Page(title, about, _tiles(found), [section for section in sections if section.blocks], made_with)


def _course(each: Gathered) -> list[tuple[str, str]]:
    """How far an entry has come: iterations, environment steps, time."""
    return [(tile.label, f"{tile.value} {tile.detail}".strip()) for tile in _course_tiles(each)]


def _course_tiles(each: Gathered) -> list[Tile]:
    histories, a_run = [history for history in each.histories if history], "a run" if len(each.entry.runs) > 1 else ""
    planned = f"{each.entry.config.training.num_iterations:,}"
    if not histories:
        return [Tile("iterations", planned, "planned; there is no metrics.csv")]
    tiles = [Tile("iterations", f"{min(int(history['iteration'][-1]) for history in histories):,}", f"of {planned}")]
    if "env_steps_total" in histories[0]:
        tiles.append(Tile("environment steps", in_short(float(histories[0]["env_steps_total"][-1])), a_run))
    if "wall_seconds" in histories[0]:
        seconds = float(np.mean([np.nanmax(history["wall_seconds"]) for history in histories]))
        tiles.append(Tile("training time", in_time(seconds), a_run))
    return tiles


def in_short(count: float) -> str:
    """A count in thousands or millions."""
    for unit, size in (("million", 1e6), ("thousand", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


def in_time(seconds: float) -> str:
    """A duration in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _tiles(found: Sequence[Gathered]) -> list[Tile]:
    if len(found) > 1:
        return [_last_tile(each, each.entry.label) for each in found]
    (each,) = found
    tiles, scores = [_last_tile(each, "")], each.scores
    if scores is not None and len(scores.steps) > 1:
        gain, worse = scores.mean_gain(), scores.is_worse
        over = " over all seeds" if len(each.entry.runs) > 1 else ""
        tiles.append(
            Tile("mean gain by adaptation", f"{'+' if gain.value > 0 else ''}{number(gain.value)}", _ends(gain))
        )
        tiles.append(Tile("tasks made worse", f"{worse.mean():.0%}", f"{worse.sum()} of {worse.size}{over}"))
    return [*tiles, *_course_tiles(each)]


def _last_tile(each: Gathered, label: str) -> Tile:
    """The last score of an entry, of its evaluation or else of training's."""
    if each.scores is not None:
        last, steps = each.scores.means()[-1], each.scores.steps[-1]
        after = f" after {in_steps(steps)}" if len(each.scores.steps) > 1 else ""
        return Tile(label or f"{each.scores.metric}{after}", number(last.value), _ends(last))
    metric = metric_of(each.histories[0])
    course = course_of(each.histories, f"{metric}_after")
    if course is None:
        return Tile(label or "score", "none yet", "no evaluation, no metrics")
    value = smoothed([e.value for e in course.estimates])[-1]
    return Tile(label or f"{metric} after adaptation", number(value), "in training")


def _ends(found: Estimate) -> str:
    return "" if math.isnan(found.low) else f"95 %: {number(found.low)} to {number(found.high)}"


def _seen(found: Sequence[Gathered]) -> list[Block]:
    """Films and pictures, two beside each other, with the names of their entries if there are several."""
    names = [f"{each.entry.label}: " if len(found) > 1 else "" for each in found]
    shown = [
        media._replace(title=f"{name}{media.title}")
        for each, name in zip(found, names, strict=True)
        for media in each.media
    ]
    return [Pair(shown)] if shown else []


def _time(found: Sequence[Gathered]) -> list[Block]:
    bars = []
    for each in found:
        spent = [parts for history in each.histories if (parts := time_spent(history))]
        names = dict.fromkeys(name for parts in spent for name in parts)
        if spent:
            label = each.entry.label if len(found) > 1 else "a run" if len(each.entry.runs) > 1 else "training"
            bars.append((label, {name: sum(parts.get(name, 0.0) for parts in spent) / len(spent) for name in names}))
    return [time_figure(bars)] if bars else []
