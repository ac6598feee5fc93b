"""The iteration: every outer step on every family, the same bits for any number of threads, and learning."""

import math
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from players import gaussian, recipe_for

import envs  # noqa: F401 - registers the ids
from maml_rl.core.adam import AdamConfig, Moments
from maml_rl.core.contracts import TaskFamily
from maml_rl.core.inner import InnerConfig
from maml_rl.core.keys import EVALUATION, INITIALISATION, TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.outer.choice import OUTER_STEPS, GradientOuter, ProximalOuter, ReptileOuter, TrustRegionOuter
from maml_rl.core.outer.proximal import ProximalConfig
from maml_rl.core.outer.reptile import ReptileConfig
from maml_rl.core.outer.trust_region import TrustRegionConfig
from maml_rl.core.trees import flatten, named, take_task
from maml_rl.evaluation.adaptation_curve import EvaluationConfig, evaluation_tasks
from maml_rl.evaluation.evaluator import Evaluation
from maml_rl.learners.maml import MAML
from maml_rl.rl.experience import EpisodeSampler, Return
from maml_rl.rl.model import AdvantageConfig, PolicyModel
from maml_rl.sampling.local import LocalSampler
from maml_rl.supervised.sinusoid import (
    RegressionModel,
    SinusoidCollector,
    SinusoidConfig,
    SinusoidSource,
    SquaredError,
)

CPU = torch.device("cpu")
BEGINNING = Key(1, INITIALISATION, 0)


class Problem(NamedTuple):
    """Tasks, and a model that learns them."""

    family: TaskFamily
    model: Any
    threads: Threads

    def maml(self, inner: InnerConfig, outer: Any) -> MAML:
        collector, measure = self.family.collector, self.family.measure
        return MAML(self.model, collector, measure, inner, outer.make(), self.threads)

    def tasks(self, num_tasks: int, iteration: int) -> Any:
        return self.family.source.sample_tasks(num_tasks, Key(1, TRAINING, iteration).rng(0))

    @property
    def metric(self) -> str:
        return self.family.measure.metric


def reinforcement(env_id, horizon, num_episodes, threads, hidden_sizes=(16, 16), unit_return=None):
    def make_env(num_envs):
        return gymnasium.make_vec(env_id, num_envs=num_envs, horizon=horizon)

    env = make_env(1)
    policy = gaussian(env.single_observation_space.shape[0], env.single_action_space.shape[0], hidden_sizes)
    recipe = recipe_for(make_env, policy, num_episodes, horizon)
    family = TaskFamily(env, EpisodeSampler(LocalSampler(recipe, threads), recipe), Return())
    return Problem(family, PolicyModel(policy, AdvantageConfig(), "ratio", threads, CPU, unit_return), threads)


def regression(config, threads):
    family = TaskFamily(SinusoidSource(config), SinusoidCollector(config, CPU, threads), SquaredError())
    return Problem(family, RegressionModel(config, CPU), threads)


def make_problem(name, threads):
    if name == "navigation":
        return reinforcement("maml/Navigation2D-v0", 20, 4, threads)
    return regression(SinusoidConfig(hidden_sizes=(16, 16), init_std=0.5), threads)


@pytest.fixture(scope="module")
def threads():
    return Threads(1)


def equal(state, other):
    ours, theirs = named(state), named(other)
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("outer_step", OUTER_STEPS)
@pytest.mark.parametrize("family_name", ["sinusoid", "navigation"])
def test_every_outer_step_runs_on_every_family(outer_step, family_name, threads):
    problem = make_problem(family_name, threads)
    learner = problem.maml(InnerConfig(num_steps=2, step_size=0.1), OUTER_STEPS[outer_step]())
    state = learner.init(BEGINNING)
    before = {name: tensor.clone() for name, tensor in named(state).items()}
    tasks, key = problem.tasks(4, 0), Key(1, TRAINING, 0)

    new_state, report = learner.meta_step(state, tasks, key)

    new = named(new_state)
    assert all(map(torch.equal, named(state).values(), before.values()))
    assert type(new_state) is type(state) and list(new) == list(before)
    assert all(new[name].shape == before[name].shape for name in before)
    assert all(new[name].dtype == before[name].dtype for name in before)
    assert not torch.equal(flatten(new_state.params), flatten(state.params))
    assert all(torch.isfinite(tensor).all() for tensor in new.values())
    assert all(math.isfinite(value) for value in report.metrics.values())
    assert all(math.isfinite(value) and value >= 0 for value in report.clock.values())
    assert {f"{problem.metric}_before", f"{problem.metric}_after"} <= report.metrics.keys()

    again, same_report = learner.meta_step(state, tasks, key)
    assert equal(again, new_state)
    assert same_report.metrics == report.metrics
    if problem.family.collector.resamples:
        # three batches of 4 tasks x 4 episodes, at most 20 steps each
        assert 0 < report.metrics["env_steps"] <= 3 * 4 * 4 * 20


