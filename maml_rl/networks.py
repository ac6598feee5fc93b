"""Multilayer perceptrons as functions of a parameter dict, for one task or for a stack of tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from maml_rl.core.params import Params

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


def linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """inputs @ weight + bias, for one task or many.

    Args:
        inputs: [B, in], or [N, B, in] for N tasks.
        weight, bias: [in, out] and [out], or with the same leading axis N.
    """
    if weight.shape[-1] == 1:  # products of width 1 round differently for another number of tasks
        return linear(inputs, *(torch.cat([p, torch.zeros_like(p)], dim=-1) for p in (weight, bias)))[..., :1]
    if weight.dim() == 3:
        return torch.baddbmm(bias.unsqueeze(-2), inputs, weight)
    return torch.addmm(bias, inputs, weight)


def mlp(params: Params, inputs: Tensor, activation: str) -> Tensor:
    """The network with layers `0.weight`, `0.bias`, `1.weight`, ...; no activation after the last.

    Args:
        inputs: [B, in], or [N, B, in] with parameters stacked over N tasks.
    Returns:
        [B, out] or [N, B, out].
    """
    depth = sum(name.endswith(".weight") for name in params)
    hidden = inputs
    for layer in range(depth):
        hidden = linear(hidden, params[f"{layer}.weight"], params[f"{layer}.bias"])
        if layer < depth - 1:
            hidden = ACTIVATIONS[activation](hidden)
    return hidden


def init_mlp(sizes: Sequence[int], draw: Callable[[int, int], Tensor]) -> Params:
    """Weights [in, out] by `draw(in, out)` and zero biases for consecutive `sizes`."""
    params: Params = {}
    for layer, (fan_in, fan_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        params[f"{layer}.weight"] = draw(fan_in, fan_out)
        params[f"{layer}.bias"] = torch.zeros(fan_out)
    return params


def xavier_uniform(generator: torch.Generator) -> Callable[[int, int], Tensor]:
    """Uniform within +-sqrt(6 / (in + out)) (Glorot and Bengio 2010, equation 16)."""

    def draw(fan_in: int, fan_out: int) -> Tensor:
        bound = (6.0 / (fan_in + fan_out)) ** 0.5
        return (2.0 * torch.rand(fan_in, fan_out, generator=generator) - 1.0) * bound

    return draw


def truncated_normal(generator: torch.Generator, std: float) -> Callable[[int, int], Tensor]:
    """Normal with standard deviation `std`, drawn again beyond two of them."""

    def draw(fan_in: int, fan_out: int) -> Tensor:
        values = torch.empty(fan_in, fan_out)
        return torch.nn.init.trunc_normal_(values, std=std, a=-2 * std, b=2 * std, generator=generator)

    return draw
