"""Checks of the properties that every task environment must have; each finding says what is wrong and what to do.

A property is a function from a `Candidate` to findings. Those of `BEHAVIOUR` make the numbers of training mean
something; all others are cheap, and training cannot do without them.
"""

from __future__ import annotations

import copy
import itertools
import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env
from gymnasium.vector.utils import CloudpickleWrapper

from ..adapters import DEFAULT_HORIZON, own_horizon
from ..pictures import require_pictures
from ..plug_in import (
    TASK_METHODS,
    World,
    flattened,
    located,
    missing_methods,
    missing_package,
    raising_function,
    wrong_definitions,
)
from ..robots.mujoco_batch import MujocoTaskVectorEnv
from ..task_env import Task
from .candidate import NUM_TASKS, SEED, Batch, Candidate, first_difference, is_same, layers, play, short
from .sharing import disturbing_method, is_over, places_of_the_last_episode

FEW_STEPS = 10  # played for the contract
LARGEST = float(np.finfo(np.float32).max)  # of a number that training keeps
MANY_TASKS = 40  # drawn at once, as in training by default
MANY_STEPS = 100  # played for the rest, over as many episodes as they take
UNIT_SIZE = (0.01, 100.0)  # the largest entry of all observations: beyond these a network hardly learns


class Finding(NamedTuple):
    """One thing that is wrong with an environment."""

    name: str  # of the property
    severity: Literal["error", "warning"]
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


def check_world(world: World, horizon: int | None, thorough: bool) -> list[Finding]:
    """Check an environment; errors of one stage hide what the next would find.

    Args:
        horizon: [steps] of an episode at most; None for the environment's own.
        thorough: check behaviour, too.
    Raises:
        ValueError: if it cannot be made at all.
    """
    candidate = Candidate(world, horizon, MANY_STEPS if thorough else FEW_STEPS)
    findings: list[Finding] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gymnasium's, about what is said here
            candidate.batch(1) if world.is_batch else candidate.single()
            for stage in (DEFINITIONS, FORM, CONTRACT, SCALE, REPEATABLE, BEHAVIOUR if thorough else ()):
                for check in stage:
                    findings += _found(check, candidate)
                if any(finding.severity == "error" for finding in findings):
                    break  # the next stage would stumble over it
    finally:
        candidate.close()
    return findings


Property = Callable[[Candidate], Iterator[Finding]]


def _found(check: Property, candidate: Candidate) -> list[Finding]:
    """An exception is a finding, too: it would end a run."""
    try:
        return list(check(candidate))
    except Exception as error:
        package = missing_package(error)
        if package is not None:
            return [_error(check, f"{candidate.world.name} {package[0]}", package[1])]
        raiser = raising_function(error) or f"checking that {check.__name__.replace('_', ' ')}"
        return [_error(check, f"{raiser} raised {located(error)}", "correct what raises it")]


def _error(check: Property, what: str, remedy: str) -> Finding:
    return Finding(check.__name__, "error", what, remedy)


def _warning(check: Property, what: str, remedy: str) -> Finding:
    return Finding(check.__name__, "warning", what, remedy)


# --- the contract ----------------------------------------------------------------------------------------------


def methods_take_their_arguments(candidate: Candidate) -> Iterator[Finding]:
    """Each method can be called in the way in which training calls it."""
    for what, remedy in wrong_definitions(candidate.trained_on()):
        yield _error(methods_take_their_arguments, what, remedy)


def tasks_can_be_drawn(candidate: Candidate) -> Iterator[Finding]:
    """`sample_tasks` and `set_task` exist, and as many tasks come as are asked for."""
    if not candidate.world.is_batch:
        missing = missing_methods(candidate.single())
        if candidate.world.is_registered and len(missing) == len(TASK_METHODS):
            yield _warning(
                tasks_can_be_drawn,
                f"{candidate.world.name} has no tasks and is taken as a family of one",
                "give it sample_tasks and set_task if there is something to adapt to",
            )
        elif missing:
            for name in missing:
                yield _error(
                    tasks_can_be_drawn, f"{candidate.world.name} has no {name}", f"give it {TASK_METHODS[name]}"
                )
            return
    for number in (1, 3):
        tasks = candidate.subject().sample_tasks(number, np.random.default_rng(0))
        if not hasattr(tasks, "__len__") or not hasattr(tasks, "__getitem__") or len(tasks) != number:
            yield _error(
                tasks_can_be_drawn,
                f"sample_tasks({number}, rng) returned {short(tasks)} in place of {number} tasks",
                "return a list with num_tasks tasks in it",
            )
            return


