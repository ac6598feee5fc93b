"""Where sampling runs shows in no bit: not in trajectories, not in what is learned from them."""

import dataclasses

import numpy as np
import pytest
import torch
from players import assert_bit_equal

from maml_rl.core.keys import INITIALISATION, TASKS, TRAINING, Key
from maml_rl.core.trees import stack, take_task
from maml_rl.experiments.build import build
from maml_rl.experiments.presets import default_config
from maml_rl.sampling.local import SamplingConfig
from maml_rl.sampling.trajectory import BY_EPISODE, SamplingError, blank_trajectory
from maml_rl.sampling.work import Lost, Played, WorkSampler, arrays_of_task, shared_arrays

NUM_TASKS = 5


def three_iterations(env, mean_actions=False, **where):
    """The learner's state after three iterations, and a trajectory of the policy it has then."""
    config = default_config(env, "maml")
    sampling = SamplingConfig(episodes_per_task=3, horizon=12, **where)
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, sampling=sampling))
    built = build(config, mean_actions=mean_actions)
    try:
        learner, family = built.learner, built.family
        collector = built.evaluation.judge if mean_actions else family.collector
        state = learner.init(Key(1, INITIALISATION, 0))
        for iteration in range(3):
            key = Key(1, TRAINING, iteration)
            tasks = family.source.sample_tasks(NUM_TASKS, key.rng(TASKS))
            state, _ = learner.meta_step(state, tasks, key)
        key = Key(1, TRAINING, 3)
        actor = learner.actor(state, learner.begin(state, NUM_TASKS, key), key)
        return state, collector.collect(tasks, actor, key)
    finally:
        built.close()


@pytest.fixture(scope="module", params=["maml/HalfCheetahVel-gym-v0", "maml/Navigation2D-v0"])
def local(request):
    return request.param, three_iterations(request.param)


@pytest.mark.parametrize("where", ["processes 1", "processes 2", "processes 5", "ray"])
def test_three_iterations_are_bit_equal_wherever_they_are_sampled(local, where, request):
    env, (state, trajectory) = local
    sampler, _, num_workers = where.partition(" ")
    if sampler == "ray":
        request.getfixturevalue("cluster")
    found, sampled = three_iterations(env, sampler=sampler, num_workers=int(num_workers) if num_workers else None)
    assert trajectory.mask.sum() > 0
    assert_bit_equal(found, state)
    assert_bit_equal(sampled, trajectory)


def test_a_judge_samples_in_workers_too():
    env = "test/Reach-v0"  # which workers have not registered, and which reports success
    local = three_iterations(env, mean_actions=True)[1]
    sampled = three_iterations(env, mean_actions=True, sampler="processes", num_workers=1)[1]
    assert_bit_equal(sampled, local)


def test_shared_parameters_travel_once():
    params = {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(1)}
    arrays = shared_arrays(stack(params, 4))
    assert {name: array.shape for name, array in arrays.items()} == {"w": (1, 2, 3), "b": (1, 1)}
    own = shared_arrays({name: p * torch.arange(4.0).view(4, *[1] * p.dim()) for name, p in params.items()})
    for index in range(4):
        for name, p in params.items():
            np.testing.assert_array_equal(arrays_of_task(arrays, index)[name], p)
            np.testing.assert_array_equal(arrays_of_task(own, index)[name], p * index)


class Whimsical:
    """A crew with room for two that loses work when it is told to, and answers the last first."""

    def __init__(self, recipe, lose):
        self.recipe, self._lose = recipe, lose
        self.given, self.under_way, self.abandoned = [], [], False

    def begin(self, params):
        self.params = params

    def has_room(self):
        return len(self.under_way) < 2

    def submit(self, work):
        assert self.has_room()
        self.given.append(work.task_index)
        self.under_way.append(work)

    def outcomes(self):
        work = self.under_way.pop()
        if self._lose(work.task_index, self.given.count(work.task_index)):
            return [(work.task_index, Lost("the wind took it"))]
        blank = take_task(blank_trajectory(1, self.recipe.shape), 0)
        arrays = tuple(np.full_like(getattr(blank, name), work.task_index) for name in BY_EPISODE)
        return [(work.task_index, Played(arrays, {"seen": np.array([work.task_index])}, 0.5))]

    def abandon(self):
        self.abandoned = True


def sampled_by(crew, troubles, count):
    sampler = WorkSampler(crew, crew.recipe)
    return sampler, sampler.sample(troubles.tasks(count), troubles.actor(count), troubles.key)


def test_results_stand_in_the_order_of_the_tasks_and_what_is_lost_is_given_out_again(troubles):
    crew = Whimsical(troubles.recipe(), lose=lambda index, times: index in (1, 4) and times < 3)
    sampler, trajectory = sampled_by(crew, troubles, 6)
    assert trajectory.rewards[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert trajectory.memory["seen"].tolist() == [[0], [1], [2], [3], [4], [5]]
    assert [crew.given.count(i) for i in range(6)] == [1, 3, 1, 1, 3, 1]
    assert sampler.worker_seconds == 6 * 0.5 and not crew.abandoned


def test_what_is_lost_three_times_is_given_up_and_the_rest_abandoned(troubles):
    crew = Whimsical(troubles.recipe(), lose=lambda index, times: index == 1)
    with pytest.raises(SamplingError, match=r"task 1 .* given up after 3 attempts, in the last the wind took it"):
        sampled_by(crew, troubles, 3)
    assert crew.abandoned and crew.given.count(1) == 3
