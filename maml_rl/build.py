"""From a config to everything a trainer needs: the one place that knows all names."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

import envs  # noqa: F401 - registers its ids
from envs.adapters import tells_success
from envs.check import SUPPORTED_ACTIONS, is_supported, observations_are_of_unit_size
from envs.check import check_world as check_world  # for the command that checks, which may not import envs either
from envs.mujoco_batch import MujocoTaskVectorEnv as MujocoTaskVectorEnv  # for benchmarks, which may not import envs
from envs.observation_moments import observation_moments
from envs.oracle import Oracle
from envs.pictures import require_pictures
from envs.plug_in import GUIDE, located, make_batch
from envs.plug_in import find_world as find_world
from envs.plug_in import module_file as module_file  # for who reads a saved run
from envs.plug_in import no_such_module as no_such_module
from envs.task_env import SimulationError, Task, TaskVectorEnv
from maml_rl import footprint, memory
from maml_rl.config import IMAGES, OMNIGLOT, SINUSOID, RunConfig
from maml_rl.core.lift import Threads
from maml_rl.core.maml import MAML, params_of
from maml_rl.core.protocols import (
    EVALUATION,
    INITIALISATION,
    TASKS,
    TRAINING,
    Key,
    Learner,
    State,
    TaskFamily,
)
from maml_rl.drawing import require_drawing
from maml_rl.evaluation.adaptation_curve import (
    AdaptationCurve,
    adaptation,
    adaptation_curve,
    evaluation_tasks,
    query_key,
    score_tasks,
)
from maml_rl.evaluation.few_shot import accuracy_curve
from maml_rl.evaluation.film import Scene, caption, film_pace, median_episode, record
from maml_rl.evaluation.video import Panel, compose, encode_gif
from maml_rl.fewshot.protocol import FewShotLearner
from maml_rl.learners import CPU_ONLY, few_shot_learner, require_adapting, require_learner
from maml_rl.policies import (
    CategoricalPolicy,
    GaussianPolicy,
    MultiCategoricalPolicy,
    ObservationScale,
    Policy,
    acting_by_mean,
)
from maml_rl.rl.family import RLFamily, Sampler
from maml_rl.sampling.local import MAX_COPIES, LocalSampler, SamplingConfig
from maml_rl.sampling.processes import ProcessCrew
from maml_rl.sampling.ray import RayCrew
from maml_rl.sampling.tasks import draw_tasks
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.sampling.work import Crew, Recipe, WorkSampler, pickled
from maml_rl.supervised.classification import ClassificationFamily
from maml_rl.supervised.episodes import data_folder, make_streams
from maml_rl.supervised.sinusoid import SinusoidFamily
from maml_rl.training.events import Film

FILM_HEIGHT, FILM_WIDTH, FILM_FONT_SIZE = 180, 240, 12  # of a robot in TensorBoard [pixels]
MAX_FILM_BYTES = 1_000_000


@dataclass(frozen=True)
class Built:
    """A learner with its tasks, ready to be trained."""

    learner: Learner
    family: TaskFamily
    curve: Callable[[State, int], AdaptationCurve]  # (state, iteration) -> scores on held-out tasks
    threads: Threads
    device: torch.device
    closers: Sequence[Callable[[], None]]
    judge: TaskFamily | None = None  # collects the episodes that evaluation scores, if they are not the learner's own
    few_shot: FewShotLearner | None = None  # the learner again, if it is one of these
    film: Callable[[State, int], Film] | None = None  # (state, iteration) -> one task before and after adaptation
    needs: footprint.Needs | None = None  # of memory; there is enough for evaluation

    @property
    def headline(self) -> tuple[str, ...]:
        metric = self.family.metric
        return (f"{metric}_before", f"{metric}_after", "kl", "steps_per_s")

    def evaluate(self, state: State, iteration: int) -> dict[str, float]:
        """The curve as columns for the log."""
        columns: dict[str, float] = {}
        for each in self.curve(state, iteration).measures:
            names = [f"eval_{each.metric}_{step}" for step in each.steps]
            columns |= dict(zip(names, each.mean, strict=True))
            columns |= {
                f"{name}_ci95": half for name, half in zip(names, each.ci95, strict=True) if not math.isnan(half)
            }
        return columns

    def close(self) -> None:
        for close in self.closers:
            close()


def build(config: RunConfig, task_range: tuple[float, float] | None = None, mean_actions: bool = False) -> Built:
    """Make the family, its sampler and the learner.

    Args:
        task_range: draw tasks from here in place of the range of training.
        mean_actions: score policies by episodes without action noise; adaptation keeps the noise.
    Raises:
        ValueError: if the environment is unknown or the settings do not fit it.
    """
    _check_range(task_range)
    device = find_device(config.device)
    threads = Threads(config.sampling.num_threads)
    require_learner(config)
    if config.is_few_shot:
        if task_range is not None or mean_actions:
            raise ValueError(f"task ranges and mean actions do not apply to {config.env}: leave them out")
        return build_few_shot(config, device, threads)
    make_families = _sinusoid if config.env == SINUSOID else _reinforcement
    family, judge, needs, closers = make_families(config, device, threads, task_range, mean_actions)
    evaluated, evaluation_judge = family, judge
    if config.as_evaluated != config:
        evaluated, evaluation_judge, _, more = make_families(
            config.as_evaluated, device, threads, task_range, mean_actions
        )
        closers.extend(more)
    require_adapting(config, family)
    learner = MAML(family, config.inner, config.outer, threads)

    def curve(state: State, iteration: int) -> AdaptationCurve:
        sizes = learner.step_sizes(state, config.evaluation.step_sizes)
        theta = params_of(state)
        return adaptation_curve(evaluated, theta, config.evaluation, iteration, threads, evaluation_judge, sizes)

    return Built(learner, family, curve, threads, device, [threads.close, *closers], judge, needs=needs)


def build_few_shot(config: RunConfig, device: torch.device, threads: Threads) -> Built:
    """A learner of few-shot classification with its episodes.

    Raises:
        ValueError: if the data are missing, damaged or too few, or the settings do not fit.
    """
    if device.type != "cpu" and config.learner in CPU_ONLY:
        raise ValueError(f"device must be cpu for learner {config.learner}, got {device}")
    _require_size(config)
    streams = make_streams(config.episodes, config.env == OMNIGLOT)
    held_out = streams.of_part(config.episodes.evaluate_on)
    needs = footprint.few_shot(config, streams.training.data.images.shape[-1])
    memory.require_memory(needs.evaluation)
    family = ClassificationFamily(streams.training, config.network, device, held_out)
    require_adapting(config, family)
    learner = few_shot_learner(config, family, threads)

    def curve(state: State, iteration: int) -> AdaptationCurve:
        return accuracy_curve(learner, state, held_out, config.network, config.evaluation, device)

    return Built(learner, family, curve, threads, device, [threads.close], few_shot=learner, needs=needs)


def _require_size(config: RunConfig) -> None:
    """
    Raises:
        ValueError: if pictures are too small for the network, or so large that not even one fits into memory.
    """
    size = config.episodes.images.image_size
    config.network.num_features(size)
    if config.learner != "pixels":
        num_bytes = config.network.first_map_bytes(size)
        name = "the network's first maps of one picture"
        memory.require_memory([memory.Part(name, num_bytes, "lower num_filters or image_size")])


def with_pictures(config: RunConfig, built: Built) -> RunConfig:
    """The same naming its pictures for good: their folder by its absolute path and, if they are the user's own, their
    fingerprint."""
    if not isinstance(built.family, ClassificationFamily):
        return config
    named = config.episodes.data_root is not None or config.env == IMAGES
    root = data_folder(config.episodes.data_root) if named else None  # every machine finds Omniglot for itself
    episodes = dataclasses.replace(
        config.episodes,
        data_root=None if root is None else str(root),
        fingerprint=built.family.stream.data.fingerprint,
    )
    return dataclasses.replace(config, episodes=episodes)


def require_tasks(config: RunConfig, family: TaskFamily, in_training: bool) -> None:
    """Draw the tasks of the first iteration and of the evaluations once, as the run will.

    Args:
        in_training: whether the run is to be trained; otherwise it is evaluated only.
    Raises:
        ValueError: if there are not as many as the settings ask for.
    """
    try:
        if in_training:
            family.sample_tasks(config.training.num_tasks, Key(config.seed, TRAINING, 0).rng(TASKS))
        if config.training.evaluate_every or not in_training:
            evaluation_tasks(family, config.evaluation)
    except SamplingError as error:
        raise ValueError(str(error)) from None


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


def with_film(built: Built, config: RunConfig) -> Built:
    """The same with `film`, which shows the first evaluation task.

    Raises:
        ValueError: if the environment draws nothing, or not on this machine.
    """
    family = built.family
    if not isinstance(family, RLFamily):
        raise ValueError(f"film_every must be 0: {config.env_id} has no episodes to film")
    evaluation = dataclasses.replace(config.evaluation, num_tasks=1)
    world = make_film_world(config, FILM_HEIGHT, FILM_WIDTH)
    try:
        if needs_backend(world):
            require_drawing()
        require_film(world, evaluation_tasks(family, evaluation)[0], config.env_id)
    except SamplingError as error:  # there is no task to film
        world.close()
        raise ValueError(str(error)) from None
    except BaseException:
        world.close()
        raise
    pace = film_pace(world)

    def film(state: State, iteration: int) -> Film:
        key = Key(evaluation.seed, EVALUATION, iteration)
        tasks = evaluation_tasks(family, evaluation)
        assert isinstance(built.learner, MAML)
        sizes = built.learner.step_sizes(state, evaluation.step_sizes)
        adapting = adaptation(family, params_of(state), tasks, sizes, key, built.threads, judge=None)
        panels = []
        for phase, adapted in enumerate(adapting):
            if phase in (0, evaluation.num_steps):
                scene = Scene(tasks[0], 0, query_key(key, phase, is_judged=False))
                row = median_episode(score_tasks(family, adapted)[0])
                played = record(world, family.policy, adapted.params, scene, row, 2 * pace.every)
                captions = [caption(played, i, phase, None) for i in range(len(played.pictures))]
                panels.append(Panel(played.pictures, captions))
        frames = compose([f"iteration {iteration}: {tasks[0]}"], [panels], FILM_FONT_SIZE)
        height, width = frames[0].shape[:2]
        return Film(encode_gif(frames, pace.fps / 2, MAX_FILM_BYTES), height, width)

    return dataclasses.replace(built, film=film, closers=[*built.closers, world.close])


_Families = tuple[TaskFamily, TaskFamily | None, footprint.Needs, list[Callable[[], None]]]


def _sinusoid(
    config: RunConfig,
    device: torch.device,
    threads: Threads,
    task_range: tuple[float, float] | None,
    mean_actions: bool,
) -> _Families:
    if mean_actions:
        raise ValueError(f"mean actions need a policy, but the run's environment is {SINUSOID}: leave that out")
    settings = config.sinusoid
    if task_range is not None:
        settings = dataclasses.replace(settings, amplitude_range=task_range)
    needs = footprint.sinusoid(config)
    memory.require_memory(needs.evaluation)
    return SinusoidFamily(settings, device), None, needs, []


def _reinforcement(
    config: RunConfig,
    device: torch.device,
    threads: Threads,
    task_range: tuple[float, float] | None,
    mean_actions: bool,
) -> _Families:
    make_env = functools.partial(_make_world_anywhere, gymnasium.registry.get(config.env_id), config)
    probe = make_env(1)
    probe.reports_success = probe.reports_success or _tells_success(config, make_env)
    if task_range is not None:
        if probe.task_range is None:
            probe.close()
            raise ValueError(f"task_range must be left out: the tasks of {config.env_id} are drawn from no range")
        probe.task_range = task_range
    closers: list[Callable[[], None]] = [probe.close]

    def make_family(policy: Policy) -> TaskFamily:
        sampler = make_sampler(config.sampling, make_env, probe, policy, threads)
        closers.append(sampler.close)
        return RLFamily(
            probe.sample_tasks,
            sampler,
            policy,
            config.advantage,
            config.inner.estimator,
            threads,
            device,
            probe.sample_test_tasks,
        )

    try:
        policy = make_policy(probe, config)
        needs = footprint.reinforcement(config, policy, probe.horizon)
        memory.require_memory(needs.evaluation)
        return make_family(policy), make_family(acting_by_mean(policy)) if mean_actions else None, needs, closers
    except BaseException:
        for close in closers:
            close()
        raise


def _tells_success(config: RunConfig, make_env: Callable[[int], TaskVectorEnv]) -> bool:
    """Whether a user's environment reports success without having said so; the project's own say so."""
    if config.env_id.startswith("maml/"):
        return False
    env = make_env(1)  # another one, since an episode leaves traces
    try:
        return tells_success(env)
    finally:
        env.close()


def make_sampler(
    config: SamplingConfig,
    make_env: Callable[[int], TaskVectorEnv],
    probe: TaskVectorEnv,
    policy: Policy,
    threads: Threads,
) -> Sampler:
    """Where sampling runs. probe: one of these environments.

    Raises:
        ValueError: if the environment or its tasks cannot be sent to workers, or there is nobody to send them to.
    """
    recipe = Recipe(make_env, policy, config.episodes_per_task, probe.horizon, probe.reports_success)
    if config.sampler == "local":
        return LocalSampler(
            make_env,
            policy,
            recipe.num_episodes,
            recipe.horizon,
            threads,
            recipe.reports_success,
            MAX_COPIES if probe.is_copied else None,
        )
    pickled(probe.sample_tasks(1, np.random.default_rng(0))[0], f"a task of {type(probe).__name__}")
    return WorkSampler(make_crew(config, recipe), recipe)


def make_crew(config: SamplingConfig, recipe: Recipe) -> Crew:
    """Workers in other processes.

    Raises:
        ValueError: if the environment cannot be sent to them, or there is nobody to send it to.
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


