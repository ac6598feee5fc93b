"""Score after 0, 1, ..., K gradient steps on tasks that training has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.core.inner import adapt_tasks
from maml_rl.core.lift import Threads
from maml_rl.core.params import Params, stack
from maml_rl.core.protocols import EVALUATION, TASKS, Key, TaskFamily


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation."""

    num_tasks: int = 20  # drawn once, the same at every evaluation
    num_steps: int = 3  # gradient steps on each task
    first_step_size: float = 0.1  # of the first gradient step
    later_step_size: float = 0.05  # the paper halves the step after the first
    seed: int = 0  # of the evaluation's own random stream, whatever the run's seed

    def __post_init__(self) -> None:
        if self.num_tasks < 1:
            raise ValueError(f"evaluation.num_tasks must be at least 1, got {self.num_tasks}")
        if self.num_steps < 0:
            raise ValueError(f"evaluation.num_steps must be at least 0, got {self.num_steps}")
        for name, size in (("first_step_size", self.first_step_size), ("later_step_size", self.later_step_size)):
            if not 0.0 < size < float("inf"):
                raise ValueError(f"evaluation.{name} must be positive and finite, got {size}")
        if self.seed < 0:
            raise ValueError(f"evaluation.seed must be at least 0, got {self.seed}")

    @property
    def step_sizes(self) -> tuple[float, ...]:
        return (self.first_step_size, *(self.later_step_size,) * (self.num_steps - 1))[: self.num_steps]


class AdaptationCurve(NamedTuple):
    """Scores after 0 .. K gradient steps."""

    metric: str
    per_task: Tensor  # [K + 1, N], each task's mean over its episodes or examples

    @property
    def mean(self) -> list[float]:
        return self.per_task.mean(dim=1).tolist()

    @property
    def ci95(self) -> list[float]:
        """Half the width of the 95 % interval of the mean over tasks."""
        num_tasks = self.per_task.shape[1]
        if num_tasks == 1:
            return [0.0] * len(self.per_task)
        return (1.96 * self.per_task.std(dim=1, correction=1) / num_tasks**0.5).tolist()


def adaptation_curve(
    family: TaskFamily, theta: Params, config: EvaluationConfig, iteration: int, threads: Threads
) -> AdaptationCurve:
    """Adapt to `config.num_tasks` fresh tasks and score before the first and after every step.

    In RL each step's score rests on new episodes, which are also the data of the next step. In supervised learning all
    steps use one support set, and all scores rest on one query set of as many other examples.

    Args:
        iteration: names the evaluation's noise; the tasks are the same for all iterations.
    """
    key = Key(config.seed, EVALUATION, iteration)
    tasks = family.sample_tasks(config.num_tasks, Key(config.seed, EVALUATION, 0).rng(TASKS))
    params = stack(theta, len(tasks))
    score = torch.vmap(family.score)
    support = family.collect(tasks, params, key.at_phase(0))
    query = support if family.resamples else family.collect(tasks, params, key.at_phase(1))
    rows = []
    for phase, step_size in enumerate((*config.step_sizes, None)):
        with torch.no_grad():
            rows.append(score(params, query).double().mean(dim=1))
        if step_size is None:
            break
        params = adapt_tasks(family, params, [support], [step_size], threads)
        if family.resamples:
            support = query = family.collect(tasks, params, key.at_phase(phase + 1))
    return AdaptationCurve(family.metric, torch.stack(rows))
