"""Environments by name: making them, the policies that fit them, and sampling of their episodes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

import envs  # noqa: F401 - registers its ids
from envs.adapters import tells_success

# Names imported as themselves are for the rooms above, which may not import envs.
from envs.checking.check import check_world as check_world
from envs.checking.form import SUPPORTED_ACTIONS, is_supported
from envs.checking.steps import observations_are_of_unit_size
from envs.modules import module_file as module_file
from envs.modules import no_such_module as no_such_module
from envs.modules import search_here as search_here
from envs.observation_moments import observation_moments
from envs.oracle import Oracle
from envs.pictures import require_pictures
from envs.plug_in import GUIDE, OnlyTask, World, make_batch, make_single
from envs.plug_in import find_world as find_world
from envs.plug_in import is_live as is_live
from envs.plug_in import remember as remember
from envs.robots.mujoco_batch import STAGE_NONE as STAGE_NONE
from envs.robots.mujoco_batch import MujocoTaskVectorEnv as MujocoTaskVectorEnv
from envs.robots.mujoco_batch import with_timers as with_timers
from envs.scaling import ScaledVector, byte_scale
from envs.task_env import SimulationError, Task, TaskVectorEnv
from envs.tracebacks import located
from maml_rl.core.keys import INITIALISATION, TASKS, Key
from maml_rl.core.lift import Threads
from maml_rl.core.memory import require_memory
from maml_rl.experiments import footprint
from maml_rl.experiments.config import Physics, RunConfig, kind_of
from maml_rl.experiments.spaces import numbers_of_task
from maml_rl.policies.categorical import Categorical, MultiCategorical
from maml_rl.policies.distribution import ActionSource, Distribution
from maml_rl.policies.gaussian import Gaussian
from maml_rl.policies.policy import PolicySpec
from maml_rl.policies.scale import ObservationScale
from maml_rl.rl.experience import EpisodeSampler, Sampler
from maml_rl.sampling.local import MAX_COPIES, LocalSampler, SamplingConfig
from maml_rl.sampling.processes import ProcessCrew
from maml_rl.sampling.ray import RayCrew
from maml_rl.sampling.tasks import draw_tasks
from maml_rl.sampling.trajectory import SamplingError, Shape
from maml_rl.sampling.work import Crew, Recipe, WorkSampler, pickled


class EnvironmentSource:
    """The task distribution p(T) of an environment."""

    def __init__(self, env: TaskVectorEnv):
        self._env = env

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> Sequence[Any]:
        return draw_tasks(self._env.sample_tasks, "sample_tasks", num_tasks, rng)

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> Sequence[Any]:
        name = "sample_test_tasks" if self._env.has_test_tasks else "sample_tasks"  # the one that its author wrote
        return draw_tasks(self._env.sample_test_tasks, name, num_tasks, rng)

    def limits_of(self, field: str) -> tuple[float, float] | None:
        """The range that a task's field is drawn from: one for all, or None."""
        return self._env.task_range


@dataclass
class Sampling:
    """An environment's tasks, and samplers of its episodes, which this object closes."""

    config: RunConfig
    source: EnvironmentSource
    spec: PolicySpec
    shape: Shape
    needs: footprint.Needs
    in_a_row: bool
    _make_env: Callable[[int], TaskVectorEnv]
    _probe: TaskVectorEnv
    _threads: Threads
    _closers: list[Callable[[], None]] = field(default_factory=list)

    def collector(self, num_episodes: int | None = None, actions: ActionSource | None = None) -> EpisodeSampler:
        """A collector of `num_episodes` episodes a task, by default as in training and under the policy's own noise.

        Raises:
            ValueError: if the environment or its tasks cannot be sent to workers, or there are no workers.
        """
        settings, shape = self.config.task.sampling, self.shape
        if num_episodes is not None:
            shape = shape._replace(num_episodes=num_episodes)
        actions = actions or self.spec.distribution
        recipe = Recipe(self._make_env, actions, self.config.task.observation_scale, shape, self.in_a_row)
        sampler: Sampler
        if settings.sampler == "local":
            sampler = LocalSampler(recipe, self._threads, MAX_COPIES if self._probe.is_copied else None)
        else:
            pickled(self._probe.sample_tasks(1, np.random.default_rng(0))[0], f"a task of {type(self._probe).__name__}")
            sampler = WorkSampler(make_crew(settings, recipe), recipe)
        self._closers.append(sampler.close)
        return EpisodeSampler(sampler, recipe)

    def close(self) -> None:
        for close in reversed(self._closers):
            close()


