import dataclasses
import math

import gymnasium
import numpy as np
import pytest
import torch

import envs  # noqa: F401 - registers the ids
from maml_rl.core.inner import adapt_tasks
from maml_rl.core.lift import Threads
from maml_rl.core.params import stack
from maml_rl.core.protocols import EVALUATION, INITIALISATION, Key
from maml_rl.evaluation.adaptation_curve import (
    AdaptationCurve,
    EvaluationConfig,
    adaptation,
    adaptation_curve,
    evaluation_tasks,
    query_key,
)
from maml_rl.policies import GaussianPolicy, PolicyConfig, acting_by_mean
from maml_rl.rl.family import AdvantageConfig, RLFamily
from maml_rl.sampling.local import LocalSampler
from maml_rl.supervised.sinusoid import SinusoidConfig, SinusoidFamily

CONFIG = EvaluationConfig(num_tasks=4, num_steps=3, first_step_size=0.02, later_step_size=0.01, seed=9)


@pytest.fixture(scope="module")
def threads():
    return Threads(1)


class Recorded:
    """A family that keeps the keys of its data, its tasks, and the generator that they were drawn from."""

    def __init__(self, family):
        self._family, self.keys, self.tasks, self.generator_state = family, [], None, None

    def __getattr__(self, name):
        return getattr(self._family, name)

    def sample_test_tasks(self, num_tasks, rng):
        self.generator_state = rng.bit_generator.state
        self.tasks = self._family.sample_test_tasks(num_tasks, rng)
        return self.tasks

    def collect(self, tasks, params, key):
        self.keys.append(key)
        return self._family.collect(tasks, params, key)


def sinusoid():
    return SinusoidFamily(SinusoidConfig(init_std=0.3), torch.device("cpu"))


def navigation(threads, change=lambda policy: policy):
    policy = change(GaussianPolicy(2, 2, PolicyConfig(hidden_sizes=(8,))))

    def make_env(num_envs):
        return gymnasium.make_vec("maml/Navigation2D-v0", num_envs=num_envs, horizon=10)

    sampler = LocalSampler(make_env, policy, 3, 10, threads)
    return RLFamily(make_env(1).sample_tasks, sampler, policy, AdvantageConfig(), "ratio", threads, torch.device("cpu"))


def test_scores_of_regression_are_errors_on_one_query_set(threads):
    family = Recorded(sinusoid())
    theta = family.init_params(Key(1, INITIALISATION, 0))
    curve = adaptation_curve(family, theta, CONFIG, 5, threads)
    key = Key(9, EVALUATION, 5)
    assert family.keys == [key.at_phase(0), key.at_phase(1)]  # support, query; nothing else
    support, query = (family.collect(family.tasks, {}, key.at_phase(p)) for p in (0, 1))
    assert curve.metric == "mse" and curve.per_task.shape == (4, 4)
    for steps in range(4):
        sizes = (0.02, 0.01, 0.01)[:steps]
        params = adapt_tasks(family, stack(theta, 4), [support] * steps, sizes, threads)
        errors = (family.linearize(params, query).outputs - query.targets).square().mean(dim=(1, 2))
        torch.testing.assert_close(curve.per_task[steps], errors.double(), rtol=1e-5, atol=1e-6)
    assert curve.mean == pytest.approx(curve.per_task.mean(dim=1).tolist())


def test_scores_of_rl_are_returns_of_fresh_episodes_after_every_step(threads):
    family = Recorded(navigation(threads))
    theta = family.init_params(Key(1, INITIALISATION, 0))
    curve = adaptation_curve(family, theta, CONFIG, 5, threads)
    key = Key(9, EVALUATION, 5)
    assert family.keys == [key.at_phase(phase) for phase in range(4)]
    first = family.collect(family.tasks, stack(theta, 4), key)
    assert curve.metric == "return" and curve.per_task.shape == (4, 4)
    torch.testing.assert_close(curve.per_task[0], first.returns.double().mean(dim=1))


def test_equal_calls_give_equal_curves_and_other_iterations_other_data(threads):
    family = Recorded(sinusoid())
    theta = family.init_params(Key(1, INITIALISATION, 0))
    curve, tasks = adaptation_curve(family, theta, CONFIG, 5, threads), family.tasks
    assert torch.equal(adaptation_curve(family, theta, CONFIG, 5, threads).per_task, curve.per_task)
    assert not torch.equal(adaptation_curve(family, theta, CONFIG, 6, threads).per_task, curve.per_task)
    assert family.tasks == tasks  # drawn once


def test_theta_is_left_as_it_is(threads):
    family = sinusoid()
    theta = family.init_params(Key(1, INITIALISATION, 0))
    before = {name: p.clone() for name, p in theta.items()}
    adaptation_curve(family, theta, CONFIG, 0, threads)
    assert all(torch.equal(theta[name], before[name]) for name in before)


def test_no_step_gives_one_score(threads):
    family = sinusoid()
    config = EvaluationConfig(num_tasks=2, num_steps=0)
    curve = adaptation_curve(family, family.init_params(Key(1, INITIALISATION, 0)), config, 0, threads)
    assert curve.per_task.shape == (1, 2)


def test_the_tasks_noise_is_not_that_of_any_data(threads):
    # Otherwise the first task's inputs would be its tasks' amplitudes in other units.
    family = Recorded(sinusoid())
    adaptation_curve(family, family.init_params(Key(1, INITIALISATION, 0)), CONFIG, 0, threads)
    for key in family.keys:
        for task in range(CONFIG.num_tasks):
            state = key.rng(task).bit_generator.state
            assert not np.array_equal(state["state"]["key"], family.generator_state["state"]["key"])


