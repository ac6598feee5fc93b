"""Trained policies and predictors as values: act, adapt to a task, act again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from maml_rl.api.export import ExportedAgent, from_env
from maml_rl.core.contracts import Actor, Adapted, Learner, Memory, Previous, State, TaskFamily
from maml_rl.core.keys import EVALUATION, INITIALISATION, Key
from maml_rl.core.lift import Threads
from maml_rl.core.trees import device_of, from_names, named
from maml_rl.experiments.config import RunConfig
from maml_rl.experiments.environments import action_distribution
from maml_rl.experiments.migration import migrated
from maml_rl.experiments.saved_config import FORMAT_VERSION, from_dict, to_dict
from maml_rl.experiments.spaces import (
    Observer,
    actions_of,
    has_tasks,
    numbers_of_task,
    space_from_json,
    space_to_json,
    stepped_alone,
)
from maml_rl.experiments.table import learner_entry
from maml_rl.experiments.trust import imports_of, require_trust
from maml_rl.learners.entry import Context
from maml_rl.policies.distribution import Distribution
from maml_rl.policies.policy import PolicySpec
from maml_rl.policies.scale import see
from maml_rl.rl.experience import Return
from maml_rl.rl.unroll import unroll
from maml_rl.sampling.recipe import Recipe
from maml_rl.sampling.rollout import action_mapping, rollout
from maml_rl.sampling.seeds import episode_noise
from maml_rl.sampling.trajectory import Shape, Trajectory, blank_trajectory
from maml_rl.storage.atomic import write_atomically

Episode = Mapping[str, Any]
"""One episode: observations (T + 1 of them, the last one too), actions and rewards (T each), terminated (a bool; if it
is left out, the clock ended the episode)."""


class AgentError(ValueError):
    """Error of an agent that is asked for what it cannot do, or whose folder is refused."""


@dataclass(frozen=True)
class Surroundings:
    """The facts about its environment that an agent needs when the environment itself is not there."""

    observation_space: gymnasium.Space  # in the environment's own form, without an oracle's task
    action_space: gymnasium.Space
    horizon: int  # [steps] of an episode
    task_size: int = 0  # numbers of the task that an oracle sees
    has_tasks: bool = True

    @property
    def observer(self) -> Observer:
        return Observer(self.observation_space)


@dataclass(frozen=True, repr=False)
class Agent:
    """A policy that acts in an environment's own units, and adapts to its task.

    Every method that learns returns a NEW agent; this one stays as it is. Only a recurrent policy remembers anything
    from one `act` to the next: call `begin_episode` when an episode begins.
    """

    config: RunConfig
    surroundings: Surroundings
    learner: Learner
    state: State
    adapted: Adapted  # of one task
    num_episodes: int = 0  # that it has adapted to
    task: Any = None  # an oracle's
    _memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"<Agent of {self.config.env}, learner {self.config.learner}, {self.num_episodes} episodes adapted to>"

    @property
    def num_steps(self) -> int:
        """Gradient steps taken on the task."""
        return self.learner.num_gradient_steps(self.adapted)

    def adapt(self, env: gymnasium.Env, num_episodes: int | None = None, seed: int = 0) -> Agent:
        """Collect episodes in an environment, whose task the agent does not know, and adapt to them.

        Args:
            env: as the agent was trained on, in any wrappers, its task set; it is reset and stepped, and left open.
            num_episodes: by default as many as in training.
            seed: of the episodes and of the policy's noise.
        Returns:
            A new agent: one adaptation further.
        Raises:
            AgentError: if the environment is another one, or has no task to adapt to.
        """
        self._require_env(env)
        number = self.config.task.sampling.episodes_per_task if num_episodes is None else num_episodes
        if number < 1:
            raise AgentError(f"num_episodes must be at least 1, got {number}")
        key = Key(seed, EVALUATION, 0, self.num_episodes)
        shape = self._shape(number)
        alone = stepped_alone(self._told(env), shape.horizon)
        distribution = self._distribution
        recipe = Recipe(lambda _: alone, distribution, self.config.task.observation_scale, shape, in_a_row=True)
        out, noise = blank_trajectory(1, shape), episode_noise(key, 0, 1, shape, distribution)
        memory = rollout(recipe.stage(alone), self._actor(key), [None], noise, out, 0)
        return self._after(out._replace(memory=memory), key)

    def adapt_to(self, episodes: Sequence[Episode]) -> Agent:
        """Adapt to episodes that were recorded elsewhere, in the environment's own units.

        They should have been played by this agent as it is now: the gradient is taken as if they had.

        Raises:
            AgentError: if an episode does not fit the spaces, or is longer than the agent's horizon.
        """
        if not episodes:
            raise AgentError("episodes must hold at least one, got none")
        out = blank_trajectory(1, self._shape(len(episodes)))
        for index, episode in enumerate(episodes):
            self._record(out, index, episode)
        memory: Memory = ()
        actor = self._actor(self._key)
        if actor.network.is_recurrent:
            with torch.no_grad():
                memory = unroll(actor, out, in_a_row=True)[1]
        return self._after(out._replace(memory=memory), self._key)

    def act(
        self,
        observation: Any,
        deterministic: bool = True,
        seed: int | None = None,
        previous_reward: float = 0.0,
    ) -> Any:
        """The action for one observation, or the actions for a batch, in the environment's own units, dtype and shape.

        Args:
            observation: as the environment returns it, or a batch of such with one axis more.
            deterministic: take the mean, or the most probable action; else draw one.
            seed: of the draw; by default draws differ.
            previous_reward: received since the last action; only recurrent policies look at it.
        """
        observer = self.surroundings.observer
        flat = observer.flat(observation)
        is_single = flat.ndim == 1
        rows = self._with_task(flat[None] if is_single else flat)
        with torch.no_grad():
            outputs = self._outputs(torch.from_numpy(rows), previous_reward)
            actions = self._chosen(outputs, deterministic, seed)
        self._memory["actions"] = actions
        mapped = action_mapping(self.surroundings.action_space)(actions)
        mapped = mapped.astype(self.surroundings.action_space.dtype)
        return mapped[0] if is_single else mapped

    def begin_episode(self, forget: bool = False) -> None:
        """Tell a recurrent policy that an episode begins. forget: the task is also a new one."""
        self._memory["begins"] = True
        if forget:
            self._memory.clear()

    def told(self, task: Any) -> Agent:
        """The agent that knows its task, for runs trained with --oracle.

        Raises:
            AgentError: if the agent was not trained so, or the task does not fit.
        """
        if not self.config.task.oracle:
            raise AgentError("this agent was not trained with --oracle: it finds out about its task by adapt")
        try:
            size = len(numbers_of_task(task))
        except ValueError as error:
            raise AgentError(str(error)) from None
        if size != self.surroundings.task_size:
            raise AgentError(f"task must consist of {self.surroundings.task_size} numbers, got {task!r}")
        return dataclasses.replace(self, task=task, _memory={})

    def save(self, path: str | Path) -> None:
        """Write the agent into a folder: agent.safetensors and agent.json. `load_agent` needs no environment."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"state/{name}": value for name, value in named(self.state).items()}
        tensors |= {f"adapted/{name}": value for name, value in named(self.adapted).items()}
        plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        about = {
            "format_version": FORMAT_VERSION,
            "config": to_dict(self.config),
            "observation_space": space_to_json(self.surroundings.observation_space),
            "action_space": space_to_json(self.surroundings.action_space),
            "horizon": self.surroundings.horizon,
            "task_size": self.surroundings.task_size,
            "has_tasks": self.surroundings.has_tasks,
            "num_episodes": self.num_episodes,
        }
        write_atomically(folder / "agent.safetensors", safetensors.torch.save(plain))
        write_atomically(folder / "agent.json", f"{json.dumps(about, indent=1)}\n".encode())

    def export_torch(self) -> nn.Module:
        """A plain module: flat observations [B, O] to mean actions [B, A] in the environment's own units.

        Raises:
            AgentError: for a recurrent policy, which is no function of the observation alone.
        """
        if self._actor(self._key).network.is_recurrent:
            raise AgentError("a recurrent policy cannot be exported as a function of one observation: use act")
        scale, space = self.config.task.observation_scale, self.surroundings.action_space
        return ExportedAgent(self._actor(self._key), self._distribution, scale, space)

    # --- how it is done --------------------------------------------------------------------------------------------

    @property
    def _key(self) -> Key:
        return Key(0, EVALUATION, 0, self.num_episodes)

    @property
    def _distribution(self) -> Distribution:
        return action_distribution(self.surroundings.action_space, self.config)

    def _actor(self, key: Key) -> Actor:
        return self.learner.actor(self.state, self.adapted, key)

    def _shape(self, num_episodes: int) -> Shape:
        size = gymnasium.spaces.flatdim(self.surroundings.observation_space) + self.surroundings.task_size
        width = self._distribution.action_width
        return Shape(num_episodes, self.surroundings.horizon, size, width, reports_success=False)

    def _after(self, experience: Trajectory, key: Key) -> Agent:
        adapted = self.learner.adapt(self.state, self.adapted, experience, key)
        number = self.num_episodes + experience.mask.shape[1]
        return dataclasses.replace(self, adapted=adapted, num_episodes=number, _memory={})

    def _with_task(self, rows: np.ndarray) -> np.ndarray:
        if not self.surroundings.task_size:
            return rows
        if self.task is None:
            raise AgentError("this agent was trained with --oracle: tell it the task by agent.told(task) first")
        numbers = numbers_of_task(self.task).astype(rows.dtype)
        return np.concatenate([rows, np.broadcast_to(numbers, (len(rows), len(numbers)))], axis=1)

    def _told(self, env: gymnasium.Env) -> gymnasium.Env:
        return env if not self.surroundings.task_size else _WithTask(env, self)

    def _outputs(self, rows: Tensor, reward: float) -> Tensor:
        """The policy's outputs for these rows: [B, width]."""
        actor = self._actor(self._key)
        device = device_of(actor.params)
        seen = see(rows, self.config.task.observation_scale).unsqueeze(0).to(device)
        memory: Memory = self._memory.get("memory")
        if memory is None or self._memory.get("size") != len(rows):
            memory = actor.start(len(rows))
            self._memory.pop("actions", None)
            self._memory.update(size=len(rows), begins=True)
        previous = None
        if actor.network.is_recurrent:
            actions = self._memory.get("actions", torch.zeros(len(rows), self._distribution.action_width))
            begins = float(self._memory.get("begins", False))
            previous = Previous(
                actions.unsqueeze(0).to(device),
                torch.full((1, len(rows)), reward, device=device),
                torch.full((1, len(rows)), begins, device=device),
            )
        outputs, self._memory["memory"] = actor.step(memory, seen, previous)
        self._memory["begins"] = False
        return outputs[0].cpu()

    def _chosen(self, outputs: Tensor, deterministic: bool, seed: int | None) -> Tensor:
        distribution = self._distribution
        if deterministic:
            return distribution.mean_action(outputs)
        noise = distribution.draw_noise(np.random.default_rng(seed), len(outputs))
        return distribution.sample(outputs, torch.from_numpy(noise))

    def _require_env(self, env: gymnasium.Env) -> None:
        if not isinstance(env, gymnasium.Env):
            raise AgentError(f"env must be one gymnasium.Env, got {type(env).__name__}: make it with gymnasium.make")
        for name, own, theirs in (
            ("observation_space", self.surroundings.observation_space, env.observation_space),
            ("action_space", self.surroundings.action_space, actions_of(env)),
        ):
            if own != theirs:
                raise AgentError(
                    f"env must have the {name} that the agent was trained on, {own}, got {theirs}: is it another one?"
                )
        if self.surroundings.has_tasks and not has_tasks(env):
            raise AgentError(
                f"env must be a task environment, as the agent was trained on, but {env} has neither sample_tasks nor "
                "set_task: give one with its task set, or record episodes yourself and call agent.adapt_to(episodes)"
            )

    def _record(self, out: Trajectory, index: int, episode: Episode) -> None:
        """Write one episode into a trajectory."""
        try:
            observations, actions, rewards = (episode[name] for name in ("observations", "actions", "rewards"))
        except KeyError as error:
            raise AgentError(
                f"episode {index} must have observations, actions and rewards, but lacks {error}"
            ) from None
        steps = len(rewards)
        if not 0 < steps <= self.surroundings.horizon or len(actions) != steps:
            raise AgentError(
                f"episode {index} must have 1 to {self.surroundings.horizon} rewards and as many actions, got {steps} "
                f"and {len(actions)}"
            )
        observer = self.surroundings.observer
        rows = self._with_task(np.stack([observer.flat(each) for each in observations]))
        if len(rows) != steps + 1:
            raise AgentError(
                f"episode {index} must have one observation more than rewards, got {len(rows)} and {steps}"
            )
        seen = see(torch.from_numpy(rows), self.config.task.observation_scale)
        ended = bool(episode.get("terminated", False))
        out.observations[0, index, :steps], out.last_observations[0, index] = seen[:-1], seen[-1]
        out.actions[0, index, :steps] = from_env(self.surroundings.action_space, actions)
        out.rewards[0, index, :steps] = torch.as_tensor(np.asarray(rewards, np.float64))
        out.mask[0, index, :steps] = 1.0
        out.terminated[0, index], out.truncated[0, index] = ended, not ended


