"""Episodes computed once more: the same memory and outputs as in the rollout, with derivatives."""

import pytest
import torch
from players import RecurrentPolicy, own_params, recipe_for
from push import EdgeVectorEnv, Place

from maml_rl.core.contracts import Actor
from maml_rl.core.keys import TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.trees import as_leaves
from maml_rl.policies.gaussian import Gaussian
from maml_rl.policies.policy import PolicySpec
from maml_rl.rl.unroll import unroll
from maml_rl.sampling.local import LocalSampler

POLICY = RecurrentPolicy(PolicySpec(3, Gaussian(1, init_std=1.0, min_std=1e-6)), hidden_size=7)
PARAMS = own_params(POLICY, 2)


def sample(in_a_row):
    threads = Threads(1)
    sampler = LocalSampler(recipe_for(EdgeVectorEnv, POLICY, 3, 10, in_a_row=in_a_row), threads, None)
    data = sampler.sample([Place(0.0), Place(0.3)], Actor(POLICY, PARAMS), Key(1, TRAINING, 0))
    sampler.close()
    threads.close()
    return data


@pytest.mark.parametrize("in_a_row", [False, True])
def test_the_memory_is_that_of_the_rollout(in_a_row):
    data = sample(in_a_row)
    assert data.mask.sum(dim=-1).min() < 10  # some episodes end early
    outputs, memory = unroll(Actor(POLICY, PARAMS), data, in_a_row)
    assert outputs.shape[:3] == (2, 3, 10)
    torch.testing.assert_close(memory, data.memory)


def test_the_other_order_of_episodes_gives_another_memory():
    outputs, _ = unroll(Actor(POLICY, PARAMS), sample(in_a_row=True), in_a_row=True)
    apart, _ = unroll(Actor(POLICY, PARAMS), sample(in_a_row=True), in_a_row=False)
    torch.testing.assert_close(outputs[:, 0], apart[:, 0])
    assert not torch.isclose(outputs[:, 1:, 0], apart[:, 1:, 0]).all(dim=-1).any()


def test_a_later_episode_s_outputs_depend_on_earlier_ones_through_the_memory():
    data, leaves = sample(in_a_row=True), as_leaves(PARAMS)
    seen = data.observations.clone().requires_grad_()
    outputs, _ = unroll(Actor(POLICY, leaves), data._replace(observations=seen), in_a_row=True)
    (slope,) = torch.autograd.grad(outputs[0, 2, 0].sum(), seen)
    assert slope[0, 0, 0].any() and slope[0, 2, 0].any()
    assert not slope[1].any() and not slope[0, 2, 1:].any()  # neither on another task nor on the future
