"""What learners share that compare pictures by their features: training by episodes, normalisation of the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.convnet import (
    ConvConfig,
    Normalise,
    RunningStatistics,
    by_batch,
    init_encoder,
    init_statistics,
    unnormalised,
)
from maml_rl.core.lift import Threads
from maml_rl.core.maml import Clock, params_of
from maml_rl.core.outer.gradient import GradientConfig, Moments, gradient_step, init_moments
from maml_rl.core.params import Params, as_leaves, flatten, take_task, unflatten
from maml_rl.core.protocols import EVALUATION, Key, Predictor, Report, State
from maml_rl.supervised.classification import cross_entropy, encode_presented, is_right, query_of, support_of
from maml_rl.supervised.episodes import Episode, EpisodeStream, Examples


class Encoded(NamedTuple):
    """Features of episodes; axes before those shown are the episodes'."""

    support: Tensor  # [..., S, F]
    labels: Tensor  # [..., S, ways]: 1 at the class, else 0
    query: Tensor  # [..., B, F]


class MetricLearner:
    """A Learner and FewShotLearner: an encoder trained so that comparing features gives the right class.

    Subclasses say what comparing is. There is nothing to adapt but what is remembered of the support.
    """

    recorded_steps: tuple[int, ...] = (0,)

    def __init__(self, stream: EpisodeStream, network: ConvConfig, outer: GradientConfig, threads: Threads):
        """
        Args:
            stream: of training; at test other numbers of classes and pictures may come.
        """
        self.stream, self.network, self._outer, self._threads = stream, network, outer, threads

    def log_probs(self, params: Params, encoded: Encoded) -> Tensor:
        """[..., B, ways]: the queries' log-probabilities."""
        raise NotImplementedError

    def init_comparison(self, generator: torch.Generator, num_features: int) -> Params:
        """Parameters besides the encoder's."""
        return {}

    def init(self, key: Key) -> State:
        generator = torch.Generator().manual_seed(int(key.rng().integers(2**63)))
        _, height, _, channels = self.stream.data.images.shape
        params = init_encoder(generator, self.network, channels)
        params |= self.init_comparison(generator, self.network.num_features(height))
        state = {f"params/{name}": value for name, value in params.items()}
        state |= {f"adam/{name}": value for name, value in init_moments(flatten(params))._asdict().items()}
        if self.network.norm == "running":
            state |= {f"running/{name}": value for name, value in init_statistics(self.network).items()}
        return state

    def meta_step(self, state: State, tasks: Sequence[Episode], key: Key) -> tuple[State, Report]:
        """One step of Adam on the mean over the episodes of -log p(class of a query)."""
        clock, theta = Clock(), params_of(state)
        with clock("sample_seconds"):
            support = support_of(self.stream, tasks)
            query = query_of(self.stream, tasks, self.network)
        with clock("outer_seconds"), self._threads.inside_products():
            leaves, statistics = as_leaves(theta), _statistics(state)
            losses, right = [], []
            for i in range(len(tasks)):
                normalise = _normalise(leaves, statistics, training=True)
                own = take_task(query, i)
                log_probs = self.log_probs(leaves, self._encode(leaves, take_task(support, i), own, normalise))
                losses.append(cross_entropy(log_probs, own.labels))
                right.append(is_right(log_probs, own.labels))
                if isinstance(normalise, RunningStatistics):
                    statistics = normalise.statistics
            loss = torch.stack(losses).mean()
            slopes = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True, allow_unused=True)
            gradient = torch.cat([slope.reshape(-1) for slope in slopes])
            moments = Moments(**{name: state[f"adam/{name}"] for name in Moments._fields})
            vector, moments = gradient_step(flatten(theta), gradient, moments, self._outer)
        new = {f"params/{name}": value for name, value in unflatten(vector, theta).items()}
        new |= {f"adam/{name}": value for name, value in moments._asdict().items()}
        new |= {f"running/{name}": value for name, value in statistics.items()}
        metrics = {
            "accuracy_after": torch.stack(right).double().mean().item(),
            "loss": loss.item(),
            "gradient_norm": gradient.norm().item(),
        }
        return new, Report(metrics, clock.seconds)

    def predict(self, state: State, support: Examples, query: Examples, key: Key) -> Tensor:
        """[1, N, B, ways] log-probabilities."""
        params = params_of(state)
        normalise = _normalise(params, _statistics(state), training=False)
        with torch.no_grad(), self._threads.inside_products():
            return self.log_probs(params, self._encode(params, support, query, normalise)).unsqueeze(0)

    def adapt(self, state: State, supports: Sequence[Examples]) -> Predictor:
        """Pictures [..., H, W, C] to log-probabilities [..., ways], after seeing `supports[0]`, one episode's."""
        support = supports[0]
        alone = self.network.norm in ("batch", "support")  # each picture beside the support, so that one is enough

        def classify(images: Tensor) -> Tensor:
            rows = images.reshape(-1, *images.shape[-3:]).to(support.images)
            if alone:
                company = support.images.expand(len(rows), *support.images.shape[1:])
                many = Examples(company, support.labels.expand(len(rows), -1), company[:, :0])
                query = Examples(rows.unsqueeze(1), support.labels[:, :0], company)
            else:
                many, query = support, Examples(rows.unsqueeze(0), support.labels[:, :0], support.images[:, :0])
            log_probs = self.predict(state, many, query, Key(0, EVALUATION, 0))
            return log_probs.reshape(*images.shape[:-3], -1).to(images.device)

        return classify

    def _encode(self, params: Params, support: Examples, query: Examples, normalise: Normalise) -> Encoded:
        network, size = self.network, support.images.shape[-4]
        one_hot = torch.nn.functional.one_hot(support.labels).to(support.images.dtype)
        if network.norm == "support":
            features = encode_presented(params, support.images, support.context, network, normalise)
            return Encoded(features, one_hot, encode_presented(params, query.images, query.context, network, normalise))
        both = torch.cat([support.images, query.images], dim=-4)  # one batch, as far as normalisation is concerned
        features = encode_presented(params, both, support.context, network, normalise)
        return Encoded(features[..., :size, :], one_hot, features[..., size:, :])


def _statistics(state: State) -> Params:
    return {name.removeprefix("running/"): v for name, v in state.items() if name.startswith("running/")}


def _normalise(params: Params, statistics: Params, training: bool) -> Normalise:
    if statistics:
        return RunningStatistics(params, statistics, training)
    return by_batch(params) if "norm0.scale" in params else unnormalised


def squared_distance(left: Tensor, right: Tensor) -> Tensor:
    """[..., A, F] and [..., B, F] to [..., A, B]."""
    return (left.unsqueeze(-2) - right.unsqueeze(-3)).square().sum(dim=-1)
