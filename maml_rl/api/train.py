"""Training from Python, with the same runs and folders as the command."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import nn

from maml_rl.api.experiment import Experiment, load_experiment
from maml_rl.api.run import Run, load
from maml_rl.api.settings import with_settings
from maml_rl.experiments import experiment
from maml_rl.experiments.build import require_learner
from maml_rl.experiments.config import Physics, RunConfig, forbidden_changes, kind_of
from maml_rl.experiments.environments import full_id, remember
from maml_rl.experiments.fitting import fitted_to_folder
from maml_rl.experiments.flags import Setting, changes, require_read
from maml_rl.experiments.presets import Preset, default_config, require_beginning
from maml_rl.experiments.runs import read_config
from maml_rl.experiments.table import names_for
from maml_rl.experiments.training import Job, Prepared, default_folder, note_cluster, prepare, without_cluster
from maml_rl.experiments.training_seeds import Shown, begin_experiment, train_in_turn
from maml_rl.experiments.trust import Import, require_trust
from maml_rl.policies.module import module_name
from maml_rl.training.callbacks import Callback
from maml_rl.training.trackers import Tracker, make_trackers
from maml_rl.training.trainer import TrainingError, TrainingResult


def train(
    env: str | type[Any] | Callable[[], Any] | None = None,
    *,
    learner: str | None = None,
    preset: Preset = "paper",
    physics: Physics | None = None,
    output_dir: str | Path | None = None,
    resume: str | Path | None = None,
    network: type[nn.Module] | Callable[..., nn.Module] | str | None = None,
    film_every: int = 0,
    track: Tracker | Sequence[Tracker] = "tensorboard",
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Meta-train, leaving everything about the run in one folder.

    Args:
        env: an environment id or short name, "sinusoid", "omniglot" or "images"; or an environment class, or a function
            that makes one; by default HalfCheetahVel.
        learner: a name in the table of learners; by default MAML, or else the first that takes such tasks.
        preset: default settings: "paper", "fast" or "warm", as on the command line.
        physics: of robots, "rllab" or "gym".
        output_dir: the run's folder, which must not exist yet; by default runs/TASK-TIME.
        resume: a run's folder to continue, with its environment, learner and settings. If the environment is a class
            of your own that is not imported yet, name it by env: a saved run has no code imported by itself.
        network: a torch.nn.Module class or factory, (observation_size, output_size) -> module, in place of the
            multilayer perceptron; or "module:Class".
        film_every: iterations from film to film in the trackers; 0 for none.
        track: where the numbers are shown: "tensorboard", "wandb", "trackio"; metrics.csv has them in any case.
        callbacks: told of every iteration and evaluation; one that returns False or raises maml_rl.StopTraining ends
            the run with its last checkpoint. Derive them from maml_rl.Callback.
        quiet: print nothing.
        settings: any settings by name: num_iterations=15, seed=2, step_size=0.5 or, where several have the name, with
            its path: inner__step_size=0.5.
    Returns:
        The run, trained; or stopped by Ctrl-C or a callback, with its last checkpoint.
    Raises:
        ValueError: if settings are refused, before anything is made.
        TrainingError: if training cannot go on; the last checkpoint is intact.
    """
    with _silence() if quiet else contextlib.nullcontext():
        if resume is not None:
            saved = read_config(Path(resume))
            named = () if env is None else (_named(env, physics),)
            if named and named[0] != saved.env:
                raise ValueError(f"env must be the environment of the run, {saved.env}, got {named[0]}: leave it out")
            config = with_settings(without_cluster(saved), settings)
            require_continuation(Path(resume), saved, config, named, lambda _: "import it first, or pass it", _dotted)
        else:
            default, config = _new_config(env or "HalfCheetahVel", learner, preset, physics, network, settings)
            require_new(default, config, preset, _dotted)
        folder = None if output_dir is None else Path(output_dir)
        told = (*make_trackers([track] if isinstance(track, str) else track), *callbacks)
        prepared = prepare(Job(config, folder, None if resume is None else Path(resume), film_every, told))
        finish(prepared)
    return load(prepared.folder.path, trust_env=True, device=config.device)


