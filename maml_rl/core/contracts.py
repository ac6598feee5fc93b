"""The contracts of the package: what a task distribution, a learner and their callers may expect of each other.

A task is T = { L(x1, a1, ..., xH, aH), q(x1), q(x[t+1] | x[t], a[t]), H } (Finn et al. 2017, section 2): a loss, a
distribution of first observations, a transition and a horizon. Supervised learning is H = 1: the action is the
prediction. A learner begins on a task with what it has meta-learned, acts, and adapts to what it has seen.

Axes: N tasks, E episodes a task, T steps. A tree is a tensor, or a dict or NamedTuple of trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from maml_rl.core.gaussians import Gaussian
from maml_rl.core.keys import Key
from maml_rl.core.output_map import OutputMap
from maml_rl.core.trees import Params, take_tasks

Memory = Any
"""A tree of tensors [task, episode, ...] that an actor carries from step to step; () for a feed-forward one."""

Adapted = Any
"""A learner's knowledge of N tasks: a tree, task on axis 0 wherever a tensor differs between tasks. Only the learner
that made it looks inside."""

State = Any
"""Everything a learner has learned or carries along: a tree of tensors. Its field names are its names on disk."""


class Previous(NamedTuple):
    """The actions and rewards since an actor's last output."""

    actions: Tensor  # [N, E, A], as drawn: neither clipped nor scaled
    rewards: Tensor  # [N, E]
    begins: Tensor  # [N, E]: 1 where an episode begins, so that action and reward are of the one before it, else 0


class Network(Protocol):
    """A function from parameters and observations to outputs, which describe actions or are predictions.

    It is a value that can be pickled, since it is sent to workers.
    """

    @property
    def is_recurrent(self) -> bool:
        """True if it uses `previous`, which is made only for recurrent networks."""

    def start(self, params: Params, num_episodes: int) -> Memory:
        """The memory before the first step of `num_episodes` episodes of each task. params: [N, ...]."""

    def step(
        self, params: Params, memory: Memory, observation: Any, previous: Previous | None
    ) -> tuple[Tensor, Memory]:
        """Outputs [N, E, ...] at one step of all episodes; or, at H = 1, [N, B, ...] on all examples at once.

        Args:
            params: [N, ...].
            observation: [N, E, O]; at H = 1 the tasks' examples.
            previous: None for a network that is not recurrent, and at H = 1.
        """


class Actor(NamedTuple):
    """A network with each task's own parameters: everything needed to act on N tasks."""

    network: Network
    params: Params  # [N, ...]

    def start(self, num_episodes: int) -> Memory:
        return self.network.start(self.params, num_episodes)

    def step(self, memory: Memory, observation: Any, previous: Previous | None) -> tuple[Tensor, Memory]:
        return self.network.step(self.params, memory, observation, previous)

    def take_tasks(self, start: int, stop: int) -> Actor:
        """The actor of the tasks start .. stop - 1."""
        return Actor(self.network, take_tasks(self.params, start, stop))


class TaskSource(Protocol):
    """The distribution of tasks, p(T)."""

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> Sequence[Any]: ...

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> Sequence[Any]:
        """Tasks that training never draws, where some are set aside; else those of `sample_tasks`."""


class Collector(Protocol):
    """Raw experience of tasks."""

    resamples: bool  # the data depend on who acts, so each adaptation collects its own; False at H = 1

    def collect(self, tasks: Sequence[Any], actor: Actor | None, key: Key) -> Any:
        """Every task's data, task on axis 0: a Trajectory of what the actor did, or Examples with its outputs.

        At H = 1 phase 0 of a key is the support, every other phase the query, and without an actor the examples come
        without outputs.
        """


class Forecast(NamedTuple):
    """Distributions over targets that an actor has predicted, judged by the targets that came."""

    log_likelihood: Tensor  # [N, B]: log-probability or log-density of each target
    probabilities: Tensor  # [N, B, E]: of E events about each example
    happened: Tensor  # [N, B, E]: 1 where the event came true, else 0


class Measure(Protocol):
    """Scores of experience."""

    metric: str  # what `score` measures: "return", "mse", "accuracy"
    higher_is_better: bool

    def score(self, data: Any) -> Tensor:
        """[N, E] or, at H = 1, [N, B]: the metric of each episode or example."""

    def further_scores(self, data: Any) -> dict[str, Tensor]:
        """More such scores by name, where larger is better: "success" if the environment reports it."""

    def forecast(self, data: Any) -> Forecast | None:
        """What the outputs said about the targets, where they are a distribution over them; else None."""

    def mixture(self, outputs: Sequence[Tensor]) -> Tensor:
        """The outputs of several draws from a posterior on the same examples as one actor's, which predicts by all."""

    def describe(self, experience: Sequence[Any]) -> dict[str, float]:
        """Further numbers for the log from one iteration's data, in the order it was collected: env_steps, ..."""