def make_sampling(
    config: RunConfig, threads: Threads, task_range: tuple[float, float] | None, in_a_row: bool
) -> Sampling:
    """Make an environment's tasks and samplers.

    Raises:
        ValueError: if there is no such environment, or the settings do not fit it.
    """
    _check_range(task_range)
    make_env = functools.partial(_make_anywhere, _spec_of(config.env), find_world(config.env), config)
    probe = make_env(1)
    try:
        if task_range is not None:
            if probe.task_range is None:
                raise ValueError(f"task_range must be left out: the tasks of {config.env} are drawn from no range")
            probe.task_range = task_range
        spec = policy_spec(probe, config)
        needs = footprint.reinforcement(config, spec, probe.horizon)
        require_memory(needs.evaluation)  # first: what comes next plays a whole episode
        probe.reports_success = probe.reports_success or _tells_success(config, make_env)
    except BaseException:
        probe.close()
        raise
    number, width = config.task.sampling.episodes_per_task, spec.distribution.action_width
    shape = Shape(number, probe.horizon, spec.observation_size, width, probe.reports_success)
    return Sampling(
        config, EnvironmentSource(probe), spec, shape, needs, in_a_row, make_env, probe, threads, [probe.close]
    )


def make_crew(config: SamplingConfig, recipe: Recipe) -> Crew:
    """Workers in other processes.

    Raises:
        ValueError: if the environment cannot be sent to them, or there are none.
    """
    if config.sampler == "ray":
        return RayCrew(recipe, config.ray_address, config.num_workers, config.task_timeout)
    return ProcessCrew(recipe, config.num_workers, config.task_timeout)


def _check_range(task_range: tuple[float, float] | None) -> None:
    if task_range is not None and not (all(map(math.isfinite, task_range)) and task_range[0] < task_range[1]):
        raise ValueError(
            f"task_range must be two finite numbers, the lower first, got {task_range[0]:g} {task_range[1]:g}: "
            "no task lies between them"
        )


def _tells_success(config: RunConfig, make_env: Callable[[int], TaskVectorEnv]) -> bool:
    """Check whether a user's environment reports success without declaring it; the project's own declare it."""
    if is_own(config.env):
        return False
    env = make_env(1)  # another one, since an episode leaves traces
    try:
        return tells_success(env)
    finally:
        env.close()


def _spec_of(env_id: str) -> EnvSpec | None:
    return gymnasium.registry.get(env_id)


def _make_anywhere(spec: EnvSpec | None, world: World, config: RunConfig, num_envs: int) -> TaskVectorEnv:
    """Make the run's environment, even in a worker, which never ran the program that registered the id."""
    if spec is not None:
        gymnasium.registry.setdefault(spec.id, spec)
    return _made(config, world, num_envs)


def policy_spec(env: TaskVectorEnv, config: RunConfig) -> PolicySpec:
    """A Gaussian for Box actions, categorical distributions for whole numbers.

    Raises:
        ValueError: if there is no policy for such spaces.
    """
    observations = env.single_observation_space
    if not isinstance(observations, gymnasium.spaces.Box):
        raise ValueError(f"observations must be a Box, got {observations}")
    size = int(np.prod(observations.shape))
    _require_scale(config, size)
    return PolicySpec(size, action_distribution(env.single_action_space, config))


def action_distribution(actions: gymnasium.Space, config: RunConfig) -> Distribution:
    if isinstance(actions, gymnasium.spaces.Discrete):
        return Categorical(int(actions.n))
    if isinstance(actions, gymnasium.spaces.MultiDiscrete):
        return MultiCategorical(tuple(int(n) for n in actions.nvec.ravel()))
    if isinstance(actions, gymnasium.spaces.MultiBinary):
        return MultiCategorical((2,) * int(np.prod(actions.shape)))
    if isinstance(actions, gymnasium.spaces.Box) and is_supported(actions):
        policy = getattr(config.method, "policy", None)
        init_std, min_std = (1.0, 1e-6) if policy is None else (policy.init_std, policy.min_std)
        return Gaussian(int(np.prod(actions.shape)), init_std, min_std)
    raise ValueError(f"actions must be {SUPPORTED_ACTIONS}, got {actions}")


