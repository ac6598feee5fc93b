"""Warm starts: training that begins with the parameters of another run."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from maml_rl.experiments.config import RunConfig
from maml_rl.experiments.environments import surroundings_of
from maml_rl.experiments.runs import read_config, require_same_observations
from maml_rl.experiments.zoo import resolved
from maml_rl.policies.scale import ObservationScale
from maml_rl.storage.checkpoint import Checkpoint, load_latest


def warm_start(config: RunConfig, initial: Checkpoint) -> Checkpoint:
    """`initial` with all that the settings take from other runs: parameters to begin with, and an expert.

    Raises:
        ConfigError, CheckpointError: if such a run cannot be read.
        ValueError: if it does not fit.
    """
    return _with_expert(config, _begun_from(config, initial))


def _begun_from(config: RunConfig, initial: Checkpoint) -> Checkpoint:
    """`initial` with the last parameters of the run in `config.init_from` that this run has, too.

    An encoder that Prototypical Networks have learned becomes MAML's in this way, and MAML's last layer stays as it
    was. Moments of optimisers start from scratch. The seconds and environment steps that the other run took count.

    Raises:
        ConfigError, CheckpointError: if that run cannot be read.
        ValueError: if it has no such parameter or one of another shape, is of another environment, or has learned from
            what this run is to be tested on.
    """
    if config.init_from is None:
        return initial
    run = resolved(config.init_from)
    if config.kind == "pictures":
        _require_same_classes(read_config(run), config)
    elif not config.init_from_any_env:
        _require_same_environment(read_config(run), config)
    source = load_latest(run / "checkpoints")
    known, own = _params(source.state), _params(initial.state)
    taken = {name: value for name, value in known.items() if name in own}
    if (
        config.kind == "pictures"
    ):  # a last layer with one output per class starts from scratch for another number of classes
        taken = {k: v for k, v in taken.items() if not k.startswith("head.") or v.shape == own[k].shape}
    if not taken:
        shapes = [{name: list(value.shape) for name, value in params.items()} for params in (own, known)]
        raise ValueError(
            f"init_from must name a run with a parameter of this one's, {shapes[0]}, but {run} has {shapes[1]}"
        )
    for name, value in taken.items():
        if value.shape != own[name].shape:
            raise ValueError(
                f"init_from must name a run whose parameters have this one's shapes, but {name} has "
                f"{list(value.shape)} in {run} and {list(own[name].shape)} here: choose the same network"
            )
    state = initial.state | {f"params/{name}": value.to(own[name]) for name, value in taken.items()}
    counters = initial.counters | {name: source.counters[name] for name in initial.counters}
    return dataclasses.replace(initial, state=state, counters=counters)


def _with_expert(config: RunConfig, initial: Checkpoint) -> Checkpoint:
    """`initial` with the policy of the run in `config.method.expert`, which has seen the tasks' numbers.

    Raises:
        ConfigError, CheckpointError: if that run cannot be read.
        ValueError: if its tasks or its observations are others.
    """
    source = expert_config(config)
    if source is None:
        return initial
    found = load_latest(resolved(config.method.expert) / "checkpoints")
    known = _params(found.state)
    state = initial.state | {f"expert/params/{name}": value for name, value in known.items()}
    scale = source.task.observation_scale
    if scale is not None:
        for part in ("mean", "std"):
            values = getattr(scale, part)[-len(initial.state[f"expert/{part}"]) :]
            state[f"expert/{part}"] = torch.tensor(values).to(initial.state[f"expert/{part}"])
    spent = {name: initial.counters[name] + found.counters[name] for name in initial.counters}
    return dataclasses.replace(initial, state=state, counters=spent)


def expert_config(config: RunConfig) -> RunConfig | None:
    """The settings of the run in `config.method.expert`, None for a learner that needs none.

    Raises:
        ConfigError: if it cannot be read.
        ValueError: if there is none, or it is of another environment, or was not told its tasks.
    """
    if not hasattr(config.method, "expert"):
        return None
    name = config.method.expert
    if name is None:
        raise ValueError(
            f"learner {config.learner} needs expert, the folder of a run that was told its tasks, got none: train one "
            "with --oracle --inner.num-steps 0 first"
        )
    source = read_config(resolved(name))
    if source.env != config.env:
        raise ValueError(f"expert must name a run of {config.env}, but {name} is one of {source.env}")
    if not source.task.oracle:
        raise ValueError(
            f"expert must name a run that was told its tasks, but {name} was not: train it with --oracle "
            "--inner.num-steps 0"
        )
    require_same_observations(resolved(name), source)
    return source


def with_settings_of_start(config: RunConfig) -> RunConfig:
    """The config with what other runs have settled: the observation scale of the run that it begins with or has its
    expert from, under which their first layers have learned, and the expert's network.

    Raises:
        ConfigError: if such a run cannot be read.
        ValueError: if it saw observations of the same environment in another form.
    """
    return _with_settings_of_expert(_with_scale_of_beginning(config))


def _with_settings_of_expert(config: RunConfig) -> RunConfig:
    source = expert_config(config)
    if source is None:
        return config
    name = config.method.expert
    if source.task.observations != config.task.observations:
        raise ValueError(f"observations must be {source.task.observations}, as in the run {name} of the expert")
    scale, size = source.task.observation_scale, surroundings_of(source)[3]
    if scale is not None:  # without the task's numbers at the end, which this policy does not see
        scale = ObservationScale(scale.mean[:-size], scale.std[:-size])
    if config.task.observation_scale not in (None, scale):
        raise ValueError(
            f"init_from and expert must name runs that saw observations on one scale, but {config.init_from} and "
            f"{name} did not: leave init_from out"
        )
    method = dataclasses.replace(config.method, expert_policy=source.method.policy)
    task = dataclasses.replace(config.task, observation_scale=scale)
    return dataclasses.replace(config, task=task, method=method)


def _with_scale_of_beginning(config: RunConfig) -> RunConfig:
    if config.init_from is None or config.kind != "reinforcement" or config.task.observation_scale is not None:
        return config
    start = resolved(config.init_from)
    source = read_config(start)
    if source.env != config.env:
        return config
    require_same_observations(start, source)
    if source.task.observations != config.task.observations:
        raise ValueError(
            f"observations must be {source.task.observations}, as in the run {config.init_from} that init_from names, "
            f"got {config.task.observations}: its parameters have learned from such"
        )
    task = dataclasses.replace(config.task, observation_scale=source.task.observation_scale)
    return dataclasses.replace(config, task=task)


def begun_anew(initial: Checkpoint, start: Checkpoint) -> list[str]:
    """Names of the parameters that `warm_start` has left as they were."""
    return [name for name in _params(initial.state) if start.state[f"params/{name}"] is initial.state[f"params/{name}"]]


def _params(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("params/"): value for name, value in state.items() if name.startswith("params/")}


def _require_same_environment(source: RunConfig, config: RunConfig) -> None:
    if source.env != config.env:
        raise ValueError(
            f"init_from must name a run of {config.env}, but {config.init_from} is one of {source.env}: add "
            "--init-from-any-env if that is intended"
        )


def _require_same_classes(source: RunConfig, config: RunConfig) -> None:
    for name in ("env", "split", "train_on"):
        theirs, ours = (getattr(c if name == "env" else c.task, name) for c in (source, config))
        if theirs != ours:
            raise ValueError(
                f"init_from must name a run with {name} {ours}, but {config.init_from} has {theirs}: it may have "
                "learned from the classes that this run is tested on"
            )
