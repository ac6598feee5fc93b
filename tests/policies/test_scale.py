import pytest
import torch

from maml_rl.policies.scale import ObservationScale, see


def test_observations_are_seen_raw_or_normalised():
    seen = torch.tensor([[1.0, 2e8, 3.0], [4.0, 2e8 + 1.0, 1e9]], dtype=torch.float64)
    assert torch.equal(see(seen, None), seen.float())
    # (1 - 2) / 2 and (4 - 2) / 2; the 1 on top of 2e8, which single precision drops; 3 - 3, and 1e9 clipped to 10
    found = see(seen, ObservationScale((2.0, 2e8, 3.0), (2.0, 0.5, 1.0)))
    assert found.dtype == torch.float32
    assert found.tolist() == [[-0.5, 0.0, 0.0], [1.0, 2.0, 10.0]]


def test_a_scale_hides_no_number_that_is_not_finite():
    scale = ObservationScale((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert scale(torch.tensor([float("inf"), float("nan"), 1e30])).isfinite().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("mean", "std"), [((1.0,), ()), ((float("nan"),), (1.0,)), ((0.0,), (0.0,)), ((0.0,), (float("inf"),))]
)
def test_a_scale_must_be_of_finite_and_positive_numbers(mean, std):
    with pytest.raises(ValueError, match="observation_scale must have"):
        ObservationScale(mean, std)