def _require_scale(config: RunConfig, size: int) -> None:
    """Refuse normalised observations without a scale that fits.

    Raises:
        ValueError: if observations of `size` numbers are to be normalised and it is not known how.
    """
    if config.task.observations == "raw":
        return
    scale = config.task.observation_scale
    if scale is None or len(scale.mean) != size:
        found = "none" if scale is None else f"one of {len(scale.mean)}"
        raise ValueError(
            f"observations normalised needs an observation_scale of {size} numbers, as training measures and saves it, "
            f"but the config has {found}: is the environment still the one that the run was trained on?"
        )


def measured(config: RunConfig) -> RunConfig:
    """The config with the scale of its observations, if they are to be normalised and it has none yet.

    It is measured in as many episodes as one iteration adapts to, and depends on the config alone.

    Raises:
        ValueError: if the environment cannot be made, has too few tasks or too much to hold in memory, or an episode
            fails.
    """
    if config.kind != "reinforcement" or config.task.observations == "raw" or config.task.observation_scale is not None:
        return config
    key = Key(config.seed, INITIALISATION, 0)
    env = make_environment(config, config.task.sampling.episodes_per_task)
    try:
        raw = dataclasses.replace(config, task=dataclasses.replace(config.task, observations="raw"))
        require_memory(footprint.reinforcement(config, policy_spec(env, raw), env.horizon).training)
        tasks = draw_tasks(env.sample_tasks, "sample_tasks", config.training.num_tasks, key.rng(TASKS))
        mean, std = observation_moments(env, tasks, key.rng(0))
    except SamplingError as error:  # there are not as many tasks
        raise ValueError(str(error)) from None
    except SimulationError as error:
        raise ValueError(f"observations of {config.env} cannot be measured, since an episode fails: {error}") from error
    finally:
        env.close()
    scale = ObservationScale(tuple(mean.tolist()), tuple(std.tolist()))
    return dataclasses.replace(config, task=dataclasses.replace(config.task, observation_scale=scale))


def make_environment(
    config: RunConfig, num_envs: int, render_mode: str | None = None, picture_size: tuple[int, int] | None = None
) -> TaskVectorEnv:
    """Make the run's environment, as an oracle if asked for. picture_size: of robots, height and width in pixels."""
    return _made(config, find_world(config.env), num_envs, render_mode, picture_size)


def _made(
    config: RunConfig,
    world: World,
    num_envs: int,
    render_mode: str | None = None,
    picture_size: tuple[int, int] | None = None,
) -> TaskVectorEnv:
    env = make_batch(world, num_envs, config.task.sampling.horizon, render_mode)
    if picture_size is not None and isinstance(env, MujocoTaskVectorEnv):
        env.picture_size = picture_size
    if not config.task.oracle:
        return env
    try:
        return Oracle(env)
    except ValueError as error:
        env.close()
        raise ValueError(f"oracle must be left out: {error} of {config.env}") from None


def make_film_environment(config: RunConfig, num_envs: int, height: int, width: int) -> TaskVectorEnv:
    """Make `num_envs` sub-environments that draw; robots are drawn in the given size. [pixels]

    Raises:
        ValueError: if the environment draws nothing.
    """
    env = make_environment(config, 1)
    env.close()
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        raise ValueError(f"{config.env} draws no pictures: give it the render mode rgb_array ({GUIDE})")
    return make_environment(config, num_envs, "rgb_array", (height, width))


def require_film(env: TaskVectorEnv, task: Task, env_id: str) -> None:
    """Check that an environment draws, by the first two pictures of an episode.

    Raises:
        ValueError: if no film can be made of them.
    """
    try:
        require_pictures(env, task)
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else f"drawing failed with {located(error)}"
        raise ValueError(f"{env_id} cannot be filmed: {reason}") from error


def needs_backend(env: TaskVectorEnv) -> bool:
    """Check whether pictures of it need EGL or OSMesa."""
    return isinstance(env.world if isinstance(env, Oracle) else env, MujocoTaskVectorEnv)


