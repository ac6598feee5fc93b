"""Probabilistic MAML: MAML where it has no distribution, the gradient of its objective, and what its draws cover."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from pictures import drawings

from maml_rl.core.adam import AdamConfig
from maml_rl.core.contracts import TaskFamily
from maml_rl.core.inner import InnerConfig
from maml_rl.core.keys import EVALUATION, INITIALISATION, TASKS, TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.outer.choice import GradientOuter
from maml_rl.core.trees import map_params, take_task
from maml_rl.evaluation.adaptation_curve import EvaluationConfig, evaluation_tasks
from maml_rl.evaluation.evaluator import Evaluation
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.table import learner_entry
from maml_rl.learners import maml, platipus
from maml_rl.learners.entry import Context
from maml_rl.learners.platipus import Learned, PosteriorConfig
from maml_rl.networks.convnet import ConvConfig
from maml_rl.supervised.ambiguous import LYING, ambiguous_family
from maml_rl.supervised.classification import PictureShape, PictureSpec
from maml_rl.supervised.episodes import EpisodeSize, EpisodeStream
from maml_rl.supervised.images import ImageSet
from maml_rl.supervised.sinusoid import SinusoidCollector, SquaredError
from maml_rl.supervised.sinusoid_or_line import SinusoidOrLineConfig, SinusoidOrLineSource

CPU, BEGINNING, KEY = torch.device("cpu"), Key(1, INITIALISATION, 0), Key(1, TRAINING, 0)
TASK = SinusoidOrLineConfig(hidden_sizes=(12, 12), init_std=0.4)
INNER = InnerConfig(num_steps=2, step_size=0.02)


@pytest.fixture(scope="module")
def threads():
    return Threads(1)


def context(threads, task=TASK):
    source, collector = SinusoidOrLineSource(task), SinusoidCollector(task, CPU, threads)
    family = TaskFamily(source, collector, SquaredError(task.noise_std))
    return Context("regression", family, 2, threads, CPU, task)


def make(threads, inner=INNER, **posterior):
    config = platipus.RegressionConfig(inner, GradientOuter(), PosteriorConfig(**posterior))
    return platipus.build(context(threads), config)


def plain(threads, inner=INNER):
    return maml.build(context(threads), maml.RegressionConfig(inner, GradientOuter()))


def tasks(count=5):
    return SinusoidOrLineSource(TASK).sample_tasks(count, KEY.rng(TASKS))


def without_distribution(state):
    """Standard deviations of e^-42, which no parameter's last digit notices, and no steps to the means."""
    certain = map_params(lambda p: torch.full_like(p, -84.0), state.prior_log_variance)
    still = map_params(torch.zeros_like, state.prior_rate)
    return state._replace(
        prior_log_variance=certain, posterior_log_variance=certain, prior_rate=still, posterior_rate=still
    )


@pytest.mark.parametrize("inner", [INNER, InnerConfig(num_steps=1), InnerConfig(num_steps=2, first_order=True)])
@pytest.mark.parametrize("num_draws", [1, 3])
def test_without_variances_and_rates_it_is_maml(inner, num_draws, threads):
    learner, other = make(threads, inner, num_draws=num_draws), plain(threads, inner)
    state, twin = without_distribution(learner.init(BEGINNING)), other.init(BEGINNING)
    assert all(torch.equal(state.params[name], twin.params[name]) for name in twin.params)

    moved, report = learner.meta_step(state, tasks(), KEY)
    moved_twin, report_twin = other.meta_step(twin, tasks(), KEY)
    for name, value in moved_twin.params.items():
        torch.testing.assert_close(moved.params[name], value, rtol=1e-6, atol=1e-8)
    shared = report.metrics.keys() & report_twin.metrics.keys()
    assert {"mse_before", "mse_after", "surrogate_loss_before", "gradient_norm"} <= shared
    assert all(report.metrics[name] == pytest.approx(report_twin.metrics[name], rel=1e-5) for name in shared)
    assert report.metrics["kl"] == 0.0

    family = context(threads).family
    held_out = evaluation_tasks(family.source, EvaluationConfig(num_tasks=4))
    curves = [
        Evaluation(family, (0, 1, 2), num_draws=draws).curve(each, at, held_out, Key(0, EVALUATION, 0))
        for each, at, draws in ((learner, state, 3), (other, twin, 1))
    ]
    torch.testing.assert_close(*(curve.per_task for curve in curves), rtol=1e-5, atol=1e-6)
    assert list(curves[0].gradient_steps) == [0, 1, 2]


