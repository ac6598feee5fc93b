"""Properties by which an episode can be repeated: seeds, tasks that stay, copies that share nothing."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .candidate import SEED, Candidate, is_over, layers, play
from .comparison import first_difference, is_same, is_same_task, pickled_task, short
from .finding import Finding, error_of
from .sharing import disturbing_method, places_of_the_last_episode


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
            what = f"two episodes {whose} have equal seed, task and actions, but {difference}"
            wrapper = candidate.wrapper_with_memory(task)
            yield (
                _memory(wrapper, what)
                if wrapper
                else error_of(
                    a_seed_decides_everything,
                    what,
                    "call super().reset(seed=seed), draw from self.np_random alone, and set all state anew in reset",
                )
            )
            return


def _memory(wrapper: str, what: str) -> Finding:
    instead = " and train with --observations normalised" if wrapper == "NormalizeObservation" else ""
    return error_of(
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
            yield error_of(
                global_generators_stay,
                f"the global generator of {name} is drawn from, or seeded",
                "draw from rng in sample_tasks and from self.np_random in reset and step",
            )


def tasks_stay_as_drawn(candidate: Candidate) -> Iterator[Finding]:
    """A task that was drawn is not changed by a later draw, nor by the copies that play it."""
    subject, other = candidate.subject(), candidate.subject()
    tasks = subject.sample_tasks(3, np.random.default_rng(0))
    before = [pickled_task(task) for task in tasks]

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
            if pickled is None or pickled == pickled_task(task):
                continue
            drawn = pickle.loads(pickled).fn
            if not is_same_task(drawn, task):
                yield error_of(
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
        yield error_of(
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
        yield error_of(copies_share_nothing, f"{method} of one copy changes the episodes of others, {through}", remedy)
    elif places:
        yield error_of(copies_share_nothing, f"all copies share the task or state that stands in {shared}", remedy)
