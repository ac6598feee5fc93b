"""Acting on given examples: an actor's outputs, each task under its own parameters."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from maml_rl.core.acting import answer
from maml_rl.core.contracts import Actor
from maml_rl.core.lift import Threads


class Examples(NamedTuple):
    inputs: Tensor  # [N, B, 1]
    targets: Tensor


class Slopes:
    """y = a x, a being the task's parameter."""

    is_recurrent = False

    def start(self, params, num_episodes):
        return ()

    def step(self, params, memory, observation, previous):
        assert previous is None and not torch.is_grad_enabled()
        return params["a"].view(-1, 1, 1) * observation.inputs, ()


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("num_examples", [3, 30_000])  # together; a chunk for each task
def test_every_task_answers_under_its_own_parameters(num_threads, num_examples):
    inputs = torch.arange(4.0 * num_examples).view(4, num_examples, 1)
    examples, slopes = Examples(inputs, -inputs), torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    threads = Threads(num_threads)
    answered = answer(Actor(Slopes(), {"a": slopes}), examples, threads)
    threads.close()
    assert answered.examples is examples
    assert torch.equal(answered.outputs, slopes.detach().view(4, 1, 1) * inputs)