@pytest.mark.parametrize(("family_name", "phases"), [("sinusoid", [0, 2]), ("navigation", [0, 1, 2])])
def test_support_and_query_are_collected_in_phases_of_their_own(family_name, phases, threads, monkeypatch):
    # Two inner steps: given data are collected once for both, and once more for the query.
    problem, keys = make_problem(family_name, threads), []
    collect = problem.family.collector.collect

    def recorded(tasks, actor, key):
        keys.append(key)
        return collect(tasks, actor, key)

    monkeypatch.setattr(problem.family.collector, "collect", recorded)
    learner = problem.maml(InnerConfig(num_steps=2), TrustRegionOuter())
    key = Key(1, TRAINING, 7)
    learner.meta_step(learner.init(BEGINNING), problem.tasks(2, 7), key)
    assert keys == [key.at_phase(phase) for phase in phases]


def test_the_state_carries_adam_s_memory_only_where_it_is_used(threads):
    problem = make_problem("sinusoid", threads)
    learners = {step: problem.maml(InnerConfig(), kind()) for step, kind in OUTER_STEPS.items()}
    names = {step: set(named(learner.init(BEGINNING))) for step, learner in learners.items()}
    assert names["trust_region"] == names["reptile"]
    assert names["gradient"] - names["reptile"] == {f"adam/{name}" for name in Moments._fields}
    assert names["proximal"] - names["gradient"] == {"inner_kl"}


def test_equal_keys_give_equal_initial_states(threads):
    learner = make_problem("navigation", threads).maml(InnerConfig(), TrustRegionOuter())
    state = learner.init(BEGINNING)
    assert equal(state, learner.init(BEGINNING))
    assert not equal(state, learner.init(Key(2, INITIALISATION, 0)))


def test_a_rejected_step_keeps_the_parameters_bit_for_bit(threads):
    # No candidate can satisfy a divergence below 1e-30 in single precision.
    problem = make_problem("sinusoid", threads)
    outer = TrustRegionOuter(trust_region=TrustRegionConfig(max_kl=1e-30, max_backtracks=2))
    learner = problem.maml(InnerConfig(), outer)
    state = learner.init(BEGINNING)
    new_state, report = learner.meta_step(state, problem.tasks(3, 0), Key(1, TRAINING, 0))
    assert report.metrics["accepted"] == 0.0
    assert report.metrics["surrogate_loss_after"] == report.metrics["surrogate_loss_before"]
    assert equal(new_state, state)


def test_an_accepted_step_reports_a_lower_loss_inside_the_bound(threads):
    problem = make_problem("navigation", threads)
    learner = problem.maml(InnerConfig(), TrustRegionOuter())
    report = learner.meta_step(learner.init(BEGINNING), problem.tasks(4, 0), Key(1, TRAINING, 0))[1]
    assert report.metrics["accepted"] == 1.0
    assert report.metrics["surrogate_loss_after"] < report.metrics["surrogate_loss_before"]
    assert 0.0 < report.metrics["kl"] <= 0.01


def test_reptile_moves_towards_the_adapted_parameters(threads):
    # With the whole way (epsilon 1) and one task, theta becomes that task's theta'.
    problem, key = make_problem("sinusoid", threads), Key(1, TRAINING, 0)
    learner = problem.maml(InnerConfig(num_steps=3), ReptileOuter(reptile=ReptileConfig(step_size=1.0)))
    state, tasks = learner.init(BEGINNING), problem.tasks(1, 0)
    support, adapted = problem.family.collector.collect(tasks, None, key), learner.begin(state, 1, key)
    for _ in range(3):
        adapted = learner.adapt(state, adapted, support, key)
    new_state, _ = learner.meta_step(state, tasks, key)
    for name, value in new_state.params.items():
        torch.testing.assert_close(value, take_task(adapted.params, 0)[name], rtol=1e-5, atol=1e-6)


def test_reptile_needs_an_inner_step(threads):
    words = r"inner\.num_steps must be at least 1 for outer\.step reptile, which moves towards theta', got 0"
    with pytest.raises(ValueError, match=words):
        make_problem("sinusoid", threads).maml(InnerConfig(num_steps=0), ReptileOuter())


