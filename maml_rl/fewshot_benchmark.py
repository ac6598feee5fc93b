"""Few-shot learners against plain code for the same sums, measured in turn in one process."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maml_rl.config import LearnerName, RunConfig
from maml_rl.convnet import EPSILON, NUM_LAYERS, ConvConfig
from maml_rl.core.lift import Threads
from maml_rl.core.maml import params_of
from maml_rl.core.params import Params
from maml_rl.core.protocols import INITIALISATION, TRAINING, Key, State
from maml_rl.learners import few_shot_learner
from maml_rl.presets import omniglot
from maml_rl.supervised.classification import ClassificationFamily
from maml_rl.supervised.episodes import Episode, EpisodeStream, gather
from maml_rl.supervised.images import ImageSet

NUM_CLASSES, PER_CLASS, SIDE = 1200, 20, 28  # as Omniglot has for training


class _Bench(NamedTuple):
    """A learner at its start, with episodes of noise: speed does not ask what is drawn."""

    config: RunConfig
    stream: EpisodeStream
    state: State
    meta_step: Callable[..., Any]

    def tasks(self, count: int, number: int) -> list[Episode]:
        return self.stream.sample(count, np.random.default_rng(number))

    def step(self, count: int, number: int) -> None:
        self.meta_step(self.state, self.tasks(count, number), Key(0, TRAINING, number))


def _bench(name: LearnerName, threads: Threads) -> _Bench:
    config = omniglot(name, 5, 1)
    pictures = np.random.default_rng(0).integers(0, 2, (NUM_CLASSES * PER_CLASS, SIDE, SIDE, 1), dtype=np.uint8)
    pictures *= 255
    first = np.arange(0, len(pictures) + 1, PER_CLASS)
    data = ImageSet(pictures, first, tuple(map(str, range(NUM_CLASSES))))
    stream = EpisodeStream(data, np.arange(NUM_CLASSES), "classes", config.episodes.training)
    family = ClassificationFamily(stream, config.network, torch.device("cpu"))
    learner = few_shot_learner(config, family, threads)
    return _Bench(config, stream, learner.init(Key(0, INITIALISATION, 0)), learner.meta_step)


def meta_batch(num_tasks: int, repeats: int, threads: Threads) -> dict[str, Any]:
    """MAML's whole meta-step, 5-way 1-shot and of second order, against a loop of torch.func.grad over the tasks, which
    has the threads inside every product and does nothing but compute the gradient."""
    bench = _bench("maml", threads)
    theta, step_size = params_of(bench.state), bench.config.inner.step_size

    def load(number: int) -> list[tuple[Tensor, Tensor]]:
        tasks = bench.tasks(num_tasks, number)
        return [gather(bench.stream.data, tasks, "support"), gather(bench.stream.data, tasks, "query")]

    def loop(number: int) -> None:
        support, query = load(number)
        with threads.inside_products():
            for batches in zip(*support, *query, strict=True):
                torch.func.grad(_loss_after_a_step)(theta, *batches, step_size)

    rivals = {"ours": lambda number: bench.step(num_tasks, number), "loop": loop, "loading": load}
    seconds = _in_turn(rivals, repeats)
    return {
        "meta_batch_seconds": statistics.median(seconds["ours"]),
        "loop_seconds": statistics.median(seconds["loop"]),
        "tasks_per_s": num_tasks / statistics.median(seconds["ours"]),
        "loop_tasks_per_s": num_tasks / statistics.median(seconds["loop"]),
        "speedup_over_loop": _ratio(seconds["loop"], seconds["ours"]),
        "loading_share": _ratio(seconds["loading"], seconds["ours"]),
    }


def prototypical_episode(repeats: int, threads: Threads) -> dict[str, Any]:
    """A meta-step of Prototypical Networks, 60-way 1-shot, against forward and backward of torch's own modules on as
    many pictures."""
    bench = _bench("prototypical", threads)
    model = _modules(bench.config.network)
    ways, shots, queries = bench.stream.size
    images = torch.rand(ways * (shots + queries), 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    def plain(number: int) -> None:
        with threads.inside_products():
            model(images).square().sum().backward()

    seconds = _in_turn({"ours": lambda number: bench.step(1, number), "plain": plain}, repeats)
    return {
        "prototypical_episode_seconds": statistics.median(seconds["ours"]),
        "encoder_seconds": statistics.median(seconds["plain"]),
        "prototypical_ratio": _ratio(seconds["ours"], seconds["plain"]),
    }


def _in_turn(rivals: Mapping[str, Callable[[int], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, as often as there are repeats, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(repeats + 1):
        for name, run in rivals.items():
            start = perf_counter()
            run(number)
            if number:
                seconds[name].append(perf_counter() - start)
    return seconds


def _ratio(ones: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def _plain_logits(params: Params, images: Tensor) -> Tensor:
    """MAML's strided network as one would write it: pictures [B, H, W, 1]."""
    hidden = images.permute(0, 3, 1, 2)
    for layer in range(NUM_LAYERS):
        hidden = F.conv2d(hidden, params[f"conv{layer}.weight"], params[f"conv{layer}.bias"], 2, padding=1)
        scale, bias = params[f"norm{layer}.scale"], params[f"norm{layer}.bias"]
        hidden = F.relu(F.batch_norm(hidden, None, None, scale, bias, training=True, eps=EPSILON))
    return hidden.mean(dim=(2, 3)) @ params["head.weight"] + params["head.bias"]


def _loss_after_a_step(
    theta: Params, images: Tensor, labels: Tensor, query_images: Tensor, query_labels: Tensor, step_size: float
) -> Tensor:
    gradient = torch.func.grad(lambda params: F.cross_entropy(_plain_logits(params, images), labels))(theta)
    adapted = {name: p if name.startswith("norm") else p - step_size * gradient[name] for name, p in theta.items()}
    return F.cross_entropy(_plain_logits(adapted, query_images), query_labels)


def _modules(config: ConvConfig) -> torch.nn.Sequential:
    """The pooled encoder of torch's modules."""
    widths = [1, *(config.num_filters,) * NUM_LAYERS]
    blocks = [
        torch.nn.Sequential(
            torch.nn.Conv2d(before, after, 3, padding=1),
            torch.nn.BatchNorm2d(after),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
        )
        for before, after in itertools.pairwise(widths)
    ]
    return torch.nn.Sequential(*blocks, torch.nn.Flatten())
