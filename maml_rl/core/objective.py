"""The meta-objective as a function of theta: value, gradient, curvature.

mean_i [L_query_i(theta_i^K) + w sum_k L_support_k_i(theta_i^k)], where theta_i^k are task i's parameters after k of its
K inner steps and support_k the data of the step that follows. The weight w is 0 in Finn et al. 2017. Above 0 it is the
multi-step loss of Antoniou et al. 2019 (section 4, arXiv:1810.09502), with the loss before the first step in addition,
on the support in place of the query, and with one weight that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from maml_rl.core.contracts import Model
from maml_rl.core.inner import InnerConfig, InnerStep, StepSize, adapt, split_step_sizes
from maml_rl.core.lift import Threads, lift
from maml_rl.core.output_map import LossAtOutputs
from maml_rl.core.path import Path, follow
from maml_rl.core.trees import Params, concatenate_tasks, num_tasks, stack, take_tasks, unflatten

Result = TypeVar("Result")


class Evaluation(NamedTuple):
    loss: float  # mean over tasks
    divergence: float  # mean over tasks of KL(old || new) of the adapted outputs


class Linearization(NamedTuple):
    """The meta-objective to first order, and its Fisher matrix, around one theta."""

    loss: float
    gradient: Tensor  # [P], or [2 P] where step sizes are learned: theta's, then theirs, the same size in every step
    gradient_norm: float  # of theta's part
    fisher_product: Callable[[Tensor], Tensor]  # [P] -> [P], in theta


class Begun(NamedTuple):
    """The tasks at the parameters that an outer step begins with."""

    adapted: Params  # theta' [task, ...]
    before: Tensor | None  # outputs [task, B, width] at theta on the first support; None without inner steps
    after: Tensor | None  # outputs [task, B, width] at theta' on the query; None where they are not known


class MetaObjective:
    """The meta-loss of one iteration's data as a function of all that is learned: theta, and learned step_sizes/...

    Every evaluation adapts anew from the candidate theta: the trust region lies around the adapted policies.

    Attributes:
        model: of the tasks' family.
        begun: at the parameters that the outer step begins with, once they have been asked about.
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
        self.begun: Begun | None = None
        self.model, self._inner, self._threads = model, inner, threads
        self._step_sizes = inner.step_sizes if step_sizes is None else step_sizes
        self._num_tasks = num_tasks(query)
        self._data = [
            (take_tasks(query, *chunk), [take_tasks(support, *chunk) for support in supports])
            for chunk in threads.chunks(query)
        ]
        self._old_outputs: list[Tensor] = []

    @property
    def num_steps(self) -> int:
        """The number of inner steps."""
        return len(self._step_sizes)

    @property
    def before_weight(self) -> float:
        """Weight of the loss before each inner step."""
        return self._inner.before_weight

    @property
    def queries(self) -> list[Any]:
        """The query data of each chunk of tasks."""
        return [query for query, _ in self._data]

    def along_paths(
        self, function: Callable[..., Result], params: Params, *columns: Sequence[Any], with_hessian: bool
    ) -> list[Result]:
        """Adapt the tasks from the parameters, a few at a time, and apply a function to what lies on the way.

        Args:
            function: (path, query, supports, further arguments) -> result, of a chunk of tasks.
            columns: further arguments, each with an entry for every chunk.
            with_hessian: False where the function takes no derivative.
        """
        theta, step_sizes = self._split(params)

        def one_chunk(data: tuple[Any, list[Any]], *further: Any) -> tuple[Result, Begun]:
            path = follow(self.model, self._inner, step_sizes, theta, *data, with_hessian=with_hessian)
            return function(path, *data, *further), _begun(path)

        results, ways = zip(*self._threads.map(one_chunk, self._data, *columns), strict=True)
        if self.begun is None:
            self.begun = concatenate_tasks(list(ways))
        return list(results)

    def evaluate(self, params: Params) -> Evaluation:
        """Loss at a candidate, and its divergence from the parameters of the last linearisation."""
        model, (theta, step_sizes) = self.model, self._split(params)
        assert self._old_outputs, "linearize comes first: it sets the outputs that the divergence is measured from"

        def one_chunk(data: tuple[Any, list[Any]], old_outputs: Tensor) -> tuple[Tensor, Tensor]:
            query, supports = data
            befores: list[Tensor] = []

            def recorded_gradient(params: Params, support: Any) -> Params:
                step = InnerStep(model, params, support, with_hessian=False)
                befores.append(step.outputs)
                return step.gradient

            adapted = adapt(recorded_gradient, stack(theta, num_tasks(query)), supports, step_sizes)
            with torch.no_grad():
                outputs = model.linearize(adapted, query).outputs
                loss = lift(model.outer_loss_at)(outputs, query)
                if self._inner.before_weight:
                    for before, support in zip(befores, supports, strict=True):
                        loss = loss + self._inner.before_weight * lift(model.outer_loss_at)(before, support)
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
            lambda data: _Chunk(self.model, self._inner, step_sizes, theta, data[0], data[1], fisher_share),
            self._data,
        )
        self._old_outputs = [chunk.old_outputs for chunk in chunks]

        def fisher_product(vector: Tensor) -> Tensor:
            direction = unflatten(vector, theta)
            return self.mean(self._threads.map(lambda chunk: chunk.fisher_product(direction), chunks))

        loss = self.mean([chunk.loss for chunk in chunks])
        gradient = self.mean([chunk.gradient for chunk in chunks])
        gradient_norm = gradient.norm().item()
        self.begun = concatenate_tasks([chunk.begun for chunk in chunks])
        slopes = [chunk.step_size_gradient for chunk in chunks if chunk.step_size_gradient is not None]
        if slopes:
            gradient = torch.cat([gradient, self.mean(slopes)])
        return Linearization(loss.item(), gradient, gradient_norm, fisher_product)

    def _split(self, params: Params) -> tuple[Params, Sequence[StepSize]]:
        theta, learned = split_step_sizes(params)
        return theta, [learned] * len(self._step_sizes) if learned else self._step_sizes

    def mean(self, sums: Sequence[Tensor]) -> Tensor:
        """The mean over tasks from sums over chunks, added in double precision in the order of the tasks."""
        total = sums[0].double()
        for each in sums[1:]:
            total = total + each.double()
        return (total / self._num_tasks).to(sums[0].dtype)


