"""A finished or running run, read back from its folder for evaluation and pictures."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor

from maml_rl.core.contracts import State
from maml_rl.core.keys import INITIALISATION, Key
from maml_rl.core.trees import from_names, named, to_device
from maml_rl.experiments.build import Built, build, require_tasks
from maml_rl.experiments.config import RunConfig
from maml_rl.experiments.environments import holds_bytes, is_own
from maml_rl.experiments.migration import migrated
from maml_rl.experiments.saved_config import from_dict
from maml_rl.experiments.table import LEARNERS
from maml_rl.experiments.task_lists import TaskList
from maml_rl.experiments.trust import by_trust, require_trust
from maml_rl.storage.checkpoint import Checkpoint, CheckpointError, load_best, load_latest, without
from maml_rl.storage.run_folder import RunFolder

WhichCheckpoint = Literal["best", "last"]


class Trained(NamedTuple):
    """A run's learned state, and everything needed to use it; `built` is to be closed."""

    config: RunConfig  # with the evaluation's number of episodes
    checkpoint: Checkpoint
    state: State  # the checkpoint's, on the run's device
    built: Built


def read_config(run: Path) -> RunConfig:
    """The settings of the run in folder `run`, whichever version saved them.

    Raises:
        ConfigError: if it is no run folder, or its settings are refused.
    """
    return from_dict(migrated(*RunFolder.read_config(run)))


def require_same_observations(run: Path, config: RunConfig) -> None:
    """Refuse a run of version 0.1 that learned from bytes as they are: they are scaled now.

    Args:
        config: of the run in folder `run`, whose module may be imported.
    Raises:
        ValueError: if it is one.
    """
    is_users_own = config.kind == "reinforcement" and not is_own(config.env)
    if is_users_own and RunFolder.read_config(run)[0] == 1 and holds_bytes(config):
        raise ValueError(
            f"{run} was trained by version 0.1 on observations of bytes as they are, and now they are scaled from "
            f"their bounds to 0..1: train on {config.env} anew, or go on with version 0.1"
        )


def to_be_read(saved: RunConfig, device: str, num_threads: int, **evaluation: Any) -> RunConfig:
    """The settings of a saved run for a command that evaluates or draws it, which samples on this machine."""
    task = saved.task
    if saved.kind == "reinforcement":
        task = dataclasses.replace(task, sampling=dataclasses.replace(task.sampling, sampler="local"))
    evaluated = dataclasses.replace(saved.evaluation, **evaluation)
    return dataclasses.replace(saved, device=device, num_threads=num_threads, evaluation=evaluated, task=task)


def load_checkpoint(run: Path, which: WhichCheckpoint) -> Checkpoint:
    """The best or the last checkpoint of the run in folder `run`.

    Raises:
        CheckpointError: if there is none, or it is refused.
        ValueError: if `which` is neither.
    """
    if which not in get_args(WhichCheckpoint):
        raise ValueError(f"checkpoint must be best or last, got {which!r}")
    load: Callable[[Path], Checkpoint] = load_best if which == "best" else load_latest
    return load(run / "checkpoints")


FIRST_LAYERS = ("params/conv0.weight", "params/encoder.0.weight")
"""Names of networks' first convolutions, [filters, channels, 3, 3]."""


def with_channels(config: RunConfig, state: dict[str, Tensor]) -> RunConfig:
    """The settings with the channels that the run's network takes: grey or colour."""
    first = next((state[name] for name in FIRST_LAYERS if name in state), None)  # nothing where nothing was learned
    if config.kind != "pictures" or first is None:
        return config
    images = dataclasses.replace(config.task.images, channels="grey" if first.shape[1] == 1 else "colour")
    return dataclasses.replace(config, task=dataclasses.replace(config.task, images=images))


def pictures_as_trained(run: Path, built: Built) -> bool | None:
    """Check if the user's own pictures are those that the run in folder `run` learned from; None if unknown."""
    if built.spec is None or built.spec.data is None:
        return None
    known = read_config(run).task.fingerprint
    return None if known is None else built.spec.data.fingerprint == known


def warn_of_other_pictures(run: Path, built: Built) -> None:
    """Warn on stderr if the pictures in the folder that the user named are not those of training."""
    if pictures_as_trained(run, built) is False:
        print(f"warning: {run} learned from other pictures than those in --data-root", file=sys.stderr)


def load_trained(
    run: Path,
    config: RunConfig,
    which: WhichCheckpoint,
    task_range: tuple[float, float] | None = None,
    mean_actions: bool = False,
    trusted: tuple[str, ...] = (),
    tasks: TaskList | None = None,
) -> Trained:
    """The checkpoint of the run in folder `run`, to be used with the settings `config`.

    Args:
        trusted: the user's own classes whose modules the caller trusts, module:Class.
        tasks: to evaluate on in place of fresh ones; `config.evaluation.num_tasks` is to be their number.
    Raises:
        CheckpointError: if there is none, it is refused, or it is not of this environment and network.
        ValueError: if the settings or the tasks do not fit the environment, or its module is not to be imported.
    """
    require_trust(run, config, trusted, by_trust)
    require_same_observations(run, config)
    checkpoint = load_checkpoint(run, which)
    config = with_channels(config.as_evaluated, checkpoint.state)
    built = build(config, task_range, mean_actions)
    try:
        if tasks is not None:
            built = dataclasses.replace(built, given=tasks.of(built.family.source, config.env))
        template = built.learner.init(Key(config.seed, INITIALISATION, 0))
        state = fitted(checkpoint.state, template, config, run / "checkpoints" / checkpoint.name)
        require_tasks(built, in_training=False)
    except BaseException:
        built.close()
        raise
    return Trained(config, checkpoint, to_device(state, built.device), built)


def fitted(saved: dict[str, Tensor], template: State, config: RunConfig, checkpoint: Path) -> State:
    """A learner's state with the saved values; what only training needs may be missing, and is then the template's.

    Args:
        template: a state of the run's learner, as at the beginning of training.
        checkpoint: for error messages.
    Raises:
        CheckpointError: if the saved state is of another environment or network.
    """
    fresh = named(template)
    needless = LEARNERS[config.learner].training_only
    found, wanted = without(saved, needless), without(fresh, needless)
    for name in sorted(found.keys() | wanted.keys()):
        shape, expected = (list(kind[name].shape) if name in kind else None for kind in (found, wanted))
        if shape != expected:
            raise CheckpointError(
                f"checkpoint {checkpoint} must fit {config.env} and the network in "
                f"{checkpoint.parents[1] / 'config.json'}, but {name.partition('/')[2]} has shape {shape} in place of "
                f"{expected}: it is another run's"
            )
    return from_names(template, fresh | saved)
