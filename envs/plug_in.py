"""From a name to an environment: a user's `module:Class`, or a registered Gymnasium id."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.wrappers import ClipAction, DtypeObservation, FlattenObservation, TransformAction, TransformObservation

from .adapters import VectorFromSingle
from .modules import did_you_mean, hidden_file, home_of, imported, package_of, require_own
from .scaling import ByteScale, ScaledVector, byte_scale
from .task_env import TaskVectorEnv
from .tracebacks import located, missing_package

GUIDE = "docs/custom_environments.md"
TASK_METHODS = {
    "sample_tasks": "sample_tasks(self, num_tasks, rng), which returns a list of num_tasks tasks drawn with rng",
    "set_task": "set_task(self, task), which makes task the one to be solved from the next reset on",
}


class World(NamedTuple):
    """A kind of environment that can be made, one at a time or as a batch."""

    name: str  # as the user gave it
    make: Callable[..., Any]  # settings -> environment
    is_batch: bool  # makes `TaskVectorEnv`s; else single environments
    is_registered: bool  # with Gymnasium


@dataclass(frozen=True)
class OnlyTask:
    """The only task of an environment without tasks."""

    def __str__(self) -> str:
        return "the only task"


class OneTask(gymnasium.Wrapper):
    """An environment without tasks as a family of one task."""

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[OnlyTask]:
        return [OnlyTask()] * num_tasks

    def set_task(self, task: OnlyTask) -> None:
        """Do nothing: there is no other task."""


def remember(maker: Callable[..., Any]) -> str:
    """Give an environment class, or a function that makes one, a name by which this process finds it.

    One that can be imported has the name by which every process does: module:Class.

    Raises:
        ValueError: if it is neither.
    """
    if not (inspect.isclass(maker) or inspect.isfunction(maker)):
        raise ValueError(f"env must be an id, a class or a function that makes an environment, got {maker!r}")
    name = f"{maker.__module__}:{maker.__qualname__}"
    _live[name] = maker
    return name


_live: dict[str, Callable[..., Any]] = {}  # by name: classes of a notebook cannot be imported


def find_world(name: str) -> World:
    """Find the environment of that name.

    Args:
        name: a registered id; `module:Class`, with a module that lies on sys.path or in the current directory;
            `module:function`, which returns an environment; or `module:id`, which the module registers.
    Raises:
        ValueError: if there is none, in one sentence that names the remedy.
    """
    if name in _live:
        return _as_world(name, _live[name])
    module_name, colon, attribute = name.rpartition(":")
    if not colon:
        return _registered(name, name)
    if not module_name or not attribute:
        raise ValueError(f"env must be an id or module:Class, got {name!r}{did_you_mean(name)}")
    if "/" in module_name or module_name.endswith(".py"):
        raise ValueError(f"env must name a module, as import does, not a file, got {name!r}{did_you_mean(name)}")
    require_own(module_name)
    module = imported(module_name)
    maker = getattr(module, attribute, None)
    if maker is None and (hidden := hidden_file(module_name)):
        raise ValueError(
            f"env must name a module of yours alone, but this project has {module_name}, too, which hides {hidden}: "
            "rename yours, or its folder"
        )
    if maker is None and module_name == __package__:
        raise ValueError(
            f"env must not be in envs/__init__.py, since envs is this project's package, got {name!r}: move it into a "
            "module of your folder, as envs/mine.py, or rename the folder"
        )
    if maker is None:
        if _is_registered(attribute):
            return _registered(name, attribute)
        raise ValueError(
            f"env must name a class, but {module_name} ({module.__file__}) has no {attribute!r} and registers no id "
            f"of that name; its environments are {_environments_of(module)}"
        )
    world = _as_world(name, maker)
    if not isinstance(maker, type) and package_of(home_of(maker)) != package_of(module_name):
        raise ValueError(
            f"env must name a function that {module_name} defines, but {name} is {maker!r} of {home_of(maker)}: define "
            "one there that returns the environment"
        )
    return world


def _as_world(name: str, maker: Any) -> World:
    is_class = isinstance(maker, type)
    if not callable(maker) or (is_class and not issubclass(maker, gymnasium.Env | TaskVectorEnv)):
        raise ValueError(
            f"env must be a gymnasium.Env or an envs.task_env.TaskVectorEnv, but {name} is {maker!r}: derive it from "
            f"one of them ({GUIDE})"
        )
    return World(name, maker, is_class and issubclass(maker, TaskVectorEnv), False)


def make_batch(world: World, num_envs: int, horizon: int | None, render_mode: str | None) -> TaskVectorEnv:
    """`num_envs` sub-environments; a single one is copied, its observations laid flat. Bytes are scaled to 0..1.

    Args:
        horizon: [steps] of an episode at most; None for the environment's own.
    Raises:
        ValueError: if it cannot be made, has no tasks, or does not say how long an episode may be.
    """
    if not world.is_batch:
        return VectorFromSingle(
            lambda: flattened(world.name, with_tasks(world, make_single(world, horizon, render_mode))),
            num_envs,
            horizon,
            world.name,
        )
    settings = {"horizon": horizon, "render_mode": render_mode}
    env = _made(world, num_envs=num_envs, **{key: value for key, value in settings.items() if value is not None})
    if not isinstance(env, TaskVectorEnv):
        raise ValueError(f"env must be a TaskVectorEnv with sample_tasks and set_tasks, but {world.name} is {env!r}")
    space = env.single_observation_space
    has_bytes = isinstance(space, gymnasium.spaces.Box) and byte_scale(space) is not None
    return ScaledVector(env) if has_bytes else env


def make_single(world: World, horizon: int | None, render_mode: str | None) -> gymnasium.Env:
    """Make one environment as its author wrote it, for those that are not batches.

    Raises:
        ValueError: if it cannot be made.
    """
    settings: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    if world.is_registered:
        settings |= {"max_episode_steps": horizon, "disable_env_checker": True}
    env = _made(world, **settings)
    if not isinstance(env, gymnasium.Env):
        raise ValueError(f"env must be a gymnasium.Env, but {world.name} returned {env!r}: return one ({GUIDE})")
    return with_clipped_actions(env)


def with_clipped_actions(env: gymnasium.Env) -> gymnasium.Env:
    """The environment with the bounds that Gymnasium's `ClipAction` clips to as those of its actions, where it has such
    a wrapper, which states none."""
    layer: gymnasium.Env = env
    while isinstance(layer, gymnasium.Wrapper) and layer.action_space == env.action_space:
        if isinstance(layer, ClipAction):
            return TransformAction(env, _unchanged, layer.env.action_space)
        layer = layer.env
    return env


def _unchanged(action: Any) -> Any:
    return action


def missing_methods(env: gymnasium.Env) -> list[str]:
    """The methods for drawing and setting tasks that neither the environment nor a wrapper of it has."""
    return [name for name in TASK_METHODS if not env.has_wrapper_attr(name)]


def with_tasks(world: World, env: gymnasium.Env) -> gymnasium.Env:
    """The environment; if it is registered and has no tasks, as a family of one task.

    Raises:
        ValueError: naming the methods that are missing.
    """
    missing = missing_methods(env)
    if not missing:
        return env
    if world.is_registered and len(missing) == len(TASK_METHODS):
        return OneTask(env)
    needed = " and ".join(TASK_METHODS[name] for name in missing)
    raise ValueError(f"{world.name} has no {' and no '.join(missing)}: give it {needed} ({GUIDE})")


def flattened(name: str, env: gymnasium.Env) -> gymnasium.Env:
    """The environment with observations in a Box of one axis and of floating-point numbers, as policies need them;
    bytes are scaled from their bounds to 0..1.

    Raises:
        ValueError: if they cannot be laid flat.
    """
    space = env.observation_space
    try:
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            env = FlattenObservation(env)
        scale = byte_scale(space)
        if scale is not None:
            scale = ByteScale(scale.low.ravel(), scale.width.ravel())
            env = TransformObservation(env, scale, scale.of_space(env.observation_space))
        if env.observation_space.dtype is None or env.observation_space.dtype.kind != "f":
            env = DtypeObservation(env, np.float32)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"the observations of {name} must be laid flat, but {space} has no fixed number of entries ({error}): "
            "use Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of them"
        ) from None
    return env


def is_live(name: str) -> bool:
    """Whether this process already has the maker of that name, so that nothing need be imported."""
    return name in _live


def _environments_of(module: ModuleType) -> list[str]:
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and isinstance(value, type)
        and issubclass(value, gymnasium.Env | TaskVectorEnv)
        and value.__module__ == module.__name__
    )


def _is_registered(env_id: str) -> bool:
    try:
        gymnasium.spec(env_id)
    except gymnasium.error.Error:
        return False
    return True


def _registered(name: str, env_id: str) -> World:
    try:
        spec = gymnasium.spec(env_id)
    except gymnasium.error.Error as error:
        one_word = re.fullmatch(r"maml/(\w+)-(?:rllab|gym)-v0", name)
        given = one_word[1] if one_word else name
        if did_you_mean(given):
            raise ValueError(
                f"env must be a registered task environment or module:Class, got {given!r}{did_you_mean(given)}"
            ) from None
        own = [each for each in gymnasium.registry if each.startswith("maml/") and not each.startswith("maml/ML1-")]
        short = sorted({re.sub("^maml/|(-rllab|-gym)?-v0$", "", each) for each in own})
        if near := re.fullmatch(r"\w+", given) and difflib.get_close_matches(given, short, n=1):
            raise ValueError(
                f"env must be a registered task environment, got {given!r}, or module:Class: did you mean {near[0]}?"
            ) from None
        known = [*sorted(own), "maml/ML1-<class>-v0"]
        raise ValueError(
            f"env must be a registered task environment, got {env_id!r} ({error}), or module:Class; known: {known}"
        ) from None
    try:
        is_batch = _makes_batches(spec)
    except Exception as error:
        raise _cannot_be_made(name, {}, error) from error

    def make(**settings: Any) -> Any:
        return (gymnasium.make_vec if is_batch else gymnasium.make)(env_id, **settings)

    return World(name, make, is_batch, True)


def _makes_batches(spec: EnvSpec) -> bool:
    """Whether it is registered with a `TaskVectorEnv`, or with a function that may make one."""
    entry = spec.vector_entry_point
    maker = load_env_creator(entry) if isinstance(entry, str) else entry
    return maker is not None and (not isinstance(maker, type) or issubclass(maker, TaskVectorEnv))


def _made(world: World, **settings: Any) -> Any:
    try:
        return world.make(**settings)
    except Exception as error:
        if world.is_registered and isinstance(error, ValueError):
            raise  # the environment refuses a setting, and says why
        if isinstance(error, TypeError) and not _takes(world, settings):
            raise ValueError(
                f"{world.name} must be made by its name({_listed(settings)}), but that fails with {located(error)}: "
                f"let its __init__ take these, and give all else defaults ({GUIDE})"
            ) from error
        raise _cannot_be_made(world.name, settings, error) from error


def _takes(world: World, settings: dict[str, Any]) -> bool:
    """Whether the class or function takes these settings; False for registered ids, where nobody can tell."""
    if world.is_registered:
        return False
    try:
        inspect.signature(world.make).bind(**settings)
    except (TypeError, ValueError):
        return False
    return True


def _cannot_be_made(name: str, settings: dict[str, Any], error: Exception) -> ValueError:
    """Why an environment could not be made, with the remedy that fits the cause."""
    if isinstance(error, gymnasium.error.DependencyNotInstalled):
        return ValueError(str(error))  # which says how to install it
    package = missing_package(error)
    if package is not None:
        return ValueError(f"{name} {': '.join(package)}")
    return ValueError(
        f"{name}({_listed(settings)}) raised {located(error)}: correct what raises it, then look with "
        f"maml-rl check-env {name}"
    )


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in settings.items())
