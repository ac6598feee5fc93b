"""A learner of your own: it predicts by the mean of the nearest examples, and meta-learns how near is near."""

import sys
from dataclasses import dataclass
from typing import NamedTuple

import torch

import maml_rl
from maml_rl.core.acting import FeedForward, answer
from maml_rl.core.contracts import Actor, Learner, Report
from maml_rl.core.statistics import spread
from maml_rl.core.trees import stack
from maml_rl.learners.entry import Entry

NUM_ITERATIONS = 2 if "--small" in sys.argv else 100


@dataclass(frozen=True)
class KernelConfig:
    """Settings of kernel regression."""

    rate: float = 0.05  # Step size of the outer gradient in the width's logarithm.


class State(NamedTuple):
    log_width: torch.Tensor  # []


class Seen(NamedTuple):
    inputs: torch.Tensor  # [N, K, 1]; none at first
    targets: torch.Tensor  # [N, K, 1]


class KernelNetwork(FeedForward):
    """The weighted mean of the targets that were shown."""

    def step(self, params, memory, observation, previous):
        distances = (observation.inputs - params["inputs"].mT) / params["log_width"].exp().view(-1, 1, 1)
        weights = torch.exp(-0.5 * distances.square()) + 1e-6  # [N, B, K]
        return weights @ params["targets"] / weights.sum(dim=-1, keepdim=True).clamp(min=1e-6), ()


class Kernel(Learner):
    def __init__(self, context, config):
        self.config, self.family, self.threads = config, context.family, context.threads

    def init(self, key):
        return State(torch.tensor(1.0))

    def begin(self, state, num_tasks, key):
        return Seen(torch.zeros(num_tasks, 0, 1), torch.zeros(num_tasks, 0, 1))

    def adapt(self, state, adapted, data, key):
        return Seen(*(torch.cat(pair, dim=1) for pair in zip(adapted, (data.inputs, data.targets), strict=True)))

    def actor(self, state, adapted, key):
        return Actor(KernelNetwork(), stack(state._asdict(), len(adapted.inputs)) | adapted._asdict())

    def meta_step(self, state, tasks, key):
        support, query = (self.family.collector.collect(tasks, None, key.at_phase(phase)) for phase in (0, 1))
        begun = self.begin(state, len(tasks), key)
        adapted = self.adapt(state, begun, support, key)
        with torch.enable_grad():
            width = state.log_width.clone().requires_grad_()
            outputs, _ = self.actor(State(width), adapted, key).step((), query, None)
            (slope,) = torch.autograd.grad((outputs - query.targets).square().mean(), width)
        moved = State(state.log_width - self.config.rate * slope)
        before, after = (
            self.family.measure.score(answer(self.actor(state, each, key), query, self.threads))
            for each in (begun, adapted)
        )
        return moved, Report(spread("mse_before", before) | spread("mse_after", after), {})


maml_rl.register(Entry("kernel", "Kernel regression", {"regression": KernelConfig}, Kernel, devices=("cpu",)))

if __name__ == "__main__":
    run = maml_rl.train("sinusoid", learner="kernel", num_iterations=NUM_ITERATIONS, evaluate_every=0)
    with run.opened() as trained:
        print("width of the kernel:", trained.state.log_width.exp().item())
    print("mean squared error before and after ten examples:", run.evaluate(num_steps=1).mean)
