"""The meta-objective's gradient and curvature: closed forms, finite differences, dense matrices."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from maml_rl.core.inner import InnerConfig, join_step_sizes, scale, split_step_sizes, subtract
from maml_rl.core.lift import Threads
from maml_rl.core.objective import MetaObjective
from maml_rl.core.trees import flatten, take_task, take_tasks, unflatten


def meta_gradient(model, data, p, a, num_steps, first_order, threads):
    inner = InnerConfig(num_steps=num_steps, step_size=a, first_order=first_order)
    objective = MetaObjective(model, inner, [data] * num_steps, data, threads)
    at = objective.linearize({"p": torch.tensor([p], dtype=torch.float64)}, fisher_share=0.0)
    return at.loss, at.gradient.item()


def test_meta_gradient_of_a_quadratic(power_model, targets, threads):
    # f(p) = (p - c)^2 / 2 and K steps of size a give p' - c = (1 - a)^K (p - c), so df(p')/dp = (1 - a)^(2K)
    # (p - c); with the inner gradients detached, (1 - a)^K (p - c). Here c = 1, p = 3, a = 0.5.
    model, data = power_model(power=1, is_square=True), targets(1.0)
    for num_steps, second, first in (0, 2.0, 2.0), (1, 0.5, 1.0), (2, 0.125, 0.5):
        assert meta_gradient(model, data, 3.0, 0.5, num_steps, False, threads)[1] == pytest.approx(second)
        assert meta_gradient(model, data, 3.0, 0.5, num_steps, True, threads)[1] == pytest.approx(first)


def test_meta_gradient_is_the_mean_over_tasks(power_model, targets, threads):
    # As above with c = 1, 2, -3: the mean of (1 - a)^2 (p - c) is 0.25 * (2 + 1 + 6) / 3 = 0.75, and the mean
    # loss is the mean of (1 - a)^2 (p - c)^2 / 2 = 0.25 * (4 + 1 + 36) / 6 = 41 / 24.
    model, data = power_model(power=1, is_square=True), targets(1.0, 2.0, -3.0)
    loss, gradient = meta_gradient(model, data, 3.0, 0.5, 1, False, threads)
    assert gradient == pytest.approx(0.75)
    assert loss == pytest.approx(41 / 24)


def test_meta_gradient_of_a_cubic(power_model, targets, threads):
    # f(p) = p^3: p' = p - 3 a p^2, dp'/dp = 1 - 6 a p, so df(p')/dp = 3 p'^2 (1 - 6 a p), and with two steps
    # 3 p''^2 (1 - 6 a p') (1 - 6 a p). Detached: 3 p'^2 and 3 p''^2. Here p = 1, a = 0.1: p' = 0.7, p'' =
    # 0.553.
    model, data = power_model(power=3, is_square=False), targets(0.0)
    expected = {
        (1, False): 3 * 0.7**2 * 0.4,
        (1, True): 3 * 0.7**2,
        (2, False): 3 * 0.553**2 * (1 - 0.42) * 0.4,
        (2, True): 3 * 0.553**2,
    }
    for (num_steps, first_order), gradient in expected.items():
        found = meta_gradient(model, data, 1.0, 0.1, num_steps, first_order, threads)[1]
        assert found == pytest.approx(gradient)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_meta_gradient_against_central_differences(sinusoid, num_steps):
    # Error of (L(v + h) - L(v - h)) / 2h: h^2 from the third derivative, 1e-16 / h from rounding; h = 1e-6
    # balances.
    problem = sinusoid(4, num_steps)
    objective = problem.objective
    gradient = objective.linearize(problem.theta, fisher_share=0.0).gradient
    vector, step = flatten(problem.theta), 1e-6
    differences = torch.empty_like(gradient)
    for i in range(len(vector)):
        ends = [vector.clone(), vector.clone()]
        ends[0][i] += step
        ends[1][i] -= step
        above, below = (objective.evaluate(unflatten(end, problem.theta)).loss for end in ends)
        differences[i] = (above - below) / (2 * step)
    assert gradient.norm() > 0.1
    torch.testing.assert_close(gradient, differences, rtol=1e-6, atol=1e-8)


def test_first_order_is_the_mean_of_the_gradients_at_the_adapted_parameters(sinusoid):
    problem = sinusoid(4, 2, first_order=True)
    gradients = []
    for i in range(4):
        own = take_task(problem.query, i)
        adapted = adapted_by_autograd(problem, problem.theta, i)
        gradients.append(flatten(torch.func.grad(loss_of(problem.model.outer_loss_at, problem.model, own))(adapted)))
    found = problem.objective.linearize(problem.theta, fisher_share=0.0).gradient
    torch.testing.assert_close(found, torch.stack(gradients).mean(dim=0), rtol=1e-10, atol=1e-12)


def loss_of(loss_at, model, data):
    return lambda params: loss_at(model.outputs(params, data), data)


def adapted_by_autograd(problem, theta, i):
    """theta'_i as one differentiable function, without the output maps."""
    for support, step_size in zip(problem.supports, problem.inner.step_sizes, strict=True):
        own = take_task(support, i)
        gradient = torch.func.grad(loss_of(problem.model.inner_loss_at, problem.model, own))(theta)
        theta = subtract(theta, scale(gradient, step_size))
    return theta


