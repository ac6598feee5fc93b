import dataclasses

import numpy as np
import optree
import pytest
import torch
from pictures import drawings
from torch.nn import functional

from maml_rl.core.acting import Answered, answer
from maml_rl.core.contracts import Actor
from maml_rl.core.inner import InnerConfig, adapt, inner_gradient
from maml_rl.core.keys import INITIALISATION, TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.objective import MetaObjective
from maml_rl.core.outer.choice import GradientOuter, ReptileOuter, TrustRegionOuter
from maml_rl.core.outer.trust_region import TrustRegionConfig
from maml_rl.core.trees import flatten, stack, take_task, take_tasks, unflatten
from maml_rl.experiments.build import picture_spec
from maml_rl.learners.maml import MAML
from maml_rl.networks.convnet import ConvConfig
from maml_rl.supervised.classification import (
    Accuracy,
    ClassificationModel,
    EpisodeCollector,
    EpisodeSource,
    GivenEpisodes,
)
from maml_rl.supervised.episodes import EpisodeSize, EpisodeStream
from maml_rl.supervised.images import ImageSet

KEY = Key(3, TRAINING, 1)
CPU = torch.device("cpu")


def make_stream(ways=3, shots=2, queries=2):
    pictures = drawings(8, 5, 16, np.random.default_rng(0), noise=0.1)
    data = ImageSet(pictures.reshape(-1, 16, 16, 1), np.arange(0, 41, 5), tuple(f"c{i}" for i in range(8)))
    return EpisodeStream(data, np.arange(8), "classes", EpisodeSize(ways, shots, queries))


def make_model(norm="batch", architecture="strided", ways=3):
    return ClassificationModel(
        ConvConfig(architecture, 4, norm=norm, head_std=0.5), picture_spec(make_stream(ways)).shape, CPU
    )


def make_collector(norm="batch"):
    return EpisodeCollector(make_stream().data, norm, CPU, Threads(1))


def double(tree):
    return optree.tree_map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, tree)


class Problem:
    """One iteration of three tasks in double precision."""

    def __init__(self, norm="batch", architecture="strided"):
        self.model, self.collector = make_model(norm, architecture), make_collector(norm)
        self.tasks = make_stream().sample(3, np.random.default_rng(0))
        self.theta = double(self.model.init_params(Key(0, INITIALISATION, 0)))
        self.support = double(self.collector.collect(self.tasks, None, KEY))
        self.query = double(self.collector.collect(self.tasks, None, KEY.at_phase(1)))


def test_tasks_of_the_test_are_of_classes_that_training_never_draws():
    every = make_stream()
    training, held_out = (EpisodeStream(every.data, part, "classes", every.size) for part in np.split(np.arange(8), 2))
    source = EpisodeSource(training, held_out)
    seen = {c for task in source.sample_tasks(20, np.random.default_rng(0)) for c in task.classes}
    asked = {c for task in source.sample_test_tasks(20, np.random.default_rng(0)) for c in task.classes}
    assert seen == set(range(4)) and asked == set(range(4, 8))


def test_support_and_query_are_those_of_the_episodes():
    problem = Problem("support")
    assert problem.support.images.shape == problem.query.images.shape == (3, 6, 16, 16, 1)
    assert problem.support.context.shape[1] == 0
    assert torch.equal(problem.query.context, problem.support.images)
    again = problem.collector.collect(problem.tasks, None, KEY._replace(iteration=7, phase=5))
    assert torch.equal(again.images.double(), problem.query.images)  # which pictures is a matter of the task alone
    part = problem.model.part(problem.query, 0.5)
    assert part.labels.shape == (3, 3) and torch.equal(part.images, problem.query.images[:, :3])


def test_an_actor_s_outputs_come_with_the_examples_and_for_the_episode_s_classes_only():
    collector, model = make_collector(), make_model(ways=4)
    tasks = make_stream().sample(3, np.random.default_rng(0))
    actor = Actor(model.network, stack(model.init_params(Key(0, INITIALISATION, 0)), 3))
    answered = collector.collect(tasks, actor, KEY.at_phase(1))
    assert answered.outputs.shape == (3, 6, 3) and not answered.outputs.requires_grad
    expected = model.outputs(actor.params, answered.examples)[..., :3]
    torch.testing.assert_close(answered.outputs, expected)


def test_given_episodes_are_collected_by_name():
    problem = Problem()
    actor = Actor(problem.model.network, stack(problem.theta, 1))
    pairs = {str(i): (take_tasks(problem.support, i, i + 1), take_tasks(problem.query, i, i + 1)) for i in range(3)}
    given = GivenEpisodes(pairs, CPU, Threads(1))
    for name, (support, query) in pairs.items():
        assert torch.equal(given.collect([name], None, KEY).images, support.images)
        answered = given.collect([name], actor, KEY.at_phase(1))
        assert torch.equal(answered.outputs, answer(actor, query, Threads(1)).outputs)


