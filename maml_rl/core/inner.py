"""Adaptation: theta to theta'_i by gradient steps on the data of each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from maml_rl.core.contracts import Model
from maml_rl.core.lift import Threads
from maml_rl.core.output_map import LossAtOutputs, OutputMap
from maml_rl.core.trees import Params, concatenate_tasks, take_tasks

StepSize = float | Params

MAX_STEPS = 10_000
"""The most gradient steps on a task: every task of every iteration takes memory or time for each of them."""

HEAD = "head"
"""Name of the last layer in `only`, whatever its parameters are called."""

STEP_SIZES = "step_sizes/"
"""Prefix under which learned step sizes stand beside the parameters, before the parameter's name."""


@dataclass(frozen=True)
class InnerConfig:
    """Settings of adaptation to a task."""

    num_steps: int = 1  # Gradient steps per task, each on its own support data.
    step_size: float = 0.1  # Size of a gradient step: alpha of Finn et al. 2017.
    test_step_size: float | None = None  # Size of a gradient step at test; by default as in training.
    later_ratio: float = 1.0  # Later steps at test as a share of the first; 0.5 in the paper.
    train_later_ratio: float = 1.0  # Later steps in training as a share of the first; the paper's policies take one.
    first_order: bool = False  # Leave out the derivative of the inner gradient (FOMAML).
    before_weight: float = 0.0
    """Weight of the loss before each step in the outer step's loss, beside 1 for the loss after the last. Above 0,
    adaptation begins with what serves most tasks, and fewer steps serve, too (multi-step loss, Antoniou et al. 2019).
    By default 0, as in Finn et al. 2017."""
    only: tuple[str, ...] = ()
    """Prefixes of the names of the parameters that adapt; by default all do. head: the last layer (ANIL, Raghu et al.
    2020)."""
    learn_step_sizes: bool = False
    """Meta-SGD (Li et al. 2017): each number of the parameters has its own step size, which is learned with them and
    begins at step_size."""

    def __post_init__(self) -> None:
        if self.num_steps < 0:
            raise ValueError(f"inner.num_steps must be at least 0, got {self.num_steps}")
        if self.num_steps > MAX_STEPS:
            raise ValueError(f"inner.num_steps must be at most {MAX_STEPS}, got {self.num_steps}")
        if not 0.0 <= self.before_weight < float("inf"):
            raise ValueError(f"inner.before_weight must be at least 0 and finite, got {self.before_weight}")
        if not 0.0 < self.step_size < float("inf"):
            raise ValueError(f"inner.step_size must be positive and finite, got {self.step_size}")
        for name in ("test_step_size", "later_ratio", "train_later_ratio"):
            size = getattr(self, name)
            if size is not None and not 0.0 < size < float("inf"):
                raise ValueError(f"inner.{name} must be positive and finite, got {size}")

    @property
    def step_sizes(self) -> tuple[float, ...]:
        """The sizes of the steps in training."""
        later = self.step_size * self.train_later_ratio
        return tuple(later if step else self.step_size for step in range(self.num_steps))

    def test_step_sizes(self, num_steps: int) -> tuple[float, ...]:
        """The sizes of the first `num_steps` steps at test."""
        return tuple(self.test_step_size_at(step) for step in range(num_steps))

    def test_step_size_at(self, num_steps: int) -> float:
        """The size at test of the gradient step that follows `num_steps` others."""
        first = self.step_size if self.test_step_size is None else self.test_step_size
        return first if num_steps == 0 else first * self.later_ratio

    def sizes_for(self, params: Params, step_sizes: Sequence[float], head: tuple[str, ...]) -> Sequence[StepSize]:
        """The step sizes, as trees with 0 for the parameters that do not adapt, if only some do.

        Args:
            head: prefixes of the names of the last layer's parameters.
        Raises:
            ValueError: if no parameter adapts.
        """
        if not self.only:
            return step_sizes
        only = tuple(name for each in self.only for name in (head if each == HEAD else (each,)))
        adapts = {name: name.startswith(only) for name in params}
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


def split_step_sizes(params: Params) -> tuple[Params, Params]:
    """Split what is learned into theta and the learned step sizes, by the names of theta; empty if none are learned."""
    sizes = {name.removeprefix(STEP_SIZES): value for name, value in params.items() if name.startswith(STEP_SIZES)}
    return {name: value for name, value in params.items() if not name.startswith(STEP_SIZES)}, sizes


def join_step_sizes(theta: Params, sizes: Params) -> Params:
    """The inverse of `split_step_sizes`."""
    return theta | {f"{STEP_SIZES}{name}": value for name, value in sizes.items()}


def scale(tree: Params, step_size: StepSize) -> Params:
    if isinstance(step_size, dict):
        return {name: value * step_size[name] for name, value in tree.items()}
    return {name: value * step_size for name, value in tree.items()}


def subtract(tree: Params, other: Params) -> Params:
    return {name: value - other[name] for name, value in tree.items()}


class InnerStep:
    """The inner loss around one point: its gradient and, on request, products with its Hessian. Stacked tasks."""

    def __init__(self, model: Model, params: Params, support: Any, with_hessian: bool):
        self._map: OutputMap = model.linearize(params, support)
        self.outputs = self._map.outputs.detach()  # [n, B, width]
        self._loss = LossAtOutputs(model.inner_loss_at, self._map.outputs, support, to_second_order=with_hessian)
        pull = self._map.fix_cotangent if with_hessian else self._map.pull
        self.gradient = pull(self._loss.slope)

    def pull(self, cotangent: Tensor) -> Params:
        """J' cotangent, J being the outputs' Jacobian."""
        return self._map.pull(cotangent)

    def hessian_product(self, direction: Params, less: Tensor | None = None) -> Params:
        """(d^2 inner loss / d params^2) direction. Symmetric: pi / stop(pi) and its like are, with what is stopped held
        fixed, ordinary functions of the parameters.

        Args:
            less: a cotangent [n, B, width] whose `pull` is subtracted, at no cost.
        """
        curve = self._loss.curve
        return self._map.pull_change(direction, curve if less is None else lambda pushed: curve(pushed) - less)


def inner_gradient(model: Model) -> Callable[[Params, Any], Params]:
    """The gradient of the model's inner loss, for `adapt`."""
    return lambda params, support: InnerStep(model, params, support, with_hessian=False).gradient


def adapt_tasks(
    model: Model,
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
        return adapt(inner_gradient(model), own, [take_tasks(s, start, stop) for s in supports], step_sizes)

    return concatenate_tasks(threads.over_chunks(one_chunk, supports[0]))
