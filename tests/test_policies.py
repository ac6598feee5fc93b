import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from maml_rl.core.params import take_task
from maml_rl.policies import CategoricalPolicy, GaussianPolicy, MultiCategoricalPolicy, ObservationScale, PolicyConfig

GAUSSIAN = GaussianPolicy(3, 2, PolicyConfig())
CATEGORICAL = CategoricalPolicy(3, 4, PolicyConfig())
MULTI = MultiCategoricalPolicy(3, (2, 3, 1), PolicyConfig())
every_policy = pytest.mark.parametrize(
    "policy", [GAUSSIAN, CATEGORICAL, MULTI], ids=["gaussian", "categorical", "multi"]
)


def width(policy):
    """Numbers in the outputs."""
    return 6 if policy is MULTI else 4


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(outputs):
    mean, log_std = outputs.chunk(2, dim=-1)
    return Independent(Normal(mean, log_std.exp()), 1)


def test_observations_are_seen_raw_or_normalised():
    seen = torch.tensor([[1.0, 2e8, 3.0], [4.0, 2e8 + 1.0, 1e9]], dtype=torch.float64)
    assert torch.equal(GAUSSIAN.see(seen), seen.float()) and torch.equal(CATEGORICAL.see(seen), seen.float())
    # (1 - 2) / 2 and (4 - 2) / 2; the 1 on top of 2e8, which single precision drops; 3 - 3, and 1e9 clipped to 10
    scale = ObservationScale((2.0, 2e8, 3.0), (2.0, 0.5, 1.0))
    for policy in (GaussianPolicy(3, 2, PolicyConfig(), scale), CategoricalPolicy(3, 4, PolicyConfig(), scale)):
        assert policy.see(seen).dtype == torch.float32
        assert policy.see(seen).tolist() == [[-0.5, 0.0, 0.0], [1.0, 2.0, 10.0]]


