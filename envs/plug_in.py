"""From a name to an environment: a user's `module:Class`, or a registered Gymnasium id."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.wrappers import ClipAction, DtypeObservation, FlattenObservation, TransformAction, TransformObservation

from .adapters import ByteScale, ScaledVector, VectorFromSingle, byte_scale
from .task_env import TaskVectorEnv

GUIDE = "docs/custom_environments.md"
TASK_METHODS = {
    "sample_tasks": "sample_tasks(self, num_tasks, rng), which returns a list of num_tasks tasks drawn with rng",
    "set_task": "set_task(self, task), which makes task the one to be solved from the next reset on",
}
_CALLS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {  # parameters, and a call as it is made
    "sample_tasks": ("self, num_tasks, rng", (1, None), {}),
    "sample_test_tasks": ("self, num_tasks, rng", (1, None), {}),
    "set_task": ("self, task", (None,), {}),
    "set_tasks": ("self, tasks", (None,), {}),
    "reset": ("self, *, seed=None, options=None", (), {"seed": 0}),
    "step": ("self, action", (None,), {}),
}
_DISTRIBUTIONS = {  # packages that pip knows under another name
    "Box2D": '"gymnasium[box2d]"',
    "PIL": "pillow",
    "ale_py": "ale-py",
    "cv2": "opencv-python",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
_MACHINERY = {"adapters.py", "candidate.py", "check.py", "plug_in.py", "sharing.py", "task_env.py"}  # is not to blame


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
        raise ValueError(f"env must be an id or module:Class, got {name!r}{_did_you_mean(name)}")
    if "/" in module_name or module_name.endswith(".py"):
        raise ValueError(f"env must name a module, as import does, not a file, got {name!r}{_did_you_mean(name)}")
    _require_own(module_name)
    module = _imported(module_name)
    maker = getattr(module, attribute, None)
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
    if not isinstance(maker, type) and _package(_home(maker)) != _package(module_name):
        raise ValueError(
            f"env must name a function that {module_name} defines, but {name} is {maker!r} of {_home(maker)}: define "
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


def wrong_definitions(env: Any) -> Iterator[tuple[str, str]]:
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


def missing_package(error: BaseException | None) -> tuple[str, str] | None:
    """The package that is not installed, and how to get it; None if that is not what raised the error."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            package = error.name.partition(".")[0]
            if importlib.util.find_spec(package) is None:
                remedy = f"pip install {_DISTRIBUTIONS.get(package, package)}"
                if _is_users(_last_file(error)):
                    remedy += f", or put the folder of {package} on PYTHONPATH if it is a module of your own"
                return f"needs the package {package}, which is not installed", remedy
        error = error.__cause__ or error.__context__
    return None


def located(error: BaseException) -> str:
    """An exception in one line: its type, its words, and the last line of the user's own files that it passed."""
    own = _users_frames(error)
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{words} ({os.path.basename(own[-1].filename)}, line {own[-1].lineno})" if own else words


def raising_function(error: BaseException) -> str | None:
    """The first of the user's own functions that an exception passed."""
    return next((frame.name for frame in _users_frames(error) if frame.name.isidentifier()), None)


def _users_frames(error: BaseException) -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]


def _last_file(error: BaseException) -> str:
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return next((file for file in reversed(files) if not file.startswith("<")), "<")


def _is_users(file: str) -> bool:
    """Whether a file belongs neither to a package, nor to Python, nor to the code here that runs environments."""
    if "site-packages" in file or file.startswith((sysconfig.get_path("stdlib"), "<")):
        return False
    return os.path.dirname(file) != os.path.dirname(__file__) or os.path.basename(file) not in _MACHINERY


def module_file(module_name: str, outside: Path) -> str | None:
    """The file that holds a module, found without importing anything; None if it cannot be found.

    Args:
        outside: a folder from which no module is imported, neither this one nor, from now on, any other.
    Raises:
        ValueError: if the module lies in that folder, or belongs to Python.
    """
    _require_own(module_name)
    closed = outside.resolve()
    sys.path[:] = [entry for entry in sys.path if not Path(entry).resolve().is_relative_to(closed)]
    if not Path.cwd().is_relative_to(closed):
        _search_here(module_name)
    specs = _specs(module_name)
    if any(Path(place).resolve().is_relative_to(closed) for spec in specs for place in _places(spec)):
        raise ValueError(
            f"env must name a module outside of the run's folder, but {module_name!r} lies in {outside}: put it "
            "elsewhere, after reading it"
        )
    if len(specs) > module_name.count("."):
        return next(iter(_places(specs[-1])), specs[-1].origin)
    return getattr(sys.modules.get(module_name), "__file__", None)


def is_live(name: str) -> bool:
    """Whether this process already has the maker of that name, so that nothing need be imported."""
    return name in _live


