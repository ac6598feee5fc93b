"""What holds for every learner of few-shot classification."""

import numpy as np
import pytest
import torch

from maml_rl.core.protocols import EVALUATION, Key
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.evaluation.few_shot import accuracy_curve

KEY = Key(0, EVALUATION, 0)
STEPS = {"pixels": 0, "prototypical": 20, "matching": 20, "full-context": 40, "reptile": 60, "joint": 30}


def disturbed(state, seed=0):
    """No number is left at 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.1 * torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in state.items()
    }


def test_it_learns_small_drawings_in_seconds(learner, make_problem):
    problem = make_problem(learner)
    state = problem.trained(STEPS.get(learner, 40))
    evaluation = EvaluationConfig(num_tasks=60, num_steps=0)
    curve = accuracy_curve(problem.learner, state, problem.test, problem.network, evaluation, torch.device("cpu"))
    assert curve.steps[-1] == problem.learner.recorded_steps[-1]
    assert curve.mean[-1] >= 0.8


def test_permuting_labels_permutes_outputs(learner, make_problem):
    problem = make_problem(learner, "support", shots=2)
    state = disturbed(problem.state)
    support, query = problem.episodes(3)
    order = torch.tensor([3, 0, 4, 1, 2])  # the class that was c is order[c] now
    moved = {**state}
    if learner in ("maml", "fomaml", "anil", "meta-sgd", "reptile"):  # their heads know the labels
        for name in state:
            if name.endswith(("head.weight", "head.bias")):
                moved[name] = torch.empty_like(state[name]).index_copy(-1, order, state[name])
    found = problem.learner.predict(moved, support._replace(labels=order[support.labels]), query, KEY)
    expected = problem.learner.predict(state, support, query, KEY)
    torch.testing.assert_close(found[..., order], expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, expected, rtol=1e-2, atol=1e-2)


def test_the_order_of_the_support_changes_nothing_but_in_full_context(learner, make_problem):
    shots = 1 if learner == "reptile" else 2  # its mini-batches go by places; one of all is the same in any order
    problem = make_problem(learner, "support", shots=shots)
    state = disturbed(problem.state)
    support, query = problem.episodes(3)
    order = torch.from_numpy(np.random.default_rng(0).permutation(support.labels.shape[1]))
    shuffled = support._replace(images=support.images[:, order], labels=support.labels[:, order])
    found = problem.learner.predict(state, shuffled, query, KEY)
    expected = problem.learner.predict(state, support, query, KEY)
    same = torch.allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert same == (learner != "full-context")


@pytest.mark.parametrize("norm", ["batch", "support", "running", "none"])
def test_without_batch_normalisation_no_prediction_depends_on_other_queries(learner, norm, make_problem):
    if norm == "running" and learner not in ("prototypical", "matching", "full-context"):
        pytest.skip("running averages do not fit adapted weights: the command refuses this")
    problem = make_problem(learner, norm)
    state = disturbed(problem.state)
    support, query = problem.episodes(3)
    other = query._replace(images=torch.cat([query.images[:, :1], 1.0 - query.images[:, 1:].flip(1)], dim=1))
    found, changed = (problem.learner.predict(state, support, q, KEY)[..., 0, :] for q in (query, other))
    same = torch.allclose(found, changed, rtol=1e-4, atol=1e-4)
    assert same == (norm != "batch" or learner == "pixels")


def test_episodes_are_predicted_each_by_itself(learner, make_problem):
    problem = make_problem(learner, "support")
    state = disturbed(problem.state)
    support, query = problem.episodes(4)
    together = problem.learner.predict(state, support, query, KEY)
    assert together.shape == (len(problem.learner.recorded_steps), 4, 15, 5)
    for i in range(4):
        one = [type(part)(*(leaf[i : i + 1] for leaf in part)) for part in (support, query)]
        torch.testing.assert_close(
            problem.learner.predict(state, *one, KEY)[:, 0], together[:, i], rtol=1e-3, atol=1e-3
        )


def test_the_predictor_takes_one_picture_and_is_right_about_its_support(learner, make_problem):
    problem = make_problem(learner, "batch")
    state = problem.trained(0 if learner == "pixels" else 30)
    support, query = problem.episodes(1)
    predict = problem.learner.adapt(state, [support])
    one = predict(query.images[0, 3])
    assert one.shape == (5,) and not one.requires_grad
    torch.testing.assert_close(predict(query.images[0])[3], one, rtol=1e-3, atol=1e-3)
    assert predict(query.images[0].view(3, 5, 16, 16, 1)).shape == (3, 5, 5)
    assert (predict(support.images[0]).argmax(dim=-1) == support.labels[0]).float().mean() >= 0.8


def test_a_meta_step_changes_no_argument_and_is_a_function_of_its_key(learner, make_problem):
    problem = make_problem(learner)
    state = problem.state
    before = {name: value.clone() for name, value in state.items()}
    tasks = problem.training.sample(2, np.random.default_rng(0))
    runs = [problem.learner.meta_step(state, tasks, Key(1, 0, 5)) for _ in range(2)]
    assert all(torch.equal(before[name], state[name]) for name in before)
    assert runs[0][1].metrics == runs[1][1].metrics
    assert runs[0][0].keys() == state.keys()
    assert all(torch.equal(runs[0][0][name], runs[1][0][name]) for name in state)
    assert 0.0 <= runs[0][1].metrics["accuracy_after"] <= 1.0


def test_no_bit_depends_on_the_number_of_threads(learner, make_problem):
    found = []
    for num_threads in (1, 2, 3):
        problem = make_problem(learner, num_threads=num_threads, size=28)
        state = problem.trained(3)
        found.append({**state, "predictions": problem.learner.predict(state, *problem.episodes(6), KEY)})
    assert all(torch.equal(found[0][name], other[name]) for other in found[1:] for name in found[0])
