"""Gradient steps on a task's support, and predictions after them: what all gradient-based learners do at test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_rl.core.inner import StepSize, adapt
from maml_rl.core.lift import Threads, chunk_tasks
from maml_rl.core.params import Params, stack, take_tasks
from maml_rl.core.protocols import EVALUATION, Key, Predictor, State
from maml_rl.supervised.classification import ClassificationFamily
from maml_rl.supervised.episodes import Examples

Direction = Callable[[Params, Any], Params]
"""(params, batch) -> what one step takes off the parameters: the inner gradient, or what an optimiser makes of it."""


class Plan(NamedTuple):
    """How N tasks are learned, from the same parameters."""

    theta: Params  # [...]
    batches: Sequence[Examples]  # one for each step, [N, ...]
    step_sizes: Sequence[StepSize]  # one for each step
    start: Callable[[int], Direction]  # number of tasks -> a direction of their own, which may carry moments along


class FineTuned:
    """A learner whose predictions follow gradient steps on the support."""

    family: ClassificationFamily
    threads: Threads
    recorded_steps: tuple[int, ...]

    def __init__(self, test_step_sizes: Sequence[float]):
        """Recorded are 0, 1, ..., 10, 20, 30, ... and the last step."""
        last = len(test_step_sizes)
        self.test_step_sizes = test_step_sizes
        self.recorded_steps = tuple(s for s in range(last + 1) if s <= 10 or s % 10 == 0 or s == last)

    def plan(self, state: State, support: Examples, key: Key) -> Plan:
        raise NotImplementedError

    def predict(self, state: State, support: Examples, query: Examples, key: Key) -> Tensor:
        """[recorded, N, B, ways] logits."""
        plan, steps = self.plan(_for_classes_of(support, state), support, key), self.recorded_steps

        def one_chunk(start: int, stop: int) -> Tensor:
            own = take_tasks(query, start, stop)
            params, direction = stack(plan.theta, stop - start), plan.start(stop - start)
            rows = [_logits(self.family, params, own)] if 0 in steps else []
            for step, (batch, size) in enumerate(zip(plan.batches, plan.step_sizes, strict=True), start=1):
                params = adapt(direction, params, [take_tasks(batch, start, stop)], [size])
                if step in steps:
                    rows.append(_logits(self.family, params, own))
            return torch.stack(rows)

        chunks = chunk_tasks(plan.batches[0] if plan.batches else query)  # as the steps like it: they take the time
        return torch.cat(self.threads.map(one_chunk, *zip(*chunks, strict=True)), dim=1)

    def adapt(self, state: State, supports: Sequence[Examples]) -> Predictor:
        """Pictures [..., H, W, C] to logits [..., ways], after the test's steps on `supports[0]`, one episode's.

        Where training normalises by batches, a picture is put beside the support, so that a single one can be
        classified and no prediction depends on what else is asked.
        """
        support = supports[0]
        plan = self.plan(_for_classes_of(support, state), support, Key(0, EVALUATION, 0))
        params = adapt(plan.start(1), stack(plan.theta, 1), plan.batches, plan.step_sizes)
        norm = self.family.network.norm
        family = self.family.with_norm("support") if norm == "batch" else self.family

        def classify(images: Tensor) -> Tensor:
            rows = images.reshape(-1, *images.shape[-3:]).to(support.images)
            alone = Examples(rows.unsqueeze(0), support.labels[:, :0], support.images)
            return _logits(family, params, alone)[0].view(*images.shape[:-3], -1).to(images.device)

        return classify


def _for_classes_of(support: Examples, state: State) -> State:
    """Of a last layer for more classes, as training episodes may have, a task takes as many as it needs, the first."""
    ways = int(support.labels.max()) + 1
    return {name: v[..., :ways] if name.endswith(("head.weight", "head.bias")) else v for name, v in state.items()}


def _logits(family: ClassificationFamily, params: Params, query: Examples) -> Tensor:
    with torch.no_grad():
        return family.outputs(params, query)
