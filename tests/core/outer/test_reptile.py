import pytest
import torch

from maml_rl.core.outer.reptile import ReptileConfig, reptile_step

ADAPTED = torch.tensor([[1.0, 2.0], [3.0, 6.0]])  # mean (2, 4)


def test_a_share_of_the_way_to_the_mean():
    moved = reptile_step(torch.tensor([0.0, 8.0]), ADAPTED, ReptileConfig(step_size=0.25))
    assert moved.tolist() == [0.5, 7.0]


def test_the_whole_way_ends_at_the_mean():
    assert reptile_step(torch.tensor([5.0, 5.0]), ADAPTED, ReptileConfig(step_size=1.0)).tolist() == [
        2.0,
        4.0,
    ]


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"reptile\.step_size must be positive and finite, got 0.0"):
        ReptileConfig(step_size=0.0)