@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_the_inner_kl_has_one_coefficient_or_one_for_each_step(num_steps, threads):
    problem, outer = make_problem("navigation", threads), ProximalOuter(proximal=ProximalConfig(inner_kl=(0.1, 0.2)))
    words = rf"proximal\.inner_kl must be one number or as many as inner\.num_steps, {num_steps}, got \(0\.1, 0\.2\)"
    with pytest.raises(ValueError, match=words):
        problem.maml(InnerConfig(num_steps=num_steps), outer)
    problem.maml(InnerConfig(num_steps=2), outer)
    problem.maml(InnerConfig(num_steps=num_steps), ProximalOuter())


@pytest.mark.parametrize("outer", [TrustRegionOuter(), ReptileOuter()])
def test_step_sizes_are_learned_by_a_step_that_moves_them(outer, threads):
    problem, inner = make_problem("sinusoid", threads), InnerConfig(learn_step_sizes=True)
    with pytest.raises(
        ValueError, match=r"inner\.learn_step_sizes needs an outer\.step that moves the step sizes, too"
    ):
        problem.maml(inner, outer)
    learner = problem.maml(inner, GradientOuter())
    state = learner.init(BEGINNING)
    assert list(state.step_sizes) == list(state.params)
    moved, _ = learner.meta_step(state, problem.tasks(3, 0), Key(1, TRAINING, 0))
    assert all(torch.equal(size, torch.full_like(size, inner.step_size)) for size in state.step_sizes.values())
    assert not any(torch.equal(moved.step_sizes[name], state.step_sizes[name]) for name in state.step_sizes)


@pytest.mark.parametrize("family_name", ["sinusoid", "navigation"])
@pytest.mark.parametrize("outer_step", ["trust_region", "gradient"])
def test_without_inner_steps_before_and_after_are_one(family_name, outer_step, threads):
    problem = make_problem(family_name, threads)
    learner = problem.maml(InnerConfig(num_steps=0), OUTER_STEPS[outer_step]())
    metrics = learner.meta_step(learner.init(BEGINNING), problem.tasks(3, 0), Key(1, TRAINING, 0))[1].metrics
    assert metrics[f"{problem.metric}_before"] == metrics[f"{problem.metric}_after"]


def test_one_task_is_enough(threads):
    for name in ("sinusoid", "navigation"):
        problem = make_problem(name, threads)
        learner = problem.maml(InnerConfig(), TrustRegionOuter())
        metrics = learner.meta_step(learner.init(BEGINNING), problem.tasks(1, 0), Key(1, TRAINING, 0))[1].metrics
        assert f"{problem.metric}_after" in metrics and f"{problem.metric}_after_ci95" not in metrics


def test_adapting_fits_the_support_and_changes_nothing_that_came_in(threads):
    problem, key = make_problem("sinusoid", threads), Key(1, EVALUATION, 0)
    learner = problem.maml(InnerConfig(step_size=0.05), TrustRegionOuter())
    state, collector = learner.init(BEGINNING), problem.family.collector
    support, errors = collector.collect(problem.tasks(2, 0), None, key), []
    adapted = learner.begin(state, 2, key)
    for count in range(6):
        before = {name: value.clone() for name, value in adapted.params.items()}
        assert learner.num_gradient_steps(adapted) == count
        outputs = learner.actor(state, adapted, key).step((), support, None)[0]
        errors.append((outputs - support.targets).square().mean().item())
        further = learner.adapt(state, adapted, support, key)
        assert all(torch.equal(adapted.params[name], before[name]) for name in before)
        adapted = further
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0]