def environment_remarks(config: RunConfig) -> list[str]:
    """Warnings about a user's environment before training: the cheap part of its check.

    Raises:
        ValueError: if it cannot be trained on, in one sentence that names the remedy.
    """
    if config.kind != "reinforcement" or is_own(config.env):
        return []
    findings = check_world(find_world(config.env), config.task.sampling.horizon, thorough=False)
    if config.task.observations == "normalised":
        findings = [finding for finding in findings if finding.name != observations_are_of_unit_size.__name__]
    for finding in findings:
        if finding.severity == "error":
            raise ValueError(f"{finding} (for all that is wrong: maml-rl check-env {config.env})")
    return [*map(str, findings), *_remarks_on_copies(config)]


def _remarks_on_copies(config: RunConfig) -> list[str]:
    """A warning if one task takes more than `MAX_COPIES` copies, since all of its episodes are played together."""
    episodes = max(each.task.sampling.episodes_per_task for each in (config, config.as_evaluated))
    if find_world(config.env).is_batch or episodes <= MAX_COPIES:
        return []
    return [
        f"{config.env} will be held in {episodes} copies, one for each episode of a task, by each worker too: "
        "lower --episodes-per-task if they take too much memory or too many files"
    ]


OWN = "maml/"
"""Prefix of the ids of the project's own environments."""


def is_own(env_id: str) -> bool:
    return env_id.startswith(OWN)


def full_id(name: str, physics: Physics | None) -> str:
    """The environment id that a name stands for.

    Args:
        name: an id or module:Class, which stays as it is but for the physics; or a short name of one of the project's
            own, HalfCheetahVel or Bandit-K5: the id without maml/, version and physics.
        physics: where there are two; by default a short name means rllab.
    Raises:
        ValueError: if that environment comes in one kind only.
    """
    if physics not in (None, "rllab", "gym"):
        raise ValueError(f"physics must be rllab or gym, got {physics!r}")
    if kind_of(name) != "reinforcement":
        if physics is not None:
            raise ValueError(f"physics {physics} applies to robots, not to {name}: leave it out")
        return name
    known = [env_id for env_id in gymnasium.registry if is_own(env_id) and _short(env_id) == name]
    if name in gymnasium.registry or not known:
        other = {"rllab": "gym", "gym": "rllab"}
        changed = name if physics is None else name.replace(f"-{other[physics]}-", f"-{physics}-")
        if physics is not None and f"-{physics}-" not in changed:
            raise ValueError(f"physics {physics} does not apply to {name}, which comes in one kind only")
        return changed
    if len(known) == 1:
        if physics is not None and f"-{physics}-" not in known[0]:
            raise ValueError(f"physics {physics} does not apply to {name}, which comes in one kind only")
        return known[0]
    return next(env_id for env_id in known if f"-{physics or 'rllab'}-" in env_id)


def _short(env_id: str) -> str:
    """The short name of an id: HalfCheetahVel for maml/HalfCheetahVel-rllab-v0."""
    name = env_id.removeprefix(OWN).rpartition("-")[0]
    return name.removesuffix("-rllab").removesuffix("-gym")


def holds_bytes(config: RunConfig) -> bool:
    """Check whether observations hold bytes, which are scaled from their bounds to 0..1."""
    world = find_world(config.env)
    if world.is_batch:
        batch = make_batch(world, 1, config.task.sampling.horizon, None)
        batch.close()
        return isinstance(batch, ScaledVector)
    return byte_scale(single_spaces(world, config.task.sampling.horizon)[0]) is not None


def surroundings_of(config: RunConfig) -> tuple[gymnasium.Space, gymnasium.Space, int, int, bool]:
    """The environment's own spaces, its horizon, how many numbers of its task an oracle sees, and if it has tasks."""
    env = make_environment(config, 1)
    try:
        (task,) = env.sample_tasks(1, np.random.default_rng(0))
        size = len(numbers_of_task(task)) if config.task.oracle else 0
        own = single_spaces(find_world(config.env), config.task.sampling.horizon)
        return *own, env.horizon, size, not isinstance(task, OnlyTask)
    finally:
        env.close()


def single_spaces(world: World, horizon: int | None) -> tuple[gymnasium.Space, gymnasium.Space]:
    """Observation and action space of one environment as its author made it."""
    if world.is_batch:
        batch = make_batch(world, 1, horizon, None)
        batch.close()
        return batch.single_observation_space, batch.single_action_space
    env = make_single(world, horizon, None)
    env.close()
    return env.observation_space, env.action_space
