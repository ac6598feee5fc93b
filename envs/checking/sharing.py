"""State that copies of an environment share: whether one copy changes the episodes of another, and where it is kept.

Many episodes are played side by side, each in a copy of the environment, on several threads. They are independent only
if a copy keeps its task and its state to itself.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Any

import gymnasium
import numpy as np

from ..task_env import Task
from .candidate import SEED, Batch, Candidate, Single, is_over, layers
from .comparison import is_same

MAX_BYTES = 2**20  # of one pickled value; larger ones are data sets and models, which take long to compare
_STATELESS = (FunctionType, ModuleType, type, staticmethod, classmethod, property, gymnasium.Space)


def disturbing_method(candidate: Candidate, tasks: Sequence[Task]) -> str | None:
    """The first of `__init__`, `set_task`, `reset` and `step` by which one copy changes an episode of another.

    Args:
        tasks: of the copy that is watched, and of the one that disturbs it.
    Returns:
        None if there is none, or if episodes do not repeat even where a copy is alone.
    """
    watched, other = candidate.subject(), candidate.subject()
    actions = candidate.actions(watched)

    def begin(moment: int) -> None:
        other.set_task(tasks[1])
        other.reset(SEED + 1)

    def step(moment: int) -> None:
        if moment == 0 or is_over(other, other.step(copy.deepcopy(actions[-moment]))):
            begin(moment)

    def early(deed: Callable[[], Any]) -> Callable[[int], None]:
        """`deed` before and right after the watched copy's reset; at every step it would be slow if resets are."""
        return lambda moment: deed() if moment < 2 else None

    deeds: dict[str, Callable[[int], None]] = {
        "__init__": early(candidate.subject),
        "set_task": early(lambda: other.set_task(tasks[1])),
        "reset": early(lambda: begin(0)),
        "step": step,
    }
    alone, again = (_episode(watched, tasks[0], actions, lambda moment: None) for _ in range(2))
    if not is_same(alone, again):
        return None
    return next(
        (name for name, deed in deeds.items() if not is_same(alone, _episode(watched, tasks[0], actions, deed))), None
    )


def places_of_the_last_episode(candidate: Candidate, tasks: Sequence[Task]) -> list[str]:
    """Names of the shared places whose content depends on the last episode alone.

    Playing an episode a second time, after another one, leaves the same content there. A count or a cache, which goes
    on from episode to episode, is not among them.
    """
    subject, other = candidate.subject(), candidate.subject()
    actions = candidate.actions(subject)

    def played(row: int) -> dict[str, bytes]:
        subject.set_task(tasks[row])
        subject.reset(SEED + row)
        for action in actions[: 2 + row]:  # other tasks, seeds and lengths: whichever is stored will differ
            if is_over(subject, subject.step(copy.deepcopy(action))):
                break
        return _fingerprints(subject.env, other.env)

    first, second, again = played(0), played(1), played(0)
    return [name for name in first if first[name] == again.get(name) != second.get(name)]


def _episode(
    subject: Single | Batch, task: Task, actions: Sequence[Any], meanwhile: Callable[[int], None]
) -> list[Any]:
    """All that one episode returns, while something else goes on before its reset and before each of its steps."""
    subject.set_task(task)
    meanwhile(0)
    returned = [copy.deepcopy(subject.reset(SEED)[0])]
    for moment, action in enumerate(actions, start=1):
        meanwhile(moment)
        result = subject.step(copy.deepcopy(action))
        returned.append(copy.deepcopy(result[:4]))
        if is_over(subject, result):
            break
    return returned


# --- where state is shared ---------------------------------------------------------------------------------------


def _fingerprints(one: Any, other: Any) -> dict[str, bytes]:
    """Fingerprints of the values that both copies see, by name; values that cannot be compared are left out."""
    prints = {name: _fingerprint(value) for name, value in _shared_values(one, other)}
    return {name: value for name, value in prints.items() if value is not None}


def _shared_values(one: Any, other: Any) -> Iterator[tuple[str, Any]]:
    yield "the global generator of numpy.random", np.random.get_state()
    yield "the global generator of random", random.getstate()
    for mine, theirs in zip(layers(one), layers(other), strict=False):
        for name, value in vars(mine).items():
            if vars(theirs).get(name) is value and not isinstance(value, _STATELESS):
                yield f"self.{name} of {type(mine).__name__}, one object in all copies", value
    for module in _modules_of(one):
        for name, value in list(vars(module).items()):
            if isinstance(value, type):
                yield from _class_values(value)
            elif not name.startswith("__") and not isinstance(value, _STATELESS):
                yield f"the global {name} of {module.__name__}", value
    for layer in layers(one):
        for each in type(layer).__mro__:
            if _may_hold_state(each.__module__):
                yield from _class_values(each)  # also of a class made in a function


def _class_values(owner: type) -> Iterator[tuple[str, Any]]:
    for name, value in list(vars(owner).items()):
        if isinstance(value, FunctionType):
            for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
                if variable != "__class__":
                    yield f"the variable {variable} around {owner.__name__}.{name}", _content(cell)
        elif not name.startswith("__") and not isinstance(value, _STATELESS):
            yield f"the class attribute {owner.__name__}.{name}", value


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _modules_of(env: Any) -> list[ModuleType]:
    """The modules of an environment's classes, and those that they name and that are no installed packages."""
    names = [each.__module__ for layer in layers(env) for each in type(layer).__mro__]
    found: dict[str, ModuleType] = {}
    while names:
        name = names.pop()
        if name in found or name not in sys.modules or not _may_hold_state(name):
            continue
        found[name] = sys.modules[name]
        for value in list(vars(found[name]).values()):
            origin = value.__name__ if isinstance(value, ModuleType) else _origin(value)
            file = getattr(sys.modules.get(origin), "__file__", None)
            if file is not None and "site-packages" not in file:
                names.append(origin)
    return list(found.values())


def _origin(value: Any) -> str:
    return str(value.__module__) if isinstance(value, type | FunctionType) else ""


def _may_hold_state(module_name: str) -> bool:
    package = module_name.partition(".")[0]
    return package not in sys.stdlib_module_names and package not in ("gymnasium", "numpy")


class _Digest:
    """A file for a pickler, of which only a hash is kept."""

    def __init__(self) -> None:
        self.hash, self.size = hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self.size += memoryview(data).nbytes
        if self.size > MAX_BYTES:
            raise OverflowError("too large to compare")
        self.hash.update(data)
        return memoryview(data).nbytes


def _fingerprint(value: Any) -> bytes | None:
    digest = _Digest()
    try:
        pickle.Pickler(digest, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception:  # whatever a value's own __reduce__ raises
        return None
    return digest.hash.digest()
