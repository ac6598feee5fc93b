import dataclasses

import numpy as np
import pytest
import torch
from pictures import drawings
from torch.nn import functional

from maml_rl.convnet import ConvConfig
from maml_rl.core.inner import InnerConfig, adapt, inner_gradient
from maml_rl.core.lift import Threads
from maml_rl.core.maml import MAML, OuterConfig, params_of
from maml_rl.core.objective import MetaObjective
from maml_rl.core.outer.trust_region import TrustRegionConfig
from maml_rl.core.params import flatten, stack, take_task, unflatten
from maml_rl.core.protocols import INITIALISATION, TRAINING, Key
from maml_rl.supervised.classification import ClassificationFamily
from maml_rl.supervised.episodes import EpisodeSize, EpisodeStream
from maml_rl.supervised.images import ImageSet

KEY = Key(3, TRAINING, 1)


def make_family(norm="batch", architecture="strided", ways=3, shots=2, queries=2):
    pictures = drawings(8, 5, 16, np.random.default_rng(0), noise=0.1)
    data = ImageSet(pictures.reshape(-1, 16, 16, 1), np.arange(0, 41, 5), tuple(f"c{i}" for i in range(8)))
    stream = EpisodeStream(data, np.arange(8), "classes", EpisodeSize(ways, shots, queries))
    network = ConvConfig(architecture, 4, norm=norm, head_std=0.5)
    return ClassificationFamily(stream, network, torch.device("cpu"))


def double(tree):
    return torch.utils._pytree.tree_map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, tree)


class Problem:
    """One iteration of three tasks in double precision."""

    def __init__(self, norm="batch", architecture="strided"):
        self.family = make_family(norm, architecture)
        self.tasks = self.family.sample_tasks(3, np.random.default_rng(0))
        self.theta = double(self.family.init_params(Key(0, INITIALISATION, 0)))
        self.support = double(self.family.collect(self.tasks, {}, KEY))
        self.query = double(self.family.collect(self.tasks, {}, KEY.at_phase(1)))


def test_tasks_of_the_test_are_of_classes_that_training_never_draws():
    every = make_family().stream
    training, held_out = (EpisodeStream(every.data, part, "classes", every.size) for part in np.split(np.arange(8), 2))
    family = ClassificationFamily(training, ConvConfig("strided", 4), torch.device("cpu"), held_out)
    seen = {c for task in family.sample_tasks(20, np.random.default_rng(0)) for c in task.classes}
    asked = {
        c for task in family.with_norm("support").sample_test_tasks(20, np.random.default_rng(0)) for c in task.classes
    }
    assert seen == set(range(4)) and asked == set(range(4, 8))


def test_support_and_query_are_those_of_the_episodes():
    problem = Problem("support")
    assert problem.support.images.shape == problem.query.images.shape == (3, 6, 16, 16, 1)
    assert problem.support.context.shape[1] == 0
    assert torch.equal(problem.query.context, problem.support.images)
    again = problem.family.collect(problem.tasks, {"any": torch.ones(2)}, KEY._replace(iteration=7, phase=5))
    assert torch.equal(again.images.double(), problem.query.images)  # which pictures is a matter of the task alone
    part = problem.family.part(problem.query, 0.5)
    assert part.labels.shape == (3, 3) and torch.equal(part.images, problem.query.images[:, :3])


def test_losses_divergence_and_score_are_those_of_torch():
    problem = Problem()
    data = take_task(problem.query, 0)
    outputs = problem.family.outputs(problem.theta, data)
    assert outputs.shape == (6, 3)
    torch.testing.assert_close(
        problem.family.inner_loss_at(outputs, data), functional.cross_entropy(outputs, data.labels)
    )
    other = outputs + torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    categorical = torch.distributions.Categorical
    expected = torch.distributions.kl_divergence(categorical(logits=outputs), categorical(logits=other)).mean()
    torch.testing.assert_close(problem.family.divergence(outputs, other, data), expected)
    assert problem.family.divergence(outputs, outputs, data).item() == 0.0
    right = [float(row.argmax() == label) for row, label in zip(outputs, data.labels, strict=True)]
    assert problem.family.score(problem.theta, data).tolist() == right


@pytest.mark.parametrize("norm", ["batch", "support", "none"])
def test_stacked_tasks_give_what_each_gives_alone(norm):
    problem = Problem(norm)
    for data in (problem.support, problem.query):
        found = problem.family.outputs(stack(problem.theta, 3), data)
        alone = [problem.family.outputs(problem.theta, take_task(data, i)) for i in range(3)]
        torch.testing.assert_close(found, torch.stack(alone))
        torch.testing.assert_close(problem.family.linearize(stack(problem.theta, 3), data).outputs, found)


