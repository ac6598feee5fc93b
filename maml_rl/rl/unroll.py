"""A recurrent actor's outputs at the steps of episodes that have been played, with derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from maml_rl.core.acting import LastStep, kept
from maml_rl.core.contracts import Actor, Memory
from maml_rl.core.trees import device_of
from maml_rl.sampling.trajectory import Trajectory


def unroll(actor: Actor, data: Trajectory, in_a_row: bool) -> tuple[Tensor, Memory]:
    """Compute every step of the episodes once more, as the rollout did, with derivatives through the memory.

    Args:
        actor: of the same tasks; with the parameters that played, the outputs are those of the rollout.
        in_a_row: the memory lasts from an episode of a task to its next one; else each begins with the first memory.
    Returns:
        Outputs [N, E, T, ...], of no meaning after an episode's end, and the memory after the last step.
    """
    num_tasks, num_episodes, horizon = data.rewards.shape
    at_once, device = 1 if in_a_row else num_episodes, device_of(actor.params)
    memory, last = actor.start(at_once), LastStep(num_tasks, at_once, data.actions.shape[-1])
    episodes = []
    for first in range(0, num_episodes, at_once):
        outputs = []
        for t in range(horizon):
            now = (slice(None), slice(first, first + at_once), t)
            output, after = actor.step(memory, data.observations[now].to(device), last.before(t, device))
            alive = data.mask[now].bool()
            memory = kept(memory, after, alive)
            last.update(data.actions[now], data.rewards[now], alive)
            outputs.append(output)
        episodes.append(torch.stack(outputs, dim=2))
    return torch.cat(episodes, dim=1), memory
