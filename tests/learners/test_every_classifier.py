"""What holds for every learner of few-shot classification."""

import numpy as np
import pytest
import torch

from maml_rl.core.keys import EVALUATION, Key
from maml_rl.core.trees import from_names, named, take_tasks
from maml_rl.evaluation.adaptation_curve import EvaluationConfig, evaluation_tasks
from maml_rl.evaluation.evaluator import Evaluation

KEY = Key(0, EVALUATION, 0)
STEPS = {
    "neural-statistician": 100,
    "pixels": 0,
    "prototypical": 20,
    "matching": 20,
    "memory": 30,
    "full-context": 40,
    "reptile": 60,
    "joint": 30,
}
TAKES_STEPS = ("maml", "fomaml", "anil", "meta-sgd", "reptile", "joint", "platipus")


def disturbed(state, seed=0):
    """No number is left at 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    values = {
        name: value + 0.1 * torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in named(state).items()
    }
    return from_names(state, values)


def sure(state):
    """The same without a distribution: a learner that draws has noise for each episode and each output."""
    values = named(state)
    certain = {k: torch.full_like(v, -torch.inf) for k, v in values.items() if k.startswith("prior_log_variance")}
    return from_names(state, values | certain)


def test_it_learns_small_drawings_in_seconds(picture_learner, make_problem):
    problem = make_problem(picture_learner)
    state = problem.trained(STEPS.get(picture_learner, 40))
    tasks = evaluation_tasks(problem.family.source, EvaluationConfig(num_tasks=60))
    curve = Evaluation(problem.family, problem.scored_after).curve(problem.learner, state, tasks, KEY)
    takes_steps = picture_learner in TAKES_STEPS
    assert list(curve.labels) == (list(problem.scored_after) if takes_steps else [0])
    assert list(curve.used) == ([0, *[5] * problem.scored_after[-1]] if takes_steps else [5])
    assert curve.mean[-1] >= 0.8


def test_permuting_labels_permutes_outputs(picture_learner, make_problem):
    problem = make_problem(picture_learner, "support", shots=2)
    # positive disturbances turn all keys of a memory into nearly the same one
    state = problem.trained(3) if picture_learner == "memory" else sure(disturbed(problem.state))
    support, query = problem.episodes(3)
    order = torch.tensor([3, 0, 4, 1, 2])  # the class that was c is order[c] now
    moved = named(state)
    if picture_learner in TAKES_STEPS and picture_learner != "joint":  # their heads know the labels
        for name, value in moved.items():
            if name.endswith(("head.weight", "head.bias")) and value.shape[-1] == len(order):
                moved[name] = torch.empty_like(value).index_copy(-1, order, value)
    found = problem.predict(from_names(state, moved), support._replace(labels=order[support.labels]), query)
    expected = problem.predict(state, support, query)
    torch.testing.assert_close(found[..., order], expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, expected, rtol=1e-2, atol=1e-2)


def test_the_order_of_the_support_changes_nothing_but_in_full_context(picture_learner, make_problem):
    shots = 1 if picture_learner == "reptile" else 2  # its mini-batches go by places; one of all is the same anyway
    problem = make_problem(picture_learner, "support", shots=shots)
    state = disturbed(problem.state)
    support, query = problem.episodes(3)
    order = torch.from_numpy(np.random.default_rng(0).permutation(support.labels.shape[1]))
    shuffled = support._replace(images=support.images[:, order], labels=support.labels[:, order])
    found = problem.predict(state, shuffled, query)
    expected = problem.predict(state, support, query)
    same = torch.allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert same == (picture_learner != "full-context")


@pytest.mark.parametrize("norm", ["batch", "support", "running", "none"])
def test_without_batch_normalisation_no_prediction_depends_on_other_queries(picture_learner, norm, make_problem):
    if norm == "running" and picture_learner in (*TAKES_STEPS, "pixels"):
        pytest.skip("running averages do not fit adapted weights: the command refuses this")
    if norm != "running" and picture_learner == "neural-statistician":
        pytest.skip("it has no other normalisation")
    problem = make_problem(picture_learner, norm)
    state = disturbed(problem.state)
    support, query = problem.episodes(3)
    other = query._replace(images=torch.cat([query.images[:, :1], 1.0 - query.images[:, 1:].flip(1)], dim=1))
    found, changed = (problem.predict(state, support, q)[..., 0, :] for q in (query, other))
    same = torch.allclose(found, changed, rtol=1e-4, atol=1e-4)
    assert same == (norm != "batch" or picture_learner in ("memory", "pixels"))  # which see each picture by itself


def test_episodes_are_predicted_each_by_itself(picture_learner, make_problem):
    problem = make_problem(picture_learner, "support")
    state = sure(disturbed(problem.state))
    support, query = problem.episodes(4)
    together = problem.predict(state, support, query)
    assert together.shape == (len(problem.scored_after), 4, 15, 5)
    for i in range(4):
        one = (take_tasks(part, i, i + 1) for part in (support, query))
        torch.testing.assert_close(problem.predict(state, *one)[:, 0], together[:, i], rtol=1e-3, atol=1e-3)


def test_one_picture_can_be_asked_about_and_those_of_the_support_are_known(picture_learner, make_problem):
    state = make_problem(picture_learner, "batch").trained(0 if picture_learner == "pixels" else 30)
    # a gradient learner that was trained with norm batch is asked with norm support: one picture beside the support
    problem = make_problem(picture_learner, "support" if picture_learner in TAKES_STEPS else "batch")
    support, query = problem.episodes(1)

    def alone(images, i):
        one = query._replace(images=images[:, i : i + 1], labels=support.labels[:, :1], context=support.images)
        return problem.predict(state, support, one)[-1, 0, 0]

    assert alone(query.images, 3).shape == (5,)
    if picture_learner in TAKES_STEPS:
        together = problem.predict(state, support, query)[-1, 0, 3]
        torch.testing.assert_close(together, alone(query.images, 3), rtol=1e-3, atol=1e-3)
    answers = torch.stack([alone(support.images, i) for i in range(5)]).argmax(dim=-1)
    assert (answers == support.labels[0]).float().mean() >= 0.8


def test_a_meta_step_changes_no_argument_and_is_a_function_of_its_key(picture_learner, make_problem):
    problem = make_problem(picture_learner)
    state = problem.state
    before = {name: value.clone() for name, value in named(state).items()}
    tasks = problem.training.sample(2, np.random.default_rng(0))
    runs = [problem.learner.meta_step(state, tasks, Key(1, 0, 5)) for _ in range(2)]
    one, other = (named(moved) for moved, _ in runs)
    assert all(torch.equal(before[name], value) for name, value in named(state).items())
    assert runs[0][1].metrics == runs[1][1].metrics
    assert one.keys() == before.keys()
    assert all(torch.equal(one[name], other[name]) for name in before)
    assert 0.0 <= runs[0][1].metrics["accuracy_after"] <= 1.0


def test_adapting_changes_no_argument(picture_learner, make_problem):
    problem = make_problem(picture_learner)
    support, _ = problem.episodes(2)
    state = problem.state
    adapted = problem.learner.begin(state, 2, KEY)
    kept = [{name: value.clone() for name, value in named(tree).items()} for tree in (state, adapted, support)]
    problem.learner.adapt(state, adapted, support, KEY)
    for before, tree in zip(kept, (state, adapted, support), strict=True):
        assert all(torch.equal(before[name], value) for name, value in named(tree).items())


def test_no_bit_depends_on_the_number_of_threads(picture_learner, make_problem):
    found = []
    for num_threads in (1, 2, 3):
        problem = make_problem(picture_learner, num_threads=num_threads, size=28)
        state = problem.trained(3)
        found.append({**named(state), "predictions": problem.predict(state, *problem.episodes(6))})
    assert all(torch.equal(found[0][name], other[name]) for other in found[1:] for name in found[0])
