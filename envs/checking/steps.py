"""Properties of the observations, rewards and ends that reset and step return."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

from .candidate import SEED, Batch, Candidate, play
from .comparison import short
from .finding import Finding, error_of, warning_of

LARGEST = float(np.finfo(np.float32).max)  # of a number that training keeps
UNIT_SIZE = (0.01, 100.0)  # the largest entry of all observations: beyond these a network hardly learns


def steps_return_what_they_must(candidate: Candidate) -> Iterator[Finding]:
    """Observations lie in their space, rewards are finite numbers, ends are booleans."""
    subject = candidate.subject()
    space = subject.observation_space
    subject.set_task(subject.sample_tasks(1, np.random.default_rng(0))[0])

    def begun(seed: int) -> Iterator[Finding]:
        result = subject.reset(seed)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
            remedy = "return the observation and a dict, which may be empty"
            yield error_of(steps_return_what_they_must, f"reset returned {short(result)}", remedy)
        else:
            yield from _outside(space, result[0], "the observation of reset")

    findings = list(begun(SEED))
    for number, action in enumerate(candidate.actions(subject)):
        if findings:
            break  # every further step would say the same
        result = subject.step(action)
        if not isinstance(result, tuple) or len(result) != 5:
            remedy = "return observation, reward, terminated, truncated and a dict"
            findings.append(error_of(steps_return_what_they_must, f"step {number} returned {short(result)}", remedy))
            break
        observation, reward, terminated, truncated, _ = result
        findings += _outside(space, observation, f"the observation of step {number}")
        findings += _no_number(reward, subject.rows, number)
        for name, value in (("terminated", terminated), ("truncated", truncated)):
            if np.shape(value) != subject.rows or np.asarray(value).dtype != bool:
                what = f"{name} of step {number} is {short(value)}"
                findings.append(error_of(steps_return_what_they_must, what, "let it be True or False"))
        if not findings and (np.any(terminated) or np.any(truncated) or subject.is_at_limit):
            findings += begun(SEED + number + 1)
    yield from findings


def _no_number(reward: Any, rows: tuple[int, ...], number: int) -> Iterator[Finding]:
    kind = np.asarray(reward).dtype.kind
    if np.shape(reward) != rows or kind not in "biuf":
        wanted = "one number per sub-environment" if rows else "one number: float(...) makes one of an array"
        yield error_of(steps_return_what_they_must, f"the reward of step {number} is {reward!r}", f"return {wanted}")
    elif not np.isfinite(reward).all():
        remedy = "look for a division by zero, or a state that leaves all bounds"
        yield error_of(steps_return_what_they_must, f"the reward of step {number} is {short(reward)}", remedy)
    elif np.abs(reward).max() > LARGEST:
        what = f"the reward of step {number} is {short(reward)}, beyond {LARGEST:.2g}, the largest number in 32 bits"
        yield error_of(steps_return_what_they_must, what, "scale it to about 1")


def _outside(space: gymnasium.Space, value: Any, name: str) -> Iterator[Finding]:
    """Why `value` is not in `space`, entry by entry."""

    def wrong(what: str, remedy: str) -> Finding:
        return error_of(steps_return_what_they_must, f"{name} {what}", remedy)

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
        yield warning_of(
            observations_are_of_unit_size,
            f"the largest number in {len(played.observations)} observations is {size:.2g}, far from 1, and hardly "
            "anything is learned from such numbers",
            "divide them by their size in the environment, or train with --observations normalised",
        )
