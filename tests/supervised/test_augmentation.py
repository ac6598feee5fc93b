"""Drawings that are turned, mirrored, thickened and binarised."""

import math

import pytest
import torch

from maml_rl.supervised.augmentation import AugmentationConfig, augmented, binarised, thickened, turned

DRAWINGS = (torch.rand(3, 2, 9, 9, 1, generator=torch.Generator().manual_seed(0)) < 0.3).float()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_quarter_turn_is_numpy_s_and_no_turn_is_none():
    found = turned(DRAWINGS, torch.tensor([0.0, math.pi / 2, math.pi]))
    for place, quarters in enumerate((0, 1, 2)):
        expected = torch.rot90(DRAWINGS[place], quarters, dims=(1, 2))
        torch.testing.assert_close(found[place], expected, rtol=0.0, atol=1e-4)


def test_turning_keeps_the_ink_of_what_stays_inside():
    blot = torch.zeros(1, 1, 15, 15, 1)
    blot[:, :, 6:9, 4:11] = 1.0
    for angle in (0.3, 1.0, -0.7):
        found = turned(blot, torch.tensor([angle]))
        assert found.sum().item() == pytest.approx(blot.sum().item(), rel=0.03)
        assert 0.0 <= found.min() and found.max() <= 1.0


def test_thickening_adds_a_pixel_on_every_side():
    dot = torch.zeros(1, 1, 7, 7, 1)
    dot[0, 0, 3, 3] = 1.0
    expected = torch.zeros(1, 1, 7, 7, 1)
    expected[0, 0, 2:5, 2:5] = 1.0
    assert torch.equal(thickened(dot), expected)


def test_binary_pixels_have_the_drawing_s_mean():
    grey = torch.rand(1, 1, 4, 4, 1, generator=generator())
    found = torch.stack([binarised(grey, generator(seed)) for seed in range(2000)])
    assert set(found.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(found.mean(dim=0), grey, rtol=0.0, atol=0.05)


def test_all_of_a_set_are_changed_alike_and_sets_differently():
    config = AugmentationConfig(max_angle=90.0)
    same = DRAWINGS[:1, :1].expand(6, 2, -1, -1, -1)
    found = augmented(same, config, generator())
    torch.testing.assert_close(found[:, 0], found[:, 1])
    assert not torch.allclose(found[0], found[1], atol=0.1)
    assert torch.equal(found, augmented(same, config, generator()))
    assert not torch.equal(found, augmented(same, config, generator(1)))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (AugmentationConfig(0.0, mirror=0.0), DRAWINGS),
        (AugmentationConfig(0.0, mirror=1.0), DRAWINGS.flip(3)),
        (AugmentationConfig(0.0, mirror=0.0, dilate=1.0), thickened(DRAWINGS)),
    ],
)
def test_each_change_can_be_had_alone(config, expected):
    assert torch.equal(augmented(DRAWINGS, config, generator()), expected)


@pytest.mark.parametrize(("name", "value"), [("max_angle", 181.0), ("mirror", 1.5), ("dilate", -0.1)])
def test_settings_are_checked(name, value):
    with pytest.raises(ValueError, match=rf"augmentation\.{name} must lie in"):
        AugmentationConfig(**{name: value})
