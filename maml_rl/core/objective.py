"""The meta-objective, mean_i L_query_i(adapt(theta, support_i)), as a function of theta: value, gradient, curvature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_rl.core.contracts import Model
from maml_rl.core.inner import (
    InnerConfig,
    InnerStep,
    StepSize,
    adapt,
    inner_gradient,
    scale,
    split_step_sizes,
    subtract,
)
from maml_rl.core.lift import Threads, lift
from maml_rl.core.output_map import LossAtOutputs, OutputMap
from maml_rl.core.trees import Params, concatenate_tasks, flatten, num_tasks, stack, take_tasks, unflatten


class Evaluation(NamedTuple):
    loss: float  # mean over tasks of the query loss after adaptation
    divergence: float  # mean over tasks of KL(old || new) of the adapted outputs


class Linearization(NamedTuple):
    """The meta-objective to first order, and its Fisher matrix, around one theta."""

    loss: float
    gradient: Tensor  # [P], or [2 P] where step sizes are learned: theta's, then theirs, the same size in every step
    gradient_norm: float  # of theta's part
    fisher_product: Callable[[Tensor], Tensor]  # [P] -> [P], in theta


class MetaObjective:
    """The meta-loss of one iteration's data as a function of all that is learned: theta, and learned step_sizes/...

    Every evaluation adapts anew from the candidate theta: the trust region lies around the adapted policies.

    Attributes:
        adapted: theta' [task, ...] at the parameters of the last linearisation; None before the first.
    """

    def __init__(
        self,
        model: Model,
        inner: InnerConfig,
        supports: Sequence[Any],
        query: Any,
        threads: Threads,
        step_sizes: Sequence[StepSize] | None = None,
    ):
        """
        Args:
            step_sizes: numbers or trees, one for each support, if none are learned; by default those of `inner`.
        """
        self.adapted: Params | None = None
        self._model, self._inner, self._threads = model, inner, threads
        self._step_sizes = inner.step_sizes if step_sizes is None else step_sizes
        self._num_tasks = num_tasks(query)
        self._data = [
            (take_tasks(query, *chunk), [take_tasks(support, *chunk) for support in supports])
            for chunk in threads.chunks(query)
        ]
        self._old_outputs: list[Tensor] = []

    def evaluate(self, params: Params) -> Evaluation:
        """Loss at a candidate, and its divergence from the parameters of the last linearisation."""
        model, (theta, step_sizes) = self._model, self._split(params)
        assert self._old_outputs, "linearize comes first: it sets the outputs that the divergence is measured from"

        def one_chunk(data: tuple[Any, list[Any]], old_outputs: Tensor) -> tuple[Tensor, Tensor]:
            query, supports = data
            start = stack(theta, num_tasks(query))
            adapted = adapt(inner_gradient(model), start, supports, step_sizes)
            with torch.no_grad():
                outputs = model.linearize(adapted, query).outputs
                loss = lift(model.outer_loss_at)(outputs, query)
                return loss, lift(model.divergence)(old_outputs, outputs, query)

        pieces = self._threads.map(one_chunk, self._data, self._old_outputs)
        losses, divergences = (torch.cat(column).double() for column in zip(*pieces, strict=True))
        return Evaluation(losses.mean().item(), divergences.mean().item())

    def linearize(self, params: Params, fisher_share: float) -> Linearization:
        """Value and gradient at the parameters, and Fisher products that rest on a share of each task's data.

        Args:
            fisher_share: 1 for the exact matrix, 0 for none.
        """
        theta, step_sizes = self._split(params)
        chunks = self._threads.map(
            lambda data: _Chunk(self._model, self._inner, step_sizes, theta, data[0], data[1], fisher_share),
            self._data,
        )
        self._old_outputs = [chunk.old_outputs for chunk in chunks]

        def fisher_product(vector: Tensor) -> Tensor:
            direction = unflatten(vector, theta)
            return self._mean(self._threads.map(lambda chunk: chunk.fisher_product(direction), chunks))

        loss = self._mean([chunk.loss for chunk in chunks])
        gradient = self._mean([chunk.gradient for chunk in chunks])
        gradient_norm = gradient.norm().item()
        self.adapted = concatenate_tasks([chunk.adapted for chunk in chunks])
        slopes = [chunk.step_size_gradient for chunk in chunks if chunk.step_size_gradient is not None]
        if slopes:
            gradient = torch.cat([gradient, self._mean(slopes)])
        return Linearization(loss.item(), gradient, gradient_norm, fisher_product)

    def _split(self, params: Params) -> tuple[Params, Sequence[StepSize]]:
        theta, learned = split_step_sizes(params)
        return theta, [learned] * len(self._step_sizes) if learned else self._step_sizes

    def _mean(self, sums: Sequence[Tensor]) -> Tensor:
        """The mean over tasks from sums over chunks, added in double precision in the order of the tasks."""
        total = sums[0].double()
        for each in sums[1:]:
            total = total + each.double()
        return (total / self._num_tasks).to(sums[0].dtype)


class _Path:
    """A few tasks' outputs as functions of theta, linearised: J_i = d outputs_i / d theta = D A_K ... A_1.

    D is the outputs' Jacobian at theta'; A = I - alpha H for each inner step, H being the inner loss's Hessian there.
    """

    def __init__(
        self,
        inner: InnerConfig,
        steps: Sequence[InnerStep],
        step_sizes: Sequence[StepSize],
        outputs: OutputMap,
    ):
        self._steps = [] if inner.first_order else list(zip(steps, step_sizes, strict=True))
        self._inner_steps, self._outputs = steps, outputs

    def push(self, direction: Params) -> Tensor:
        """J_i direction_i: [n, ...] to [n, B, width]."""
        for step, step_size in self._steps:
            direction = subtract(direction, scale(step.hessian_product(direction), step_size))
        return self._outputs.push(direction)

    def pull(self, cotangent: Tensor) -> Params:
        """J_i' cotangent_i: [n, B, width] to [n, ...]."""
        return self.pulls(cotangent)[-1]

    def pulls(self, cotangent: Tensor) -> list[Params]:
        """The same for the parameters after the last inner step, after the one before, ..., theta."""
        pulled = [self._outputs.pull(cotangent)]
        for step, step_size in reversed(self._steps):
            pulled.append(subtract(pulled[-1], step.hessian_product(scale(pulled[-1], step_size))))
        return pulled

    def step_size_slopes(self, pulled: Sequence[Params]) -> list[Params]:
        """A loss's derivative in the sizes of the last step, the one before, ..., from `pulls` of the loss's slope.

        theta'' = theta' - alpha * g depends on alpha by -g."""
        befores = pulled[: len(self._inner_steps)] if self._steps else [pulled[0]] * len(self._inner_steps)
        pairs = zip(befores, reversed(self._inner_steps), strict=True)
        return [{name: -before[name] * step.gradient[name] for name in before} for before, step in pairs]


