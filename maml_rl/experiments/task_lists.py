"""Lists of tasks to score on in place of fresh ones: published ones, those of a file, or the caller's own."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from maml_rl.core.contracts import TaskSource
from maml_rl.experiments.config import SINUSOID, RunConfig
from maml_rl.experiments.published import SINUSOID_SHOTS, in_published_physics, published_curves
from maml_rl.experiments.published_tasks import PUBLISHED_TASKS

PUBLISHED = "published"
FRESH = "fresh"
"""Name of tasks that are drawn."""
VALUE = "value"
"""Field of a task that is a plain number and no dataclass."""

Given = str | Path | Sequence[Any]
"""What a user may give: "published", a JSON or CSV file, or tasks, as values or as mappings of their numbers."""


class TaskList(NamedTuple):
    """Tasks as they were given; `of` makes an environment's tasks of them."""

    name: str  # "published", "given" or the file
    source: str  # a phrase
    entries: Sequence[Any]  # tasks, or mappings from field names to numbers

    def of(self, source: TaskSource, env: str) -> list[Any]:
        """The tasks, checked.

        Args:
            source: draws tasks of the same kind, and may know their range.
            env: for messages.
        Raises:
            ValueError: if an entry is no task of this kind, or its numbers lie outside the range of tasks.
        """
        (pattern,) = source.sample_tasks(1, np.random.default_rng(0))
        tasks = [_task(entry, pattern, _Place(self.name, number, env)) for number, entry in enumerate(self.entries, 1)]
        if isinstance(source, Ranged):
            for number, task in enumerate(tasks, 1):
                for field, value in fields_of(task).items():
                    _require_within(value, source.limits_of(field), field, _Place(self.name, number, env))
        return tasks


@runtime_checkable
class Ranged(Protocol):
    """A source that knows the range of its tasks' numbers."""

    def limits_of(self, field: str) -> tuple[float, float] | None:
        """The range that a task's field is drawn from; None if it is drawn from none."""


def task_list(given: Given, config: RunConfig) -> TaskList:
    """The list that a user asks for, read but not yet compared with the environment's tasks.

    Raises:
        ValueError: if there is no such list, it is empty, or the run is of few-shot classification.
    """
    if config.kind == "pictures":
        raise ValueError(
            f"tasks apply to environments and sinusoids, not to {config.env}: choose episodes by --part and --ways"
        )
    if isinstance(given, str) and given == PUBLISHED:
        return _published(config.env)
    if isinstance(given, str | Path):
        found = TaskList(str(given), f"the file {given}", _read(Path(given)))
    else:
        found = TaskList("given", "given by the caller", list(given))
    if not found.entries:
        raise ValueError(f"tasks must be at least one, but {found.name} lists none")
    return found


def described_tasks(tasks: TaskList | None, seed: int) -> dict[str, str]:
    """Which tasks a result is of, as JSON. seed: of fresh ones, where no list was given."""
    if tasks is None:
        return {"name": FRESH, "source": f"drawn with seed {seed}"}
    return {"name": tasks.name, "source": tasks.source}


def tasks_in_words(described: dict[str, str]) -> str:
    """A phrase for titles."""
    name = described["name"]
    return f"{name} tasks" if name in (FRESH, PUBLISHED) else f"tasks of {name}"


def published_beside(config: RunConfig, tasks: TaskList | None) -> list[float | None]:
    """The published scores to stand beside a run's, after 0, 1, ... steps, None where the paper has none; empty unless
    they are of the same tasks, physics and method and, of sinusoids, of as many examples."""
    name = "oracle" if getattr(config.task, "oracle", False) else "MAML"
    found = published_curves(config).get(name, {})
    if not found or config.learner != "maml" or (name == "MAML" and not config.method.inner.num_steps):
        return []
    if config.env == SINUSOID:
        is_same = tasks is None and config.task.num_examples == SINUSOID_SHOTS
    else:
        is_same = tasks is not None and tasks.name == PUBLISHED
    return [found.get(step) for step in range(max(found) + 1)] if is_same else []


