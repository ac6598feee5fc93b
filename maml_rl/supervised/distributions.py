"""Distributions over the real line as tasks: predict the density of numbers after having seen some (Edwards and Storkey
2017, section 5.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.core.acting import Answered, answer
from maml_rl.core.contracts import Actor
from maml_rl.core.keys import Key
from maml_rl.core.lift import Threads
from maml_rl.core.trees import to_device

Shape = Literal["exponential", "Gaussian", "uniform", "Laplace"]
SHAPES: tuple[Shape, ...] = get_args(Shape)


@dataclass(frozen=True)
class Distribution:
    """A distribution of one of four shapes, moved and stretched to a mean and a variance."""

    shape: Shape
    mean: float
    variance: float

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Independent numbers [count]."""
        standard = {
            "exponential": lambda: rng.exponential(1.0, count) - 1.0,
            "Gaussian": lambda: rng.standard_normal(count),
            "uniform": lambda: rng.uniform(-(3.0**0.5), 3.0**0.5, count),
            "Laplace": lambda: rng.laplace(0.0, 0.5**0.5, count),
        }[self.shape]()
        return self.mean + self.variance**0.5 * standard

    def density(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        """p(at), of the shape of `at`."""
        x = (at - self.mean) / self.variance**0.5
        standard = {
            "exponential": lambda: np.where(x >= -1.0, np.exp(-np.maximum(x, -1.0) - 1.0), 0.0),
            "Gaussian": lambda: np.exp(-0.5 * x**2) / (2.0 * np.pi) ** 0.5,
            "uniform": lambda: np.where(np.abs(x) <= 3.0**0.5, 0.5 / 3.0**0.5, 0.0),
            "Laplace": lambda: np.exp(-np.abs(x) * 2.0**0.5) * 0.5**0.5,
        }[self.shape]()
        return standard / self.variance**0.5

    def __str__(self) -> str:
        return f"{self.shape}, mean {self.mean:.2f}, variance {self.variance:.2f}"


@dataclass(frozen=True)
class DistributionConfig:
    """Sets of numbers, as in section 5.1 of Edwards and Storkey 2017.

    There mean and variance are made exact in each set of some shapes; here they are the distribution's, so that numbers
    are independent.
    """

    num_examples: int = 200  # Numbers in the support set, and again in the query set.
    mean_range: tuple[float, float] = (-1.0, 1.0)  # Range of means.
    variance_range: tuple[float, float] = (0.5, 2.0)  # Range of variances.

    def __post_init__(self) -> None:
        if self.num_examples < 1:
            raise ValueError(f"distributions.num_examples must be at least 1, got {self.num_examples}")
        for name, least in (("mean_range", -float("inf")), ("variance_range", 0.0)):
            low, high = getattr(self, name)
            if not least < low < high < float("inf"):
                above = "" if least else " positive,"
                raise ValueError(f"distributions.{name} must be{above} finite and rising, got {(low, high)}")


class Numbers(NamedTuple):
    """N tasks, K numbers each."""

    numbers: Tensor  # [N, K, 1]


class DistributionSource:
    """p(T): all shapes are equally probable, mean and variance are uniform."""

    def __init__(self, config: DistributionConfig):
        self._config = config

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Distribution]:
        shapes = rng.integers(len(SHAPES), size=num_tasks)
        means = rng.uniform(*self._config.mean_range, num_tasks)
        variances = rng.uniform(*self._config.variance_range, num_tasks)
        columns = zip(shapes, means, variances, strict=True)
        return [Distribution(SHAPES[shape], float(mean), float(variance)) for shape, mean, variance in columns]

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Distribution]:
        return self.sample_tasks(num_tasks, rng)


class DistributionCollector:
    """K numbers of every task: they depend on the key, not on who acts."""

    resamples = False

    def __init__(self, config: DistributionConfig, device: torch.device, threads: Threads):
        self._config, self._device, self._threads = config, device, threads

    def collect(self, tasks: Sequence[Distribution], actor: Actor | None, key: Key) -> Numbers | Answered:
        rows = [task.draw(key.rng(i), self._config.num_examples) for i, task in enumerate(tasks)]
        numbers = to_device(Numbers(torch.from_numpy(np.stack(rows)).float().unsqueeze(-1)), self._device)
        return numbers if actor is None else answer(actor, numbers, self._threads)


class LogDensity:
    """The measure of a predicted density: its logarithm at numbers that were not seen. [nats]"""

    metric = "log_density"
    higher_is_better = True

    def score(self, data: Answered) -> Tensor:
        """[N, K]"""
        return data.outputs

    def further_scores(self, data: Answered) -> dict[str, Tensor]:
        return {}

    def forecast(self, data: Answered) -> None:
        """None: the score itself is the log-likelihood."""

    def mixture(self, outputs: Sequence[Tensor]) -> Tensor:
        """The log of the draws' mean density: [N, K]."""
        return torch.stack(list(outputs)).logsumexp(dim=0) - math.log(len(outputs))

    def describe(self, experience: Sequence[Any]) -> dict[str, float]:
        return {}
