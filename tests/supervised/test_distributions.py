"""Distributions over the real line as tasks."""

import numpy as np
import pytest
import torch

from maml_rl.core.keys import TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.supervised.distributions import (
    SHAPES,
    Distribution,
    DistributionCollector,
    DistributionConfig,
    DistributionSource,
)

KEY = Key(0, TRAINING, 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_draws_and_density_have_the_mean_the_variance_and_each_other(shape):
    one = Distribution(shape, mean=0.7, variance=1.6)
    drawn = one.draw(np.random.default_rng(0), 400_000)
    assert drawn.mean() == pytest.approx(0.7, abs=0.01) and drawn.var() == pytest.approx(1.6, abs=0.03)
    at = np.linspace(-12.0, 18.0, 300_001)
    density = one.density(at)
    assert np.trapezoid(density, at) == pytest.approx(1.0, abs=1e-3)
    assert np.trapezoid(density * at, at) == pytest.approx(0.7, abs=1e-3)
    for low, high in ((-1.0, 0.0), (0.5, 1.5)):
        inside = (at >= low) & (at <= high)
        share = ((drawn >= low) & (drawn <= high)).mean()
        assert np.trapezoid(density[inside], at[inside]) == pytest.approx(share, abs=0.005)


def test_the_source_draws_every_shape_within_the_ranges():
    tasks = DistributionSource(DistributionConfig()).sample_tasks(400, np.random.default_rng(0))
    assert {task.shape for task in tasks} == set(SHAPES)
    assert all(-1.0 <= task.mean <= 1.0 and 0.5 <= task.variance <= 2.0 for task in tasks)


def test_support_and_query_differ_and_a_key_gives_the_same_again():
    collector = DistributionCollector(DistributionConfig(num_examples=7), torch.device("cpu"), Threads(1))
    tasks = DistributionSource(DistributionConfig()).sample_tasks(3, np.random.default_rng(0))
    support, query = (collector.collect(tasks, None, KEY.at_phase(phase)).numbers for phase in (0, 1))
    assert support.shape == (3, 7, 1) and not torch.equal(support, query)
    assert torch.equal(support, collector.collect(tasks, None, KEY).numbers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_examples": 0}, "num_examples must be at least 1, got 0"),
        ({"variance_range": (0.0, 1.0)}, "variance_range must be positive, finite and rising"),
        ({"mean_range": (1.0, -1.0)}, "mean_range must be finite and rising"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        DistributionConfig(**settings)
