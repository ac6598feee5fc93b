"""The map from parameters to outputs on given data, with its derivatives: all that adaptation and curvature need.

A task's losses depend on the parameters through the outputs alone (a policy's distributions, a network's predictions).
So the derivatives split into those of the map, which are costly and the same for every loss, and those of the loss in
its outputs, which are cheap. `AutogradMap` works for any function; a network may bring its own faster one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from maml_rl.core.lift import lift
from maml_rl.core.trees import Params, as_leaves


class OutputMap(Protocol):
    """The outputs of n tasks as a function of parameters, linearised at one point. J is its Jacobian there.

    Parameters and directions are stacked [n, ...]; outputs, cotangents and pushed directions are [n, B, width].
    """

    outputs: Tensor

    def push(self, direction: Params) -> Tensor:
        """The product J direction."""

    def pull(self, cotangent: Tensor) -> Params:
        """The product J' cotangent."""

    def fix_cotangent(self, cotangent: Tensor) -> Params:
        """Do a `pull`, and remember what `pull_change` needs."""

    def pull_change(self, direction: Params, change: Callable[[Tensor], Tensor]) -> Params:
        """The change of J' c as the parameters move in `direction`, for the cotangent c that was fixed.

        Args:
            change: the pushed direction -> the accompanying change of c.
        Returns:
            (d^2 (c' outputs) / d params^2) direction + J' change(J direction).
        """


class _Following(torch.autograd.Function):
    """A cotangent as a function of the outputs, so that one backward pass gives both the change of J' and that of c."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, cotangent: Tensor, change: list[Callable[[Tensor], Tensor]]) -> Tensor:
        ctx.change = change
        return cotangent.detach()

    @staticmethod
    def backward(ctx: Any, *pushed: Tensor) -> tuple[Tensor, None, None]:
        return ctx.change[0](pushed[0]), None, None


class AutogradMap:
    """An `OutputMap` of any differentiable function, by backward passes over a kept graph."""

    def __init__(self, outputs: Callable[[Params, Any], Tensor], params: Params, data: Any):
        """
        Args:
            outputs: of ONE task: (params, data) -> [B, width]; or one that `takes_stacked`.
            params, data: stacked [n, ...].
        """
        self._variables = as_leaves(params)
        self._leaves = list(self._variables.values())
        with torch.enable_grad():
            self._outputs = lift(outputs)(self._variables, data)
        self.outputs = self._outputs.detach()
        self._slope: tuple[Tensor, ...] = ()
        self._change: list[Callable[[Tensor], Tensor]] = []

    def push(self, direction: Params) -> Tensor:
        with torch.enable_grad():  # w -> J' w is linear, and its own reverse is J
            cotangent = torch.zeros_like(self.outputs).requires_grad_()
            transposed = self._grad(self._outputs, cotangent, create_graph=True)
            pairs = [(t, d) for t, d in zip(transposed, direction.values(), strict=True) if t.requires_grad]
            tensors, directions = zip(*pairs, strict=True)
            (pushed,) = torch.autograd.grad(tensors, cotangent, directions, retain_graph=True)
        return pushed

    def pull(self, cotangent: Tensor) -> Params:
        return self._named(self._grad(self._outputs, cotangent, create_graph=False))

    def fix_cotangent(self, cotangent: Tensor) -> Params:
        with torch.enable_grad():
            following = _Following.apply(self._outputs, cotangent, self._change)
            self._slope = self._grad(self._outputs, following, create_graph=True)
        return self._named(tuple(slope.detach() for slope in self._slope))

    def pull_change(self, direction: Params, change: Callable[[Tensor], Tensor]) -> Params:
        assert self._slope, "fix_cotangent comes first"
        pairs = [(s, d) for s, d in zip(self._slope, direction.values(), strict=True) if s.requires_grad]
        slopes, directions = zip(*pairs, strict=True)
        self._change[:] = [change]
        changes = torch.autograd.grad(
            slopes,
            self._leaves,
            directions,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        self._change.clear()
        return self._named(changes)

    def _grad(self, outputs: Tensor, cotangent: Tensor, create_graph: bool) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            outputs,
            self._leaves,
            cotangent,
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )

    def _named(self, tensors: tuple[Tensor, ...]) -> Params:
        return dict(zip(self._variables, tensors, strict=True))


class LossAtOutputs:
    """A loss as a function of the outputs, to second order at one point; the tasks' losses are independent."""

    def __init__(self, loss: Callable[[Tensor, Any], Tensor], outputs: Tensor, data: Any, to_second_order: bool = True):
        """
        Args:
            loss: of ONE task: (outputs [B, width], data) -> scalar.
            outputs, data: stacked [n, ...].
            to_second_order: False where `curve` is not needed.
        """
        self._at = outputs.detach().requires_grad_()
        with torch.enable_grad():
            values = lift(loss)(self._at, data)
            (self._slope,) = torch.autograd.grad(values.sum(), self._at, create_graph=to_second_order)
        self.values = values.detach()  # [n]
        self.slope = self._slope.detach()  # [n, B, width]

    def curve(self, direction: Tensor) -> Tensor:
        """The Hessian in the outputs times a direction: [n, B, width] to [n, B, width]."""
        if not self._slope.requires_grad:
            return torch.zeros_like(direction)
        (product,) = torch.autograd.grad(self._slope, self._at, direction, retain_graph=True)
        return product