def make_film_world(config: RunConfig, height: int, width: int) -> TaskVectorEnv:
    """A task's episodes side by side, in a world that draws; robots are drawn in the size given. [pixels]

    Raises:
        ValueError: if the environment draws nothing.
    """
    env = make_vector_env(config.env_id, config.sampling.horizon, 1)
    env.close()
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        raise ValueError(f"{config.env_id} draws no pictures: give it the render mode rgb_array ({GUIDE})")
    return make_world(config, config.sampling.episodes_per_task, "rgb_array", (height, width))


def require_film(world: TaskVectorEnv, task: Task, env_id: str) -> None:
    """Draw the first two pictures of an episode.

    Raises:
        ValueError: if no film can be made of them.
    """
    try:
        require_pictures(world, task)
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else f"drawing failed with {located(error)}"
        raise ValueError(f"{env_id} cannot be filmed: {reason}") from error


def needs_backend(env: TaskVectorEnv) -> bool:
    """Whether pictures of it need EGL or OSMesa."""
    return isinstance(env.world if isinstance(env, Oracle) else env, MujocoTaskVectorEnv)


def make_world(
    config: RunConfig, num_envs: int, render_mode: str | None = None, picture_size: tuple[int, int] | None = None
) -> TaskVectorEnv:
    """The run's environment, an oracle if that is asked for. picture_size: of robots, height and width in pixels."""
    env = make_vector_env(config.env_id, config.sampling.horizon, num_envs, render_mode)
    if picture_size is not None and isinstance(env, MujocoTaskVectorEnv):
        env.picture_size = picture_size
    if not config.oracle:
        return env
    try:
        return Oracle(env)
    except ValueError as error:
        env.close()
        raise ValueError(f"oracle must be left out: {error} of {config.env_id}") from None