def adapted_outputs(problem, vector, i):
    params = adapted_by_autograd(problem, unflatten(vector, problem.theta), i)
    return problem.model.outputs(params, take_task(problem.query, i))


def dense_fisher(problem):
    """mean_i J_i' F_i J_i; J_i = d outputs_i / d theta, F_i is the divergence's Hessian in the outputs."""
    vector, matrices = flatten(problem.theta), []
    for i in range(len(problem.query[0])):
        own = take_task(problem.query, i)
        outputs = adapted_outputs(problem, vector, i).detach()
        jacobian = torch.func.jacrev(lambda v, i=i: adapted_outputs(problem, v, i))(vector)

        def divergence(flat, old=outputs, own=own):
            return problem.model.divergence(old, flat.view_as(old), own)

        curvature = torch.autograd.functional.hessian(divergence, outputs.flatten())
        jacobian = jacobian.reshape(-1, len(vector))
        matrices.append(jacobian.T @ curvature @ jacobian)
    return torch.stack(matrices).mean(dim=0)


def fisher_by_products(problem):
    product = problem.objective.linearize(problem.theta, fisher_share=1.0).fisher_product
    return torch.stack([product(row) for row in torch.eye(len(flatten(problem.theta)), dtype=torch.float64)])


@pytest.mark.parametrize(
    ("make", "share", "kept"), [("sinusoid", 0.3, 3), ("navigation", 0.6, 2), ("navigation", 0.01, 1)]
)
def test_fisher_products_on_a_share_of_the_data(make, share, kept, request):
    # J and F rest on the first examples or episodes alone, but around the theta' of all data; loss and gradient are
    # those of all data.
    problem = request.getfixturevalue(make)(3, 2)
    at, exact = (problem.objective.linearize(problem.theta, fisher_share=s) for s in (share, 1.0))
    assert at.loss == exact.loss
    assert torch.equal(at.gradient, exact.gradient)
    found = torch.stack([at.fisher_product(row) for row in torch.eye(len(at.gradient), dtype=torch.float64)])
    expected = dense_fisher_of_parts(problem, lambda data: first_rows(data, kept))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10 * expected.abs().max().item())


def first_rows(data, count):
    """Of one task's data: the first episodes or examples."""
    return type(data)(*(leaf[:count] if leaf.dim() else leaf for leaf in data))


def dense_fisher_of_parts(problem, part):
    """As `dense_fisher`, D A_K .. A_1 written out with each factor's own data: theta' on all, derivatives on parts."""
    model, matrices = problem.model, []
    for i in range(len(problem.query[0])):
        params, jacobian = problem.theta, torch.eye(len(flatten(problem.theta)), dtype=torch.float64)
        for support, step_size in zip(problem.supports, problem.inner.step_sizes, strict=True):
            own = take_task(support, i)

            def inner_loss(vector, data):
                return model.inner_loss_at(model.outputs(unflatten(vector, problem.theta), data), data)

            vector = flatten(params)
            hessian = torch.func.hessian(inner_loss)(vector, part(own))
            jacobian = jacobian - step_size * hessian @ jacobian
            params = unflatten(vector - step_size * torch.func.grad(inner_loss)(vector, own), problem.theta)
        query = part(take_task(problem.query, i))
        outputs = model.outputs(params, query)
        of_outputs = torch.func.jacrev(lambda v, q=query: model.outputs(unflatten(v, problem.theta), q))(
            flatten(params)
        )
        jacobian = of_outputs.reshape(-1, len(jacobian)) @ jacobian

        def divergence(flat, old=outputs, own=query):
            return model.divergence(old, flat.view_as(old), own)

        curvature = torch.autograd.functional.hessian(divergence, outputs.flatten())
        matrices.append(jacobian.T @ curvature @ jacobian)
    return torch.stack(matrices).mean(dim=0)


