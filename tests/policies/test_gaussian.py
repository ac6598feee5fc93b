import math

import torch
from torch.distributions import Independent, Normal, kl_divergence

from maml_rl.policies.gaussian import Gaussian

GAUSSIAN = Gaussian(2, init_std=1.0, min_std=1e-6)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(outputs):
    mean, log_std = outputs.chunk(2, dim=-1)
    return Independent(Normal(mean, log_std.exp()), 1)


def test_against_torch_s():
    outputs, old, actions = random(5, 6, 4), random(5, 6, 4, seed=1), random(5, 6, 2, seed=2)
    torch.testing.assert_close(GAUSSIAN.log_prob(outputs, actions), normal(outputs).log_prob(actions))
    torch.testing.assert_close(GAUSSIAN.kl(old, outputs), kl_divergence(normal(old), normal(outputs)))
    torch.testing.assert_close(GAUSSIAN.entropy(outputs), normal(outputs).entropy())
    assert torch.equal(GAUSSIAN.mean_action(outputs), outputs[..., :2])


def test_actions_are_mean_plus_scaled_noise():
    outputs, noise = random(5, 6, 4), random(5, 6, 2, seed=3)
    expected = outputs[..., :2] + outputs[..., 2:].exp() * noise
    torch.testing.assert_close(GAUSSIAN.sample(outputs, noise), expected)


def test_the_standard_deviation_never_falls_below_its_bound():
    # An adapted log_std far below the bound: the policy acts, judges and diverges as with the bound itself.
    gaussian = Gaussian(2, init_std=1.0, min_std=0.01)
    means, actions, noise = random(6, 2), random(6, 2, seed=1), random(6, 2, seed=2)
    bound = torch.full((6, 2), math.log(0.01), dtype=torch.float64)
    at_bound, below = (torch.cat([means, log_std], dim=-1) for log_std in (bound, bound - 50.0))
    assert torch.equal(gaussian.sample(below, noise), gaussian.sample(at_bound, noise))
    torch.testing.assert_close(gaussian.sample(below, noise) - means, 0.01 * noise)
    assert torch.equal(gaussian.log_prob(below, actions), gaussian.log_prob(at_bound, actions))
    assert torch.equal(gaussian.entropy(below), gaussian.entropy(at_bound))
    assert (gaussian.kl(below, at_bound) == 0).all()


def test_in_single_precision_everything_stays_finite_at_the_default_bound():
    outputs = torch.cat([torch.zeros(6, 2), torch.full((6, 2), -1e6)], dim=-1).requires_grad_()
    values = GAUSSIAN.log_prob(outputs, torch.ones(6, 2)).sum() + GAUSSIAN.kl(outputs.detach(), outputs).sum()
    (gradient,) = torch.autograd.grad(values, outputs)
    assert torch.isfinite(values) and torch.isfinite(gradient).all()


def test_the_initial_standard_deviation():
    params = Gaussian(2, init_std=0.3, min_std=1e-6).init_params()
    assert list(params) == [GAUSSIAN.own_params]
    torch.testing.assert_close(params["log_std"].exp(), torch.full((2,), 0.3))


def test_within_reach_actions_that_are_executed_are_nearly_the_same():
    outputs, noise = torch.tensor([[0.3, -1.4, -0.7, 0.0], [7.0, -3.0, -0.7, 0.0]]), random(4000, 2, 2).float()
    near = GAUSSIAN.within_reach(outputs)
    assert torch.equal(near[0], outputs[0])  # means within one standard deviation of the bounds
    torch.testing.assert_close(near[1], torch.tensor([1.0 + math.exp(-0.7), -2.0, -0.7, 0.0]))
    executed = [GAUSSIAN.sample(each, noise).clamp(-1.0, 1.0) for each in (outputs, near)]
    assert (executed[0] - executed[1]).abs().mean() < 0.1
    assert torch.equal(GAUSSIAN.within_reach(near), near)