class _WithTask(gymnasium.ObservationWrapper):
    """The environment with an oracle's task behind its flat observations."""

    def __init__(self, env: gymnasium.Env, agent: Agent):
        super().__init__(env)
        self._agent = agent
        size = gymnasium.spaces.flatdim(env.observation_space) + agent.surroundings.task_size
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def observation(self, observation: Any) -> Any:
        rows = self._agent.surroundings.observer.flat(observation)[None]
        return self._agent._with_task(rows)[0].astype(np.float32)


def make_agent(config: RunConfig, surroundings: Surroundings, named_state: dict[str, Tensor]) -> Agent:
    """Make an agent before any adaptation, from a run's learned state."""
    learner = _learner(config, surroundings)
    template = learner.init(Key(config.seed, INITIALISATION, 0))
    state = from_names(template, named_state)
    return Agent(config, surroundings, learner, state, learner.begin(state, 1, Key(0, EVALUATION, 0)))


def _learner(config: RunConfig, surroundings: Surroundings) -> Learner:
    size = gymnasium.spaces.flatdim(surroundings.observation_space) + surroundings.task_size
    spec = PolicySpec(size, action_distribution(surroundings.action_space, config))
    nowhere: Any = None  # an agent collects its own episodes
    family = TaskFamily(nowhere, _OnlyResamples(), Return())
    device = torch.device("cpu")  # acts there, wherever it was trained
    context = Context("reinforcement", family, config.evaluation.num_steps, Threads(1), device, spec)
    return learner_entry(config.learner, "reinforcement").build(context, config.method)


