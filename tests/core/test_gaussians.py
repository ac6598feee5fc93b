"""Gaussians of independent numbers, against torch.distributions and against draws."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from maml_rl.core.gaussians import Gaussian, divergence, kl, standard
from maml_rl.core.trees import as_leaves


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Gaussian(
        torch.randn(shape, generator=generator, dtype=torch.float64),
        torch.randn(shape, generator=generator, dtype=torch.float64),
    )


def as_torch(gaussian):
    return Independent(Normal(gaussian.mean, (0.5 * gaussian.log_variance).exp()), 1)


def test_divergence_and_density_are_torch_s():
    one, other, at = random(3, 4, seed=1), random(3, 4, seed=2), random(3, 4, seed=3).mean
    torch.testing.assert_close(kl(one, other), kl_divergence(as_torch(one), as_torch(other)))
    torch.testing.assert_close(one.log_density(at), as_torch(one).log_prob(at))


def test_divergence_is_the_mean_log_ratio_of_draws():
    one, other = random(4, seed=1), random(4, seed=2)
    noise = torch.randn(400_000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = one.draw(noise)
    ratios = one.log_density(drawn) - other.log_density(drawn)
    assert kl(one, other).item() == pytest.approx(ratios.mean().item(), abs=4.0 * ratios.std().item() / 400_000**0.5)
    assert kl(one, other).item() != pytest.approx(kl(other, one).item(), rel=0.01)  # so the direction is tested


def test_divergence_is_zero_for_equal_ones_and_positive_for_others():
    one = random(5, 3)
    torch.testing.assert_close(kl(one, one), torch.zeros(5, dtype=torch.float64))
    assert (kl(one, standard(one.mean)) > 0).all()


def test_draws_have_mean_and_variance():
    one = random(2)
    drawn = one.draw(torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    torch.testing.assert_close(drawn.mean(dim=0), one.mean, rtol=0.0, atol=0.02)
    torch.testing.assert_close(drawn.var(dim=0).log(), one.log_variance, rtol=0.0, atol=0.02)


def trees(num_tasks):
    """(shift, one's log-variances, other's) of two tensors."""
    shapes = {"weight": (3, 2), "bias": (2,)}
    log_variances = [{name: random(*shape, seed=seed).mean for name, shape in shapes.items()} for seed in (1, 2)]
    return {name: random(num_tasks, *shape).mean for name, shape in shapes.items()}, *log_variances


def test_divergence_of_trees_and_its_slopes_are_those_of_kl():
    given = [as_leaves(tree) for tree in trees(4)]
    found = divergence(*trees(4))
    expected = sum(
        kl(Gaussian(shift.flatten(1), one.flatten()), Gaussian(torch.zeros_like(one).flatten(), other.flatten()))
        for shift, one, other in zip(*(tree.values() for tree in given), strict=True)
    )
    torch.testing.assert_close(found.values, expected)
    expected.sum().backward()
    for slopes, leaves in zip(found[1:], given, strict=True):
        for name, leaf in leaves.items():
            torch.testing.assert_close(slopes[name], leaf.grad)


def test_equal_trees_have_no_divergence():
    shift, one, _ = trees(3)
    nothing = {name: torch.zeros_like(value) for name, value in shift.items()}
    assert torch.equal(divergence(nothing, one, one).values, torch.zeros(3, dtype=torch.float64))
