"""Calibration: probabilities against how often what they were of came true."""

import pytest
import torch

from maml_rl.core.contracts import Forecast
from maml_rl.evaluation.calibration import reliability


def forecast(probabilities, happened):
    columns = (torch.tensor(values, dtype=torch.float32).view(1, -1, 1) for values in (probabilities, happened))
    return Forecast(torch.zeros(1, len(happened)), *columns)


def test_the_error_is_the_mean_distance_of_bins_from_what_came_true():
    # three events of 0.9, two of which came true, and one of 0.3 that did: 3/4 |2/3 - 0.9| + 1/4 |1 - 0.3|
    found = reliability(forecast([0.9, 0.9, 0.9, 0.3], [1, 0, 1, 1]))
    assert found.error == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.7, abs=1e-6)
    assert found.rows == [(pytest.approx(0.3), 1.0, 0.25), (pytest.approx(0.9), pytest.approx(2 / 3), 0.75)]


def test_events_that_come_true_as_often_as_said_have_no_error():
    generator = torch.Generator().manual_seed(0)
    said = torch.rand(1, 100_000, 1, generator=generator)
    came = (torch.rand(1, 100_000, 1, generator=generator) < said).float()
    assert reliability(Forecast(said[..., 0], said, came)).error < 0.01
    assert reliability(Forecast(said[..., 0], said, 1.0 - came)).error == pytest.approx(0.5, abs=0.02)


def test_certain_events_are_counted_and_parts_add_up():
    parts = [forecast([0.0, 1.0, 0.55], [0, 1, 1]), forecast([1.0], [0])]
    together = reliability(parts[0]).plus(reliability(parts[1]))
    whole = reliability(forecast([0.0, 1.0, 0.55, 1.0], [0, 1, 1, 0]))
    assert together.number.sum() == 4
    assert all(torch.equal(one, other) for one, other in zip(together, whole, strict=True))
