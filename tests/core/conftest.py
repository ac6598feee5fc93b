"""Small problems that several tests of the core share: one of each family, as values in double precision."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import envs  # noqa: F401 - registers the ids
from maml_rl.core.inner import InnerConfig, adapt_tasks
from maml_rl.core.lift import Threads
from maml_rl.core.objective import MetaObjective
from maml_rl.core.output_map import AutogradMap
from maml_rl.core.params import Params, stack
from maml_rl.core.protocols import INITIALISATION, TRAINING, Key
from maml_rl.policies import GaussianPolicy, PolicyConfig
from maml_rl.rl.family import AdvantageConfig, RLFamily
from maml_rl.sampling.local import LocalSampler
from maml_rl.supervised.sinusoid import SinusoidConfig, SinusoidFamily


class Targets(NamedTuple):
    targets: Tensor  # [N, 1, 1]


class PowerFamily:
    """One number p; outputs p^power; the loss is (output - c)^2 / 2, c being the data, or the output itself.

    With power 1 the map from p to the output is linear; with others it bends.
    """

    metric, higher_is_better, resamples = "loss", False, False

    def __init__(self, power: int, is_square: bool):
        self._power, self._is_square = power, is_square

    def outputs(self, params: Params, data: Targets) -> Tensor:
        return (params["p"] ** self._power).view(1, 1)

    def linearize(self, params: Params, data: Targets) -> AutogradMap:
        return AutogradMap(self.outputs, params, data)

    def inner_loss_at(self, outputs: Tensor, data: Targets) -> Tensor:
        if self._is_square:
            return 0.5 * (outputs - data.targets).square().sum()
        return outputs.sum()

    def outer_loss_at(self, outputs: Tensor, data: Targets) -> Tensor:
        return self.inner_loss_at(outputs, data)

    def divergence(self, old_outputs: Tensor, outputs: Tensor, data: Targets) -> Tensor:
        return 0.5 * (outputs - old_outputs).square().sum()


class Problem(NamedTuple):
    """One iteration's data."""

    family: Any
    inner: InnerConfig
    theta: Params
    supports: list[Any]  # one for each inner step
    query: Any
    threads: Threads

    @property
    def objective(self) -> MetaObjective:
        return MetaObjective(self.family, self.inner, self.supports, self.query, self.threads)


def double(tree: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.double(), tree)


@pytest.fixture(scope="session")
def threads() -> Threads:
    return Threads(1)


@pytest.fixture(scope="session")
def power_family() -> Callable[..., PowerFamily]:
    return PowerFamily


@pytest.fixture(scope="session")
def targets() -> Callable[..., Targets]:
    return lambda *values: Targets(torch.tensor(values, dtype=torch.float64).view(-1, 1, 1))


@pytest.fixture(scope="session")
def sinusoid(threads: Threads) -> Callable[..., Problem]:
    """(num_tasks, num_steps, first_order=False) -> a problem with 10 examples in support and query."""

    def make(num_tasks: int, num_steps: int, first_order: bool = False) -> Problem:
        family = SinusoidFamily(SinusoidConfig(hidden_sizes=(6, 5), init_std=0.5), torch.device("cpu"))
        theta = double(family.init_params(Key(3, INITIALISATION, 0)))
        tasks = family.sample_tasks(num_tasks, np.random.default_rng(0))
        key = Key(3, TRAINING, 0)
        support, query = (double(family.collect(tasks, {}, key.at_phase(p))) for p in (0, 1))
        inner = InnerConfig(num_steps=num_steps, step_size=0.05, first_order=first_order)
        return Problem(family, inner, theta, [support] * num_steps, query, threads)

    return make


@pytest.fixture(scope="session")
def navigation(threads: Threads) -> Callable[..., Problem]:
    """(num_tasks, num_steps, estimator, activation) -> a problem; each step has a batch of its own."""

    def make(num_tasks: int, num_steps: int, estimator: str = "ratio", activation: str = "tanh") -> Problem:
        policy = GaussianPolicy(2, 2, PolicyConfig(hidden_sizes=(4, 3), activation=activation, init_std=0.7))
        sampler = LocalSampler(
            lambda num_envs: gymnasium.make_vec("maml/Navigation2D-v0", num_envs=num_envs, horizon=8),
            policy,
            num_episodes=3,
            horizon=8,
            threads=threads,
        )
        world = gymnasium.make_vec("maml/Navigation2D-v0", num_envs=1)
        family = RLFamily(
            world.sample_tasks, sampler, policy, AdvantageConfig(), estimator, threads, torch.device("cpu")
        )
        inner = InnerConfig(num_steps=num_steps, step_size=0.3, estimator=estimator)
        theta = family.init_params(Key(5, INITIALISATION, 0))
        tasks = family.sample_tasks(num_tasks, np.random.default_rng(1))
        params, supports = stack(theta, num_tasks), []
        for phase, step_size in enumerate(inner.step_sizes):
            supports.append(family.collect(tasks, params, Key(5, TRAINING, 0, phase)))
            params = adapt_tasks(family, params, supports[-1:], [step_size], threads)
        query = family.collect(tasks, params, Key(5, TRAINING, 0, num_steps))
        return Problem(family, inner, double(theta), [double(s) for s in supports], double(query), threads)

    return make
