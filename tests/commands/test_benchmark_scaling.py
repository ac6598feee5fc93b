"""Environments that only take time take the time that they should, and a part of a crew is no more than that."""

import time

import numpy as np
import pytest

from maml_rl.commands.benchmark_scaling import BusyEnv, PartOfCrew, sleeping, turns_lasting
from maml_rl.core.keys import TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.sampling.local import LocalSampler


def seconds_of_ten_busy_steps():
    """By the thread's own clock, which other programs do not touch."""
    env = BusyEnv(4, turns_lasting(0.002))
    begun = time.thread_time()
    for _ in range(10):
        env.step(np.zeros((4, 4)))
    return time.thread_time() - begun


def test_a_busy_step_lasts_as_long_as_it_should():
    # The machine's speed may change between the counting of turns and the steps, but not each time.
    expected = pytest.approx(10 * 4 * 0.002, rel=0.5)
    assert any(seconds_of_ten_busy_steps() == expected for _ in range(5))


def test_a_task_sleeps_once_and_is_over():
    load = sleeping(0.05, 3, 20, (4,))
    sampler = LocalSampler(load.recipe, Threads(1))
    begun = time.perf_counter()
    trajectory = sampler.sample([None], load.actor(1), Key(0, TRAINING, 0))
    assert time.perf_counter() - begun >= 0.05
    assert trajectory.mask.sum(dim=-1).tolist() == [[1.0] * 3] and trajectory.mask.shape == (1, 3, 20)


def test_a_part_of_a_crew_has_no_more_room_than_its_share():
    class Endless:
        def has_room(self):
            return True

        def submit(self, work):
            pass

        def outcomes(self):
            return [(0, None)]

    part = PartOfCrew(Endless(), 2)
    for has_room in (True, True, False):
        assert part.has_room() == has_room
        part.submit(None)
    part.outcomes()
    assert not part.has_room()
    part.outcomes()
    assert part.has_room()
