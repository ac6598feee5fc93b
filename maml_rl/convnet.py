"""The four-layer convolutional encoder of the few-shot papers, as functions of a parameter dict."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from maml_rl.core.params import Params

NUM_LAYERS = 4
EPSILON = 1e-3  # keeps normalisation finite; that of MAML's published code

NormPolicy = Literal["batch", "support", "running", "none"]

Normalise = Callable[[int, Tensor], Tensor]
"""(layer, what its convolution gives [..., b, h, w, C]) -> the same shape."""


@dataclass(frozen=True)
class ConvConfig:
    """Four times: a 3 x 3 convolution, normalisation, ReLU; then, for learners that need it, a linear layer."""

    architecture: Literal["strided", "pooled"] = "strided"
    """strided: convolutions of stride 2, as in MAML. pooled: of stride 1, each followed by 2 x 2 max-pooling, as in
    Matching and Prototypical Networks."""
    num_filters: int = 64
    features: Literal["mean", "flatten"] = "mean"
    """What becomes of the last map: its mean over all places, or all its numbers."""
    norm: NormPolicy = "batch"
    """Where normalisation takes its statistics from. batch: the pictures computed together, so that predictions depend
    on the other queries (transductive). support: the support and one query. running: averages over training. none: no
    normalisation."""
    head_std: float = 1.0
    """Of the normal distribution that the linear layer's initial weights are drawn from."""

    def __post_init__(self) -> None:
        if self.num_filters < 1:
            raise ValueError(f"num_filters must be at least 1, got {self.num_filters}")
        if not 0.0 <= self.head_std < float("inf"):
            raise ValueError(f"head_std must be at least 0 and finite, got {self.head_std}")

    def num_features(self, image_size: int) -> int:
        """
        Raises:
            ValueError: if the pictures are too small for four halvings.
        """
        side = image_size
        for _ in range(NUM_LAYERS):
            side = math.ceil(side / 2) if self.architecture == "strided" else side // 2
        if side < 1:
            raise ValueError(f"image_size must be at least {2**NUM_LAYERS} for max-pooling, got {image_size}")
        return self.num_filters * (side**2 if self.features == "flatten" else 1)


def init_encoder(generator: torch.Generator, config: ConvConfig, num_channels: int) -> Params:
    """Weights [out, in, 3, 3] uniform by Glorot and Bengio 2010, biases 0, scales 1."""
    params: Params = {}
    width = num_channels
    for layer in range(NUM_LAYERS):
        shape = (config.num_filters, width, 3, 3)
        bound = (6.0 / (9 * (width + config.num_filters))) ** 0.5
        params[f"conv{layer}.weight"] = (2.0 * torch.rand(shape, generator=generator) - 1.0) * bound
        params[f"conv{layer}.bias"] = torch.zeros(config.num_filters)
        if config.norm != "none":
            params[f"norm{layer}.scale"] = torch.ones(config.num_filters)
            params[f"norm{layer}.bias"] = torch.zeros(config.num_filters)
        width = config.num_filters
    return params


def init_head(generator: torch.Generator, num_features: int, ways: int, std: float) -> Params:
    return {
        "head.weight": std * torch.randn(num_features, ways, generator=generator),
        "head.bias": torch.zeros(ways),
    }


def encode(params: Params, images: Tensor, config: ConvConfig, normalise: Normalise) -> Tensor:
    """Features of pictures under one set of parameters, or under one for each of N tasks.

    Args:
        images: [..., b, H, W, C]; with stacked parameters axis 0 is the task.
    Returns:
        [..., b, features].
    """
    stride = 2 if config.architecture == "strided" else 1
    hidden = images
    for layer in range(NUM_LAYERS):
        hidden = conv3x3(hidden, params[f"conv{layer}.weight"], params[f"conv{layer}.bias"], stride)
        hidden = torch.relu(normalise(layer, hidden))
        if config.architecture == "pooled":
            hidden = max_pool(hidden)
    return hidden.mean(dim=(-3, -2)) if config.features == "mean" else hidden.flatten(-3)


