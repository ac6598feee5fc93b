"""A run as a page in the browser: its agent acts and adapts, or its classifier is asked about drawings."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

from maml_rl.api.agent import Agent
from maml_rl.api.classifier import FewShotClassifier
from maml_rl.api.run import Run
from maml_rl.experiments.live import (
    live_tasks,
    make_live,
    note_of,
    picture_of,
    render_mode_of,
    robot_of,
    steps_per_second,
)
from maml_rl.experiments.runs import WhichCheckpoint, load_checkpoint
from maml_rl.experiments.table import learner_entry
from maml_rl.pictures.live.drawing import Pupil, show_drawing_page
from maml_rl.pictures.live.needs import HOST as HOST
from maml_rl.pictures.live.needs import require_free, require_viewer
from maml_rl.pictures.live.show import Player, Show
from maml_rl.pictures.live.stage import show_stage
from maml_rl.runtime import product_threads

PORT = 8080


def _nothing() -> None:
    """Do nothing."""


def play(
    run: Run,
    port: int = PORT,
    checkpoint: WhichCheckpoint = "last",
    seed: int = 1,
    ready: Callable[[], None] = _nothing,
) -> None:
    """Serve a page at http://127.0.0.1:PORT until interrupted.

    Args:
        checkpoint: of the run.
        seed: of tasks and episodes.
        ready: called when the page can be opened.
    Raises:
        ValueError: if the port is not free, a package is missing, or the run is of tasks that no page shows.
        RuntimeError: if the environment fails in an episode.
    """
    kind = run.config.kind
    if kind not in ("reinforcement", "pictures"):
        raise ValueError(
            f"play shows environments and pictures to classify, but {run.path} is a run of {run.config.env}: look at "
            "its plots by maml-rl visualize"
        )
    require_free(port)
    if kind == "pictures":
        show_drawing_page(pupil_of(run, checkpoint), port, ready)
        return
    with product_threads(1):
        show = show_of(run, checkpoint, seed)
        make_scene = None
        if show.is_robot:
            make_scene = importlib.import_module("maml_rl.pictures.live.robots").make_scene
        show_stage(show, port, seed, ready, make_scene)


def pupil_of(run: Run, checkpoint: WhichCheckpoint = "last") -> Pupil:
    """The run's classifier for the drawing page."""
    config = run.config
    ways, shots = config.task.ways, config.task.shots
    iteration = load_checkpoint(run.path, checkpoint).iteration
    title = f"{config.env_name} {ways}-way {shots}-shot {config.learner}, iteration {iteration}"
    takes_any = learner_entry(config.learner, "pictures").any_ways
    return Pupil(title, None if takes_any else ways, FewShotClassifier(run.path, checkpoint).learn)


def show_of(run: Run, checkpoint: WhichCheckpoint = "last", seed: int = 1) -> Show:
    """The run's agent and environment for a live view.

    Raises:
        ValueError: if the environment draws nothing, or is a robot and a package for it is missing.
    """
    config = run.config
    render_mode = render_mode_of(config, seed)
    if render_mode is None:
        require_viewer()
    agent = run.agent(checkpoint)
    takes_gradient_steps = learner_entry(config.learner, "reinforcement").gradient_steps
    probe = make_live(config, render_mode)
    speed = steps_per_second(probe)
    note = note_of(probe)
    probe.close()
    iteration = load_checkpoint(run.path, checkpoint).iteration
    return Show(
        title=f"{config.env_name}, {config.learner}, iteration {iteration}",
        note=note,
        tasks=live_tasks(config, seed),
        make_env=lambda: make_live(config, render_mode),
        is_robot=render_mode is None,
        robot_of=robot_of,
        picture_of=picture_of,
        begin=lambda task: _beginner(agent, task),
        horizon=agent.surroundings.horizon,
        steps_per_second=speed,
        episodes_per_adaptation=config.task.sampling.episodes_per_task if takes_gradient_steps else 1,
        takes_gradient_steps=takes_gradient_steps,
    )


def _beginner(agent: Agent, task: Any) -> Player:
    """The agent before adaptation with a memory of its own; an oracle knows the task."""
    return agent.told(task) if agent.surroundings.task_size else dataclasses.replace(agent, _memory={})
