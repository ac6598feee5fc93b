import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_rl.rl.returns import discounted_returns, gae, standardise

units = st.floats(0.0, 1.0)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(discount=units, seed=st.integers(0, 10_000))
def test_returns_are_sums_of_discounted_rewards(discount, seed):
    rewards = random(2, 3, 6, seed=seed)
    returns = discounted_returns(rewards, discount)
    for t in range(6):
        summed = sum(discount ** (later - t) * rewards[..., later] for later in range(t, 6))
        torch.testing.assert_close(returns[..., t], summed, rtol=1e-12, atol=1e-12)


def test_discount_zero_leaves_the_rewards_and_one_sums_them():
    rewards = random(2, 5)
    assert torch.equal(discounted_returns(rewards, 0.0), rewards)
    torch.testing.assert_close(discounted_returns(rewards, 1.0)[:, 0], rewards.sum(dim=-1))


@settings(max_examples=30, deadline=None)
@given(discount=units, seed=st.integers(0, 10_000))
def test_lambda_zero_gives_one_step_errors(discount, seed):
    rewards, values = random(3, 6, seed=seed), random(3, 7, seed=seed + 1)
    expected = rewards + discount * values[:, 1:] - values[:, :-1]
    torch.testing.assert_close(gae(rewards, values, discount, 0.0), expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(discount=units, seed=st.integers(0, 10_000))
def test_lambda_one_gives_returns_minus_values(discount, seed):
    # The values telescope; what remains of the last one is discount^(T - t) * values[T].
    rewards, values = random(3, 6, seed=seed), random(3, 7, seed=seed + 1)
    left = torch.tensor([discount ** (6 - t) for t in range(6)], dtype=torch.float64)
    expected = discounted_returns(rewards, discount) - values[:, :-1] + left * values[:, -1:]
    torch.testing.assert_close(gae(rewards, values, discount, 1.0), expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(discount=units, gae_lambda=units, seed=st.integers(0, 10_000))
def test_advantages_follow_their_recursion(discount, gae_lambda, seed):
    rewards, values = random(6, seed=seed), random(7, seed=seed + 1)
    advantages, following = gae(rewards, values, discount, gae_lambda), 0.0
    for t in reversed(range(6)):
        following = rewards[t] + discount * values[t + 1] - values[t] + discount * gae_lambda * following
        torch.testing.assert_close(advantages[t], following, rtol=1e-12, atol=1e-12)


def test_what_comes_in_is_not_changed():
    rewards, values = random(2, 4), random(2, 5)
    before = rewards.clone(), values.clone()
    gae(rewards, values, 0.9, 0.5)
    discounted_returns(rewards, 0.9)
    assert torch.equal(rewards, before[0]) and torch.equal(values, before[1])


@pytest.mark.parametrize("discount", [-0.1, 1.1, float("nan")])
def test_discounts_outside_the_unit_interval_are_refused(discount):
    with pytest.raises(ValueError, match=r"discount must lie in \[0, 1\], got"):
        discounted_returns(torch.zeros(3), discount)
    with pytest.raises(ValueError, match=r"discount must lie in \[0, 1\], got"):
        gae(torch.zeros(3), torch.zeros(4), discount, 0.5)


@pytest.mark.parametrize("gae_lambda", [-0.1, 1.1, float("nan")])
def test_lambdas_outside_the_unit_interval_are_refused(gae_lambda):
    with pytest.raises(ValueError, match=r"gae_lambda must lie in \[0, 1\], got"):
        gae(torch.zeros(3), torch.zeros(4), 0.9, gae_lambda)


@pytest.mark.parametrize("shape", [(2, 3), (2, 5), (3, 4), (4,)])
def test_axes_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="values must have one step more than rewards, got"):
        gae(torch.zeros(2, 3), torch.zeros(shape), 0.9, 0.5)


MASK = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.float64)


def test_standardised_values_have_mean_zero_and_deviation_one():
    standardised = standardise(5.0 + 3.0 * random(3, 4), MASK, 1e-8)
    unmasked = standardised[MASK.bool()]
    assert unmasked.mean().item() == pytest.approx(0.0, abs=1e-12)
    assert unmasked.std(correction=0).item() == pytest.approx(1.0, abs=1e-7)
    assert (standardised[~MASK.bool()] == 0).all()


def test_masked_values_do_not_matter():
    values = random(3, 4)
    other = torch.where(MASK.bool(), values, 1e6 * random(3, 4, seed=1))
    assert torch.equal(standardise(values, MASK, 1e-8), standardise(other, MASK, 1e-8))


def test_equal_values_become_zero():
    assert (standardise(torch.full((3, 4), 7.0, dtype=torch.float64), MASK, 1e-8) == 0).all()
