"""The iteration: every outer step on every family, the same bits for any number of threads, and learning."""

import math

import gymnasium
import numpy as np
import pytest
import torch

import envs  # noqa: F401 - registers the ids
from maml_rl.core.inner import InnerConfig
from maml_rl.core.lift import Threads
from maml_rl.core.maml import MAML, OuterConfig, params_of
from maml_rl.core.outer.gradient import GradientConfig, Moments
from maml_rl.core.outer.reptile import ReptileConfig
from maml_rl.core.outer.trust_region import TrustRegionConfig
from maml_rl.core.params import flatten
from maml_rl.core.protocols import EVALUATION, INITIALISATION, TRAINING, Key
from maml_rl.evaluation.adaptation_curve import EvaluationConfig, adaptation_curve
from maml_rl.policies import GaussianPolicy, PolicyConfig
from maml_rl.rl.family import AdvantageConfig, RLFamily
from maml_rl.sampling.local import LocalSampler
from maml_rl.supervised.sinusoid import SinusoidConfig, SinusoidFamily

OUTER_STEPS = ["trust_region", "gradient", "reptile"]


def reinforcement(env_id, horizon, num_episodes, threads, hidden_sizes=(16, 16)):
    def make_env(num_envs):
        return gymnasium.make_vec(env_id, num_envs=num_envs, horizon=horizon)

    world = make_env(1)
    sizes = (world.single_observation_space.shape[0], world.single_action_space.shape[0])
    policy = GaussianPolicy(*sizes, PolicyConfig(hidden_sizes=hidden_sizes))
    sampler = LocalSampler(make_env, policy, num_episodes, horizon, threads)
    return RLFamily(world.sample_tasks, sampler, policy, AdvantageConfig(), "ratio", threads, torch.device("cpu"))


def make_family(name, threads):
    if name == "navigation":
        return reinforcement("maml/Navigation2D-v0", 20, 4, threads)
    return SinusoidFamily(SinusoidConfig(hidden_sizes=(16, 16), init_std=0.5), torch.device("cpu"))


def training_tasks(family, num_tasks, iteration):
    return family.sample_tasks(num_tasks, Key(1, TRAINING, iteration).rng(0))


def equal(state, other):
    return list(state) == list(other) and all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("outer_step", OUTER_STEPS)
@pytest.mark.parametrize("family_name", ["sinusoid", "navigation"])
def test_every_outer_step_runs_on_every_family(outer_step, family_name, threads):
    family = make_family(family_name, threads)
    inner = InnerConfig(num_steps=2, step_size=0.1)
    learner = MAML(family, inner, OuterConfig(step=outer_step), threads)
    state = learner.init(Key(1, INITIALISATION, 0))
    before = {name: tensor.clone() for name, tensor in state.items()}
    tasks, key = training_tasks(family, 4, 0), Key(1, TRAINING, 0)

    new_state, report = learner.meta_step(state, tasks, key)

    assert equal(state, before)
    assert list(new_state) == list(state)
    assert all(new_state[name].shape == state[name].shape for name in state)
    assert all(new_state[name].dtype == state[name].dtype for name in state)
    assert not torch.equal(flatten(params_of(new_state)), flatten(params_of(state)))
    assert all(torch.isfinite(tensor).all() for tensor in new_state.values())
    assert all(math.isfinite(value) for value in report.metrics.values())
    assert all(math.isfinite(value) and value >= 0 for value in report.clock.values())
    assert {f"{family.metric}_before", f"{family.metric}_after"} <= report.metrics.keys()

    again, same_report = learner.meta_step(state, tasks, key)
    assert equal(again, new_state)
    assert same_report.metrics == report.metrics
    if family.resamples:
        # three batches of 4 tasks x 4 episodes, at most 20 steps each
        assert 0 < report.metrics["env_steps"] <= 3 * 4 * 4 * 20


@pytest.mark.parametrize(("family_name", "phases"), [("sinusoid", [0, 2]), ("navigation", [0, 1, 2])])
def test_support_and_query_are_collected_in_phases_of_their_own(family_name, phases, threads, monkeypatch):
    # Two inner steps: given data are collected once for both, and once more for the query.
    family, keys = make_family(family_name, threads), []
    collect = family.collect

    def recorded(tasks, params, key):
        keys.append(key)
        return collect(tasks, params, key)

    monkeypatch.setattr(family, "collect", recorded)
    learner = MAML(family, InnerConfig(num_steps=2), OuterConfig(), threads)
    key = Key(1, TRAINING, 7)
    learner.meta_step(learner.init(Key(1, INITIALISATION, 0)), training_tasks(family, 2, 7), key)
    assert keys == [key.at_phase(phase) for phase in phases]


