"""A finished or running run, read back from its folder for evaluation and pictures."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from maml_rl.build import Built, build, module_file, no_such_module, require_tasks
from maml_rl.config import RunConfig, from_dict
from maml_rl.core.maml import params_of
from maml_rl.core.params import Params, to_device
from maml_rl.core.protocols import INITIALISATION, Key, State
from maml_rl.supervised.classification import ClassificationFamily
from maml_rl.training.checkpoint import Checkpoint, CheckpointError, load_best, load_latest
from maml_rl.training.run_folder import RunFolder

WhichCheckpoint = Literal["best", "last"]


class Trained(NamedTuple):
    """What a run has learned, and everything to use it with; `built` is to be closed."""

    config: RunConfig  # with the evaluation's number of episodes
    checkpoint: Checkpoint
    state: State  # the checkpoint's, on the run's device
    built: Built

    @property
    def theta(self) -> Params:
        return params_of(self.state)


def read_config(run: Path) -> RunConfig:
    """The settings of the run in folder `run`.

    Raises:
        ConfigError: if it is no run folder, or its settings are refused.
    """
    return from_dict(RunFolder.read_config(run))


def named_env(config: RunConfig, env: str | None, trust_env: bool) -> str | None:
    """The environment whose import the command line asks for, by --env or --trust-env; None if by neither.

    Raises:
        ValueError: if it is not that of the run with these settings.
    """
    if env not in (None, config.env, config.env_id):
        raise ValueError(f"env must be the environment of the run, {config.env_id}, got {env}: leave it out")
    return config.env_id if trust_env or env is not None else None


def require_trust(run: Path, env_id: str, named: str | None, flags: str) -> None:
    """Refuse to import the module of a user's environment for its name in a saved run alone; else say what is imported.

    A run's folder may come from anybody, and importing a module runs it.

    Args:
        named: the environment that the caller names, apart from the run.
        flags: by which a user names it.
    Raises:
        ValueError: if that is not the run's, or its module lies in the run's folder or nowhere.
    """
    module, colon, _ = env_id.rpartition(":")
    if not colon:
        return  # an id that is registered already
    file = module_file(module, run)
    if named != env_id:
        raise ValueError(
            f"the run in {run} wants to import {module!r} ({file or 'not found'}) for its environment {env_id}: if you "
            f"trust that code, add {flags}"
        )
    if file is not None:
        print(f"importing {module} from {file} for the run in {run}", file=sys.stderr)
    elif module not in sys.modules:
        raise no_such_module(module)


def with_channels(config: RunConfig, state: State) -> RunConfig:
    """The settings under which pictures become what the run's network takes: grey or colour."""
    first = state.get("params/conv0.weight")  # [filters, channels, 3, 3]; nothing where nothing was learned
    if not config.is_few_shot or first is None:
        return config
    images = dataclasses.replace(config.episodes.images, channels="grey" if first.shape[1] == 1 else "colour")
    return dataclasses.replace(config, episodes=dataclasses.replace(config.episodes, images=images))


def pictures_as_trained(run: Path, built: Built) -> bool | None:
    """Whether the user's own pictures are those that the run in folder `run` learned from; None if it is not known."""
    known = read_config(run).episodes.fingerprint
    if known is None or not isinstance(built.family, ClassificationFamily):
        return None
    return built.family.stream.data.fingerprint == known


def warn_of_other_pictures(run: Path, built: Built) -> None:
    """Say on stderr that the pictures in the folder that the user named are not those of training, if they are not."""
    if pictures_as_trained(run, built) is False:
        print(f"warning: {run} learned from other pictures than those in --data-root", file=sys.stderr)


def load_trained(
    run: Path,
    config: RunConfig,
    which: WhichCheckpoint,
    task_range: tuple[float, float] | None,
    mean_actions: bool,
    named: str | None = None,
) -> Trained:
    """The checkpoint of the run in folder `run`, to be used with the settings `config`.

    Args:
        named: the environment, if it is a user's own and the caller trusts its module.
    Raises:
        CheckpointError: if there is none, it is refused, or it is not of this environment and network.
        ValueError: if the settings do not fit the environment, or its module is not to be imported.
    """
    require_trust(run, config.env_id, named, f"--env {shlex.quote(config.env_id)}, or --trust-env")
    load: Callable[[Path], Checkpoint] = load_best if which == "best" else load_latest
    checkpoint = load(run / "checkpoints")
    config = with_channels(config.as_evaluated, checkpoint.state)
    built = build(config, task_range, mean_actions)
    try:
        state = to_device(checkpoint.state, built.device)
        theta = params_of(state)
        initial = params_of(built.learner.init(Key(config.seed, INITIALISATION, 0)))
        _require_fit(theta, initial, run, config, checkpoint)
        require_tasks(config, built.family, in_training=False)
    except BaseException:
        built.close()
        raise
    return Trained(config, checkpoint, state, built)


def _require_fit(theta: Params, wanted: Params, run: Path, config: RunConfig, checkpoint: Checkpoint) -> None:
    shapes = [{name: list(value.shape) for name, value in params.items()} for params in (theta, wanted)]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        found, expected = (kind.get(name) for kind in shapes)
        if found != expected:
            raise CheckpointError(
                f"checkpoint {run / 'checkpoints' / checkpoint.name} must fit {config.env_id} and the network in "
                f"{run / 'config.json'}, but {name} has shape {found} in place of {expected}: it is another run's"
            )
