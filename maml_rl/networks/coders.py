"""The networks of the Neural Statistician that see observations: pictures or numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from maml_rl.core.gaussians import Gaussian
from maml_rl.core.trees import Params
from maml_rl.networks.blocks import Block, Kind, Normalise, glorot, init_blocks, run_blocks

NUM_STAGES = 3

Precision = Literal["float32", "bfloat16"]


class Coder(Protocol):
    """The networks that see observations: their encoder, and the distribution that hidden units decode to."""

    @property
    def num_features(self) -> int: ...

    def init(self, generator: torch.Generator, hidden_size: int) -> Params: ...

    def encode(self, params: Params, observations: Tensor, normalise: Normalise) -> Tensor:
        """[b, ...] to [b, F]."""

    def decode(self, params: Params, hidden: Tensor, normalise: Normalise) -> Tensor:
        """[b, H] to the distribution's numbers [b, ...]."""

    def log_likelihood(self, decoded: Tensor, observations: Tensor) -> Tensor:
        """log p(observation), [b]."""

    def mean(self, decoded: Tensor) -> Tensor:
        """The distribution's mean, in the form of observations."""


@dataclass(frozen=True)
class PictureCoder:
    """Convolutions on pictures [b, side, side, 1] of 0 and 1, and independent Bernoulli pixels.

    Three stages of some convolutions, the last of each of stride 2, and back. The published code reaches 28 pixels from
    4 by way of 8, 16 and an unpadded convolution; here maps are cut to the sizes on the way down, 7 and 14, so that any
    size of picture will do.

    With precision bfloat16 all maps, from the pictures to the pixels' logits, have 8 significant bits. Parameters,
    moments of normalisation and everything behind the features keep theirs.
    """

    side: int
    num_filters: int  # of the first stage; twice and four times as many in the others
    num_convolutions: int  # of a stage
    precision: Precision

    @property
    def sides(self) -> list[int]:
        """Of the maps, from the pictures to the features."""
        found = [self.side]
        while len(found) <= NUM_STAGES:
            found.append((found[-1] + 1) // 2)
        return found

    @property
    def num_features(self) -> int:
        return self._widths[-1] * self.sides[-1] ** 2

    @property
    def _widths(self) -> list[int]:
        return [self.num_filters * 2**stage for stage in range(NUM_STAGES)]

    @property
    def _down(self) -> list[Block]:
        befores = [1, *self._widths]
        return [block for stage in range(NUM_STAGES) for block in self._stage(befores[stage], stage, "half")]

    def _up(self, stage: int) -> list[Block]:
        return self._stage(self._widths[min(stage + 1, NUM_STAGES - 1)], stage, "double")

    def _stage(self, before: int, stage: int, last: Kind) -> list[Block]:
        width, more = self._widths[stage], self.num_convolutions - 1
        inputs = [before, *[width] * more]
        return [*(Block("same", each, width) for each in inputs[:-1]), Block(last, inputs[-1], width)]

    def init(self, generator: torch.Generator, hidden_size: int) -> Params:
        params = init_blocks(generator, "encoder", self._down)
        params |= init_blocks(generator, "seed", [Block("dense", hidden_size, self.num_features)])
        for stage in reversed(range(NUM_STAGES)):
            params |= init_blocks(generator, f"decoder.stage{stage}", self._up(stage))
        return params | {
            "pixels.weight": glorot(generator, (1, self.num_filters, 1, 1)),
            "pixels.bias": torch.zeros(1),
        }

    def encode(self, params: Params, observations: Tensor, normalise: Normalise) -> Tensor:
        # channels last, which convolutions and normalisation of torch keep up, is a quarter faster here
        maps = self._rounded(observations).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        features = run_blocks(params, "encoder", self._down, maps, normalise).permute(0, 2, 3, 1).flatten(1)
        return features.to(observations.dtype)

    def decode(self, params: Params, hidden: Tensor, normalise: Normalise) -> Tensor:
        """Logits [b, side, side, 1]."""
        side, width = self.sides[-1], self._widths[-1]
        hidden = run_blocks(params, "seed", [Block("dense", hidden.shape[-1], self.num_features)], hidden, normalise)
        maps = self._rounded(hidden).unflatten(1, (side, side, width)).permute(0, 3, 1, 2)
        for stage in reversed(range(NUM_STAGES)):
            maps = run_blocks(params, f"decoder.stage{stage}", self._up(stage), maps, normalise)
            maps = maps[..., : self.sides[stage], : self.sides[stage]].contiguous(memory_format=torch.channels_last)
        weight, bias = (params[f"pixels.{part}"].to(maps.dtype) for part in ("weight", "bias"))
        return F.conv2d(maps, weight, bias).permute(0, 2, 3, 1).to(hidden.dtype)

    def _rounded(self, maps: Tensor) -> Tensor:
        return maps.bfloat16() if self.precision == "bfloat16" else maps

    def log_likelihood(self, decoded: Tensor, observations: Tensor) -> Tensor:
        return -F.binary_cross_entropy_with_logits(decoded, observations, reduction="none").flatten(1).sum(dim=-1)

    def mean(self, decoded: Tensor) -> Tensor:
        return decoded.sigmoid()


@dataclass(frozen=True)
class NumberCoder:
    """Dense layers on vectors of numbers [b, D], and independent Gaussians."""

    num_numbers: int
    num_features: int  # also the units of its hidden layers
    num_hidden: int

    @property
    def _down(self) -> list[Block]:
        first = Block("dense", self.num_numbers, self.num_features)
        return [first] + [Block("dense", self.num_features, self.num_features)] * (self.num_hidden - 1)

    def _up(self, width: int) -> list[Block]:
        return [Block("dense", width, width)] * self.num_hidden

    def init(self, generator: torch.Generator, hidden_size: int) -> Params:
        params = init_blocks(generator, "encoder", self._down)
        params |= init_blocks(generator, "decoder.stage", self._up(hidden_size))
        weight = glorot(generator, (hidden_size, 2 * self.num_numbers))
        return params | {"numbers.weight": weight, "numbers.bias": torch.zeros(2 * self.num_numbers)}

    def encode(self, params: Params, observations: Tensor, normalise: Normalise) -> Tensor:
        return run_blocks(params, "encoder", self._down, observations, normalise)

    def decode(self, params: Params, hidden: Tensor, normalise: Normalise) -> Tensor:
        """Means and log-variances [b, 2 D]."""
        blocks = self._up(hidden.shape[-1])
        hidden = run_blocks(params, "decoder.stage", blocks, hidden, normalise, residual=True)
        return torch.addmm(params["numbers.bias"], hidden, params["numbers.weight"])

    def log_likelihood(self, decoded: Tensor, observations: Tensor) -> Tensor:
        return Gaussian(*decoded.chunk(2, dim=-1)).log_density(observations)

    def mean(self, decoded: Tensor) -> Tensor:
        return decoded.chunk(2, dim=-1)[0]