def test_the_state_carries_adam_s_memory_only_where_it_is_used(threads):
    family, key = make_family("sinusoid", threads), Key(1, INITIALISATION, 0)
    names = {step: set(MAML(family, InnerConfig(), OuterConfig(step=step), threads).init(key)) for step in OUTER_STEPS}
    assert names["trust_region"] == names["reptile"]
    assert names["gradient"] - names["reptile"] == {f"adam/{name}" for name in Moments._fields}


def test_equal_keys_give_equal_initial_states(threads):
    learner = MAML(make_family("navigation", threads), InnerConfig(), OuterConfig(), threads)
    state = learner.init(Key(1, INITIALISATION, 0))
    assert equal(state, learner.init(Key(1, INITIALISATION, 0)))
    assert not equal(state, learner.init(Key(2, INITIALISATION, 0)))


def test_a_rejected_step_keeps_the_parameters_bit_for_bit(threads):
    # No candidate can satisfy a divergence below 1e-30 in single precision.
    family = make_family("sinusoid", threads)
    outer = OuterConfig(trust_region=TrustRegionConfig(max_kl=1e-30, max_backtracks=2))
    learner = MAML(family, InnerConfig(), outer, threads)
    state = learner.init(Key(1, INITIALISATION, 0))
    new_state, report = learner.meta_step(state, training_tasks(family, 3, 0), Key(1, TRAINING, 0))
    assert report.metrics["accepted"] == 0.0
    assert report.metrics["surrogate_loss_after"] == report.metrics["surrogate_loss_before"]
    assert equal(new_state, state)


def test_an_accepted_step_reports_a_lower_loss_inside_the_bound(threads):
    family = make_family("navigation", threads)
    learner = MAML(family, InnerConfig(), OuterConfig(), threads)
    state = learner.init(Key(1, INITIALISATION, 0))
    report = learner.meta_step(state, training_tasks(family, 4, 0), Key(1, TRAINING, 0))[1]
    assert report.metrics["accepted"] == 1.0
    assert report.metrics["surrogate_loss_after"] < report.metrics["surrogate_loss_before"]
    assert 0.0 < report.metrics["kl"] <= 0.01


def test_reptile_moves_towards_the_adapted_parameters(threads):
    # With the whole way (epsilon 1) and one task, theta becomes that task's theta'.
    family = make_family("sinusoid", threads)
    inner, outer = InnerConfig(num_steps=3), OuterConfig(step="reptile", reptile=ReptileConfig(step_size=1.0))
    learner = MAML(family, inner, outer, threads)
    state, key = learner.init(Key(1, INITIALISATION, 0)), Key(1, TRAINING, 0)
    tasks = training_tasks(family, 1, 0)
    support = family.collect(tasks, {}, key.at_phase(0))
    inputs = torch.linspace(-5, 5, 11).unsqueeze(-1)
    expected = learner.adapt(state, [support] * 3)(inputs)
    new_state, _ = learner.meta_step(state, tasks, key)
    torch.testing.assert_close(family.predictor(params_of(new_state))(inputs), expected, rtol=1e-5, atol=1e-6)


def test_reptile_needs_an_inner_step(threads):
    with pytest.raises(ValueError, match=r"outer\.step reptile needs inner\.num_steps of at least 1, got 0"):
        MAML(make_family("sinusoid", threads), InnerConfig(num_steps=0), OuterConfig(step="reptile"), threads)


@pytest.mark.parametrize("family_name", ["sinusoid", "navigation"])
@pytest.mark.parametrize("outer_step", ["trust_region", "gradient"])
def test_without_inner_steps_before_and_after_are_one(family_name, outer_step, threads):
    family = make_family(family_name, threads)
    learner = MAML(family, InnerConfig(num_steps=0), OuterConfig(step=outer_step), threads)
    state = learner.init(Key(1, INITIALISATION, 0))
    metrics = learner.meta_step(state, training_tasks(family, 3, 0), Key(1, TRAINING, 0))[1].metrics
    assert metrics[f"{family.metric}_before"] == metrics[f"{family.metric}_after"]


def test_one_task_is_enough(threads):
    for name in ("sinusoid", "navigation"):
        family = make_family(name, threads)
        learner = MAML(family, InnerConfig(), OuterConfig(), threads)
        state = learner.init(Key(1, INITIALISATION, 0))
        metrics = learner.meta_step(state, training_tasks(family, 1, 0), Key(1, TRAINING, 0))[1].metrics
        assert f"{family.metric}_after" in metrics and f"{family.metric}_after_ci95" not in metrics


