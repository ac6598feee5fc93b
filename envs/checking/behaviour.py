"""Properties without which training runs, but its numbers may mean nothing."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

from ..adapters import own_horizon
from ..pictures import require_pictures
from ..plug_in import missing_methods
from ..robots.mujoco_batch import MujocoTaskVectorEnv
from ..tracebacks import located
from .candidate import NUM_TASKS, SEED, Candidate, is_over
from .comparison import is_same, is_same_task, pickled_task, short
from .finding import Finding, error_of, warning_of

MANY_TASKS = 40  # drawn at once, as in training by default
ROW_STEPS = 10  # played beside other rows


def tasks_depend_on_rng_alone(candidate: Candidate) -> Iterator[Finding]:
    """Equal generators draw equal tasks, in this environment and in another one."""
    subject = candidate.subject()
    first = subject.sample_tasks(NUM_TASKS, np.random.default_rng(1))
    for other in (subject, candidate.subject()):
        again = other.sample_tasks(NUM_TASKS, np.random.default_rng(1))
        if not all(is_same_task(a, b) for a, b in zip(first, again, strict=True)):
            yield error_of(
                tasks_depend_on_rng_alone,
                f"sample_tasks drew {short(first)} and then, with an equal rng, {short(again)}",
                "draw from rng alone, and let tasks be values: numbers, tuples or frozen dataclasses",
            )
            return


def observations_keep(candidate: Candidate) -> Iterator[Finding]:
    """Observations that were returned are not overwritten later."""
    played = candidate.play(candidate.tasks()[0])
    for number, (held, copied) in enumerate(zip(played.held, played.observations, strict=True)):
        if not is_same(held, copied):
            yield error_of(
                observations_keep,
                f"observation {number} was returned as {short(copied)} and has become {short(held)}",
                "return a copy: observation.copy()",
            )
            return


def a_task_waits_for_reset(candidate: Candidate) -> Iterator[Finding]:
    """`set_task` leaves the episode under way alone."""
    pair = candidate.two_that_differ
    if pair is None:
        return
    disturbed, quiet, _ = subjects = [candidate.subject() for _ in range(3)]
    for subject in subjects:
        subject.set_task(pair[0])
        subject.reset(SEED)
    disturbed.set_task(pair[1])
    for action in candidate.actions(quiet):
        result, expected, again = (copy.deepcopy(subject.step(copy.deepcopy(action))) for subject in subjects)
        if not is_same(expected[:4], again[:4]):
            return  # no two episodes are alike here: another property's finding
        if not is_same(result[:4], expected[:4]):
            report = (
                error_of if candidate.world.is_batch else warning_of
            )  # copies of a single one are set at reset alone
            yield report(
                a_task_waits_for_reset,
                "set_task changes the episode under way",
                "let set_task keep the task aside, and reset take it up",
            )
            return
        if is_over(quiet, expected):
            return


def tasks_matter(candidate: Candidate) -> Iterator[Finding]:
    """Tasks differ in their observations or rewards."""
    tasks = candidate.tasks()
    if not all(is_same_task(tasks[0], task) for task in tasks) and candidate.two_that_differ is None:
        yield warning_of(
            tasks_matter,
            f"{NUM_TASKS} tasks gave the same observations and rewards, step by step",
            "look whether set_task keeps the task, and reset and step use it; a reward that is rare may need no change",
        )


def tasks_do_not_run_out(candidate: Candidate) -> Iterator[Finding]:
    """There are as many tasks, to train on and to evaluate on, as training draws at once by default."""
    env = candidate.batch(1)
    for name in ("sample_tasks", "sample_test_tasks") if env.has_test_tasks else ("sample_tasks",):
        try:
            number = len(getattr(env, name)(MANY_TASKS, np.random.default_rng(0)))
            what = f"returned {number} tasks"
        except Exception as error:
            number, what = 0, f"failed with {located(error)}"
        if number != MANY_TASKS:
            yield warning_of(
                tasks_do_not_run_out,
                f"{name}({MANY_TASKS}, rng) {what}",
                "draw with replacement where there are fewer, or train with lower --num-tasks and "
                "--evaluation.num-tasks",
            )
            return


def tasks_can_be_sent(candidate: Candidate) -> Iterator[Finding]:
    """Processes and machines can be given the task."""
    task = candidate.tasks()[0]
    if pickled_task(task) is None:
        yield warning_of(
            tasks_can_be_sent,
            f"task {short(task)} cannot be pickled, so that workers in other processes cannot be given it",
            "let tasks be values: numbers, tuples or frozen dataclasses",
        )


def pictures_can_be_filmed(candidate: Candidate) -> Iterator[Finding]:
    """An environment that says it draws returns pictures that films can be made of."""
    env = candidate.batch(1)
    modes = list(env.metadata.get("render_modes", ()))
    if not modes or isinstance(env, MujocoTaskVectorEnv):
        return  # the project's own robots draw wherever the machine can
    if "rgb_array" not in modes:
        yield warning_of(
            pictures_can_be_filmed,
            f"the render modes are {modes}, so that no films can be made",
            "give it the render mode rgb_array, too, if you want them",
        )
        return
    try:
        require_pictures(candidate.batch(1, "rgb_array"), candidate.tasks()[0])
    except gymnasium.error.DependencyNotInstalled:
        return  # what the machine lacks is no fault of the environment
    except ValueError as error:
        what, _, remedy = str(error).partition(": ")
        yield warning_of(pictures_can_be_filmed, what, remedy)
    except Exception as error:
        yield warning_of(pictures_can_be_filmed, f"drawing fails with {located(error)}", "let render return a picture")


def episodes_end(candidate: Candidate) -> Iterator[Finding]:
    """An environment that does not state how long an episode may be ends its episodes itself."""
    if candidate.world.is_batch or candidate.horizon is None:
        return
    if own_horizon(candidate.single(), candidate.world.name) is not None:
        return
    subject = candidate.subject()
    subject.set_task(candidate.tasks()[0])
    subject.reset(SEED)
    for action in itertools.islice(itertools.cycle(candidate.actions(subject)), candidate.horizon):
        if any(subject.step(action)[2:4]):
            return
    yield warning_of(
        episodes_end,
        f"an episode did not end in {candidate.horizon} steps, where --horizon cuts it",
        "if that is meant, write the number down as the attribute horizon; else look for what should end it",
    )


def a_row_does_not_depend_on_others(candidate: Candidate) -> Iterator[Finding]:
    """One of three sub-environments does the same as when alone, also if it rests while the others go on."""
    three, one = candidate.batch(3), candidate.batch(1)
    tasks = list(three.sample_tasks(3, np.random.default_rng(0)))
    three.set_tasks(tasks)
    one.set_tasks(tasks[1:2])
    seeds = [SEED, SEED + 1, SEED + 2]
    together, _ = three.reset(seed=seeds)
    alone, _ = one.reset(seed=seeds[1:2])
    same = is_same(together[1], alone[0])
    alive, others = np.ones(3, dtype=bool), np.array([True, False, True])
    space = copy.deepcopy(three.action_space)
    space.seed(0)
    for _ in range(ROW_STEPS):
        if not same or not alive[1]:
            break
        action = space.sample()
        result, expected = three.step(action, alive), one.step(action[1:2])
        same = all(is_same(a[1], b[0]) for a, b in zip(result[:4], expected[:4], strict=True))
        alive &= ~(result[2] | result[3])
        if (alive & others).any():  # the one rests
            result = three.step(action, alive & others)
            alive &= ~(result[2] | result[3])
    if not same:
        yield error_of(
            a_row_does_not_depend_on_others,
            "a sub-environment behaves differently beside others than alone",
            "let it share no array with another one (class attributes are shared), draw from its own generator, "
            "and stand still where it is not alive",
        )


def gymnasium_agrees(candidate: Candidate) -> Iterator[Finding]:
    """Gymnasium's own checker has no objection."""
    if candidate.world.is_batch:
        return
    env = candidate.single().unwrapped
    if not missing_methods(env):
        env.get_wrapper_attr("set_task")(candidate.tasks()[0])
    try:
        check_env(env, skip_render_check=True)
    except (AssertionError, gymnasium.error.Error) as error:
        yield warning_of(gymnasium_agrees, f"Gymnasium's own checker says: {short(error)}", "follow it if you can")
