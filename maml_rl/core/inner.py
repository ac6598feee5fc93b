"""Adaptation: theta to theta'_i by gradient steps on the data of one task, or of a stack of tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from maml_rl.core.lift import Threads, chunk_tasks, lift
from maml_rl.core.params import Params, concatenate_tasks, take_tasks

StepSize = float | Params


@dataclass(frozen=True)
class InnerConfig:
    """How a task is adapted to."""

    num_steps: int = 1  # gradient steps per task, each on its own support data
    step_size: float = 0.1  # alpha of Finn et al. 2017
    first_order: bool = False  # leave out the derivative of the inner gradient (FOMAML)
    estimator: Literal["ratio", "log_prob", "dice"] = "ratio"
    """Inner policy-gradient loss: likelihood ratio pi / stop(pi) (Rothfuss et al. 2019), log-prob x advantage
    (Finn et al. 2017), or DiCE (Foerster et al. 2018). Same first derivative, different second."""

    def __post_init__(self) -> None:
        if self.num_steps < 0:
            raise ValueError(f"inner.num_steps must be at least 0, got {self.num_steps}")
        if not 0.0 < self.step_size < float("inf"):
            raise ValueError(f"inner.step_size must be positive and finite, got {self.step_size}")

    @property
    def step_sizes(self) -> tuple[float, ...]:
        return (self.step_size,) * self.num_steps


def gradient_step(
    loss: Callable[[Params, Any], Tensor],
    params: Params,
    support: Any,
    step_size: StepSize,
    first_order: bool,
    differentiable: bool,
) -> Params:
    """One step of gradient descent: params - step_size * d loss / d params."""
    variables = params if differentiable else {name: p.detach().requires_grad_() for name, p in params.items()}
    with torch.enable_grad():
        value = loss(variables, support)
        grads = torch.autograd.grad(
            value, list(variables.values()), create_graph=differentiable and not first_order
        )
    sizes = step_size if isinstance(step_size, dict) else dict.fromkeys(params, step_size)
    return {
        name: p - sizes[name] * grad for (name, p), grad in zip(params.items(), grads, strict=True)
    }


def adapt(
    loss: Callable[[Params, Any], Tensor],
    params: Params,
    supports: Sequence[Any],
    step_sizes: Sequence[StepSize],
    first_order: bool,
    differentiable: bool,
) -> Params:
    """Fold one gradient step over each support batch (Finn et al. 2017, equation 1 and Algorithm 1, line 6).

    Args:
        loss: the inner loss of one task; or, for stacked parameters and data, the sum of the tasks' losses, whose
            gradient in a task's own parameters is that task's gradient.
        params: tensors, all of them used by the loss; with `differentiable` they must require gradients.
        supports: one batch for each step: fresh trajectories in RL, the same examples again in supervised learning.
        step_sizes: for each step one number [loss units^-1], or a tree of them shaped like `params`.
        first_order: treat the inner gradient as a constant when differentiating the result.
        differentiable: keep the graph from the result back to `params`; otherwise the result is a plain value.
    Raises:
        ValueError: if the numbers of supports and step sizes differ.
    """
    for support, step_size in zip(supports, step_sizes, strict=True):
        params = gradient_step(loss, params, support, step_size, first_order, differentiable)
    return params


def adapt_tasks(
    loss: Callable[[Params, Any], Tensor],
    params: Params,
    supports: Sequence[Any],
    step_sizes: Sequence[StepSize],
    threads: Threads,
) -> Params:
    """Adapt many tasks, each from its own parameters, to plain values: [task, ...] to [task, ...].

    Args:
        loss: the inner loss of ONE task.
        params, supports: stacked, task on axis 0.
    """
    if not supports:
        return params
    lifted = lift(loss)

    def one_chunk(start: int, stop: int) -> Params:
        own = take_tasks(params, start, stop)
        data = [take_tasks(support, start, stop) for support in supports]
        return adapt(lambda p, d: lifted(p, d).sum(), own, data, step_sizes, first_order=True, differentiable=False)

    chunks = chunk_tasks(supports[0])
    adapted = concatenate_tasks(threads.map(one_chunk, *zip(*chunks, strict=True)))
    return {name: value.detach() for name, value in adapted.items()}
