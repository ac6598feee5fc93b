import gymnasium
import numpy as np
import pytest
import torch
from players import categorical, gaussian, recipe_for

import envs  # noqa: F401 - registers the ids
from maml_rl.core.contracts import Actor
from maml_rl.core.inner import InnerConfig, InnerStep, adapt_tasks
from maml_rl.core.keys import INITIALISATION, TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.objective import MetaObjective
from maml_rl.core.trees import stack, take_task, take_tasks
from maml_rl.learners.maml import PolicyInnerConfig
from maml_rl.rl.baseline import fitted_values
from maml_rl.rl.losses import masked_mean
from maml_rl.rl.model import AdvantageConfig, PolicyModel, explained_variance
from maml_rl.rl.returns import discounted_returns, without_offset
from maml_rl.sampling.local import LocalSampler
from maml_rl.sampling.trajectory import Trajectory

HORIZON, NUM_TASKS, NUM_EPISODES = 12, 3, 4
KEY = Key(2, TRAINING, 0)
POLICY = gaussian(2, 2)


def make_model(advantage=None, threads=None, policy=POLICY, estimator="ratio", unit_return=None):
    advantage = AdvantageConfig() if advantage is None else advantage
    return PolicyModel(policy, advantage, estimator, threads or Threads(1), torch.device("cpu"), unit_return)


def make_env(num_envs):
    return gymnasium.make_vec("maml/Navigation2D-v0", num_envs=num_envs, horizon=HORIZON)


def collect(model, params, threads=None, key=KEY):
    """A batch of navigation under stacked parameters."""
    recipe = recipe_for(make_env, POLICY, NUM_EPISODES, HORIZON)
    tasks = make_env(1).sample_tasks(NUM_TASKS, np.random.default_rng(0))
    trajectory = LocalSampler(recipe, threads or Threads(1)).sample(tasks, Actor(POLICY, params), key)
    return model.prepare(params, trajectory)


def collect_at_theta(model, threads=None):
    theta = model.init_params(Key(2, INITIALISATION, 0))
    return theta, collect(model, stack(theta, NUM_TASKS), threads)


