"""Sinusoid regression: the H = 1 family of Finn et al. 2017, section 5.1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.core.acting import Answered, FeedForward, answer
from maml_rl.core.contracts import Actor, Forecast, Previous
from maml_rl.core.keys import Key
from maml_rl.core.lift import Threads
from maml_rl.core.output_map import OutputMap
from maml_rl.core.trees import Params, to_device
from maml_rl.networks.mlp import LinearizedMLP, init_mlp, mlp, truncated_normal

QUANTILES = (torch.arange(10) + 0.5) / 10.0
"""Levels of the quantiles by which the calibration of predicted numbers is judged."""


class Function(Protocol):
    """A task: the function behind its examples."""

    def at(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Sinusoid:
    """y = amplitude * sin(x - phase)."""

    amplitude: float
    phase: float  # [rad]

    def at(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.amplitude * np.sin(inputs - self.phase)

    def __str__(self) -> str:
        return f"{self.amplitude:.2f} sin(x - {self.phase:.2f})"


@dataclass(frozen=True)
class SinusoidConfig:
    """Data and network of Finn et al. 2017, section 5.1 (ranges and initial weights: their published code)."""

    num_examples: int = 10  # Examples in the support set (K), and again in the query set.
    hidden_sizes: tuple[int, ...] = (40, 40)  # Units in each hidden layer, with ReLU between them.
    init_std: float = 0.01  # Standard deviation of the initial weights; biases start at zero.
    amplitude_range: tuple[float, float] = (0.1, 5.0)  # Range of amplitudes.
    phase_range: tuple[float, float] = (0.0, 3.141592653589793)  # Range of phases [rad].
    input_range: tuple[float, float] = (-5.0, 5.0)  # Range of inputs.
    noise_std: ClassVar[float] = 0.0  # of the targets

    def __post_init__(self) -> None:
        if self.num_examples < 1:
            raise ValueError(f"sinusoid.num_examples must be at least 1, got {self.num_examples}")
        if any(size < 1 for size in self.hidden_sizes):
            raise ValueError(f"sinusoid.hidden_sizes must be at least 1 each, got {self.hidden_sizes}")
        if not 0.0 < self.init_std < float("inf"):
            raise ValueError(f"sinusoid.init_std must be positive and finite, got {self.init_std}")
        for name in ("amplitude_range", "phase_range", "input_range"):
            low, high = getattr(self, name)
            if not -float("inf") < low < high < float("inf"):
                raise ValueError(f"sinusoid.{name} must be finite and rising, got {(low, high)}")


class Examples(NamedTuple):
    """N tasks, K examples each."""

    inputs: Tensor  # [N, K, 1]
    targets: Tensor  # [N, K, 1]


class SinusoidSource:
    """p(T): amplitude and phase are uniform."""

    def __init__(self, config: SinusoidConfig):
        self._config = config

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Sinusoid]:
        amplitudes = rng.uniform(*self._config.amplitude_range, num_tasks)
        phases = rng.uniform(*self._config.phase_range, num_tasks)
        return [Sinusoid(float(a), float(p)) for a, p in zip(amplitudes, phases, strict=True)]

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Sinusoid]:
        return self.sample_tasks(num_tasks, rng)

    def limits_of(self, field: str) -> tuple[float, float]:
        """The range that a task's field is drawn from."""
        limits: tuple[float, float] = getattr(self._config, f"{field}_range")
        return limits


class SinusoidCollector:
    """K examples of every task, with Gaussian noise in the targets if there is any: they depend on the key, not on who
    acts."""

    resamples = False

    def __init__(self, config: SinusoidConfig, device: torch.device, threads: Threads):
        self._config, self._device, self._threads = config, device, threads

    def collect(self, tasks: Sequence[Function], actor: Actor | None, key: Key) -> Examples | Answered:
        (low, high), count, noise = self._config.input_range, self._config.num_examples, self._config.noise_std
        generators = [key.rng(i) for i in range(len(tasks))]
        inputs = np.stack([rng.uniform(low, high, count) for rng in generators])
        targets = np.stack([task.at(row) for task, row in zip(tasks, inputs, strict=True)])
        if noise:
            targets += noise * np.stack([rng.standard_normal(count) for rng in generators])
        columns = (torch.from_numpy(a).float().unsqueeze(-1).to(self._device) for a in (inputs, targets))
        examples = Examples(*columns)
        return examples if actor is None else answer(actor, examples, self._threads)


