"""The scores of single tasks, and which of them adaptation has made worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from maml_rl.experiments.report.gathered import Gathered, in_steps
from maml_rl.experiments.report.scores import Scores, have_same_tasks
from maml_rl.pictures.report.blocks import Block, Cell, Table, Text
from maml_rl.pictures.report.figures import TaskScores, by_value_figure, gains_figure, spread_figure

MOST_COLUMNS = 5
"""Numbers of steps that a table shows; of more, the first ones and the last."""


def on_same_tasks(found: Sequence[Gathered]) -> list[list[tuple[Gathered, Scores]]]:
    """The entries with scores, those on the same tasks together."""
    groups: list[list[tuple[Gathered, Scores]]] = []
    for each in found:
        if each.scores is None:
            continue
        group = next((group for group in groups if have_same_tasks(group[0][1], each.scores)), None)
        if group is None:
            groups.append([(each, each.scores)])
        else:
            group.append((each, each.scores))
    return groups


def task_blocks(found: Sequence[Gathered]) -> list[Block]:
    blocks: list[Block] = []
    groups = on_same_tasks(found)
    if len(groups) > 1:
        text = (
            "These scores are of different tasks, so they are not compared task by task: --num-tasks 40 scores all on "
        )
        blocks.append(Text(f"{text}the same.", is_note=True))
    for group in groups:
        blocks += _task_blocks(group)
    return blocks


def _task_blocks(group: Sequence[tuple[Gathered, Scores]]) -> list[Block]:
    first = group[0][1]
    fields = _fields(first.tasks)
    names = [", ".join(f"{field} {_cell(task.get(field))}" for field in fields) for task in first.tasks]
    scored = [
        TaskScores(
            each.entry.label if len(group) > 1 else "tasks",
            names,
            scores.values[0].mean(axis=0).tolist(),
            scores.values[-1].mean(axis=0).tolist(),
            (~(scores.gain.mean(axis=0) >= 0)).tolist() if len(scores.steps) > 1 else [False] * len(names),
        )
        for each, scores in group
    ]
    origin = first.origin[:1].upper() + first.origin[1:]
    caption = f"{origin}; a cross marks a task that adaptation has made worse."
    if all(len(scores.steps) == 1 for _, scores in group):
        figure = spread_figure(scored, first.metric, f"{origin}.")
    elif (field := _only_number(first.tasks)) is not None:
        figure = by_value_figure(
            scored, field, [float(task[field]) for task in first.tasks], first.metric, f"{origin}."
        )
    else:
        figure = gains_figure(scored, first.metric, caption)
    return [figure, _task_table(group, scored)]


def _only_number(tasks: Sequence[Mapping[str, Any]]) -> str | None:
    """The one number that tells tasks apart, if it takes several values."""
    fields = list(tasks[0])
    if len(fields) != 1:
        return None
    values = [task[fields[0]] for task in tasks]
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return fields[0] if is_number and len(set(values)) > 2 else None


def _task_table(group: Sequence[tuple[Gathered, Scores]], scored: Sequence[TaskScores]) -> Table:
    first, is_alone = group[0][1], len(group) == 1
    fields = _fields(first.tasks)
    columns: list[str] = ["task", *fields]
    for each, scores in group:
        label = "" if is_alone else f"{each.entry.label}: "
        columns += [f"{label}{name}" for name in _shown(scores, is_alone)]
    columns.append("")
    rows: list[list[Cell]] = []
    marked = []
    for index, task in enumerate(first.tasks):
        row: list[Cell] = [index, *(_cell(task.get(field)) for field in fields)]
        for _, scores in group:
            row += _task_cells(scores, index, is_alone)
        worse = [each.label for each in scored if each.is_worse[index]]
        text = "" if not worse else "made worse" if is_alone else f"made worse: {', '.join(worse)}"
        rows.append([*row, text])
        marked.append(bool(worse))
    seeds = max(len(each.entry.runs) for each, _ in group)
    caption = "Select a heading to sort." + (f" Scores are means over {seeds} seeds." if seeds > 1 else "")
    return Table(columns, rows, caption, marked, f"only tasks that adaptation has made worse ({sum(marked)})")


def _fields(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    """The numbers of a task that a table has room for: not which pictures of each class an episode takes."""
    names = dict.fromkeys(field for task in tasks for field in task)
    return [name for name in names if not str(tasks[0].get(name)).startswith(("((", "[("))]


def _shown(scores: Scores, is_alone: bool) -> list[str]:
    if len(scores.steps) == 1:
        return [scores.metric]
    if not is_alone:
        return ["gain"]
    middle = scores.steps[1:-1] if len(scores.steps) <= MOST_COLUMNS else []
    return ["before", *map(in_steps, middle), "after", "gain"]


def _task_cells(scores: Scores, index: int, is_alone: bool) -> list[Cell]:
    values: list[Cell] = [float(value) for value in scores.values[:, :, index].mean(axis=1)]
    gain: list[Cell] = [float(scores.gain[:, index].mean())]
    if len(scores.steps) == 1:
        return values
    if not is_alone:
        return gain
    return [*(values if len(values) <= MOST_COLUMNS else [values[0], values[-1]]), *gain]


def _cell(value: Any) -> Cell:
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = "" if value is None else str(value)
        return f"{text[:60]}..." if len(text) > 63 else text
    return int(value) if float(value).is_integer() else float(value)
