"""Few-shot classification as a task family: episodes, a convolutional network, cross-entropy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from maml_rl.convnet import ConvConfig, Normalise, NormPolicy, by_batch, encode, init_encoder, init_head, unnormalised
from maml_rl.core.lift import takes_stacked
from maml_rl.core.output_map import AutogradMap, OutputMap
from maml_rl.core.params import Params, device_of, to_device
from maml_rl.core.protocols import Key, Predictor
from maml_rl.networks import linear
from maml_rl.supervised.episodes import Episode, EpisodeStream, Examples, gather


class ClassificationFamily:
    """Cross-entropy of a Conv4 with a linear head; the "action" is the prediction and there is no transition."""

    metric = "accuracy"
    higher_is_better = True
    resamples = False

    def __init__(
        self,
        stream: EpisodeStream,
        network: ConvConfig,
        device: torch.device,
        held_out: EpisodeStream | None = None,
    ):
        """held_out: of classes that training never draws, where there are some."""
        self.stream, self.network, self.device, self._held_out = stream, network, device, held_out or stream

    def with_norm(self, norm: NormPolicy) -> ClassificationFamily:
        """The same with another policy of normalisation for the same parameters."""
        return ClassificationFamily(
            self.stream, dataclasses.replace(self.network, norm=norm), self.device, self._held_out
        )

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Episode]:
        return self.stream.sample(num_tasks, rng)

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Episode]:
        return self._held_out.sample(num_tasks, rng)

    def init_params(self, key: Key) -> Params:
        generator = torch.Generator().manual_seed(int(key.rng().integers(2**63)))
        _, height, _, channels = self.stream.data.images.shape
        params = init_encoder(generator, self.network, channels)
        num_features = self.network.num_features(height)
        params |= init_head(generator, num_features, self.stream.size.ways, self.network.head_std)
        return to_device(params, self.device)

    def collect(self, tasks: Sequence[Episode], params: Params, key: Key) -> Examples:
        """The episodes' support before the first gradient step, their queries after it."""
        examples = support_of(self.stream, tasks) if key.phase == 0 else query_of(self.stream, tasks, self.network)
        return to_device(examples, self.device)

    def part(self, data: Examples, share: float) -> Examples:
        count = max(1, round(share * data.labels.shape[1]))
        return data._replace(images=data.images[:, :count], labels=data.labels[:, :count])

    @takes_stacked
    def outputs(self, params: Params, data: Examples) -> Tensor:
        """[..., B, ways] logits."""
        features = encode_presented(params, data.images, data.context, self.network, self._normalise(params))
        return linear(features, params["head.weight"], params["head.bias"])

    def linearize(self, params: Params, data: Examples) -> OutputMap:
        return AutogradMap(self.outputs, params, data)

    def inner_loss_at(self, outputs: Tensor, data: Examples) -> Tensor:
        return cross_entropy(outputs, data.labels)

    def outer_loss_at(self, outputs: Tensor, data: Examples) -> Tensor:
        return self.inner_loss_at(outputs, data)

    def divergence(self, old_outputs: Tensor, outputs: Tensor, data: Examples) -> Tensor:
        """KL between the categorical distributions."""
        old, new = old_outputs.log_softmax(dim=-1), outputs.log_softmax(dim=-1)
        return (old.exp() * (old - new)).sum(dim=-1).mean()

    @takes_stacked
    def score(self, params: Params, data: Examples) -> Tensor:
        """[..., B]: 1 for a right answer, 0 for a wrong one."""
        return is_right(self.outputs(params, data), data.labels)

    def further_scores(self, params: Params, data: Examples) -> dict[str, Tensor]:
        return {}

    def predictor(self, params: Params) -> Predictor:
        """Pictures [..., H, W, C] to logits [..., ways]. With norm "batch" all of one call are normalised together."""

        def predict(images: Tensor) -> Tensor:
            with torch.no_grad():
                batch = images.reshape(-1, *images.shape[-3:]).float().to(device_of(params))
                logits = self.outputs(params, Examples(batch, batch.new_zeros(len(batch)), batch[:0]))
            return logits.reshape(*images.shape[:-3], -1).to(images.device)

        return predict

    def describe(self, batches: Sequence[Examples]) -> dict[str, float]:
        return {}

    def _normalise(self, params: Params) -> Normalise:
        assert self.network.norm != "running", "running averages are no function of the parameters"
        return unnormalised if self.network.norm == "none" else by_batch(params)


def encode_presented(
    params: Params, images: Tensor, context: Tensor, network: ConvConfig, normalise: Normalise
) -> Tensor:
    """Features [..., B, features] of pictures in the company that the policy of normalisation gives them.

    Args:
        images: [..., B, H, W, C].
        context: [..., S, H, W, C]: with norm "support", every picture is normalised in one batch with these alone; of
            none it is normalised with the other pictures.
    """
    if network.norm != "support" or not context.shape[-4]:
        return encode(params, images, network, normalise)
    shape = (*images.shape[:-3], *context.shape[-4:])
    company = torch.cat([context.unsqueeze(-5).expand(shape), images.unsqueeze(-4)], dim=-4)  # [..., B, S + 1, H, W, C]
    return encode(params, company, network, normalise)[..., -1, :]


def support_of(stream: EpisodeStream, tasks: Sequence[Episode]) -> Examples:
    images, labels = gather(stream.data, list(tasks), "support")
    return Examples(images, labels, images[:, :0])


def query_of(stream: EpisodeStream, tasks: Sequence[Episode], network: ConvConfig) -> Examples:
    """The queries, with the support beside them if normalisation needs it."""
    images, labels = gather(stream.data, list(tasks), "query")
    context = gather(stream.data, list(tasks), "support")[0] if network.norm == "support" else images[:, :0]
    return Examples(images, labels, context)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over [B] of -log softmax(logits [B, ways]) at the labels [B]."""
    return -logits.log_softmax(dim=-1).gather(-1, labels.unsqueeze(-1)).mean()


def is_right(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(dim=-1) == labels).float()
