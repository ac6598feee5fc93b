import pytest
import torch

from maml_rl.core.inner import (
    InnerConfig,
    InnerStep,
    adapt,
    adapt_tasks,
    inner_gradient,
    join_step_sizes,
    split_step_sizes,
)
from maml_rl.core.lift import Threads
from maml_rl.core.trees import flatten, stack, take_task, take_tasks, unflatten


def quadratic_gradient(params, centre):
    return {"p": params["p"] - centre}


def test_adapting_to_a_quadratic():
    # f(p) = (p - c)^2 / 2: a step of size a gives p' - c = (1 - a)(p - c). With c = 1, p = 3 and a = 0.5,
    # then 0.25: p' = 2, p'' = 1 + 0.75 * 1 = 1.75.
    adapted = adapt(quadratic_gradient, {"p": torch.tensor(3.0)}, [1.0, 1.0], [0.5, 0.25])
    assert adapted["p"].item() == 1.75


def test_each_step_uses_its_own_support():
    # Steps of size 1 land on the centre of the last support.
    adapted = adapt(quadratic_gradient, {"p": torch.tensor(3.0)}, [1.0, -4.0], [1.0, 1.0])
    assert adapted["p"].item() == -4.0


def test_a_tree_of_step_sizes_scales_every_parameter_by_its_own():
    params = {"p": torch.tensor([3.0, 3.0]), "q": torch.tensor(3.0)}
    sizes = {"p": torch.tensor([0.0, 1.0]), "q": torch.tensor(0.5)}
    adapted = adapt(lambda p, c: {name: value - c for name, value in p.items()}, params, [1.0], [sizes])
    assert adapted["p"].tolist() == [3.0, 1.0]
    assert adapted["q"].item() == 2.0


@pytest.mark.parametrize("make", ["sinusoid", "navigation"])
def test_a_step_of_size_zero_or_no_step_changes_nothing(make, request):
    problem = request.getfixturevalue(make)(3, 1)
    params = stack(problem.theta, 3)
    for supports, sizes in (problem.supports, [0.0]), ([], []):
        adapted = adapt_tasks(problem.model, params, supports, sizes, problem.threads)
        assert all(torch.equal(adapted[name], params[name]) for name in params)


def test_supports_and_step_sizes_must_be_as_many(sinusoid):
    problem = sinusoid(2, 2)
    with pytest.raises(ValueError, match="shorter"):
        adapt(quadratic_gradient, {"p": torch.tensor(3.0)}, [1.0, 1.0], [0.5])
    with pytest.raises(ValueError, match="shorter"):
        adapt_tasks(problem.model, stack(problem.theta, 2), problem.supports, [0.5], problem.threads)


@pytest.mark.parametrize("estimator", ["ratio", "log_prob", "dice"])
def test_the_inner_step_of_rl_against_automatic_differentiation(navigation, estimator):
    check_inner_step(navigation(2, 1, estimator))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_inner_step_for_both_activations(navigation, activation):
    check_inner_step(navigation(2, 1, "dice", activation))


def test_the_inner_step_of_regression_against_automatic_differentiation(sinusoid):
    check_inner_step(sinusoid(3, 1))


