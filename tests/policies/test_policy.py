"""Networks and distributions together: (params, observation) to a distribution over actions."""

import pickle

import pytest
import torch

from maml_rl.core.contracts import Actor
from maml_rl.core.trees import take_task
from maml_rl.policies.categorical import Categorical, MultiCategorical
from maml_rl.policies.gaussian import Gaussian
from maml_rl.policies.module import make_policy
from maml_rl.policies.policy import PolicyConfig, PolicySpec

SPECS = {
    "gaussian": PolicySpec(3, Gaussian(2, init_std=1.0, min_std=1e-6)),
    "categorical": PolicySpec(3, Categorical(4)),
    "multi": PolicySpec(3, MultiCategorical((2, 3, 1))),
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def policy_for(spec):
    return make_policy(spec, PolicyConfig())


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_spec
def test_stacked_equals_one_by_one(spec):
    policy = policy_for(spec)
    each = [policy.init(torch.Generator().manual_seed(i)) for i in range(4)]
    params = {name: torch.stack([p[name] for p in each]) for name in each[0]}
    observations = random(4, 5, 3).float()
    stacked = policy.outputs(params, observations)
    linearized = policy.linearize(params, observations).outputs
    acted, memory = Actor(policy, params).step((), observations, None)
    assert torch.equal(acted, stacked) and memory == ()
    for i in range(4):
        alone = policy.outputs(take_task(params, i), observations[i])
        torch.testing.assert_close(stacked[i], alone)
        torch.testing.assert_close(linearized[i], alone)


@every_spec
def test_the_default_network_has_two_layers_of_a_hundred_units(spec):
    params = policy_for(spec).init(torch.Generator().manual_seed(0))
    width = spec.distribution.network_width  # a mean for each action; a logit for each choice
    assert width == {"Gaussian": 2, "Categorical": 4, "MultiCategorical": 6}[type(spec.distribution).__name__]
    assert [tuple(params[f"{layer}.weight"].shape) for layer in range(3)] == [(3, 100), (100, 100), (100, width)]
    assert PolicyConfig().activation == "relu"
    # ReLU is positively homogeneous and biases start at zero: doubled observations double the network's
    # outputs.
    observations = random(5, 3).float()
    outputs, doubled = (policy_for(spec).outputs(params, scale * observations)[:, :width] for scale in (1.0, 2.0))
    torch.testing.assert_close(doubled, 2.0 * outputs)


def test_a_gaussian_s_deviation_stands_behind_its_means_the_same_in_every_row():
    policy = policy_for(SPECS["gaussian"])
    params = policy.init(torch.Generator().manual_seed(0)) | {"log_std": torch.tensor([0.5, -1.0])}
    outputs = policy.outputs(params, random(5, 3).float())
    assert outputs.shape == (5, 4) and outputs[:, 2:].tolist() == [[0.5, -1.0]] * 5


@every_spec
def test_the_head_is_the_last_layer_with_the_distribution_s_own_parameter(spec):
    policy = policy_for(spec)
    params = policy.init(torch.Generator())
    own = [spec.distribution.own_params] if spec.distribution.own_params else []
    assert [name for name in params if name.startswith(policy.head)] == ["2.weight", "2.bias", *own]


@every_spec
def test_equal_generators_give_equal_parameters(spec):
    first, second, other = (policy_for(spec).init(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_one_choice_among_several_has_a_categorical_policy_s_parameters():
    specs = SPECS["categorical"], PolicySpec(3, MultiCategorical((4,)))
    ours, theirs = (policy_for(spec).init(torch.Generator().manual_seed(0)) for spec in specs)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@every_spec
def test_a_policy_is_a_value_that_can_be_sent_to_workers(spec):
    policy = policy_for(spec)
    assert pickle.loads(pickle.dumps(policy)) == policy and not policy.is_recurrent


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_sizes": (100, 0)}, r"policy\.hidden_sizes must be at least 1 each, got \(100, 0\)"),
        ({"min_std": 0.0}, "0 < min_std <= init_std < inf, got 0.0 and 1.0"),
        ({"min_std": 0.5, "init_std": 0.1}, "0 < min_std <= init_std < inf, got 0.5 and 0.1"),
        ({"init_std": float("inf")}, "0 < min_std <= init_std < inf"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        PolicyConfig(**settings)
