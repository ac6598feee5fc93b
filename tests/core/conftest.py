"""Small problems that several tests of the core share: one of each kind, as values in double precision."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import optree
import pytest
import torch
from players import gaussian, recipe_for
from torch import Tensor

import envs  # noqa: F401 - registers the ids
from maml_rl.core.contracts import Actor
from maml_rl.core.inner import InnerConfig, adapt_tasks
from maml_rl.core.keys import INITIALISATION, TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.objective import MetaObjective
from maml_rl.core.output_map import AutogradMap
from maml_rl.core.trees import Params, stack
from maml_rl.rl.model import AdvantageConfig, PolicyModel
from maml_rl.sampling.local import LocalSampler
from maml_rl.supervised.sinusoid import RegressionModel, SinusoidCollector, SinusoidConfig, SinusoidSource


class Targets(NamedTuple):
    targets: Tensor  # [N, 1, 1]


class PowerModel:
    """One number p; outputs p^power; the loss is (output - c)^2 / 2, c being the data, or the output itself.

    With power 1 the map from p to the output is linear; with others it bends.
    """

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

    model: Any
    inner: InnerConfig
    theta: Params
    supports: list[Any]  # one for each inner step
    query: Any
    threads: Threads

    @property
    def objective(self) -> MetaObjective:
        return MetaObjective(self.model, self.inner, self.supports, self.query, self.threads)


def double(tree: Any) -> Any:
    return optree.tree_map(lambda leaf: leaf.double(), tree)


@pytest.fixture(scope="session")
def threads() -> Threads:
    return Threads(1)


@pytest.fixture(scope="session")
def power_model() -> Callable[..., PowerModel]:
    return PowerModel


@pytest.fixture(scope="session")
def targets() -> Callable[..., Targets]:
    return lambda *values: Targets(torch.tensor(values, dtype=torch.float64).view(-1, 1, 1))


@pytest.fixture(scope="session")
def sinusoid(threads: Threads) -> Callable[..., Problem]:
    """(num_tasks, num_steps, first_order=False) -> a problem with 10 examples in support and query."""

    def make(num_tasks: int, num_steps: int, first_order: bool = False) -> Problem:
        config, cpu = SinusoidConfig(hidden_sizes=(6, 5), init_std=0.5), torch.device("cpu")
        model, collector = RegressionModel(config, cpu), SinusoidCollector(config, cpu, threads)
        theta = double(model.init_params(Key(3, INITIALISATION, 0)))
        tasks = SinusoidSource(config).sample_tasks(num_tasks, np.random.default_rng(0))
        key = Key(3, TRAINING, 0)
        support, query = (double(collector.collect(tasks, None, key.at_phase(p))) for p in (0, 1))
        inner = InnerConfig(num_steps=num_steps, step_size=0.05, first_order=first_order)
        return Problem(model, inner, theta, [support] * num_steps, query, threads)

    return make


@pytest.fixture(scope="session")
def navigation(threads: Threads) -> Callable[..., Problem]:
    """(num_tasks, num_steps, estimator, activation) -> a problem; each step has a batch of its own."""

    def make(num_tasks: int, num_steps: int, estimator: str = "ratio", activation: str = "tanh") -> Problem:
        def make_env(num_envs: int) -> Any:
            return gymnasium.make_vec("maml/Navigation2D-v0", num_envs=num_envs, horizon=8)

        policy = gaussian(2, 2, (4, 3), activation, init_std=0.7)
        sampler = LocalSampler(recipe_for(make_env, policy, num_episodes=3, horizon=8), threads)
        model = PolicyModel(policy, AdvantageConfig(), estimator, threads, torch.device("cpu"))
        inner = InnerConfig(num_steps=num_steps, step_size=0.3)
        theta = model.init_params(Key(5, INITIALISATION, 0))
        tasks = make_env(1).sample_tasks(num_tasks, np.random.default_rng(1))
        params, supports = stack(theta, num_tasks), []

        def collect(phase: int) -> Any:
            return model.prepare(params, sampler.sample(tasks, Actor(policy, params), Key(5, TRAINING, 0, phase)))

        for phase, step_size in enumerate(inner.step_sizes):
            supports.append(collect(phase))
            params = adapt_tasks(model, params, supports[-1:], [step_size], threads)
        query = collect(num_steps)
        return Problem(model, inner, double(theta), [double(s) for s in supports], double(query), threads)

    return make
