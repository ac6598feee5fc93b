"""The command line of pictures: films and plots of what a run has learned."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.build import make_film_world, make_world, needs_backend, require_film
from maml_rl.command_line import parse
from maml_rl.config import SINUSOID, RunConfig
from maml_rl.core.maml import MAML
from maml_rl.core.params import Params, take_task, to_device
from maml_rl.core.protocols import EVALUATION, Key
from maml_rl.drawing import NO_BACKEND, DrawingError
from maml_rl.evaluation.adaptation_curve import (
    AdaptationCurve,
    adaptation,
    evaluation_tasks,
    query_key,
    score_tasks,
)
from maml_rl.evaluation.episode_sheet import Sheet, episode_sheet
from maml_rl.evaluation.film import (
    DrawnWorld,
    Recording,
    Scene,
    caption,
    film_pace,
    median_episode,
    record,
    thinned,
)
from maml_rl.evaluation.plots import (
    History,
    Journey,
    LabelledCurve,
    Regression,
    adaptation_plot,
    learning_plot,
    paths_plot,
    regression_plot,
    save_figure,
)
from maml_rl.evaluation.video import Panel, compose, require_ffmpeg, write_gif, write_mp4
from maml_rl.learners import require_read
from maml_rl.policies import Policy
from maml_rl.rl.family import RLFamily
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.supervised.classification import ClassificationFamily, query_of, support_of
from maml_rl.supervised.episodes import Episode, class_names
from maml_rl.trained import Trained, WhichCheckpoint, load_trained, named_env, read_config, warn_of_other_pictures
from maml_rl.training.atomic import require_writable
from maml_rl.training.log import read_columns
from maml_rl.training.streams import lenient_streams

SHIPPED_RUN = Path(__file__).parents[1] / "docs" / "results" / "halfcheetah_vel_fast"
PICTURE_HEIGHT, PICTURE_WIDTH = 240, 320  # of a robot [pixels]
MAX_GIF_BYTES = 2_000_000
PLOTS = ("learning_curve.png", "adaptation_curve.png", "curves.png", "paths.png", "episodes.png")
FILMS = ("adaptation.gif", "adaptation.mp4", "tasks.mp4")
SHOWN_STEPS = (0, 1, 5, 10)  # of the sinusoid's curves


EXAMPLES = (
    "python scripts/visualize.py --output-dir pictures",
    "python scripts/visualize.py runs/mine --output-dir pictures --no-film",
)


@dataclass(frozen=True)
class VisualizeCommand:
    """Make films and plots of a trained learner before and after adaptation."""

    run: Annotated[Path, tyro.conf.Positional] = SHIPPED_RUN
    """The folder of a training run; by default that of a half cheetah which comes with the source."""
    output_dir: Path = field(kw_only=True)
    """The folder for the pictures; files of the same name are replaced."""
    env: str | None = None
    """The run's environment, if it is one of your own, module:Class: naming it here allows the import of its module."""
    trust_env: bool = False
    """Allow the import of whatever module the run names for its environment, without --env."""
    checkpoint: WhichCheckpoint = "last"
    """Checkpoint of the run: the best by training score, or the last."""
    num_tasks: int = 20
    """Fresh tasks that the adaptation curve is a mean over; films and paths show some of them."""
    num_steps: int | None = None
    """Gradient steps on each; by default as in the run's own evaluation."""
    num_shown: int = 3
    """Tasks in the grid film and in plots of single tasks, from the least gain to the largest."""
    actions: Literal["sampled", "mean"] = "sampled"
    """Show and score episodes under the policy as it is, or without its noise."""
    task_range: tuple[float, float] | None = None
    """Draw tasks from here, in place of the training range."""
    seed: int = 1
    """Evaluation seed: tasks and episodes."""
    film: bool = True
    """Make films, beside the plots."""
    num_threads: int = 0
    """Threads; 0 takes every core. Results do not depend on it."""
    data_root: str | None = None
    """Few-shot classification: the folder of the pictures; by default the one that the run was trained with or, if that
    is not known, $MAML_RL_DATA."""
    device: str = "cpu"
    """Where policies and adaptation are computed, wherever the run was trained: cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        if self.num_shown < 1:
            raise ValueError(f"num_shown must be at least 1, got {self.num_shown}")


class Adaptation(NamedTuple):
    """The evaluation that all pictures show."""

    trained: Trained
    key: Key
    curve: AdaptationCurve
    params: list[Params]  # after 0 .. K steps, each [N, ...]
    supports: list[Any]
    scores: list[Tensor]  # after 0 .. K steps, each [N, E]: of episodes or examples
    subject: str  # the environment and the iteration, for titles

    def ranked(self, count: int) -> list[int]:
        """`count` tasks, from the least gain to the largest; one is the median."""
        return _spread(self.curve.gain[-1], count)


@lenient_streams()
def visualize(backend: str | None, arguments: Sequence[str] | None = None) -> int:
    """Run the visualization command; return the exit status: 0, 1 if an episode fails, or 2 if refused.

    Args:
        backend: that MuJoCo draws with, None if none does.
    """
    command = parse(VisualizeCommand, EXAMPLES, arguments)
    try:
        config = _config(command)
        require_writable(command.output_dir, *PLOTS, *FILMS)
        named = named_env(config, command.env, command.trust_env)
        has_mean_actions = command.actions == "mean"
        trained = load_trained(command.run, config, command.checkpoint, command.task_range, has_mean_actions, named)
        try:
            warn_of_other_pictures(command.run, trained.built)
            command.output_dir.mkdir(parents=True, exist_ok=True)
            if config.is_few_shot:
                _draw_episodes(command, trained)
            else:
                _draw_all(command, _adapt(trained), backend)
        finally:
            trained.built.close()
    except SamplingError as error:
        return _fail(error, 1)
    except (ValueError, OSError) as error:
        return _fail(error, 2)
    return 0


def _config(command: VisualizeCommand) -> RunConfig:
    if command.run == SHIPPED_RUN and not SHIPPED_RUN.exists():
        raise ValueError(f"the run must be named: {SHIPPED_RUN} comes only with a checkout of the source")
    saved = read_config(command.run)
    if command.data_root is not None and not saved.is_few_shot:
        raise ValueError(
            f"data_root applies to few-shot classification alone, but the run's environment is {saved.env}"
        )
    if command.num_steps is not None:
        require_read(saved, {("evaluation", "num_steps"): command.num_steps}, lambda _: "--num-steps")
    num_steps = saved.evaluation.num_steps if command.num_steps is None else command.num_steps
    own: dict[str, Any] = {"num_tasks": command.num_tasks, "num_steps": num_steps, "seed": command.seed}
    return dataclasses.replace(
        saved,
        device=command.device,
        evaluation=dataclasses.replace(saved.evaluation, **own),
        sampling=dataclasses.replace(saved.sampling, sampler="local", num_threads=command.num_threads),
        episodes=dataclasses.replace(saved.episodes.found_in(command.data_root), evaluate_on="test"),
    )


def _adapt(trained: Trained) -> Adaptation:
    config, built = trained.config, trained.built
    key = Key(config.evaluation.seed, EVALUATION, trained.checkpoint.iteration)
    tasks = evaluation_tasks(built.family, config.evaluation)
    params, supports, scores = [], [], []
    assert isinstance(built.learner, MAML)
    sizes = built.learner.step_sizes(trained.state, config.evaluation.step_sizes)
    for adapted in adaptation(built.family, trained.theta, tasks, sizes, key, built.threads, built.judge):
        params.append(adapted.params)
        supports.append(adapted.support)
        scores.append(score_tasks(built.family, adapted))
    family = built.family
    means = torch.stack([each.mean(dim=1) for each in scores])
    curve = AdaptationCurve(family.metric, means, family.higher_is_better, tuple(tasks))
    subject = f"{config.env_name}, iteration {trained.checkpoint.iteration}"
    if built.judge is not None:
        subject += ", mean actions"
    return Adaptation(trained, key, curve, params, supports, scores, subject)


def _draw_all(command: VisualizeCommand, shown: Adaptation, backend: str | None) -> None:
    """Plots first: they need nothing that a machine may lack."""
    folder, family = command.output_dir, shown.trained.built.family
    _say(_learning_curve(command.run, shown.curve, shown.subject, folder / "learning_curve.png"))
    _say(_adaptation_curve(shown.curve, shown.subject, command.task_range, folder / "adaptation_curve.png"))
    chosen = shown.ranked(command.num_shown)
    if not isinstance(family, RLFamily):
        if shown.trained.config.env == SINUSOID:
            _say(_regressions(shown, chosen, folder / "curves.png"))
        return
    policy = _acting_policy(shown, family)
    _say(_paths(shown, policy, chosen, folder / "paths.png"))
    if command.film:
        _films(shown, policy, chosen, folder, backend)


def _draw_episodes(command: VisualizeCommand, trained: Trained) -> None:
    """The plots of few-shot classification; its tasks are episodes of the test classes."""
    config, folder = trained.config, command.output_dir
    size = config.episodes.test
    subject = f"{config.env_name} {size.ways}-way {size.shots}-shot {config.learner}"
    subject += f", iteration {trained.checkpoint.iteration}"
    curve = trained.built.curve(trained.state, trained.checkpoint.iteration)
    _say(_learning_curve(command.run, curve, subject, folder / "learning_curve.png"))
    if len(curve.steps) > 1:
        _say(_adaptation_curve(curve, subject, None, folder / "adaptation_curve.png"))
    chosen = [curve.tasks[index] for index in _spread(curve.per_task[-1], command.num_shown)]
    _say(_episodes(trained, chosen, subject, folder / "episodes.png"))


def _spread(values: Tensor, count: int) -> list[int]:
    """`count` places, from the least value to the largest; one is the median's."""
    order = torch.argsort(values, stable=True).tolist()
    if count == 1:
        return [order[len(order) // 2]]
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [order[place] for place in places]


def _acting_policy(shown: Adaptation, family: RLFamily) -> Policy:
    judge = shown.trained.built.judge
    return judge.policy if isinstance(judge, RLFamily) else family.policy


# --- plots -----------------------------------------------------------------------------------------------------


def _learning_curve(run: Path, curve: AdaptationCurve, subject: str, path: Path) -> Path | None:
    metric = curve.metric
    labels = {f"{metric}_before": "training tasks, before", f"{metric}_after": "training tasks, after"}
    columns = read_columns(run / "metrics.csv", [*labels, *(f"eval_{metric}_{k}" for k in curve.steps)])
    steps = [k for k in curve.steps if f"eval_{metric}_{k}" in columns]
    if not columns.get(f"{metric}_after"):
        print(f"{run / 'metrics.csv'} has no iterations yet: no learning curve", file=sys.stderr)
        return None
    histories = [
        History(label, list(columns[name]), list(columns[name].values()), None)
        for name, label in labels.items()
        if name in columns  # a learner that takes no gradient steps reports nothing before them
    ]
    if steps:
        name = f"eval_{metric}_{steps[-1]}"
        halves = read_columns(run / "metrics.csv", [f"{name}_ci95"]).get(f"{name}_ci95", {})
        label = f"fresh tasks, after {_count(steps[-1], 'step')}" + (" (95 %)" if halves else "")
        values = columns[name]
        histories.append(History(label, list(values), list(values.values()), [halves.get(i, math.nan) for i in values]))
    window = max(1, len(columns[f"{metric}_after"]) // 50)
    title = f"{subject.split(',')[0]}: meta-training"
    save_figure(learning_plot(histories, metric, title, window), path)
    return path


def _adaptation_curve(curve: AdaptationCurve, subject: str, task_range: tuple[float, float] | None, path: Path) -> Path:
    where = "" if task_range is None else f" from {task_range[0]:g} to {task_range[1]:g}"
    title = f"{subject}: {len(curve.tasks)} fresh tasks{where}"
    line = LabelledCurve(f"mean over {len(curve.tasks)} tasks", curve.mean, curve.ci95, False, curve.steps)
    save_figure(adaptation_plot([line], curve.metric, title), path)
    return path


def _episodes(trained: Trained, episodes: Sequence[Episode], subject: str, path: Path) -> Path:
    built, config = trained.built, trained.config
    assert isinstance(built.family, ClassificationFamily) and built.few_shot is not None
    support = to_device(support_of(built.family.stream, episodes), built.device)
    query = to_device(query_of(built.family.stream, episodes, config.network), built.device)
    key = Key(config.evaluation.seed, EVALUATION, 0)
    probabilities = built.few_shot.predict(trained.state, support, query, key)[-1].double().softmax(dim=-1)
    ways = config.episodes.ways
    parts = [_by_class(each, ways) for each in (support.images, query.images, probabilities)]
    if config.episodes.images.invert:
        parts[:2] = [1.0 - pictures for pictures in parts[:2]]  # as they were drawn
    names = [class_names(built.family.stream.data, episode) for episode in episodes]
    sheets = [Sheet(*each) for each in zip(*parts, names, strict=True)]
    title = (
        f"{subject}, norm {config.network.norm}: from the worst to the best episode of {config.evaluation.num_tasks}"
    )
    save_figure(episode_sheet(sheets, title), path)
    return path


def _by_class(values: Tensor, ways: int) -> NDArray[Any]:
    """[N, ways * M, ...] as [N, ways, M, ...]."""
    return values.unflatten(1, (ways, -1)).cpu().numpy()


def _paths(shown: Adaptation, policy: Policy, chosen: Sequence[int], path: Path) -> Path | None:
    """In worlds where observations hold a position in the plane."""
    config = shown.trained.config
    world = make_world(config, config.sampling.episodes_per_task)
    columns = world.position_columns
    journeys = []
    for index in chosen if columns is not None else ():
        task, phases = shown.curve.tasks[index], []
        for phase in range(len(shown.params)):
            played = _record(shown, world, policy, index, phase, every=0)
            phases.append(played.paths[median_episode(shown.scores[phase][index])][:, columns])
        journeys.append(Journey(str(task), (task.x, task.y), phases))
    world.close()
    if not journeys:
        return None
    save_figure(paths_plot(journeys, f"{shown.subject}: the median episode before and after gradient steps"), path)
    return path


def _regressions(shown: Adaptation, chosen: Sequence[int], path: Path) -> Path:
    family, last = shown.trained.built.family, len(shown.params) - 1
    low, high = shown.trained.config.sinusoid.input_range
    inputs = np.linspace(low, high, 300)
    column = torch.from_numpy(inputs).float().unsqueeze(-1)
    steps = sorted({k for k in SHOWN_STEPS if k <= last} | {last})
    regressions = []
    for index in chosen:
        predictors = {k: family.predictor(take_task(shown.params[k], index)) for k in steps}
        predictions = {k: _numbers(predict(column)) for k, predict in predictors.items()}
        support = take_task(shown.supports[0], index)
        examples = _numbers(support.inputs), _numbers(support.targets)
        task = shown.curve.tasks[index]
        regressions.append(Regression(str(task), inputs, task.at(inputs), examples, predictions))
    save_figure(regression_plot(regressions, f"{shown.subject}: predictions after gradient steps"), path)
    return path


def _numbers(values: Tensor) -> NDArray[np.float64]:
    return values.flatten().double().cpu().numpy()


# --- films -----------------------------------------------------------------------------------------------------


def _films(shown: Adaptation, policy: Policy, chosen: Sequence[int], folder: Path, backend: str | None) -> None:
    """One task, with the median gain, and a grid of several; the GIF first, which needs no ffmpeg."""
    world = make_film_world(shown.trained.config, PICTURE_HEIGHT, PICTURE_WIDTH)
    try:
        if needs_backend(world) and backend is None:
            raise DrawingError(f"{NO_BACKEND}; the plots are in {folder}")
        pace = film_pace(world)
        (median,) = shown.ranked(1)
        require_film(world, shown.curve.tasks[median], shown.trained.config.env_id)
        single = _before_and_after(shown, world, policy, median, pace.every)
        notes = "; ".join(filter(None, [world.picture_note, pace.remark]))
        title = [f"{shown.subject}: {shown.curve.tasks[median]}", notes]
        frames = compose(title, [[_panel(shown, phase, played) for phase, played in single.items()]], font_size=15)
        write_gif(folder / "adaptation.gif", frames, pace.fps, MAX_GIF_BYTES)
        _say(folder / "adaptation.gif")
        require_ffmpeg()
        write_mp4(folder / "adaptation.mp4", frames, pace.fps)
        _say(folder / "adaptation.mp4")
        recorded = {median: {phase: thinned(played, 2) for phase, played in single.items()}}
        for index in chosen:
            if index not in recorded:
                recorded[index] = _before_and_after(shown, world, policy, index, 2 * pace.every)
        rows = [
            [_panel(shown, phase, recorded[index][phase], shown.curve.tasks[index]) for index in chosen]
            for phase in single
        ]
        title = [f"{shown.subject}: tasks from the least gain to the largest", notes]
        write_mp4(folder / "tasks.mp4", compose(title, rows, font_size=14), pace.fps / 2)
        _say(folder / "tasks.mp4")
    finally:
        world.close()


def _before_and_after(
    shown: Adaptation, world: DrawnWorld, policy: Policy, index: int, every: int
) -> dict[int, Recording]:
    last = len(shown.params) - 1
    return {phase: _record(shown, world, policy, index, phase, every) for phase in sorted({0, last})}


def _record(shown: Adaptation, world: DrawnWorld, policy: Policy, index: int, phase: int, every: int) -> Recording:
    """Every task is shown by its median episode."""
    scene = Scene(shown.curve.tasks[index], index, query_key(shown.key, phase, shown.trained.built.judge is not None))
    row = median_episode(shown.scores[phase][index])
    return record(world, policy, shown.params[phase], scene, row, every)


def _panel(shown: Adaptation, phase: int, played: Recording, task: Any = None) -> Panel:
    return Panel(played.pictures, [caption(played, i, phase, task) for i in range(len(played.pictures))])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _say(path: Path | None) -> None:
    if path is not None:
        print(path, flush=True)


def _fail(error: Exception, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status
