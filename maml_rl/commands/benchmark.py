"""Benchmarks: speed relative to the bare physics or to one process, both measured in turn in one run."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Literal, cast

import mujoco.batch
import numpy as np
import tyro
from numpy.typing import NDArray

from maml_rl.commands.benchmark_fewshot import (
    memory_lookup,
    meta_batch,
    platipus_step,
    prototypical_episode,
    statistician_step,
)
from maml_rl.commands.benchmark_scaling import busy, saturation, scale, sleeping
from maml_rl.commands.command_line import parse
from maml_rl.commands.streams import lenient_streams
from maml_rl.core.keys import INITIALISATION, TRAINING, Key
from maml_rl.core.lift import Threads, available_cores
from maml_rl.core.objective import MetaObjective
from maml_rl.core.outer.proximal import Surrogate
from maml_rl.experiments.build import build
from maml_rl.experiments.config import Physics, RunConfig
from maml_rl.experiments.environments import (
    STAGE_NONE,
    MujocoTaskVectorEnv,
    full_id,
    make_crew,
    make_environment,
    with_timers,
)
from maml_rl.experiments.presets import default_config
from maml_rl.learners.maml import MAML
from maml_rl.pictures.plots import cost_plot, iteration_plot, save_figure
from maml_rl.runtime import product_threads
from maml_rl.sampling.local import LocalSampler, SamplingConfig
from maml_rl.storage.atomic import require_writable, write_atomically
from maml_rl.training.trainer import TrainingConfig

EXAMPLES = (
    "python scripts/benchmark.py sampling",
    "python scripts/benchmark.py fewshot --num-threads 1 --json",
)


@dataclass(frozen=True)
class BenchmarkCommand:
    """Measure how close sampling or an iteration comes to the speed of the physics."""

    what: Annotated[
        Literal["sampling", "iteration", "tasks", "figures", "fewshot", "scale", "saturation"],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="WHAT"),
    ]
    """Benchmark to run. sampling: trajectories under the policy. iteration: sampling twice, adaptation and the outer
    step. tasks: what an iteration costs per task, from 10 to 400 tasks. figures: iteration in both physics and tasks,
    as plots. fewshot: a second-order meta-batch of 5-way 1-shot tasks, an episode of Prototypical Networks, a lookup
    and a gradient step of the memory module, and a meta-step of the Neural Statistician and of PLATIPUS, on made-up
    drawings. scale: an environment slow in Python, sampled by 1, 2, ... workers. saturation: tasks that only sleep, as
    many workers as one driver can serve."""
    outer: Literal["trust_region", "proximal"] = "trust_region"
    """Outer step of an iteration. trust_region: that of the paper. proximal: ProMP's, five epochs."""
    env: Literal["HalfCheetahVel", "AntVel"] = "HalfCheetahVel"
    """Robot of sampling and iteration. AntVel is put beside a physics that computes contact forces, too."""
    physics: Physics = "gym"
    """Physics of the robot: rllab takes one step of the simulation for an action, gym five."""
    num_tasks: int | None = None
    """Tasks; by default as in the papers, 40 in reinforcement learning and 32 in few-shot classification."""
    task_counts: tuple[int, ...] = (10, 20, 40, 100, 200, 400)
    """Numbers of tasks whose cost tasks and figures measure."""
    episodes_per_task: int = 20
    """Episodes of each task; 20 as in the paper."""
    horizon: int = 200
    """Steps of an episode."""
    hidden_sizes: tuple[int, ...] = (100, 100)
    """Units in each hidden layer of the policy."""
    repeats: int = 5
    """Measurements of each, of which medians are reported."""
    num_threads: int = 0
    """Threads; 0 uses every core."""
    device: str = "cpu"
    """Device for policies, adaptation and the outer step: cpu, cuda or cuda:N."""
    sampler: Literal["processes", "ray"] = "processes"
    """Kind of workers for scale and saturation."""
    num_workers: int | None = None
    """Largest number of workers for scale and saturation; by default one per core."""
    ray_address: str | None = None
    """Ray cluster: auto or host:port; by default this machine alone."""
    step_seconds: float = 250e-6
    """Seconds that a step of one environment takes in scale."""
    task_seconds: float = 4.0
    """Seconds that a task sleeps in saturation; 4 as for a Meta-World task of 10 episodes."""
    output_dir: Path = Path("docs/images")
    """Folder for the figures."""
    json: bool = False
    """Print the result as one JSON line on stdout."""

    @property
    def tasks(self) -> int:
        papers = 32 if self.what == "fewshot" else 40
        return papers if self.num_tasks is None else self.num_tasks