def unequal_lengths():
    """One task, three episodes of 5, 3 and 1 steps."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[[1.0, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]])
    observations = torch.randn(1, 3, 5, 2, generator=generator) * mask.unsqueeze(-1)
    actions = torch.randn(1, 3, 5, 2, generator=generator) * mask.unsqueeze(-1)
    rewards = torch.randn(1, 3, 5, generator=generator) * mask
    last_observations, terminated = torch.randn(1, 3, 2, generator=generator), torch.tensor([[False, True, True]])
    successes = torch.zeros(1, 3, 0, dtype=torch.bool)
    return Trajectory(observations, actions, rewards, mask, last_observations, terminated, ~terminated, successes, ())


def batch_of(trajectory, advantage=None, policy=POLICY):
    model = make_model(advantage, policy=policy)
    params = stack(model.init_params(Key(2, INITIALISATION, 0)), 1)
    return model.prepare(params, trajectory), model, params


def test_a_batch_is_its_trajectory_with_advantages_and_log_probs():
    trajectory = unequal_lengths()
    batch, _, params = batch_of(trajectory, AdvantageConfig(normalise=False))
    assert torch.equal(batch.observations, trajectory.observations)
    assert torch.equal(batch.actions, trajectory.actions)
    assert torch.equal(batch.mask, trajectory.mask)
    outputs = POLICY.outputs(take_task(params, 0), trajectory.observations[0].flatten(0, 1))
    expected = POLICY.spec.distribution.log_prob(outputs, trajectory.actions[0].flatten(0, 1)).view(3, 5)
    torch.testing.assert_close(batch.log_probs[0], expected)


def test_with_lambda_one_advantages_are_returns_minus_the_baseline():
    trajectory, config = unequal_lengths(), AdvantageConfig(discount=0.9, normalise=False)
    batch, _, _ = batch_of(trajectory, config)
    returns = discounted_returns(trajectory.rewards[0], 0.9)
    values = fitted_values(trajectory.observations[0], returns, trajectory.mask[0], config.ridge)
    torch.testing.assert_close(batch.advantages[0], (returns - values) * trajectory.mask[0])


def test_with_lambda_zero_an_episode_s_last_advantage_expects_nothing_afterwards():
    # delta = r + discount * V[next] - V, with V = 0 from the end on, be it the environment's or the clock's.
    trajectory, config = unequal_lengths(), AdvantageConfig(discount=0.9, gae_lambda=0.0, normalise=False)
    batch, _, _ = batch_of(trajectory, config)
    returns = discounted_returns(trajectory.rewards[0], 0.9)
    values = fitted_values(trajectory.observations[0], returns, trajectory.mask[0], config.ridge)
    for episode, last in ((0, 4), (1, 2), (2, 0)):
        expected = trajectory.rewards[0, episode, last] - values[episode, last]
        torch.testing.assert_close(batch.advantages[0, episode, last], expected)
    first = trajectory.rewards[0, 1, 0] + 0.9 * values[1, 1] - values[1, 0]
    torch.testing.assert_close(batch.advantages[0, 1, 0], first)


def test_advantages_are_standardised_within_each_task():
    _, batch = collect_at_theta(make_model())
    for i in range(NUM_TASKS):
        unmasked = batch.advantages[i][batch.mask[i].bool()].double()
        assert unmasked.mean().item() == pytest.approx(0.0, abs=1e-5)
        assert unmasked.std(correction=0).item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("offset", [1e4, -1e8])
@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_a_large_offset_of_the_rewards_hides_nothing(offset, discount):
    generator = torch.Generator().manual_seed(0)
    whole = unequal_lengths()._replace(
        observations=torch.randn(1, 3, 5, 2, generator=generator),
        rewards=torch.randn(1, 3, 5, generator=generator, dtype=torch.float64),
        mask=torch.ones(1, 3, 5),
    )
    config = AdvantageConfig(discount=discount)
    batch, _, _ = batch_of(whole._replace(rewards=whole.rewards - whole.rewards.mean()), config)
    lifted, _, _ = batch_of(whole._replace(rewards=whole.rewards + offset), config)
    torch.testing.assert_close(lifted.advantages, batch.advantages, rtol=1e-4, atol=1e-5)


def test_an_offset_stays_where_an_episode_can_end_early():
    # What an agent gains by living longer is the offset itself.
    rewards = 1e4 + torch.rand(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0]])
    assert torch.equal(without_offset(rewards * mask, mask), rewards * mask)
    assert without_offset(rewards, torch.ones(2, 3)).abs().max() < 1.0
    usual = rewards - 1e4
    assert torch.equal(without_offset(usual, torch.ones(2, 3)), usual)


def test_explained_variance():
    mask = unequal_lengths().mask[0]
    returns = torch.randn(3, 5, generator=torch.Generator().manual_seed(5))
    assert explained_variance(returns, returns, mask).item() == 1.0
    # A constant explains nothing; twice the returns are off by the returns themselves; a shift costs nothing.
    assert explained_variance(returns, torch.full_like(returns, 3.0), mask).item() == pytest.approx(0.0, abs=1e-5)
    values = returns + 0.3 * torch.randn(3, 5, generator=torch.Generator().manual_seed(6))
    expected = explained_variance(returns, values, mask).item()
    assert 0.5 < expected < 1.0
    for unit in (1e-12, 1e-30, 1e12):  # it has no unit
        assert explained_variance(unit * returns, unit * values, mask).item() == pytest.approx(expected, rel=1e-4)
    for constant in (0.0, 0.1, 1e8):  # nothing to explain
        assert explained_variance(torch.full_like(returns, constant), values, mask).item() == 0.0
    assert explained_variance(returns, 2.0 * returns, mask).item() == pytest.approx(0.0, abs=1e-5)
    assert explained_variance(returns, returns + 3.0, mask).item() == pytest.approx(1.0, abs=1e-5)
    other = torch.where(mask.bool(), returns, 100.0)
    assert torch.equal(explained_variance(other, 0.5 * other, mask), explained_variance(returns, 0.5 * returns, mask))


@pytest.mark.parametrize("estimator", ["ratio", "log_prob", "dice", "stored_ratio"])
def test_a_task_with_twice_the_return_takes_twice_the_step(estimator):
    plain, weighted = make_model(estimator=estimator), make_model(estimator=estimator, unit_return=-8.0)
    theta, batch = collect_at_theta(plain)
    params, returns = stack(theta, NUM_TASKS), batch.rewards.sum(dim=-1).mean(dim=-1)
    step, as_set = (InnerStep(model, params, batch, with_hessian=True) for model in (weighted, plain))
    curved, as_curved = (each.hessian_product(params) for each in (step, as_set))
    assert returns.max() < 0.0 and returns.std() > 1.0
    for i, share in enumerate(returns / -8.0):
        for name in params:
            torch.testing.assert_close(step.gradient[name][i], share * as_set.gradient[name][i])
            torch.testing.assert_close(curved[name][i], share * as_curved[name][i])


def test_with_a_unit_return_a_task_without_loss_stays():
    model = make_model(unit_return=-8.0)
    theta, batch = collect_at_theta(model)
    params = stack(theta, NUM_TASKS)
    for rewards in (torch.zeros_like(batch.rewards), batch.rewards.abs()):
        adapted = adapt_tasks(model, params, [batch._replace(rewards=rewards)], [0.3], Threads(1))
        assert all(torch.equal(adapted[name], params[name]) for name in params)


@pytest.mark.parametrize("unit", [0.0, 8.0, float("nan"), -float("inf")])
def test_a_unit_return_is_below_zero(unit):
    with pytest.raises(ValueError, match=r"inner\.unit_return must be negative and finite, got"):
        PolicyInnerConfig(unit_return=unit)


@pytest.mark.parametrize("normalise", [False, True])
def test_before_the_outer_step_the_ratio_is_one_and_the_divergence_zero(normalise):
    model = make_model(AdvantageConfig(normalise=normalise))
    threads, inner = Threads(1), InnerConfig(step_size=0.3)
    theta, support = collect_at_theta(model)
    adapted = adapt_tasks(model, stack(theta, NUM_TASKS), [support], inner.step_sizes, threads)
    query = collect(model, adapted, key=KEY.at_phase(1))
    objective = MetaObjective(model, inner, [support], query, threads)
    at = objective.linearize(theta, fisher_share=1.0)
    expected = -sum(masked_mean(query.advantages[i], query.mask[i]).item() for i in range(NUM_TASKS)) / NUM_TASKS
    assert at.loss == pytest.approx(expected, rel=1e-6, abs=1e-6)
    evaluation = objective.evaluate(theta)
    assert evaluation.loss == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert evaluation.divergence == pytest.approx(0.0, abs=1e-7)
    assert at.gradient.norm() > 1e-3


def test_divergence_is_the_mean_over_steps_that_were_taken():
    trajectory = unequal_lengths()
    batch, model, params = batch_of(trajectory)
    own, other = take_task(batch, 0), {name: p[0] + 0.1 for name, p in params.items()}
    old, new = model.outputs(take_task(params, 0), own), model.outputs(other, own)
    expected = POLICY.spec.distribution.kl(old, new)[own.mask.flatten().bool()].mean()
    torch.testing.assert_close(model.divergence(old, new, own), expected)


def test_relative_rewards_are_standardised_over_all_tasks_and_chunks():
    _, batch = collect_at_theta(model := make_model())
    whole = torch.cat(model.relative_rewards([batch]))
    parts = torch.cat(model.relative_rewards([take_tasks(batch, 0, 1), take_tasks(batch, 1, NUM_TASKS)]))
    taken = batch.rewards[batch.mask.bool()]
    assert torch.equal(whole, parts)
    for i in range(NUM_TASKS):
        mean = batch.rewards[i][batch.mask[i].bool()].mean()
        torch.testing.assert_close(whole[i], ((mean - taken.mean()) / taken.std(correction=0)).float())
    assert whole.max() - whole.min() > 0.1


def test_metrics_of_an_iteration():
    model = make_model()
    _, batch = collect_at_theta(model)
    described = model.describe([batch, batch])
    # a Gaussian's entropy is 1/2 log(2 pi e) = 1.419 for each of two actions of deviation 1; the estimate
    # from about 3 * 4 * 12 steps has a standard error of sqrt(2 / 2 / 144) = 0.08
    assert described["entropy_before"] == pytest.approx(2 * 1.4189, abs=0.35)
    assert described["explained_variance_after"] == batch.explained_variance.mean().item()


def test_batches_are_bit_equal_for_any_chunks_and_threads():
    _, expected = collect_at_theta(make_model())
    for limit in (1, 10_000_000):
        for num_threads in (1, 3):
            threads = Threads(num_threads, chunk_elements=limit)
            _, batch = collect_at_theta(make_model(threads=threads), threads)
            threads.close()
            for name, value, wanted in zip(batch._fields, batch, expected, strict=True):
                assert torch.equal(value, wanted), name


def test_a_categorical_policy_serves_as_well():
    # Actions [N, E, T, 1] are indices; the model itself does not know which kind of policy it has.
    trajectory = unequal_lengths()._replace(actions=torch.tensor([2.0, 0, 1, 1, 0] * 3).view(1, 3, 5, 1))
    batch, model, params = batch_of(trajectory, policy=categorical(2, 3))
    adapted = adapt_tasks(model, params, [batch], [0.1], Threads(1))
    assert all(torch.isfinite(p).all() for p in adapted.values())
    own = take_task(batch, 0)
    before, after = (model.outer_loss_at(model.outputs(take_task(p, 0), own), own) for p in (params, adapted))
    assert after < before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discount": 1.1}, r"advantage\.discount must lie in \[0, 1\], got 1.1"),
        ({"gae_lambda": -0.1}, r"advantage\.gae_lambda must lie in \[0, 1\], got -0.1"),
        ({"ridge": 0.0}, r"advantage\.ridge must be positive and finite, got 0.0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        AdvantageConfig(**settings)


def test_the_last_observation_enters_no_advantage():
    trajectory = unequal_lengths()
    other = trajectory._replace(last_observations=trajectory.last_observations + 1.0)
    assert all(map(torch.equal, batch_of(other)[0], batch_of(trajectory)[0]))


@pytest.mark.parametrize(("share", "kept"), [(1.0, 3), (0.6, 2), (0.01, 1)])
def test_a_part_of_a_batch_is_its_first_episodes(share, kept):
    batch, model, _ = batch_of(unequal_lengths())
    part = model.part(batch, share)
    for name, value in batch._asdict().items():
        assert torch.equal(getattr(part, name), value[:, :kept] if value.dim() > 1 else value), name
