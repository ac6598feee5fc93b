"""Properties that are seen without a step: methods and their arguments, tasks, spaces, the horizon."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

from ..adapters import DEFAULT_HORIZON, own_horizon
from ..plug_in import TASK_METHODS, flattened, missing_methods
from .candidate import Candidate
from .comparison import short
from .finding import Finding, error_of, warning_of

_CALLS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {  # parameters, and a call as it is made
    "sample_tasks": ("self, num_tasks, rng", (1, None), {}),
    "sample_test_tasks": ("self, num_tasks, rng", (1, None), {}),
    "set_task": ("self, task", (None,), {}),
    "set_tasks": ("self, tasks", (None,), {}),
    "reset": ("self, *, seed=None, options=None", (), {"seed": 0}),
    "step": ("self, action", (None,), {}),
}


def methods_take_their_arguments(candidate: Candidate) -> Iterator[Finding]:
    """Each method can be called in the way in which training calls it."""
    for what, remedy in _wrong_definitions(candidate.trained_on()):
        yield error_of(methods_take_their_arguments, what, remedy)


def _wrong_definitions(env: Any) -> Iterator[tuple[str, str]]:
    """Methods that do not take what they will be called with: what each takes, and the definition it needs."""
    for name, (parameters, arguments, keywords) in _CALLS.items():
        method = _method(env, name)
        if method is None:
            continue
        if name == "reset" and env is not env.unwrapped:
            keywords = {**keywords, "options": None}  # wrappers hand it on
        try:
            signature = inspect.signature(method)
        except (TypeError, ValueError):
            continue  # of a built-in function
        try:
            signature.bind(*arguments, **keywords)
        except TypeError:
            yield f"{name} takes the arguments {signature}", f"define it as `def {name}({parameters})`"


def _method(env: Any, name: str) -> Any:
    """A method; reset and step of a single environment are its innermost, as wrappers pass the same arguments on."""
    if not isinstance(env, gymnasium.Env) or name in ("reset", "step"):
        return getattr(env.unwrapped, name, None)
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None


def tasks_can_be_drawn(candidate: Candidate) -> Iterator[Finding]:
    """`sample_tasks` and `set_task` exist, and as many tasks come as are asked for."""
    if not candidate.world.is_batch:
        missing = missing_methods(candidate.single())
        if candidate.world.is_registered and len(missing) == len(TASK_METHODS):
            yield warning_of(
                tasks_can_be_drawn,
                f"{candidate.world.name} has no tasks and is taken as a family of one",
                "give it sample_tasks and set_task if there is something to adapt to",
            )
        elif missing:
            for name in missing:
                yield error_of(
                    tasks_can_be_drawn, f"{candidate.world.name} has no {name}", f"give it {TASK_METHODS[name]}"
                )
            return
    for number in (1, 3):
        tasks = candidate.subject().sample_tasks(number, np.random.default_rng(0))
        if not hasattr(tasks, "__len__") or not hasattr(tasks, "__getitem__") or len(tasks) != number:
            yield error_of(
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
            yield error_of(spaces_are_known, f"{name} is {space!r}", f"set self.{name} to one of gymnasium.spaces")
            return
    if candidate.world.is_batch:
        if not isinstance(observations, gymnasium.spaces.Box):
            remedy = "let it be a Box, and _observe return rows laid flat by gymnasium.spaces.utils.flatten"
            yield error_of(spaces_are_known, f"single_observation_space is {observations}", remedy)
    else:
        try:
            flattened(candidate.world.name, env)
        except ValueError as error:
            what, _, remedy = str(error).rpartition(": ")
            yield error_of(spaces_are_known, what, remedy)
    if not is_supported(actions):
        yield error_of(spaces_are_known, f"action_space is {actions}", f"let it be {SUPPORTED_ACTIONS}")


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
        yield error_of(the_horizon_is_known, str(error), remedy)
        return
    if horizon is None:
        yield warning_of(
            the_horizon_is_known,
            f"{candidate.world.name} does not say how many steps an episode may take, so that {DEFAULT_HORIZON} are "
            "taken at most",
            remedy,
        )
    elif horizon < 1:
        yield error_of(the_horizon_is_known, f"the horizon is {horizon} steps", "let it be at least 1")