class _OnlyResamples:
    """The collector of a learner that is not trained."""

    resamples = True

    def collect(self, tasks: Sequence[Any], actor: Actor | None, key: Key) -> Any:
        raise AgentError("an agent is not trained further: train a run with init_from instead")


def load_agent(path: str | Path, trust_network: bool = False) -> Agent:
    """The agent in a folder that `Agent.save` wrote.

    Args:
        trust_network: let it import its policy network, if that is the user's own torch.nn.Module: its code
            then runs.
    Raises:
        AgentError: if there is none, it is damaged, or of another version.
        ValueError: if it would import code that is not trusted.
    """
    folder = Path(path)
    try:
        about = json.loads((folder / "agent.json").read_bytes())
        tensors = safetensors.torch.load((folder / "agent.safetensors").read_bytes())
    except (OSError, ValueError) as error:
        raise AgentError(
            f"{folder} must hold agent.json and agent.safetensors as Agent.save writes them: {error}"
        ) from error
    except safetensors.SafetensorError as error:
        raise AgentError(f"{folder / 'agent.safetensors'} is damaged: {error}") from error
    if about.get("format_version") != FORMAT_VERSION:
        raise AgentError(
            f"{folder} must have format_version {FORMAT_VERSION}, got {about.get('format_version')!r}: save it again "
            "from its run with this version"
        )
    config = from_dict(migrated(FORMAT_VERSION, about["config"]))
    _require_trusted_network(folder, config, trust_network)
    surroundings = Surroundings(
        space_from_json(about["observation_space"]),
        space_from_json(about["action_space"]),
        about["horizon"],
        about["task_size"],
        about.get("has_tasks", True),  # early folders lack it
    )
    parts = {
        part: {name.removeprefix(f"{part}/"): v for name, v in tensors.items() if name.startswith(f"{part}/")}
        for part in ("state", "adapted")
    }
    agent = make_agent(config, surroundings, parts["state"])
    adapted = from_names(agent.adapted, parts["adapted"])
    return dataclasses.replace(agent, adapted=adapted, num_episodes=about["num_episodes"])


def _require_trusted_network(folder: Path, config: RunConfig, is_trusted: bool) -> None:
    networks = tuple(each.name for each in imports_of(config) if each.purpose == "network")
    if networks:  # the environment is not imported
        without_env = dataclasses.replace(config, env="HalfCheetahVel")
        require_trust(folder, without_env, networks if is_trusted else (), lambda _: "pass trust_network=True")


__all__ = ["Agent", "AgentError", "Episode", "Surroundings", "load_agent", "make_agent"]