def test_steps_at_test_have_sizes_of_their_own(threads):
    # A step of twice the size goes twice as far; the second by as much less as the settings say.
    problem, key = make_problem("sinusoid", threads), Key(1, EVALUATION, 0)
    support = problem.family.collector.collect(problem.tasks(2, 0), None, key)

    def after_a_step(inner, num_before):
        learner = problem.maml(inner, TrustRegionOuter())
        state = learner.init(BEGINNING)
        begun = learner.begin(state, 2, key)
        begun = begun._replace(num_steps=begun.num_steps + num_before)
        return flatten(learner.adapt(state, begun, support, key).params) - flatten(begun.params)

    usual = after_a_step(InnerConfig(step_size=0.01), 0)
    torch.testing.assert_close(after_a_step(InnerConfig(step_size=0.01), 1), usual)
    settings = InnerConfig(step_size=0.01, test_step_size=0.02, later_ratio=0.25)
    torch.testing.assert_close(after_a_step(settings, 0), 2.0 * usual, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(after_a_step(settings, 1), 0.5 * usual, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("num_episodes", "hidden_sizes"), [(1, (100, 100)), (5, (7, 13)), (7, (33, 5)), (20, (100, 100))]
)
@pytest.mark.parametrize(
    ("env_id", "horizon"), [("test/Push-v0", 15), ("maml/Navigation2D-v0", 20), ("maml/HalfCheetahVel-gym-v0", 10)]
)  # with 1, 2 and 6 actions
def test_three_iterations_are_bit_equal_for_any_number_of_threads(env_id, horizon, num_episodes, hidden_sizes):
    assert_bit_equal_on_any_number_of_threads(TrustRegionOuter(), env_id, horizon, num_episodes, hidden_sizes)


def test_steps_by_the_return_are_bit_equal_for_any_number_of_threads():
    args = "maml/HalfCheetahVel-gym-v0", 10, 7, (33, 5)
    assert_bit_equal_on_any_number_of_threads(TrustRegionOuter(), *args, unit_return=-5.0)


@pytest.mark.parametrize("env_id", ["test/Push-v0", "maml/HalfCheetahVel-gym-v0"])
def test_proximal_iterations_are_bit_equal_for_any_number_of_threads(env_id):
    outer = ProximalOuter(proximal=ProximalConfig(target_kl=0.01, max_kl=0.05, exploration=0.5))
    assert_bit_equal_on_any_number_of_threads(outer, env_id, 10, 7, (33, 5))


def assert_bit_equal_on_any_number_of_threads(outer, env_id, horizon, num_episodes, hidden_sizes, unit_return=None):
    results = []
    for num_threads in (1, 2, 3, 4, 8):
        threads = Threads(num_threads)
        problem = reinforcement(env_id, horizon, num_episodes, threads, hidden_sizes, unit_return)
        learner = problem.maml(InnerConfig(), outer)
        state, reports = learner.init(BEGINNING), []
        for iteration in range(3):
            state, report = learner.meta_step(state, problem.tasks(5, iteration), Key(1, TRAINING, iteration))
            reports.append(report.metrics)
        results.append((state, reports))
        problem.family.collector.sampler.close()
        threads.close()
    for state, reports in results[1:]:
        assert equal(state, results[0][0])
        assert reports == results[0][1]


LEARNS_SINUSOIDS = {
    "trust_region": TrustRegionOuter(trust_region=TrustRegionConfig(max_kl=0.1)),
    "gradient": GradientOuter(gradient=AdamConfig(learning_rate=0.01)),
    "reptile": ReptileOuter(reptile=ReptileConfig(step_size=1.0)),
    "proximal": ProximalOuter(proximal=ProximalConfig(epochs=3, adam=AdamConfig(learning_rate=0.01))),
}
INNER_STEPS = {
    "trust_region": 1,
    "gradient": 1,
    "proximal": 1,
    "reptile": 20,
}  # Reptile lives on what lies beyond the first steps


@pytest.mark.parametrize("outer_step", OUTER_STEPS)
def test_every_outer_step_lowers_the_loss_after_adaptation(outer_step, threads):
    # On the same 50 held-out sinusoids, adapted as in training, before and after 30 iterations.
    problem, num_steps = regression(SinusoidConfig(init_std=0.2), threads), INNER_STEPS[outer_step]
    evaluation = Evaluation(problem.family, scored_after=(num_steps,))
    held_out = evaluation_tasks(problem.family.source, EvaluationConfig(50))
    learner = problem.maml(InnerConfig(num_steps=num_steps, step_size=0.02), LEARNS_SINUSOIDS[outer_step])
    state = learner.init(BEGINNING)

    def held_out_loss():
        return evaluation.curve(learner, state, held_out, Key(0, EVALUATION, 0)).mean[-1]

    loss_before = held_out_loss()
    for iteration in range(30):
        state, _ = learner.meta_step(state, problem.tasks(25, iteration), Key(1, TRAINING, iteration))
    loss_after = held_out_loss()
    assert loss_after < 0.8 * loss_before


def test_navigation_is_learned():
    # Finn et al. 2017, section 5.3, in small: one gradient step of a policy that has learned to adapt is
    # worth 10.
    threads = Threads(2)
    problem = reinforcement("maml/Navigation2D-v0", 100, 10, threads, hidden_sizes=(16, 16))
    learner = problem.maml(InnerConfig(step_size=0.5), TrustRegionOuter())
    state, gains = learner.init(BEGINNING), []
    for iteration in range(9):
        state, report = learner.meta_step(state, problem.tasks(20, iteration), Key(1, TRAINING, iteration))
        gains.append(report.metrics["return_after"] - report.metrics["return_before"])
    problem.family.collector.sampler.close()
    threads.close()
    assert np.mean(gains[-3:]) > 10.0
