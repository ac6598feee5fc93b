"""Batch normalisation whose second derivatives take half as many passes over the maps as torch's.

torch composes them of some twenty operations; written out, they are one call of its first derivative and eight
operations more. Values and first derivatives are torch's own, to the last bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


def batch_norm(rows: Tensor, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """scale * (x - mean) / sqrt(variance + epsilon) + bias, with moments over the rows.

    Args:
        rows: [R, C].
        scale, bias: [C].
    Returns:
        [R, C].
    """
    normalised: Tensor = _Forward.apply(rows, scale, bias, epsilon)[0]  # type: ignore[no-untyped-call]
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
    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, scale: Tensor, bias: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
        """The normalised rows; mean and 1 / sqrt(variance + epsilon), for the derivatives alone."""
        normalised, mean, inverse = torch.native_batch_norm(rows, scale, bias, None, None, True, 0.0, epsilon)
        return normalised, mean, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        rows, scale, _, ctx.epsilon = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(rows, scale, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return *_Backward.apply(grad, *ctx.saved_tensors, ctx.epsilon), None  # type: ignore[no-untyped-call]


class _Backward(torch.autograd.Function):
    """The first derivatives as functions of grad, rows and scale."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad: Tensor, rows: Tensor, scale: Tensor, mean: Tensor, inverse: Tensor, epsilon: float
    ) -> tuple[Tensor, ...]:
        return tuple(_gradients(grad, rows, scale, mean, inverse, epsilon))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.epsilon = inputs
        ctx.save_for_backward(*tensors, *output[1:])

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, in_rows: Tensor, in_scale: Tensor, in_bias: Tensor
    ) -> tuple[Tensor | None, ...]:
        grad, rows, scale, mean, inverse, grad_along, grad_sum = ctx.saved_tensors
        directions = _Gradients(in_rows, in_scale, in_bias)
        if torch.is_grad_enabled():  # to be differentiated once more
            changes = changes_of_gradients(directions, grad, rows, scale, ctx.epsilon)
        else:
            known = _Gradients(grad, grad_along, grad_sum)
            changes = _fused(directions, known, rows, scale, mean, inverse, ctx.epsilon)
        return *changes, None, None, None


def changes_of_gradients(
    directions: _Gradients, grad: Tensor, rows: Tensor, scale: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives, in grad, rows and scale, of u . d_rows + v . d_scale + w . d_bias, where u, v and w are the
    directions.

    With s = 1 / sqrt(variance + epsilon), x^ = s (x - mean) and P y = y - mean(y) - x^ mean(y x^), the first
    derivatives are d_rows = scale s P grad, d_scale = sum(grad x^) and d_bias = sum(grad). P is symmetric.
    """
    along, in_scale, in_bias = directions
    inverse = (rows.var(dim=0, unbiased=False) + epsilon).rsqrt()
    unit = inverse * (rows - rows.mean(dim=0))

    def project(y: Tensor) -> Tensor:
        return y - y.mean(dim=0) - unit * (y * unit).mean(dim=0)

    product = (along * project(grad)).sum(dim=0)
    q = in_scale * grad - scale * inverse * (along * (grad * unit).mean(dim=0) + grad * (along * unit).mean(dim=0))
    return (
        scale * inverse * project(along) + in_scale * unit + in_bias,
        inverse * project(q) - scale * inverse.square() * unit * product / len(rows),
        inverse * product,
    )


def _fused(
    directions: _Gradients,
    known: _Gradients,
    rows: Tensor,
    scale: Tensor,
    mean: Tensor,
    inverse: Tensor,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`changes_of_gradients` in fewer passes over [R, C].

    Args:
        known: grad, d_scale and d_bias.
        mean, inverse: as torch's kernel gives them.
    """
    in_rows, in_scale, in_bias = directions
    grad, grad_along, grad_sum = known
    count = len(rows)
    in_grad, along, total = _gradients(in_rows, rows, scale, mean, inverse, epsilon)
    product = (in_rows * grad).sum(dim=0) - (total * grad_sum + along * grad_along) / count
    slope = in_scale * inverse
    in_grad = in_grad.addcmul_(rows, slope).add_(in_bias - slope * mean)

    of_in_rows = -scale * inverse * grad_along / count
    of_grad = in_scale - scale * inverse * along / count
    q_mean = (of_in_rows * total + of_grad * grad_sum) / count
    q_along = (of_in_rows * along + of_grad * grad_along) / count
    of_rows = -inverse.square() * (q_along + scale * inverse * product / count)
    in_x = (in_rows * (inverse * of_in_rows)).addcmul_(grad, inverse * of_grad).addcmul_(rows, of_rows)
    return in_grad, in_x.sub_(inverse * q_mean + of_rows * mean), inverse * product