def test_losses_divergence_and_score_are_those_of_torch():
    problem = Problem()
    data = take_task(problem.query, 0)
    outputs = problem.model.outputs(problem.theta, data)
    assert outputs.shape == (6, 3)
    torch.testing.assert_close(
        problem.model.inner_loss_at(outputs, data), functional.cross_entropy(outputs, data.labels)
    )
    other = outputs + torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    categorical = torch.distributions.Categorical
    expected = torch.distributions.kl_divergence(categorical(logits=outputs), categorical(logits=other)).mean()
    torch.testing.assert_close(problem.model.divergence(outputs, other, data), expected)
    assert problem.model.divergence(outputs, outputs, data).item() == 0.0
    right = [float(row.argmax() == label) for row, label in zip(outputs, data.labels, strict=True)]
    assert Accuracy().score(Answered(data, outputs)).tolist() == right


def test_several_draws_predict_the_mean_of_their_probabilities():
    # Logits are log-probabilities up to a constant, which is another one for each draw and picture.
    one, other = 2.0 * torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = torch.linspace(-5.0, 5.0, 18, dtype=torch.float64).view(3, 6, 1)
    found = Accuracy().mixture([one, other + shift])
    torch.testing.assert_close(found, (0.5 * (one.softmax(dim=-1) + other.softmax(dim=-1))).log())
    torch.testing.assert_close(Accuracy().mixture([one, one]), one.log_softmax(dim=-1))


@pytest.mark.parametrize("norm", ["batch", "support", "none"])
def test_stacked_tasks_give_what_each_gives_alone(norm):
    problem = Problem(norm)
    for data in (problem.support, problem.query):
        found = problem.model.outputs(stack(problem.theta, 3), data)
        alone = [problem.model.outputs(problem.theta, take_task(data, i)) for i in range(3)]
        torch.testing.assert_close(found, torch.stack(alone))
        torch.testing.assert_close(problem.model.linearize(stack(problem.theta, 3), data).outputs, found)


def test_support_normalisation_puts_one_query_beside_the_whole_support():
    problem = Problem("support")
    data = take_task(problem.query, 0)
    found = problem.model.outputs(problem.theta, data)
    batch = make_model("batch")
    for i in range(6):
        together = torch.cat([data.context, data.images[i : i + 1]])
        expected = batch.outputs(problem.theta, data._replace(images=together, context=data.context[:0]))[-1]
        torch.testing.assert_close(found[i], expected)


@pytest.mark.parametrize(("norm", "depends"), [("batch", True), ("support", False), ("none", False)])
def test_only_batch_normalisation_lets_a_prediction_depend_on_other_queries(norm, depends):
    problem = Problem(norm)
    data = take_task(problem.query, 0)
    changed = data.images.clone()
    changed[1:] = data.images[1:].flip(0)
    changed[1] = 1.0 - changed[1]
    found = [problem.model.outputs(problem.theta, data._replace(images=images))[0] for images in (data.images, changed)]
    assert torch.allclose(*found, rtol=1e-9, atol=1e-12) != depends


def adapted_loss(problem, theta, i, step_sizes, first_order=False):
    """The query loss of task i after gradient steps, written down anew."""
    support, query = take_task(problem.support, i), take_task(problem.query, i)

    def loss(params, data):
        return functional.cross_entropy(problem.model.outputs(params, data), data.labels)

    for size in step_sizes:
        gradient = torch.func.grad(loss)(theta, support)
        gradient = {k: g.detach() for k, g in gradient.items()} if first_order else gradient
        theta = {k: p - size * gradient[k] for k, p in theta.items()}
    return loss(theta, query)


@pytest.mark.parametrize("norm", ["batch", "support", "none"])
@pytest.mark.parametrize("architecture", ["strided", "pooled"])
@pytest.mark.parametrize("num_steps", [1, 2])
def test_the_meta_gradient_is_that_of_automatic_differentiation_through_the_steps(norm, architecture, num_steps):
    problem = Problem(norm, architecture)
    inner = InnerConfig(num_steps=num_steps, step_size=0.3)
    objective = MetaObjective(problem.model, inner, [problem.support] * num_steps, problem.query, Threads(1))
    found = objective.linearize(problem.theta, fisher_share=0.0)

    def meta_loss(vector):
        theta = unflatten(vector, problem.theta)
        return torch.stack([adapted_loss(problem, theta, i, inner.step_sizes) for i in range(3)]).mean()

    gradient, loss = torch.func.grad_and_value(meta_loss)(flatten(problem.theta))
    assert found.loss == pytest.approx(loss.item())
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-6, atol=1e-9)


