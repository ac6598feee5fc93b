"""Reptile (Nichol, Achiam and Schulman 2018): on pictures as its authors run it, with mini-batches and an inner
optimiser with memory; elsewhere as MAML's outer step of that name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from torch import Tensor

from maml_rl.core.acting import answer
from maml_rl.core.adam import mean_square, root_mean_square
from maml_rl.core.clock import Clock
from maml_rl.core.contracts import Actor, Collector, Learner, Measure, Report
from maml_rl.core.inner import InnerConfig, StepSize, adapt, inner_gradient
from maml_rl.core.keys import BATCHES, Key
from maml_rl.core.lift import Threads
from maml_rl.core.outer.choice import ReptileOuter
from maml_rl.core.outer.reptile import Reptile, ReptileConfig
from maml_rl.core.trees import Params, concatenate_tasks, map_params, num_tasks, stack, take_tasks
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.learners import maml
from maml_rl.learners.entry import SECOND, WHOLE_PATH, Context, Entry, Protocol, require_classes
from maml_rl.networks.convnet import ConvConfig
from maml_rl.supervised.classification import ClassificationModel, ConvNetwork, EpisodeCollector
from maml_rl.supervised.episodes import Episode, EpisodeConfig, Examples


@dataclass(frozen=True)
class InnerOptimiserConfig:
    """Settings of Reptile's steps on a task; their number and size are those of `inner`."""

    kind: Literal["adam", "sgd"] = "adam"
    """Optimiser of the steps. adam: with beta1 = 0, and second moments that are passed on from task to task."""
    batch_size: int = 10  # Pictures of one step in training.
    test_batch_size: int = 5  # Pictures of one step at test.
    beta2: float = 0.999  # Decay of the mean squared gradient.
    epsilon: float = 1e-8  # Number added to the divisor to keep the division finite.

    def __post_init__(self) -> None:
        for name in ("batch_size", "test_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"inner_optimiser.{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.beta2 < 1.0:
            raise ValueError(f"inner_optimiser.beta2 must lie in [0, 1), got {self.beta2}")
        if not self.epsilon > 0.0:
            raise ValueError(f"inner_optimiser.epsilon must be positive, got {self.epsilon}")


@dataclass(frozen=True)
class Config:
    """Settings of Reptile on pictures."""

    inner: InnerConfig = field(default_factory=lambda: InnerConfig(num_steps=5, step_size=0.001))
    optimiser: Annotated[InnerOptimiserConfig, tyro.conf.arg(name="inner-optimiser")] = field(
        default_factory=InnerOptimiserConfig
    )
    outer: ReptileOuter = field(default_factory=ReptileOuter)
    network: Annotated[ConvConfig, tyro.conf.arg(name="")] = field(default_factory=ConvConfig)


class ReptileState(NamedTuple):
    """Everything Reptile has learned or carries along."""

    params: Params  # theta
    moments: Params  # the inner Adam's mean squared gradients, shaped like theta
    moments_steps: Tensor  # [] int64: gradients in them


class ReptileAdapted(NamedTuple):
    """N tasks after some steps."""

    params: Params  # [N, ...]
    second: Params  # [N, ...]: mean squared gradients
    num_steps: Tensor  # [N] int64


class ReptileClassifier:
    """Reptile on pictures: theta moves towards the mean of the tasks' adapted parameters.

    The authors adapt to the tasks of one outer step one after the other, and the inner Adam's second moments run
    through all of them. Here these tasks are adapted to at once, all from the same moments; the next outer step begins
    with the mean of the final moments. Episodes' queries are only watched, never learned from; where each picture
    is normalised with the support alone, they are all normalised together to watch them: one by one would take four
    times as long as all learning does.
    """

    def __init__(
        self,
        model: ClassificationModel,
        collector: Collector,
        watching: Collector,
        measure: Measure,
        config: Config,
        num_test_steps: int,
        threads: Threads,
    ):
        """
        Args:
            watching: collects queries without the support beside them, for training's scores.
            num_test_steps: gradient steps on a task at test, for whose mini-batches one order is drawn.
        """
        if config.inner.num_steps < 1:
            raise ValueError("inner.num_steps must be at least 1 for reptile, which moves towards theta', got 0")
        if config.inner.learn_step_sizes:
            raise ValueError("inner.learn_step_sizes must be left out: reptile has no gradient in the step sizes")
        self.model, self.collector, self.measure, self.threads = model, collector, measure, threads
        self._config, self._num_test_steps = config, num_test_steps
        self._outer, self._watching_collector = Reptile(config.outer.reptile), watching
        watched = "batch" if config.network.norm == "support" else config.network.norm
        self._watching = ConvNetwork(replace(config.network, norm=watched))

    def init(self, key: Key) -> ReptileState:
        params = self.model.init_params(key)
        return ReptileState(params, map_params(torch.zeros_like, params), torch.zeros((), dtype=torch.int64))

    def meta_step(self, state: ReptileState, tasks: Sequence[Episode], key: Key) -> tuple[ReptileState, Report]:
        clock, theta, inner = Clock(), state.params, self._config.inner
        with clock("sample_seconds"):
            support = self.collector.collect(tasks, None, key)
            query = self._watching_collector.collect(tasks, None, key.at_phase(1))
            size = self._config.optimiser.batch_size
            batches = mini_batches(support, size, inner.num_steps, key.rng(BATCHES))
        with clock("adapt_seconds"):
            begun = self.begin(state, len(tasks), key)
            sizes = inner.sizes_for(theta, inner.step_sizes, self.model.head)
            adapted = self._steps(begun, batches, sizes, int(state.moments_steps))
        with clock("outer_seconds"):
            moved = self._outer.step(None, theta, adapted.params, (), key.iteration)
        after = ReptileState(
            moved.params,
            map_params(lambda value: value.mean(dim=0), adapted.second),
            state.moments_steps + inner.num_steps,
        )
        return after, Report(self._watch(theta, adapted.params, query), clock.seconds)

    def begin(self, state: ReptileState, num_tasks: int, key: Key) -> ReptileAdapted:
        """Theta and the moments of training for every task."""
        steps = state.moments_steps.expand(num_tasks) * 0
        return ReptileAdapted(stack(state.params, num_tasks), stack(state.moments, num_tasks), steps)

    def adapt(self, state: ReptileState, adapted: ReptileAdapted, data: Examples, key: Key) -> ReptileAdapted:
        """Take one step on the next mini-batch of the support."""
        count, size = self.num_gradient_steps(adapted), self._config.optimiser.test_batch_size
        of_all = max(count + 1, self._num_test_steps)
        batches = mini_batches(data, size, of_all, key.at_phase(0).rng(BATCHES), only=count)
        inner = self._config.inner
        sizes = inner.sizes_for(state.params, [inner.test_step_size_at(count)], self.model.head)
        trimmed = adapted._replace(
            params=self.model.trim(adapted.params, data), second=self.model.trim(adapted.second, data)
        )
        return self._steps(trimmed, batches, sizes, int(state.moments_steps) + count)

    def actor(self, state: ReptileState, adapted: ReptileAdapted, key: Key) -> Actor:
        return Actor(self.model.network, adapted.params)

    def num_gradient_steps(self, adapted: ReptileAdapted) -> int:
        return int(adapted.num_steps[0])

    def _steps(
        self, adapted: ReptileAdapted, batches: Sequence[Examples], sizes: Sequence[StepSize], num_moments: int
    ) -> ReptileAdapted:
        """Take a step on each batch. num_moments: gradients in the moments so far."""

        def one_chunk(first: int, last: int) -> tuple[Params, Params]:
            params, second = (take_tasks(tree, first, last) for tree in (adapted.params, adapted.second))
            direction = self._direction(second, num_moments)
            params = adapt(direction, params, [take_tasks(batch, first, last) for batch in batches], sizes)
            return params, direction.second if isinstance(direction, AdamWithoutMomentum) else second

        params, second = concatenate_tasks(self.threads.over_chunks(one_chunk, batches[0]))
        return ReptileAdapted(params, second, adapted.num_steps + len(batches))

    def _direction(self, second: Params, num_moments: int) -> Callable[[Params, Any], Params]:
        gradient, optimiser = inner_gradient(self.model), self._config.optimiser
        return gradient if optimiser.kind == "sgd" else AdamWithoutMomentum(gradient, second, num_moments, optimiser)

    def _watch(self, theta: Params, adapted: Params, query: Examples) -> dict[str, float]:
        scores = {
            f"accuracy_{when}": self.measure.score(answer(Actor(self._watching, params), query, self.threads))
            for when, params in (("before", stack(theta, num_tasks(query))), ("after", adapted))
        }
        return {name: values.double().mean().item() for name, values in scores.items()}


class AdamWithoutMomentum:
    """Adam with beta1 = 0 (Kingma and Ba 2015) as a direction for `adapt`: the gradient over the root of its square."""

    def __init__(
        self, gradient: Callable[[Params, Any], Params], second: Params, num_steps: int, config: InnerOptimiserConfig
    ):
        """
        Args:
            second: mean squared gradients so far, [n, ...].
            num_steps: number of gradients in them.
        """
        self.second, self._gradient, self._num_steps, self._config = second, gradient, num_steps, config

    def __call__(self, params: Params, support: Any) -> Params:
        config, gradient = self._config, self._gradient(params, support)
        self._num_steps += 1
        self.second = map_params(lambda v, g: mean_square(v, g, config.beta2), self.second, gradient)
        return map_params(
            lambda v, g: g / root_mean_square(v, self._num_steps, config.beta2, config.epsilon), self.second, gradient
        )


def mini_batches(
    support: Examples, size: int, count: int, rng: np.random.Generator, only: int | None = None
) -> list[Examples]:
    """Draw `count` batches of `size` examples of each task; an example repeats once all others have come as often.

    A support no larger than `size` is used whole as every batch.

    Args:
        only: the place of the one batch to return, by default all.
    """
    num_tasks, num_examples = support.labels.shape
    places = range(count) if only is None else (only,)
    if num_examples <= size:
        return [support for _ in places]
    rounds = -(-size * count // num_examples)
    order = rng.random((num_tasks, rounds, num_examples)).argsort(axis=-1).reshape(num_tasks, -1)
    rows = torch.from_numpy(order).to(support.labels.device)

    def take(batch: Tensor) -> Examples:
        each = torch.arange(num_tasks, device=batch.device).unsqueeze(1)
        return support._replace(images=support.images[each, batch], labels=support.labels[each, batch])

    return [take(rows[:, i * size : (i + 1) * size]) for i in places]


def omniglot(ways: int, shots: int) -> Protocol:
    """The published code's settings for 5 and for 20 classes; each query is computed alone beside the support."""
    few = ways < 10
    num_iterations, step_size = (100_000, 0.001) if few else (200_000, 0.0005)
    return Protocol(
        num_iterations=num_iterations,
        num_tasks=5,
        episodes=EpisodeConfig(ways=ways, shots=shots, train_shots=10, queries=1),
        evaluation=EvaluationConfig(num_tasks=100, num_steps=50),
        config=Config(
            InnerConfig(num_steps=5 if few else 10, step_size=step_size),
            InnerOptimiserConfig(batch_size=10 if few else 20, test_batch_size=5 if few else 10),
            ReptileOuter(reptile=ReptileConfig(1.0, decay_steps=num_iterations)),
            ConvConfig(features="flatten", norm="support", head_std=0.1),
        ),
    )


def build(context: Context, config: Any) -> Learner:
    if context.kind != "pictures":
        return maml.build(context, config)
    model, family, details = maml.picture_model(context, config.network), context.family, context.details
    watching = EpisodeCollector(details.data, "batch", context.device, context.threads)
    steps, threads = context.num_adaptations, context.threads
    return ReptileClassifier(model, family.collector, watching, family.measure, config, steps, threads)


def require(config: Any) -> None:
    if config.outer.step != "reptile":
        raise ValueError(f"learner reptile needs outer.step reptile, got {config.outer.step}: leave that out")
    if isinstance(config, Config):
        maml.require_fitting_norm("reptile", config.network)


ENTRY = Entry(
    "reptile",
    "Reptile: towards the parameters that many gradient steps lead to (Nichol et al. 2018)",
    {
        "reinforcement": lambda: maml.ReinforcementConfig(outer=ReptileOuter()),
        "regression": lambda: maml.RegressionConfig(outer=ReptileOuter()),
        "pictures": Config,
    },
    build,
    gradient_steps=True,
    outer_steps=("reptile",),
    unread={
        "method.inner.first_order method.inner.learn_step_sizes method.inner.train_later_ratio": SECOND,
        "method.inner.before_weight": WHOLE_PATH,
    },
    require=require,
    require_episodes=lambda config, episodes, num_tasks: require_classes("reptile", episodes),
    paper=omniglot,
)
