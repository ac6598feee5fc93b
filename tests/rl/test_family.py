import gymnasium
import numpy as np
import pytest
import torch

import envs  # noqa: F401 - registers the ids
from maml_rl.core import lift as lift_module
from maml_rl.core.inner import InnerConfig, adapt_tasks
from maml_rl.core.lift import Threads
from maml_rl.core.objective import MetaObjective
from maml_rl.core.params import stack, take_task
from maml_rl.core.protocols import INITIALISATION, TRAINING, Key
from maml_rl.policies import CategoricalPolicy, GaussianPolicy, PolicyConfig
from maml_rl.rl.baseline import fitted_values
from maml_rl.rl.family import AdvantageConfig, RLFamily, explained_variance
from maml_rl.rl.losses import masked_mean
from maml_rl.rl.returns import discounted_returns, without_offset
from maml_rl.sampling.local import LocalSampler
from maml_rl.sampling.trajectory import Trajectory

HORIZON, NUM_TASKS, NUM_EPISODES = 12, 3, 4
KEY = Key(2, TRAINING, 0)


def make_family(advantage, threads=None, estimator="ratio"):
    threads = threads or Threads(1)
    policy = GaussianPolicy(2, 2, PolicyConfig(hidden_sizes=(8,)))

    def make_env(num_envs):
        return gymnasium.make_vec("maml/Navigation2D-v0", num_envs=num_envs, horizon=HORIZON)

    sampler = LocalSampler(make_env, policy, NUM_EPISODES, HORIZON, threads)
    return RLFamily(make_env(1).sample_tasks, sampler, policy, advantage, estimator, threads, torch.device("cpu"))


def collect(family):
    tasks = family.sample_tasks(NUM_TASKS, np.random.default_rng(0))
    theta = family.init_params(Key(2, INITIALISATION, 0))
    return theta, family.collect(tasks, stack(theta, NUM_TASKS), KEY)


class Given:
    """A sampler that returns a trajectory it was given."""

    def __init__(self, trajectory):
        self._trajectory = trajectory

    def sample(self, tasks, params, key):
        return self._trajectory

    def close(self):
        pass