CURVED = [
    ("sinusoid", (3, 1)),
    ("sinusoid", (3, 2)),
    ("navigation", (3, 1, "ratio")),
    ("navigation", (3, 2, "ratio")),
    ("navigation", (2, 2, "dice")),
    ("navigation", (2, 2, "log_prob", "relu")),
]


@pytest.fixture(params=CURVED, ids=str)
def problem(request):
    name, arguments = request.param
    return request.getfixturevalue(name)(*arguments)


def test_fisher_products_against_the_dense_matrix(problem):
    found = fisher_by_products(problem)
    scale_of = found.abs().max().item()
    torch.testing.assert_close(found, dense_fisher(problem), rtol=1e-8, atol=1e-10 * scale_of)
    torch.testing.assert_close(found, found.T, rtol=1e-8, atol=1e-10 * scale_of)
    assert torch.linalg.eigvalsh((found + found.T) / 2).min().item() >= -1e-10 * scale_of


@pytest.mark.parametrize(
    ("make", "arguments"), [("sinusoid", (2, 1)), ("sinusoid", (2, 2)), ("navigation", (2, 2, "ratio"))]
)
def test_the_fisher_matrix_is_the_divergence_s_own_hessian_at_theta(make, arguments, request):
    # D(v) = mean_i KL(outputs_i(theta) || outputs_i(v)) has no slope at theta, so the outputs' second
    # derivatives, those of the inner steps among them, drop out of its Hessian: what remains is mean_i J_i'
    # F_i J_i.
    problem = request.getfixturevalue(make)(*arguments)
    vector, count = flatten(problem.theta), len(problem.query[0])
    old = [adapted_outputs(problem, vector, i).detach() for i in range(count)]

    def divergence(v):
        each = [
            problem.model.divergence(old[i], adapted_outputs(problem, v, i), take_task(problem.query, i))
            for i in range(count)
        ]
        return torch.stack(each).mean()

    hessian = torch.func.jacrev(torch.func.jacrev(divergence))(vector)
    found = fisher_by_products(problem)
    torch.testing.assert_close(found, hessian, rtol=1e-7, atol=1e-9 * found.abs().max().item())


def test_step_sizes_of_each_parameter_enter_gradient_and_curvature(sinusoid):
    # With step sizes in a tree I - diag(alpha) H is no longer symmetric: push and pull must differ in their
    # order.
    plain = sinusoid(3, 2)
    generator = torch.Generator().manual_seed(4)
    sizes = [
        {name: 0.1 * torch.rand(p.shape, generator=generator, dtype=p.dtype) for name, p in plain.theta.items()}
        for _ in range(2)
    ]
    problem = plain._replace(
        inner=SimpleNamespace(step_sizes=sizes, first_order=False, before_weight=0.0, learn_step_sizes=True)
    )
    found = fisher_by_products(problem)
    torch.testing.assert_close(found, dense_fisher(problem), rtol=1e-8, atol=1e-10 * found.abs().max().item())

    def meta_loss(v, shift):  # by as much is every step's size of each parameter larger
        more = unflatten(shift, problem.theta)
        moved = SimpleNamespace(step_sizes=[{n: s[n] + more[n] for n in s} for s in sizes])
        at = problem._replace(inner=moved)
        losses = [problem.model.outer_loss_at(adapted_outputs(at, v, i), take_task(at.query, i)) for i in range(3)]
        return torch.stack(losses).mean()

    theta = flatten(problem.theta)
    gradient, slope = torch.func.grad(meta_loss, argnums=(0, 1))(theta, torch.zeros_like(theta))
    at = problem.objective.linearize(problem.theta, fisher_share=0.0)
    torch.testing.assert_close(at.gradient, torch.cat([gradient, slope]), rtol=1e-9, atol=1e-12)
    assert at.gradient_norm == pytest.approx(gradient.norm().item())