@lenient_streams()
def benchmark(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark command; return the exit status: 0, or 2 if refused."""
    command = parse(BenchmarkCommand, EXAMPLES, arguments)
    try:
        if command.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {command.repeats}")
        if command.num_tasks is not None and command.num_tasks < 1:
            raise ValueError(f"num_tasks must be at least 1, got {command.num_tasks}")
        if not command.task_counts or min(command.task_counts) < 1:
            raise ValueError(f"task_counts must be one number or more of at least 1, got {command.task_counts}")
        for name in ("step_seconds", "task_seconds"):
            if not 0.0 < getattr(command, name) < float("inf"):
                raise ValueError(f"{name} must be positive and finite, got {getattr(command, name)}")
        result = MEASUREMENTS[command.what](command)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, value in result.items():
        print(f"{name:28} {value:,.4g}" if isinstance(value, float) else f"{name:28} {value}", file=sys.stderr)
    if command.json:
        print(json.dumps(result))
    return 0


def _config(command: BenchmarkCommand) -> RunConfig:
    learner = "promp" if command.outer == "proximal" else "maml"
    default = default_config(full_id(command.env, command.physics), learner)
    policy = dataclasses.replace(default.method.policy, hidden_sizes=command.hidden_sizes)
    return dataclasses.replace(
        default,
        device=command.device,
        num_threads=command.num_threads,
        training=TrainingConfig(num_tasks=command.tasks),
        task=dataclasses.replace(default.task, sampling=SamplingConfig(command.episodes_per_task, command.horizon)),
        method=dataclasses.replace(default.method, policy=policy),
    )


class _Bench:
    """MAML with its tasks, and the bare physics under the same actions that its policy takes."""

    def __init__(self, config: RunConfig):
        self.config = config
        self.built = build(config)
        self.learner = cast(MAML, self.built.learner)
        self.state = self.learner.init(Key(0, INITIALISATION, 0))
        self.num_tasks = config.training.num_tasks
        self.tasks = self.built.family.source.sample_tasks(self.num_tasks, np.random.default_rng(0))
        self.num_threads = self.built.threads.num_threads
        self._count = 0

    def sample(self) -> float:
        """Steps per second of the sampler."""
        self._count += 1
        key = Key(0, TRAINING, self._count)
        actor = self.learner.actor(self.state, self.learner.begin(self.state, self.num_tasks, key), key)
        start = perf_counter()
        trajectory = self.built.family.collector.collect(self.tasks, actor, key)
        seconds = perf_counter() - start
        self._actions = trajectory.actions
        return trajectory.mask.sum().item() / seconds

    def outer_step_parts(self) -> dict[str, float]:
        """Seconds of the outer step's parts, on fresh data, by the names in OUTER_PARTS."""
        outer, theta, objective = self.config.method.outer, self.state.params, self._objective()

        def fisher_products() -> None:
            for _ in range(outer.trust_region.cg_iterations):
                at.fisher_product(at.gradient)

        def later_epochs() -> None:
            for _ in range(outer.proximal.epochs - 1):
                surrogate.linearize(theta)

        times = [perf_counter()]
        if outer.step == "proximal":
            surrogate = Surrogate(objective, outer.proximal, outer.proximal.inner_kl)
            surrogate.linearize(theta)
            further: tuple[Callable[[], Any], ...] = (later_epochs, lambda: surrogate.evaluate(theta))
        else:
            at = objective.linearize(theta, outer.trust_region.fisher_share)
            further = (fisher_products, lambda: objective.evaluate(theta))
        times.append(perf_counter())
        for part in further:
            part()
            times.append(perf_counter())
        return dict(zip(OUTER_PARTS[outer.step], (b - a for a, b in itertools.pairwise(times)), strict=True))

    def _objective(self) -> MetaObjective:
        """The meta-loss of fresh data."""
        learner, key = self.learner, Key(0, TRAINING, 0)
        adapted = learner.begin(self.state, self.num_tasks, key)
        data, batches = None, []
        for phase in range(learner.inner.num_steps + 1):
            now = key.at_phase(phase)
            if phase:
                adapted = learner.adapt(self.state, adapted, data, now)
            data = learner.collector.collect(self.tasks, learner.actor(self.state, adapted, now), now)
            batches.append(learner.model.prepare(adapted.params, data))
        return MetaObjective(learner.model, learner.inner, batches[:-1], batches[-1], learner.threads)

    def prepare_physics(self) -> None:
        """Prepare a batch of all episodes' simulations, and the controls of the last sampling for every sub-step."""
        env = make_environment(self.config, 1)
        assert isinstance(env, MujocoTaskVectorEnv)
        self._substeps, self._stage = env.physics.frame_skip, env.stage_after_step
        actions = self._actions.flatten(0, 1).clamp(-1.0, 1.0).double().numpy()  # [episodes, T, A]
        self._controls: NDArray[np.float64] = np.repeat(actions, self._substeps, axis=1)
        self._batch = mujoco.batch.Batch(env.model, len(actions), self.num_threads)
        env.close()

    def physics(self) -> float:
        """Environment steps per second of MuJoCo alone as its Python package has it: see `untimed_physics`, but here it
        reads the clock in every step, for MjData.timer."""
        with with_timers():
            return self.untimed_physics()

    def untimed_physics(self) -> float:
        """Environment steps per second of MuJoCo alone: open loop, nothing recorded, with the stages after each step
        that the environment's observations need."""
        num_episodes, num_substeps, _ = self._controls.shape
        self._batch.reset()
        start = perf_counter()
        if self._stage == STAGE_NONE:
            self._batch.rollout(num_substeps, self._controls, mujoco.mjtState.mjSTATE_CTRL.value, record=())
        else:
            applied = self._batch.bind("ctrl")
            for substep in range(0, num_substeps, self._substeps):
                applied[...] = self._controls[:, substep]
                self._batch.step(nstep=self._substeps, stage=self._stage)
        seconds = perf_counter() - start
        return num_episodes * num_substeps / self._substeps / seconds


def _sampling(command: BenchmarkCommand) -> dict[str, Any]:
    bench = _Bench(_config(command))
    bench.sample()
    bench.prepare_physics()
    bench.physics()
    rates = [(bench.physics(), bench.untimed_physics(), bench.sample()) for _ in range(command.repeats)]
    bench.built.close()
    raw, untimed, sampled = (statistics.median(column) for column in zip(*rates, strict=True))
    return _described(command, bench) | {
        "raw_physics_steps_per_s": raw,
        "untimed_physics_steps_per_s": untimed,
        "sampling_steps_per_s": sampled,
        "ratio": statistics.median(s / r for r, _, s in rates),
        "ratio_to_untimed": statistics.median(s / u for _, u, s in rates),
    }


def _iteration(command: BenchmarkCommand) -> dict[str, Any]:
    bench = _Bench(_config(command))
    bench.sample()
    bench.prepare_physics()
    bench.physics()
    bench.built.learner.meta_step(bench.state, bench.tasks, Key(0, TRAINING, 0))  # first use: memory, caches
    rows = []
    for number in range(1, command.repeats + 1):
        raw = bench.physics()
        start = perf_counter()
        _, report = bench.built.learner.meta_step(bench.state, bench.tasks, Key(0, TRAINING, number))
        seconds = perf_counter() - start
        rows.append((seconds, report.metrics["env_steps"] / raw, report.clock))
    parts = bench.outer_step_parts()
    bench.built.close()
    clocks = {name: statistics.median(clock[name] for _, _, clock in rows) for name in CLOCKS}
    return _described(command, bench) | {
        "outer": command.outer,
        "seconds_per_iteration": statistics.median(seconds for seconds, _, _ in rows),
        "physics_floor_seconds": statistics.median(floor for _, floor, _ in rows),
        "ratio_to_floor": statistics.median(seconds / floor for seconds, floor, _ in rows),
        **clocks,
        **parts,
        "peak_memory_mb": _peak_memory_mb(),
    }


def _peak_memory_mb() -> float:
    """The most memory that this process has had; nan on Windows, where Python does not tell."""
    if sys.platform == "win32":
        return math.nan
    resource = importlib.import_module("resource")
    unit = 1 if sys.platform == "darwin" else 1024  # [bytes]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _tasks(command: BenchmarkCommand) -> dict[str, Any]:
    """Measure each number of tasks in turn, `repeats` times, so that changes in machine speed affect all alike."""
    counts = command.task_counts
    benches = {n: _Bench(_config(dataclasses.replace(command, num_tasks=n))) for n in counts}
    seconds: dict[int, list[float]] = {n: [] for n in counts}
    for number in range(command.repeats):
        for count, bench in benches.items():
            start = perf_counter()
            bench.built.learner.meta_step(bench.state, bench.tasks, Key(0, TRAINING, number))
            seconds[count].append((perf_counter() - start) / count)
    for bench in benches.values():
        bench.built.close()
    return _described(command, benches[counts[0]]) | {
        "num_tasks": list(counts),
        "seconds_per_task": [statistics.median(each) for each in seconds.values()],
        "peak_memory_mb": _peak_memory_mb(),
    }


def _figures(command: BenchmarkCommand) -> dict[str, Any]:
    """Measure, draw, and write plots and numbers."""
    require_writable(command.output_dir, "iteration.png", "cost_per_task.png", "benchmark.json")
    command.output_dir.mkdir(parents=True, exist_ok=True)
    iterations = [_iteration(dataclasses.replace(command, physics=physics)) for physics in PHYSICS]
    tasks = _tasks(dataclasses.replace(command, physics="rllab", repeats=1))
    result = {"iteration": iterations, "tasks": tasks}
    save_figure(
        iteration_plot([(each["env"], _shares(each)) for each in iterations]), command.output_dir / "iteration.png"
    )
    save_figure(cost_plot(tasks["num_tasks"], tasks["seconds_per_task"]), command.output_dir / "cost_per_task.png")
    write_atomically(command.output_dir / "benchmark.json", f"{json.dumps(result, indent=1)}\n".encode())
    return result


def _fewshot(command: BenchmarkCommand) -> dict[str, Any]:
    with product_threads(1), contextlib.closing(Threads(command.num_threads)) as threads:
        return {
            "benchmark": command.what,
            "num_tasks": command.tasks,
            "num_threads": threads.num_threads,
            "repeats": command.repeats,
            **meta_batch(command.tasks, command.repeats, threads),
            **prototypical_episode(command.repeats, threads),
            **memory_lookup(command.repeats, threads),
            **statistician_step(command.repeats, threads),
            **platipus_step(command.tasks, command.repeats, threads),
        }


def _scale(command: BenchmarkCommand) -> dict[str, Any]:
    config = _scaling_config(command)
    load = busy(command.step_seconds, command.episodes_per_task, command.horizon, command.hidden_sizes)
    local = LocalSampler(load.recipe, Threads(1))
    crew = make_crew(config, load.recipe)
    with product_threads(1), contextlib.closing(local), contextlib.closing(crew):
        result = scale(load, local, crew, config.num_workers or 1, command.tasks, command.repeats)
    return _sizes(command) | {"sampler": command.sampler, "step_seconds": command.step_seconds} | result


def _saturation(command: BenchmarkCommand) -> dict[str, Any]:
    config = _scaling_config(command)
    load = sleeping(command.task_seconds, command.episodes_per_task, command.horizon, command.hidden_sizes)
    with contextlib.closing(make_crew(config, load.recipe)) as crew:
        result = saturation(load, crew, config.num_workers or 1, command.tasks, command.task_seconds)
    return _sizes(command) | {"sampler": command.sampler} | result


def _scaling_config(command: BenchmarkCommand) -> SamplingConfig:
    return SamplingConfig(
        command.episodes_per_task,
        command.horizon,
        sampler=command.sampler,
        num_workers=available_cores() if command.num_workers is None else command.num_workers,
        ray_address=command.ray_address,
    )


def _shares(result: dict[str, Any]) -> dict[str, float]:
    """The seconds of an iteration by part."""
    outer = {label: result[name] for name, label in OUTER_PARTS[result["outer"]].items()}
    return {
        "physics alone": result["physics_floor_seconds"],
        "the rest of sampling": max(0.0, result["sample_seconds"] - result["physics_floor_seconds"]),
        "adaptation": result["adapt_seconds"],
        **outer,
        "the rest of the outer step": max(0.0, result["outer_seconds"] - sum(outer.values())),
    }


OUTER_PARTS = {
    "trust_region": {
        "gradient_seconds": "outer step: gradient",
        "fisher_seconds": "outer step: Fisher products",
        "line_search_seconds": "outer step: line search",
    },
    "proximal": {
        "first_epoch_seconds": "outer step: first epoch",
        "later_epochs_seconds": "outer step: later epochs",
        "scores_seconds": "outer step: KLs at the end",
    },
}
"""Names and labels of each outer step's parts."""

PHYSICS: tuple[Physics, ...] = ("gym", "rllab")

MEASUREMENTS: dict[str, Callable[[BenchmarkCommand], dict[str, Any]]] = {
    "sampling": _sampling,
    "iteration": _iteration,
    "tasks": _tasks,
    "figures": _figures,
    "fewshot": _fewshot,
    "scale": _scale,
    "saturation": _saturation,
}

CLOCKS = ("sample_seconds", "adapt_seconds", "outer_seconds")


def _described(command: BenchmarkCommand, bench: _Bench) -> dict[str, Any]:
    return _sizes(command) | {"env": bench.config.env, "num_threads": bench.num_threads}


def _sizes(command: BenchmarkCommand) -> dict[str, Any]:
    return {
        "benchmark": command.what,
        "num_tasks": command.tasks,
        "episodes_per_task": command.episodes_per_task,
        "horizon": command.horizon,
        "hidden_sizes": list(command.hidden_sizes),
        "repeats": command.repeats,
    }
