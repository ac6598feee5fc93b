"""Blocks of a linear map, batch normalisation and ELU, as functions of a parameter dict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maml_rl.core.trees import Params

EPSILON = 1e-3  # keeps normalisation finite
GAIN = 2.0**0.5  # of initial weights

Normalise = Callable[[str, Tensor], Tensor]
"""(name of the layer, maps [b, C, ...]) -> maps with mean 0 and variance 1 in each channel, then scaled and shifted."""


Kind = Literal["dense", "same", "half", "double"]
"""Maps of vectors; 3 x 3 convolution of stride 1, or of stride 2; 2 x 2 pixels made of each."""


class Block(NamedTuple):
    """A linear map, normalised over the batch, then ELU. Its bias is the normalisation's."""

    kind: Kind
    inputs: int
    outputs: int

    @property
    def weight_shape(self) -> tuple[int, ...]:
        if self.kind == "dense":
            return self.inputs, self.outputs
        return (self.inputs, self.outputs, 2, 2) if self.kind == "double" else (self.outputs, self.inputs, 3, 3)


def init_blocks(generator: torch.Generator, name: str, blocks: Sequence[Block]) -> Params:
    """Parameters `name.0.weight`, `name.0.scale`, `name.0.shift`, `name.1.weight`, ..."""
    params: Params = {}
    for place, block in enumerate(blocks):
        params[f"{name}.{place}.weight"] = glorot(generator, block.weight_shape)
        params |= init_norm(f"{name}.{place}", block.outputs)
    return params


def glorot(generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Normal with variance 2 gain^2 / (in + out), each times the size of the kernel (Glorot and Bengio 2010)."""
    kernel = torch.Size(shape[2:]).numel()
    return torch.randn(shape, generator=generator) * GAIN * (2.0 / (kernel * (shape[0] + shape[1]))) ** 0.5


def init_norm(name: str, width: int) -> Params:
    return {f"{name}.scale": torch.ones(width), f"{name}.shift": torch.zeros(width)}


def run_blocks(
    params: Params, name: str, blocks: Sequence[Block], hidden: Tensor, normalise: Normalise, residual: bool = False
) -> Tensor:
    """The outputs of the blocks.

    Args:
        hidden: [b, C] or, for convolutions, [b, C, h, w].
        residual: add the inputs before the last ELU.
    """
    inputs = hidden
    for place, block in enumerate(blocks):
        hidden = normalise(f"{name}.{place}", _mapped(params[f"{name}.{place}.weight"], block.kind, hidden))
        if residual and place == len(blocks) - 1:
            hidden = hidden + inputs
        hidden = F.elu(hidden, inplace=True)  # normalisation does not need its outputs for its gradient
    return hidden


def _mapped(weight: Tensor, kind: Kind, hidden: Tensor) -> Tensor:
    if kind == "dense":
        return hidden @ weight
    weight = weight.to(hidden.dtype)  # maps may have fewer bits than parameters
    if kind == "double":
        return F.conv_transpose2d(hidden, weight, stride=2)
    return F.conv2d(hidden, weight, stride=2 if kind == "half" else 1, padding=1)


def by_batch(params: Params, moments: Params) -> Normalise:
    """Normalise by the batch in hand, and enter its means and unbiased variances into `moments`."""

    def normalise(name: str, hidden: Tensor) -> Tensor:
        scale = params[f"{name}.scale"]
        mean, variance = torch.zeros_like(scale, requires_grad=False), torch.zeros_like(scale, requires_grad=False)
        moments.update({f"{name}.mean": mean, f"{name}.variance": variance})  # torch fills them in
        shift = params[f"{name}.shift"]
        return F.batch_norm(hidden, mean, variance, scale, shift, training=True, momentum=1.0, eps=EPSILON)

    return normalise


def by_averages(params: Params, averages: Params) -> Normalise:
    """Normalise by averages over training, so that no output depends on the other rows."""

    def normalise(name: str, hidden: Tensor) -> Tensor:
        mean, variance = averages[f"{name}.mean"], averages[f"{name}.variance"]
        return F.batch_norm(hidden, mean, variance, params[f"{name}.scale"], params[f"{name}.shift"], eps=EPSILON)

    return normalise


def init_averages(params: Params) -> Params:
    """Mean 0 and variance 1 for every normalisation among the parameters."""
    found: Params = {}
    for name, value in params.items():
        layer, _, part = name.rpartition(".")
        if part == "scale":
            found |= {f"{layer}.mean": torch.zeros_like(value), f"{layer}.variance": torch.ones_like(value)}
    return found
