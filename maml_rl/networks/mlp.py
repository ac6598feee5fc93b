"""Multilayer perceptrons as functions of a parameter dict, for one task or for a stack of tasks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from maml_rl.core.trees import Params

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}

IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu_, "tanh": torch.tanh_}


def linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute inputs @ weight + bias, for one task or many.

    Args:
        inputs: [B, in], or [N, B, in] for N tasks.
        weight, bias: [in, out] and [out], or with the same leading axis N.
    """
    if weight.shape[-1] == 1:  # products of width 1 round differently for another number of tasks
        return linear(inputs, *(torch.cat([p, torch.zeros_like(p)], dim=-1) for p in (weight, bias)))[..., :1]
    if weight.dim() == 3 and weight.shape[-2] == 1:  # so do those over one number, which a single task rounds once
        return bias.unsqueeze(-2) + inputs * weight
    if weight.dim() == 3:
        return torch.baddbmm(bias.unsqueeze(-2), inputs, weight)
    return torch.addmm(bias, inputs, weight)


NARROW = 16
"""Products with fewer columns than this are computed transposed, up to five times as fast."""


def times(rows: Tensor, weight: Tensor) -> Tensor:
    """[n, B, in] @ [n, in, out]."""
    if weight.shape[-1] < NARROW:
        return torch.bmm(weight.mT, rows.mT).mT
    return torch.bmm(rows, weight)


def correlation(left: Tensor, right: Tensor) -> Tensor:
    """Sum over rows of outer products: [n, B, in], [n, B, out] to [n, in, out]."""
    if right.shape[-1] < NARROW:
        return torch.bmm(right.mT, left).mT
    return torch.bmm(left.mT, right)


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
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
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


class LinearizedMLP:
    """An `OutputMap` (core.output_map) of the network for n stacked tasks, by the chain rule written out.

    Against automatic differentiation it keeps a third of the memory and fuses every sum of two products into one call,
    which makes the outer step about one and a half times as fast. Layer l: z = h W + b, h_next = act(z). A direction
    (V, v) gives r = d h along it; a cotangent gives d = cotangent of z. See Pearlmutter 1994 for the second derivative.
    """

    def __init__(self, params: Params, inputs: Tensor, activation: str, appended: str | None = None):
        """
        Args:
            params: stacked [n, ...]; besides the layers only `appended`.
            inputs: [n, B, in].
            appended: a parameter [n, k] that is repeated over the rows behind the network's outputs.
        """
        self._depth = sum(name.endswith(".weight") for name in params)
        self._activation, self._appended = activation, appended
        self._params = params
        self._hidden = [inputs]  # [n, B, width] going into each layer
        for layer in range(self._depth):
            outputs = linear(self._hidden[-1], *self._layer(params, layer))
            if layer < self._depth - 1:
                self._hidden.append(IN_PLACE[activation](outputs))
        self._width = outputs.shape[-1]
        if appended is not None:
            extra = params[appended].unsqueeze(-2).expand(*outputs.shape[:-1], -1)
            outputs = torch.cat([outputs, extra], dim=-1)
        self.outputs = outputs
        self._slopes: list[Tensor] = []  # of tanh, once they are needed
        self._fixed: list[Tensor] = []
        self._above: list[Tensor] = []

    def push(self, direction: Params) -> Tensor:
        return self._push(direction)[0]

    def pull(self, cotangent: Tensor) -> Params:
        return self._gradient(cotangent, self._descend(cotangent)[0])

    def fix_cotangent(self, cotangent: Tensor) -> Params:
        self._fixed, self._above = self._descend(cotangent)
        return self._gradient(cotangent, self._fixed)

    def pull_change(self, direction: Params, change: Callable[[Tensor], Tensor]) -> Params:
        assert self._fixed, "fix_cotangent comes first"
        pushed, tangents = self._push(direction)
        outer = change(pushed)
        changes = [outer[..., : self._width].contiguous()]  # of the cotangents, last layer first
        for layer in range(self._depth - 1, 0, -1):
            weight, turned = self._params[f"{layer}.weight"], direction[f"{layer}.weight"]
            above = torch.bmm(changes[-1], weight.mT).baddbmm_(self._fixed[layer], turned.mT)
            self._through_(layer, above)
            if self._activation == "tanh":  # the slope 1 - h^2 changes as well; that of ReLU does not
                above.addcmul_(self._above[layer] * self._hidden[layer], tangents[layer], value=-2.0)
            changes.append(above)
        changes.reverse()
        gradient = self._gradient(outer, changes)
        for layer in range(1, self._depth):
            gradient[f"{layer}.weight"].add_(correlation(tangents[layer], self._fixed[layer]))
        return gradient

    def _push(self, direction: Params) -> tuple[Tensor, list[Tensor]]:
        """Directional derivative of the outputs and of the inputs of every layer (of the first: none)."""
        tangents = [torch.empty(0)]
        for layer in range(self._depth):
            weight, bias = self._layer(direction, layer)
            moved = times(self._hidden[layer], weight).add_(bias.unsqueeze(-2))
            if layer == self._depth - 1:
                moved = moved.add_(times(tangents[-1], self._params[f"{layer}.weight"])) if layer else moved
            else:
                if layer > 0:
                    moved.baddbmm_(tangents[-1], self._params[f"{layer}.weight"])
                tangents.append(self._through_(layer + 1, moved))
        if self._appended is not None:
            extra = direction[self._appended].unsqueeze(-2).expand(*moved.shape[:-1], -1)
            moved = torch.cat([moved, extra], dim=-1)
        return moved, tangents

    def _descend(self, cotangent: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Cotangents of every layer's z, and of the hidden values that go into it (into the first: none)."""
        inner, above = [cotangent[..., : self._width].contiguous()], []
        for layer in range(self._depth - 1, 0, -1):
            entering = torch.bmm(inner[-1], self._params[f"{layer}.weight"].mT)
            if self._activation == "tanh":
                above.append(entering)
                entering = entering.clone()
            inner.append(self._through_(layer, entering))
        return inner[::-1], [torch.empty(0), *above[::-1]]

    def _gradient(self, cotangent: Tensor, inner: list[Tensor]) -> Params:
        gradient: Params = {}
        for layer, each in enumerate(inner):
            gradient[f"{layer}.weight"] = correlation(self._hidden[layer], each)
            gradient[f"{layer}.bias"] = each.sum(dim=-2)
        if self._appended is not None:
            gradient[self._appended] = cotangent[..., self._width :].sum(dim=-2)
        return gradient

    def _through_(self, layer: int, values: Tensor) -> Tensor:
        """Multiply by the derivative of the activation that feeds `layer`, in place."""
        if self._activation == "relu":  # spares the derivative's own tensor
            hidden = self._hidden[layer]
            return torch.ops.aten.threshold_backward.grad_input(values, hidden, 0.0, grad_input=values)
        if not self._slopes:
            self._slopes = [1.0 - hidden.square() for hidden in self._hidden[1:]]
        return values.mul_(self._slopes[layer - 1])

    def _layer(self, params: Params, layer: int) -> tuple[Tensor, Tensor]:
        return params[f"{layer}.weight"], params[f"{layer}.bias"]
