"""Three learners that adapt without gradient steps: a hidden state, a posterior, a memory. Proof that the contract is
wide enough: each is a class, a Config and an Entry in less than 80 lines, which a test counts."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maml_rl.core.acting import FeedForward, answer
from maml_rl.core.adam import AdamConfig, begin_descent, descend
from maml_rl.core.contracts import Actor, Learner, Report
from maml_rl.core.statistics import spread
from maml_rl.core.trees import stack
from maml_rl.learners.entry import Entry
from maml_rl.networks.mlp import init_mlp, linear, mlp, xavier_uniform
from maml_rl.networks.recurrent import gru_cell, init_gru
from maml_rl.rl.returns import discounted_returns
from maml_rl.rl.unroll import unroll

# --- a hidden state that lasts over episodes (in the manner of RL^2, Duan et al. 2016) ---------------------------


@dataclass(frozen=True)
class RecurrentConfig:
    """Settings of the recurrent learner."""

    hidden_size: int = 24  # Units of the recurrent layer.
    learning_rate: float = 0.03  # Learning rate of Adam at the beginning.
    decay_steps: int = 60  # Iterations in which it falls to zero: a policy that is sure is easily thrown off.
    is_told: bool = True  # Show the network actions and rewards; without them it cannot learn about its task.


@dataclass(frozen=True)
class RecurrentPolicy:
    is_told: bool
    is_recurrent = True

    def start(self, params, num_episodes):
        return params["memory"].expand(-1, num_episodes, -1)

    def step(self, params, memory, observation, previous):
        told = [previous.actions, previous.rewards.unsqueeze(-1), previous.begins.unsqueeze(-1)]
        inputs = torch.cat([observation, *(part * float(self.is_told) for part in told)], dim=-1)
        memory = gru_cell(params, "gru", inputs, memory)
        return linear(memory, params["head.weight"], params["head.bias"]), memory


class Recurrent(Learner):
    """A policy whose hidden state is all that it knows of a task, trained by plain policy gradients."""

    def __init__(self, context, config):
        self.spec, self.config, self.family = context.details, config, context.family
        self.network = RecurrentPolicy(config.is_told)
        self.adam = AdamConfig(config.learning_rate, decay="cosine", decay_steps=config.decay_steps)

    def init(self, key):
        generator, size, distribution = key.torch_generator(), self.config.hidden_size, self.spec.distribution
        head = {"head.weight": 0.1 * torch.randn(size, distribution.network_width, generator=generator)}
        head["head.bias"] = torch.zeros(distribution.network_width)
        width = self.spec.observation_size + distribution.action_width + 2
        return begin_descent(init_gru("gru", width, size, generator) | head)

    def begin(self, state, num_tasks, key):
        return torch.zeros(num_tasks, 1, self.config.hidden_size)

    def adapt(self, state, adapted, data, key):
        return data.memory

    def actor(self, state, adapted, key):
        return Actor(self.network, stack(state.params, len(adapted)) | {"memory": adapted})

    def meta_step(self, state, tasks, key):
        begun = self.begin(state, len(tasks), key)
        data = self.family.collector.collect(tasks, self.actor(state, begun, key), key)
        to_go = discounted_returns(data.rewards.flatten(1), 1.0).float()  # a trial is all episodes of a task in a row
        advantages = (to_go - to_go.mean(dim=0)) / (to_go.std() + 1e-6)

        def loss(params):
            outputs, _ = unroll(self.actor(state._replace(params=params), begun, key), data, in_a_row=True)
            log_probs = self.spec.distribution.log_prob(outputs, data.actions)
            return -(log_probs.flatten(1) * advantages * data.mask.flatten(1)).sum() / data.mask.sum()

        state, value = descend(loss, state, self.adam)
        scores = self.family.measure.score(data)
        metrics = spread("return_before", scores[:, :1]) | spread("return_after", scores[:, -1:])
        return state, Report(metrics | self.family.measure.describe([data]) | {"loss": value}, {})


RECURRENT = Entry("recurrent", "A policy that remembers", {"reinforcement": RecurrentConfig}, Recurrent, in_a_row=True)


# --- a posterior over the weights of a linear layer ----------------------------------------------------------------


@dataclass(frozen=True)
class PosteriorConfig:
    """Settings of the posterior learner."""

    num_features: int = 60  # Random Fourier features of the input.
    noise: float = 0.1  # Standard deviation of the targets' noise.
    rate: float = 0.1  # Share of the way that the prior moves to the mean of the tasks' posteriors.


class Features(NamedTuple):
    prior: Tensor  # [F] mean of the weights
    frequencies: Tensor  # [F], fixed
    phases: Tensor  # [F], fixed


class Gaussians(NamedTuple):
    mean: Tensor  # [N, F]
    precision: Tensor  # [N, F, F]


class FourierNetwork(FeedForward):
    def step(self, params, memory, observation, previous):
        return features(params, observation.inputs) @ params["weights"].unsqueeze(-1), ()


def features(params, inputs):
    """[N, K, 1] to [N, K, F]."""
    waves = inputs * params["frequencies"].unsqueeze(-2) + params["phases"].unsqueeze(-2)
    return waves.cos() * (2.0 / waves.shape[-1]) ** 0.5


class Posterior(Learner):
    """Bayesian linear regression whose prior is meta-learned; an actor is one draw of the weights."""

    def __init__(self, context, config):
        self.config, self.family, self.threads = config, context.family, context.threads

    def init(self, key):
        generator, count = key.torch_generator(), self.config.num_features
        frequencies, phases = torch.randn(count, generator=generator), torch.rand(count, generator=generator)
        return Features(torch.zeros(count), frequencies, 6.283 * phases)

    def begin(self, state, num_tasks, key):
        return Gaussians(state.prior.repeat(num_tasks, 1), torch.eye(len(state.prior)).repeat(num_tasks, 1, 1))

    def adapt(self, state, adapted, data, key):
        phi = features(stack(state._asdict(), len(adapted.mean)), data.inputs) / self.config.noise
        precision = adapted.precision + phi.mT @ phi
        targets = phi.mT @ (data.targets / self.config.noise) + adapted.precision @ adapted.mean.unsqueeze(-1)
        return Gaussians(torch.linalg.solve(precision, targets).squeeze(-1), precision)

    def actor(self, state, adapted, key):
        noise = torch.from_numpy(key.rng(7).standard_normal(adapted.mean.shape)).float().unsqueeze(-1)
        factor = torch.linalg.cholesky(adapted.precision)
        weights = adapted.mean + torch.linalg.solve_triangular(factor.mT, noise, upper=True).squeeze(-1)
        return Actor(FourierNetwork(), stack(state._asdict(), len(weights)) | {"weights": weights})

    def meta_step(self, state, tasks, key):
        support, query = (self.family.collector.collect(tasks, None, key.at_phase(phase)) for phase in (0, 1))
        begun = self.begin(state, len(tasks), key)
        adapted = self.adapt(state, begun, support, key)
        score = self.family.measure.score
        errors = [score(answer(self.actor(state, each, key), query, self.threads)) for each in (begun, adapted)]
        prior = state.prior + self.config.rate * (adapted.mean.mean(dim=0) - state.prior)
        return state._replace(prior=prior), Report(spread("mse_before", errors[0]) | spread("mse_after", errors[1]), {})


POSTERIOR = Entry(
    "posterior", "A posterior over weights", {"regression": PosteriorConfig}, Posterior, ("cpu",), draws=True
)


# --- a memory of what was shown ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MemoryConfig:
    """Settings of the memory learner."""

    size: int = 32  # Numbers in a key.
    sharpness: float = 10.0  # Factor of the cosine between a query and a key.
    learning_rate: float = 0.003  # Learning rate of Adam.


class Slots(NamedTuple):
    images: Tensor  # [N, S, H, W, C]: all that was shown
    labels: Tensor  # [N, S]


@dataclass(frozen=True)
class MemoryNetwork(FeedForward):
    sharpness: float

    def step(self, params, memory, observation, previous):
        own = {name: value for name, value in params.items() if not name.startswith("slot")}
        keys, asked = (embed(own, images) for images in (params["slot images"], observation.images))
        likeness = (self.sharpness * asked @ keys.mT).softmax(dim=-1)
        values = F.one_hot(params["slot labels"]).to(likeness.dtype)
        return (likeness @ values).clamp(min=1e-6).log(), ()


def embed(params, images):
    return F.normalize(mlp(params, images.flatten(-3), "relu"), dim=-1)


class MemoryLearner(Learner):
    """Keys, values and the most similar key: what was shown is written, and read when a query comes."""

    def __init__(self, context, config):
        self.config, self.family, self.shape = config, context.family, context.details.shape
        self.network = MemoryNetwork(config.sharpness)

    def init(self, key):
        width = self.shape.side**2 * self.shape.num_channels
        return begin_descent(init_mlp((width, 64, self.config.size), xavier_uniform(key.torch_generator())))

    def begin(self, state, num_tasks, key):
        side, channels = self.shape.side, self.shape.num_channels
        return Slots(torch.zeros(num_tasks, 0, side, side, channels), torch.zeros(num_tasks, 0, dtype=torch.int64))

    def adapt(self, state, adapted, data, key):
        return Slots(*(torch.cat(pair, dim=1) for pair in zip(adapted, data[:2], strict=True)))

    def actor(self, state, adapted, key):
        written = {"slot images": adapted.images, "slot labels": adapted.labels}
        return Actor(self.network, stack(state.params, len(adapted.labels)) | written)

    def meta_step(self, state, tasks, key):
        support, query = (self.family.collector.collect(tasks, None, key.at_phase(phase)) for phase in (0, 1))
        written = self.adapt(state, self.begin(state, len(tasks), key), support, key)

        def log_probs(params):
            outputs, _ = self.actor(state._replace(params=params), written, key).step((), query, None)
            return outputs.log_softmax(dim=-1).flatten(0, 1)

        def loss(params):
            return F.nll_loss(log_probs(params), query.labels.flatten())

        right = (log_probs(state.params).argmax(dim=-1) == query.labels.flatten()).double().mean().item()
        state, value = descend(loss, state, AdamConfig(self.config.learning_rate))
        return state, Report({"accuracy_after": right, "loss": value}, {})


MEMORY = Entry(
    "memory-proof", "A memory of keys and values", {"pictures": MemoryConfig}, MemoryLearner, ("cpu",), any_ways=True
)