def learned(state, seed=0, spread=0.3):
    """The parameters of a state, moved to where nothing is equal by chance."""
    generator = torch.Generator().manual_seed(seed)
    return Learned(
        *(map_params(lambda p: p + spread * torch.randn(p.shape, generator=generator), tree) for tree in state.learned)
    )


def double(tree):
    return map_params(lambda p: p.double(), tree)


def mean_squared_error(params, inputs, targets):
    hidden = inputs
    for layer in range(3):
        hidden = hidden @ params[f"{layer}.weight"] + params[f"{layer}.bias"]
        hidden = hidden.relu() if layer < 2 else hidden
    return (hidden - targets).square().mean()


def objective_by_hand(learner, at, support, query, noise):
    """The objective of n tasks in plain autograd, one task and one draw at a time."""
    total = torch.zeros((), dtype=torch.float64)
    stds = map_params(lambda p: (0.5 * p).exp(), at.posterior_log_variance)

    def stepped(params, data, sizes):
        slopes = torch.autograd.grad(mean_squared_error(params, *data), list(params.values()), create_graph=True)
        return {name: p - sizes[name] * g for (name, p), g in zip(params.items(), slopes, strict=True)}

    for i in range(len(support.inputs)):
        shown, asked = ((data.inputs[i], data.targets[i]) for data in (support, query))
        center, prior = stepped(at.params, asked, at.posterior_rate), stepped(at.params, shown, at.prior_rate)
        draws = next(iter(noise.values())).shape[1]
        for s in range(draws):
            theta = {name: center[name] + stds[name] * noise[name][i, s] for name in center}
            for size in learner.inner.step_sizes:
                theta = stepped(theta, shown, dict.fromkeys(theta, size))
            total = total + mean_squared_error(theta, *asked) / draws
        for name in center:
            q = torch.distributions.Normal(center[name], stds[name])
            p = torch.distributions.Normal(prior[name], (0.5 * at.prior_log_variance[name]).exp())
            nats = 0.5 / TASK.noise_std**2 * TASK.num_examples
            total = total + learner.posterior.kl_weight * torch.distributions.kl_divergence(q, p).sum() / nats
    return total


def one_iteration(learner, num_draws, spread=0.05):
    state = learner.init(BEGINNING)
    at = Learned(*map(double, learned(state, spread=spread)))
    collector = context(learner.threads).family.collector
    support, query = (
        type(d)(*(x.double() for x in d)) for d in (collector.collect(tasks(), None, KEY.at_phase(p)) for p in (0, 2))
    )
    noise = double(platipus.draw_noise(at.params, range(5), num_draws, KEY))
    return at, support, query, noise


@pytest.mark.parametrize("num_draws", [1, 3])
def test_the_gradient_is_that_of_plain_autograd(num_draws, threads):
    learner = make(threads, num_draws=num_draws, kl_weight=0.7)
    at, support, query, noise = one_iteration(learner, num_draws)
    leaves = Learned(*(map_params(lambda p: p.clone().requires_grad_(), tree) for tree in at))
    expected = objective_by_hand(learner, leaves, support, query, noise)
    slopes = torch.autograd.grad(expected, [leaf for tree in leaves for leaf in tree.values()])
    found = learner.bound(at, support, query, noise, curved=1.0)
    torch.testing.assert_close(found.gradient, torch.cat([slope.flatten() for slope in slopes]), rtol=1e-7, atol=1e-9)
    weight = learner.posterior.kl_weight * 2 * TASK.noise_std**2 / TASK.num_examples
    value = found.losses.mean(dim=1).sum() + weight * found.divergences.sum()
    torch.testing.assert_close(value, expected.detach())


def test_sampled_second_derivatives_average_to_those_through_every_draw(threads):
    # Each draw in turn is the one whose second derivatives are followed; the steps to the means are held still in both.
    count = 3
    learner = make(threads, num_draws=count, curvature="sampled", rate=0.0)
    exact = make(threads, num_draws=count, rate=0.0)
    at, support, query, noise = one_iteration(learner, count)
    at = at._replace(prior_rate=map_params(torch.zeros_like, at.prior_rate))
    at = at._replace(posterior_rate=map_params(torch.zeros_like, at.posterior_rate))
    turned = [
        learner.bound(at, support, query, map_params(lambda p, k=k: p.roll(k, 1), noise), 1.0) for k in range(count)
    ]
    mean = torch.stack([each.gradient for each in turned]).mean(dim=0)
    whole = exact.bound(at, support, query, noise, 1.0).gradient
    torch.testing.assert_close(mean, whole, rtol=1e-8, atol=1e-10)
    assert not torch.allclose(turned[0].gradient, whole, rtol=1e-3)
    flat = make(threads, dataclasses.replace(INNER, first_order=True), num_draws=count, rate=0.0)
    left_out = learner.bound(at, support, query, noise, 0.0).gradient
    torch.testing.assert_close(left_out, flat.bound(at, support, query, noise, 1.0).gradient)


