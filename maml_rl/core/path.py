"""The way from theta over the inner steps to the outputs on the query, as one function with its derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maml_rl.core.contracts import Model
from maml_rl.core.inner import InnerConfig, InnerStep, StepSize, adapt, scale, subtract
from maml_rl.core.output_map import OutputMap
from maml_rl.core.trees import Params, flatten, num_tasks, stack


class Path:
    """A few tasks' outputs as functions of theta, linearised: J_i = d outputs_i / d theta = D A_K ... A_1.

    D is the outputs' Jacobian at theta'; A = I - alpha H for each inner step, H being the inner loss's Hessian there.

    Attributes:
        adapted: theta' [n, ...].
        steps: the inner steps, each with the outputs on its own support.
    """

    def __init__(
        self,
        model: Model,
        inner: InnerConfig,
        step_sizes: Sequence[StepSize],
        points: Sequence[Params],
        steps: Sequence[InnerStep],
        query: Any,
    ):
        """
        Args:
            points: theta, theta after one step, ..., theta' [n, ...].
        """
        self._model, self._inner, self._step_sizes, self._points = model, inner, step_sizes, points
        self.steps, self.adapted = steps, points[-1]
        self._map: OutputMap = model.linearize(self.adapted, query)
        self.outputs = self._map.outputs.detach()  # [n, B, width]

    def on(self, query: Any, supports: Sequence[Any]) -> Path:
        """The same path around the same points, its derivatives from other data."""
        pairs = zip(self._points, supports, strict=False)
        steps = [InnerStep(self._model, point, support, not self._inner.first_order) for point, support in pairs]
        return Path(self._model, self._inner, self._step_sizes, self._points, steps, query)

    def push(self, direction: Params) -> Tensor:
        """J_i direction_i: [n, ...] to [n, B, width]."""
        if not self._inner.first_order:
            for step, step_size in zip(self.steps, self._step_sizes, strict=True):
                direction = subtract(direction, scale(step.hessian_product(direction), step_size))
        return self._map.push(direction)

    def pulls(self, cotangent: Tensor, on_supports: Sequence[Tensor | None] | None = None) -> list[Params]:
        """J_i' cotangent_i, [n, B, width] to [n, ...], for theta', the parameters before the last inner step, ...,
        theta.

        Args:
            on_supports: further cotangents [n, B, width] at the outputs on each inner step's support, before the step,
                None for none. In second order they cost nothing, since they join the one that passes through the step.
        """
        pulled = [self._map.pull(cotangent)]
        further = [None] * len(self.steps) if on_supports is None else on_supports
        for step, step_size, extra in reversed(list(zip(self.steps, self._step_sizes, further, strict=True))):
            after = pulled[-1]
            if not self._inner.first_order:
                pulled.append(subtract(after, step.hessian_product(scale(after, step_size), less=extra)))
            else:
                pulled.append(after if extra is None else subtract(after, step.pull(-extra)))
        return pulled

    def gradients(
        self, slope: Tensor, on_supports: Sequence[Tensor | None] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The sums over tasks of a loss's gradient in theta and, where they are learned, in the step sizes: [P] each.

        Args:
            slope, on_supports: of the loss in the outputs, as for `pulls`.
        """
        pulled = self.pulls(slope, on_supports)
        gradient = sum_over_tasks(pulled[-1], self._points[0])
        if not self._inner.learn_step_sizes:
            return gradient, None
        # theta'' = theta' - alpha * g depends on alpha by -g
        pairs = zip(pulled, reversed(self.steps), strict=False)
        slopes = [{name: -after[name] * step.gradient[name] for name in after} for after, step in pairs]
        return gradient, torch.stack([sum_over_tasks(each, self._points[0]) for each in slopes]).sum(dim=0)


def follow(
    model: Model,
    inner: InnerConfig,
    step_sizes: Sequence[StepSize],
    theta: Params,
    query: Any,
    supports: Sequence[Any],
    with_hessian: bool = True,
) -> Path:
    """Adapt from theta, and keep what the derivatives along the way need.

    Args:
        with_hessian: False where only outputs are wanted.
    """
    steps: list[InnerStep] = []
    points: list[Params] = []

    def recorded_gradient(params: Params, support: Any) -> Params:
        points.append(params)
        steps.append(InnerStep(model, params, support, with_hessian=with_hessian and not inner.first_order))
        return steps[-1].gradient

    adapted = adapt(recorded_gradient, stack(theta, num_tasks(query)), supports, step_sizes)
    return Path(model, inner, step_sizes, [*points, adapted], steps, query)


def sum_over_tasks(tree: Params, like: Params) -> Tensor:
    """[n, ...] to [P], in the order of the names of `like`."""
    return flatten({name: tree[name].sum(dim=0) for name in like})
