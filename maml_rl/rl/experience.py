"""Experience in reinforcement learning: trajectories from a sampler, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from maml_rl.core.contracts import Actor, Collector
from maml_rl.core.keys import Key
from maml_rl.sampling.recipe import Recipe
from maml_rl.sampling.trajectory import Trajectory


class Sampler(Protocol):
    """A player of episodes: in threads, processes or on other machines."""

    def sample(self, tasks: Sequence[Any], actor: Actor, key: Key) -> Trajectory:
        """Trajectories of the tasks, on the CPU wherever the actor's parameters are."""

    def hold(self, num_tasks: int) -> None:
        """Make the copies of an environment that sampling so many tasks takes.

        Raises:
            ValueError: if there cannot be as many.
        """

    def close(self) -> None: ...


class EpisodeSampler:
    """The collector of reinforcement learning, whose data depend on who acts."""

    resamples = True

    def __init__(self, sampler: Sampler, recipe: Recipe):
        """recipe: the one that the sampler plays by, needed to play an episode again."""
        self.sampler, self.recipe = sampler, recipe

    def collect(self, tasks: Sequence[Any], actor: Actor | None, key: Key) -> Trajectory:
        assert actor is not None, "somebody must act for there to be experience"
        return self.sampler.sample(tasks, actor, key)


def recipe_of(collector: Collector) -> Recipe:
    """The recipe by which a collector of episodes plays."""
    assert isinstance(collector, EpisodeSampler), "only episodes are played"
    return collector.recipe


class Return:
    """The measure of reinforcement learning: the undiscounted sum of an episode's rewards."""

    metric = "return"
    higher_is_better = True

    def score(self, data: Trajectory) -> Tensor:
        """The return of each episode: [N, E]."""
        return data.rewards.sum(dim=-1)

    def further_scores(self, data: Trajectory) -> dict[str, Tensor]:
        """Success of each episode [N, E]: 1 if it did its task at any step, where the environment reports it."""
        return {"success": data.successes[..., 0]} if data.successes.shape[-1] else {}

    def forecast(self, data: Trajectory) -> None:
        """None: a return is no prediction."""

    def mixture(self, outputs: Sequence[Tensor]) -> Tensor:
        raise TypeError("episodes are of one draw each: their outputs cannot be mixed")

    def describe(self, experience: Sequence[Trajectory]) -> dict[str, float]:
        return {
            **_success_rate("success_before", experience[0]),
            **_success_rate("success_after", experience[-1]),
            "env_steps": sum(float(each.mask.double().sum()) for each in experience),
        }


def _success_rate(name: str, data: Trajectory) -> dict[str, float]:
    """The share of episodes that did their task, where the environment reports it."""
    return {name: data.successes.double().mean().item()} if data.successes.shape[-1] else {}