def test_chunks_with_second_derivatives_stand_for_all(threads):
    sampled, exact = make(threads, curvature="sampled"), make(threads)
    assert [sampled._curved(count) for count in (1, 2, 3)] == [[1.0], [2.0, 0.0], [1.5, 0.0, 1.5]]
    assert exact._curved(3) == [1.0] * 3


def test_an_actor_is_a_draw_by_its_key(threads):
    learner = make(threads, std=0.1)
    state, key = learner.init(BEGINNING), Key(0, EVALUATION, 0)
    family = context(threads).family
    support = family.collector.collect(tasks(3), None, key)
    adapted = learner.adapt(state, learner.begin(state, 3, key), support, key)

    def drawn(key):
        return learner.actor(state, adapted, key).params

    one, again, other = drawn(key), drawn(key), drawn(key.at_phase(1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)
    assert not any(torch.equal(value[0], value[1]) for value in one.values())  # tasks have their own noise


@pytest.mark.parametrize("is_shown", [False, True])
def test_draws_at_test_are_those_of_the_prior_whose_mean_takes_a_step_on_the_support(is_shown, threads):
    # Before any data p = N(mu, sigma^2), and p(theta | support) = N(mu - gamma_p g, sigma^2); q has other numbers. The
    # gradient steps that follow a draw are too small to be noticed.
    count = 4000
    learner = make(threads, InnerConfig(num_steps=1, step_size=1e-12))
    begun = learner.init(BEGINNING)
    at = learned(begun)
    rates = {name: torch.full((1,), 0.2 + 0.1 * place) for place, name in enumerate(at.prior_rate)}
    at = at._replace(prior_rate=rates, posterior_log_variance=map_params(lambda p: p + 2.0, at.prior_log_variance))
    state = begun._replace(**at._asdict())
    one = context(threads).family.collector.collect(tasks(1), None, KEY)
    adapted, mean = learner.begin(state, count, KEY), state.params
    if is_shown:
        adapted = learner.adapt(state, adapted, type(one)(*(part.expand(count, -1, -1) for part in one)), KEY)
        shown = take_task(one, 0)
        slopes = torch.func.grad(lambda params: mean_squared_error(params, *shown))(state.params)
        mean = {name: value - rates[name] * slopes[name] for name, value in mean.items()}
    assert learner.num_gradient_steps(adapted) == int(is_shown)
    for name, value in learner.actor(state, adapted, KEY).params.items():
        std = (0.5 * at.prior_log_variance[name]).exp()
        assert ((value.mean(dim=0) - mean[name]) / std).abs().max() < 5 / count**0.5
        torch.testing.assert_close(value.std(dim=0), std, rtol=0.08, atol=0)


def ambiguous(threads):
    """PLATIPUS on ambiguous episodes of small drawings: (learner, family for training and held out)."""
    count, size = 12, 16
    pictures = drawings(count, 12, size, np.random.default_rng(0))
    data = ImageSet(
        pictures.reshape(-1, size, size, 1), np.arange(0, 12 * (count + 1), 12), tuple(map(str, range(count)))
    )
    streams = [
        EpisodeStream(data, classes, "ambiguous", EpisodeSize(2, 1, 4)) for classes in (np.arange(8), np.arange(8, 12))
    ]
    family = ambiguous_family(*streams, CPU, threads)
    spec = PictureSpec(PictureShape(size, 1, 2), data, np.arange(8))
    config = platipus.PicturesConfig(
        InnerConfig(num_steps=3, step_size=0.5),
        GradientOuter(gradient=AdamConfig(learning_rate=0.01)),
        PosteriorConfig(std=0.1, rate=0.05, kl_weight=0.5),
        ConvConfig("strided", 8, "flatten", "none", head_std=0.1),
    )
    return platipus.build(Context("pictures", family, 3, threads, CPU, spec), config), family


def test_draws_cover_both_readings_of_an_ambiguous_episode(threads):
    # Characters upright and upside down are two classes; lying down they belong to either, as the task has it. One
    # example of each class does not say which, so of twenty draws several read it one way and several the other, while
    # each single draw is confident, and all agree on pictures that are not lying down.
    learner, family = ambiguous(threads)
    state = learner.init(BEGINNING)
    for iteration in range(80):
        key = Key(1, TRAINING, iteration)
        state, _ = learner.meta_step(state, family.source.sample_tasks(16, key.rng(TASKS)), key)
    key = Key(0, EVALUATION, 0)
    episodes = family.source.sample_test_tasks(20, key.rng(TASKS))
    support, adapted = family.collector.collect(episodes, None, key), learner.begin(state, 20, key)
    for step in range(3):
        adapted = learner.adapt(state, adapted, support, key.at_phase(step))
    actors = [learner.actor(state, adapted, key.at_phase(draw)) for draw in range(20)]
    answers = [family.collector.collect(episodes, actor, key.at_phase(1)) for actor in actors]
    chosen = torch.stack([each.outputs.argmax(dim=-1) for each in answers])  # [draw, episode, query]
    lying = torch.tensor([[turn == LYING for turn, _ in episode.query] for episode in episodes])
    labels = answers[0].examples.labels
    assert (chosen == labels)[:, ~lying].float().mean() > 0.9
    upside_down = chosen[:, lying].view(20, 20, -1).float().mean(dim=-1)  # share of an episode's pictures lying down
    assert ((upside_down <= 0.25) | (upside_down >= 0.75)).float().mean() > 0.85
    readings = torch.stack([(upside_down <= 0.25).float().mean(dim=0), (upside_down >= 0.75).float().mean(dim=0)])
    assert (readings.amin(dim=0) >= 0.1).float().mean() > 0.8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_draws": 0}, r"posterior\.num_draws must be at least 1, got 0"),
        ({"kl_weight": -1.0}, r"posterior\.kl_weight must be at least 0 and finite, got -1\.0"),
        ({"std": 0.0}, r"posterior\.std must be positive and finite, got 0\.0"),
        ({"rate": math.inf}, r"posterior\.rate must be at least 0 and finite, got inf"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        PosteriorConfig(**settings)


def test_what_it_cannot_do_is_refused(threads):
    with pytest.raises(ValueError, match=r"inner\.learn_step_sizes must be left out for platipus"):
        make(threads, InnerConfig(learn_step_sizes=True))
    with pytest.raises(ValueError, match=r"learner platipus takes regression tasks .* not episodes of an environment"):
        learner_entry("platipus", "reinforcement")
    with pytest.raises(ValueError, match=r"inner\.only must name some of the parameters"):
        make(threads, InnerConfig(only=("nothing",)))


def test_what_does_not_adapt_has_no_distribution(make_problem):
    problem = make_problem(
        "platipus",
        change=lambda config: dataclasses.replace(
            config, inner=dataclasses.replace(config.inner, only=("conv", "head"))
        ),
    )
    state = problem.state
    assert {name for name in state.params if name.startswith("norm")} and not any(
        name.startswith("norm") for name in state.prior_log_variance
    )
    support, _ = problem.episodes(2)
    adapted = problem.learner.adapt(state, problem.learner.begin(state, 2, KEY), support, KEY)
    drawn = problem.learner.actor(state, adapted, KEY).params
    for name, value in drawn.items():
        stays = name.startswith("norm")
        assert all(torch.equal(row, state.params[name]) == stays for row in value)


def test_tasks_adapt_chunk_by_chunk_as_they_do_together(make_problem, monkeypatch):
    only = InnerConfig(num_steps=1, step_size=0.1, only=("conv", "head"))
    problem = make_problem("platipus", change=lambda config: dataclasses.replace(config, inner=only))
    state, support = problem.state, problem.episodes(3)[0]

    def means():
        return problem.learner.adapt(state, problem.learner.begin(state, 3, KEY), support, KEY).mean

    together = means()
    monkeypatch.setattr(problem.threads, "_chunk_elements", 1)
    apart = means()
    assert len(problem.threads.chunks(support)) == 3
    for name, value in together.items():
        assert torch.allclose(apart[name], value, atol=1e-6)


def test_a_warm_start_takes_the_network_and_steps_of_maml_s(threads):
    warm, of_maml = (default_config("omniglot", name, "warm") for name in ("platipus", "maml"))
    assert warm.method.network == of_maml.method.network and warm.method.inner == of_maml.method.inner
    assert warm.method.outer.gradient.decay_steps == warm.training.num_iterations