@dataclass(frozen=True)
class TaskFamily:
    """A distribution of tasks, the collector of their experience, and the measure that scores it."""

    source: TaskSource
    collector: Collector
    measure: Measure


class Model(Protocol):
    """A network whose outputs have losses, which learners by gradients need in addition. Losses, outputs
    and divergence are of ONE task; `prepare`, `linearize`, `trim`, `part` and `describe` take stacked ones."""

    @property
    def network(self) -> Network: ...

    @property
    def head(self) -> tuple[str, ...]:
        """Prefixes of the names of the last layer's parameters."""

    def init_params(self, key: Key) -> Params: ...

    def prepare(self, params: Params, data: Any) -> Any:
        """Stacked experience, collected under `params`, ready for losses: advantages, log-probabilities, ..."""

    def part(self, batch: Any, share: float) -> Any:
        """The first episodes or examples of each task in a stacked batch: that share of them, at least one."""

    def trim(self, params: Params, batch: Any) -> Params:
        """The parameters that the batch's tasks need, where these have fewer classes than the network has outputs."""

    def outputs(self, params: Params, batch: Any) -> Tensor:
        """[example, width]: what the network emits at each step or example."""

    def linearize(self, params: Params, batch: Any) -> OutputMap:
        """`outputs` with derivatives, for stacked tasks: AutogradMap(self.outputs, params, batch), or a faster one."""

    def inner_loss_at(self, outputs: Tensor, batch: Any) -> Tensor:
        """The loss that adaptation descends, as a function of the outputs."""

    def outer_loss_at(self, outputs: Tensor, batch: Any) -> Tensor:
        """The loss that the outer step descends: in RL the likelihood-ratio surrogate, else the inner one."""

    def divergence(self, old_outputs: Tensor, outputs: Tensor, batch: Any) -> Tensor:
        """Mean KL(old || new) over the examples of one task."""

    def describe(self, batches: Sequence[Any]) -> dict[str, float]:
        """Further numbers for the log from one iteration's batches, query last: entropy, explained variance, ..."""


@runtime_checkable
class SampledModel(Model, Protocol):
    """A model whose data were drawn by a policy that the batch remembers. All but `relative_rewards` see ONE task."""

    def clipped_loss_at(self, outputs: Tensor, batch: Any, clip: float) -> Tensor:
        """`outer_loss_at` with nothing to gain from likelihood ratios outside 1 - clip .. 1 + clip."""

    def clipped_share(self, outputs: Tensor, batch: Any, clip: float) -> Tensor:
        """The share of steps whose likelihood ratio lies outside 1 - clip .. 1 + clip."""

    def mean_log_prob(self, outputs: Tensor, batch: Any) -> Tensor:
        """Mean log-probability of the actions taken."""

    def relative_rewards(self, batches: Sequence[Any]) -> list[Tensor]:
        """The tasks' mean rewards less the mean of all rewards, over their standard deviation: [n] for each batch."""


@runtime_checkable
class ModelOfSets(Protocol):
    """The further functions of a learner with a generative model of sets, which pictures of its beliefs need.

    Axes: S sets of K observations each; H numbers of an instance, C of a context.
    """

    def instances(self, state: State, observations: Tensor) -> Tensor:
        """All that a belief needs of each observation: [S, K, ...] to [S, K, H]."""

    def believed(self, state: State, instances: Tensor, kept: Tensor) -> Gaussian:
        """The posterior of each set's context, [S, C], from the instances where `kept` [S, K] is 1."""

    def about(self, state: State, adapted: Adapted) -> Gaussian:
        """The posteriors of the contexts of N tasks' sets after adaptation: [N, sets, C]."""

    def imagine(self, state: State, contexts: Tensor, num: int, key: Key) -> Tensor:
        """Means of `num` new observations of each set, [S, num, ...], given contexts [S, C]."""


class Report(NamedTuple):
    """Metrics and timings of one meta-step."""

    metrics: dict[str, float]  # deterministic: equal for equal seeds
    clock: dict[str, float]  # seconds and rates: differ from run to run


class Learner(Protocol):
    """A meta-learning method. It holds settings and no state: what it learns is passed in and returned."""

    def init(self, key: Key) -> State:
        """The state before the first meta-step."""

    def meta_step(self, state: State, tasks: Sequence[Any], key: Key) -> tuple[State, Report]:
        """Take one outer update. Changes no argument."""

    def begin(self, state: State, num_tasks: int, key: Key) -> Adapted:
        """The knowledge of `num_tasks` tasks before any of their data."""

    def adapt(self, state: State, adapted: Adapted, data: Any, key: Key) -> Adapted:
        """The knowledge after one more batch of each task's own data, as a collector returned it."""

    def actor(self, state: State, adapted: Adapted, key: Key) -> Actor:
        """The actor for these tasks now. key: for the draw, if the learner draws from a posterior."""

    def num_gradient_steps(self, adapted: Adapted) -> int:
        """Number of gradient steps taken on each task. A class derived from this one need not define it: 0."""
        return 0
