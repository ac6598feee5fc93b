"""Equality of observations, tasks and whole episodes, and the first difference in words."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper

from ..task_env import Task


class Played(NamedTuple):
    """A few episodes of one task, step by step."""

    observations: list[Any]  # copies, made at once; of resets and steps
    held: list[Any]  # the same, as they were returned
    rewards: list[Any]
    ends: list[Any]  # (terminated, truncated)


def is_same(one: Any, other: Any) -> bool:
    """Whether two nests of numbers are equal, nan included; dataclasses by their fields."""
    if dataclasses.is_dataclass(one) and type(one) is type(other):
        return all(is_same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    try:
        np.testing.assert_equal(one, other)
    except AssertionError:
        return False
    return True


def is_same_task(one: Task, other: Task) -> bool:
    return is_same(one, other) or (pickled_task(one) is not None and pickled_task(one) == pickled_task(other))


def pickled_task(task: Task) -> bytes | None:
    """The task as it is sent to workers; None if it cannot be pickled."""
    try:
        return pickle.dumps(CloudpickleWrapper(task))
    except Exception:
        return None


def first_difference(one: Played, other: Played) -> str | None:
    """The first difference in words; None if there is none."""
    for name in ("observations", "rewards", "ends"):
        for number, (a, b) in enumerate(zip(getattr(one, name), getattr(other, name), strict=False)):
            if not is_same(a, b):
                return f"{name[:-1]} {number} differs between two runs: {short(a)} and {short(b)}"
    return None


def short(value: Any) -> str:
    """A value in words that fit into a sentence."""
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
