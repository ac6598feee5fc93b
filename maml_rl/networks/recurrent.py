"""A gated recurrent unit as a function of a parameter dict, for one task or for a stack of tasks."""

from __future__ import annotations

import torch
from torch import Tensor

from maml_rl.core.trees import Params
from maml_rl.networks.mlp import linear


def init_gru(name: str, width: int, hidden_size: int, generator: torch.Generator) -> Params:
    """Weights [width, 3 H] and [H, 3 H] of the reset, update and candidate parts, uniform within +-1 / sqrt(H)."""
    bound = hidden_size**-0.5

    def draw(*shape: int) -> Tensor:
        return (2.0 * torch.rand(*shape, generator=generator) - 1.0) * bound

    return {
        f"{name}.input": draw(width, 3 * hidden_size),
        f"{name}.input_bias": draw(3 * hidden_size),
        f"{name}.hidden": draw(hidden_size, 3 * hidden_size),
        f"{name}.hidden_bias": draw(3 * hidden_size),
    }


def gru_cell(params: Params, name: str, inputs: Tensor, hidden: Tensor) -> Tensor:
    """One step: the next hidden state.

        r = sigmoid(x W_r + h U_r),  z = sigmoid(x W_z + h U_z),  n = tanh(x W_n + r * (h U_n)),  h' = (1 - z) n + z h

    Args:
        inputs: [B, width], or [N, B, width] with parameters stacked over N tasks.
        hidden: [B, H] or [N, B, H].
    Source: Cho et al. 2014 (arXiv:1406.1078), with the reset gate after the product, as torch.nn.GRUCell has it.
    """
    from_input = linear(inputs, params[f"{name}.input"], params[f"{name}.input_bias"])
    from_hidden = linear(hidden, params[f"{name}.hidden"], params[f"{name}.hidden_bias"])
    (reset_x, update_x, new_x), (reset_h, update_h, new_h) = from_input.chunk(3, dim=-1), from_hidden.chunk(3, dim=-1)
    update = sigmoid(update_x + update_h)
    candidate = torch.tanh(new_x + sigmoid(reset_x + reset_h) * new_h)
    return candidate + update * (hidden - candidate)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)). The last bits of torch's own depend on an entry's place, and so on the tasks beside it."""
    return 0.5 + 0.5 * torch.tanh(0.5 * x)
