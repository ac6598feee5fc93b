"""The networks themselves; their derivatives are tested with the other output map, in core."""

import pytest
import torch

from maml_rl.core.trees import take_task, take_tasks
from maml_rl.networks.mlp import LinearizedMLP, init_mlp, linear, mlp, truncated_normal, xavier_uniform


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def stacked_params(num_tasks, sizes, dtype=torch.float64):
    each = [init_mlp(sizes, lambda a, b, i=i: random(a, b, seed=i, dtype=dtype)) for i in range(num_tasks)]
    return {
        name: random(num_tasks, *p.shape, seed=k, dtype=dtype) if p.dim() == 1 else torch.stack([q[name] for q in each])
        for k, (name, p) in enumerate(each[0].items())
    }


@pytest.mark.parametrize("width", [1, 2, 5])
def test_linear_is_the_product_plus_the_bias(width):
    inputs, weight, bias = random(3, 7, 4), random(3, 4, width, seed=1), random(3, width, seed=2)
    expected = inputs @ weight + bias.unsqueeze(1)
    torch.testing.assert_close(linear(inputs, weight, bias), expected)
    torch.testing.assert_close(linear(inputs[0], weight[0], bias[0]), expected[0])
    assert linear(inputs, weight, bias).shape == (3, 7, width)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("sizes", [(3, 2), (3, 8, 1), (3, 8, 6, 2)])
def test_stacked_equals_task_by_task(activation, sizes):
    params, inputs = stacked_params(4, sizes), random(4, 5, 3)
    stacked = mlp(params, inputs, activation)
    for i in range(4):
        torch.testing.assert_close(stacked[i], mlp(take_task(params, i), inputs[i], activation))


def test_against_a_module():
    params, inputs = stacked_params(1, (3, 8, 6, 2)), random(5, 3)
    own = take_task(params, 0)
    layers = [torch.nn.Linear(a, b, dtype=torch.float64) for a, b in ((3, 8), (8, 6), (6, 2))]
    for k, layer in enumerate(layers):
        layer.weight.data, layer.bias.data = own[f"{k}.weight"].T, own[f"{k}.bias"]
    module = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    torch.testing.assert_close(mlp(own, inputs, "relu"), module(inputs).detach())


@pytest.mark.parametrize("observation_size", [1, 2, 3, 20])
@pytest.mark.parametrize("width", [1, 2, 6])
@pytest.mark.parametrize("batch", [1, 4, 5, 20])
def test_a_task_s_outputs_do_not_depend_on_the_tasks_beside_it(observation_size, width, batch):
    # To the last bit, in the precision and at the size that sampling uses.
    params = stacked_params(7, (observation_size, 100, 100, width), torch.float32)
    inputs = random(7, batch, observation_size, dtype=torch.float32)
    together = mlp(params, inputs, "relu")
    for start, stop in ((0, 1), (2, 4), (4, 7), (6, 7)):
        block = mlp(take_tasks(params, start, stop), inputs[start:stop], "relu")
        assert torch.equal(block, together[start:stop])


def test_the_linearized_network_has_the_network_s_outputs():
    params, inputs = stacked_params(4, (3, 8, 1)), random(4, 5, 3)
    torch.testing.assert_close(LinearizedMLP(params, inputs, "tanh").outputs, mlp(params, inputs, "tanh"))


def test_initial_biases_are_zero_and_weights_drawn_as_said():
    params = init_mlp((3, 8, 2), torch.ones)
    assert {name: tuple(p.shape) for name, p in params.items()} == {
        "0.weight": (3, 8), "0.bias": (8,), "1.weight": (8, 2), "1.bias": (2,),
    }  # fmt: skip
    assert (params["0.weight"] == 1).all() and (params["0.bias"] == 0).all()


def test_xavier_uniform_stays_within_its_bound_and_fills_it():
    # sqrt(6 / (50 + 100)) = 0.2; the variance of U(-b, b) is b^2 / 3.
    weights = xavier_uniform(torch.Generator().manual_seed(0))(50, 100)
    assert weights.shape == (50, 100)
    assert 0.199 < weights.abs().max() <= 0.2
    assert weights.mean().item() == pytest.approx(0.0, abs=4 * 0.2 / 3**0.5 / 5000**0.5)
    assert weights.var().item() == pytest.approx(0.04 / 3, rel=0.05)


def test_truncated_normal_stays_within_two_deviations():
    # A standard normal cut at +-2 has the variance 1 - 4 phi(2) / (2 Phi(2) - 1) = 0.774, the deviation
    # 0.880.
    weights = truncated_normal(torch.Generator().manual_seed(0), 0.01)(100, 100)
    assert 0.0195 < weights.abs().max() <= 0.02
    assert weights.mean().item() == pytest.approx(0.0, abs=4 * 0.01 / 100)
    assert weights.std().item() == pytest.approx(0.0088, rel=0.05)


@pytest.mark.parametrize("make", [xavier_uniform, lambda generator: truncated_normal(generator, 1.0)])
def test_equal_generators_draw_equal_weights(make):
    first, second = (make(torch.Generator().manual_seed(3))(4, 5) for _ in range(2))
    assert torch.equal(first, second)
    draw = make(torch.Generator().manual_seed(3))
    assert not torch.equal(draw(4, 5), draw(4, 5))
