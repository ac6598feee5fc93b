"""The contracts between a task distribution, a learner and those who call them.

A task is T = { L(x1, a1, ..., xH, aH), q(x1), q(x[t+1] | x[t], a[t]), H } (Finn et al. 2017, section 2): a loss, a
distribution of first observations, a transition and a horizon. Supervised learning is H = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from maml_rl.core.output_map import OutputMap
from maml_rl.core.params import Params

State = dict[str, Tensor]
"""All that a learner has learned or carries along, as named tensors: "params/...", "adam/first/...", ..."""

Predictor = Callable[[Tensor], Tensor]
"""Inputs [..., features] to outputs [..., width], with the adapted parameters inside."""

TRAINING, EVALUATION, INITIALISATION = 0, 1, 2
"""Streams of randomness: what is drawn in one says nothing about what is drawn in another."""

TASKS = 2**32 - 1
"""The place below a key that the choice of tasks is drawn from: no task has this index, so no task's data share it."""


class Key(NamedTuple):
    """Names one source of randomness; equal keys give equal numbers on every machine and any number of threads."""

    seed: int
    stream: int
    iteration: int
    phase: int = 0  # inner-step index: data collected after that many gradient steps

    def at_phase(self, phase: int) -> Key:
        return self._replace(phase=phase)

    def rng(self, *path: int) -> np.random.Generator:
        """A generator for the place `path` (task, episode, purpose, ...) below this key."""
        return np.random.Generator(np.random.Philox(self.seed_sequence(*path)))

    def seed_sequence(self, *path: int) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.seed, spawn_key=(self.stream, self.iteration, self.phase, *path))


class Report(NamedTuple):
    """What one meta-step says about itself."""

    metrics: dict[str, float]  # deterministic: equal for equal seeds
    clock: dict[str, float]  # seconds and rates: differ from run to run


class TaskFamily(Protocol):
    """p(T). Collected data carry the task as axis 0; but for `linearize`, what follows `collect` sees ONE task."""

    metric: str  # what `score` measures: "return", "mse", "accuracy"
    higher_is_better: bool
    resamples: bool  # the data depend on the parameters, so every inner step collects its own

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> Sequence[Any]: ...

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> Sequence[Any]:
        """Tasks that training never draws, where the family sets some aside; else those of `sample_tasks`."""

    def init_params(self, key: Key) -> Params: ...

    def collect(self, tasks: Sequence[Any], params: Params, key: Key) -> Any:
        """Data of every task under its own parameters (stacked: [task, ...]); given data ignore `params`."""

    def part(self, data: Any, share: float) -> Any:
        """The first episodes or examples of each task in stacked data: that share of them, at least one."""

    def outputs(self, params: Params, data: Any) -> Tensor:
        """[example, width]: what the policy or the network emits at each step or example."""

    def linearize(self, params: Params, data: Any) -> OutputMap:
        """`outputs` with derivatives, for stacked tasks: AutogradMap(self.outputs, params, data), or a faster one."""

    def inner_loss_at(self, outputs: Tensor, data: Any) -> Tensor:
        """The loss that adaptation descends, as a function of the outputs."""

    def outer_loss_at(self, outputs: Tensor, data: Any) -> Tensor:
        """The loss that the outer step descends: in RL the likelihood-ratio surrogate, else the inner one."""

    def divergence(self, old_outputs: Tensor, outputs: Tensor, data: Any) -> Tensor:
        """Mean KL(old || new) over the examples of one task."""

    def score(self, params: Params, data: Any) -> Tensor:
        """[episode or example]: `metric`, judged under the parameters that the data were collected with."""

    def further_scores(self, params: Params, data: Any) -> dict[str, Tensor]:
        """More of the kind by name, larger meaning better: "success" where the world reports it; empty for most."""

    def predictor(self, params: Params) -> Predictor: ...

    def describe(self, batches: Sequence[Any]) -> dict[str, float]:
        """Further numbers for the log from one iteration's data, query last: entropy, env_steps, ..."""


class Learner(Protocol):
    def init(self, key: Key) -> State: ...

    def meta_step(self, state: State, tasks: Sequence[Any], key: Key) -> tuple[State, Report]:
        """One outer update. Changes no argument."""

    def adapt(self, state: State, supports: Sequence[Any]) -> Predictor: ...