def spaces_are_known(candidate: Candidate) -> Iterator[Finding]:
    """Policies can be made for the spaces."""
    env: Any = candidate.batch(1) if candidate.world.is_batch else candidate.single()
    prefix = "single_" if candidate.world.is_batch else ""
    names = (f"{prefix}observation_space", f"{prefix}action_space")
    observations, actions = spaces = [getattr(env, name, None) for name in names]  # the class only announces them
    for name, space in zip(names, spaces, strict=True):
        if not isinstance(space, gymnasium.Space):
            yield _error(spaces_are_known, f"{name} is {space!r}", f"set self.{name} to one of gymnasium.spaces")
            return
    if candidate.world.is_batch:
        if not isinstance(observations, gymnasium.spaces.Box):
            remedy = "let it be a Box, and _observe return rows laid flat by gymnasium.spaces.utils.flatten"
            yield _error(spaces_are_known, f"single_observation_space is {observations}", remedy)
    else:
        try:
            flattened(candidate.world.name, env)
        except ValueError as error:
            what, _, remedy = str(error).rpartition(": ")
            yield _error(spaces_are_known, what, remedy)
    if not is_supported(actions):
        yield _error(spaces_are_known, f"action_space is {actions}", f"let it be {SUPPORTED_ACTIONS}")


SUPPORTED_ACTIONS = "Discrete, MultiDiscrete, MultiBinary, or a Box of floating-point numbers with finite low and high"


def is_supported(actions: object) -> bool:
    """Whether there is a policy for such actions."""
    if isinstance(actions, gymnasium.spaces.Box):
        return np.issubdtype(actions.dtype, np.floating) and bool(np.isfinite([actions.low, actions.high]).all())
    return isinstance(
        actions, gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete | gymnasium.spaces.MultiBinary
    )


def the_horizon_is_known(candidate: Candidate) -> Iterator[Finding]:
    """The number of steps that an episode may take is stated somewhere."""
    if candidate.horizon is not None or candidate.world.is_batch:
        return
    remedy = "give it an attribute horizon or a time limit, or set --horizon"
    try:
        horizon = own_horizon(candidate.single(), candidate.world.name)
    except ValueError as error:
        yield _error(the_horizon_is_known, str(error), remedy)
        return
    if horizon is None:
        yield _warning(
            the_horizon_is_known,
            f"{candidate.world.name} does not say how many steps an episode may take, so that {DEFAULT_HORIZON} are "
            "taken at most",
            remedy,
        )
    elif horizon < 1:
        yield _error(the_horizon_is_known, f"the horizon is {horizon} steps", "let it be at least 1")


def steps_return_what_they_must(candidate: Candidate) -> Iterator[Finding]:
    """Observations lie in their space, rewards are finite numbers, ends are yes or no."""
    subject = candidate.subject()
    space = subject.observation_space
    subject.set_task(subject.sample_tasks(1, np.random.default_rng(0))[0])

    def begun(seed: int) -> Iterator[Finding]:
        result = subject.reset(seed)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
            remedy = "return the observation and a dict, which may be empty"
            yield _error(steps_return_what_they_must, f"reset returned {short(result)}", remedy)
        else:
            yield from _outside(space, result[0], "the observation of reset")

    findings = list(begun(SEED))
    for number, action in enumerate(candidate.actions(subject)):
        if findings:
            break  # every further step would say the same
        result = subject.step(action)
        if not isinstance(result, tuple) or len(result) != 5:
            remedy = "return observation, reward, terminated, truncated and a dict"
            findings.append(_error(steps_return_what_they_must, f"step {number} returned {short(result)}", remedy))
            break
        observation, reward, terminated, truncated, _ = result
        findings += _outside(space, observation, f"the observation of step {number}")
        findings += _no_number(reward, subject.rows, number)
        for name, value in (("terminated", terminated), ("truncated", truncated)):
            if np.shape(value) != subject.rows or np.asarray(value).dtype != bool:
                what = f"{name} of step {number} is {short(value)}"
                findings.append(_error(steps_return_what_they_must, what, "let it be True or False"))
        if not findings and (np.any(terminated) or np.any(truncated) or subject.is_at_limit):
            findings += begun(SEED + number + 1)
    yield from findings


