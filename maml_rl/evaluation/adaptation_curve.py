"""Score after 0, 1, ..., K gradient steps on tasks that training has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from maml_rl.core.inner import StepSize, adapt_tasks
from maml_rl.core.lift import Threads
from maml_rl.core.params import Params, stack
from maml_rl.core.protocols import EVALUATION, TASKS, Key, TaskFamily

JUDGED = 2**20
"""Added to the phase of data that a family of its own is scored on: no gradient step has this number."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation."""

    num_tasks: int = 20  # Tasks, drawn once, the same at every evaluation.
    num_steps: int = 3  # Gradient steps on each task.
    first_step_size: float = 0.1  # Size of the first gradient step.
    later_step_size: float = 0.05  # Size of the steps after it, which the paper halves.
    episodes_per_task: int | None = None  # Episodes for each number of steps; by default as in training.
    seed: int = 0  # Evaluation seed: tasks and episodes, whatever the training seed.
    split: Literal["test", "train"] = "test"  # Which tasks, where the environment sets some aside (Meta-World).

    def __post_init__(self) -> None:
        if self.split not in ("test", "train"):
            raise ValueError(f"evaluation.split must be test or train, got {self.split!r}")
        if self.num_tasks < 1:
            raise ValueError(f"evaluation.num_tasks must be at least 1, got {self.num_tasks}")
        if self.num_steps < 0:
            raise ValueError(f"evaluation.num_steps must be at least 0, got {self.num_steps}")
        for name, size in (("first_step_size", self.first_step_size), ("later_step_size", self.later_step_size)):
            if not 0.0 < size < float("inf"):
                raise ValueError(f"evaluation.{name} must be positive and finite, got {size}")
        if self.episodes_per_task is not None and self.episodes_per_task < 1:
            raise ValueError(f"evaluation.episodes_per_task must be at least 1, got {self.episodes_per_task}")
        if self.seed < 0:
            raise ValueError(f"evaluation.seed must be at least 0, got {self.seed}")

    @property
    def step_sizes(self) -> tuple[float, ...]:
        return (self.first_step_size, *(self.later_step_size,) * (self.num_steps - 1))[: self.num_steps]


class AdaptationCurve(NamedTuple):
    """Scores after 0 .. K gradient steps."""

    metric: str
    per_task: Tensor  # [K + 1, N], each task's mean over its episodes or examples
    higher_is_better: bool = True
    tasks: Sequence[Any] = ()  # the N tasks
    further: Mapping[str, Tensor] = MappingProxyType({})  # as per_task, of other measures: "success", ...
    recorded: Sequence[int] = ()  # the numbers of steps that the rows stand for, if not 0, 1, ... K

    @property
    def steps(self) -> Sequence[int]:
        return self.recorded or range(len(self.per_task))

    @property
    def measures(self) -> list[AdaptationCurve]:
        """A curve for each measure: this one, then the further ones, of which more is better."""
        others = [
            self._replace(metric=name, per_task=rows, higher_is_better=True) for name, rows in self.further.items()
        ]
        return [self, *others]

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

    @property
    def gain(self) -> Tensor:
        """[K + 1, N]: how much better each task is done than before the first step; above 0 is better."""
        change = self.per_task - self.per_task[:1]
        return change if self.higher_is_better else -change

    @property
    def share_worse(self) -> list[float]:
        """After each number of steps, the share of tasks that adaptation has made worse; a score lost to nan counts."""
        return (~(self.gain >= 0)).double().mean(dim=1).tolist()


class Adapted(NamedTuple):
    """N tasks after some gradient steps."""

    params: Params  # [N, ...]
    support: Any  # the data that the next step is, or would be, taken on
    query: Any  # the data that they are scored on


def evaluation_tasks(family: TaskFamily, config: EvaluationConfig) -> Sequence[Any]:
    """The tasks of every evaluation with this seed."""
    sample = family.sample_test_tasks if config.split == "test" else family.sample_tasks
    return sample(config.num_tasks, Key(config.seed, EVALUATION, 0).rng(TASKS))


def query_key(key: Key, phase: int, is_judged: bool) -> Key:
    """Where the noise of the episodes comes from that an RL policy is scored on after `phase` gradient steps."""
    return key.at_phase(JUDGED + phase if is_judged else phase)


def adaptation(
    family: TaskFamily,
    theta: Params,
    tasks: Sequence[Any],
    step_sizes: Sequence[StepSize],
    key: Key,
    threads: Threads,
    judge: TaskFamily | None,
) -> Iterator[Adapted]:
    """The tasks after 0, 1, ... len(step_sizes) gradient steps, each with fresh data to score them on.

    In RL each step's score rests on new episodes, which are also the data of the next step. In supervised learning all
    steps use one support set, and all scores rest on one query set of as many other examples.

    Args:
        judge: collects the episodes to score, e.g. with mean actions; then those to adapt on are others.
    """
    params = stack(theta, len(tasks))
    support = family.collect(tasks, params, key.at_phase(0))
    query = support if family.resamples else family.collect(tasks, params, key.at_phase(1))
    for phase, step_size in enumerate((*step_sizes, None)):
        if judge is not None:
            query = judge.collect(tasks, params, query_key(key, phase, True))
        yield Adapted(params, support, query)
        if step_size is None:
            return
        params = adapt_tasks(family, params, [support], [step_size], threads)
        if family.resamples:
            support = query = family.collect(tasks, params, key.at_phase(phase + 1))


def score_tasks(family: TaskFamily, adapted: Adapted) -> Tensor:
    """[N, E]: the score of each episode or example."""
    with torch.no_grad():
        return torch.vmap(family.score)(adapted.params, adapted.query).double()


def further_scores(family: TaskFamily, adapted: Adapted) -> dict[str, Tensor]:
    """[N, E] for each further measure."""
    with torch.no_grad():
        scores = torch.vmap(family.further_scores)(adapted.params, adapted.query)
    return {name: values.double() for name, values in scores.items()}


def adaptation_curve(
    family: TaskFamily,
    theta: Params,
    config: EvaluationConfig,
    iteration: int,
    threads: Threads,
    judge: TaskFamily | None = None,
    step_sizes: Sequence[StepSize] | None = None,
) -> AdaptationCurve:
    """Adapt to `config.num_tasks` fresh tasks and score before the first and after every step; see `adaptation`.

    A score is a mean over tasks of each task's mean over its episodes or examples, which are as many for every task.

    Args:
        iteration: names the evaluation's noise; the tasks are the same for all iterations.
        step_sizes: in place of those of `config`.
    """
    tasks = evaluation_tasks(family, config)
    key = Key(config.seed, EVALUATION, iteration)
    sizes = config.step_sizes if step_sizes is None else step_sizes
    rows: list[Tensor] = []  # one for each number of steps
    further: dict[str, list[Tensor]] = {}
    for adapted in adaptation(family, theta, tasks, sizes, key, threads, judge):
        rows.append(score_tasks(family, adapted).mean(dim=1))
        for name, scores in further_scores(family, adapted).items():
            further.setdefault(name, []).append(scores.mean(dim=1))
    others = {name: torch.stack(each) for name, each in further.items()}
    return AdaptationCurve(family.metric, torch.stack(rows), family.higher_is_better, tuple(tasks), others)