def _begun(path: Path) -> Begun:
    return Begun(path.adapted, path.steps[0].outputs if path.steps else None, path.outputs)


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
        self._num_tasks = num_tasks(query)
        self._path = follow(model, inner, step_sizes, theta, query, supports)
        self.begun = _begun(self._path)
        self.old_outputs = self._path.outputs
        outer = LossAtOutputs(model.outer_loss_at, self.old_outputs, query)
        self.loss, further = outer.values.sum(), None
        if supports and inner.before_weight:
            befores = [
                LossAtOutputs(model.outer_loss_at, step.outputs, support, to_second_order=False)
                for step, support in zip(self._path.steps, supports, strict=True)
            ]
            for before in befores:
                self.loss = self.loss + inner.before_weight * before.values.sum()
            further = [inner.before_weight * before.slope for before in befores]
        self.gradient, self.step_size_gradient = self._path.gradients(outer.slope, further)
        if 0.0 < fisher_share < 1.0:
            query = model.part(query, fisher_share)
            self._path = self._path.on(query, [model.part(support, fisher_share) for support in supports])
        if fisher_share > 0.0:
            old = self._path.outputs
            self._divergence = LossAtOutputs(
                lambda outputs, data: model.divergence(data[0], outputs, data[1]), old, (old, query)
            )

    def fisher_product(self, direction: Params) -> Tensor:
        """The product sum_i J_i' F_i J_i direction: [P]."""
        pushed = self._path.push(stack(direction, self._num_tasks))
        return self._path.gradients(self._divergence.curve(pushed))[0]
