"""Benchmarks of few-shot learners against plain code for the same computation, in turn in one process."""

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

from maml_rl.core.contracts import TaskFamily
from maml_rl.core.keys import INITIALISATION, TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.trees import Params
from maml_rl.experiments.build import picture_spec
from maml_rl.experiments.config import OMNIGLOT, RunConfig
from maml_rl.experiments.presets import Preset, default_config
from maml_rl.experiments.table import learner_entry
from maml_rl.learners.entry import Context
from maml_rl.networks.coders import NUM_STAGES
from maml_rl.networks.convnet import EPSILON, NUM_LAYERS, ConvConfig
from maml_rl.networks.key_memory import Memory, remember
from maml_rl.runtime import product_threads
from maml_rl.supervised.classification import Accuracy, EpisodeCollector, EpisodeSource
from maml_rl.supervised.episodes import Episode, EpisodeStream, gather
from maml_rl.supervised.images import ImageSet

NUM_CLASSES, PER_CLASS, SIDE = 1200, 20, 28  # as Omniglot has for training


class _Bench(NamedTuple):
    """A learner at its start, with episodes of noise: speed does not depend on what is drawn."""

    config: RunConfig
    stream: EpisodeStream
    learner: Any
    state: Any

    def tasks(self, count: int, number: int) -> list[Episode]:
        return self.stream.sample(count, np.random.default_rng(number))

    def step(self, count: int, number: int) -> None:
        self.learner.meta_step(self.state, self.tasks(count, number), Key(0, TRAINING, number))


def _bench(name: str, threads: Threads, preset: Preset = "paper") -> _Bench:
    config = default_config(OMNIGLOT, name, preset)
    pictures = np.random.default_rng(0).integers(0, 2, (NUM_CLASSES * PER_CLASS, SIDE, SIDE, 1), dtype=np.uint8)
    pictures *= 255
    first = np.arange(0, len(pictures) + 1, PER_CLASS)
    data = ImageSet(pictures, first, tuple(map(str, range(NUM_CLASSES))))
    stream = EpisodeStream(data, np.arange(NUM_CLASSES), "classes", config.task.training)
    device = torch.device("cpu")
    collector = EpisodeCollector(data, config.method.network.norm, device, threads)
    family = TaskFamily(EpisodeSource(stream, stream), collector, Accuracy())
    context = Context("pictures", family, config.evaluation.num_steps, threads, device, picture_spec(stream))
    learner = learner_entry(name, "pictures").build(context, config.method)
    return _Bench(config, stream, learner, learner.init(Key(0, INITIALISATION, 0)))


