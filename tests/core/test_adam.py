import pytest
import torch

from maml_rl.core.adam import (
    AdamConfig,
    Moments,
    adam_step,
    begin_descent,
    descend,
    init_moments,
)
from maml_rl.core.lift import Threads


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_first_step_has_the_length_of_the_learning_rate():
    # Unbiased moments after one step are g and g^2, so the step is lr * g / (|g| + eps): lr in every
    # coordinate.
    theta, gradient = vector(1, 1, 1), vector(5, -0.01, 0)
    moved, _ = adam_step(theta, gradient, init_moments(theta), AdamConfig(learning_rate=0.1))
    torch.testing.assert_close(moved, vector(0.9, 1.1, 1.0), rtol=0, atol=1e-6)


def test_many_steps_equal_torch_s_adam():
    config = AdamConfig(learning_rate=0.03, beta1=0.8, beta2=0.95, epsilon=1e-6)
    theta = vector(1, -2, 3)
    reference = theta.clone().requires_grad_()
    adam = torch.optim.Adam([reference], lr=0.03, betas=(0.8, 0.95), eps=1e-6)
    moments = init_moments(theta)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        gradient = torch.randn(3, generator=generator, dtype=torch.float64)
        theta, moments = adam_step(theta, gradient, moments, config)
        reference.grad = gradient
        adam.step()
    torch.testing.assert_close(theta, reference.detach(), rtol=1e-12, atol=1e-12)
    assert moments.num_steps.item() == 20


def test_nothing_that_came_in_is_changed():
    theta, gradient = vector(1, 2), vector(3, 4)
    moments = init_moments(theta)
    adam_step(theta, gradient, moments, AdamConfig())
    assert theta.tolist() == [1, 2] and gradient.tolist() == [3, 4]
    assert [m.tolist() for m in moments] == [[0, 0], [0, 0], 0]


def test_a_step_down_a_loss_is_a_step_along_its_gradient():
    # The loss 2 a^2 + b has the gradient (4 a, 1, 0): c does not appear in it.
    config, params = AdamConfig(learning_rate=0.1), {"a": vector(3), "b": vector(1), "c": vector(5)}
    descent = begin_descent(params)
    moved, loss = descend(lambda p: (2.0 * p["a"].square() + p["b"]).sum(), descent, config)
    expected, moments = adam_step(vector(3, 1, 5), vector(12, 1, 0), descent.adam, config)
    assert loss == 19.0 and torch.equal(torch.cat(list(moved.params.values())), expected)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(moved.adam, moments, strict=True))
    assert not any(p.requires_grad for p in moved.params.values()) and params["a"].item() == 3.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, r"learning_rate must be positive and finite, got 0.0"),
        ({"beta1": 1.0}, r"beta1 must lie in \[0, 1\), got 1.0"),
        ({"beta2": -0.1}, r"beta2 must lie in \[0, 1\), got -0.1"),
        ({"epsilon": 0.0}, r"epsilon must be positive, got 0.0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        AdamConfig(**settings)


def test_the_learning_rate_decays_as_asked():
    halved = AdamConfig(learning_rate=0.8, decay="halve", decay_steps=3)
    assert [halved.rate_after(i) for i in range(7)] == pytest.approx([0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2])
    cosine = AdamConfig(learning_rate=0.8, decay="cosine", decay_steps=4)
    assert [cosine.rate_after(i) for i in (0, 2, 4, 9)] == pytest.approx([0.8, 0.4, 0.0, 0.0])
    assert AdamConfig(learning_rate=0.8).rate_after(10**6) == 0.8
    with pytest.raises(ValueError, match=r"decay_steps must be at least 1, got 0"):
        AdamConfig(decay_steps=0)


def test_a_step_is_taken_at_the_rate_that_is_left():
    # the second step of a constant gradient is as long as the first, so their ratio is that of the rates
    config = AdamConfig(learning_rate=0.1, decay="halve", decay_steps=1)
    first, moments = adam_step(vector(0.0), vector(2.0), init_moments(vector(0.0)), config)
    second, _ = adam_step(first, vector(2.0), moments, config)
    assert (second - first).item() / first.item() == pytest.approx(0.5)


@pytest.mark.parametrize("num_threads", [None, 1, 3])
def test_a_long_vector_moves_as_its_entries_do(num_threads):
    generator = torch.Generator().manual_seed(0)
    theta, gradient, first = (torch.randn(250_001, generator=generator) for _ in range(3))
    moments, config = Moments(first, first.square(), torch.tensor(4)), AdamConfig()
    threads = Threads(num_threads) if num_threads else None
    try:
        found, after = adam_step(theta, gradient, moments, config, threads)
    finally:
        if threads is not None:
            threads.close()
    for some in (slice(0, 100), slice(140_000, 140_100), slice(249_990, None)):
        here = Moments(first[some], first[some].square(), torch.tensor(4))
        expected, expected_after = adam_step(theta[some], gradient[some], here, config)
        assert torch.equal(found[some], expected)
        assert torch.equal(after.first[some], expected_after.first)
        assert torch.equal(after.second[some], expected_after.second)