def test_learned_step_sizes_are_adapted_with_and_have_a_gradient(sinusoid):
    # the same as above through the front door: one tree of sizes for all steps, among all that is learned
    plain = sinusoid(3, 2)
    problem = plain._replace(inner=dataclasses.replace(plain.inner, learn_step_sizes=True))
    generator = torch.Generator().manual_seed(4)
    sizes = {name: 0.1 * torch.rand(p.shape, generator=generator, dtype=p.dtype) for name, p in plain.theta.items()}
    learned = join_step_sizes(plain.theta, sizes)

    def meta_loss(v):
        theta, own = split_step_sizes(unflatten(v, learned))
        at = problem._replace(inner=SimpleNamespace(step_sizes=[own, own]))
        losses = [
            problem.model.outer_loss_at(adapted_outputs(at, flatten(theta), i), take_task(at.query, i))
            for i in range(3)
        ]
        return torch.stack(losses).mean()

    objective = problem.objective
    at, gradient = objective.linearize(learned, fisher_share=0.0), torch.func.grad(meta_loss)(flatten(learned))
    assert at.loss == pytest.approx(meta_loss(flatten(learned)).item())
    torch.testing.assert_close(at.gradient, gradient, rtol=1e-9, atol=1e-12)
    assert objective.evaluate(learned).loss == pytest.approx(at.loss)


