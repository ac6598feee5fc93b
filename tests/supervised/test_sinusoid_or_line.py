"""Sinusoids and lines: their tasks, their noise, and what is said about distributions over their targets."""

import math

import numpy as np
import pytest
import torch

from maml_rl.core.acting import Answered
from maml_rl.core.keys import EVALUATION, Key
from maml_rl.core.lift import Threads
from maml_rl.evaluation.calibration import reliability
from maml_rl.supervised.sinusoid import Examples, Sinusoid, SinusoidCollector, SquaredError
from maml_rl.supervised.sinusoid_or_line import Line, SinusoidOrLineConfig, SinusoidOrLineSource

KEY = Key(0, EVALUATION, 0)


def test_tasks_are_of_both_kinds_and_within_their_ranges():
    config = SinusoidOrLineConfig(line_share=0.3, slope_range=(-1.0, 2.0), intercept_range=(4.0, 5.0))
    tasks = SinusoidOrLineSource(config).sample_tasks(4000, np.random.default_rng(0))
    lines = [task for task in tasks if isinstance(task, Line)]
    assert all(isinstance(task, Line | Sinusoid) for task in tasks)
    assert len(lines) / len(tasks) == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 4000) ** 0.5)
    slopes, intercepts = ([getattr(line, name) for line in lines] for name in ("slope", "intercept"))
    assert -1.0 <= min(slopes) < -0.9 and 1.9 < max(slopes) <= 2.0
    assert 4.0 <= min(intercepts) < 4.1 and 4.9 < max(intercepts) <= 5.0


def test_targets_lie_around_the_function_with_the_noise_that_is_set():
    tasks = [Line(2.0, -1.0), Sinusoid(3.0, 0.5)]
    config = SinusoidOrLineConfig(num_examples=5000, noise_std=0.3)
    examples = SinusoidCollector(config, torch.device("cpu"), Threads(1)).collect(tasks, None, KEY)
    for task, inputs, targets in zip(tasks, *(part.squeeze(-1).double().numpy() for part in examples), strict=True):
        rest = targets - task.at(inputs)
        assert rest.mean() == pytest.approx(0.0, abs=0.02)
        assert rest.std() == pytest.approx(0.3, rel=0.05)
        assert abs(np.corrcoef(inputs, rest)[0, 1]) < 0.06
    exact = SinusoidOrLineConfig(num_examples=7, noise_std=0.0)
    inputs, targets = SinusoidCollector(exact, torch.device("cpu"), Threads(1)).collect(tasks, None, KEY)
    np.testing.assert_allclose(targets[0], 2.0 * inputs[0] - 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"line_share": 1.1}, r"sinusoid\.line_share must lie in \[0, 1\], got 1\.1"),
        ({"slope_range": (3.0, -3.0)}, r"sinusoid\.slope_range must be finite and rising, got \(3\.0, -3\.0\)"),
        ({"noise_std": -0.1}, r"sinusoid\.noise_std must be at least 0 and finite, got -0\.1"),
        ({"num_examples": 0}, r"sinusoid\.num_examples must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        SinusoidOrLineConfig(**settings)


def answered(predictions, targets):
    column = torch.tensor(targets).view(1, -1, 1)
    return Answered(Examples(column, column), torch.tensor(predictions).unsqueeze(0))


def test_the_likelihood_is_that_of_the_mixture_of_gaussians_around_the_draws():
    measure = SquaredError(noise_std=0.5)
    data = answered([[0.0, 1.0], [2.0, 2.0]], [0.3, 2.5])
    one, other = (torch.distributions.Normal(torch.tensor(m), 0.5) for m in ([0.0, 2.0], [1.0, 2.0]))
    target = torch.tensor([0.3, 2.5])
    density = 0.5 * (one.log_prob(target).exp() + other.log_prob(target).exp())
    torch.testing.assert_close(measure.forecast(data).log_likelihood[0], density.log())
    torch.testing.assert_close(measure.score(data)[0], torch.tensor([0.2**2, 0.5**2]))  # from the mean prediction
    assert SquaredError().forecast(data) is None  # without noise a prediction is no distribution


def test_draws_from_the_predicted_distribution_are_calibrated_and_others_are_not():
    generator = torch.Generator().manual_seed(0)
    predictions = 3.0 * torch.randn(1, 20_000, 2, generator=generator)
    which = torch.randint(2, (1, 20_000, 1), generator=generator)
    targets = predictions.gather(-1, which) + 0.5 * torch.randn(1, 20_000, 1, generator=generator)
    measure = SquaredError(noise_std=0.5)
    together, first = (
        reliability(measure.forecast(Answered(Examples(targets, targets), shown)))
        for shown in (predictions, predictions[..., :1])
    )
    assert together.error < 0.01
    assert first.error > 0.1


def test_draws_of_one_function_change_nothing():
    measure, outputs = SquaredError(noise_std=0.3), torch.tensor([[[0.2], [1.0]]])
    examples = Examples(torch.zeros(1, 2, 1), torch.tensor([[[0.0], [3.0]]]))
    alone, thrice = (Answered(examples, measure.mixture([outputs] * count)) for count in (1, 3))
    torch.testing.assert_close(measure.score(alone), measure.score(thrice))
    for one, other in zip(measure.forecast(alone), measure.forecast(thrice), strict=True):
        torch.testing.assert_close(one, other)
    assert measure.forecast(alone).log_likelihood[0, 0].item() == pytest.approx(
        -0.5 * (0.2 / 0.3) ** 2 - math.log(0.3 * math.sqrt(2 * math.pi)), abs=1e-5
    )