def _make_world_anywhere(spec: EnvSpec | None, config: RunConfig, num_envs: int) -> TaskVectorEnv:
    """The same also in a worker, which never ran the program that registered the id."""
    if spec is not None:
        gymnasium.registry.setdefault(spec.id, spec)
    return make_world(config, num_envs)


def make_vector_env(env_id: str, horizon: int | None, num_envs: int, render_mode: str | None = None) -> TaskVectorEnv:
    """`num_envs` sub-environments of a registered environment, or of a user's own, `module:Class`.

    Raises:
        ValueError: if there is none of that name, it cannot be made, or it has no tasks.
    """
    return make_batch(find_world(env_id), num_envs, horizon, render_mode)


def environment_remarks(config: RunConfig) -> list[str]:
    """What training should be told about a user's environment: the cheap part of its check.

    Raises:
        ValueError: if it cannot be trained on, in one sentence that names the remedy.
    """
    if config.env == SINUSOID or config.is_few_shot or config.env_id.startswith("maml/"):
        return []
    findings = check_world(find_world(config.env_id), config.sampling.horizon, thorough=False)
    if config.observations == "normalised":
        findings = [finding for finding in findings if finding.name != observations_are_of_unit_size.__name__]
    for finding in findings:
        if finding.severity == "error":
            raise ValueError(f"{finding} (all that is wrong: scripts/check_env.py {config.env_id})")
    return [*map(str, findings), *_remarks_on_copies(config)]


