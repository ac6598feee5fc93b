"""Entries beside each other and beside published numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from maml_rl.evaluation.statistics import probability_of_improvement
from maml_rl.experiments.config import OMNIGLOT
from maml_rl.experiments.published import FEW_SHOT_PUBLISHED, published_curves
from maml_rl.experiments.report.curves import about_published, adaptation_of
from maml_rl.experiments.report.entries import Entry
from maml_rl.experiments.report.gathered import Gathered
from maml_rl.experiments.report.tasks import MOST_COLUMNS, on_same_tasks
from maml_rl.pictures.report.blocks import Block, Cell, Interval, Table
from maml_rl.pictures.report.figures import improvement_figure


def comparison_blocks(found: Sequence[Gathered]) -> list[Block]:
    """The entries' scores and the published ones in a table, and how likely each entry beats each other one."""
    curves = [(each, curve) for each in found if (curve := adaptation_of(each)) is not None]
    if not curves:
        return []
    longest = max((list(curve.steps) for _, curve in curves), key=len)
    steps = longest if len(longest) <= MOST_COLUMNS else [*longest[:2], longest[-1]]
    references = _references(found[0].entry, longest)
    if len(found) == 1 and not references:
        return []
    rows: list[list[Cell]] = []
    for each, curve in curves:
        means = dict(zip(curve.steps, curve.means, strict=True))
        cells: list[Cell] = [Interval(*means[step]) if step in means else None for step in steps]
        rows.append([each.entry.label, len(each.entry.runs), *cells, *_further(each)])
    for label, scores in references:
        rows.append([label, None, *(scores.get(step) for step in steps), None, None, None, None])
    metric = curves[0][1].metric
    heads = [f"{metric} after {step}" for step in steps] if len(steps) > 1 else [metric]
    columns = ["", "seeds", *heads, "IQM, last", "gain", "made worse", "environment steps"]
    caption = "Means with 95 % intervals, of an evaluation by bootstrap over seeds and tasks. IQM: interquartile mean."
    if published_curves(found[0].entry.config):
        caption += f" {about_published(found)}"
    filled = [place for place in range(len(columns)) if any(row[place] is not None for row in rows)]
    table = Table([columns[place] for place in filled], [[row[place] for place in filled] for row in rows], caption)
    return [table, *_improvements(found)]


def _further(each: Gathered) -> list[Cell]:
    """Interquartile mean, gain, share of tasks made worse, environment steps."""
    scores, steps = each.scores, None
    if each.histories[0] and "env_steps_total" in each.histories[0]:
        steps = float(each.histories[0]["env_steps_total"][-1])
    if scores is None:
        return [None, None, None, steps]
    at_end = Interval(*scores.interquartile_means()[-1])
    if len(scores.steps) == 1:
        return [at_end, None, None, steps]
    return [at_end, Interval(*scores.mean_gain()), f"{scores.is_worse.mean():.0%}", steps]


def _references(entry: Entry, steps: Sequence[int]) -> list[tuple[str, dict[int, float]]]:
    """Published scores by number of steps, those of learners that are scored once at the last one."""
    config = entry.config
    if config.env == OMNIGLOT:
        size = config.task.test
        accuracy = FEW_SHOT_PUBLISHED.get((config.learner, size.ways, size.shots))
        return [] if accuracy is None else [(f"{config.learner}, published", {steps[-1]: accuracy})]
    return [(f"{name}, published", dict(scores)) for name, scores in published_curves(config).items()]


def _improvements(found: Sequence[Gathered]) -> list[Block]:
    """How likely each entry beats each other one on a task that both have met."""
    pairs = [
        (
            f"{one.entry.label} over {other.entry.label}",
            probability_of_improvement(mine.values[-1], theirs.values[-1], mine.higher_is_better),
        )
        for group in on_same_tasks(found)
        for (one, mine), (other, theirs) in itertools.combinations(group, 2)
    ]
    return [improvement_figure(pairs)] if pairs else []