def fields_of(task: Any) -> dict[str, Any]:
    """A task's numbers by name."""
    if dataclasses.is_dataclass(task) and not isinstance(task, type):
        return {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    return {VALUE: task}


def _published(env: str) -> TaskList:
    found = PUBLISHED_TASKS.get(in_published_physics(env))
    if found is None:
        known = ", ".join(sorted(PUBLISHED_TASKS))
        raise ValueError(f"tasks published are not known for {env}, only for {known}: name a file, or draw fresh ones")
    return TaskList(PUBLISHED, found.source, found.tasks())


def _read(path: Path) -> list[Any]:
    """The entries of a file.

    Raises:
        ValueError: if it is no JSON list and no CSV table.
    """
    if path.suffix.lower() not in (".json", ".csv"):
        near = difflib.get_close_matches(str(path), [PUBLISHED])
        hint = f": did you mean {PUBLISHED}?" if near else ""
        raise ValueError(f"tasks must be {PUBLISHED} or a file .json or .csv, got {str(path)!r}{hint}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ValueError(f"tasks cannot be read from {path}: {reason}") from None
    return _from_json(text, path) if path.suffix.lower() == ".json" else _from_csv(text, path)


def _from_json(text: str, path: Path) -> list[Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"tasks cannot be read from {path}, which is no JSON: {error}") from None
    if not isinstance(found, list):
        raise ValueError(
            f"tasks in {path} must be a JSON list with an object for each task, got {type(found).__name__}"
        )
    return [entry if isinstance(entry, dict) else {VALUE: entry} for entry in found]


def _from_csv(text: str, path: Path) -> list[Any]:
    """A row for each task. Of a table that evaluation has written, each task once."""
    rows = list(csv.DictReader(text.splitlines()))
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise ValueError(f"tasks in {path} must have a number in each column, but task {number} has more or fewer")
    entries = [{name: _number(cell) for name, cell in row.items()} for row in rows]
    return list({entry.get("task", index): entry for index, entry in enumerate(entries)}.values())


def _number(cell: str) -> Any:
    try:
        return float(cell)
    except ValueError:
        return cell


class _Place(NamedTuple):
    """One entry of a list, in messages."""

    name: str
    number: int
    env: str

    def __str__(self) -> str:
        return f"task {self.number} of {self.name}"


def _task(entry: Any, pattern: Any, place: _Place) -> Any:
    """The task that an entry stands for. pattern: a task of the same kind."""
    if not isinstance(entry, Mapping):
        if not isinstance(entry, type(pattern)):
            raise ValueError(
                f"tasks of {place.env} are of type {type(pattern).__name__}, but {place} is {entry!r}: it is a task of "
                "another kind"
            )
        return entry
    wanted = fields_of(pattern)
    is_ours = "task" in entry  # a table of evaluation has scores as well
    if wanted.keys() - entry.keys() or (entry.keys() - wanted.keys() and not is_ours):
        raise ValueError(
            f"tasks of {place.env} consist of {_listed(wanted)}, but {place} has {_listed(entry)}: list objects "
            f"or rows with {_listed(wanted)}"
        )
    values = {name: _value(entry[name], like, name, place) for name, like in wanted.items()}
    try:
        make: Callable[..., Any] = type(pattern)
        return make(**values) if dataclasses.is_dataclass(pattern) else values[VALUE]
    except ValueError as error:
        raise ValueError(f"{place} is no task of {place.env}: {error}") from None


def _value(given: Any, like: Any, name: str, place: _Place) -> Any:
    """A field's value in the form that it has in another task, `like`."""
    if isinstance(like, tuple | list):
        if not isinstance(given, list | tuple) or len(given) != len(like):
            raise ValueError(f"{name} of {place} must be a list of {len(like)}, as tasks of {place.env} have it")
        return type(like)(_value(part, other, name, place) for part, other in zip(given, like, strict=True))
    if isinstance(like, np.ndarray):
        return np.array(_value(given, like.tolist(), name, place), like.dtype)
    if isinstance(like, bool) or not isinstance(like, int | float | np.number):
        raise ValueError(
            f"tasks of {place.env} cannot be read from a list, since their {name} is no number: pass tasks to "
            "run.evaluate in Python"
        )
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise ValueError(f"{name} of {place} must be a finite number, got {given!r}")
    if isinstance(like, int | np.integer) and given != int(given):
        raise ValueError(f"{name} of {place} must be a whole number, got {given:g}")
    number: Callable[[Any], Any] = type(like)
    return number(given)


def _require_within(value: Any, limits: tuple[float, float] | None, name: str, place: _Place) -> None:
    if limits is None:
        return
    low, high = limits
    outside = [number for number in _numbers(value) if not low <= number <= high]
    if outside:
        raise ValueError(
            f"{name} of {place} must lie in {low:g} to {high:g}, the range of {place.env}, got {outside[0]:g}: widen "
            "the range by --task-range if that is meant"
        )


def _numbers(value: Any) -> Iterable[float]:
    return np.asarray(value, dtype=np.float64).ravel().tolist()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
