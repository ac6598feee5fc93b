"""A small policy that learns in a registered environment, as a family of tasks and a learner."""

import dataclasses
from typing import NamedTuple

import gymnasium
import torch
from players import gaussian, recipe_for

from maml_rl.core.contracts import TaskFamily
from maml_rl.core.inner import InnerConfig
from maml_rl.core.lift import Threads
from maml_rl.core.outer.choice import GradientOuter
from maml_rl.learners.maml import MAML
from maml_rl.policies.distribution import MeanActions
from maml_rl.rl.experience import EpisodeSampler, Return
from maml_rl.rl.model import AdvantageConfig, PolicyModel
from maml_rl.sampling.local import LocalSampler


class Small(NamedTuple):
    family: TaskFamily
    judge: EpisodeSampler  # the same by mean actions
    learner: MAML


def make_small(
    env_id: str,
    threads: Threads,
    num_episodes: int = 3,
    horizon: int = 10,
    inner: InnerConfig = InnerConfig(),  # noqa: B008 - frozen
    in_a_row: bool = False,
) -> Small:
    def make_env(num_envs: int) -> gymnasium.vector.VectorEnv:
        return gymnasium.make_vec(env_id, num_envs=num_envs, horizon=horizon)

    env = make_env(1)
    policy = gaussian(env.single_observation_space.shape[0], env.single_action_space.shape[0])
    own = recipe_for(make_env, policy, num_episodes, horizon, env.reports_success, in_a_row=in_a_row)
    by_mean = dataclasses.replace(own, actions=MeanActions(policy.spec.distribution))
    collector, judge = (EpisodeSampler(LocalSampler(recipe, threads), recipe) for recipe in (own, by_mean))
    model = PolicyModel(policy, AdvantageConfig(), "ratio", threads, torch.device("cpu"))
    learner = MAML(model, collector, Return(), inner, GradientOuter().make(), threads)
    return Small(TaskFamily(env, collector, Return()), judge, learner)
