"""The networks of the Neural Statistician: shapes, invariances, and the bound."""

import dataclasses

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from maml_rl.core.gaussians import Gaussian, standard
from maml_rl.networks.blocks import by_averages, by_batch, init_averages
from maml_rl.networks.coders import NumberCoder, PictureCoder
from maml_rl.networks.statistician import Noise, Sizes, Statistician, pooled

SIZES = Sizes(context_size=2, latent_size=2, num_latents=2, hidden_size=6, num_hidden=2, num_pooled=1)
NUMBERS = Statistician(NumberCoder(1, 6, 2), SIZES)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(model, observations):
    """Parameters in double precision, away from where they start, and normalisation by averages."""
    params = {
        name: (value + 0.2 * torch.randn(value.shape, generator=generator(1))).double()
        for name, value in model.init(generator()).items()
    }
    return params, observations.double(), by_averages(params, init_averages(params))


def numbers(num_sets=3, size=4):
    return problem(NUMBERS, torch.randn(num_sets, size, 1, generator=generator(2)))


def noise(num_sets, size, sizes=SIZES, seed=3):
    draw = torch.randn(sizes.num_latents, num_sets, size, sizes.latent_size, generator=generator(seed))
    context = torch.randn(num_sets, sizes.context_size, generator=generator(seed + 1))
    return Noise(torch.ones(num_sets, size).double(), context.double(), draw.double())


def as_torch(gaussian):
    return Independent(Normal(gaussian.mean, (0.5 * gaussian.log_variance).exp()), 1)


def retrace(model, params, sets, given, normalise):
    """Every distribution that one evaluation of the bound meets, and its draws."""
    features = model.coder.encode(params, sets.flatten(0, 1), normalise).unflatten(0, sets.shape[:2])
    instances = model.instances(params, features.flatten(0, 1), normalise).unflatten(0, sets.shape[:2])
    about = model.context(params, *pooled(instances, given.kept), normalise)
    context, latents, pairs = about.draw(given.context), [], []
    for level in reversed(range(model.sizes.num_latents)):
        above = latents[0] if latents else None
        found = model.posterior(params, level, features, above, context, normalise)
        prior = model.prior(params, level, above, context, normalise)
        pairs.append((found, Gaussian(*(part.expand_as(found.mean) for part in prior))))
        latents.insert(0, found.draw(given.latents[level]))
    return about, context, latents, pairs


