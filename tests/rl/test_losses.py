"""The inner losses against the exact first and second derivative of the expected return, without sampling.

A tabular MDP is small enough to write down every trajectory tau. With its probability p(tau), the
expectation of an estimator is a sum: E[derivative of the loss] = sum_tau p(tau) * derivative of the loss on
tau, where p(tau) is held fixed. The truth is the derivative of J(theta) = sum_tau p_theta(tau) R(tau),
where it is not. Losses are means over the H steps and are descended, so -H times a loss stands for the
return.

Notation: g_t = grad log pi(a_t | s_t), C_t = Hessian of log pi(a_t | s_t), r_t the reward, discounted to the
beginning, A_t = r_t + ... + r_H. Differentiating E[r_t] = sum p(tau up to t) r_t twice gives

    grad J    = E[ sum_t r_t S_t ]                                  with S_t = g_1 + ... + g_t
    Hessian J = E[ sum_t r_t (S_t S_t' + C_1 + ... + C_t) ]
              = E[ sum_t A_t C_t ] + E[ sum_t r_t S_t S_t' ].
"""

from itertools import product
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from maml_rl.rl.losses import INNER_LOSSES, clipped_loss, clipped_share, masked_mean, surrogate_loss

NUM_STATES, NUM_ACTIONS = 2, 3


class Trajectories(NamedTuple):
    """Every trajectory of H steps; M of them."""

    states: Tensor  # [M, H]
    actions: Tensor  # [M, H]
    world: Tensor  # [M] product of the first-state and transition probabilities
    rewards: Tensor  # [M, H], discounted to the beginning


def enumerate_trajectories(horizon: int, discount: float) -> Trajectories:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    first, rewards = torch.tensor([0.3, 0.7], dtype=torch.float64), 4.0 * draw(NUM_STATES, NUM_ACTIONS) - 1.0
    transition = draw(NUM_STATES, NUM_ACTIONS, NUM_STATES)
    transition = transition / transition.sum(dim=-1, keepdim=True)
    states = torch.tensor(list(product(range(NUM_STATES), repeat=horizon)))
    actions = torch.tensor(list(product(range(NUM_ACTIONS), repeat=horizon)))
    pairs = torch.cartesian_prod(torch.arange(len(states)), torch.arange(len(actions)))
    states, actions = states[pairs[:, 0]], actions[pairs[:, 1]]
    world = first[states[:, 0]]
    for t in range(horizon - 1):
        world = world * transition[states[:, t], actions[:, t], states[:, t + 1]]
    discounts = discount ** torch.arange(horizon, dtype=torch.float64)
    return Trajectories(states, actions, world, rewards[states, actions] * discounts)


