"""Turn an environment's exception into a SamplingError with task, seeds and traceback."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

from maml_rl.core.keys import Key
from maml_rl.sampling.trajectory import SamplingError


def said(error: BaseException) -> str:
    """An exception in one line."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def named(tasks: Sequence[Any], first_task: int, key: Key) -> str:
    """Consecutive tasks for a message, with all that it takes to play them again."""
    if len(tasks) > 1:
        return f"tasks {first_task} to {first_task + len(tasks) - 1} under {key}"
    text = repr(tasks[0])
    return f"task {first_task} ({text if len(text) <= 200 else f'{text[:200]}...'}) under {key}"


def as_sampling_error(
    error: BaseException, tasks: Sequence[Any], first_task: int, key: Key, reset_seeds: Sequence[int], where: str
) -> SamplingError:
    """Turn an environment's exception into a SamplingError with task, seeds and traceback. Call it while the exception
    is handled.

    Args:
        reset_seeds: of all episodes, task-major.
        where: the tasks were played, such as "in a worker".
    Returns:
        The error itself, if it says where it happened; whatever an environment is to blame for has a note with the
        tasks, the seeds of their episodes and the traceback.
    """
    if isinstance(error, SamplingError) and error.__cause__ is None:
        return error  # found by the sampler, not raised by the environment
    num_episodes = len(reset_seeds) // len(tasks)
    if isinstance(error, SamplingError) and error.task is not None:
        row = error.task - first_task
        tasks, first_task = tasks[row : row + 1], error.task
        reset_seeds = reset_seeds[row * num_episodes : (row + 1) * num_episodes]
        told = error
    else:
        only = first_task if len(tasks) == 1 else None
        told = SamplingError(f"{named(tasks, first_task, key)}: {said(error)}", only, None)
    told.add_note(
        f"{where}, {named(tasks, first_task, key)}; episodes were reset with the seeds {list(reset_seeds)}:\n"
        f"{traceback.format_exc()}"
    )
    return told