def _remarks_on_copies(config: RunConfig) -> list[str]:
    """The episodes of one task are played together, even if they are more than `MAX_COPIES`."""
    episodes = max(each.sampling.episodes_per_task for each in (config, config.as_evaluated))
    if find_world(config.env_id).is_batch or episodes <= MAX_COPIES:
        return []
    return [
        f"{config.env_id} will be held in {episodes} copies, one for each episode of a task, by each worker too: "
        "lower --episodes-per-task if they take too much memory or too many files"
    ]


def measured(config: RunConfig) -> RunConfig:
    """The config with the scale of its observations, if they are to be normalised and it has none yet.

    It rests on as many episodes as one iteration adapts to, and depends on the config alone.

    Raises:
        ValueError: if the environment cannot be made, has too few tasks or too much to hold in memory, or an episode
            fails.
    """
    if config.observations == "raw" or config.observation_scale is not None:
        return config
    key = Key(config.seed, INITIALISATION, 0)
    env = make_world(config, config.sampling.episodes_per_task)
    try:
        policy = make_policy(env, dataclasses.replace(config, observations="raw"))
        memory.require_memory(footprint.reinforcement(config, policy, env.horizon).training)
        tasks = draw_tasks(env.sample_tasks, "sample_tasks", config.training.num_tasks, key.rng(TASKS))
        mean, std = observation_moments(env, tasks, key.rng(0))
    except SamplingError as error:  # there are not as many tasks
        raise ValueError(str(error)) from None
    except SimulationError as error:
        raise ValueError(
            f"observations of {config.env_id} cannot be measured, since an episode fails: {error}"
        ) from error
    finally:
        env.close()
    return dataclasses.replace(config, observation_scale=ObservationScale(tuple(mean.tolist()), tuple(std.tolist())))


