"""Guided Meta-Policy Search: adaptation by reinforcement learning, meta-learning by imitation of an expert that sees
the task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.core.acting import FeedForward
from maml_rl.core.adam import AdamConfig, begin_descent, descend
from maml_rl.core.clock import Clock
from maml_rl.core.contracts import Actor, Previous, Report
from maml_rl.core.inner import join_step_sizes
from maml_rl.core.keys import INITIALISATION, SHUFFLED, TASKS, Key
from maml_rl.core.objective import Begun
from maml_rl.core.outer.step import Moved
from maml_rl.core.trees import Params, concatenate_tasks, device_of, stack, take_tasks, to_device
from maml_rl.learners.entry import TRAINING_ONLY, Context, Entry
from maml_rl.learners.maml import MAML, ReinforcementConfig
from maml_rl.policies.module import make_policy
from maml_rl.policies.policy import Policy, PolicyConfig, PolicySpec
from maml_rl.rl.model import PolicyModel


class Expert(NamedTuple):
    """A policy that sees the observation and, behind it, the task's n numbers. It is not trained here."""

    params: Params
    mean: Tensor  # [n], of the task's numbers: it sees them as (x - mean) / std
    std: Tensor  # [n]


class GuidedState(NamedTuple):
    """Everything that is learned or carried along."""

    params: Params  # theta
    step_sizes: Params  # as in MAMLState
    outer: Any  # the outer step's memory
    expert: Expert | tuple[()]  # () where nothing is trained


class GuidedBatch(NamedTuple):
    """A `Batch` with the expert's answers. N tasks, E episodes, T steps."""

    observations: Tensor  # [N, E, T, O]
    actions: Tensor  # [N, E, T, A]
    log_probs: Tensor  # [N, E, T]
    advantages: Tensor  # [N, E, T]
    mask: Tensor  # [N, E, T]
    rewards: Tensor  # [N, E, T]
    explained_variance: Tensor  # [N]
    expert: Tensor  # [N, E, T, W]: its outputs


class GuidedModel(PolicyModel):
    """A policy that adapts by its rewards; after adaptation it is judged by how far it is from the expert."""

    def outer_loss_at(self, outputs: Tensor, data: Any) -> Tensor:
        """Mean KL(policy || expert) over the steps of one task.

        Its slope in a Gaussian's mean is the error in units of the expert's variance. In KL(expert || policy), the
        likelihood of the expert's actions, it is in units of the policy's own, which grows with the error at first and
        so hides it.
        """
        return self.divergence(outputs, data.expert.flatten(0, 1), data)

    def clipped_loss_at(self, outputs: Tensor, data: Any, clip: float) -> Tensor:
        """The same: no likelihood ratio occurs that could be clipped."""
        return self.outer_loss_at(outputs, data)

    def clipped_share(self, outputs: Tensor, data: Any, clip: float) -> Tensor:
        return torch.zeros_like(data.mask[0, 0])


NUMBERS = "numbers"
"""Name of the task's numbers among the parameters of an expert that acts."""


@dataclass(frozen=True)
class Guide:
    """An expert without its parameters."""

    network: Policy  # over observations and, behind them, the task's numbers
    num_numbers: int  # n
    numbers_of: Callable[[Any], NDArray]  # a task's

    def actor(self, expert: Expert, tasks: Sequence[Any]) -> Actor:
        """The expert in these tasks."""
        numbers = torch.from_numpy(np.stack([self.numbers_of(task) for task in tasks])).to(expert.mean)
        told = (numbers - expert.mean) / expert.std
        return Actor(SightedNetwork(self.network), stack(expert.params, len(tasks)) | {NUMBERS: told})


@dataclass(frozen=True)
class SightedNetwork(FeedForward):
    """A network that sees the observation and, behind it, the task's numbers [N, n], which its parameters hold."""

    network: Policy

    def step(
        self, params: Params, memory: tuple[()], observation: Tensor, previous: Previous | None
    ) -> tuple[Tensor, tuple[()]]:
        own = {name: value for name, value in params.items() if name != NUMBERS}
        behind = params[NUMBERS].unsqueeze(1).expand(*observation.shape[:-1], -1)
        return self.network.outputs(own, torch.cat([observation, behind], dim=-1)), ()