def meta_batch(num_tasks: int, repeats: int, threads: Threads) -> dict[str, Any]:
    """Measure MAML's whole second-order meta-step, 5-way 1-shot, against a loop of torch.func.grad over the tasks,
    which uses the threads inside every product and only computes the gradient."""
    bench = _bench("maml", threads)
    theta, step_size = bench.state.params, bench.config.method.inner.step_size

    def load(number: int) -> list[tuple[Tensor, Tensor]]:
        tasks = bench.tasks(num_tasks, number)
        return [gather(bench.stream.data, tasks, "support"), gather(bench.stream.data, tasks, "query")]

    def loop(number: int) -> None:
        support, query = load(number)
        with product_threads(threads.num_threads):
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
    """Measure a meta-step of Prototypical Networks, 60-way 1-shot, against forward and backward of torch's own modules
    on as many pictures."""
    bench = _bench("prototypical", threads)
    model = _modules(bench.config.method.network)
    ways, shots, queries = bench.stream.size
    images = torch.rand(ways * (shots + queries), 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    def plain(number: int) -> None:
        with product_threads(threads.num_threads):
            model(images).square().sum().backward()

    seconds = _in_turn({"ours": lambda number: bench.step(1, number), "plain": plain}, repeats)
    return {
        "prototypical_episode_seconds": statistics.median(seconds["ours"]),
        "encoder_seconds": statistics.median(seconds["plain"]),
        "prototypical_ratio": _ratio(seconds["ours"], seconds["plain"]),
    }


def memory_lookup(repeats: int, threads: Threads) -> dict[str, Any]:
    """Measure how long it takes to look up 16 pictures in a full memory and to write them, against a gradient step of
    the memory module on as many."""
    bench = _bench("memory", threads)
    settings, num_tasks = bench.config.method.memory, bench.config.training.num_tasks
    stream = bench.stream
    short = stream.size._replace(queries=1)
    bench = bench._replace(stream=EpisodeStream(stream.data, stream.classes, stream.rotations, short))
    num_steps = short.ways * (short.shots + short.queries)
    generator = torch.Generator().manual_seed(0)

    def directions(count: int) -> Tensor:
        return F.normalize(torch.randn(1, count, settings.key_size, generator=generator), dim=-1)

    classes = torch.arange(settings.size).unsqueeze(0)
    full = Memory(directions(settings.size), classes, classes.flip(1))
    asked, labels = directions(num_tasks).unsqueeze(1), torch.arange(num_tasks).view(1, 1, -1)
    rivals = {
        "step": lambda number: bench.step(num_tasks, number),
        "lookup": lambda number: [remember(full, asked, labels, None) for _ in range(num_steps)],
    }
    seconds = _in_turn(rivals, repeats)
    return {
        "memory_keys": settings.size,
        "memory_step_seconds": statistics.median(seconds["step"]) / num_steps,
        "memory_lookup_seconds": statistics.median(seconds["lookup"]) / num_steps,
        "memory_lookup_share": _ratio(seconds["lookup"], seconds["step"]),
    }


def statistician_step(repeats: int, threads: Threads) -> dict[str, Any]:
    """Measure a meta-step of the Neural Statistician, `--preset fast`, against forward and backward of its networks,
    made of torch's own modules, each by itself on as many pictures."""
    bench = _bench("neural-statistician", threads, "fast")
    num_tasks, (ways, shots, queries) = bench.config.training.num_tasks, bench.stream.size
    networks = _statistician_modules(bench.config.method.network, num_tasks * ways, shots + queries)

    def plain(number: int) -> None:
        with product_threads(threads.num_threads):
            for module, inputs in networks:
                module(inputs).square().sum().backward()

    seconds = _in_turn({"ours": lambda number: bench.step(num_tasks, number), "plain": plain}, repeats)
    return {
        "statistician_step_seconds": statistics.median(seconds["ours"]),
        "statistician_networks_seconds": statistics.median(seconds["plain"]),
        "statistician_ratio": _ratio(seconds["ours"], seconds["plain"]),
    }


def platipus_step(num_tasks: int, repeats: int, threads: Threads) -> dict[str, Any]:
    """Measure a meta-step of PLATIPUS, 5-way 1-shot, with as many draws of each task as it takes, against MAML's."""
    of_maml, of_platipus = (_bench(name, threads) for name in ("maml", "platipus"))
    rivals = {
        "maml": lambda number: of_maml.step(num_tasks, number),
        "platipus": lambda number: of_platipus.step(num_tasks, number),
    }
    seconds = _in_turn(rivals, repeats)
    return {
        "platipus_seconds": statistics.median(seconds["platipus"]),
        "platipus_draws": of_platipus.config.method.posterior.num_draws,
        "platipus_ratio": _ratio(seconds["platipus"], seconds["maml"]),
    }


def _in_turn(rivals: Mapping[str, Callable[[int], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each rival, measured `repeats` times after one turn that does not count."""
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
    """MAML's strided network in plain PyTorch: pictures [B, H, W, 1]."""
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
    """The pooled encoder, built from torch's modules."""
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


def _statistician_modules(network: Any, num_sets: int, size: int) -> list[tuple[torch.nn.Module, Tensor]]:
    """The Neural Statistician's networks and inputs for them: encoder, statistic network, inference network, latent
    decoder, observation decoder."""
    nn, coder, sizes = torch.nn, network.coder(SIDE), network.sizes
    rows, hidden, more = num_sets * size, sizes.hidden_size, network.num_convolutions - 1
    widths = [network.num_filters * 2**stage for stage in range(NUM_STAGES)]
    befores, afters = [1, *widths[:-1]], [*widths[1:], widths[-1]]

    def convolutions(before: int, width: int, last: torch.nn.Module) -> list[torch.nn.Module]:
        inner = [nn.Conv2d(before if i == 0 else width, width, 3, padding=1, bias=False) for i in range(more)]
        return [layer for each in (*inner, last) for layer in (each, nn.BatchNorm2d(width), nn.ELU())]

    def dense(*sizes: int) -> list[torch.nn.Module]:
        pairs = itertools.pairwise(sizes)
        return [layer for a, b in pairs for layer in (nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ELU())]

    down, up = [], []
    for before, width in zip(befores, widths, strict=True):
        down += convolutions(before, width, nn.Conv2d(width if more else before, width, 3, 2, 1, bias=False))
    for stage in reversed(range(NUM_STAGES)):
        width, before, side = widths[stage], afters[stage], coder.sides[stage]
        last = nn.ConvTranspose2d(width if more else before, width, 2, 2, bias=False)
        up += [*convolutions(before, width, last), nn.ZeroPad2d((0, -(side % 2)) * 2)]
    features, residual = coder.num_features, (hidden,) * sizes.num_hidden
    seed = [*dense(hidden, features), nn.Unflatten(1, (widths[-1], coder.sides[-1], coder.sides[-1]))]
    latent = 2 * sizes.latent_size
    found = [
        (nn.Sequential(*down), torch.rand(rows, 1, SIDE, SIDE)),
        (nn.Sequential(*dense(features, hidden)), torch.rand(rows, features)),
        (
            nn.Sequential(*dense(*(hidden,) * (1 + sizes.num_pooled)), nn.Linear(hidden, 2 * sizes.context_size)),
            torch.rand(num_sets, hidden),
        ),
        (nn.Sequential(*dense(features, *residual), nn.Linear(hidden, latent)), torch.rand(rows, features)),
        (
            nn.Sequential(*dense(sizes.context_size, *residual), nn.Linear(hidden, latent)),
            torch.rand(num_sets, sizes.context_size),
        ),
        (nn.Sequential(*seed, *up, nn.Conv2d(widths[0], 1, 1)), torch.rand(rows, hidden)),
    ]
    for module, _ in found:
        for weight in module.parameters():
            weight.data = _channels_last(weight.data)
    return [(module, _channels_last(inputs)) for module, inputs in found]


def _channels_last(values: Tensor) -> Tensor:
    return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values
