"""The map's products against its dense Jacobian and its dense second derivative, in double precision."""

import weakref

import pytest
import torch

from maml_rl.core.output_map import AutogradMap, LossAtOutputs
from maml_rl.core.trees import flatten, take_task, unflatten
from maml_rl.networks.mlp import LinearizedMLP, init_mlp, mlp

NUM_TASKS, BATCH, WIDTH = 3, 5, 2


def make_map(kind, activation, hidden_sizes, appended):
    """The map, the function of one task that it linearises, and where."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sizes = (4, *hidden_sizes, WIDTH)
    each = []
    for _ in range(NUM_TASKS):
        params = {name: draw(*p.shape) for name, p in init_mlp(sizes, draw).items()}
        each.append(params | ({"log_std": draw(WIDTH)} if appended else {}))
    params = {name: torch.stack([p[name] for p in each]) for name in each[0]}
    inputs = draw(NUM_TASKS, BATCH, 4)

    def function(params, inputs):
        outputs = mlp(params, inputs, activation)
        if appended:
            return torch.cat([outputs, params["log_std"].expand(BATCH, WIDTH)], dim=-1)
        return outputs

    if kind == "autograd":
        linear_map = AutogradMap(function, params, inputs)
    else:
        linear_map = LinearizedMLP(params, inputs, activation, "log_std" if appended else None)
    return linear_map, function, params, inputs


@pytest.fixture(
    params=[
        (kind, activation, hidden_sizes, appended)
        for kind in ("autograd", "by hand")
        for activation in ("relu", "tanh")
        for hidden_sizes in ((), (6,), (6, 3))
        for appended in (False, True)
    ],
    ids=str,
)
def problem(request):
    """The map; per task outputs [B * width], Jacobian [B * width, P], second derivative [B * width, P, P]."""
    linear_map, function, params, inputs = make_map(*request.param)
    dense = []
    for i in range(NUM_TASKS):
        own, rows = take_task(params, i), inputs[i]

        def flat(vector, own=own, rows=rows):
            return function(unflatten(vector, own), rows).flatten()

        jacobian = torch.func.jacrev(flat)
        dense.append((flat(flatten(own)), jacobian(flatten(own)), torch.func.jacrev(jacobian)(flatten(own))))
    return linear_map, params, [torch.stack(column) for column in zip(*dense, strict=True)]


def random_like(tensor, seed):
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def per_task(tree):
    """[N, P]"""
    return torch.stack([flatten(take_task(tree, i)) for i in range(NUM_TASKS)])


def assert_equal(value, expected):
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)


def test_outputs(problem):
    linear_map, _, (outputs, _, _) = problem
    assert_equal(linear_map.outputs.flatten(1), outputs)
    assert not linear_map.outputs.requires_grad


def test_push_is_the_jacobian(problem):
    linear_map, params, (_, jacobian, _) = problem
    direction = {name: random_like(p, i) for i, (name, p) in enumerate(params.items())}
    expected = torch.einsum("nbp,np->nb", jacobian, per_task(direction))
    assert_equal(linear_map.push(direction).flatten(1), expected)


def test_pull_is_its_transpose(problem):
    linear_map, _, (_, jacobian, _) = problem
    cotangent = random_like(linear_map.outputs, 0)
    expected = torch.einsum("nbp,nb->np", jacobian, cotangent.flatten(1))
    assert_equal(per_task(linear_map.pull(cotangent)), expected)
    assert_equal(per_task(linear_map.fix_cotangent(cotangent)), expected)


def test_pull_change_is_the_hessian_of_a_function_of_the_outputs(problem):
    # l(outputs(params)) has the Hessian  sum_b c_b d^2 outputs_b + J' L J  with c = dl and L = d^2 l. Here l
    # is the sum of w * outputs^2 / 2, so that c = w * outputs and L = diag(w).
    linear_map, params, (outputs, jacobian, second) = problem
    weights = random_like(linear_map.outputs, 3)
    direction = {name: random_like(p, 10 + i) for i, (name, p) in enumerate(params.items())}
    hessian = torch.einsum("nb,nbpq->npq", weights.flatten(1) * outputs, second)
    hessian = hessian + torch.einsum("nbp,nb,nbq->npq", jacobian, weights.flatten(1), jacobian)
    expected = torch.einsum("npq,nq->np", hessian, per_task(direction))
    linear_map.fix_cotangent(weights * linear_map.outputs)
    assert_equal(per_task(linear_map.pull_change(direction, lambda pushed: weights * pushed)), expected)
    again = linear_map.pull_change(direction, lambda pushed: weights * pushed)  # nothing was overwritten
    assert_equal(per_task(again), expected)


def test_a_map_and_its_graph_go_with_the_last_reference():
    # What autograd's nodes hold is out of the collector's sight, so a ring through them would stay for ever.
    linear_map, _, params, _ = make_map("autograd", "tanh", (6,), False)
    linear_map.fix_cotangent(linear_map.outputs)
    linear_map.pull_change(params, lambda pushed, held=linear_map: held.outputs * pushed)
    gone = weakref.ref(linear_map)
    del linear_map
    assert gone() is None


def test_pull_change_needs_a_cotangent(problem):
    linear_map, params, _ = problem
    with pytest.raises(AssertionError, match="fix_cotangent comes first"):
        linear_map.pull_change(params, lambda pushed: pushed)


def test_loss_at_outputs():
    # l = sum t * o^3 for each task: slope 3 t o^2, curvature 6 t o on the diagonal.
    outputs = torch.tensor([[[1.0], [2.0]], [[3.0], [-1.0]]], dtype=torch.float64)
    factors = torch.tensor([[[1.0], [1.0]], [[2.0], [5.0]]], dtype=torch.float64)
    loss = LossAtOutputs(lambda o, t: (t * o**3).sum(), outputs, factors)
    assert loss.values.tolist() == [1 + 8, 54 - 5]
    assert_equal(loss.slope, 3 * factors * outputs**2)
    direction = random_like(outputs, 0)
    assert_equal(loss.curve(direction), 6 * factors * outputs * direction)


def test_a_loss_linear_in_the_outputs_has_no_curvature():
    outputs = torch.ones(2, 3, 1)
    loss = LossAtOutputs(lambda o, t: (t * o).sum(), outputs, outputs)
    assert torch.equal(loss.curve(outputs), torch.zeros_like(outputs))
