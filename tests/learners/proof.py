"""Three learners that adapt without gradient steps: a hidden state, a posterior, a memory. Proof that the contract is
wide enough: each is a class, a Config and an Entry, and nothing else."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maml_rl.core.acting import FeedForward, answer
from maml_rl.core.adam import AdamConfig, Moments, adam_step, init_moments
from maml_rl.core.contracts import Actor, Previous, Report
from maml_rl.core.statistics import spread
from maml_rl.core.trees import as_leaves, flatten, stack, unflatten
from maml_rl.learners.entry import Entry
from maml_rl.networks.mlp import init_mlp, linear, mlp, xavier_uniform
from maml_rl.networks.recurrent import gru_cell, init_gru


def generator(key):
    return torch.Generator().manual_seed(int(key.rng().integers(2**63)))


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
    hidden_size: int
    is_told: bool
    is_recurrent = True

    def start(self, params, num_episodes):
        return params["memory"].expand(-1, num_episodes, -1)

    def step(self, params, memory, observation, previous):
        told = [previous.actions, previous.rewards.unsqueeze(-1), previous.begins.unsqueeze(-1)]
        inputs = torch.cat([observation, *(part * float(self.is_told) for part in told)], dim=-1)
        memory = gru_cell(params, "gru", inputs, memory)
        return linear(memory, params["head.weight"], params["head.bias"]), memory


class LearnedState(NamedTuple):
    params: dict[str, Tensor]
    adam: Moments


class Recurrent:
    """A policy whose hidden state is all that it knows of a task, trained by plain policy gradients."""

    def __init__(self, context, config):
        self.spec, self.config, self.family = context.details, config, context.family
        self.network = RecurrentPolicy(config.hidden_size, config.is_told)

    def init(self, key):
        draw, spec, size = generator(key), self.spec, self.config.hidden_size
        width = spec.observation_size + spec.distribution.action_width + 2
        head = {"head.weight": 0.1 * torch.randn(size, spec.distribution.network_width, generator=draw)}
        head["head.bias"] = torch.zeros(spec.distribution.network_width)
        params = init_gru("gru", width, size, draw) | head
        return LearnedState(params, init_moments(flatten(params)))

    def begin(self, state, num_tasks, key):
        return torch.zeros(num_tasks, 1, self.config.hidden_size)

    def adapt(self, state, adapted, data, key):
        return data.memory

    def actor(self, state, adapted, key):
        return Actor(self.network, stack(state.params, len(adapted)) | {"memory": adapted})

    def num_gradient_steps(self, adapted):
        return 0

    def meta_step(self, state, tasks, key):
        begun = self.begin(state, len(tasks), key)
        data = self.family.collector.collect(tasks, self.actor(state, begun, key), key)
        leaves = as_leaves(state.params)
        log_probs = self._log_probs(self.actor(LearnedState(leaves, state.adam), begun, key), data)
        rewards = data.rewards.flatten(1)  # a trial is all episodes of a task in a row
        to_go = rewards.flip(1).cumsum(1).flip(1).float()
        advantages = (to_go - to_go.mean(dim=0)) / (to_go.std() + 1e-6)
        loss = -(log_probs * advantages * data.mask.flatten(1)).sum() / data.mask.sum()
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(leaves.values()))])
        adam = AdamConfig(self.config.learning_rate, decay="cosine", decay_steps=self.config.decay_steps)
        vector, moments = adam_step(flatten(state.params), gradient, state.adam, adam)
        scores = self.family.measure.score(data)
        metrics = spread("return_before", scores[:, :1]) | spread("return_after", scores[:, -1:])
        metrics |= self.family.measure.describe([data]) | {"loss": loss.item()}
        return LearnedState(unflatten(vector, state.params), moments), Report(metrics, {})

    def _log_probs(self, actor, data):
        """[N, E * T]: the steps of a rollout in a row once more, with derivatives."""
        memory, rows = actor.start(1), []
        num_tasks, num_episodes, horizon = data.rewards.shape
        last = Previous(torch.zeros_like(data.actions[:, :1, 0]), torch.zeros(num_tasks, 1), torch.ones(num_tasks, 1))
        for episode in range(num_episodes):
            for t in range(horizon):
                last = last._replace(begins=torch.full((num_tasks, 1), float(t == 0)))
                outputs, after = actor.step(memory, data.observations[:, episode : episode + 1, t], last)
                alive = data.mask[:, episode, t].bool().view(-1, 1)
                memory = torch.where(alive.unsqueeze(-1), after, memory)
                actions, rewards = data.actions[:, episode, t].unsqueeze(1), data.rewards[:, episode, t].view(-1, 1)
                rows.append(self.spec.distribution.log_prob(outputs, actions))
                last = last._replace(
                    actions=torch.where(alive.unsqueeze(-1), actions, last.actions),
                    rewards=torch.where(alive, rewards.float(), last.rewards),
                )
        return torch.cat(rows, dim=1)


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


class Posterior:
    """Bayesian linear regression whose prior is meta-learned; an actor is one draw of the weights."""

    def __init__(self, context, config):
        self.config, self.family, self.threads = config, context.family, context.threads

    def init(self, key):
        draw, count = generator(key), self.config.num_features
        return Features(
            torch.zeros(count), torch.randn(count, generator=draw), 6.283 * torch.rand(count, generator=draw)
        )

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

    def num_gradient_steps(self, adapted):
        return 0

    def meta_step(self, state, tasks, key):
        support = self.family.collector.collect(tasks, None, key.at_phase(0))
        query = self.family.collector.collect(tasks, None, key.at_phase(1))
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


class MemoryLearner:
    """Keys, values and the most similar key: what was shown is written, and read when a query comes."""

    def __init__(self, context, config):
        self.config, self.family, self.shape = config, context.family, context.details.shape
        self.network = MemoryNetwork(config.sharpness)

    def init(self, key):
        width = self.shape.side**2 * self.shape.num_channels
        params = init_mlp((width, 64, self.config.size), xavier_uniform(generator(key)))
        return LearnedState(params, init_moments(flatten(params)))

    def begin(self, state, num_tasks, key):
        side, channels = self.shape.side, self.shape.num_channels
        return Slots(torch.zeros(num_tasks, 0, side, side, channels), torch.zeros(num_tasks, 0, dtype=torch.int64))

    def adapt(self, state, adapted, data, key):
        return Slots(*(torch.cat(pair, dim=1) for pair in zip(adapted, data[:2], strict=True)))

    def actor(self, state, adapted, key):
        written = {"slot images": adapted.images, "slot labels": adapted.labels}
        return Actor(self.network, stack(state.params, len(adapted.labels)) | written)

    def num_gradient_steps(self, adapted):
        return 0

    def meta_step(self, state, tasks, key):
        support = self.family.collector.collect(tasks, None, key.at_phase(0))
        query = self.family.collector.collect(tasks, None, key.at_phase(1))
        leaves = as_leaves(state.params)
        written = self.adapt(state, self.begin(state, len(tasks), key), support, key)
        outputs, _ = self.actor(LearnedState(leaves, state.adam), written, key).step((), query, None)
        loss = F.nll_loss(outputs.log_softmax(dim=-1).flatten(0, 1), query.labels.flatten())
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(leaves.values()))])
        vector, moments = adam_step(flatten(state.params), gradient, state.adam, AdamConfig(self.config.learning_rate))
        right = (outputs.argmax(dim=-1) == query.labels).double().mean().item()
        metrics = {"accuracy_after": right, "loss": loss.item()}
        return LearnedState(unflatten(vector, state.params), moments), Report(metrics, {})


MEMORY = Entry(
    "memory-proof", "A memory of keys and values", {"pictures": MemoryConfig}, MemoryLearner, ("cpu",), any_ways=True
)