class _Chunk:
    """A few tasks: loss, gradient and Fisher matrix sum_i J_i' F_i J_i, F_i the divergence's Hessian in the outputs.

    At theta the divergence and its gradient vanish, so that this is its exact Hessian in theta, second-order terms of
    the inner steps and all.
    """

    def __init__(
        self,
        model: Model,
        inner: InnerConfig,
        step_sizes: Sequence[StepSize],
        theta: Params,
        query: Any,
        supports: Sequence[Any],
        fisher_share: float,
    ):
        self._num_tasks, self._names = num_tasks(query), list(theta)
        steps: list[InnerStep] = []
        points: list[Params] = []

        def recorded_gradient(params: Params, support: Any) -> Params:
            points.append(params)
            steps.append(InnerStep(model, params, support, with_hessian=not inner.first_order))
            return steps[-1].gradient

        adapted = adapt(recorded_gradient, stack(theta, self._num_tasks), supports, step_sizes)
        self.adapted = adapted
        outputs = model.linearize(adapted, query)
        self._path = _Path(inner, steps, step_sizes, outputs)
        self.old_outputs = outputs.outputs.detach()
        outer = LossAtOutputs(model.outer_loss_at, self.old_outputs, query)
        self.loss = outer.values.sum()
        pulled = self._path.pulls(outer.slope)
        self.gradient = self._sum(pulled[-1])
        self.step_size_gradient: Tensor | None = None
        if inner.learn_step_sizes:
            slopes = [self._sum(slope) for slope in self._path.step_size_slopes(pulled)]
            self.step_size_gradient = torch.stack(slopes).sum(dim=0)
        if 0.0 < fisher_share < 1.0:  # around the same points: theta' itself uses all data
            query = model.part(query, fisher_share)
            parts = [model.part(support, fisher_share) for support in supports]
            steps = [InnerStep(model, p, s, not inner.first_order) for p, s in zip(points, parts, strict=True)]
            outputs = model.linearize(adapted, query)
            self._path = _Path(inner, steps, step_sizes, outputs)
        if fisher_share > 0.0:
            old = outputs.outputs.detach()
            self._divergence = LossAtOutputs(
                lambda outputs, data: model.divergence(data[0], outputs, data[1]), old, (old, query)
            )

    def fisher_product(self, direction: Params) -> Tensor:
        """The product sum_i J_i' F_i J_i direction: [P]."""
        pushed = self._path.push(stack(direction, self._num_tasks))
        return self._sum(self._path.pull(self._divergence.curve(pushed)))

    def _sum(self, tree: Params) -> Tensor:
        """The sum over tasks: [n, ...] to [P]."""
        return flatten({name: tree[name].sum(dim=0) for name in self._names})
