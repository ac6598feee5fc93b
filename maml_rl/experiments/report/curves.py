"""Figures of scores over training and over adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from maml_rl.evaluation.statistics import Estimate
from maml_rl.experiments.config import SINUSOID
from maml_rl.experiments.published import SINUSOID_SHOTS, published_curves
from maml_rl.experiments.report.gathered import Gathered, evaluated_after, in_steps, metric_of
from maml_rl.experiments.report.history import course_of, smoothed
from maml_rl.experiments.task_lists import PUBLISHED as ON_PUBLISHED_TASKS
from maml_rl.pictures.report.blocks import Block, Pair, Text
from maml_rl.pictures.report.figures import Line, colour_of, lines_figure


def curve_blocks(found: Sequence[Gathered]) -> list[Block]:
    """The learning curve and the adaptation curve, and notes on scores that are missing."""
    blocks: list[Block] = [Text(each.remark, is_note=True) for each in found if each.remark]
    figures = [*_learning(found), *_adaptation(found)]
    return [*blocks, Pair(figures)] if figures else blocks


def _learning(found: Sequence[Gathered]) -> list[Block]:
    lines: list[Line] = []
    metric = next(filter(None, (metric_of(each.histories[0]) for each in found)), None)
    if metric is None:
        return []
    is_alone = len(found) == 1
    for place, each in enumerate(found):
        parts = [("before", "grey"), ("after", colour_of(place))] if is_alone else [("after", colour_of(place))]
        for part, colour in parts:
            label = f"{part} adaptation" if is_alone else each.entry.label
            lines += _course_lines(each, f"{metric}_{part}", label, colour)
        last = evaluated_after(each.histories[0], metric)[-1:] if is_alone else []
        for count in last:
            name = f"eval_{metric}_{count}"
            if (held_out := course_of(each.histories, name)) is not None:
                after = f", after {in_steps(count)}" if count else ""
                lines.append(_points(each, name, held_out, f"held-out tasks{after}"))
    if not lines:
        return []
    caption = "Scores on each iteration's own tasks; thick lines are means over the last fiftieth of all points."
    if any(len(each.entry.runs) > 1 for each in found):
        caption += " Of several seeds: interquartile mean, with the 95 % bootstrap interval over seeds as a band."
    return [lines_figure(lines, "iterations of meta-training", metric, "Learning curve", caption)]


def _course_lines(each: Gathered, column: str, label: str, colour: str) -> list[Line]:
    course = course_of(each.histories, column)
    if course is None:
        return []
    values, low, high = (smoothed(ends) for ends in zip(*course.estimates, strict=True))
    thick = Line(label, course.iterations, values, colour, low, high)
    if len(each.entry.runs) > 1:
        return [thick]
    return [Line(label, course.iterations, [e.value for e in course.estimates], colour, kind="faint"), thick]


def _points(each: Gathered, column: str, held_out: Any, label: str) -> Line:
    """Evaluations during training, with their intervals over tasks or, of several runs, over seeds."""
    values = [e.value for e in held_out.estimates]
    low, high = [e.low for e in held_out.estimates], [e.high for e in held_out.estimates]
    halves = course_of(each.histories, f"{column}_ci95")
    if len(each.entry.runs) == 1 and halves is not None and halves.iterations == held_out.iterations:
        half = [e.value for e in halves.estimates]
        low, high = (
            [v - h for v, h in zip(values, half, strict=True)],
            [v + h for v, h in zip(values, half, strict=True)],
        )
    return Line(label, held_out.iterations, values, "c1", low, high, kind="points")


class Adaptation(NamedTuple):
    """An entry's mean score after 0, 1, ... steps."""

    metric: str
    steps: Sequence[int]
    means: Sequence[Estimate]
    used: Sequence[int]
    source: str


def adaptation_of(each: Gathered) -> Adaptation | None:
    """From the evaluation, or else from the last one during training."""
    scores = each.scores
    if scores is not None:
        return Adaptation(scores.metric, scores.steps, scores.means(), scores.used, scores.origin)
    metric = metric_of(each.histories[0])
    steps = evaluated_after(each.histories[0], metric)
    names = [f"eval_{metric}_{step}" for step in steps]
    courses = [course_of(each.histories, name) for name in names]
    if metric is None or not steps or any(course is None for course in courses):
        return None
    means = [course.estimates[-1] for course in courses if course is not None]
    halves = [course_of(each.histories, f"{name}_ci95") for name in names]
    if len(each.entry.runs) == 1:
        means = [
            e
            if half is None
            else Estimate(e.value, e.value - half.estimates[-1].value, e.value + half.estimates[-1].value)
            for e, half in zip(means, halves, strict=True)
        ]
    return Adaptation(metric, steps, means, [], "the last evaluation during training")


def _adaptation(found: Sequence[Gathered]) -> list[Block]:
    curves = [(place, each, curve) for place, each in enumerate(found) if (curve := adaptation_of(each)) is not None]
    curves = [row for row in curves if len(row[2].steps) > 1 and row[2].metric == curves[0][2].metric]
    if not curves:
        return []
    lines: list[Line] = []
    ticks: dict[int, str] = {}
    for place, each, curve in curves:
        values, low, high = zip(*curve.means, strict=True)
        unit = "episodes" if each.entry.config.kind == "reinforcement" else "examples"
        notes = [f"{count} {unit} used" for count in curve.used] or [""] * len(values)
        label = (
            each.entry.label
            if len(found) > 1
            else "mean over tasks" + (" and seeds" if len(each.entry.runs) > 1 else "")
        )
        lines.append(Line(label, list(curve.steps), values, colour_of(place), low, high, kind="both", notes=notes))
        ticks |= {step: str(step) for step in curve.steps}
    caption = f"Means with 95 % intervals: {'; '.join(dict.fromkeys(curve.source for _, _, curve in curves))}."
    published = published_curves(found[0].entry.config).get("MAML")
    if published:
        last = max(curve.steps[-1] for _, _, curve in curves)
        steps = [step for step in published if step <= last]
        lines.append(Line("MAML, published", steps, [published[step] for step in steps], "grey", kind="dashed"))
        caption += f" {about_published(found)}"
    return [lines_figure(lines, "gradient steps on the task", curves[0][2].metric, "Adaptation curve", caption, ticks)]


def about_published(found: Sequence[Gathered]) -> str:
    """A sentence on the tasks of the published scores, and on how to score on the same."""
    if found[0].entry.config.env == SINUSOID:
        curves = [(each, curve) for each in found if (curve := adaptation_of(each)) is not None]
        used = [curve.used[-1] if curve.used else each.entry.config.task.num_examples for each, curve in curves]
        remedy = "" if SINUSOID_SHOTS in used else f"; maml-rl evaluate --num-examples {SINUSOID_SHOTS} gives as many"
        return f"Published: Finn et al. 2017, on {SINUSOID_SHOTS} examples of a task{remedy}."
    on_same = any(each.scores is not None and each.scores.kind == ON_PUBLISHED_TASKS for each in found)
    tasks = "the same tasks" if on_same else "other tasks; maml-rl evaluate --tasks published scores on the same"
    return f"Published: Finn et al. 2017, on {tasks}."
