"""Blocks of a linear map, batch normalisation and ELU, against torch's own modules."""

import pytest
import torch
import torch.nn.functional as F

from maml_rl.networks.blocks import EPSILON, Block, by_averages, by_batch, init_averages, init_blocks, run_blocks

BLOCKS = {
    "dense": (Block("dense", 3, 5), torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5, EPSILON)),
    "same": (Block("same", 3, 5), torch.nn.Conv2d(3, 5, 3, 1, 1), torch.nn.BatchNorm2d(5, EPSILON)),
    "half": (Block("half", 3, 5), torch.nn.Conv2d(3, 5, 3, 2, 1), torch.nn.BatchNorm2d(5, EPSILON)),
    "double": (Block("double", 3, 5), torch.nn.ConvTranspose2d(3, 5, 2, 2), torch.nn.BatchNorm2d(5, EPSILON)),
}


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_is_torch_s_layers(kind):
    block, layer, norm = BLOCKS[kind]
    params = init_blocks(generator(), "net", [block])
    params["net.0.scale"] = torch.rand(5, generator=generator()) + 0.5
    params["net.0.shift"] = torch.rand(5, generator=generator())
    inputs = torch.randn((8, 3) if kind == "dense" else (8, 3, 6, 6), generator=generator())
    weight = params["net.0.weight"]
    layer.weight.data = weight.mT if kind == "dense" else weight  # its bias is taken out again by normalisation
    norm.weight.data, norm.bias.data, norm.momentum = params["net.0.scale"], params["net.0.shift"], 1.0
    moments = {}
    found = run_blocks(params, "net", [block], inputs, by_batch(params, moments))
    torch.testing.assert_close(found, F.elu(norm(layer(inputs))), rtol=1e-4, atol=1e-4)

    layer.bias.data.zero_()
    norm(layer(inputs))
    torch.testing.assert_close(moments["net.0.mean"], norm.running_mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moments["net.0.variance"], norm.running_var, rtol=1e-4, atol=1e-5)
    found = run_blocks(params, "net", [block], inputs, by_averages(params, moments))
    torch.testing.assert_close(found, F.elu(norm.eval()(layer(inputs))), rtol=1e-4, atol=1e-4)


def test_averages_start_for_every_normalisation():
    params = init_blocks(generator(), "net", [Block("dense", 3, 5), Block("dense", 5, 2)])
    averages = init_averages(params)
    assert {name: value.shape for name, value in averages.items()} == {
        "net.0.mean": (5,), "net.0.variance": (5,), "net.1.mean": (2,), "net.1.variance": (2,)
    }  # fmt: skip
    inputs = torch.randn(4, 3, generator=generator())
    found = run_blocks(params, "net", [Block("dense", 3, 5)], inputs, by_averages(params, averages))
    torch.testing.assert_close(found, F.elu(inputs @ params["net.0.weight"] / (1.0 + EPSILON) ** 0.5))


def test_a_residual_connection_adds_the_inputs_and_changes_none():
    blocks = [Block("dense", 4, 4)] * 2
    params = init_blocks(generator(), "net", blocks)
    inputs = torch.randn(6, 4, generator=generator())
    before = inputs.clone()
    found = run_blocks(params, "net", blocks, inputs, by_batch(params, {}), residual=True)
    params["net.1.shift"] = params["net.1.shift"] - 3.0
    without = run_blocks(params, "net", blocks, inputs, by_batch(params, {}), residual=True)
    torch.testing.assert_close(inputs, before)
    params["net.1.scale"] = torch.zeros(4)
    params["net.1.shift"] = torch.zeros(4)
    alone = run_blocks(params, "net", blocks, inputs, by_batch(params, {}), residual=True)
    torch.testing.assert_close(alone, F.elu(inputs))
    assert (without < found).all()


def test_with_averages_no_row_depends_on_the_others():
    blocks = [Block("same", 1, 3), Block("half", 3, 3)]
    params = init_blocks(generator(), "net", blocks)
    inputs = torch.randn(4, 1, 6, 6, generator=generator())
    other = torch.cat([inputs[:1], -inputs[1:]])

    def first(normalise):
        return (run_blocks(params, "net", blocks, each, normalise)[0] for each in (inputs, other))

    torch.testing.assert_close(*first(by_averages(params, init_averages(params))))
    one, two = first(by_batch(params, {}))
    assert not torch.allclose(one, two, atol=1e-3)
