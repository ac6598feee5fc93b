"""The meta-objective, mean_i L_query_i(adapt(theta, support_i)), as a function of theta: its value, gradient and curvature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_rl.core.inner import InnerConfig, adapt
from maml_rl.core.lift import Threads, chunk_tasks, lift
from maml_rl.core.params import Params, as_leaves, flatten, num_tasks, stack, take_tasks, unflatten
from maml_rl.core.protocols import TaskFamily


class Evaluation(NamedTuple):
    loss: float  # mean over tasks of the query loss after adaptation
    divergence: float  # mean over tasks of KL(old || new) of the adapted outputs


class Linearization(NamedTuple):
    """The meta-objective to first order, and its Fisher matrix, around one theta."""

    loss: float
    gradient: Tensor  # [P]
    fisher_product: Callable[[Tensor], Tensor]  # [P] -> [P]


class _Chunk(NamedTuple):
    loss: Tensor  # sum over the chunk's tasks
    gradient: Tensor  # [P], sum over the chunk's tasks
    product: Callable[[Tensor], Tensor]


class MetaObjective:
    """One iteration's data, seen as a function of theta.

    Every evaluation adapts anew from the candidate theta: the trust region lies around the adapted policies.
    """

    def __init__(
        self, family: TaskFamily, inner: InnerConfig, supports: Sequence[Any], query: Any, threads: Threads
    ):
        self._inner, self._supports, self._query, self._threads = inner, list(supports), query, threads
        self._num_tasks = num_tasks(query)
        self._chunks = chunk_tasks(query)
        self._inner_loss = lift(family.inner_loss)
        self._outer_loss = lift(family.outer_loss)
        self._outputs = lift(family.outputs)
        self._divergence = lift(family.divergence)
        self._old_outputs: list[Tensor] | None = None

    def evaluate(self, theta: Params) -> Evaluation:
        """Loss and divergence at a candidate; the divergence is from the point of the last `linearize` or `gradient`."""
        assert self._old_outputs is not None, "linearize first: it sets the outputs that divergence is measured from"

        def one_chunk(start: int, stop: int, old_outputs: Tensor) -> tuple[Tensor, Tensor]:
            adapted = self._adapt(stack(theta, stop - start), start, stop, differentiable=False)
            with torch.no_grad():
                query = take_tasks(self._query, start, stop)
                loss = self._outer_loss(adapted, query)
                return loss, self._divergence(old_outputs, self._outputs(adapted, query), query)

        pieces = self._threads.map(one_chunk, *zip(*self._chunks, strict=True), self._old_outputs)
        losses, divergences = (torch.cat(column).double() for column in zip(*pieces, strict=True))
        return Evaluation(losses.mean().item(), divergences.mean().item())

    def linearize(self, theta: Params, with_fisher: bool) -> Linearization:
        """Value, gradient and (on request) Fisher products at theta, from graphs that are built once per task.

        The Fisher matrix of the adapted outputs, pulled back through the inner step, is mean_i J_i' F_i J_i with
        J_i = d outputs_i / d theta and F_i the divergence's Hessian in the outputs. At theta the divergence and its
        gradient vanish, so this is the divergence's exact Hessian in theta, second-order terms of the inner step and all.
        """

        def one_chunk(start: int, stop: int) -> tuple[_Chunk, Tensor]:
            return self._linearize_chunk(theta, start, stop, with_fisher)

        pieces = self._threads.map(one_chunk, *zip(*self._chunks, strict=True))
        chunks = [chunk for chunk, _ in pieces]
        self._old_outputs = [old_outputs for _, old_outputs in pieces]

        def fisher_product(vector: Tensor) -> Tensor:
            products = self._threads.map(lambda chunk: chunk.product(vector), chunks)
            return _sum_in_order(products) / self._num_tasks

        loss = _sum_in_order([chunk.loss for chunk in chunks]) / self._num_tasks
        gradient = _sum_in_order([chunk.gradient for chunk in chunks]) / self._num_tasks
        return Linearization(loss.item(), gradient, fisher_product)

    def _adapt(self, stacked: Params, start: int, stop: int, differentiable: bool) -> Params:
        supports = [take_tasks(support, start, stop) for support in self._supports]
        return adapt(
            lambda params, data: self._inner_loss(params, data).sum(),
            stacked,
            supports,
            self._inner.step_sizes,
            self._inner.first_order,
            differentiable,
        )

    def _linearize_chunk(
        self, theta: Params, start: int, stop: int, with_fisher: bool
    ) -> tuple[_Chunk, Tensor]:
        variables = as_leaves(theta)
        leaves = list(variables.values())
        query = take_tasks(self._query, start, stop)
        with torch.enable_grad():
            adapted = self._adapt(stack(variables, stop - start), start, stop, differentiable=True)
            loss = self._outer_loss(adapted, query).sum()
            gradient = flatten_list(torch.autograd.grad(loss, leaves, retain_graph=with_fisher))
            with torch.set_grad_enabled(with_fisher):
                outputs = self._outputs(adapted, query)
            old_outputs = outputs.detach()
            product = (
                self._fisher_product(leaves, theta, outputs, old_outputs, query) if with_fisher else _no_product
            )
        return _Chunk(loss.detach(), gradient, product), old_outputs

    def _fisher_product(
        self, leaves: list[Tensor], theta: Params, outputs: Tensor, old_outputs: Tensor, query: Any
    ) -> Callable[[Tensor], Tensor]:
        """v -> sum over the chunk's tasks of J' F J v, by backward passes over graphs that are kept.

        J v comes from transposing the transpose: w -> J' w is linear in the cotangent w, and its own reverse is v -> J v.
        """
        at_old = old_outputs.clone().requires_grad_()
        divergence = self._divergence(old_outputs, at_old, query).sum()
        (slope,) = torch.autograd.grad(divergence, at_old, create_graph=True)
        cotangent = torch.zeros_like(old_outputs).requires_grad_()
        transposed = torch.autograd.grad(outputs, leaves, cotangent, create_graph=True)

        def product(vector: Tensor) -> Tensor:
            direction = list(unflatten(vector, theta).values())
            (pushed,) = torch.autograd.grad(transposed, cotangent, direction, retain_graph=True)
            (weighted,) = torch.autograd.grad(slope, at_old, pushed, retain_graph=True)
            return flatten_list(torch.autograd.grad(outputs, leaves, weighted, retain_graph=True))

        return product


def flatten_list(tensors: Sequence[Tensor]) -> Tensor:
    return flatten({str(index): tensor for index, tensor in enumerate(tensors)})


def _sum_in_order(tensors: Sequence[Tensor]) -> Tensor:
    """Sum in double precision from the first task to the last, whichever thread computed which."""
    total = tensors[0].double()
    for tensor in tensors[1:]:
        total = total + tensor.double()
    return total.to(tensors[0].dtype)


def _no_product(vector: Tensor) -> Tensor:
    raise RuntimeError("Fisher products were not asked for")
