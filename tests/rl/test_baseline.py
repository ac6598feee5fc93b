import numpy as np
import pytest
import torch

from maml_rl.rl import baseline
from maml_rl.rl.baseline import features, fitted_values

LENGTHS = (9, 4, 1, 7)  # steps of each episode
HORIZON, OBSERVATION = 9, 2
MASK = torch.tensor([[1.0] * n + [0.0] * (HORIZON - n) for n in LENGTHS], dtype=torch.float64)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def feature_row(observation, t):
    """[o, o^2, t/100, (t/100)^2, (t/100)^3, 1] with o clipped to +-10, written out."""
    clipped = np.clip(observation, -10.0, 10.0)
    time = t / 100.0
    return np.array([*clipped, *clipped**2, time, time**2, time**3, 1.0])


def unmasked_rows(observations):
    return np.array([feature_row(observations[e, t].numpy(), t) for e, n in enumerate(LENGTHS) for t in range(n)])


def test_features():
    observations = 8.0 * random(len(LENGTHS), HORIZON, OBSERVATION)
    assert observations.abs().max() > 10.0  # some are clipped
    rows = features(observations).view(len(LENGTHS), HORIZON, -1)
    for e, t in ((0, 0), (1, 3), (3, 8)):
        np.testing.assert_allclose(rows[e, t], feature_row(observations[e, t].numpy(), t), rtol=1e-14)


def test_equal_to_ridge_regression_on_the_unmasked_rows():
    # minimise |X c - y|^2 + ridge |c|^2: plain least squares with sqrt(ridge) I below X and zeros below y.
    observations = random(len(LENGTHS), HORIZON, OBSERVATION)
    returns, ridge = random(len(LENGTHS), HORIZON, seed=1) * MASK, 1e-5
    rows, targets = unmasked_rows(observations), returns[MASK.bool()].numpy()
    num_features = rows.shape[1]
    stacked = np.vstack([rows, ridge**0.5 * np.eye(num_features)])
    coefficients = np.linalg.lstsq(stacked, np.concatenate([targets, np.zeros(num_features)]), rcond=None)[0]
    values = fitted_values(observations, returns, MASK, ridge)
    np.testing.assert_allclose(values[MASK.bool()], rows @ coefficients, rtol=1e-6, atol=1e-8)


def test_masked_content_does_not_matter():
    observations, returns = random(len(LENGTHS), HORIZON, OBSERVATION), random(len(LENGTHS), HORIZON, seed=1)
    values = fitted_values(observations, returns, MASK, 1e-5)
    masked = MASK == 0
    other = torch.where(masked.unsqueeze(-1), 100.0 * random(*observations.shape, seed=2), observations)
    other_returns = torch.where(masked, 100.0 * random(*returns.shape, seed=3), returns)
    assert torch.equal(fitted_values(other, other_returns, MASK, 1e-5), values)
    assert (values[masked] == 0).all()


def test_returns_linear_in_the_features_are_fitted_perfectly():
    observations = random(6, 50, OBSERVATION)
    coefficients = torch.tensor([1.0, -2, 0.5, 3, 10, -20, 5, 4], dtype=torch.float64)
    returns = (features(observations) @ coefficients).view(6, 50)
    values = fitted_values(observations, returns, torch.ones(6, 50, dtype=torch.float64), 1e-12)
    torch.testing.assert_close(values, returns, rtol=1e-6, atol=1e-6)


def test_observations_that_never_change_are_no_obstacle():
    # Columns that are multiples of one another make the plain normal equations singular.
    observations = torch.ones(3, 5, OBSERVATION)
    returns = torch.full((3, 5), 2.0)
    values = fitted_values(observations, returns, torch.ones(3, 5), 1e-5)
    assert values.dtype == returns.dtype
    torch.testing.assert_close(values, returns, rtol=1e-4, atol=0)


@pytest.mark.parametrize("ridge", [1e3, 1e6, 1e12])
def test_a_heavy_ridge_shrinks_the_values_to_zero(ridge):
    observations, returns = random(4, HORIZON, OBSERVATION), random(4, HORIZON, seed=1)
    values = fitted_values(observations, returns, MASK, ridge)
    assert values.abs().max() < 1e3 * returns.abs().max() / ridge


@pytest.mark.parametrize("block", [2, 7, 512])
def test_products_of_steps_are_the_same_for_any_block_of_an_observation(block):
    observations, weights = random(len(LENGTHS), HORIZON, 30), MASK.flatten()
    inputs = features(observations) * weights.unsqueeze(-1)
    torch.testing.assert_close(baseline.gram_of_steps(observations, weights, block), inputs @ inputs.T)


def test_with_fewer_steps_than_features_the_smaller_system_gives_the_same_values():
    # As ridge regression by plain least squares, with sqrt(ridge) I below X and zeros below y.
    observations, ridge = random(len(LENGTHS), HORIZON, 30), 1e-2
    returns = random(len(LENGTHS), HORIZON, seed=1) * MASK
    rows, targets = unmasked_rows(observations), returns[MASK.bool()].numpy()
    assert len(rows) < baseline.num_features(30) == rows.shape[1]
    stacked = np.vstack([rows, ridge**0.5 * np.eye(rows.shape[1])])
    coefficients = np.linalg.lstsq(stacked, np.concatenate([targets, np.zeros(rows.shape[1])]), rcond=None)[0]
    values = fitted_values(observations, returns, MASK, ridge)
    np.testing.assert_allclose(values[MASK.bool()], rows @ coefficients, rtol=1e-8, atol=1e-10)
    assert (values[MASK == 0] == 0).all()


def test_an_observation_of_camera_size_takes_no_matrix_of_its_square():
    # 84 x 84 x 3 have 42,340 features: their normal equations take 14 GB, those of the steps 6 kB.
    observations = torch.rand(4, 7, 84 * 84 * 3, generator=torch.Generator().manual_seed(0))
    returns = random(4, 7)
    values = fitted_values(observations, returns, torch.ones(4, 7), 1e-5)
    torch.testing.assert_close(values, returns, rtol=1e-3, atol=1e-3)  # with so many features nothing is left over
    assert baseline.working_bytes(28, baseline.num_features(84 * 84 * 3)) < 20_000
