"""Batch normalisation whose second derivatives take half as many passes over the maps as torch's.

torch composes them of some twenty operations; written out, they are one call of its first derivative and eight
operations more. Values and first derivatives are torch's own, to the last bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def batch_norm(rows: Tensor, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """scale * (x - mean) / sqrt(variance + epsilon) + bias, with moments over the rows.

    Args:
        rows: [R, C].
        scale, bias: [C].
    Returns:
        [R, C], which can be differentiated twice.
    """
    normalised: Tensor = _Forward.apply(rows, scale, bias, epsilon)  # type: ignore[no-untyped-call]
    return normalised


class _Gradients(NamedTuple):
    rows: Tensor  # [R, C]
    scale: Tensor  # [C]
    bias: Tensor  # [C]


def _gradients(grad: Tensor, rows: Tensor, scale: Tensor, mean: Tensor, inverse: Tensor, epsilon: float) -> _Gradients:
    """First derivatives by torch's kernel: [R, C], the sum of grad * x^ and that of grad."""
    moments = (None, None, mean, inverse)
    return _Gradients(
        *torch.ops.aten.native_batch_norm_backward(grad, rows, scale, *moments, True, epsilon, [True, True, True])
    )


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        normalised, mean, inverse = torch.native_batch_norm(rows, scale, bias, None, None, True, 0.0, epsilon)
        ctx.save_for_backward(rows, scale, mean, inverse)
        ctx.epsilon = epsilon
        return normalised

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, scale, mean, inverse = ctx.saved_tensors
        return *_Backward.apply(grad, rows, scale, mean, inverse, ctx.epsilon), None  # type: ignore[no-untyped-call]


class _Backward(torch.autograd.Function):
    """The first derivatives as functions of grad, rows and scale."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, rows: Tensor, scale: Tensor, mean: Tensor, inverse: Tensor, epsilon: float
    ) -> _Gradients:
        gradients = _gradients(grad, rows, scale, mean, inverse, epsilon)
        ctx.save_for_backward(grad, rows, scale, mean, inverse, gradients.scale, gradients.bias)
        ctx.epsilon = epsilon
        return gradients

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(  # type: ignore[override]
        ctx: Any, in_rows: Tensor, in_scale: Tensor, in_bias: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Derivatives of u . d_rows + v . d_scale + w . d_bias, with u = in_rows, v = in_scale and w = in_bias.

        With s = 1 / sqrt(variance + epsilon), x^ = s (x - mean) and P y = y - mean(y) - x^ mean(y x^), the first
        derivatives are d_rows = scale s P grad, d_scale = sum(grad x^) and d_bias = sum(grad). P is symmetric; with
        q = -scale s (u mean(grad x^) + grad mean(u x^)) + v grad, these are, in grad: scale s P u + v x^ + w; in rows:
        s P q - scale s^2 x^ (u . P grad) / R; in scale: s (u . P grad).
        """
        grad, rows, scale, mean, inverse, grad_along, grad_sum = ctx.saved_tensors
        count = len(rows)
        in_grad, along, total = _gradients(in_rows, rows, scale, mean, inverse, ctx.epsilon)
        product = (in_rows * grad).sum(dim=0) - (total * grad_sum + along * grad_along) / count  # u . P grad
        slope = in_scale * inverse
        in_grad.addcmul_(rows, slope).add_(in_bias - slope * mean)

        of_in_rows = -scale * inverse * grad_along / count
        of_grad = in_scale - scale * inverse * along / count
        q_mean = (of_in_rows * total + of_grad * grad_sum) / count
        q_along = (of_in_rows * along + of_grad * grad_along) / count
        of_rows = -inverse.square() * (q_along + scale * inverse * product / count)
        in_x = (in_rows * (inverse * of_in_rows)).addcmul_(grad, inverse * of_grad).addcmul_(rows, of_rows)
        in_x.sub_(inverse * q_mean + of_rows * mean)
        return in_grad, in_x, inverse * product, None, None, None