def unequal_lengths():
    """One task, three episodes of 5, 3 and 1 steps."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[[1.0, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]])
    observations = torch.randn(1, 3, 5, 2, generator=generator) * mask.unsqueeze(-1)
    actions = torch.randn(1, 3, 5, 2, generator=generator) * mask.unsqueeze(-1)
    rewards = torch.randn(1, 3, 5, generator=generator) * mask
    return Trajectory(observations, actions, rewards, mask, torch.tensor([[False, True, True]]), torch.zeros(1, 3, 0))


def batch_of(trajectory, advantage):
    policy = GaussianPolicy(2, 2, PolicyConfig(hidden_sizes=(8,)))
    family = RLFamily(
        lambda n, rng: [None] * n, Given(trajectory), policy, advantage, "ratio", Threads(1), torch.device("cpu")
    )
    params = stack(family.init_params(Key(2, INITIALISATION, 0)), 1)
    return family.collect([None], params, KEY), policy, params


def test_a_batch_is_its_trajectory_with_advantages_and_log_probs():
    trajectory = unequal_lengths()
    batch, policy, params = batch_of(trajectory, AdvantageConfig(normalise=False))
    assert torch.equal(batch.observations, trajectory.observations)
    assert torch.equal(batch.actions, trajectory.actions)
    assert torch.equal(batch.mask, trajectory.mask)
    assert torch.equal(batch.returns, trajectory.rewards.sum(dim=-1))
    outputs = policy.outputs(take_task(params, 0), trajectory.observations[0].flatten(0, 1))
    expected = policy.log_prob(outputs, trajectory.actions[0].flatten(0, 1)).view(3, 5)
    torch.testing.assert_close(batch.log_probs[0], expected)


def test_with_lambda_one_advantages_are_returns_minus_the_baseline():
    trajectory, config = unequal_lengths(), AdvantageConfig(discount=0.9, normalise=False)
    batch, _, _ = batch_of(trajectory, config)
    returns = discounted_returns(trajectory.rewards[0], 0.9)
    values = fitted_values(trajectory.observations[0], returns, trajectory.mask[0], config.ridge)
    torch.testing.assert_close(batch.advantages[0], (returns - values) * trajectory.mask[0])


def test_with_lambda_zero_an_episode_s_last_advantage_expects_nothing_afterwards():
    # delta = r + discount * V[next] - V, with V = 0 from the end on, be it the world's or the clock's.
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
    _, batch = collect(make_family(AdvantageConfig()))
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
    expected = whole.rewards.sum(dim=-1) + 5 * offset
    torch.testing.assert_close(lifted.returns, expected, rtol=0.0, atol=1e-6)
    assert len(set(lifted.returns.flatten().tolist())) == 3


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


@pytest.mark.parametrize("normalise", [False, True])
def test_before_the_outer_step_the_ratio_is_one_and_the_divergence_zero(normalise):
    family = make_family(AdvantageConfig(normalise=normalise))
    threads, inner = Threads(1), InnerConfig(step_size=0.3)
    theta, support = collect(family)
    adapted = adapt_tasks(family, stack(theta, NUM_TASKS), [support], inner.step_sizes, threads)
    tasks = family.sample_tasks(NUM_TASKS, np.random.default_rng(0))
    query = family.collect(tasks, adapted, KEY.at_phase(1))
    objective = MetaObjective(family, inner, [support], query, threads)
    at = objective.linearize(theta, fisher_share=1.0)
    expected = -sum(masked_mean(query.advantages[i], query.mask[i]).item() for i in range(NUM_TASKS)) / NUM_TASKS
    assert at.loss == pytest.approx(expected, rel=1e-6, abs=1e-6)
    evaluation = objective.evaluate(theta)
    assert evaluation.loss == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert evaluation.divergence == pytest.approx(0.0, abs=1e-7)
    assert at.gradient.norm() > 1e-3


def test_divergence_is_the_mean_over_steps_that_were_taken():
    trajectory = unequal_lengths()
    batch, policy, params = batch_of(trajectory, AdvantageConfig())
    family = make_family(AdvantageConfig())
    own, other = take_task(batch, 0), {name: p[0] + 0.1 for name, p in params.items()}
    old, new = family.outputs(take_task(params, 0), own), family.outputs(other, own)
    expected = policy.kl(old, new)[own.mask.flatten().bool()].mean()
    torch.testing.assert_close(family.divergence(old, new, own), expected)


def test_metrics_of_an_iteration():
    family = make_family(AdvantageConfig())
    _, batch = collect(family)
    described = family.describe([batch, batch])
    assert described["env_steps"] == 2 * batch.mask.sum().item()
    # a Gaussian's entropy is 1/2 log(2 pi e) = 1.419 for each of two actions of deviation 1; the estimate
    # from about 3 * 4 * 12 steps has a standard error of sqrt(2 / 2 / 144) = 0.08
    assert described["entropy_before"] == pytest.approx(2 * 1.4189, abs=0.35)
    assert described["explained_variance_after"] == batch.explained_variance.mean().item()


def test_the_predictor_gives_mean_actions():
    family = make_family(AdvantageConfig())
    theta = family.init_params(Key(2, INITIALISATION, 0))
    observations = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    actions = family.predictor(theta)(observations)
    assert actions.shape == (4, 5, 2)
    expected = family.policy.outputs(theta, observations[3, :].float())[:, :2]
    torch.testing.assert_close(actions[3], expected)
    torch.testing.assert_close(family.predictor(theta)(observations[3, 4]), expected[4])


def test_batches_are_bit_equal_for_any_chunks_and_threads(monkeypatch):
    _, expected = collect(make_family(AdvantageConfig()))
    for limit in (1, 10_000_000):
        monkeypatch.setattr(lift_module, "CHUNK_ELEMENTS", limit)
        for num_threads in (1, 3):
            threads = Threads(num_threads)
            _, batch = collect(make_family(AdvantageConfig(), threads))
            threads.close()
            for name, value, wanted in zip(batch._fields, batch, expected, strict=True):
                assert torch.equal(value, wanted), name


def test_a_categorical_policy_serves_as_well():
    # Actions [N, E, T, 1] are indices; the family itself does not know which kind of policy it has.
    trajectory = unequal_lengths()._replace(actions=torch.tensor([2.0, 0, 1, 1, 0] * 3).view(1, 3, 5, 1))
    policy = CategoricalPolicy(2, 3, PolicyConfig(hidden_sizes=(8,)))
    family = RLFamily(
        lambda n, rng: [], Given(trajectory), policy, AdvantageConfig(), "ratio", Threads(1), torch.device("cpu")
    )
    params = stack(family.init_params(Key(2, INITIALISATION, 0)), 1)
    batch = family.collect([None], params, KEY)
    adapted = adapt_tasks(family, params, [batch], [0.1], Threads(1))
    assert all(torch.isfinite(p).all() for p in adapted.values())
    losses = [
        family.outer_loss_at(family.outputs(take_task(p, 0), take_task(batch, 0)), take_task(batch, 0)).item()
        for p in (params, adapted)
    ]
    assert losses[1] < losses[0]


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


def test_success_is_a_further_score_and_logged():
    # Of one task's three episodes two had success before adaptation, one afterwards.
    before = unequal_lengths()._replace(successes=torch.tensor([[[True], [False], [True]]]))
    after = before._replace(successes=torch.tensor([[[False], [True], [False]]]))
    policy = GaussianPolicy(2, 2, PolicyConfig(hidden_sizes=(8,)))
    batches = []
    for trajectory in (before, after):
        family = RLFamily(
            lambda n, rng: [], Given(trajectory), policy, AdvantageConfig(), "ratio", Threads(1), torch.device("cpu")
        )
        params = stack(family.init_params(Key(2, INITIALISATION, 0)), 1)
        batches.append(family.collect([None], params, KEY))
    assert family.further_scores({}, take_task(batches[0], 0))["success"].tolist() == [True, False, True]
    described = family.describe(batches)
    assert described["success_before"] == pytest.approx(2 / 3) and described["success_after"] == pytest.approx(1 / 3)
    silent = make_family(AdvantageConfig())
    _, batch = collect(silent)
    assert silent.further_scores({}, take_task(batch, 0)) == {}
    assert "success_before" not in silent.describe([batch, batch])