def max_pool(hidden: Tensor) -> Tensor:
    """The largest of each 2 x 2 places: [..., H, W, C] to [..., H // 2, W // 2, C]."""
    pooled = F.max_pool2d(hidden.flatten(0, -4).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return pooled.unflatten(0, hidden.shape[:-3])


def conv3x3(images: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Convolution with one pixel of padding on every side: [..., H, W, in] to [..., ceil(H / stride), ..., out].

    With weights stacked over N tasks it is one batched product of all patches with the weights: grouped convolution,
    which is the other way, takes several times as long on CPUs, above all in its second derivatives.

    Args:
        weight, bias: [out, in, 3, 3] and [out], or with the same leading axis N as `images`.
    """
    flat = images.flatten(0, -4)
    if weight.dim() == 4:
        convolved = F.conv2d(flat.permute(0, 3, 1, 2), weight, bias, stride, padding=1).permute(0, 2, 3, 1)
    else:
        columns = Patches.apply(flat, stride)
        rows = columns.reshape(len(weight), -1, columns.shape[-1])
        matrix = weight.permute(0, 3, 4, 2, 1).reshape(len(weight), -1, weight.shape[1])  # [N, 9 in, out]
        convolved = torch.baddbmm(bias.unsqueeze(1), rows, matrix).view(*columns.shape[:-1], -1)
    return convolved.unflatten(0, images.shape[:-3])


class Patches(torch.autograd.Function):
    """The 3 x 3 surroundings of every place: [M, H, W, C] to [M, h, w, 9 C]. Linear; `_Overlay` is its transpose."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, stride: int) -> Tensor:
        ctx.height, ctx.width, ctx.stride = images.shape[1], images.shape[2], stride
        padded = F.pad(images, (0, 0, 1, 1, 1, 1)).contiguous()
        count, height, width, channels = images.shape
        down, right = padded.stride(1), padded.stride(2)
        return padded.as_strided(  # runs of 3 C numbers lie together in memory
            (count, (height - 1) // stride + 1, (width - 1) // stride + 1, 3, 3 * channels),
            (padded.stride(0), stride * down, stride * right, down, 1),
        ).flatten(3)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Overlay.apply(gradients[0], ctx.height, ctx.width, ctx.stride), None


class _Overlay(torch.autograd.Function):
    """Adds patches up where they came from: [M, h, w, 9 C] to [M, H, W, C]."""

    @staticmethod
    def forward(ctx: Any, patches: Tensor, height: int, width: int, stride: int) -> Tensor:
        ctx.stride = stride
        count, rows, columns, _ = patches.shape
        pieces = patches.reshape(count, rows, columns, 3, 3, -1)
        padded = patches.new_zeros(count, height + 2, width + 2, pieces.shape[-1])
        for i in range(3):
            for j in range(3):
                place = padded[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
                place[:, :rows, :columns] += pieces[:, :, :, i, j]
        return padded[:, 1 : height + 1, 1 : width + 1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return Patches.apply(gradients[0].contiguous(), ctx.stride), None, None, None


def unnormalised(layer: int, hidden: Tensor) -> Tensor:
    return hidden


def by_batch(params: Params) -> Normalise:
    """Mean 0 and variance 1 over the pictures of the last batch axis and all their places; then scale and bias."""

    def normalise(layer: int, hidden: Tensor) -> Tensor:
        scale, bias = params[f"norm{layer}.scale"], params[f"norm{layer}.bias"]
        if scale.dim() == 1 and hidden.dim() == 4:  # one batch, one set of parameters: torch's own is faster
            turned = hidden.permute(0, 3, 1, 2)
            return F.batch_norm(turned, None, None, scale, bias, training=True, eps=EPSILON).permute(0, 2, 3, 1)
        variance, mean = torch.var_mean(hidden, dim=(-4, -3, -2), correction=0, keepdim=True)
        if scale.dim() == 2:
            scale, bias = (p.view(len(p), *(1,) * (hidden.dim() - 2), -1) for p in (scale, bias))
        slope = torch.rsqrt(variance + EPSILON) * scale
        return torch.addcmul(bias - mean * slope, hidden, slope)  # one pass over what is large

    return normalise


class RunningStatistics:
    """Averages over training of what `by_batch` computes; momentum and correction are those of torch.nn.BatchNorm2d."""

    MOMENTUM = 0.1

    def __init__(self, params: Params, statistics: Params, training: bool):
        """
        Args:
            statistics: `init_statistics`, or what earlier batches have made of it.
            training: normalise by the batch and move the averages, which are in `statistics` then, towards it.
        """
        self._params, self._training = params, training
        self.statistics = {name: value.clone() for name, value in statistics.items()}  # torch writes into them

    def __call__(self, layer: int, hidden: Tensor) -> Tensor:
        normalised = F.batch_norm(
            hidden.flatten(0, -4).permute(0, 3, 1, 2),
            self.statistics[f"norm{layer}.mean"],
            self.statistics[f"norm{layer}.variance"],
            self._params[f"norm{layer}.scale"],
            self._params[f"norm{layer}.bias"],
            self._training,
            self.MOMENTUM,
            EPSILON,
        )
        return normalised.permute(0, 2, 3, 1).unflatten(0, hidden.shape[:-3])


def init_statistics(config: ConvConfig) -> Params:
    statistics: Params = {}
    for layer in range(NUM_LAYERS):
        statistics[f"norm{layer}.mean"] = torch.zeros(config.num_filters)
        statistics[f"norm{layer}.variance"] = torch.ones(config.num_filters)
    return statistics
