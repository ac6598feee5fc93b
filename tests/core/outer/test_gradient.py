"""Adam on the meta-gradient of a quadratic, theta and step sizes alike."""

import torch

from maml_rl.core.adam import AdamConfig, adam_step, init_moments
from maml_rl.core.inner import InnerConfig, join_step_sizes
from maml_rl.core.objective import MetaObjective
from maml_rl.core.outer.gradient import Gradient
from maml_rl.core.trees import flatten

OUTER = Gradient(AdamConfig(learning_rate=0.1))


def test_theta_moves_by_adam_on_the_meta_gradient(power_model, targets, threads):
    # f(p) = (p - 1)^2 / 2 at p = 3 with a step of 0.5: the meta-gradient is 0.25 * 2 = 0.5, the meta-loss 0.5.
    data, theta = targets(1.0), {"p": torch.tensor([3.0], dtype=torch.float64)}
    objective = MetaObjective(power_model(1, True), InnerConfig(step_size=0.5), [data], data, threads)
    before = OUTER.init(theta)
    moved = OUTER.step(objective, theta, theta, before, iteration=0)
    expected, moments = adam_step(
        flatten(theta), torch.tensor([0.5]).double(), init_moments(flatten(theta)), OUTER.config
    )
    assert torch.equal(moved.params["p"], expected) and theta["p"].item() == 3.0
    assert all(map(torch.equal, moved.state.adam, moments)) and before.adam.num_steps == 0
    assert moved.metrics == {"surrogate_loss_before": 0.5, "gradient_norm": 0.5}


def test_step_sizes_move_with_theta(power_model, targets, threads):
    # p' - c = (1 - a)(p - c), so the meta-loss (1 - a)^2 (p - c)^2 / 2 falls as a grows: by 0.5 * 2^2 = 2.
    data, theta = targets(1.0), {"p": torch.tensor([3.0], dtype=torch.float64)}
    learned = join_step_sizes(theta, {"p": torch.tensor([0.5], dtype=torch.float64)})
    inner = InnerConfig(step_size=0.5, learn_step_sizes=True)
    objective = MetaObjective(power_model(1, True), inner, [data], data, threads)
    moved = OUTER.step(objective, learned, theta, OUTER.init(learned), iteration=0)
    torch.testing.assert_close(moved.state.adam.first, 0.1 * torch.tensor([0.5, -2.0]).double())
    assert list(moved.params) == list(learned)
    torch.testing.assert_close(flatten(moved.params), torch.tensor([2.9, 0.6]).double())
