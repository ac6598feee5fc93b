"""Learners that take gradient steps on a task's pictures."""

import numpy as np
import pytest
import torch

from maml_rl.core.keys import EVALUATION, TRAINING, Key
from maml_rl.core.trees import from_names, named, stack, take_task
from maml_rl.evaluation.evaluator import Evaluation
from maml_rl.supervised.classification import query_of, support_of
from maml_rl.supervised.episodes import NUM_ROTATIONS, EpisodeSize, EpisodeStream

KEY = Key(0, EVALUATION, 0)


def test_anil_s_body_does_not_adapt_but_learns(make_problem):
    problem = make_problem("anil")
    learner, state = problem.learner, problem.state
    tasks = problem.training.sample(3, np.random.default_rng(0))
    theta, support = state.params, support_of(problem.training.data, tasks)
    adapted = learner.adapt(state, learner.begin(state, 3, KEY), support, KEY).params
    for name, value in adapted.items():
        assert torch.equal(value, theta[name].expand_as(value)) == (not name.startswith("head"))
    moved = learner.meta_step(state, tasks, Key(0, TRAINING, 0))[0].params
    assert all(not torch.equal(moved[name], theta[name]) for name in theta if "weight" in name)


def test_meta_sgd_with_equal_step_sizes_is_maml_and_learns_them(make_problem):
    maml, learned = make_problem("maml"), make_problem("meta-sgd")
    support, query = maml.episodes(3)
    state = learned.state
    torch.testing.assert_close(learned.predict(state, support, query), maml.predict(maml.state, support, query))
    tasks = learned.training.sample(3, np.random.default_rng(0))
    moved, _ = learned.learner.meta_step(state, tasks, Key(0, TRAINING, 0))
    assert state.step_sizes.keys() == state.params.keys() == moved.step_sizes.keys()
    assert any(not torch.equal(moved.step_sizes[name], state.step_sizes[name]) for name in state.params)
    plain, _ = maml.learner.meta_step(maml.state, tasks, Key(0, TRAINING, 0))
    assert not plain.step_sizes
    for name, value in plain.params.items():  # the parameters' own gradient is MAML's
        torch.testing.assert_close(moved.params[name], value)


def test_outputs_are_those_of_gradient_steps_written_down_anew(make_problem):
    problem = make_problem("maml")
    support, query = problem.episodes(2)
    state, model = problem.state, problem.learner.model
    found = problem.predict(state, support, query)
    assert len(found) == 4
    for i in range(2):
        examples, asked = take_task(support, i), take_task(query, i)
        params = state.params
        for step in range(4):
            torch.testing.assert_close(found[step, i], model.outputs(params, asked), rtol=1e-4, atol=1e-4)
            gradient = torch.func.grad(lambda p, d: model.inner_loss_at(model.outputs(p, d), d))(params, examples)
            params = {name: p - 0.5 * gradient[name] for name, p in params.items()}


def test_scores_after_some_steps_are_those_among_all(make_problem):
    problem = make_problem("maml")
    tasks, state = problem.test.sample(4, np.random.default_rng(0)), problem.trained(3)
    every, some = (Evaluation(problem.family, after).curve(problem.learner, state, tasks, KEY)
                   for after in ((0, 1, 2, 3), (2, 3)))  # fmt: skip
    assert list(some.steps) == [2, 3] and torch.equal(some.per_task, every.per_task[2:])


def test_joint_training_knows_every_training_class_by_its_true_label(make_problem):
    problem = make_problem("joint")
    tasks = problem.training.sample(4, np.random.default_rng(0))
    examples = problem.learner._labelled(tasks)
    places = {}
    for n, task in enumerate(tasks):
        for way, (c, r) in enumerate(zip(task.classes, task.rotations, strict=True)):
            row = NUM_ROTATIONS * list(problem.training.classes).index(c) + r
            places[n, way] = row
    support = [places[n, way] for n in range(4) for way in range(5)]
    query = [places[n, way] for n in range(4) for way in range(5) for _ in range(2)]
    assert examples.labels.tolist() == support + query
    assert problem.state.params["head.weight"].shape == (16, NUM_ROTATIONS * 30)


@pytest.mark.parametrize("ways", [3, 5, NUM_ROTATIONS * 30 + 5])
def test_joint_training_s_new_layer_fits_any_number_of_classes(ways, make_problem):
    problem = make_problem("joint")._replace(scored_after=(1, 2, 3))  # before them the classes are not known
    support, query = problem.episodes(1)
    images = support.images[:, torch.arange(ways) % 5]
    support = support._replace(images=images, labels=torch.arange(ways).unsqueeze(0))
    found = problem.predict(problem.state, support, query)
    assert found.shape == (3, 1, 15, ways)
    assert found[-1].amax(dim=-1).ne(found[-1].amin(dim=-1)).all()


def test_an_episode_of_fewer_classes_than_in_training_has_the_first_outputs(make_problem, gradient_learner):
    if gradient_learner == "platipus":
        pytest.skip("a draw from its posterior depends on the number of parameters")
    problem = make_problem(gradient_learner, norm="none")
    fewer = EpisodeStream(problem.test.data, problem.test.classes, "classes", EpisodeSize(3, 1, 4))
    episodes = fewer.sample(2, np.random.default_rng(0))
    support, query = support_of(fewer.data, episodes), query_of(fewer.data, episodes, problem.norm)
    state = problem.state
    found = problem.predict(state, support, query)
    assert found.shape[1:] == (2, 12, 3)
    first = {
        name: value[..., :3] if name.endswith(("head.weight", "head.bias")) else value
        for name, value in named(state).items()
    }
    torch.testing.assert_close(found, problem.predict(from_names(state, first), support, query))
    if gradient_learner != "joint":  # whose last layer at test is a new one
        before = problem.learner.model.outputs(stack(state.params, 2), query)
        torch.testing.assert_close(found[0], before[..., :3])