def test_a_scale_hides_no_number_that_is_not_finite():
    scale = ObservationScale((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert scale(torch.tensor([float("inf"), float("nan"), 1e30])).isfinite().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("mean", "std"), [((1.0,), ()), ((float("nan"),), (1.0,)), ((0.0,), (0.0,)), ((0.0,), (float("inf"),))]
)
def test_a_scale_must_be_of_finite_and_positive_numbers(mean, std):
    with pytest.raises(ValueError, match="observation_scale must have"):
        ObservationScale(mean, std)


def test_gaussian_against_torch_s():
    outputs, old, actions = random(5, 6, 4), random(5, 6, 4, seed=1), random(5, 6, 2, seed=2)
    torch.testing.assert_close(GAUSSIAN.log_prob(outputs, actions), normal(outputs).log_prob(actions))
    torch.testing.assert_close(GAUSSIAN.kl(old, outputs), kl_divergence(normal(old), normal(outputs)))
    torch.testing.assert_close(GAUSSIAN.entropy(outputs), normal(outputs).entropy())
    assert torch.equal(GAUSSIAN.mean_action(outputs), outputs[..., :2])


def test_categorical_against_torch_s():
    outputs, old = random(5, 6, 4), random(5, 6, 4, seed=1)
    actions = torch.arange(30).remainder(4).view(5, 6)
    distribution = Categorical(logits=outputs)
    found = CATEGORICAL.log_prob(outputs, actions.unsqueeze(-1).double())
    torch.testing.assert_close(found, distribution.log_prob(actions))
    torch.testing.assert_close(CATEGORICAL.kl(old, outputs), kl_divergence(Categorical(logits=old), distribution))
    torch.testing.assert_close(CATEGORICAL.entropy(outputs), distribution.entropy())
    assert torch.equal(CATEGORICAL.mean_action(outputs).squeeze(-1).long(), outputs.argmax(dim=-1))


def test_several_choices_against_torch_s():
    outputs, old = random(5, 6, 6), random(5, 6, 6, seed=1)
    actions = torch.stack([torch.arange(30) % 2, torch.arange(30) % 3, torch.zeros(30)], dim=-1).view(5, 6, 3)
    now, before = ([Categorical(logits=part) for part in each.split((2, 3, 1), dim=-1)] for each in (outputs, old))

    def total(parts):
        return sum(parts, torch.zeros(()))

    expected = total(each.log_prob(actions[..., i]) for i, each in enumerate(now))
    torch.testing.assert_close(MULTI.log_prob(outputs, actions.double()), expected)
    torch.testing.assert_close(MULTI.kl(old, outputs), total(map(kl_divergence, before, now)))
    torch.testing.assert_close(MULTI.entropy(outputs), total(each.entropy() for each in now))
    best = torch.stack([each.logits.argmax(dim=-1) for each in now], dim=-1)
    assert torch.equal(MULTI.mean_action(outputs).long(), best)


def test_one_choice_among_several_is_a_categorical_policy():
    alone = MultiCategoricalPolicy(3, (4,), PolicyConfig())
    outputs, old, noise = random(5, 6, 4), random(5, 6, 4, seed=1), torch.rand(5, 6, 1)
    actions = CATEGORICAL.sample(outputs, noise)
    assert torch.equal(alone.sample(outputs, noise), actions)
    assert torch.equal(alone.log_prob(outputs, actions), CATEGORICAL.log_prob(outputs, actions))
    assert torch.equal(alone.kl(old, outputs), CATEGORICAL.kl(old, outputs))
    ours, theirs = (each.init(torch.Generator().manual_seed(0)) for each in (alone, CATEGORICAL))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_choices_are_drawn_independently():
    # On an even grid of n * n noises the frequency of every pair is the product of the probabilities.
    n = 300
    outputs = random(6, seed=5)
    grid = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    noise = torch.cat([torch.cartesian_prod(grid, grid), torch.zeros(n * n, 1)], dim=-1)
    actions = MULTI.sample(outputs.expand(n * n, 6), noise).long()
    assert actions.shape == (n * n, 3) and (actions[:, 2] == 0).all()
    frequencies = torch.bincount(3 * actions[:, 0] + actions[:, 1], minlength=6).double() / n**2
    one, other = outputs[:2].softmax(dim=-1), outputs[2:5].softmax(dim=-1)
    torch.testing.assert_close(frequencies.view(2, 3), one[:, None] * other, rtol=0, atol=2.0 / n)


@every_policy
def test_the_divergence_of_a_policy_from_itself_is_zero(policy):
    outputs, others = random(5, 6, width(policy)), random(5, 6, width(policy), seed=1)
    assert policy.kl(outputs, outputs).abs().max() < 1e-14
    assert (policy.kl(outputs, others) > 0).all()


@pytest.mark.parametrize("policy", [GAUSSIAN, CATEGORICAL], ids=["gaussian", "categorical"])
def test_the_divergence_s_hessian_is_the_expected_square_of_the_score(policy):
    # Fisher's information, once as curvature and once as E[g g'] - exactly for the categorical, for the
    # Gaussian written down: 1 / s^2 for each mean and 2 for each log s.
    outputs = random(4)
    fisher = torch.autograd.functional.hessian(lambda new: policy.kl(outputs, new), outputs)
    if policy is GAUSSIAN:
        expected = torch.diag(torch.cat([(-2 * outputs[2:]).exp(), torch.full((2,), 2.0, dtype=torch.float64)]))
    else:
        actions = torch.arange(4).unsqueeze(-1)
        scores = torch.func.jacrev(lambda o: policy.log_prob(o.expand(4, 4), actions))(outputs)
        expected = torch.einsum("a,ap,aq->pq", outputs.softmax(dim=-1), scores, scores)
    torch.testing.assert_close(fisher, expected, rtol=1e-10, atol=1e-12)


def test_gaussian_actions_are_mean_plus_scaled_noise():
    outputs, noise = random(5, 6, 4), random(5, 6, 2, seed=3)
    expected = outputs[..., :2] + outputs[..., 2:].exp() * noise
    torch.testing.assert_close(GAUSSIAN.sample(outputs, noise), expected)


# Probabilities that single precision holds exactly, with the sums 0.25, 0.75, 0.75, 1: the third action is
# impossible.
LOGITS = torch.tensor([0.25, 0.5, 0.0, 0.25]).log()


@pytest.mark.parametrize(
    ("noise", "action"),
    [(0.0, 0), (0.2499999, 0), (0.25, 1), (0.7499999, 1), (0.75, 3), (0.9999999, 3)],
)
def test_uniform_noise_is_inverted_at_exact_thresholds(noise, action):
    assert CATEGORICAL.sample(LOGITS, torch.tensor([noise])).item() == action


def test_sampling_frequencies_are_the_probabilities():
    # On an even grid of n noises every frequency is within one grid step of its probability.
    outputs, n = random(4, seed=5), 10_000
    noise = (torch.arange(n, dtype=torch.float64).unsqueeze(-1) + 0.5) / n
    actions = CATEGORICAL.sample(outputs.expand(n, 4), noise)
    assert actions.shape == (n, 1)
    frequencies = torch.bincount(actions.squeeze(-1).long(), minlength=4) / n
    torch.testing.assert_close(frequencies.double(), outputs.softmax(dim=-1), rtol=0, atol=1.0 / n)


def test_noise_has_the_distribution_it_is_inverted_from():
    rng = np.random.default_rng(0)
    uniform = CATEGORICAL.draw_noise(rng, 4000)
    assert uniform.shape == (4000, 1) and uniform.min() >= 0.0 and uniform.max() < 1.0
    assert uniform.mean() == pytest.approx(0.5, abs=4 * (1 / 12 / 4000) ** 0.5)
    gaussian = GAUSSIAN.draw_noise(rng, 4000)
    assert gaussian.shape == (4000, 2)
    assert gaussian.mean() == pytest.approx(0.0, abs=4 / 8000**0.5)
    assert gaussian.std() == pytest.approx(1.0, abs=4 / 16000**0.5)
    assert uniform.dtype == gaussian.dtype == np.float32
    assert MULTI.draw_noise(rng, 7).shape == (7, MULTI.noise_size) == (7, MULTI.action_width) == (7, 3)


def test_the_standard_deviation_never_falls_below_its_bound():
    # An adapted log_std far below the bound: the policy acts, judges and diverges as with the bound itself.
    policy = GaussianPolicy(3, 2, PolicyConfig(min_std=0.01))
    means, actions, noise = random(6, 2), random(6, 2, seed=1), random(6, 2, seed=2)
    bound = torch.full((6, 2), math.log(0.01), dtype=torch.float64)
    at_bound, below = (torch.cat([means, log_std], dim=-1) for log_std in (bound, bound - 50.0))
    assert torch.equal(policy.sample(below, noise), policy.sample(at_bound, noise))
    torch.testing.assert_close(policy.sample(below, noise) - means, 0.01 * noise)
    assert torch.equal(policy.log_prob(below, actions), policy.log_prob(at_bound, actions))
    assert torch.equal(policy.entropy(below), policy.entropy(at_bound))
    assert (policy.kl(below, at_bound) == 0).all()


def test_in_single_precision_everything_stays_finite_at_the_default_bound():
    outputs = torch.cat([torch.zeros(6, 2), torch.full((6, 2), -1e6)], dim=-1).requires_grad_()
    values = GAUSSIAN.log_prob(outputs, torch.ones(6, 2)).sum() + GAUSSIAN.kl(outputs.detach(), outputs).sum()
    (gradient,) = torch.autograd.grad(values, outputs)
    assert torch.isfinite(values) and torch.isfinite(gradient).all()


@every_policy
def test_stacked_equals_one_by_one(policy):
    each = [policy.init(torch.Generator().manual_seed(i)) for i in range(4)]
    params = {name: torch.stack([p[name] for p in each]) for name in each[0]}
    observations = random(4, 5, 3).float()
    stacked = policy.outputs(params, observations)
    linearized = policy.linearize(params, observations).outputs
    for i in range(4):
        alone = policy.outputs(take_task(params, i), observations[i])
        torch.testing.assert_close(stacked[i], alone)
        torch.testing.assert_close(linearized[i], alone)


@pytest.mark.parametrize("policy", [GAUSSIAN, CATEGORICAL], ids=["gaussian", "categorical"])
def test_the_default_network_has_two_layers_of_a_hundred_units(policy):
    params = policy.init(torch.Generator().manual_seed(0))
    shapes = [tuple(params[f"{layer}.weight"].shape) for layer in range(3)]
    width = 2 if policy is GAUSSIAN else 4  # a mean for each action; a logit for each choice
    assert shapes == [(3, 100), (100, 100), (100, width)]
    assert policy.config.activation == "relu"
    # ReLU is positively homogeneous and biases start at zero: doubled observations double the network's
    # outputs.
    observations = random(5, 3).float()
    outputs, doubled = (policy.outputs(params, scale * observations)[:, :width] for scale in (1.0, 2.0))
    torch.testing.assert_close(doubled, 2.0 * outputs)


def test_the_initial_standard_deviation():
    params = GaussianPolicy(3, 2, PolicyConfig(init_std=0.3)).init(torch.Generator())
    torch.testing.assert_close(params["log_std"].exp(), torch.full((2,), 0.3))


@pytest.mark.parametrize("policy", [GAUSSIAN, CATEGORICAL], ids=["gaussian", "categorical"])
def test_equal_generators_give_equal_parameters(policy):
    first, second, other = (policy.init(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


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
