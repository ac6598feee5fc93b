"""Acting: networks without a memory, the last step of those with one, and outputs on given examples."""

from __future__ import annotations

from typing import Any, NamedTuple

import optree
import torch
from torch import Tensor

from maml_rl.core.contracts import Actor, Memory, Previous
from maml_rl.core.lift import Threads
from maml_rl.core.trees import Params, take_tasks


class FeedForward:
    """The base of networks without a memory."""

    is_recurrent = False

    def start(self, params: Params, num_episodes: int) -> tuple[()]:
        return ()


class LastStep:
    """The last action and reward of every episode under way, for actors that look at them."""

    def __init__(self, num_tasks: int, num_episodes: int, action_width: int):
        self._actions = torch.zeros(num_tasks, num_episodes, action_width)
        self._rewards = torch.zeros(num_tasks, num_episodes)

    def before(self, t: int, device: torch.device) -> Previous:
        """All that an actor may know before step t of an episode."""
        begins = torch.full_like(self._rewards, float(t == 0))
        return Previous(self._actions.to(device), self._rewards.to(device), begins.to(device))

    def update(self, actions: Tensor, rewards: Tensor, alive: Tensor) -> None:
        """alive: [N, E], where a step was taken."""
        self._actions = torch.where(alive.unsqueeze(-1), actions, self._actions)
        self._rewards = torch.where(alive, rewards.float(), self._rewards)


def kept(before: Memory, after: Memory, alive: Tensor) -> Memory:
    """The memory after a step that only some episodes took. alive: [N, E]."""

    def keep(old: Tensor, new: Tensor) -> Tensor:
        return torch.where(alive.to(new.device).view(*alive.shape, *[1] * (new.dim() - 2)), new, old)

    return optree.tree_map(keep, before, after)


class Answered(NamedTuple):
    """Examples of N tasks and an actor's outputs for them."""

    examples: Any  # with the targets, which the actor has not seen
    outputs: Tensor  # [N, B, ...]


def answer(actor: Actor, examples: Any, threads: Threads) -> Answered:
    """The actor's outputs on every example, a few tasks at a time."""

    def one_chunk(start: int, stop: int) -> Tensor:
        with torch.no_grad():
            return actor.take_tasks(start, stop).step((), take_tasks(examples, start, stop), None)[0]

    return Answered(examples, torch.cat(threads.over_chunks(one_chunk, examples)))