def make_policy(env: TaskVectorEnv, config: RunConfig) -> Policy:
    """A Gaussian for Box actions, a categorical distribution for Discrete ones, several for MultiDiscrete ones.

    Raises:
        ValueError: if there is no policy for such observations or actions.
    """
    observations, actions = env.single_observation_space, env.single_action_space
    if not isinstance(observations, gymnasium.spaces.Box):
        raise ValueError(f"observations must be a Box, got {observations}")
    size = int(np.prod(observations.shape))
    scale = _scale(config, size)
    if isinstance(actions, gymnasium.spaces.Discrete):
        return CategoricalPolicy(size, int(actions.n), config.policy, scale)
    if isinstance(actions, gymnasium.spaces.MultiDiscrete):
        return MultiCategoricalPolicy(size, tuple(actions.nvec.ravel().tolist()), config.policy, scale)
    if isinstance(actions, gymnasium.spaces.MultiBinary):
        return MultiCategoricalPolicy(size, (2,) * int(np.prod(actions.shape)), config.policy, scale)
    if isinstance(actions, gymnasium.spaces.Box) and is_supported(actions):
        return GaussianPolicy(size, int(np.prod(actions.shape)), config.policy, scale)
    raise ValueError(f"actions must be {SUPPORTED_ACTIONS}, got {actions}")


def _scale(config: RunConfig, size: int) -> ObservationScale | None:
    """The config's scale for observations of `size` numbers; None if they stay raw."""
    if config.observations == "raw":
        return None
    scale = config.observation_scale
    if scale is None or len(scale.mean) != size:
        found = "none" if scale is None else f"one of {len(scale.mean)}"
        raise ValueError(
            f"observations normalised needs an observation_scale of {size} numbers, as training measures and saves it, "
            f"but the config has {found}: is the environment still the one that the run was trained on?"
        )
    return scale
