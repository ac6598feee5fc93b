import pytest
import torch

from maml_rl.core.outer.reptile import Reptile, ReptileConfig, reptile_step

ADAPTED = torch.tensor([[1.0, 2.0], [3.0, 6.0]])  # mean (2, 4)


def test_a_share_of_the_way_to_the_mean():
    moved = reptile_step(torch.tensor([0.0, 8.0]), ADAPTED, 0.25)
    assert moved.tolist() == [0.5, 7.0]


def test_the_whole_way_ends_at_the_mean():
    assert reptile_step(torch.tensor([5.0, 5.0]), ADAPTED, 1.0).tolist() == [2.0, 4.0]


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"reptile\.step_size must be positive and finite, got 0.0"):
        ReptileConfig(step_size=0.0)


def test_the_share_of_the_way_falls_to_zero_as_asked():
    config = ReptileConfig(step_size=0.8, decay_steps=4)
    assert [config.size_after(i) for i in range(6)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.2, 0.2])
    assert ReptileConfig(step_size=0.8).size_after(10**6) == 0.8


def test_the_step_asks_for_no_loss():
    theta, adapted = {"a": torch.tensor([0.0]), "b": torch.tensor([8.0])}, {"a": ADAPTED[:, :1], "b": ADAPTED[:, 1:]}
    outer = Reptile(ReptileConfig(step_size=0.5, decay_steps=2))
    moved = outer.step(None, theta, adapted, outer.init(theta), iteration=1)  # at half the way's half
    assert {name: value.tolist() for name, value in moved.params.items()} == {"a": [0.5], "b": [7.0]}
    assert (moved.state, moved.metrics) == ((), {})
