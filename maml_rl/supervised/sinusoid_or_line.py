"""Sinusoids and lines with noise: the ambiguous regression of Finn, Xu and Levine 2018, section 5."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maml_rl.supervised.sinusoid import Sinusoid, SinusoidConfig, SinusoidSource


@dataclass(frozen=True)
class Line:
    """y = slope * x + intercept."""

    slope: float
    intercept: float

    def at(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.slope * inputs + self.intercept

    def __str__(self) -> str:
        return f"{self.slope:.2f} x {self.intercept:+.2f}"


@dataclass(frozen=True)
class SinusoidOrLineConfig(SinusoidConfig):
    """Data of Finn, Xu and Levine 2018, section 5, and a network for them."""

    num_examples: int = 5  # Examples in the support set (K), and again in the query set.
    hidden_sizes: tuple[int, ...] = (64, 64)  # Units in each hidden layer, with ReLU between them.
    init_std: float = 0.1  # Standard deviation of the initial weights; biases start at zero.
    line_share: float = 0.5  # Share of tasks that are lines.
    slope_range: tuple[float, float] = (-3.0, 3.0)  # Range of the lines' slopes.
    intercept_range: tuple[float, float] = (-3.0, 3.0)  # Range of the lines' intercepts.
    noise_std: float = 0.3  # type: ignore[misc]  # Standard deviation of the noise in every target.

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.line_share <= 1.0:
            raise ValueError(f"sinusoid.line_share must lie in [0, 1], got {self.line_share}")
        for name in ("slope_range", "intercept_range"):
            low, high = getattr(self, name)
            if not -float("inf") < low < high < float("inf"):
                raise ValueError(f"sinusoid.{name} must be finite and rising, got {(low, high)}")
        if not 0.0 <= self.noise_std < float("inf"):
            raise ValueError(f"sinusoid.noise_std must be at least 0 and finite, got {self.noise_std}")


class SinusoidOrLineSource:
    """p(T): a line with a given probability, else a sinusoid; their numbers are uniform."""

    def __init__(self, config: SinusoidOrLineConfig):
        self._config, self._sinusoids = config, SinusoidSource(config)

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Sinusoid | Line]:
        is_line = rng.random(num_tasks) < self._config.line_share
        slopes = rng.uniform(*self._config.slope_range, num_tasks)
        intercepts = rng.uniform(*self._config.intercept_range, num_tasks)
        lines = [Line(float(s), float(i)) for s, i in zip(slopes, intercepts, strict=True)]
        sinusoids = self._sinusoids.sample_tasks(num_tasks, rng)
        return [line if chosen else wave for chosen, line, wave in zip(is_line, lines, sinusoids, strict=True)]

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Sinusoid | Line]:
        return self.sample_tasks(num_tasks, rng)