def _no_number(reward: Any, rows: tuple[int, ...], number: int) -> Iterator[Finding]:
    kind = np.asarray(reward).dtype.kind
    if np.shape(reward) != rows or kind not in "biuf":
        wanted = "one number per sub-environment" if rows else "one number: float(...) makes one of an array"
        yield _error(steps_return_what_they_must, f"the reward of step {number} is {reward!r}", f"return {wanted}")
    elif not np.isfinite(reward).all():
        remedy = "look for a division by zero, or a state that leaves all bounds"
        yield _error(steps_return_what_they_must, f"the reward of step {number} is {short(reward)}", remedy)
    elif np.abs(reward).max() > LARGEST:
        what = f"the reward of step {number} is {short(reward)}, beyond {LARGEST:.2g}, the largest number in 32 bits"
        yield _error(steps_return_what_they_must, what, "scale it to about 1")


def _outside(space: gymnasium.Space, value: Any, name: str) -> Iterator[Finding]:
    """Why `value` is not in `space`, entry by entry."""

    def wrong(what: str, remedy: str) -> Finding:
        return _error(steps_return_what_they_must, f"{name} {what}", remedy)

    if isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
        parts = dict(space.items() if isinstance(space, gymnasium.spaces.Dict) else enumerate(space))
        found = dict(value.items() if isinstance(value, dict) else enumerate(value))
        if parts.keys() != found.keys():
            yield wrong(f"has the entries {list(found)} in place of {list(parts)}", "return those of observation_space")
        else:
            for key, part in parts.items():
                yield from _outside(part, found[key], f"{name}, entry {key!r},")
    elif not isinstance(space, gymnasium.spaces.Box):
        if not space.contains(value):
            yield wrong(f"is {short(value)}, which is not in {space}", "return what observation_space says")
    else:
        array = np.asarray(value)
        if array.shape != space.shape:
            remedy = "let every reset and step return the shape of observation_space"
            yield wrong(f"has shape {array.shape} in place of {space.shape}", remedy)
        elif array.dtype.kind not in "biuf":
            yield wrong(f"is {short(value)}", "return numbers")
        elif not np.isfinite(array).all():
            yield wrong(
                f"is not finite: {short(value)}", "look for a division by zero, or a state that leaves all bounds"
            )
        elif array.size and np.abs(array.astype(np.float64)).max() > LARGEST:
            yield wrong(
                f"is {short(value)}, beyond {LARGEST:.2g}, the largest number in 32 bits", "scale it to about 1"
            )
        elif isinstance(value, np.ndarray) and not np.can_cast(array.dtype, space.dtype):
            remedy = (
                f"return np.asarray(observation, np.{space.dtype}), or make observation_space a Box of {array.dtype}"
            )
            yield wrong(f"is of {array.dtype} but observation_space of {space.dtype}", remedy)
        elif not ((array >= space.low) & (array <= space.high)).all():
            place = np.argwhere((array < space.low) | (array > space.high))[0]
            here = tuple(place)
            bounds = f"{space.low[here]} to {space.high[here]}"
            remedy = "clip it, or widen low and high of observation_space"
            yield wrong(f"holds {array[here]} at {place.tolist()}, outside {bounds}", remedy)


def observations_are_of_unit_size(candidate: Candidate) -> Iterator[Finding]:
    """The policy sees numbers that are neither huge nor tiny."""
    subject = Batch(candidate.batch(1))
    task = subject.sample_tasks(1, np.random.default_rng(0))[0]
    played = play(subject, candidate.actions(subject), task)
    size = max(np.abs(observation).max(initial=0.0) for observation in played.observations)
    if size > 0 and not UNIT_SIZE[0] <= size <= UNIT_SIZE[1]:
        yield _warning(
            observations_are_of_unit_size,
            f"the largest number in {len(played.observations)} observations is {size:.2g}, far from 1, and hardly "
            "anything is learned from such numbers",
            "divide them by their size in the environment, or train with --observations normalised",
        )


# --- repeatability ---------------------------------------------------------------------------------------------


def a_seed_decides_everything(candidate: Candidate) -> Iterator[Finding]:
    """Same seed, same task, same actions: the same episodes, of the same object and of another one."""
    task, subject = candidate.tasks()[0], candidate.subject()
    for layer in layers(subject.env):
        if getattr(layer, "update_running_mean", False):  # rewards that are zero so far would not show it
            yield _memory(type(layer).__name__, "its statistics depend on all episodes played before")
            return
    actions = candidate.actions(subject)
    first, again = (play(subject, actions, task) for _ in range(2))
    for other, whose in ((again, "of the same environment"), (candidate.play(task), "of another one")):
        difference = first_difference(first, other)
        if difference:
            what = f"two episodes {whose}, of equal seed, task and actions, differ: {difference}"
            wrapper = candidate.wrapper_with_memory(task)
            yield (
                _memory(wrapper, what)
                if wrapper
                else _error(
                    a_seed_decides_everything,
                    what,
                    "call super().reset(seed=seed), draw from self.np_random alone, and set all state anew in reset",
                )
            )
            return


