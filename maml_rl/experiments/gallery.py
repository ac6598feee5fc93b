"""Pictures of a run: the plots and films that show what it has learned, before and after adaptation."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.core.trees import take_task
from maml_rl.evaluation.adaptation_curve import AdaptationCurve
from maml_rl.evaluation.evaluator import Stage
from maml_rl.experiments.environments import (
    make_environment,
    make_film_environment,
    needs_backend,
    require_film,
)
from maml_rl.experiments.forecasts import FORECASTS, draw_forecasts, numbers, predicted
from maml_rl.experiments.imagination import CONTEXTS, DENSITIES, IMAGINED, SUMMARY, beliefs, imagination
from maml_rl.experiments.runs import Trained
from maml_rl.pictures.backend import NO_BACKEND, DrawingError
from maml_rl.pictures.episode_sheet import Sheet, episode_sheet
from maml_rl.pictures.film import (
    DrawnEnvironment,
    Recording,
    Scene,
    caption,
    film_pace,
    median_episode,
    record,
    thinned,
)
from maml_rl.pictures.plots import (
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
from maml_rl.pictures.video import Panel, compose, require_ffmpeg, write_gif, write_mp4
from maml_rl.rl.experience import recipe_of
from maml_rl.sampling.recipe import Recipe
from maml_rl.storage.log import read_columns
from maml_rl.supervised.episodes import class_names

PICTURE_HEIGHT, PICTURE_WIDTH = 240, 320  # of a robot [pixels]
MAX_GIF_BYTES = 2_000_000
PLOTS = (
    "learning_curve.png", "adaptation_curve.png", "curves.png", "paths.png", "episodes.png", *FORECASTS,
    IMAGINED, SUMMARY, DENSITIES, CONTEXTS,
)  # fmt: skip
FILMS = ("adaptation.gif", "adaptation.mp4", "tasks.mp4")
SHOWN_STEPS = (0, 1, 5, 10)  # of the sinusoid's curves


class Shown(NamedTuple):
    """The evaluation that all pictures show."""

    trained: Trained
    curve: AdaptationCurve
    stages: list[Stage]  # of all tasks; of few-shot classification none are kept
    scores: list[Tensor]  # at each stage, [N, E]: of episodes or examples
    subject: str  # the environment and the iteration, for titles

    @property
    def recipe(self) -> Recipe:
        """The recipe by which the scored episodes were played."""
        evaluation = self.trained.built.evaluation
        return recipe_of(evaluation.judge or evaluation.family.collector)

    def ranked(self, count: int) -> list[int]:
        """`count` tasks, from the smallest gain to the largest; one is the median."""
        return _spread(self.curve.gain[-1], count)


def show(trained: Trained) -> Shown:
    """Evaluate once for all pictures."""
    config, built = trained.config, trained.built
    iteration = trained.checkpoint.iteration
    subject = f"{config.env_name}, iteration {iteration}"
    if config.kind == "pictures":
        size = config.task.test
        subject = f"{config.env_name} {size.ways}-way {size.shots}-shot {config.learner}, iteration {iteration}"
        return Shown(trained, built.curve(trained.state, iteration), [], [], subject)
    if built.evaluation.judge is not None:
        subject += ", mean actions"
    tasks, measure = built.tasks(), built.family.measure
    stages = list(built.evaluation.stages(built.learner, trained.state, tasks, built.key(iteration)))
    scores = [measure.score(stage.scored).double() for stage in stages]
    curve = built.evaluation.curve_of(stages, tasks, scores)
    return Shown(trained, curve, stages, scores, subject)


def draw_all(shown: Shown, run: Path, folder: Path, options: Options) -> list[Path]:
    """Draw every picture that such a run has. Plots come first: they need nothing that a machine may lack.

    Raises:
        ValueError: if films are wanted, but the environment or this machine cannot draw them.
    """
    made: list[Path] = []
    if options.curves:
        _say(made, learning_curve(run, shown.curve, shown.subject, folder / "learning_curve.png"))
    kind = shown.trained.config.kind
    has_steps = kind != "pictures" or len(shown.curve.steps) > 1  # others have one score
    if options.curves and has_steps:
        _say(made, adaptation_curve(shown.curve, shown.subject, options.task_range, folder / "adaptation_curve.png"))
    for path in draw_forecasts(shown.trained, shown.curve, shown.subject, folder):
        _say(made, path)
    if kind == "pictures" and shown.trained.config.task.rotations == "ambiguous":  # which has a picture of its readings
        return made
    if kind == "pictures":
        chosen = _spread(shown.curve.per_task[-1], options.num_shown)
        _say(made, episode_sheets(shown, chosen, folder / "episodes.png"))
        for path in imagination(shown.trained, shown.subject, folder):
            _say(made, path)
        return made
    if kind == "density":
        for path in beliefs(shown.trained, shown.stages, shown.subject, folder):
            _say(made, path)
        return made
    chosen = shown.ranked(options.num_shown)
    if kind == "regression":
        _say(made, regressions(shown, chosen, folder / "curves.png"))
        return made
    _say(made, paths(shown, chosen, folder / "paths.png"))
    if options.film:
        for path in films(shown, chosen, folder, options.backend):
            _say(made, path)
    return made


class Options(NamedTuple):
    """The choice of pictures."""

    num_shown: int  # tasks in the grid film and in plots of single tasks
    film: bool
    backend: str | None  # that MuJoCo draws with, None if none does
    task_range: tuple[float, float] | None  # that tasks were drawn from, if not training's
    curves: bool = True  # of learning and adaptation


def _spread(values: Tensor, count: int) -> list[int]:
    """`count` places, from the smallest value to the largest; one is the median's."""
    order = torch.argsort(values, stable=True).tolist()
    if count == 1:
        return [order[len(order) // 2]]
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [order[place] for place in places]


# --- plots -----------------------------------------------------------------------------------------------------


def learning_curve(run: Path, curve: AdaptationCurve, subject: str, path: Path) -> Path | None:
    """Nothing for a checkpoint that lies without its run's metrics, such as the leaderboard's."""
    metric = curve.metric
    if not (run / "metrics.csv").exists():
        print(f"{run} has no metrics.csv: no learning curve", file=sys.stderr)
        return None
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


def adaptation_curve(curve: AdaptationCurve, subject: str, task_range: tuple[float, float] | None, path: Path) -> Path:
    where = "" if task_range is None else f" from {task_range[0]:g} to {task_range[1]:g}"
    title = f"{subject}: {len(curve.tasks)} fresh tasks{where}"
    label = f"mean over {len(curve.tasks)} tasks"
    line = LabelledCurve(label, curve.mean, curve.ci95, False, curve.steps, curve.used)
    save_figure(adaptation_plot([line], curve.metric, title), path)
    return path


def episode_sheets(shown: Shown, chosen: Sequence[int], path: Path) -> Path:
    """A picture of the support, queries and answers of some episodes."""
    trained, built, config = shown.trained, shown.trained.built, shown.trained.config
    assert built.spec is not None and built.spec.data is not None
    episodes = [shown.curve.tasks[index] for index in chosen]
    last = built.evaluation.scored_after[-1:]
    (stage,) = built.evaluation.only(last).stages(built.learner, trained.state, episodes, built.key(0))
    probabilities = stage.scored.outputs.double().softmax(dim=-1)
    ways = config.task.ways
    parts = [_by_class(each, ways) for each in (stage.support.images, stage.scored.examples.images, probabilities)]
    if config.task.images.invert:
        parts[:2] = [1.0 - pictures for pictures in parts[:2]]  # as they were drawn
    names = [class_names(built.spec.data, episode) for episode in episodes]
    sheets = [Sheet(*each) for each in zip(*parts, names, strict=True)]
    network = getattr(config.method, "network", None)
    norm = "" if network is None else f", norm {network.norm}"
    title = f"{shown.subject}{norm}: from the worst to the best episode of {config.evaluation.num_tasks}"
    save_figure(episode_sheet(sheets, title), path)
    return path


def _by_class(values: Tensor, ways: int) -> NDArray[Any]:
    """Values [N, ways * M, ...] as [N, ways, M, ...]."""
    return values.unflatten(1, (ways, -1)).cpu().numpy()


def paths(shown: Shown, chosen: Sequence[int], path: Path) -> Path | None:
    """A plot of paths in the plane, for environments whose observations hold a position."""
    env = make_environment(shown.trained.config, shown.recipe.at_once)
    columns = env.position_columns
    journeys = []
    for index in chosen if columns is not None else ():
        task, phases = shown.curve.tasks[index], []
        for phase in range(len(shown.stages)):
            played = _record(shown, env, index, phase, every=0)
            phases.append(played.paths[median_episode(shown.scores[phase][index])][:, columns])
        journeys.append(Journey(str(task), (task.x, task.y), phases))
    env.close()
    if not journeys:
        return None
    save_figure(paths_plot(journeys, f"{shown.subject}: the median episode before and after gradient steps"), path)
    return path


def regressions(shown: Shown, chosen: Sequence[int], path: Path) -> Path:
    """A plot of predictions on some tasks at several stages, with the examples and the truth."""
    last = len(shown.stages) - 1
    low, high = shown.trained.config.task.input_range
    inputs = np.linspace(low, high, 300)
    steps = sorted({k for k in SHOWN_STEPS if k <= last} | {last})
    plots = []
    for index in chosen:
        predictions = {k: predicted(shown.stages[k].actor, index, inputs) for k in steps}
        support = take_task(shown.stages[0].support, index)
        examples = numbers(support.inputs), numbers(support.targets)
        task = shown.curve.tasks[index]
        plots.append(Regression(str(task), inputs, task.at(inputs), examples, predictions))
    save_figure(regression_plot(plots, f"{shown.subject}: predictions after gradient steps"), path)
    return path


# --- films -----------------------------------------------------------------------------------------------------


def films(shown: Shown, chosen: Sequence[int], folder: Path, backend: str | None) -> list[Path]:
    """Films of the task with the median gain and of a grid of several; the GIF first, which needs no ffmpeg."""
    env = make_film_environment(shown.trained.config, shown.recipe.at_once, PICTURE_HEIGHT, PICTURE_WIDTH)
    try:
        if needs_backend(env) and backend is None:
            raise DrawingError(f"{NO_BACKEND}; the plots are in {folder}")
        pace = film_pace(env)
        (median,) = shown.ranked(1)
        require_film(env, shown.curve.tasks[median], shown.trained.config.env)
        single = _before_and_after(shown, env, median, pace.every)
        notes = "; ".join(filter(None, [env.picture_note, pace.remark]))
        title = [f"{shown.subject}: {shown.curve.tasks[median]}", notes]
        frames = compose(title, [[_panel(shown, phase, played) for phase, played in single.items()]], font_size=15)
        write_gif(folder / "adaptation.gif", frames, pace.fps, MAX_GIF_BYTES)
        require_ffmpeg()
        write_mp4(folder / "adaptation.mp4", frames, pace.fps)
        recorded = {median: {phase: thinned(played, 2) for phase, played in single.items()}}
        for index in chosen:
            if index not in recorded:
                recorded[index] = _before_and_after(shown, env, index, 2 * pace.every)
        rows = [
            [_panel(shown, phase, recorded[index][phase], shown.curve.tasks[index]) for index in chosen]
            for phase in single
        ]
        title = [f"{shown.subject}: tasks from the least gain to the largest", notes]
        write_mp4(folder / "tasks.mp4", compose(title, rows, font_size=14), pace.fps / 2)
        return [folder / name for name in FILMS]
    finally:
        env.close()


def _before_and_after(shown: Shown, env: DrawnEnvironment, index: int, every: int) -> dict[int, Recording]:
    last = len(shown.stages) - 1
    return {phase: _record(shown, env, index, phase, every) for phase in sorted({0, last})}


def _record(shown: Shown, env: DrawnEnvironment, index: int, phase: int, every: int) -> Recording:
    """Record every task's median episode."""
    stage = shown.stages[phase]
    scene = Scene(shown.curve.tasks[index], index, stage.key, median_episode(shown.scores[phase][index]))
    return record(env, shown.recipe, stage.actor, scene, every)


def _panel(shown: Shown, phase: int, played: Recording, task: Any = None) -> Panel:
    steps = shown.curve.steps[phase]
    return Panel(played.pictures, [caption(played, i, steps, task) for i in range(len(played.pictures))])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _say(made: list[Path], path: Path | None) -> None:
    if path is not None:
        print(path, flush=True)
        made.append(path)
