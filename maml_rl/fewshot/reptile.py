"""Reptile (Nichol, Achiam and Schulman 2018) as its authors run it: mini-batches, an inner optimiser with memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from maml_rl.core.inner import InnerConfig, adapt, inner_gradient
from maml_rl.core.lift import Threads, chunk_tasks, over_tasks
from maml_rl.core.maml import Clock, params_of
from maml_rl.core.outer.reptile import ReptileConfig, reptile_step
from maml_rl.core.params import Params, concatenate_tasks, flatten, map_params, num_tasks, stack, take_tasks, unflatten
from maml_rl.core.protocols import Key, Report, State
from maml_rl.fewshot.fine_tuning import Direction, FineTuned, Plan
from maml_rl.supervised.classification import ClassificationFamily
from maml_rl.supervised.episodes import Episode, Examples

BATCHES = 2**32 - 2
"""The place below a key that mini-batches are drawn from."""


@dataclass(frozen=True)
class InnerOptimiserConfig:
    """How Reptile takes its steps on a task; their number and size are those of `inner`."""

    kind: Literal["adam", "sgd"] = "adam"
    """adam: with beta1 = 0, and second moments that tasks hand on to one another."""
    batch_size: int = 10  # Pictures of one step in training.
    test_batch_size: int = 5  # Pictures of one step at test.
    beta2: float = 0.999  # Decay of the mean squared gradient.
    epsilon: float = 1e-8  # Number that keeps the division finite.

    def __post_init__(self) -> None:
        for name in ("batch_size", "test_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"inner_optimiser.{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.beta2 < 1.0:
            raise ValueError(f"inner_optimiser.beta2 must lie in [0, 1), got {self.beta2}")
        if not self.epsilon > 0.0:
            raise ValueError(f"inner_optimiser.epsilon must be positive, got {self.epsilon}")


class AdamWithoutMomentum:
    """Adam with beta1 = 0 (Kingma and Ba 2015) as a direction for `adapt`: the gradient over the root of its square."""

    def __init__(self, gradient: Direction, second: Params, num_steps: int, config: InnerOptimiserConfig):
        """
        Args:
            second: mean squared gradients so far, [n, ...].
            num_steps: how many gradients are in them.
        """
        self.second, self._gradient, self._num_steps, self._config = second, gradient, num_steps, config

    def __call__(self, params: Params, support: Any) -> Params:
        config, gradient = self._config, self._gradient(params, support)
        self._num_steps += 1
        self.second = map_params(
            lambda v, g: config.beta2 * v + (1.0 - config.beta2) * g.square(), self.second, gradient
        )
        unbiased = 1.0 - config.beta2**self._num_steps
        return map_params(lambda v, g: g / ((v / unbiased).sqrt() + config.epsilon), self.second, gradient)


class ReptileClassifier(FineTuned):
    """theta moves towards the mean of the tasks' adapted parameters.

    The authors adapt to the tasks of one outer step one after the other, and the inner Adam's second moments run
    through all of them. Here these tasks are adapted to at once, all from the same moments; the mean of where those end
    is what the next outer step begins with. Episodes' queries are only watched, never learned from; where each picture
    is normalised with the support alone, these are normalised together for it: one by one would take four times as
    long as all learning does.
    """

    def __init__(
        self,
        family: ClassificationFamily,
        inner: InnerConfig,
        optimiser: InnerOptimiserConfig,
        outer: ReptileConfig,
        test_step_sizes: Sequence[float],
        threads: Threads,
    ):
        if inner.num_steps < 1:
            raise ValueError("reptile needs inner.num_steps of at least 1, got 0: it moves towards theta'")
        if inner.learn_step_sizes:
            raise ValueError("inner.learn_step_sizes must be left out: reptile has no gradient in the step sizes")
        super().__init__(test_step_sizes)
        self.family, self.threads = family, threads
        self._inner, self._optimiser, self._outer = inner, optimiser, outer
        self._watched = family.with_norm("batch") if family.network.norm == "support" else family

    def init(self, key: Key) -> State:
        params = self.family.init_params(key)
        return {
            **{f"params/{name}": value for name, value in params.items()},
            **{f"moments/{name}": torch.zeros_like(value) for name, value in params.items()},
            "moments_steps": torch.zeros((), dtype=torch.int64),
        }

    def meta_step(self, state: State, tasks: Sequence[Episode], key: Key) -> tuple[State, Report]:
        clock, theta = Clock(), params_of(state)
        with clock("sample_seconds"):
            support = self.family.collect(tasks, theta, key)
            query = self._watched.collect(tasks, theta, key.at_phase(1))
            size = self._optimiser.batch_size
            batches = mini_batches(support, size, self._inner.num_steps, key.rng(BATCHES))
        with clock("adapt_seconds"):
            adapted, second = self._adapt(state, theta, batches)
        with clock("outer_seconds"):
            rows = torch.cat([p.flatten(1) for p in adapted.values()], dim=1)
            vector = reptile_step(flatten(theta), rows, self._outer.annealed(key.iteration))
        steps = state["moments_steps"] + self._inner.num_steps
        new = {f"params/{name}": value for name, value in unflatten(vector, theta).items()}
        new |= {f"moments/{name}": value.mean(dim=0) for name, value in second.items()}
        return new | {"moments_steps": steps}, Report(self._watch(theta, adapted, query), clock.seconds)

    def plan(self, state: State, support: Examples, key: Key) -> Plan:
        theta = params_of(state)
        size, count = self._optimiser.test_batch_size, len(self.test_step_sizes)
        batches = mini_batches(support, size, count, key.rng(BATCHES))
        return Plan(theta, batches, self._inner.sizes_for(theta, self.test_step_sizes), self._starter(state))

    def _adapt(self, state: State, theta: Params, batches: Sequence[Examples]) -> tuple[Params, Params]:
        """Adapted parameters and second moments, [N, ...]."""
        sizes, start = self._inner.sizes_for(theta, self._inner.step_sizes), self._starter(state)

        def one_chunk(first: int, last: int) -> tuple[Params, Params]:
            direction = start(last - first)
            own = [take_tasks(batch, first, last) for batch in batches]
            adapted = adapt(direction, stack(theta, last - first), own, sizes)
            if isinstance(direction, AdamWithoutMomentum):
                return adapted, direction.second
            return adapted, map_params(torch.zeros_like, adapted)

        return concatenate_tasks(self.threads.map(one_chunk, *zip(*chunk_tasks(batches[0]), strict=True)))

    def _starter(self, state: State) -> Callable[[int], Direction]:
        gradient = inner_gradient(self.family)
        if self._optimiser.kind == "sgd":
            return lambda count: gradient
        moments = {name.removeprefix("moments/"): v for name, v in state.items() if name.startswith("moments/")}
        steps = int(state["moments_steps"].item())
        return lambda count: AdamWithoutMomentum(gradient, stack(moments, count), steps, self._optimiser)

    def _watch(self, theta: Params, adapted: Params, query: Examples) -> dict[str, float]:
        with torch.no_grad():
            score = over_tasks(self._watched.score)
            before = score(stack(theta, num_tasks(query)), query)
            after = score(adapted, query)
        return {"accuracy_before": before.double().mean().item(), "accuracy_after": after.double().mean().item()}


def mini_batches(support: Examples, size: int, count: int, rng: np.random.Generator) -> list[Examples]:
    """`count` batches of `size` examples of each task; an example comes again when all others have come as often.

    A support no larger than `size` is every batch as it is.
    """
    num_tasks, num_examples = support.labels.shape
    if num_examples <= size:
        return [support] * count
    rounds = -(-size * count // num_examples)
    order = rng.random((num_tasks, rounds, num_examples)).argsort(axis=-1).reshape(num_tasks, -1)
    rows = torch.from_numpy(order).to(support.labels.device)

    def take(batch: Tensor) -> Examples:
        each = torch.arange(num_tasks, device=batch.device).unsqueeze(1)
        return support._replace(images=support.images[each, batch], labels=support.labels[each, batch])

    return [take(rows[:, i * size : (i + 1) * size]) for i in range(count)]