def test_the_meta_gradient_is_the_slope_that_finite_differences_show():
    problem = Problem("none")
    inner = InnerConfig(num_steps=2, step_size=0.3)
    direction, away = torch.randn(2, len(flatten(problem.theta)), generator=torch.Generator().manual_seed(1)).double()
    theta = flatten(problem.theta) + 0.05 * away  # biases of 0 put what is blank on ReLU's kink
    objective = MetaObjective(problem.model, inner, [problem.support] * 2, problem.query, Threads(1))
    gradient = objective.linearize(unflatten(theta, problem.theta), fisher_share=0.0).gradient
    h = 1e-6

    def meta_loss(vector):
        params = unflatten(vector, problem.theta)
        return torch.stack([adapted_loss(problem, params, i, inner.step_sizes) for i in range(3)]).mean()

    losses = [meta_loss(theta + s * h * direction) for s in (1, -1)]
    assert gradient.dot(direction).item() == pytest.approx(((losses[0] - losses[1]) / (2 * h)).item(), rel=1e-5)


def test_first_order_is_the_query_s_gradient_at_the_adapted_parameters():
    problem = Problem()
    inner = InnerConfig(num_steps=2, step_size=0.3, first_order=True)
    objective = MetaObjective(problem.model, inner, [problem.support] * 2, problem.query, Threads(1))
    found = objective.linearize(problem.theta, fisher_share=0.0).gradient
    adapted = adapt(inner_gradient(problem.model), stack(problem.theta, 3), [problem.support] * 2, inner.step_sizes)
    slopes = [adapted_slope(problem, take_task(adapted, i), i) for i in range(3)]
    torch.testing.assert_close(found, torch.stack(slopes).mean(dim=0), rtol=1e-8, atol=1e-10)


def adapted_slope(problem, params, i):
    return flatten(torch.func.grad(lambda p: adapted_loss(problem, p, i, []))(params))


def make_maml(norm, inner, outer):
    return MAML(make_model(norm), make_collector(norm), Accuracy(), inner, outer.make(), Threads(1))


TRUST_REGION = TrustRegionOuter(trust_region=TrustRegionConfig(damping=1e-3))


@pytest.mark.parametrize("outer", [TRUST_REGION, GradientOuter(), ReptileOuter()], ids=lambda outer: outer.name)
def test_maml_runs_on_it_with_every_outer_step(outer):
    learner = make_maml("batch", InnerConfig(num_steps=2, step_size=0.1), outer)
    state = learner.init(Key(0, INITIALISATION, 0))
    tasks = make_stream().sample(3, np.random.default_rng(0))
    moved, report = learner.meta_step(state, tasks, KEY)
    assert {"accuracy_before", "accuracy_after"} <= report.metrics.keys()
    assert not torch.equal(flatten(moved.params), flatten(state.params))
    if outer is TRUST_REGION:
        assert report.metrics["accepted"] == 1.0 and 0.0 < report.metrics["kl"] <= 0.01
        assert report.metrics["surrogate_loss_after"] < report.metrics["surrogate_loss_before"]


def test_one_reptile_step_of_plain_gradient_descent_is_joint_training():
    # theta + eps mean_i(theta - a g_i - theta) = theta - eps a mean_i g_i: one step on the mean of the tasks' losses
    outer = ReptileOuter()
    learner = make_maml("none", InnerConfig(num_steps=1, step_size=0.3), outer)
    theta = learner.init(Key(0, INITIALISATION, 0)).params
    tasks = make_stream().sample(3, np.random.default_rng(0))
    moved, _ = learner.meta_step(learner.init(Key(0, INITIALISATION, 0)), tasks, KEY)
    support = make_collector().collect(tasks, None, KEY)

    def mean_loss(params):
        logits = learner.model.outputs(
            params, support._replace(images=support.images.flatten(0, 1), context=support.context[0])
        )
        return functional.cross_entropy(logits, support.labels.flatten())

    gradient = torch.func.grad(mean_loss)(theta)
    for name, value in moved.params.items():
        torch.testing.assert_close(value, theta[name] - outer.reptile.step_size * 0.3 * gradient[name])


def test_a_batch_of_fewer_classes_needs_the_head_s_first_outputs_alone():
    problem = Problem("none")
    fewer = problem.support._replace(labels=problem.support.labels.clamp(max=1))
    trimmed = problem.model.trim(problem.theta, fewer)
    assert {name for name in trimmed if trimmed[name].shape != problem.theta[name].shape} == {
        "head.weight",
        "head.bias",
    }
    data = take_task(problem.support, 0)
    torch.testing.assert_close(
        problem.model.outputs(trimmed, data), problem.model.outputs(problem.theta, data)[..., :2]
    )


def test_initial_parameters_fit_the_episodes():
    model = make_model(ways=4)
    params = model.init_params(Key(0, INITIALISATION, 0))
    assert params["head.weight"].shape == (4, 4) and params["conv0.weight"].shape == (4, 1, 3, 3)
    assert dataclasses.replace(model.network.config, norm="none").num_features(16) == 4
