import pytest
import torch

from maml_rl.core.statistics import spread


def test_mean_deviation_and_interval_over_tasks():
    # Means of the tasks 1, 2 and 6: mean 3, squared deviations 4 + 1 + 9 = 14; an interval needs 14 / 2 = 7.
    found = spread("return", torch.tensor([[0.0, 2.0], [2.0, 2.0], [5.0, 7.0]]))
    assert found["return"] == 3.0
    assert found["return_std"] == pytest.approx((14 / 3) ** 0.5)
    assert found["return_ci95"] == pytest.approx(1.96 * (7 / 3) ** 0.5)


def test_one_task_tells_nothing_of_others():
    assert spread("mse", torch.tensor([[1.0, 3.0]])) == {"mse": 2.0, "mse_std": 0.0}
