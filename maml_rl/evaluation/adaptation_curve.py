"""Score after 0, 1, ..., K gradient steps on tasks that training has not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from maml_rl.core.contracts import TaskSource
from maml_rl.core.inner import MAX_STEPS
from maml_rl.core.keys import EVALUATION, TASKS, Key
from maml_rl.evaluation.calibration import Reliability


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of held-out evaluation."""

    num_tasks: int = 20  # Tasks, drawn once, so that every evaluation has the same.
    num_steps: int = 3  # Adaptations to each task: gradient steps, or batches of episodes.
    seed: int = 0  # Seed of evaluation tasks and episodes, independent of the training seed.

    def __post_init__(self) -> None:
        if self.num_tasks < 1:
            raise ValueError(f"evaluation.num_tasks must be at least 1, got {self.num_tasks}")
        if self.num_steps < 0:
            raise ValueError(f"evaluation.num_steps must be at least 0, got {self.num_steps}")
        if self.num_steps > MAX_STEPS:
            raise ValueError(f"evaluation.num_steps must be at most {MAX_STEPS}, got {self.num_steps}")
        if self.seed < 0:
            raise ValueError(f"evaluation.seed must be at least 0, got {self.seed}")


@dataclass(frozen=True)
class DrawnEvaluationConfig(EvaluationConfig):
    """Settings of held-out evaluation on given data, of learners whose actors are draws from a posterior."""

    num_draws: int = 10  # Actors drawn for each score, whose predictions are combined.

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_draws < 1:
            raise ValueError(f"evaluation.num_draws must be at least 1, got {self.num_draws}")


class AdaptationCurve(NamedTuple):
    """Scores of N tasks at R points of their adaptation: by default after 0, 1, ... R - 1 gradient steps."""

    metric: str
    per_task: Tensor  # [R, N], each task's mean over its episodes or examples
    higher_is_better: bool = True
    tasks: Sequence[Any] = ()  # the N tasks
    further: Mapping[str, Tensor] = MappingProxyType({})  # as per_task, of other measures: "success", ...
    labels: Sequence[int] = ()  # numbers of gradient steps, or of adaptations where steps do not distinguish rows
    gradient_steps: Sequence[int] = ()  # on each task
    used: Sequence[int] = ()  # episodes or examples that each task was adapted to
    nll: Tensor | None = None  # as per_task: negative log-likelihood of the targets [nats], of distributions over them
    reliability: Sequence[Reliability] = ()  # [R] of the same predictions, over all tasks

    def __repr__(self) -> str:
        scores = ", ".join(f"{value:.4g} after {step}" for step, value in zip(self.steps, self.mean, strict=True))
        return f"<AdaptationCurve of {len(self.tasks)} tasks, {self.metric} {scores}>"

    @property
    def steps(self) -> Sequence[int]:
        return self.labels or range(len(self.per_task))

    @property
    def measures(self) -> list[AdaptationCurve]:
        """A curve for each measure: this one, then the further ones, where larger is better."""
        others = [
            self._replace(metric=name, per_task=rows, higher_is_better=True) for name, rows in self.further.items()
        ]
        return [self, *others]

    @property
    def likelihood(self) -> AdaptationCurve | None:
        """The curve of the negative log-likelihood, where predictions are distributions."""
        return None if self.nll is None else self._replace(metric="nll", per_task=self.nll, higher_is_better=False)

    @property
    def calibration_error(self) -> list[float]:
        """The expected calibration error in each row; empty where predictions are no distributions."""
        return [each.error for each in self.reliability]

    @property
    def mean(self) -> list[float]:
        return self.per_task.mean(dim=1).tolist()

    @property
    def ci95(self) -> list[float]:
        """Half the width of the 95 % interval of the mean over tasks; nan for a single task, which says nothing about
        others."""
        num_tasks = self.per_task.shape[1]
        if num_tasks == 1:
            return [math.nan] * len(self.per_task)
        return (1.96 * self.per_task.std(dim=1, correction=1) / num_tasks**0.5).tolist()

    @property
    def gain(self) -> Tensor:
        """Each task's improvement over its score in the first row: [R, N]; above 0 is better."""
        change = self.per_task - self.per_task[:1]
        return change if self.higher_is_better else -change

    @property
    def share_worse(self) -> list[float]:
        """The share of tasks that adaptation has made worse, after each number of steps; a score of nan counts."""
        return (~(self.gain >= 0)).double().mean(dim=1).tolist()


def plus_minus(half_width: float | None, digits: str) -> str:
    """An interval for a table; nothing where it is unknown."""
    return "" if half_width is None or math.isnan(half_width) else f"+- {half_width:{digits}}"


def or_null(values: Sequence[float]) -> list[float | None]:
    """Numbers for JSON, with null for nan: an unknown interval, or the score of a task that diverged."""
    return [value if math.isfinite(value) else None for value in values]


def evaluation_tasks(source: TaskSource, config: EvaluationConfig) -> Sequence[Any]:
    """The tasks of every evaluation with this seed."""
    is_training = getattr(config, "split", "test") == "train"
    sample = source.sample_tasks if is_training else source.sample_test_tasks
    return sample(config.num_tasks, Key(config.seed, EVALUATION, 0).rng(TASKS))
