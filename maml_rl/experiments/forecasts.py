"""Pictures of what a run predicts as a distribution: its reliability, and draws from its posterior."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.core.contracts import Actor
from maml_rl.core.trees import take_task
from maml_rl.evaluation.adaptation_curve import AdaptationCurve
from maml_rl.experiments.runs import Trained
from maml_rl.experiments.table import LEARNERS
from maml_rl.pictures.forecast_plots import Functions, functions_plot, reliability_plot
from maml_rl.pictures.plots import save_figure
from maml_rl.supervised.sinusoid import Examples, Function, SinusoidCollector

FORECASTS = ("reliability.png", "functions.png")
NUM_FUNCTIONS = 10  # drawn from each posterior
NUM_GIVEN = (1, 5, 10)  # examples


def draw_forecasts(trained: Trained, curve: AdaptationCurve, subject: str, folder: Path) -> list[Path]:
    """Draw what there is: the reliability of predicted distributions, and functions drawn from a posterior."""
    made: list[Path] = []
    if curve.reliability:
        lines = {f"{curve.steps[row]} steps": curve.reliability[row] for row in sorted({0, len(curve.steps) - 1})}
        rows = {name: line.rows for name, line in lines.items()}
        errors = {name: line.error for name, line in lines.items()}
        made.append(folder / "reliability.png")
        save_figure(reliability_plot(rows, errors, f"{subject}: reliability"), made[-1])
    if trained.config.kind == "regression" and LEARNERS[trained.config.learner].draws:
        made.append(folder / "functions.png")
        title = f"{subject}: {NUM_FUNCTIONS} functions drawn from the posterior"
        save_figure(functions_plot(drawn_functions(trained), title), made[-1])
    return made


def drawn_functions(trained: Trained) -> list[list[Functions]]:
    """Functions drawn after each number of given examples, of a task of each kind: a row of panels a task."""
    built, settings = trained.built, trained.config.task
    key, tasks = built.key(trained.checkpoint.iteration), cast(Sequence[Function], built.tasks())
    places = list({type(task): place for place, task in reversed(list(enumerate(tasks)))}.values())[::-1]
    low, high = settings.input_range
    inputs = np.linspace(low, high, 300)
    columns: list[list[Functions]] = []
    for count in NUM_GIVEN:
        given = dataclasses.replace(settings, num_examples=count)
        support = SinusoidCollector(given, built.device, built.threads).collect(tasks, None, key.at_phase(0))
        adapted = built.learner.begin(trained.state, len(tasks), key)
        for step in range(trained.config.evaluation.num_steps):
            adapted = built.learner.adapt(trained.state, adapted, support, key.at_phase(step))
        actors = [built.learner.actor(trained.state, adapted, key.at_phase(draw)) for draw in range(NUM_FUNCTIONS)]
        columns.append(
            [
                Functions(
                    str(tasks[place]),
                    inputs,
                    tasks[place].at(inputs),
                    (numbers(take_task(support, place).inputs), numbers(take_task(support, place).targets)),
                    [predicted(actor, place, inputs) for actor in actors],
                )
                for place in places
            ]
        )
    return [list(row) for row in zip(*columns, strict=True)]


def predicted(actor: Actor, index: int, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """An actor's prediction on one of its tasks at given inputs."""
    column = torch.from_numpy(inputs).float().view(1, -1, 1)
    with torch.no_grad():
        return numbers(actor.take_tasks(index, index + 1).step((), Examples(column, column), None)[0])


def numbers(values: Tensor) -> NDArray[np.float64]:
    return values.flatten().double().cpu().numpy()