def check_inner_step(problem):
    """Gradient and Hessian products of every task against the dense ones of the loss as one function."""
    support = problem.supports[0]
    count = len(support[0])
    step = InnerStep(problem.model, stack(problem.theta, count), support, with_hessian=True)
    vector = flatten(problem.theta)
    direction = torch.randn(len(vector), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    product = step.hessian_product(stack(unflatten(direction, problem.theta), count))
    for i in range(count):
        own = take_task(support, i)

        def loss(v, own=own):
            return problem.model.inner_loss_at(problem.model.outputs(unflatten(v, problem.theta), own), own)

        gradient = torch.autograd.functional.jacobian(loss, vector)
        hessian = torch.autograd.functional.hessian(loss, vector)
        torch.testing.assert_close(flatten(take_task(step.gradient, i)), gradient, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(flatten(take_task(product, i)), hessian @ direction, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("make", ["sinusoid", "navigation"])
@pytest.mark.parametrize("tasks_per_chunk", [1, 2, 3, 5])
def test_tasks_together_equal_tasks_one_by_one(make, tasks_per_chunk, request):
    problem = request.getfixturevalue(make)(5, 2)
    elements = sum(leaf[0].numel() for leaf in problem.supports[0])
    threads = Threads(1, chunk_elements=tasks_per_chunk * elements)
    assert max(stop - start for start, stop in threads.chunks(problem.supports[0])) == tasks_per_chunk
    model, sizes, params = problem.model, problem.inner.step_sizes, stack(problem.theta, 5)
    together = adapt_tasks(model, params, problem.supports, sizes, threads)
    for i in range(5):
        own = [take_tasks(support, i, i + 1) for support in problem.supports]
        alone = adapt(inner_gradient(model), take_tasks(params, i, i + 1), own, sizes)
        for name in params:
            torch.testing.assert_close(together[name][i : i + 1], alone[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", ["sinusoid", "navigation"])
def test_adapting_is_bit_equal_for_any_number_of_threads(make, request):
    problem = request.getfixturevalue(make)(5, 2)
    results = []
    for num_threads in (1, 2, 3):
        threads = Threads(num_threads, chunk_elements=1)  # a chunk for each task
        params = stack(problem.theta, 5)
        results.append(adapt_tasks(problem.model, params, problem.supports, problem.inner.step_sizes, threads))
        threads.close()
    assert all(torch.equal(results[0][name], each[name]) for each in results[1:] for name in each)


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"inner\.num_steps must be at least 0, got -1"):
        InnerConfig(num_steps=-1)
    for size in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"inner\.step_size must be positive and finite"):
            InnerConfig(step_size=size)
    assert InnerConfig(num_steps=3, step_size=0.2).step_sizes == (0.2, 0.2, 0.2)


def test_only_the_parameters_named_adapt(sinusoid):
    problem = sinusoid(2, 1)
    config = InnerConfig(step_size=0.05, only=("1.", "2.bias"))
    sizes = config.sizes_for(problem.theta, config.step_sizes, head=("2.",))
    start = stack(problem.theta, 2)
    found = adapt_tasks(problem.model, start, problem.supports, sizes, problem.threads)
    every = adapt_tasks(problem.model, start, problem.supports, config.step_sizes, problem.threads)
    for name, value in found.items():
        expected = every if name.startswith(("1.", "2.bias")) else start
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"inner\.only must name some of the parameters .*, got \['tail'\]"):
        InnerConfig(only=("tail",)).sizes_for(problem.theta, (0.1,), head=("2.",))


def test_head_stands_for_the_last_layer_whatever_its_name(sinusoid):
    theta = sinusoid(2, 1).theta
    by_name, by_place = (InnerConfig(only=(only,)).sizes_for(theta, (0.5,), ("2.",)) for only in ("2.", "head"))
    assert by_name == by_place
    assert {name: size.item() for name, size in by_place[0].items()} == {
        name: 0.5 * name.startswith("2.") for name in theta
    }


def test_sizes_at_test_are_those_of_training_unless_others_are_given():
    assert InnerConfig(step_size=0.2).test_step_sizes(3) == (0.2, 0.2, 0.2)
    assert InnerConfig(step_size=0.2, later_ratio=0.5).test_step_sizes(3) == (0.2, 0.1, 0.1)
    assert InnerConfig(step_size=0.2, test_step_size=0.4, later_ratio=0.25).test_step_sizes(2) == (0.4, 0.1)
    assert InnerConfig(step_size=0.2, num_steps=3, later_ratio=0.5).step_sizes == (0.2, 0.2, 0.2)
    assert InnerConfig(step_size=0.2, num_steps=3, train_later_ratio=0.5).step_sizes == (0.2, 0.1, 0.1)
    assert InnerConfig(step_size=0.2, train_later_ratio=0.5).test_step_sizes(2) == (0.2, 0.2)
    for name in ("test_step_size", "later_ratio", "train_later_ratio"):
        with pytest.raises(ValueError, match=rf"inner\.{name} must be positive and finite, got 0.0"):
            InnerConfig(**{name: 0.0})


def test_learned_step_sizes_stand_beside_the_parameters(sinusoid):
    theta = sinusoid(2, 1).theta
    sizes = {name: torch.full_like(p, 0.1) for name, p in theta.items()}
    learned = join_step_sizes(theta, sizes)
    assert list(learned) == [*theta, *(f"step_sizes/{name}" for name in theta)]
    assert split_step_sizes(learned) == (theta, sizes)
    assert split_step_sizes(theta) == (theta, {})