class SquaredError:
    """The measure of regression: (prediction - target)^2."""

    metric = "mse"
    higher_is_better = False

    def __init__(self, noise_std: float = 0.0):
        """noise_std: standard deviation of the targets around the function, with which predictions are distributions;
        0 for none."""
        self._noise_std = noise_std

    def score(self, data: Answered) -> Tensor:
        """[N, K]; of several draws [N, K, S], by the mean prediction."""
        return (data.outputs.mean(dim=-1, keepdim=True) - data.examples.targets).square().squeeze(-1)

    def further_scores(self, data: Answered) -> dict[str, Tensor]:
        return {}

    def forecast(self, data: Answered) -> Forecast | None:
        """The log-density of the target under the mixture of Gaussians around the predictions, and the events that the
        target lies below the mixture's quantiles at `QUANTILES` (Kuleshov et al. 2018, section 3.2)."""
        if self._noise_std == 0.0:
            return None
        scaled = (data.examples.targets - data.outputs) / self._noise_std  # [N, K, S]
        each = -0.5 * scaled.square() - math.log(self._noise_std * math.sqrt(2.0 * math.pi))
        log_density = each.logsumexp(dim=-1) - math.log(scaled.shape[-1])
        below = torch.special.ndtr(scaled).mean(dim=-1, keepdim=True)  # of the mixture's mass
        levels = QUANTILES.to(below).expand(*below.shape[:-1], -1)
        return Forecast(log_density, levels, (below <= levels).to(below.dtype))

    def mixture(self, outputs: Sequence[Tensor]) -> Tensor:
        """The predictions of S draws side by side: [N, K, S]."""
        return torch.cat(list(outputs), dim=-1)

    def describe(self, experience: Sequence[Any]) -> dict[str, float]:
        return {}


@dataclass(frozen=True)
class RegressionNetwork(FeedForward):
    """A multilayer perceptron from inputs to predictions."""

    def step(
        self, params: Params, memory: tuple[()], observation: Examples, previous: Previous | None
    ) -> tuple[Tensor, tuple[()]]:
        """Predictions [N, K, 1] at the inputs of the examples."""
        return torch.vmap(_predict)(params, observation.inputs), ()


def _predict(params: Params, inputs: Tensor) -> Tensor:
    return mlp(params, inputs, "relu")


class RegressionModel:
    """Mean squared error of a small network; the action is the prediction and there is no transition."""

    network = RegressionNetwork()

    def __init__(self, config: SinusoidConfig, device: torch.device):
        self._config, self._device = config, device
        self.head: tuple[str, ...] = (f"{len(config.hidden_sizes)}.",)

    def init_params(self, key: Key) -> Params:
        generator = key.torch_generator()
        params = init_mlp((1, *self._config.hidden_sizes, 1), truncated_normal(generator, self._config.init_std))
        return to_device(params, self._device)

    def prepare(self, params: Params, data: Examples) -> Examples:
        return data

    def trim(self, params: Params, batch: Examples) -> Params:
        return params

    def part(self, batch: Examples, share: float) -> Examples:
        count = max(1, round(share * batch.inputs.shape[1]))
        return Examples(batch.inputs[:, :count], batch.targets[:, :count])

    def outputs(self, params: Params, batch: Examples) -> Tensor:
        return mlp(params, batch.inputs, "relu")

    def linearize(self, params: Params, batch: Examples) -> OutputMap:
        return LinearizedMLP(params, batch.inputs, "relu")

    def inner_loss_at(self, outputs: Tensor, batch: Examples) -> Tensor:
        return (outputs - batch.targets).square().mean()

    def outer_loss_at(self, outputs: Tensor, batch: Examples) -> Tensor:
        return self.inner_loss_at(outputs, batch)

    def divergence(self, old_outputs: Tensor, outputs: Tensor, batch: Examples) -> Tensor:
        """KL between Gaussians of unit variance around the predictions."""
        return 0.5 * (old_outputs - outputs).square().sum(dim=-1).mean()

    def describe(self, batches: Sequence[Examples]) -> dict[str, float]:
        return {}
