"""Acting at H = 1: the actor's outputs on examples that do not depend on who acts."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_rl.core.contracts import Actor
from maml_rl.core.lift import Threads
from maml_rl.core.trees import Params, take_tasks


class FeedForward:
    """The base of networks without a memory."""

    is_recurrent = False

    def start(self, params: Params, num_episodes: int) -> tuple[()]:
        return ()


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