def _require_own(module_name: str) -> None:
    """Refuse Python's own modules, whose functions may do anything and return no environment."""
    if _package(module_name) in sys.stdlib_module_names:
        raise ValueError(
            f"env must name a module of yours, but {module_name!r} belongs to Python: rename yours if it is called that"
        )


def no_such_module(module_name: str) -> ValueError:
    return ValueError(
        f"env must name a module that can be found, but {module_name!r} is neither on sys.path nor in {os.getcwd()}: "
        "go to the folder that holds it, or put that folder on PYTHONPATH"
    )


def _search_here(module_name: str) -> None:
    """Let imports search the current directory, too, if a module is not found without it."""
    importlib.invalidate_caches()
    here = os.getcwd()
    if here not in sys.path and len(_specs(module_name)) <= module_name.count("."):
        sys.path.append(here)  # a script's own folder is there, the user's is not
    own = sys.modules[__package__]
    theirs = os.path.join(here, "envs")
    if module_name.startswith("envs.") and os.path.isdir(theirs) and theirs not in own.__path__:
        own.__path__.append(theirs)  # a user's own folder called envs/, beside this project's package


def _specs(module_name: str) -> list[ModuleSpec]:
    """The import specs of a module's packages and then the module, as far as they are found without running any."""
    specs: list[ModuleSpec] = []
    for part in module_name.split("."):
        try:
            if specs:  # by the last part alone: to be asked for the whole name, a finder imports the packages
                spec = PathFinder.find_spec(part, specs[-1].submodule_search_locations or [])
            else:
                spec = importlib.util.find_spec(part)
        except (ImportError, ValueError):  # an empty name, or a module that was imported from nowhere
            spec = None
        if spec is None:
            break
        specs.append(spec)
    return specs


def _places(spec: ModuleSpec) -> list[str]:
    """A module's file, if it has one, and the folders of a package."""
    return [*([spec.origin] if spec.origin and spec.has_location else []), *(spec.submodule_search_locations or [])]


def _package(module_name: str) -> str:
    return module_name.partition(".")[0]


def _home(maker: Callable[..., Any]) -> str:
    """The module in which a function was defined."""
    while isinstance(maker, functools.partial):
        maker = maker.func
    return str(getattr(maker, "__module__", None))


def _imported(module_name: str) -> ModuleType:
    _search_here(module_name)
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            raise no_such_module(module_name) from None
        package = missing_package(error)
        if package is not None:
            raise ValueError(f"env module {module_name!r} {': '.join(package)}") from error
        raise ValueError(
            f"env must name a module that can be imported, but {module_name!r} fails with {located(error)}: correct it "
            f"until python -c 'import {module_name}' passes"
        ) from error


def _did_you_mean(name: str) -> str:
    """The end of a message about a name that is almost module:Class; no module is imported for it."""
    guesses = _guesses(name)
    return f": did you mean {' or '.join(guesses)}?" if guesses else ""


def _guesses(name: str) -> list[str]:
    """`module:Class` for a module or its file, with a class behind a colon or a dot, or else all classes in it."""
    path, _, attribute = name.partition(":")
    place = os.path.relpath(path) if path.startswith("/") else os.path.normpath(path)
    if place.startswith("..") and os.path.isfile(path):
        folder, file = os.path.split(os.path.abspath(path))
        classes = [attribute] if attribute else _classes_in(Path(path))
        return [f"{file.removesuffix('.py')}:{each}, given in the folder {folder}" for each in classes]
    module = place.removesuffix(".py").replace("/", ".")
    if not attribute and not _source_of(module):
        module, _, attribute = module.rpartition(".")
    source = _source_of(module)
    if source is None:
        return []
    is_own = source.is_relative_to(os.getcwd())  # else a word like random would get the library's classes
    return [f"{module}:{each}" for each in ([attribute] if attribute else _classes_in(source) if is_own else [])]


def _source_of(module_name: str) -> Path | None:
    """The file that an import would run, found without running any."""
    if not all(part.isidentifier() for part in module_name.split(".")):
        return None
    place = Path(*module_name.split("."))
    files = (
        Path(folder, file) for folder in (os.getcwd(), *sys.path) for file in (f"{place}.py", place / "__init__.py")
    )
    return next((file for file in files if file.is_file()), None)


def _classes_in(source: Path) -> list[str]:
    """Names of a file's classes that are derived from others, as environments are."""
    try:
        tree = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.bases and node.name[0] != "_"]


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
        if _did_you_mean(given):
            raise ValueError(
                f"env must be a registered task environment or module:Class, got {given!r}{_did_you_mean(given)}"
            ) from None
        own = [each for each in gymnasium.registry if each.startswith("maml/") and not each.startswith("maml/ML1-")]
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
        f"scripts/check_env.py {name}"
    )


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in settings.items())