def train_seeds(
    env: str | type[Any] | Callable[[], Any] | None = None,
    *,
    seeds: Sequence[int] = (1, 2, 3),
    learner: str | None = None,
    preset: Preset = "paper",
    physics: Physics | None = None,
    output_dir: str | Path | None = None,
    network: type[nn.Module] | Callable[..., nn.Module] | str | None = None,
    film_every: int = 0,
    track: Tracker | Sequence[Tracker] = "tensorboard",
    quiet: bool = False,
    **settings: Any,
) -> Experiment:
    """Meta-train several seeds one after the other, a run each, in the folder of one experiment.

    Args:
        seeds: of training, in place of the setting `seed`.
        output_dir: the experiment's folder. If there is one with these settings, it goes on, and new seeds are added;
            by default a new one, runs/<task>-<time>.
        settings: and all other arguments as for `train`.
    Returns:
        The experiment, trained; or stopped by Ctrl-C, with each run's last checkpoint.
    Raises:
        ValueError: if settings are refused, before anything is made.
        TrainingError: if a seed cannot go on; the other ones have been trained.
    """
    if "seed" in settings or not seeds:
        raise ValueError(f"seeds must name at least one seed, in place of the setting seed, got {list(seeds)}")
    with _silence() if quiet else contextlib.nullcontext():
        default, config = _new_config(env or "HalfCheetahVel", learner, preset, physics, network, settings)
        config = with_settings(config, {"seed": seeds[0]})
        require_new(default, config, preset, _dotted)
        folder = default_folder(config, datetime.now()) if output_dir is None else Path(output_dir)
        planned = experiment.Experiment(folder, config, experiment.distinct(seeds))
        shown = Shown(film_every, (track,) if isinstance(track, str) else tuple(track))
        begun = begin_experiment(planned, shown, or_beside=output_dir is None)
        ended = train_in_turn(begun, shown)
    if ended.failed:
        raise TrainingError(f"seeds {', '.join(map(str, ended.failed))} of {begun.path} cannot go on, as said above")
    return load_experiment(begun.path, trust_env=True)


def require_new(
    default: RunConfig, config: RunConfig, preset: Preset, name: Callable[[Setting], str] | None = None
) -> None:
    """Refuse a new run whose settings do not go together.

    Args:
        default: the settings where the user gives none.
        name: gives the names of settings, if not those of their flags.
    Raises:
        ValueError: if it begins with no run but has to, is asked for what its learner cannot do, or has settings that
            nothing would read.
    """
    require_beginning(preset, config.init_from)
    require_learner(config)
    require_read(config, {path: new for path, (_, new) in changes(default, config).items()}, name)


def require_continuation(
    folder: Path,
    saved: RunConfig,
    config: RunConfig,
    named: tuple[str, ...],
    remedy: Callable[[Import], str],
    name: Callable[[Setting], str] | None = None,
) -> None:
    """Refuse to continue the run in a folder with settings that it cannot have; note what is not taken over.

    Args:
        named: the user's own classes that may be imported.
        remedy: what a user who trusts others is to do.
        name: gives the names of settings, if not those of their flags.
    Raises:
        ValueError: if settings differ that must not, nothing would read them, or code is not trusted.
    """
    forbidden = forbidden_changes(saved, config)
    if forbidden:
        raise ValueError(f"a resumed run keeps its settings, but {'; '.join(forbidden)}: start a new run for that")
    require_learner(config)
    require_read(config, {path: new for path, (_, new) in changes(without_cluster(saved), config).items()}, name)
    require_trust(folder, saved, named, remedy)
    note_cluster(saved, config)


def finish(prepared: Prepared) -> TrainingResult:
    """Train a prepared run until all iterations are done, or a signal comes, and close it.

    Raises:
        CheckpointError, LogError, TrainingError: if it cannot go on; the last checkpoint is intact.
    """
    with contextlib.closing(prepared):
        return prepared.train()


def _dotted(path: Setting) -> str:
    """The name of a setting in Python."""
    return ".".join(path[-2:])


def _named(env: str | type[Any] | Callable[[], Any], physics: Physics | None) -> str:
    return full_id(env, physics) if isinstance(env, str) else remember(env)


def _new_config(
    env: str | type[Any] | Callable[[], Any],
    given_learner: str | None,
    preset: Preset,
    physics: Physics | None,
    network: Any,
    settings: dict[str, Any],
) -> tuple[RunConfig, RunConfig]:
    """The default settings, which ask for no more pictures than the user's folder has, and the user's."""
    name = _named(env, physics)
    learner = given_learner or names_for(kind_of(name))[0]
    size: dict[str, Any] = {part: settings[part] for part in ("ways", "shots") if part in settings}
    with_settings(default_config(name, learner), size)  # refuses anything but numbers
    step: dict[str, Any] = {part: settings[part] for part in ("outer.step", "outer__step") if part in settings}
    own = {} if network is None else {"policy.network": network if isinstance(network, str) else module_name(network)}

    def default_for(ways: int) -> RunConfig:
        return with_settings(default_config(name, learner, preset, **size | {"ways": ways}), step)

    def with_given(default: RunConfig) -> RunConfig:
        return with_settings(default, settings | own)

    default = default_for(size.get("ways", 5))
    return fitted_to_folder(default, with_given(default), default_for, with_given)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
