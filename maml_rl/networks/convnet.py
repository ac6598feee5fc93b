"""The four-layer convolutional encoder of the few-shot papers, as functions of a parameter dict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maml_rl.core.trees import Params, map_params
from maml_rl.networks.batch_norm import batch_norm

NUM_LAYERS = 4
EPSILON = 1e-3  # keeps normalisation finite; that of MAML's published code
MOMENTUM = 0.1  # of running averages: the weight of the latest batch

NormPolicy = Literal["batch", "support", "running", "none"]

Normalise = Callable[[int, Tensor], Tensor]
"""(layer, output of its convolution [G, b, h, w, N C]: G groups, the channels of all N tasks) -> the same shape."""


@dataclass(frozen=True)
class ConvConfig:
    """Four blocks of 3 x 3 convolution, normalisation and ReLU; then, for learners that need it, a linear layer."""

    architecture: Literal["strided", "pooled", "paired"] = "strided"
    """Way that maps shrink. strided: convolutions of stride 2, as in MAML. pooled: stride 1, each followed by 2 x 2
    max-pooling, as in Matching and Prototypical Networks. paired: stride 1, 2 x 2 max-pooling after every second one,
    and twice the channels in the last two, as in the memory module."""
    num_filters: int = 64  # Channels of each convolution.
    features: Literal["mean", "flatten"] = "mean"
    """Features from the last map: its mean over all places, or all its numbers."""
    norm: NormPolicy = "batch"
    """Source of the statistics of normalisation. batch: the pictures computed together, so that predictions depend
    on the other queries (transductive). support: the support and one query. running: averages over training. none: no
    normalisation."""
    head_std: float = 1.0
    """Standard deviation of the linear layer's initial weights."""

    def __post_init__(self) -> None:
        if self.num_filters < 1:
            raise ValueError(f"num_filters must be at least 1, got {self.num_filters}")
        if not 0.0 <= self.head_std < float("inf"):
            raise ValueError(f"head_std must be at least 0 and finite, got {self.head_std}")

    def num_features(self, image_size: int) -> int:
        """The number of features of one picture.

        Raises:
            ValueError: if the pictures are too small for four halvings.
        """
        side = image_size
        for layer in range(NUM_LAYERS):
            side = math.ceil(side / self.stride) // (2 if self.pools_after(layer) else 1)
        if side < 1:
            least = 2 ** sum(map(self.pools_after, range(NUM_LAYERS)))
            raise ValueError(f"image_size must be at least {least} for max-pooling, got {image_size}")
        return self.filters(NUM_LAYERS - 1) * (side**2 if self.features == "flatten" else 1)

    @property
    def stride(self) -> int:
        """The stride of every convolution."""
        return 2 if self.architecture == "strided" else 1

    def filters(self, layer: int) -> int:
        """The channels of a layer."""
        return self.num_filters * (2 if self.architecture == "paired" and layer >= NUM_LAYERS // 2 else 1)

    def pools_after(self, layer: int) -> bool:
        """Check whether max-pooling follows a layer."""
        return self.architecture == "pooled" or (self.architecture == "paired" and layer % 2 == 1)

    def first_map_bytes(self, image_size: int) -> int:
        """Size of one picture's first map, which is the largest. [bytes]"""
        return 4 * self.num_filters * math.ceil(image_size / self.stride) ** 2


def init_encoder(generator: torch.Generator, config: ConvConfig, num_channels: int) -> Params:
    """Weights [out, in, 3, 3] uniform by Glorot and Bengio 2010, biases 0, scales 1."""
    params: Params = {}
    width = num_channels
    for layer in range(NUM_LAYERS):
        filters = config.filters(layer)
        bound = (6.0 / (9 * (width + filters))) ** 0.5
        params[f"conv{layer}.weight"] = (2.0 * torch.rand((filters, width, 3, 3), generator=generator) - 1.0) * bound
        params[f"conv{layer}.bias"] = torch.zeros(filters)
        if config.norm != "none":
            params[f"norm{layer}.scale"] = torch.ones(filters)
            params[f"norm{layer}.bias"] = torch.zeros(filters)
        width = filters
    return params


def init_head(generator: torch.Generator, num_features: int, ways: int, std: float) -> Params:
    return {
        "head.weight": std * torch.randn(num_features, ways, generator=generator),
        "head.bias": torch.zeros(ways),
    }


def laid_out(params: Params) -> Params:
    """The same parameters with the weights of convolutions, [..., out, in, h, w], laid out in memory as maps are, with
    the channels last. Convolutions would copy them to this order in every call."""

    def channels_last(p: Tensor) -> Tensor:
        return p.movedim(-3, -1).contiguous().movedim(-1, -3) if p.dim() >= 4 else p

    return map_params(channels_last, params)


def encode(params: Params, images: Tensor, config: ConvConfig, normalise: Normalise) -> Tensor:
    """Features of pictures under one set of parameters, or under one for each of N tasks.

    N tasks lie side by side as channels of one grouped convolution: on CPUs, with its second derivatives, that takes
    four fifths of the time of one batched product of all patches with all weights. Channels are the last axis in memory
    (docs/few_shot.md).

    Args:
        images: [..., b, H, W, C]; with stacked parameters axis 0 is the task. What is normalised together is b.
    Returns:
        [..., b, features].
    """
    is_stacked = params["conv0.weight"].dim() == 5
    rows = images if is_stacked else images.unsqueeze(0)
    num_tasks, groups = len(rows), rows.shape[1:-4]
    rows = rows.reshape(num_tasks, -1, *rows.shape[-4:]).permute(1, 2, 3, 4, 0, 5)  # [G, b, H, W, N, C]
    batches = rows.shape[:2]
    hidden = rows.flatten(4).flatten(0, 1).contiguous()  # [G b, h, w, N C]
    for layer in range(NUM_LAYERS):
        weight = params[f"conv{layer}.weight"].reshape(-1, *params[f"conv{layer}.weight"].shape[-3:])
        bias = params[f"conv{layer}.bias"].reshape(-1)
        maps = F.conv2d(hidden.permute(0, 3, 1, 2), weight, bias, config.stride, padding=1, groups=num_tasks)
        hidden = normalise(layer, maps.permute(0, 2, 3, 1).unflatten(0, batches)).flatten(0, 1)
        if config.pools_after(layer):
            hidden = F.max_pool2d(hidden.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        hidden = hidden.relu()  # after pooling: the same numbers and slopes, from a quarter of the map
    last = hidden.unflatten(-1, (num_tasks, -1)).permute(3, 0, 1, 2, 4)  # [N, G b, h, w, C]
    features = last.mean(dim=(-3, -2)) if config.features == "mean" else last.flatten(-3)
    features = features.reshape(num_tasks, *groups, batches[1], -1)
    return features if is_stacked else features.squeeze(0)


def unnormalised(layer: int, hidden: Tensor) -> Tensor:
    return hidden


def by_batch(params: Params) -> Normalise:
    """Mean 0 and variance 1 over the b pictures of a group and all their places; then scale and bias."""

    def normalise(layer: int, hidden: Tensor) -> Tensor:
        scale, bias = params[f"norm{layer}.scale"].reshape(-1), params[f"norm{layer}.bias"].reshape(-1)
        rows = hidden.flatten(1, -2)  # [G, b h w, N C]
        if len(rows) == 1:  # spares a copy
            return batch_norm(rows.squeeze(0), scale, bias, EPSILON).view_as(hidden)
        return torch.stack([batch_norm(group, scale, bias, EPSILON) for group in rows.unbind()]).view_as(hidden)

    return normalise


class BatchMoments(NamedTuple):
    """Mean and variance of each of N batches, over its pictures and all their places."""

    mean: Tensor  # [N, C]
    variance: Tensor  # [N, C], divided by the count
    num_values: int  # pictures times places


def by_statistics(params: Params, statistics: Params) -> Normalise:
    """Normalise by `init_statistics`, or by what training has updated them to."""

    def normalise(layer: int, hidden: Tensor) -> Tensor:
        mean, variance = statistics[f"norm{layer}.mean"], statistics[f"norm{layer}.variance"]
        scale, bias = params[f"norm{layer}.scale"], params[f"norm{layer}.bias"]
        rows = F.batch_norm(hidden.flatten(0, -2), mean, variance, scale, bias, training=False, eps=EPSILON)
        return rows.view_as(hidden)

    return normalise


def moved_statistics(statistics: Params, moments: Sequence[BatchMoments]) -> Params:
    """Running averages after N further batches, one by one; momentum and correction are those of torch.nn.BatchNorm2d.

    Args:
        moments: one for each layer.
    """
    new = dict(statistics)
    for layer, (means, variances, count) in enumerate(moments):
        for mean, variance in zip(means, variances * count / (count - 1), strict=True):
            for name, value in ((f"norm{layer}.mean", mean), (f"norm{layer}.variance", variance)):
                new[name] = (1.0 - MOMENTUM) * new[name] + MOMENTUM * value
    return new


def init_statistics(config: ConvConfig) -> Params:
    statistics: Params = {}
    for layer in range(NUM_LAYERS):
        statistics[f"norm{layer}.mean"] = torch.zeros(config.filters(layer))
        statistics[f"norm{layer}.variance"] = torch.ones(config.filters(layer))
    return statistics