def test_before_the_step_the_divergence_is_zero_and_the_loss_the_same(problem):
    objective = problem.objective
    at = objective.linearize(problem.theta, fisher_share=1.0)
    evaluation = objective.evaluate(problem.theta)
    assert evaluation.loss == pytest.approx(at.loss, abs=1e-12)
    assert evaluation.divergence == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_the_divergence_grows_as_half_the_fisher_form(sinusoid, num_steps):
    # D(theta + h v) = h^2 v' F v / 2 + O(h^3). Regression only: a policy-gradient estimator's second
    # derivative is not the derivative of its first, because the likelihood ratio is taken at the candidate
    # itself.
    problem = sinusoid(4, num_steps)
    objective = problem.objective
    at = objective.linearize(problem.theta, fisher_share=1.0)
    direction = torch.randn(len(at.gradient), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = flatten(problem.theta) + 1e-4 * direction
    half_form = 0.5e-8 * direction.dot(at.fisher_product(direction)).item()
    assert objective.evaluate(unflatten(moved, problem.theta)).divergence == pytest.approx(half_form, rel=1e-2)


@pytest.mark.parametrize("make", ["sinusoid", "navigation"])
@pytest.mark.parametrize("tasks_per_chunk", [1, 2, 5])
def test_tasks_together_equal_tasks_one_by_one(make, tasks_per_chunk, request):
    problem = request.getfixturevalue(make)(5, 2)
    elements = sum(leaf[0].numel() for leaf in problem.query)
    problem = problem._replace(threads=Threads(1, chunk_elements=tasks_per_chunk * elements))
    at = problem.objective.linearize(problem.theta, fisher_share=1.0)
    direction = torch.randn(len(at.gradient), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alone = []
    for i in range(5):
        supports = [take_tasks(support, i, i + 1) for support in problem.supports]
        own = problem._replace(supports=supports, query=take_tasks(problem.query, i, i + 1))
        one = own.objective.linearize(problem.theta, fisher_share=1.0)
        alone.append((torch.tensor(one.loss), one.gradient, one.fisher_product(direction)))
    losses, gradients, products = (torch.stack(column).mean(dim=0) for column in zip(*alone, strict=True))
    assert at.loss == pytest.approx(losses.item(), rel=1e-6, abs=1e-9)
    torch.testing.assert_close(at.gradient, gradients, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(at.fisher_product(direction), products, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", ["sinusoid", "navigation"])
def test_bit_equal_for_any_number_of_threads(make, request):
    problem = request.getfixturevalue(make)(5, 2)
    results = []
    for num_threads in (1, 2, 3):
        threads = Threads(num_threads, chunk_elements=1)  # a chunk for each task
        objective = problem._replace(threads=threads).objective
        at = objective.linearize(problem.theta, fisher_share=1.0)
        moved = unflatten(flatten(problem.theta) - 0.1 * at.gradient, problem.theta)
        results.append(
            (
                at.loss,
                at.gradient.tolist(),
                at.fisher_product(at.gradient).tolist(),
                objective.evaluate(moved),
            )
        )
        threads.close()
    assert results[0] == results[1] == results[2]


def test_without_inner_steps_it_is_the_plain_mean_loss(sinusoid):
    problem = sinusoid(3, 0)
    model = problem.model

    def mean_loss(params):
        losses = [loss_of(model.outer_loss_at, model, take_task(problem.query, i))(params) for i in range(3)]
        return torch.stack(losses).mean()

    at = problem.objective.linearize(problem.theta, fisher_share=0.0)
    assert at.loss == pytest.approx(mean_loss(problem.theta).item())
    torch.testing.assert_close(at.gradient, flatten(torch.func.grad(mean_loss)(problem.theta)), rtol=1e-10, atol=1e-12)


def test_evaluate_needs_a_point_to_measure_from(sinusoid):
    problem = sinusoid(2, 1)
    with pytest.raises(AssertionError, match="linearize comes first"):
        problem.objective.evaluate(problem.theta)


@pytest.mark.parametrize(("make", "num_steps"), [("sinusoid", 2), ("navigation", 1), ("navigation", 2)])
@pytest.mark.parametrize("first_order", [False, True])
def test_the_loss_before_adaptation_is_added_by_its_weight(make, num_steps, first_order, request):
    # mean_i [L_query(theta'_i) + w sum_k L_support_k(theta_i^k)]: value, gradient and candidates are sums of the two
    # parts, the second by automatic differentiation through the steps before; the Fisher matrix is that of the adapted
    # outputs alone.
    problem, weight = request.getfixturevalue(make)(3, num_steps), 0.7
    plain = problem._replace(inner=dataclasses.replace(problem.inner, first_order=first_order))
    weighed = plain._replace(inner=dataclasses.replace(plain.inner, before_weight=weight))

    model, sizes = problem.model, problem.inner.step_sizes

    def before(vector):
        losses = []
        for i in range(3):
            params = unflatten(vector, problem.theta)
            for support, size in zip(problem.supports, sizes, strict=True):
                own = take_task(support, i)
                losses.append(model.outer_loss_at(model.outputs(params, own), own))
                slope = torch.func.grad(loss_of(model.inner_loss_at, model, own))(params)
                if first_order:
                    slope = {name: value.detach() for name, value in slope.items()}
                params = {name: value - size * slope[name] for name, value in params.items()}
        return torch.stack(losses).sum() / 3

    vector = flatten(problem.theta)
    objectives = plain.objective, weighed.objective
    first, second = (objective.linearize(problem.theta, fisher_share=1.0) for objective in objectives)
    added = torch.func.grad(before)(vector)
    assert added.norm() > 1e-2
    assert second.loss == pytest.approx(first.loss + weight * before(vector).item())
    torch.testing.assert_close(second.gradient, first.gradient + weight * added, rtol=1e-9, atol=1e-11)
    assert torch.equal(first.fisher_product(added), second.fisher_product(added))
    near = vector + 0.05 * torch.randn(len(vector), generator=torch.Generator().manual_seed(0), dtype=vector.dtype)
    candidates = [objective.evaluate(unflatten(near, problem.theta)) for objective in objectives]
    assert candidates[1].loss == pytest.approx(candidates[0].loss + weight * before(near).item())
    assert candidates[1].divergence == candidates[0].divergence


@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_a_weight_of_the_loss_before_adaptation_that_is_no_weight_is_refused(weight):
    with pytest.raises(ValueError, match="before_weight must be at least 0 and finite"):
        InnerConfig(before_weight=weight)


def test_without_inner_steps_there_is_no_loss_before_them(sinusoid):
    plain = sinusoid(2, 0)
    weighed = plain._replace(inner=dataclasses.replace(plain.inner, before_weight=0.5))
    at = [each.objective.linearize(plain.theta, fisher_share=0.0) for each in (plain, weighed)]
    assert at[0].loss == at[1].loss and torch.equal(at[0].gradient, at[1].gradient)