ALL = [[1.0] * 4] * 3
SOME = [[1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [1.0] * 4]


@pytest.mark.parametrize("kept", [ALL, SOME], ids=["all", "some"])
def test_the_bound_is_reconstruction_minus_divergences_as_torch_has_them(kept):
    # The context is believed from what is kept; latents and reconstruction are of every observation.
    params, sets, normalise = numbers()
    given = noise(3, 4)._replace(kept=torch.tensor(kept).double())
    bound, _, _ = NUMBERS.bound(params, sets, given, normalise)
    about, context, latents, pairs = retrace(NUMBERS, params, sets, given, normalise)
    torch.testing.assert_close(bound.context, kl_divergence(as_torch(about), as_torch(standard(about.mean))))
    of_latents = sum(kl_divergence(as_torch(q), as_torch(p)).sum(dim=-1) for q, p in pairs)
    torch.testing.assert_close(bound.latents, of_latents)
    decoded = NUMBERS.decode(params, latents, context, normalise)
    likelihood = as_torch(Gaussian(*decoded.chunk(2, dim=-1))).log_prob(sets.flatten(0, 1)).view(3, 4).sum(dim=-1)
    torch.testing.assert_close(bound.reconstruction, likelihood)
    torch.testing.assert_close(bound.total, likelihood - bound.context - of_latents)
    assert (bound.context > 0).all() and (bound.latents > 0).all()


def test_on_average_the_bound_is_the_log_ratio_and_lies_below_the_log_likelihood():
    # log p(D) >= E[log w], w = p(D, c, z) / q(c, z | D); the mean of w itself is p(D)
    params, sets, normalise = numbers(1, 3)
    count = 4000
    repeated = sets.expand(count, -1, -1)
    given = noise(count, 3)
    about, context, latents, pairs = retrace(NUMBERS, params, repeated, given, normalise)
    log_ratio = standard(context).log_density(context) - about.log_density(context)
    for (q, p), drawn in zip(pairs, reversed(latents), strict=True):
        log_ratio = log_ratio + (p.log_density(drawn) - q.log_density(drawn)).sum(dim=-1)
    decoded = NUMBERS.decode(params, latents, context, normalise)
    likelihood = NUMBERS.coder.log_likelihood(decoded, repeated.flatten(0, 1)).view(count, 3).sum(dim=-1)
    weights = log_ratio + likelihood
    totals = NUMBERS.bound(params, repeated, given, normalise)[0].total
    error = 4.0 * (weights.std() + totals.std()).item() / count**0.5
    assert totals.mean().item() == pytest.approx(weights.mean().item(), abs=error)
    evidence = weights.logsumexp(dim=0).item() - torch.tensor(float(count)).log().item()
    assert totals.mean().item() < evidence - 0.05


def test_the_statistic_does_not_depend_on_the_order_of_the_set_or_on_what_is_dropped():
    params, sets, normalise = numbers(2, 5)
    kept = torch.tensor([[1.0, 1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]]).double()

    def about(sets, kept):
        features = NUMBERS.coder.encode(params, sets.flatten(0, 1), normalise)
        instances = NUMBERS.instances(params, features, normalise).unflatten(0, sets.shape[:2])
        return NUMBERS.context(params, *pooled(instances, kept), normalise)

    expected = about(sets, kept)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(about(sets[:, order], kept[:, order]), expected)
    others = torch.where(kept.unsqueeze(-1) == 1, sets, sets + 3.0)
    torch.testing.assert_close(about(others, kept), expected)
    assert not torch.allclose(about(sets, torch.ones_like(kept)).mean, expected.mean, rtol=1e-2)
    # two equal instances have the mean of one, but the statistic also sees how many there are
    twice = sets[:, :1].expand(-1, 2, -1)
    one, two = (about(twice, torch.tensor([[1.0, second]] * 2).double()) for second in (0.0, 1.0))
    assert not torch.allclose(one.mean, two.mean, rtol=1e-3)


@pytest.mark.parametrize("side", [28, 16, 13, 5])
@pytest.mark.parametrize("num_convolutions", [1, 3])
def test_pictures_of_any_size_are_encoded_and_decoded(side, num_convolutions):
    model = Statistician(PictureCoder(side, 2, num_convolutions, "float32"), dataclasses.replace(SIZES, num_latents=1))
    pictures = (torch.rand(3, 4, side, side, 1, generator=generator()) < 0.3).float()
    params, sets, _ = problem(model, pictures)
    moments = {}
    bound, instances, means = model.bound(params, sets, noise(3, 4, model.sizes), by_batch(params, moments))
    assert instances.shape == (3, 4, 6) and means.shape == (12, side, side, 1)
    assert torch.isfinite(bound.total).all() and (means > 0).all() and (means < 1).all()
    assert moments.keys() == init_averages(params).keys()
    assert (bound.reconstruction <= 0).all()  # pixels are probabilities


def test_every_parameter_has_a_gradient():
    params, sets, _ = numbers()
    leaves = {name: value.requires_grad_() for name, value in params.items()}
    total = NUMBERS.bound(leaves, sets, noise(3, 4), by_batch(leaves, {}))[0].total.sum()
    slopes = torch.autograd.grad(total, list(leaves.values()))
    assert all(slope.abs().max() > 0 for slope in slopes)


def test_imagined_numbers_follow_the_context():
    params, _, normalise = numbers()
    contexts = torch.tensor([[0.0, 0.0], [3.0, -3.0]]).double()
    draws = torch.randn(2, 2, 50, 2, generator=generator()).double()
    found = NUMBERS.imagine(params, contexts, draws, normalise).view(2, 50)
    assert found.std(dim=1).min() > 0  # z is drawn
    torch.testing.assert_close(NUMBERS.imagine(params, contexts[:1], draws[:, :1], normalise).view(50), found[0])


@pytest.mark.parametrize("name", ["context_size", "latent_size", "num_latents", "hidden_size", "num_hidden"])
def test_sizes_are_checked(name):
    with pytest.raises(ValueError, match=rf"sizes\.{name} must be at least 1, got 0"):
        Sizes(**{name: 0})
