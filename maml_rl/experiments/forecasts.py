"""Pictures of what a run predicts as a distribution: its reliability, and draws from its posterior."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.core.contracts import Actor, Adapted
from maml_rl.core.keys import Key
from maml_rl.core.trees import device_of, take_task
from maml_rl.evaluation.adaptation_curve import AdaptationCurve
from maml_rl.experiments.build import num_adaptations
from maml_rl.experiments.runs import Trained
from maml_rl.experiments.table import LEARNERS
from maml_rl.pictures.forecast_plots import Functions, Readings, functions_plot, readings_plot, reliability_plot
from maml_rl.pictures.plots import save_figure
from maml_rl.storage.atomic import write_atomically
from maml_rl.supervised.ambiguous import LYING, AmbiguousEpisode
from maml_rl.supervised.sinusoid import Examples, Function, SinusoidCollector

FORECASTS = ("reliability.png", "functions.png", "readings.png", "readings.csv")
NUM_FUNCTIONS = 10  # drawn from each posterior
NUM_GIVEN = (1, 5, 10)  # examples
NUM_READINGS, NUM_EPISODES = 20, 6  # draws, and ambiguous episodes that are shown


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
    if trained.config.kind == "pictures" and trained.config.task.rotations == "ambiguous":
        readings = drawn_readings(trained)
        made += [folder / "readings.png", folder / "readings.csv"]
        title = f"{subject}: what draws make of a picture lying down"
        save_figure(readings_plot(readings[:NUM_EPISODES], title), made[-2])
        write_atomically(made[-1], as_table(readings).encode())
    return made


def as_table(readings: Sequence[Readings]) -> str:
    """CSV: for each episode and draw the probability that pictures lying down are of the upright one's class."""
    rows = [
        f"{episode},{draw},{share:.6g}\n"
        for episode, each in enumerate(readings)
        for draw, share in enumerate(each.shares)
    ]
    return "episode,draw,upright\n" + "".join(rows)


def drawn_readings(trained: Trained) -> list[Readings]:
    """Ambiguous episodes, and what each draw says about their pictures lying down."""
    built, key = trained.built, trained.built.key(trained.checkpoint.iteration)
    tasks = cast(Sequence[AmbiguousEpisode], built.tasks())
    support = built.family.collector.collect(tasks, None, key.at_phase(0))
    adapted = adapted_to(trained, support, len(tasks), key)
    num_draws = NUM_READINGS if LEARNERS[trained.config.learner].draws else 1
    actors = [built.learner.actor(trained.state, adapted, key.at_phase(draw)) for draw in range(num_draws)]
    answers = [built.family.collector.collect(tasks, actor, key.at_phase(1)) for actor in actors]
    upright = torch.stack([each.outputs.softmax(dim=-1)[..., 0] for each in answers], dim=1)  # [N, draws, B]
    query = answers[0].examples.images
    if trained.config.task.images.invert:
        support, query = support._replace(images=1.0 - support.images), 1.0 - query
    rows = []
    for place, task in enumerate(tasks):
        lying = torch.tensor([turn == LYING for turn, _ in task.query])
        pictures = [*support.images[place], query[place, lying][0]]
        shares = upright[place][:, lying].mean(dim=1)
        rows.append(Readings([each.squeeze(-1).cpu().numpy() for each in pictures], shares.tolist()))
    return rows


def adapted_to(trained: Trained, support: Any, num_tasks: int, key: Key) -> Adapted:
    """What the learner knows after as many adaptations to the tasks' support as in the run's evaluation."""
    learner, state = trained.built.learner, trained.state
    adapted = learner.begin(state, num_tasks, key)
    for step in range(num_adaptations(trained.config, LEARNERS[trained.config.learner])):
        adapted = learner.adapt(state, adapted, support, key.at_phase(step))
    return adapted


def drawn_functions(trained: Trained) -> list[list[Functions]]:
    """Functions drawn after each number of given examples, of a task of each kind: a row of panels a task.

    The examples of a panel are the first of those of the next, so that a row shows what more of them change.
    """
    built, settings = trained.built, trained.config.task
    key, tasks = built.key(trained.checkpoint.iteration), cast(Sequence[Function], built.tasks())
    places = list({type(task): place for place, task in reversed(list(enumerate(tasks)))}.values())[::-1]
    low, high = settings.input_range
    inputs = np.linspace(low, high, 300)
    most = dataclasses.replace(settings, num_examples=max(NUM_GIVEN))
    collector = SinusoidCollector(most, built.device, built.threads)
    given = cast(Examples, collector.collect(tasks, None, key.at_phase(0)))
    columns: list[list[Functions]] = []
    for count in NUM_GIVEN:
        support = Examples(given.inputs[:, :count], given.targets[:, :count])
        adapted = adapted_to(trained, support, len(tasks), key)
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
    column = torch.from_numpy(inputs).float().view(1, -1, 1).to(device_of(actor.params))
    with torch.no_grad():
        return numbers(actor.take_tasks(index, index + 1).step((), Examples(column, column), None)[0])


def numbers(values: Tensor) -> NDArray[np.float64]:
    return values.flatten().double().cpu().numpy()
