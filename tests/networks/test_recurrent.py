import pytest
import torch

from maml_rl.core.trees import take_task, take_tasks
from maml_rl.networks.recurrent import gru_cell, init_gru, sigmoid


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def stacked_params(num_tasks, width, hidden_size, dtype=torch.float64):
    each = [init_gru("gru", width, hidden_size, torch.Generator().manual_seed(i)) for i in range(num_tasks)]
    return {name: torch.stack([p[name] for p in each]).to(dtype) for name in each[0]}


def test_a_step_is_that_of_torch_s_module():
    params, inputs, hidden = take_task(stacked_params(1, 4, 5), 0), random(6, 4), random(6, 5, seed=1)
    cell = torch.nn.GRUCell(4, 5, dtype=torch.float64)
    cell.weight_ih.data, cell.bias_ih.data = params["gru.input"].T, params["gru.input_bias"]
    cell.weight_hh.data, cell.bias_hh.data = params["gru.hidden"].T, params["gru.hidden_bias"]
    torch.testing.assert_close(gru_cell(params, "gru", inputs, hidden), cell(inputs, hidden).detach())


def test_stacked_equals_task_by_task():
    params, inputs, hidden = stacked_params(3, 4, 5), random(3, 6, 4), random(3, 6, 5, seed=1)
    stacked = gru_cell(params, "gru", inputs, hidden)
    for i in range(3):
        torch.testing.assert_close(stacked[i], gru_cell(take_task(params, i), "gru", inputs[i], hidden[i]))


@pytest.mark.parametrize("hidden_size", [1, 7, 32, 100])
@pytest.mark.parametrize("batch", [1, 3, 20])
def test_a_task_s_step_does_not_depend_on_the_tasks_beside_it(hidden_size, batch):
    # to the last bit, in the precision that sampling uses
    params = stacked_params(7, 6, hidden_size, torch.float32)
    inputs = random(7, batch, 6, dtype=torch.float32)
    hidden = random(7, batch, hidden_size, seed=1, dtype=torch.float32)
    together = gru_cell(params, "gru", inputs, hidden)
    for start, stop in ((0, 1), (2, 4), (4, 7), (6, 7)):
        block = gru_cell(take_tasks(params, start, stop), "gru", inputs[start:stop], hidden[start:stop])
        assert torch.equal(block, together[start:stop])


def test_the_sigmoid():
    x = torch.tensor([-1000.0, -3.0, 0.0, 0.7, 1000.0], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(sigmoid(x), torch.sigmoid(x))
    (slope,) = torch.autograd.grad(sigmoid(x).sum(), x)
    torch.testing.assert_close(slope, torch.sigmoid(x) * (1.0 - torch.sigmoid(x)))


def test_initial_weights_fill_their_bound():
    params = init_gru("gru", 50, 25, torch.Generator().manual_seed(0))  # bound 1 / sqrt(25)
    assert {name: tuple(p.shape) for name, p in params.items()} == {
        "gru.input": (50, 75), "gru.input_bias": (75,), "gru.hidden": (25, 75), "gru.hidden_bias": (75,),
    }  # fmt: skip
    assert all(0.17 < p.abs().max() <= 0.2 for p in params.values())
