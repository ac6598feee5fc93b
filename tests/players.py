"""Small policies, and recipes by which samplers play with them, for tests: workers import them."""

from dataclasses import dataclass

import torch

from maml_rl.core.trees import Params, named
from maml_rl.networks.mlp import linear
from maml_rl.networks.recurrent import gru_cell, init_gru
from maml_rl.policies.categorical import Categorical
from maml_rl.policies.gaussian import Gaussian
from maml_rl.policies.policy import MLPPolicy, PolicySpec, with_own_params
from maml_rl.sampling.recipe import Recipe
from maml_rl.sampling.trajectory import Shape


def gaussian(observation_size, num_actions, hidden_sizes=(8,), activation="relu", init_std=1.0, min_std=1e-6):
    spec = PolicySpec(observation_size, Gaussian(num_actions, init_std, min_std))
    return MLPPolicy(spec, hidden_sizes, activation)


def categorical(observation_size, num_actions, hidden_sizes=(8,)):
    return MLPPolicy(PolicySpec(observation_size, Categorical(num_actions)), hidden_sizes, "relu")


def recipe_for(make_env, policy, num_episodes, horizon, reports_success=False, scale=None, in_a_row=False):
    """How a policy's episodes are played, with its own noise."""
    size, actions = policy.spec
    shape = Shape(num_episodes, horizon, size, actions.action_width, reports_success)
    return Recipe(make_env, actions, scale, shape, in_a_row)


def own_params(policy, count):
    """Other parameters for every task."""
    each = [policy.init(torch.Generator().manual_seed(i)) for i in range(count)]
    return {name: torch.stack([p[name] for p in each]) for name in each[0]}


def assert_bit_equal(tree, other):
    """Trees of the same names and bits: trajectories, states."""
    found, wanted = named(tree), named(other)
    assert list(found) == list(wanted)
    for name, value in found.items():
        assert torch.equal(value, wanted[name]), name


@dataclass(frozen=True)
class RecurrentPolicy:
    """A gated recurrent unit over the observation and all that has happened since the last one."""

    spec: PolicySpec
    hidden_size: int
    is_recurrent = True

    def init(self, generator: torch.Generator) -> Params:
        size, distribution = self.spec
        width = size + distribution.action_width + 2
        params = init_gru("gru", width, self.hidden_size, generator)
        params["head.weight"] = torch.randn(self.hidden_size, distribution.network_width, generator=generator)
        params["head.bias"] = torch.zeros(distribution.network_width)
        return params | distribution.init_params()

    def start(self, params, num_episodes):
        return params["head.weight"].new_zeros(len(params["head.weight"]), num_episodes, self.hidden_size)

    def step(self, params, memory, observation, previous):
        happened = (previous.actions, previous.rewards.unsqueeze(-1), previous.begins.unsqueeze(-1))
        hidden = gru_cell(params, "gru", torch.cat([observation, *happened], dim=-1), memory)
        outputs = linear(hidden, params["head.weight"], params["head.bias"])
        return with_own_params(self.spec.distribution, params, outputs), hidden
