"""From a config to everything a trainer needs: the one place that knows all names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch

import envs  # noqa: F401 - registers its ids
from envs.mujoco_batch import MujocoTaskVectorEnv as MujocoTaskVectorEnv  # for benchmarks, which may not import envs
from envs.oracle import Oracle
from envs.task_env import TaskVectorEnv
from maml_rl.config import SINUSOID, RunConfig
from maml_rl.core.lift import Threads
from maml_rl.core.maml import MAML, params_of
from maml_rl.core.protocols import Learner, State, TaskFamily
from maml_rl.evaluation.adaptation_curve import adaptation_curve
from maml_rl.policies import CategoricalPolicy, GaussianPolicy, Policy
from maml_rl.rl.family import RLFamily
from maml_rl.sampling.local import LocalSampler
from maml_rl.supervised.sinusoid import SinusoidFamily


@dataclass(frozen=True)
class Built:
    """A learner with its tasks, ready to be trained."""

    learner: Learner
    family: TaskFamily
    evaluate: Callable[[State, int], dict[str, float]]  # (state, iteration) -> columns for the log
    threads: Threads
    device: torch.device
    closers: Sequence[Callable[[], None]]

    @property
    def headline(self) -> tuple[str, ...]:
        metric = self.family.metric
        return (f"{metric}_before", f"{metric}_after", "kl", "steps_per_s")

    def close(self) -> None:
        for close in self.closers:
            close()


def build(config: RunConfig) -> Built:
    """Make the family, its sampler and the learner.

    Raises:
        ValueError: if the environment is unknown or the settings do not fit it.
    """
    device = find_device(config.device)
    threads = Threads(config.sampling.num_threads)
    if config.env == SINUSOID:
        family, closers = _sinusoid(config, device)
    else:
        family, closers = _reinforcement(config, device, threads)
    learner = MAML(family, config.inner, config.outer, threads)

    def evaluate(state: State, iteration: int) -> dict[str, float]:
        curve = adaptation_curve(family, params_of(state), config.evaluation, iteration, threads)
        means = {f"eval_{curve.metric}_{step}": mean for step, mean in enumerate(curve.mean)}
        return means | {f"eval_{curve.metric}_{step}_ci95": half for step, half in enumerate(curve.ci95)}

    return Built(learner, family, evaluate, threads, device, [threads.close, *closers])


def find_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: if torch cannot use it.
    """
    device = torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(
            f"device {name} must be a GPU that torch can use, but torch {torch.__version__} finds {count}: "
            "take --device cpu, or install the torch wheel that fits your CUDA"
        )
    return device


def _sinusoid(config: RunConfig, device: torch.device) -> tuple[TaskFamily, list[Callable[[], None]]]:
    return SinusoidFamily(config.sinusoid, device), []


def _reinforcement(
    config: RunConfig, device: torch.device, threads: Threads
) -> tuple[TaskFamily, list[Callable[[], None]]]:
    def make_env(num_envs: int) -> TaskVectorEnv:
        env = make_vector_env(config.env_id, config.sampling.horizon, num_envs)
        return Oracle(env) if config.oracle else env

    probe = make_env(1)
    policy = make_policy(probe, config)
    sampler = LocalSampler(make_env, policy, config.sampling.episodes_per_task, probe.horizon, threads)
    family = RLFamily(probe.sample_tasks, sampler, policy, config.advantage, config.inner.estimator, threads, device)
    return family, [sampler.close, probe.close]


def make_vector_env(env_id: str, horizon: int | None, num_envs: int) -> TaskVectorEnv:
    """`num_envs` sub-environments of a registered task environment.

    Raises:
        ValueError: if there is none of that name, or it has no tasks.
    """
    settings: dict[str, Any] = {} if horizon is None else {"horizon": horizon}
    try:
        env = gymnasium.make_vec(env_id, num_envs=num_envs, **settings)
    except gymnasium.error.Error as error:
        known = sorted(name for name in gymnasium.registry if name.startswith("maml/"))
        raise ValueError(
            f"env must be a registered task environment, got {env_id!r} ({error}); known: {known}"
        ) from None
    if not isinstance(env, TaskVectorEnv):
        env.close()
        raise ValueError(f"env must be a TaskVectorEnv with sample_tasks and set_tasks, but {env_id!r} is not")
    return env


def make_policy(env: TaskVectorEnv, config: RunConfig) -> Policy:
    """A Gaussian for Box actions, a categorical distribution for Discrete ones."""
    observations, actions = env.single_observation_space, env.single_action_space
    if not isinstance(observations, gymnasium.spaces.Box):
        raise ValueError(f"observations must be a Box, got {observations}")
    size = int(np.prod(observations.shape))
    if isinstance(actions, gymnasium.spaces.Discrete):
        return CategoricalPolicy(size, int(actions.n), config.policy)
    if isinstance(actions, gymnasium.spaces.Box) and np.isfinite([actions.low, actions.high]).all():
        return GaussianPolicy(size, int(np.prod(actions.shape)), config.policy)
    raise ValueError(f"actions must be Discrete or a Box with finite bounds, got {actions}")
