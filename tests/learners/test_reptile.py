"""Reptile on pictures."""

import dataclasses

import numpy as np
import pytest
import torch

from maml_rl.core.inner import InnerConfig, inner_gradient
from maml_rl.core.keys import BATCHES, TRAINING, Key
from maml_rl.core.outer.choice import ReptileOuter
from maml_rl.core.outer.reptile import ReptileConfig
from maml_rl.core.trees import map_params, stack
from maml_rl.learners.reptile import AdamWithoutMomentum, InnerOptimiserConfig, mini_batches
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
    (third,) = mini_batches(examples(3, 6), 4, 5, np.random.default_rng(0), only=2)
    assert torch.equal(third.labels, batches[2].labels) and torch.equal(third.images, batches[2].images)


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


@pytest.fixture
def reptile(make_problem):
    """(inner, kind, norm=None, step_size=1.0) -> a problem whose mini-batches are whole supports."""

    def make(inner, kind, norm=None, step_size=1.0):
        optimiser, outer = InnerOptimiserConfig(kind, batch_size=100), ReptileOuter(reptile=ReptileConfig(step_size))

        def change(config):
            return dataclasses.replace(config, inner=inner, optimiser=optimiser, outer=outer)

        return make_problem("reptile", norm, change=change)

    return make


def test_with_one_step_of_plain_gradient_descent_it_is_joint_training(reptile):
    # theta + eps mean_i(theta - a g_i - theta) = theta - eps a mean_i g_i
    problem = reptile(InnerConfig(step_size=0.3), "sgd", "none", step_size=0.5)
    tasks = problem.training.sample(4, np.random.default_rng(0))
    state, model = problem.state, problem.learner.model
    support = problem.family.collector.collect(tasks, None, KEY)
    everything = support._replace(
        images=support.images.flatten(0, 1), labels=support.labels.flatten(), context=support.context[0]
    )
    gradient = torch.func.grad(lambda p: model.inner_loss_at(model.outputs(p, everything), everything))(state.params)
    moved, _ = problem.learner.meta_step(state, tasks, KEY)
    for name, value in moved.params.items():
        torch.testing.assert_close(value, state.params[name] - 0.5 * 0.3 * gradient[name], rtol=1e-4, atol=1e-6)


def test_second_moments_live_in_the_state_and_are_handed_on(reptile):
    problem = reptile(InnerConfig(num_steps=1, step_size=0.01), "adam")
    learner, state = problem.learner, problem.state
    tasks = problem.training.sample(2, np.random.default_rng(0))
    support = problem.family.collector.collect(tasks, None, KEY)
    gradients = inner_gradient(learner.model)(stack(state.params, 2), support)
    after, _ = learner.meta_step(state, tasks, KEY)
    assert after.moments_steps == 1
    for name, gradient in gradients.items():
        torch.testing.assert_close(after.moments[name], 0.001 * gradient.square().mean(dim=0))
    again, _ = learner.meta_step(after, tasks, KEY)
    assert again.moments_steps == 2
    for name, moment in after.moments.items():
        assert (again.moments[name] >= 0.999 * moment).all()


def test_what_is_learned_at_test_starts_from_the_trained_moments(make_problem):
    problem = make_problem("reptile")
    support, query = problem.episodes(2)
    state = problem.state
    moments = map_params(lambda value: torch.full_like(value, 1e6), state.moments)
    large = state._replace(moments=moments, moments_steps=torch.tensor(1000))
    still = problem.predict(large, support, query)  # large moments make the steps short
    torch.testing.assert_close(still[-1], still[0], rtol=1e-2, atol=1e-2)
    moving = problem.predict(state, support, query)
    assert not torch.allclose(moving[-1], moving[0], rtol=1e-1, atol=1e-1)


def test_steps_at_test_go_round_the_support_as_those_of_one_call(make_problem):
    # three calls of adapt, a step each, are three steps on the batches that one order of the pictures gives
    def change(config):
        optimiser = InnerOptimiserConfig("sgd", test_batch_size=4)
        return dataclasses.replace(config, inner=InnerConfig(step_size=0.1), optimiser=optimiser)

    problem = make_problem("reptile", "none", shots=2, change=change)
    learner, state, model = problem.learner, problem.state, problem.learner.model
    support, _ = problem.episodes(2)
    adapted, params = learner.begin(state, 2, KEY), stack(state.params, 2)
    for batch in mini_batches(support, 4, 15, KEY.rng(BATCHES))[:3]:
        adapted = learner.adapt(state, adapted, support, KEY.at_phase(learner.num_gradient_steps(adapted)))
        gradient = inner_gradient(model)(params, batch)
        params = {name: p - 0.1 * gradient[name] for name, p in params.items()}
    assert learner.num_gradient_steps(adapted) == 3
    for name, value in params.items():
        torch.testing.assert_close(adapted.params[name], value)


def test_the_outer_step_falls_to_zero_along_a_line():
    config = ReptileConfig(1.0, decay_steps=4)
    assert [config.size_after(i) for i in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert config.size_after(100) == 0.25
    assert ReptileConfig(0.3).size_after(10) == 0.3


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