@dataclass(frozen=True)
class CloneConfig:
    """Settings of the first iterations, in which theta itself learns to do what the expert does."""

    num_iterations: int = 0
    """Iterations in which Adam moves theta itself towards the expert, on steps of all that act: theta, adapted policies
    and the expert. The other iterations move theta so that adaptation leads to the expert."""
    epochs: int = 4  # Passes over the steps of one of these iterations.
    batch_size: int = 1000  # Steps in one update of Adam.
    learning_rate: float = 1e-3  # Learning rate of Adam at first; it falls to zero within each iteration.

    def __post_init__(self) -> None:
        for name, least in (("num_iterations", 0), ("epochs", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"clone.{name} must be at least {least}, got {getattr(self, name)}")
        if not 0.0 < self.learning_rate < float("inf"):
            raise ValueError(f"clone.learning_rate must be positive and finite, got {self.learning_rate}")


class GuidedMAML(MAML):
    """Guided Meta-Policy Search (Mendonca et al. 2019, arXiv:1904.00956).

    Each iteration collects a task's episodes, adapts to them by their rewards, collects episodes of the adapted policy
    and asks the expert about the states visited there. Theta then moves so that adaptation leads to the expert's
    actions. At test neither the expert nor the task is needed. Departures: one expert sees the task, in place
    of an expert for each; states are those of the present iteration, without demonstrations and without a data set
    that grows; the outer loss is KL(policy || expert) in place of the likelihood of the expert's actions; and theta
    may begin as a clone of the expert.
    """

    def __init__(self, guide: Guide | None, clone: CloneConfig, **parts: Any):
        """
        Args:
            guide: None where nothing is trained.
            parts: as `MAML` takes them, with a GuidedModel.
        """
        super().__init__(**parts)
        self._guide, self._clone = guide, clone

    def init(self, key: Key) -> GuidedState:  # type: ignore[override]
        """The state before training. The expert's parameters are placeholders: a new run takes them from the
        expert's run (`warm_start`)."""
        begun = super().init(key)
        if self._guide is None:
            return GuidedState(*begun, ())
        params = to_device(self._guide.network.init(key.torch_generator()), device_of(begun.params))
        zeros = next(iter(params.values())).new_zeros(self._guide.num_numbers)
        return GuidedState(*begun, Expert(params, zeros, torch.ones_like(zeros)))

    def meta_step(  # type: ignore[override]
        self, state: GuidedState, tasks: Sequence[Any], key: Key
    ) -> tuple[GuidedState, Report]:
        moved, report = super().meta_step(state, tasks, key)  # type: ignore[arg-type]
        return GuidedState(*moved, state.expert), report

    def _collect(self, state: Any, tasks: Sequence[Any], key: Key, clock: Clock) -> Any:
        """Data as MAML's, with the expert's answers; where theta is to learn from the expert itself, its episodes stand
        in the middle."""
        assert self._guide is not None, "training needs an expert"
        data, expert = super()._collect(state, tasks, key, clock), self._guide.actor(state.expert, tasks)
        experience, batches = list(data.experience), list(data.batches)
        with clock("sample_seconds"):
            if self._clones(key):
                shown = self.collector.collect(tasks, expert, key.at_phase(self.inner.num_steps + 1))
                experience.insert(1, shown)
                batches.insert(1, self.model.prepare(stack(state.params, len(tasks)), shown))
            answered = [
                GuidedBatch(**each._asdict(), expert=self._answers(expert, each.observations)) for each in batches
            ]
        return data._replace(experience=experience, batches=answered)

    def _answers(self, expert: Actor, observations: Tensor) -> Tensor:
        """The expert's outputs [N, E, T, W], within reach, where [N, E, T, O] was observed."""
        distribution = self.model.network.spec.distribution  # type: ignore[attr-defined]

        def one_chunk(start: int, stop: int) -> Tensor:
            seen = take_tasks(observations, start, stop)
            with torch.no_grad():
                outputs, _ = expert.take_tasks(start, stop).step((), seen.flatten(1, 2), None)
            return distribution.within_reach(outputs).view(*seen.shape[:-1], -1)

        return concatenate_tasks(self.threads.over_chunks(one_chunk, observations))

    def _clones(self, key: Key) -> bool:
        return key.iteration < self._clone.num_iterations

    def _move(self, state: Any, data: Any, key: Key) -> tuple[Moved[Any], Begun | None]:
        if not self._clones(key):
            return super()._move(state, data, key)
        params, metrics = self._cloned(state.params, data.batches, key.torch_generator(SHUFFLED))
        return Moved(join_step_sizes(params, state.step_sizes), state.outer, metrics), None

    def _cloned(
        self, theta: Params, batches: Sequence[GuidedBatch], generator: torch.Generator
    ) -> tuple[Params, dict[str, float]]:
        """Theta after Adam on the mean of KL(theta || expert) over all steps of these batches."""
        config, network = self._clone, self.model.network
        distribution = network.spec.distribution  # type: ignore[attr-defined]
        played = [each.mask.bool() for each in batches]
        seen = torch.cat([each.observations[mask] for each, mask in zip(batches, played, strict=True)])
        answers = torch.cat([each.expert[mask] for each, mask in zip(batches, played, strict=True)])

        def loss(params: Params, rows: Tensor) -> Tensor:
            return distribution.kl(network.outputs(params, seen[rows]), answers[rows]).mean()  # type: ignore[attr-defined]

        def whole(params: Params) -> float:
            with torch.no_grad():
                pieces = torch.arange(len(seen), device=seen.device).split(PIECE)
                return sum(loss(params, rows).item() * len(rows) for rows in pieces) / len(seen)

        num_updates = config.epochs * math.ceil(len(seen) / config.batch_size)
        adam = AdamConfig(config.learning_rate, decay="cosine", decay_steps=num_updates)
        descent, before = begin_descent(theta), whole(theta)
        for _ in range(config.epochs):
            for rows in torch.randperm(len(seen), generator=generator).to(seen.device).split(config.batch_size):
                descent, _ = descend(partial(loss, rows=rows), descent, adam)
        return descent.params, {"surrogate_loss_before": before, "surrogate_loss_after": whole(descent.params)}


PIECE = 10_000  # steps whose loss is computed at once


@dataclass(frozen=True)
class Config(ReinforcementConfig):
    """Settings of Guided Meta-Policy Search."""

    expert: str | None = None
    """Folder of a run with --oracle on the same environment, whose policy is imitated after adaptation. The time and
    the environment steps that it took count as this run's."""
    clone: CloneConfig = field(default_factory=CloneConfig)
    expert_policy: tyro.conf.Suppress[tyro.conf.Fixed[PolicyConfig | None]] = None  # read from its run; None: as here


def build(context: Context, config: Config) -> GuidedMAML:
    """
    Raises:
        ValueError: if tasks do not consist of numbers, which the expert must be told, or the settings do not go
            together.
    """
    if config.clone.num_iterations and not config.inner.num_steps:
        raise ValueError(
            f"clone.num_iterations must be 0 where inner.num_steps is 0, got {config.clone.num_iterations}: theta does "
            "not adapt then, and every iteration moves theta itself towards the expert"
        )
    family, inner, policy = context.family, config.inner, make_policy(context.details, config.policy)
    model = GuidedModel(policy, config.advantage, inner.estimator, context.threads, context.device, inner.unit_return)
    inner.sizes_for(model.init_params(Key(0, INITIALISATION, 0)), (), model.head)
    return GuidedMAML(
        _guide(context, config),
        config.clone,
        model=model,
        collector=family.collector,
        measure=family.measure,
        inner=inner,
        outer=config.outer.make(),
        threads=context.threads,
    )


def _guide(context: Context, config: Config) -> Guide | None:
    if context.numbers_of is None:
        return None
    (task,) = context.family.source.sample_tasks(1, Key(0, INITIALISATION, 0).rng(TASKS))
    try:
        number = len(context.numbers_of(task))
    except ValueError as error:
        raise ValueError(f"learner gmps needs tasks of numbers, which its expert sees: {error}") from None
    size, distribution = context.details
    network = make_policy(PolicySpec(size + number, distribution), config.expert_policy or config.policy)
    return Guide(network, number, context.numbers_of)


ENTRY = Entry(
    "gmps",
    "Guided Meta-Policy Search: adaptation that leads to what an expert does (Mendonca et al. 2019)",
    {"reinforcement": Config},
    build,
    gradient_steps=True,
    unread={"method.outer.proximal.clip": "learners from rewards after adaptation"},
    training_only=(*TRAINING_ONLY, "expert/"),
)
