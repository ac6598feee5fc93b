import numpy as np
import pytest
import torch

from maml_rl.core.inner import adapt_tasks
from maml_rl.core.maml import params_of
from maml_rl.core.params import stack
from maml_rl.core.protocols import EVALUATION, TRAINING, Key
from maml_rl.supervised.classification import query_of, support_of
from maml_rl.supervised.episodes import NUM_ROTATIONS, EpisodeSize, EpisodeStream

KEY = Key(0, EVALUATION, 0)


def test_anil_s_body_does_not_adapt_but_learns(make_problem):
    problem = make_problem("anil")
    learner, state = problem.learner, problem.state
    tasks = problem.training.sample(3, np.random.default_rng(0))
    theta = params_of(state)
    support = support_of(problem.training, tasks)
    sizes = learner.step_sizes(state, [0.5])
    adapted = adapt_tasks(learner.family, stack(theta, 3), [support], sizes, learner.threads)
    for name, value in adapted.items():
        assert torch.equal(value, theta[name].expand_as(value)) == (not name.startswith("head"))
    moved = params_of(learner.meta_step(state, tasks, Key(0, TRAINING, 0))[0])
    assert all(not torch.equal(moved[name], theta[name]) for name in theta if "weight" in name)


def test_meta_sgd_with_equal_step_sizes_is_maml_and_learns_them(make_problem):
    maml, learned = make_problem("maml"), make_problem("meta-sgd")
    support, query = maml.episodes(3)
    state = learned.state
    torch.testing.assert_close(
        learned.learner.predict(state, support, query, KEY), maml.learner.predict(maml.state, support, query, KEY)
    )
    tasks = learned.training.sample(3, np.random.default_rng(0))
    moved, _ = learned.learner.meta_step(state, tasks, Key(0, TRAINING, 0))
    sizes = [name for name in state if name.startswith("step_sizes/")]
    assert {name.removeprefix("step_sizes/") for name in sizes} == params_of(state).keys()
    assert any(not torch.equal(moved[name], state[name]) for name in sizes)
    plain, _ = maml.learner.meta_step(maml.state, tasks, Key(0, TRAINING, 0))
    for name, value in params_of(plain).items():  # the parameters' own gradient is MAML's
        torch.testing.assert_close(params_of(moved)[name], value)


def test_predictions_are_recorded_after_every_step_and_begin_with_none(make_problem):
    problem = make_problem("maml")
    support, query = problem.episodes(2)
    state = problem.state
    found = problem.learner.predict(state, support, query, KEY)
    assert problem.learner.recorded_steps == (0, 1, 2, 3) and len(found) == 4
    family, theta = problem.learner.family, params_of(state)
    for i in range(2):
        data = [type(part)(*(leaf[i] for leaf in part)) for part in (support, query)]
        params = theta
        for step in range(4):
            torch.testing.assert_close(found[step, i], family.outputs(params, data[1]), rtol=1e-4, atol=1e-4)
            gradient = torch.func.grad(lambda p, d: family.inner_loss_at(family.outputs(p, d), d))(params, data[0])
            params = {name: p - 0.5 * gradient[name] for name, p in params.items()}
    problem.learner.recorded_steps = (2, 3)
    assert torch.equal(problem.learner.predict(state, support, query, KEY), found[2:])


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
    assert params_of(problem.state)["head.weight"].shape == (16, NUM_ROTATIONS * 30)


@pytest.mark.parametrize("ways", [3, 5])
def test_joint_training_s_new_layer_fits_any_number_of_classes(ways, make_problem):
    problem = make_problem("joint")
    support, query = problem.episodes(2)
    keep = [part._replace(images=part.images[:, rows], labels=part.labels[:, rows])
            for part in (support, query) for rows in [part.labels[0] < ways]]  # fmt: skip
    assert problem.learner.predict(problem.state, *keep, KEY).shape[-1] == ways


def test_an_episode_of_fewer_classes_than_in_training_has_the_first_outputs(make_problem, gradient_learner):
    problem = make_problem(gradient_learner, norm="none")
    fewer = EpisodeStream(problem.test.data, problem.test.classes, "classes", EpisodeSize(3, 1, 4))
    episodes = fewer.sample(2, np.random.default_rng(0))
    support, query = support_of(fewer, episodes), query_of(fewer, episodes, problem.network)
    found = problem.learner.predict(problem.state, support, query, KEY)
    assert found.shape[1:] == (2, 12, 3)
    first = {
        name: value[..., :3] if name.endswith(("head.weight", "head.bias")) else value
        for name, value in problem.state.items()
    }
    torch.testing.assert_close(found, problem.learner.predict(first, support, query, KEY))
    if gradient_learner != "joint":  # whose last layer at test is a new one
        before = problem.learner.family.outputs(stack(params_of(problem.state), 2), query)
        torch.testing.assert_close(found[0], before[..., :3])