THETA = torch.randn(NUM_STATES * NUM_ACTIONS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def log_probs(theta: Tensor, tau: Trajectories) -> Tensor:
    """[M, H]"""
    return theta.view(NUM_STATES, NUM_ACTIONS).log_softmax(dim=-1)[tau.states, tau.actions]


def probabilities(theta: Tensor, tau: Trajectories) -> Tensor:
    """[M]"""
    return tau.world * log_probs(theta, tau).sum(dim=-1).exp()


def advantages_of(tau: Trajectories, baseline: Tensor | None = None) -> Tensor:
    """A_t less baseline[s_t, t]: [M, H]."""
    to_go = tau.rewards.flip(-1).cumsum(dim=-1).flip(-1)
    if baseline is None:
        return to_go
    return to_go - baseline[tau.states, torch.arange(tau.states.shape[1])]


def derivatives(function) -> tuple[Tensor, Tensor]:
    return (
        torch.autograd.functional.jacobian(function, THETA),
        torch.autograd.functional.hessian(function, THETA),
    )


def exact(tau: Trajectories) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian of J."""
    return derivatives(lambda theta: probabilities(theta, tau) @ tau.rewards.sum(dim=-1))


def expected(name: str, tau: Trajectories, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """-H times the expectation of an inner loss's gradient and Hessian; each trajectory is a batch."""
    weights, horizon = probabilities(THETA, tau), tau.states.shape[1]
    mask = torch.ones(len(weights), 1, horizon, dtype=torch.float64)

    def mean_loss(theta):
        rows = log_probs(theta, tau).unsqueeze(1), advantages.unsqueeze(1), mask
        return -horizon * weights @ torch.stack([INNER_LOSSES[name](*row) for row in zip(*rows, strict=True)])

    return derivatives(mean_loss)


def score_products(tau: Trajectories, coefficients: Tensor) -> Tensor:
    """E[ sum_{u, v} coefficients[u, v] g_u g_v' ]; coefficients [M, H, H]."""
    weights = probabilities(THETA, tau)
    scores = torch.func.jacrev(lambda theta: log_probs(theta, tau))(THETA)  # [M, H, P]
    return torch.einsum("m,muv,mup,mvq->pq", weights, coefficients, scores, scores)


def later_of(tau: Trajectories, advantages: Tensor) -> Tensor:
    """A_max(u, v): [M, H, H]. It is what g_u g_v' is weighted with in sum_t r_t S_t S_t'."""
    steps = torch.arange(advantages.shape[1])
    return advantages[:, torch.maximum(steps[:, None], steps[None, :])]


def some_baseline(horizon: int) -> Tensor:
    """An arbitrary function of state and time."""
    return 3.0 * torch.randn(NUM_STATES, horizon, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def assert_equal(found: Tensor, expected: Tensor):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def assert_different(found: Tensor, expected: Tensor):
    assert (found - expected).abs().max() > 1e-2


def test_all_trajectories_are_there():
    # (2 states * 3 actions)^3 of them, whose probabilities add up to 1.
    tau = enumerate_trajectories(3, 1.0)
    assert len(tau.world) == 6**3
    assert probabilities(THETA, tau).sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["ratio", "log_prob", "dice"])
@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("has_baseline", [False, True])
def test_the_gradient_of_every_estimator_is_exact(name, horizon, discount, has_baseline):
    tau = enumerate_trajectories(horizon, discount)
    advantages = advantages_of(tau, some_baseline(horizon) if has_baseline else None)
    assert_equal(expected(name, tau, advantages)[0], exact(tau)[0])


@pytest.mark.parametrize("name", ["ratio", "dice"])
@pytest.mark.parametrize("has_baseline", [False, True])
def test_ratio_and_dice_are_exact_to_second_order_at_h_1(name, has_baseline):
    tau = enumerate_trajectories(1, 1.0)
    advantages = advantages_of(tau, some_baseline(1) if has_baseline else None)
    assert_equal(expected(name, tau, advantages)[1], exact(tau)[1])


@pytest.mark.parametrize("has_baseline", [False, True])
def test_at_h_1_log_prob_lacks_the_product_of_scores(has_baseline):
    # Hessian of pi A is pi (g g' + C) A, that of log pi A weighted with pi is pi C A.
    tau = enumerate_trajectories(1, 1.0)
    advantages = advantages_of(tau, some_baseline(1) if has_baseline else None)
    missing = score_products(tau, advantages.unsqueeze(-1))
    assert_equal(expected("log_prob", tau, advantages)[1] + missing, exact(tau)[1])
    assert_different(expected("log_prob", tau, advantages)[1], exact(tau)[1])


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("has_baseline", [False, True])
def test_dice_is_exact_to_second_order_over_several_steps(discount, has_baseline):
    tau = enumerate_trajectories(3, discount)
    advantages = advantages_of(tau, some_baseline(3) if has_baseline else None)
    assert_equal(expected("dice", tau, advantages)[1], exact(tau)[1])


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_over_several_steps_log_prob_lacks_all_products_of_scores(discount):
    # The second sum of Hessian J: sum_t r_t S_t S_t' = sum_{u, v} A_max(u, v) g_u g_v'.
    tau = enumerate_trajectories(3, discount)
    advantages = advantages_of(tau)
    missing = score_products(tau, later_of(tau, advantages))
    assert_equal(expected("log_prob", tau, advantages)[1] + missing, exact(tau)[1])
    assert_different(missing, torch.zeros_like(missing))


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_over_several_steps_ratio_lacks_the_products_of_different_steps(discount):
    # The Hessian of pi_t / stop(pi_t) is g_t g_t' + C_t: of the sum above it has the terms u = v.
    tau = enumerate_trajectories(3, discount)
    advantages = advantages_of(tau)
    different = 1.0 - torch.eye(3, dtype=torch.float64)
    missing = score_products(tau, later_of(tau, advantages) * different)
    assert_equal(expected("ratio", tau, advantages)[1] + missing, exact(tau)[1])
    assert_different(missing, torch.zeros_like(missing))


def test_dice_is_the_published_objective_up_to_a_constant():
    # Foerster et al. 2018, equation 5: sum_t magic(log pi_1 + ... + log pi_t) r_t. Summation by parts leaves
    # A_1, which no parameter moves, so that on every trajectory the derivatives of all orders agree, not only
    # in the mean.
    tau = enumerate_trajectories(3, 1.0)
    rows = torch.tensor([0, 17, 100, 215])
    tau = Trajectories(*(column[rows] for column in tau))
    advantages, mask = advantages_of(tau), torch.ones(len(rows), 3, dtype=torch.float64)

    def published(theta):
        summed = log_probs(theta, tau).cumsum(dim=-1)
        return ((summed - summed.detach()).exp() * tau.rewards).sum()

    def ours(theta):
        return -mask.sum() * INNER_LOSSES["dice"](log_probs(theta, tau), advantages, mask)

    assert ours(THETA).item() == 0.0
    for found, wanted in zip(derivatives(ours), derivatives(published), strict=True):
        assert_equal(found, wanted)


LOG_PROBS = torch.randn(3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
ADVANTAGES = torch.randn(3, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
MASK = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.float64)


@pytest.mark.parametrize("name", ["ratio", "log_prob", "dice"])
def test_masked_steps_add_nothing(name):
    # The gradient in log pi_t is -A_t / (number of steps) where a step was taken, for all three; zero
    # elsewhere.
    gradient = torch.func.grad(INNER_LOSSES[name])(LOG_PROBS, ADVANTAGES, MASK)
    torch.testing.assert_close(gradient, -ADVANTAGES * MASK / 7)
    other = torch.where(MASK.bool(), LOG_PROBS, 5.0)
    assert torch.equal(INNER_LOSSES[name](other, ADVANTAGES, MASK), INNER_LOSSES[name](LOG_PROBS, ADVANTAGES, MASK))


@pytest.mark.parametrize("name", ["ratio", "dice"])
def test_masked_steps_do_not_curve(name):
    def loss(values):
        return INNER_LOSSES[name](values.view(3, 4), ADVANTAGES, MASK)

    hessian = torch.autograd.functional.hessian(loss, LOG_PROBS.flatten())
    masked = MASK.flatten() == 0
    assert (hessian[masked] == 0).all() and (hessian[:, masked] == 0).all()
    assert hessian.abs().max() > 0


def test_values_at_the_policy_that_collected():
    # Ratio 1: minus the mean advantage; log-prob: minus the mean product; DiCE keeps only derivatives.
    mean_advantage = masked_mean(ADVANTAGES, MASK).item()
    assert INNER_LOSSES["ratio"](LOG_PROBS, ADVANTAGES, MASK).item() == pytest.approx(-mean_advantage)
    expected = -((LOG_PROBS * ADVANTAGES)[MASK.bool()].mean().item())
    assert INNER_LOSSES["log_prob"](LOG_PROBS, ADVANTAGES, MASK).item() == pytest.approx(expected)
    assert INNER_LOSSES["dice"](LOG_PROBS, ADVANTAGES, MASK).item() == 0.0
    assert surrogate_loss(LOG_PROBS, LOG_PROBS, ADVANTAGES, MASK).item() == pytest.approx(-mean_advantage)


def test_the_surrogate_weighs_with_the_likelihood_ratio():
    # log pi - log pi_old = log 2 everywhere doubles the loss.
    doubled = surrogate_loss(LOG_PROBS + torch.log(torch.tensor(2.0)), LOG_PROBS, ADVANTAGES, MASK)
    assert doubled.item() == pytest.approx(-2.0 * masked_mean(ADVANTAGES, MASK).item())


def test_surrogate_and_ratio_have_the_same_derivatives_at_the_old_policy():
    def flat(loss):
        return lambda values: loss(values.view(3, 4))

    surrogate = flat(lambda values: surrogate_loss(values, LOG_PROBS, ADVANTAGES, MASK))
    ratio = flat(lambda values: INNER_LOSSES["ratio"](values, ADVANTAGES, MASK))
    for derivative in (torch.autograd.functional.jacobian, torch.autograd.functional.hessian):
        found, wanted = derivative(surrogate, LOG_PROBS.flatten()), derivative(ratio, LOG_PROBS.flatten())
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside: the surrogate; d ratio / d log pi = ratio
        (0.9, -2.0, 1.8, 1.8),
        (1.5, 2.0, -2.4, 0.0),  # gained enough
        (0.5, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 3.0),  # lost: the whole way back counts
        (0.5, 2.0, -1.0, -1.0),
    ],
)
def test_the_clipped_loss_pays_for_no_ratio_beyond_the_clip(ratio, advantage, value, slope):
    log_probs = torch.tensor([[ratio]], dtype=torch.float64).log()
    rest = torch.zeros_like(log_probs), torch.full_like(log_probs, advantage), torch.ones_like(log_probs)
    assert clipped_loss(log_probs, *rest, 0.2).item() == pytest.approx(value)
    assert torch.func.grad(clipped_loss)(log_probs, *rest, 0.2).item() == pytest.approx(slope)


def test_the_clipped_share_counts_steps_that_were_taken():
    log_probs = LOG_PROBS.clone()
    log_probs[0, 0] += 0.5
    log_probs[1, 1] -= 0.5
    log_probs[2, 1] += 5.0  # was not taken
    assert clipped_share(log_probs, LOG_PROBS, MASK, 0.3).item() == pytest.approx(2 / 7)
    assert clipped_share(log_probs, LOG_PROBS, MASK, 0.5).item() == pytest.approx(1 / 7)  # exp(0.5) - 1 = 0.65
    near = LOG_PROBS + 0.1
    found = clipped_loss(near, LOG_PROBS, ADVANTAGES, MASK, 0.2)
    assert torch.equal(found, surrogate_loss(near, LOG_PROBS, ADVANTAGES, MASK))
