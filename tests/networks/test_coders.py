"""The networks of the Neural Statistician that see pictures or numbers."""

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from maml_rl.core.trees import as_leaves
from maml_rl.networks.blocks import by_averages, by_batch, init_averages
from maml_rl.networks.coders import NumberCoder, PictureCoder


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count, side):
    return (torch.rand(count, side, side, 1, generator=generator(1)) < 0.3).float()


def rounded(values):
    return torch.equal(values.bfloat16().float(), values)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("side", [28, 13, 5])
def test_pictures_become_features_and_hidden_units_become_pixels(side, precision):
    coder, hidden = PictureCoder(side, 4, 2, precision), torch.randn(6, 8, generator=generator())
    params = coder.init(generator(), hidden.shape[1])
    normalise = by_averages(params, init_averages(params))
    features, logits = coder.encode(params, pictures(6, side), normalise), coder.decode(params, hidden, normalise)
    assert features.shape == (6, coder.num_features) and logits.shape == (6, side, side, 1)
    assert features.dtype == logits.dtype == torch.float32
    assert rounded(features) == rounded(logits) == (precision == "bfloat16")
    seen = pictures(6, side)
    torch.testing.assert_close(coder.mean(logits), Bernoulli(logits=logits).mean)
    expected = Bernoulli(logits=logits).log_prob(seen).sum(dim=(1, 2, 3))
    torch.testing.assert_close(coder.log_likelihood(logits, seen), expected)


@pytest.mark.parametrize("num_convolutions", [1, 3])
def test_bfloat16_changes_values_and_gradients_by_rounding_alone(num_convolutions):
    seen, found = pictures(24, 16), {}
    for precision in ("float32", "bfloat16"):
        coder = PictureCoder(16, 8, num_convolutions, precision)
        leaves, moments = as_leaves(coder.init(generator(), coder.num_features)), {}
        normalise = by_batch(leaves, moments)
        likelihood = coder.log_likelihood(coder.decode(leaves, coder.encode(leaves, seen, normalise), normalise), seen)
        slopes = torch.autograd.grad(likelihood.sum(), list(leaves.values()))
        assert {each.dtype for each in (likelihood, *moments.values(), *slopes)} == {torch.float32}
        found[precision] = likelihood.detach(), torch.cat([slope.flatten() for slope in slopes])
    (exact, exact_slope), (short, short_slope) = found["float32"], found["bfloat16"]
    torch.testing.assert_close(short, exact, rtol=0.02, atol=0.0)
    assert not torch.equal(short, exact)
    assert torch.cosine_similarity(short_slope, exact_slope, dim=0) > 0.98
    assert short_slope.norm() == pytest.approx(exact_slope.norm().item(), rel=0.05)


def test_numbers_have_a_gaussian_density():
    coder, numbers = NumberCoder(2, 6, 2), torch.randn(5, 2, generator=generator())
    params = coder.init(generator(), 4)
    normalise = by_averages(params, init_averages(params))
    assert coder.encode(params, numbers, normalise).shape == (5, 6)
    decoded = coder.decode(params, torch.randn(5, 4, generator=generator(2)), normalise)
    mean, log_variance = decoded.chunk(2, dim=-1)
    expected = Normal(mean, (0.5 * log_variance).exp()).log_prob(numbers).sum(dim=-1)
    torch.testing.assert_close(coder.log_likelihood(decoded, numbers), expected)
    assert torch.equal(coder.mean(decoded), mean)