def _memory(wrapper: str, what: str) -> Finding:
    instead = " and train with --observations normalised" if wrapper == "NormalizeObservation" else ""
    return _error(
        a_seed_decides_everything,
        f"the wrapper {wrapper} carries a memory from one episode into the next ({what})",
        f"leave it out{instead}, let its reset forget, or freeze its statistics (update_running_mean = False)",
    )


def global_generators_stay(candidate: Candidate) -> Iterator[Finding]:
    """Neither numpy's nor Python's global generator is drawn from."""

    def states() -> dict[str, Any]:
        return {"numpy.random": np.random.get_state(), "random": random.getstate()}

    before = states()
    candidate.play(candidate.tasks()[0])
    after = states()
    for name in before:
        if not is_same(before[name], after[name]):
            yield _error(
                global_generators_stay,
                f"the global generator of {name} is drawn from, or seeded",
                "draw from rng in sample_tasks and from self.np_random in reset and step",
            )


def tasks_stay_as_drawn(candidate: Candidate) -> Iterator[Finding]:
    """A task that was drawn is not changed by a later draw, nor by the copies that play it."""
    subject, other = candidate.subject(), candidate.subject()
    tasks = subject.sample_tasks(3, np.random.default_rng(0))
    before = [_pickled(task) for task in tasks]

    def draw_again() -> None:
        for each in (subject, other):
            each.sample_tasks(3, np.random.default_rng(1))

    def step_on() -> None:
        for action in candidate.actions(subject):
            if is_over(subject, subject.step(copy.deepcopy(action))):
                return

    deeds: dict[str, Callable[[], Any]] = {
        "a later call of sample_tasks": draw_again,
        "set_task": lambda: subject.set_task(tasks[0]),
        "reset": lambda: subject.reset(SEED),
        "step": step_on,
    }
    for name, deed in deeds.items():
        deed()
        for pickled, task in zip(before, tasks, strict=False):
            if pickled is None or pickled == _pickled(task):
                continue
            drawn = pickle.loads(pickled).fn
            if not _is_same_task(drawn, task):
                yield _error(
                    tasks_stay_as_drawn,
                    f"{name} changes a task that was drawn before, from {short(drawn)} to {short(task)}",
                    "return new tasks from every call of sample_tasks, and change only a copy of a task: all episodes "
                    "of a task are given the same object",
                )
                return


def copies_share_nothing(candidate: Candidate) -> Iterator[Finding]:
    """A copy changes no episode of another copy, whatever is done with it."""
    remedy = "keep the task, and all else that belongs to an episode, in self, in objects made in __init__ or reset"
    one, other = (list(layers(candidate.subject().env))[-1] for _ in range(2))
    if one is other:
        yield _error(
            copies_share_nothing,
            f"{candidate.world.name} returned one and the same {type(one).__name__} twice",
            "make a new one in every call: episodes are played side by side",
        )
        return
    tasks = candidate.two_that_differ or candidate.tasks()[:2]
    method = disturbing_method(candidate, tasks)
    places = places_of_the_last_episode(candidate, tasks)
    shared = " and ".join(places[:3])
    if method:
        through = f"through {shared}" if places else "through a variable, an object or a file outside of them"
        yield _error(copies_share_nothing, f"{method} of one copy changes the episodes of others, {through}", remedy)
    elif places:
        yield _error(copies_share_nothing, f"all copies share the task or state that stands in {shared}", remedy)


# --- behaviour -------------------------------------------------------------------------------------------------


def tasks_depend_on_rng_alone(candidate: Candidate) -> Iterator[Finding]:
    """Equal generators draw equal tasks, in this environment and in another one."""
    subject = candidate.subject()
    first = subject.sample_tasks(NUM_TASKS, np.random.default_rng(1))
    for other in (subject, candidate.subject()):
        again = other.sample_tasks(NUM_TASKS, np.random.default_rng(1))
        if not all(_is_same_task(a, b) for a, b in zip(first, again, strict=True)):
            yield _error(
                tasks_depend_on_rng_alone,
                f"sample_tasks drew {short(first)} and then, with an equal rng, {short(again)}",
                "draw from rng alone, and let tasks be values: numbers, tuples or frozen dataclasses",
            )
            return


def _is_same_task(one: Task, other: Task) -> bool:
    return is_same(one, other) or (_pickled(one) is not None and _pickled(one) == _pickled(other))


