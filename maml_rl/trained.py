"""A finished or running run, read back from its folder for evaluation and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from maml_rl.build import Built, build
from maml_rl.config import RunConfig, from_dict
from maml_rl.core.maml import params_of
from maml_rl.core.params import Params, to_device
from maml_rl.core.protocols import INITIALISATION, Key, State
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


def with_channels(config: RunConfig, state: State) -> RunConfig:
    """The settings under which pictures become what the run's network takes: grey or colour."""
    first = state.get("params/conv0.weight")  # [filters, channels, 3, 3]; nothing where nothing was learned
    if not config.is_few_shot or first is None:
        return config
    images = dataclasses.replace(config.episodes.images, channels="grey" if first.shape[1] == 1 else "colour")
    return dataclasses.replace(config, episodes=dataclasses.replace(config.episodes, images=images))


def load_trained(
    run: Path,
    config: RunConfig,
    which: WhichCheckpoint,
    task_range: tuple[float, float] | None,
    mean_actions: bool,
) -> Trained:
    """The checkpoint of the run in folder `run`, to be used with the settings `config`.

    Raises:
        CheckpointError: if there is none, it is refused, or it is not of this environment and network.
        ValueError: if the settings do not fit the environment.
    """
    load: Callable[[Path], Checkpoint] = load_best if which == "best" else load_latest
    checkpoint = load(run / "checkpoints")
    config = with_channels(config.as_evaluated, checkpoint.state)
    built = build(config, task_range, mean_actions)
    try:
        state = to_device(checkpoint.state, built.device)
        theta = params_of(state)
        initial = params_of(built.learner.init(Key(config.seed, INITIALISATION, 0)))
        _require_fit(theta, initial, run, config, checkpoint)
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
