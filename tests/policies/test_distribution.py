"""What holds for every distribution over actions."""

import pickle

import numpy as np
import pytest
import torch

from maml_rl.policies.categorical import Categorical, MultiCategorical
from maml_rl.policies.distribution import MeanActions
from maml_rl.policies.gaussian import Gaussian

GAUSSIAN = Gaussian(2, init_std=1.0, min_std=1e-6)
CATEGORICAL = Categorical(4)
MULTI = MultiCategorical((2, 3, 1))
EVERY = {"gaussian": GAUSSIAN, "categorical": CATEGORICAL, "multi": MULTI}
every_distribution = pytest.mark.parametrize("distribution", EVERY.values(), ids=EVERY)


def width(distribution):
    """Numbers in the outputs."""
    own = sum(p.numel() for p in distribution.init_params().values())
    return distribution.network_width + own


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_distribution
def test_the_divergence_from_itself_is_zero(distribution):
    outputs, others = random(5, 6, width(distribution)), random(5, 6, width(distribution), seed=1)
    assert distribution.kl(outputs, outputs).abs().max() < 1e-14
    assert (distribution.kl(outputs, others) > 0).all()


@pytest.mark.parametrize("distribution", [GAUSSIAN, CATEGORICAL], ids=["gaussian", "categorical"])
def test_the_divergence_s_hessian_is_the_expected_square_of_the_score(distribution):
    # Fisher's information, once as curvature and once as E[g g'] - exactly for the categorical, for the
    # Gaussian written down: 1 / s^2 for each mean and 2 for each log s.
    outputs = random(4)
    fisher = torch.autograd.functional.hessian(lambda new: distribution.kl(outputs, new), outputs)
    if distribution is GAUSSIAN:
        expected = torch.diag(torch.cat([(-2 * outputs[2:]).exp(), torch.full((2,), 2.0, dtype=torch.float64)]))
    else:
        actions = torch.arange(4).unsqueeze(-1)
        scores = torch.func.jacrev(lambda o: distribution.log_prob(o.expand(4, 4), actions))(outputs)
        expected = torch.einsum("a,ap,aq->pq", outputs.softmax(dim=-1), scores, scores)
    torch.testing.assert_close(fisher, expected, rtol=1e-10, atol=1e-12)


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


@every_distribution
def test_mean_actions_leave_the_noise_as_it_is_and_do_not_use_it(distribution):
    mean = pickle.loads(pickle.dumps(MeanActions(distribution)))
    assert (mean.action_width, mean.noise_size) == (distribution.action_width, distribution.noise_size)
    drawn, same = (each.draw_noise(np.random.default_rng(3), 5) for each in (mean, distribution))
    np.testing.assert_array_equal(drawn, same)
    outputs = random(5, width(distribution))
    assert torch.equal(mean.sample(outputs, torch.from_numpy(drawn)), distribution.mean_action(outputs))
