"""What learners share that compare pictures by their features: training by episodes, normalisation of the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.convnet import (
    ConvConfig,
    Normalise,
    by_batch,
    by_statistics,
    init_encoder,
    init_statistics,
    moved_statistics,
    unnormalised,
)
from maml_rl.core.lift import Threads, chunk_tasks
from maml_rl.core.maml import Clock, params_of
from maml_rl.core.outer.gradient import GradientConfig, Moments, gradient_step, init_moments
from maml_rl.core.params import Params, as_leaves, flatten, take_tasks, unflatten
from maml_rl.core.protocols import EVALUATION, Key, Predictor, Report, State
from maml_rl.fewshot.encoder_pass import EncoderPass, gradient
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
        with clock("outer_seconds"):
            leaves, passes = as_leaves(theta), self._passes(theta, support, query)
            features = torch.cat([each.features for each in passes], dim=1)
            log_probs = self.log_probs(leaves, _encoded(features, support))
            loss = cross_entropy(log_probs, query.labels)
            slope = gradient(loss, leaves, passes)
            moments = Moments(**{name: state[f"adam/{name}"] for name in Moments._fields})
            vector, moments = gradient_step(flatten(theta), slope, moments, self._outer)
        new = {f"params/{name}": value for name, value in unflatten(vector, theta).items()}
        new |= {f"adam/{name}": value for name, value in moments._asdict().items()}
        if statistics := _statistics(state):
            new |= {f"running/{name}": v for name, v in moved_statistics(statistics, passes[0].moments).items()}
        metrics = {
            "accuracy_after": is_right(log_probs, query.labels).double().mean().item(),
            "loss": loss.item(),
            "gradient_norm": slope.norm().item(),
        }
        return new, Report(metrics, clock.seconds)

    def predict(self, state: State, support: Examples, query: Examples, key: Key) -> Tensor:
        """[1, N, B, ways] log-probabilities."""
        params = params_of(state)
        normalise = _normalise(params, _statistics(state))

        def one_chunk(start: int, stop: int) -> Tensor:
            mine, asked = take_tasks(support, start, stop), take_tasks(query, start, stop)
            with torch.no_grad():
                return self.log_probs(params, self._encode(params, mine, asked, normalise))

        return torch.cat(self._threads.map(one_chunk, *zip(*chunk_tasks(query), strict=True))).unsqueeze(0)

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

    def _passes(self, theta: Params, support: Examples, query: Examples) -> list[EncoderPass]:
        """Through the encoder, with derivatives: support and query as one batch, as far as normalisation is concerned,
        or the support and then each query beside it."""
        if self.network.norm == "support":
            batches = [(support.images, support.context), (query.images, query.context)]
        else:
            batches = [(torch.cat([support.images, query.images], dim=1), support.context)]
        return [EncoderPass(theta, images, context, self.network, self._threads) for images, context in batches]

    def _encode(self, params: Params, support: Examples, query: Examples, normalise: Normalise) -> Encoded:
        """The same without derivatives."""
        network = self.network
        if network.norm == "support":
            parts = [
                encode_presented(params, part.images, part.context, network, normalise) for part in (support, query)
            ]
            return _encoded(torch.cat(parts, dim=-2), support)
        both = torch.cat([support.images, query.images], dim=-4)
        return _encoded(encode_presented(params, both, support.context, network, normalise), support)


def _encoded(features: Tensor, support: Examples) -> Encoded:
    """features: [..., S + B, F], those of the support first."""
    size = support.labels.shape[-1]
    one_hot = torch.nn.functional.one_hot(support.labels).to(features.dtype)
    return Encoded(features[..., :size, :], one_hot, features[..., size:, :])


def _statistics(state: State) -> Params:
    return {name.removeprefix("running/"): v for name, v in state.items() if name.startswith("running/")}


def _normalise(params: Params, statistics: Params) -> Normalise:
    if statistics:
        return by_statistics(params, statistics)
    return by_batch(params) if "norm0.scale" in params else unnormalised


def squared_distance(left: Tensor, right: Tensor) -> Tensor:
    """[..., A, F] and [..., B, F] to [..., A, B]."""
    return (left.unsqueeze(-2) - right.unsqueeze(-3)).square().sum(dim=-1)
