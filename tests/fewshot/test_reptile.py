import numpy as np
import pytest
import torch

from maml_rl.core.inner import InnerConfig, inner_gradient
from maml_rl.core.lift import Threads
from maml_rl.core.maml import params_of
from maml_rl.core.outer.reptile import ReptileConfig
from maml_rl.core.protocols import EVALUATION, TRAINING, Key
from maml_rl.fewshot.reptile import AdamWithoutMomentum, InnerOptimiserConfig, ReptileClassifier, mini_batches
from maml_rl.supervised.episodes import Examples

KEY = Key(0, TRAINING, 0)


def examples(num_tasks, count):
    """Pictures whose only number is their place."""
    images = torch.arange(num_tasks * count).view(num_tasks, count, 1, 1, 1).float()
    return Examples(images, images.view(num_tasks, count).long(), images[:, :0])


def test_mini_batches_go_round_the_support():
    # 5 batches of 4 from 6 examples: every one comes 3 times among the first 18, and 2 of them once more
    batches = mini_batches(examples(3, 6), 4, 5, np.random.default_rng(0))
    drawn = torch.cat([batch.labels for batch in batches], dim=1)
    for task in range(3):
        assert torch.equal(drawn[task, :6].sort().values, torch.arange(6) + 6 * task)
        assert torch.equal(drawn[task, 6:12].sort().values, torch.arange(6) + 6 * task)
    assert not torch.equal(drawn[0, :6], drawn[1, :6] - 6)
    assert all(torch.equal(batch.images.flatten(1).long(), batch.labels) for batch in batches)


def test_a_small_support_is_every_batch():
    support = examples(2, 4)
    assert all(batch is support for batch in mini_batches(support, 4, 3, np.random.default_rng(0)))


def test_its_inner_optimiser_is_torch_s_adam_without_first_moment():
    config = InnerOptimiserConfig()
    value = torch.tensor([1.0, -2.0], requires_grad=True)
    adam = torch.optim.Adam([value], lr=0.1, betas=(0.0, config.beta2), eps=config.epsilon)
    direction = AdamWithoutMomentum(lambda p, batch: {"p": 2 * p["p"] * batch}, {"p": torch.zeros(2)}, 0, config)
    params = {"p": value.detach().clone()}
    for batch in (1.0, 3.0, 0.5):
        params = {"p": params["p"] - 0.1 * direction(params, batch)["p"]}
        adam.zero_grad()
        (value.square().sum() * batch).backward()
        adam.step()
        torch.testing.assert_close(params["p"], value.detach())


def reptile(problem, inner, kind, step_size=1.0):
    config = InnerOptimiserConfig(kind, batch_size=100)
    return ReptileClassifier(problem.learner.family, inner, config, ReptileConfig(step_size), [], Threads(1))


def test_with_one_step_of_plain_gradient_descent_it_is_joint_training(make_problem):
    # theta + eps mean_i(theta - a g_i - theta) = theta - eps a mean_i g_i
    problem = make_problem("reptile", "none")
    learner = reptile(problem, InnerConfig(step_size=0.3), "sgd", step_size=0.5)
    tasks = problem.training.sample(4, np.random.default_rng(0))
    state = problem.state
    theta = params_of(state)
    family = problem.learner.family
    support = family.collect(tasks, {}, KEY)
    everything = support._replace(
        images=support.images.flatten(0, 1), labels=support.labels.flatten(), context=support.context[0]
    )
    gradient = torch.func.grad(lambda p: family.inner_loss_at(family.outputs(p, everything), everything))(theta)
    moved, _ = learner.meta_step(state, tasks, KEY)
    for name, value in params_of(moved).items():
        torch.testing.assert_close(value, theta[name] - 0.5 * 0.3 * gradient[name], rtol=1e-4, atol=1e-6)


def test_second_moments_live_in_the_state_and_are_handed_on(make_problem):
    problem = make_problem("reptile")
    learner = reptile(problem, InnerConfig(num_steps=1, step_size=0.01), "adam")
    family, state = problem.learner.family, problem.state
    theta = params_of(state)
    tasks = problem.training.sample(2, np.random.default_rng(0))
    support = family.collect(tasks, {}, KEY)
    stacked = {name: p.expand(2, *p.shape) for name, p in theta.items()}
    squares = {name: g.square().mean(dim=0) for name, g in inner_gradient(family)(stacked, support).items()}
    after, _ = learner.meta_step(state, tasks, KEY)
    assert after["moments_steps"] == 1
    for name, square in squares.items():
        torch.testing.assert_close(after[f"moments/{name}"], 0.001 * square)
    again, _ = learner.meta_step(after, tasks, KEY)
    assert again["moments_steps"] == 2
    for name in theta:
        assert (again[f"moments/{name}"] >= 0.999 * after[f"moments/{name}"]).all()


def test_what_is_learned_at_test_starts_from_the_trained_moments(make_problem):
    problem = make_problem("reptile")
    support, query = problem.episodes(2)
    state = problem.state
    large = state | {name: torch.full_like(v, 1e6) for name, v in state.items() if name.startswith("moments/")}
    large["moments_steps"] = torch.tensor(1000)
    key = Key(0, EVALUATION, 0)
    still = problem.learner.predict(large, support, query, key)  # large moments make the steps short
    torch.testing.assert_close(still[-1], still[0], rtol=1e-2, atol=1e-2)
    moving = problem.learner.predict(state, support, query, key)
    assert not torch.allclose(moving[-1], moving[0], rtol=1e-1, atol=1e-1)


def test_the_outer_step_falls_to_zero_along_a_line():
    config = ReptileConfig(1.0, decay_steps=4)
    assert [config.annealed(i).step_size for i in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert config.annealed(100).step_size == 0.25
    assert ReptileConfig(0.3).annealed(10) == ReptileConfig(0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, r"inner_optimiser\.batch_size must be at least 1, got 0"),
        ({"beta2": 1.0}, r"inner_optimiser\.beta2 must lie in \[0, 1\), got 1.0"),
        ({"epsilon": 0.0}, r"inner_optimiser\.epsilon must be positive, got 0.0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        InnerOptimiserConfig(**settings)