def test_half_width_of_the_interval():
    # Scores 1, 2, 3 of three tasks have the deviation 1: 1.96 / sqrt(3) = 1.1316. One task has no spread.
    curve = AdaptationCurve("mse", torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]]))
    assert curve.mean == [2.0, 2.0]
    assert curve.ci95 == pytest.approx([1.1316, 0.0], abs=1e-4)
    assert AdaptationCurve("mse", torch.tensor([[1.0], [2.0]])).ci95 == pytest.approx([math.nan] * 2, nan_ok=True)


@pytest.mark.parametrize(("num_steps", "sizes"), [(0, ()), (1, (0.3,)), (3, (0.3, 0.2, 0.2))])
def test_the_first_step_has_a_size_of_its_own(num_steps, sizes):
    config = EvaluationConfig(num_steps=num_steps, first_step_size=0.3, later_step_size=0.2)
    assert config.step_sizes == sizes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_tasks": 0}, r"evaluation\.num_tasks must be at least 1, got 0"),
        ({"num_steps": -1}, r"evaluation\.num_steps must be at least 0, got -1"),
        ({"split": "validation"}, "evaluation.split must be test or train, got 'validation'"),
        ({"later_step_size": 0.0}, r"evaluation\.later_step_size must be positive and finite, got 0.0"),
        ({"seed": -1}, r"evaluation\.seed must be at least 0, got -1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**settings)


def test_a_judge_scores_other_episodes_and_leaves_adaptation_as_it_is(threads):
    family, judge = Recorded(navigation(threads)), Recorded(navigation(threads, acting_by_mean))
    theta = family.init_params(Key(1, INITIALISATION, 0))
    tasks = family.sample_tasks(4, np.random.default_rng(0))
    key = Key(9, EVALUATION, 5)
    own = list(adaptation(family, theta, tasks, CONFIG.step_sizes, key, threads, None))
    judged = list(adaptation(family, theta, tasks, CONFIG.step_sizes, key, threads, judge))
    for one, other in zip(own, judged, strict=True):
        assert all(torch.equal(one.params[name], other.params[name]) for name in theta)
    assert not set(judge.keys) & set(family.keys)
    assert judge.keys == [query_key(key, phase, is_judged=True) for phase in range(4)]
    # without noise, in a world without any, all episodes of a task are the same one
    returns = judged[-1].query.returns
    assert torch.equal(returns, returns[:, :1].expand_as(returns))
    assert not torch.equal(own[-1].query.returns, own[-1].query.returns[:, :1].expand_as(returns))


def test_gain_and_the_share_of_tasks_made_worse():
    # Of three tasks, one rises by 1, one falls by 1, one stays: as returns one in three is worse, as errors one, too.
    scores = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 0.0]])
    returns, errors = AdaptationCurve("return", scores, True), AdaptationCurve("mse", scores, False)
    assert returns.gain[1].tolist() == [1.0, -1.0, 0.0] and errors.gain[1].tolist() == [-1.0, 1.0, 0.0]
    assert returns.share_worse == pytest.approx([0.0, 1 / 3]) and errors.share_worse == pytest.approx([0.0, 1 / 3])
    lost = AdaptationCurve("mse", torch.tensor([[1.0, 1.0], [0.5, float("nan")]]), False)
    assert lost.share_worse[1] == 0.5


def reaching(threads):
    policy = GaussianPolicy(3, 1, PolicyConfig(hidden_sizes=(8,)))

    def make_env(num_envs):
        return gymnasium.make_vec("test/Reach-v0", num_envs=num_envs)

    sampler = LocalSampler(make_env, policy, 3, 10, threads, reports_success=True)
    sample, sample_test = make_env(1).sample_tasks, make_env(1).sample_test_tasks
    config, device = AdvantageConfig(), torch.device("cpu")
    return RLFamily(sample, sampler, policy, config, "ratio", threads, device, sample_test)


def test_success_is_scored_beside_the_return_over_the_same_episodes(threads):
    family = Recorded(reaching(threads))
    theta = family.init_params(Key(1, INITIALISATION, 0))
    curve = adaptation_curve(family, theta, CONFIG, 5, threads)
    first = family.collect(family.tasks, stack(theta, 4), Key(9, EVALUATION, 5))
    # Observed before each step but the first: all distances after a step except the last one's.
    near = (
        first.returns.new_tensor([task.x for task in family.tasks]).view(4, 1, 1) - first.observations[..., 0]
    ).abs()
    assert (first.successes[..., 0] >= (near[..., 1:] < 0.5).any(dim=-1)).all()
    assert 0 < first.successes.sum() < first.successes.numel()
    own, success = curve.measures
    assert own.metric == "return" and torch.equal(own.per_task, curve.per_task)
    assert success.metric == "success" and success.higher_is_better and success.per_task.shape == (4, 4)
    assert torch.equal(success.per_task[0], first.successes.double().mean(dim=(1, 2)))
    assert success.mean == pytest.approx(success.per_task.mean(dim=1).tolist())


def test_worlds_that_report_no_success_have_one_measure(threads):
    for family in (sinusoid(), navigation(threads)):
        curve = adaptation_curve(family, family.init_params(Key(1, INITIALISATION, 0)), CONFIG, 0, threads)
        assert [each.metric for each in curve.measures] == [family.metric]


def test_tasks_are_those_set_aside_unless_those_of_training_are_asked_for(threads):
    family = reaching(threads)
    tasks = {split: evaluation_tasks(family, dataclasses.replace(CONFIG, split=split)) for split in ("test", "train")}
    assert all(abs(task.x) > 1 for task in tasks["test"]) and all(abs(task.x) <= 1 for task in tasks["train"])
    for family in (sinusoid(), navigation(threads)):
        assert evaluation_tasks(family, CONFIG) == evaluation_tasks(family, dataclasses.replace(CONFIG, split="train"))