def test_support_normalisation_puts_one_query_beside_the_whole_support():
    problem = Problem("support")
    data = take_task(problem.query, 0)
    found = problem.family.outputs(problem.theta, data)
    batch = problem.family.with_norm("batch")
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
    found = [
        problem.family.outputs(problem.theta, data._replace(images=images))[0] for images in (data.images, changed)
    ]
    assert torch.allclose(*found, rtol=1e-9, atol=1e-12) != depends


def adapted_loss(problem, theta, i, step_sizes, first_order=False):
    """The query loss of task i after gradient steps, written down anew."""
    support, query = take_task(problem.support, i), take_task(problem.query, i)

    def loss(params, data):
        return functional.cross_entropy(problem.family.outputs(params, data), data.labels)

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
    objective = MetaObjective(problem.family, inner, [problem.support] * num_steps, problem.query, Threads(1))
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
    objective = MetaObjective(problem.family, inner, [problem.support] * 2, problem.query, Threads(1))
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
    objective = MetaObjective(problem.family, inner, [problem.support] * 2, problem.query, Threads(1))
    found = objective.linearize(problem.theta, fisher_share=0.0).gradient
    adapted = adapt(inner_gradient(problem.family), stack(problem.theta, 3), [problem.support] * 2, inner.step_sizes)
    slopes = [adapted_slope(problem, take_task(adapted, i), i) for i in range(3)]
    torch.testing.assert_close(found, torch.stack(slopes).mean(dim=0), rtol=1e-8, atol=1e-10)


def adapted_slope(problem, params, i):
    return flatten(torch.func.grad(lambda p: adapted_loss(problem, p, i, []))(params))


@pytest.mark.parametrize("step", ["trust_region", "gradient", "reptile"])
def test_the_core_s_learner_runs_on_it_as_it_stands(step):
    family = make_family()
    outer = OuterConfig(step=step, trust_region=TrustRegionConfig(damping=1e-3))
    learner = MAML(family, InnerConfig(num_steps=2, step_size=0.1), outer, Threads(1))
    state = learner.init(Key(0, INITIALISATION, 0))
    tasks = family.sample_tasks(3, np.random.default_rng(0))
    moved, report = learner.meta_step(state, tasks, KEY)
    assert {"accuracy_before", "accuracy_after"} <= report.metrics.keys()
    assert not torch.equal(flatten(params_of(moved)), flatten(params_of(state)))
    if step == "trust_region":
        assert report.metrics["accepted"] == 1.0 and 0.0 < report.metrics["kl"] <= 0.01
        assert report.metrics["surrogate_loss_after"] < report.metrics["surrogate_loss_before"]


def test_one_reptile_step_of_plain_gradient_descent_is_joint_training():
    # theta + eps mean_i(theta - a g_i - theta) = theta - eps a mean_i g_i: one step on the mean of the tasks' losses
    family = make_family("none")
    outer = OuterConfig(step="reptile")
    learner = MAML(family, InnerConfig(num_steps=1, step_size=0.3), outer, Threads(1))
    state = learner.init(Key(0, INITIALISATION, 0))
    tasks = family.sample_tasks(3, np.random.default_rng(0))
    moved, _ = learner.meta_step(state, tasks, KEY)
    support = family.collect(tasks, {}, KEY)
    theta = params_of(state)

    def mean_loss(params):
        logits = family.outputs(
            params, support._replace(images=support.images.flatten(0, 1), context=support.context[0])
        )
        return functional.cross_entropy(logits, support.labels.flatten())

    gradient = torch.func.grad(mean_loss)(theta)
    for name, value in params_of(moved).items():
        torch.testing.assert_close(value, theta[name] - outer.reptile.step_size * 0.3 * gradient[name])


def test_a_predictor_takes_pictures_of_any_number_of_axes():
    family = make_family("none")
    params = family.init_params(Key(0, INITIALISATION, 0))
    images = torch.rand(2, 3, 16, 16, 1, generator=torch.Generator().manual_seed(0))
    found = family.predictor(params)(images)
    assert found.shape == (2, 3, 3) and not found.requires_grad
    torch.testing.assert_close(family.predictor(params)(images[1, 2]), found[1, 2])


def test_initial_parameters_fit_the_episodes():
    family = make_family(ways=4)
    params = family.init_params(Key(0, INITIALISATION, 0))
    assert params["head.weight"].shape == (4, 4) and params["conv0.weight"].shape == (4, 1, 3, 3)
    assert dataclasses.replace(family.network, norm="none").num_features(16) == 4