def _pickled(task: Task) -> bytes | None:
    """The task as it is sent to workers; None if it cannot be pickled."""
    try:
        return pickle.dumps(CloudpickleWrapper(task))
    except Exception:
        return None


def observations_keep(candidate: Candidate) -> Iterator[Finding]:
    """Observations that were handed out are not overwritten later."""
    played = candidate.play(candidate.tasks()[0])
    for number, (held, copied) in enumerate(zip(played.held, played.observations, strict=True)):
        if not is_same(held, copied):
            yield _error(
                observations_keep,
                f"observation {number} was handed out as {short(copied)} and has become {short(held)}",
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
            report = _error if candidate.world.is_batch else _warning  # copies of a single one are set at reset alone
            yield report(
                a_task_waits_for_reset,
                "set_task changes the episode under way",
                "let set_task keep the task aside, and reset take it up",
            )
            return
        if np.any(expected[2]) or np.any(expected[3]) or quiet.is_at_limit:
            return


def tasks_matter(candidate: Candidate) -> Iterator[Finding]:
    """Some two tasks lead to other observations or rewards."""
    tasks = candidate.tasks()
    if not all(_is_same_task(tasks[0], task) for task in tasks) and candidate.two_that_differ is None:
        yield _warning(
            tasks_matter,
            f"{NUM_TASKS} tasks gave the same observations and rewards, step by step",
            "look whether set_task keeps the task, and reset and step use it; a reward that is rare may need no change",
        )


def tasks_do_not_run_out(candidate: Candidate) -> Iterator[Finding]:
    """There are as many tasks, to train on and to evaluate on, as training draws at once by default."""
    env = candidate.batch(1)
    for name in ("sample_tasks", "sample_test_tasks"):
        try:
            number = len(getattr(env, name)(MANY_TASKS, np.random.default_rng(0)))
            what = f"returned {number} tasks"
        except Exception as error:
            number, what = 0, f"failed with {located(error)}"
        if number != MANY_TASKS:
            yield _warning(
                tasks_do_not_run_out,
                f"{name}({MANY_TASKS}, rng) {what}",
                "draw with replacement where there are fewer, or train with lower --num-tasks and "
                "--evaluation.num-tasks",
            )
            return


def tasks_can_be_sent(candidate: Candidate) -> Iterator[Finding]:
    """Processes and machines can be given the task."""
    task = candidate.tasks()[0]
    if _pickled(task) is None:
        yield _warning(
            tasks_can_be_sent,
            f"task {short(task)} cannot be pickled, so that workers in other processes cannot be given it",
            "let tasks be values: numbers, tuples or frozen dataclasses",
        )


def pictures_can_be_filmed(candidate: Candidate) -> Iterator[Finding]:
    """An environment that says it draws returns pictures that films can be made of."""
    env = candidate.batch(1)
    if "rgb_array" not in env.metadata.get("render_modes", ()) or isinstance(env, MujocoTaskVectorEnv):
        return  # the project's own robots draw wherever the machine can
    try:
        require_pictures(candidate.batch(1, "rgb_array"), candidate.tasks()[0])
    except gymnasium.error.DependencyNotInstalled:
        return  # what the machine lacks is no fault of the environment
    except ValueError as error:
        what, _, remedy = str(error).partition(": ")
        yield _warning(pictures_can_be_filmed, what, remedy)
    except Exception as error:
        yield _warning(pictures_can_be_filmed, f"drawing fails with {located(error)}", "let render return a picture")


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
    yield _warning(
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
    for _ in range(FEW_STEPS):
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
        yield _error(
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
        yield _warning(gymnasium_agrees, f"Gymnasium's own checker says: {short(error)}", "follow it if you can")


DEFINITIONS: tuple[Property, ...] = (methods_take_their_arguments,)
FORM: tuple[Property, ...] = (tasks_can_be_drawn, spaces_are_known, the_horizon_is_known)
CONTRACT: tuple[Property, ...] = (steps_return_what_they_must,)
SCALE: tuple[Property, ...] = (observations_are_of_unit_size,)
REPEATABLE: tuple[Property, ...] = (
    a_seed_decides_everything,
    global_generators_stay,
    tasks_stay_as_drawn,
    copies_share_nothing,
)
BEHAVIOUR: tuple[Property, ...] = (
    tasks_depend_on_rng_alone,
    observations_keep,
    a_task_waits_for_reset,
    tasks_matter,
    tasks_do_not_run_out,
    tasks_can_be_sent,
    pictures_can_be_filmed,
    episodes_end,
    a_row_does_not_depend_on_others,
    gymnasium_agrees,
)