def test_adapt_returns_a_predictor_of_one_task(threads):
    family = make_family("sinusoid", threads)
    learner = MAML(family, InnerConfig(num_steps=5, step_size=0.05), OuterConfig(), threads)
    state = learner.init(Key(1, INITIALISATION, 0))
    tasks = training_tasks(family, 1, 0)
    support = family.collect(tasks, {}, Key(1, EVALUATION, 0))
    predictor = learner.adapt(state, [support] * 5)
    errors = [
        (predict(support.inputs[0]) - support.targets[0]).square().mean().item()
        for predict in (family.predictor(params_of(state)), predictor)
    ]
    assert errors[1] < errors[0]
    assert predictor(torch.zeros(1)).shape == (1,)
    assert predictor(torch.zeros(2, 7, 1)).shape == (2, 7, 1)


@pytest.mark.parametrize(
    ("num_episodes", "hidden_sizes"), [(1, (100, 100)), (5, (7, 13)), (7, (33, 5)), (20, (100, 100))]
)
@pytest.mark.parametrize(
    ("env_id", "horizon"), [("test/Push-v0", 15), ("maml/Navigation2D-v0", 20), ("maml/HalfCheetahVel-gym-v0", 10)]
)  # with 1, 2 and 6 actions
def test_three_iterations_are_bit_equal_for_any_number_of_threads(env_id, horizon, num_episodes, hidden_sizes):
    results = []
    for num_threads in (1, 2, 3, 4, 8):
        threads = Threads(num_threads)
        family = reinforcement(env_id, horizon, num_episodes, threads, hidden_sizes=hidden_sizes)
        learner = MAML(family, InnerConfig(), OuterConfig(), threads)
        state, reports = learner.init(Key(1, INITIALISATION, 0)), []
        for iteration in range(3):
            tasks = training_tasks(family, 5, iteration)
            state, report = learner.meta_step(state, tasks, Key(1, TRAINING, iteration))
            reports.append(report.metrics)
        results.append((state, reports))
        family.sampler.close()
        threads.close()
    for state, reports in results[1:]:
        assert equal(state, results[0][0])
        assert reports == results[0][1]


LEARNS_SINUSOIDS = {
    "trust_region": OuterConfig(step="trust_region", trust_region=TrustRegionConfig(max_kl=0.1)),
    "gradient": OuterConfig(step="gradient", gradient=GradientConfig(learning_rate=0.01)),
    "reptile": OuterConfig(step="reptile", reptile=ReptileConfig(step_size=1.0)),
}
INNER_STEPS = {
    "trust_region": 1,
    "gradient": 1,
    "reptile": 20,
}  # Reptile lives on what lies beyond the first steps


@pytest.mark.parametrize("outer_step", OUTER_STEPS)
def test_every_outer_step_lowers_the_loss_after_adaptation(outer_step, threads):
    # On the same 50 held-out sinusoids, adapted as in training, before and after 30 iterations.
    family = SinusoidFamily(SinusoidConfig(init_std=0.2), torch.device("cpu"))
    num_steps, step_size = INNER_STEPS[outer_step], 0.02
    inner = InnerConfig(num_steps=num_steps, step_size=step_size)
    evaluation = EvaluationConfig(50, num_steps, first_step_size=step_size, later_step_size=step_size)
    learner = MAML(family, inner, LEARNS_SINUSOIDS[outer_step], threads)
    state = learner.init(Key(1, INITIALISATION, 0))
    loss_before = adaptation_curve(family, params_of(state), evaluation, 0, threads).mean[-1]
    for iteration in range(30):
        tasks = training_tasks(family, 25, iteration)
        state, _ = learner.meta_step(state, tasks, Key(1, TRAINING, iteration))
    loss_after = adaptation_curve(family, params_of(state), evaluation, 0, threads).mean[-1]
    assert loss_after < 0.8 * loss_before


def test_navigation_is_learned():
    # Finn et al. 2017, section 5.3, in small: one gradient step of a policy that has learned to adapt is
    # worth 10.
    threads = Threads(2)
    family = reinforcement("maml/Navigation2D-v0", 100, 10, threads, hidden_sizes=(16, 16))
    learner = MAML(family, InnerConfig(step_size=0.5), OuterConfig(), threads)
    state, gains = learner.init(Key(1, INITIALISATION, 0)), []
    for iteration in range(9):
        tasks = training_tasks(family, 20, iteration)
        state, report = learner.meta_step(state, tasks, Key(1, TRAINING, iteration))
        gains.append(report.metrics["return_after"] - report.metrics["return_before"])
    family.sampler.close()
    threads.close()
    assert np.mean(gains[-3:]) > 10.0
