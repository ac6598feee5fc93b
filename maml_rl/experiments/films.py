"""Films during training: the first evaluation task before and after adaptation, for TensorBoard."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from maml_rl.core.contracts import State
from maml_rl.core.keys import EVALUATION, Key
from maml_rl.evaluation.adaptation_curve import evaluation_tasks
from maml_rl.experiments.build import Built
from maml_rl.experiments.environments import make_film_environment, needs_backend, require_film
from maml_rl.pictures.backend import CanDraw, draws, require_drawing
from maml_rl.pictures.film import Scene, caption, film_pace, median_episode, record
from maml_rl.pictures.video import Panel, compose, encode_gif
from maml_rl.rl.experience import recipe_of
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.storage.events import Film
from maml_rl.training.trainer import Filming

FILM_HEIGHT, FILM_WIDTH, FILM_FONT_SIZE = 180, 240, 12  # of a robot in TensorBoard [pixels]
MAX_FILM_BYTES = 1_000_000


def make_filming(built: Built, every: int, can_draw: CanDraw = draws) -> Filming:
    """A film after every `every` iterations.

    Args:
        can_draw: tells whether MuJoCo can draw with a backend on this machine.
    Raises:
        ValueError: if the environment draws nothing, or not on this machine.
    """
    config = built.config
    if config.kind != "reinforcement":
        raise ValueError(f"film_every must be 0: {config.env} has no episodes to film")
    settings = dataclasses.replace(config.evaluation, num_tasks=1)
    recipe = recipe_of(built.family.collector)
    env = make_film_environment(config, recipe.at_once, FILM_HEIGHT, FILM_WIDTH)
    try:
        if needs_backend(env):
            require_drawing(can_draw)
        require_film(env, evaluation_tasks(built.family.source, settings)[0], config.env)
    except SamplingError as error:  # there is no task to film
        env.close()
        raise ValueError(str(error)) from None
    except BaseException:
        env.close()
        raise
    pace = film_pace(env)
    # as many episodes as training has, and no more adaptations than evaluation has
    evaluation = dataclasses.replace(built.evaluation, family=built.family, judge=None)
    last = max(evaluation.scored_after)

    def film(state: State, iteration: int) -> Film:
        tasks = evaluation_tasks(built.family.source, settings)
        key = Key(settings.seed, EVALUATION, iteration)
        panels = []
        for stage in evaluation.stages(built.learner, state, tasks, key):
            if stage.num_adaptations in (0, last):
                row = median_episode(built.family.measure.score(stage.scored)[0])
                scene = Scene(tasks[0], 0, stage.key, row)
                played = record(env, recipe, stage.actor, scene, 2 * pace.every)
                captions = [caption(played, i, stage.num_gradient_steps, None) for i in range(len(played.pictures))]
                panels.append(Panel(played.pictures, captions))
        frames = compose([f"iteration {iteration}: {tasks[0]}"], [panels], FILM_FONT_SIZE)
        height, width = frames[0].shape[:2]
        return Film(encode_gif(frames, pace.fps / 2, MAX_FILM_BYTES), height, width)

    close: Callable[[], None] = env.close
    return Filming(film, every, close)
