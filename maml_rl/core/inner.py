"""Adaptation: theta to theta'_i by gradient steps on the data of each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from maml_rl.core.lift import Threads, chunk_tasks
from maml_rl.core.output_map import LossAtOutputs, OutputMap
from maml_rl.core.params import Params, concatenate_tasks, take_tasks
from maml_rl.core.protocols import TaskFamily

StepSize = float | Params


@dataclass(frozen=True)
class InnerConfig:
    """How a task is adapted to."""

    num_steps: int = 1  # Gradient steps per task, each on its own support data.
    step_size: float = 0.1  # Size of a gradient step: alpha of Finn et al. 2017.
    first_order: bool = False  # Leave out the derivative of the inner gradient (FOMAML).
    estimator: Literal["log_prob", "ratio", "dice"] = "log_prob"
    """Inner policy-gradient loss: log-prob x advantage (Finn et al. 2017), likelihood ratio pi / stop(pi) (Rothfuss et
    al. 2019), or DiCE (Foerster et al. 2018). Same first derivative, different second."""
    only: tuple[str, ...] = ()
    """Beginnings of the names of the parameters that adapt; by default all do. ANIL (Raghu et al. 2020): head"""
    learn_step_sizes: bool = False
    """Meta-SGD (Li et al. 2017): each number of the parameters has a step size of its own, which is learned with them
    and begins at step_size."""

    def __post_init__(self) -> None:
        if self.num_steps < 0:
            raise ValueError(f"inner.num_steps must be at least 0, got {self.num_steps}")
        if not 0.0 < self.step_size < float("inf"):
            raise ValueError(f"inner.step_size must be positive and finite, got {self.step_size}")

    @property
    def step_sizes(self) -> tuple[float, ...]:
        return (self.step_size,) * self.num_steps

    def sizes_for(self, params: Params, step_sizes: Sequence[float]) -> Sequence[StepSize]:
        """The same sizes, as trees with 0 for the parameters that do not adapt, if only some do.

        Raises:
            ValueError: if none does.
        """
        if not self.only:
            return step_sizes
        adapts = {name: name.startswith(self.only) for name in params}
        if not any(adapts.values()):
            raise ValueError(f"inner.only must name some of the parameters {list(params)}, got {list(self.only)}")
        return [
            {name: p.new_full((), size if adapts[name] else 0.0) for name, p in params.items()} for size in step_sizes
        ]


def adapt(
    gradient: Callable[[Params, Any], Params],
    params: Params,
    supports: Sequence[Any],
    step_sizes: Sequence[StepSize],
) -> Params:
    """Fold one gradient step over each support batch (Finn et al. 2017, equation 1 and Algorithm 1, line 6).

    Args:
        gradient: (params, support) -> d inner loss / d params; for stacked trees each task's own gradient.
        supports: one batch for each step: fresh trajectories in RL, the same examples again in supervised learning.
        step_sizes: for each step one number [1 / loss], or a tree of them shaped like `params`.
    Raises:
        ValueError: if the numbers of supports and step sizes differ.
    """
    for support, step_size in zip(supports, step_sizes, strict=True):
        params = subtract(params, scale(gradient(params, support), step_size))
    return params


def scale(tree: Params, step_size: StepSize) -> Params:
    if isinstance(step_size, dict):
        return {name: value * step_size[name] for name, value in tree.items()}
    return {name: value * step_size for name, value in tree.items()}


def subtract(tree: Params, other: Params) -> Params:
    return {name: value - other[name] for name, value in tree.items()}


class InnerStep:
    """The inner loss around one point: its gradient and, on request, products with its Hessian. Stacked tasks."""

    def __init__(self, family: TaskFamily, params: Params, support: Any, with_hessian: bool):
        self._map: OutputMap = family.linearize(params, support)
        self._loss = LossAtOutputs(family.inner_loss_at, self._map.outputs, support)
        pull = self._map.fix_cotangent if with_hessian else self._map.pull
        self.gradient = pull(self._loss.slope)

    def hessian_product(self, direction: Params) -> Params:
        """(d^2 inner loss / d params^2) direction. Symmetric: pi / stop(pi) and its like are, with what is stopped held
        fixed, ordinary functions of the parameters."""
        return self._map.pull_change(direction, self._loss.curve)


def inner_gradient(family: TaskFamily) -> Callable[[Params, Any], Params]:
    """The gradient of the family's inner loss, for `adapt`."""
    return lambda params, support: InnerStep(family, params, support, with_hessian=False).gradient


def adapt_tasks(
    family: TaskFamily,
    params: Params,
    supports: Sequence[Any],
    step_sizes: Sequence[StepSize],
    threads: Threads,
) -> Params:
    """Adapt many tasks, each from its own parameters: [task, ...] to [task, ...].

    Args:
        params, supports: stacked, task on axis 0.
        step_sizes: numbers, or trees without a task axis.
    """
    if not supports:
        return params

    def one_chunk(start: int, stop: int) -> Params:
        own = take_tasks(params, start, stop)
        return adapt(inner_gradient(family), own, [take_tasks(s, start, stop) for s in supports], step_sizes)

    return concatenate_tasks(threads.map(one_chunk, *zip(*chunk_tasks(supports[0]), strict=True)))
