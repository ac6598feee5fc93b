"""The networks of the Neural Statistician (Edwards and Storkey 2017): a generative model of sets and its posteriors.

    p(D) = integral p(c) prod_x integral p(x | z_1..L, c) p(z_L | c) prod_i p(z_i | z_i+1, c) dz dc      (equation 5)

Axes: S sets of K observations each; F features of an observation; C numbers of the context c; Z of each latent z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from maml_rl.core.gaussians import Gaussian, kl, standard
from maml_rl.core.trees import Params
from maml_rl.networks.blocks import Block, Kind, Normalise, glorot, init_blocks, init_norm, run_blocks


@dataclass(frozen=True)
class Sizes:
    """Widths and depths of the networks that are not of observations; the defaults are for Omniglot."""

    context_size: int = 512  # Numbers of the context, which describes a set.
    latent_size: int = 16  # Numbers of each latent variable, which describes one observation of a set.
    num_latents: int = 1  # Latent variables of an observation, one above the other.
    hidden_size: int = 256  # Units of every hidden layer.
    num_hidden: int = 3  # Layers between the inputs and the Gaussian of a latent variable, with a residual connection.
    num_pooled: int = 2  # Hidden layers of the statistic network behind its mean over the set.

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"sizes.{name} must be at least 1, got {value}")


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


class Noise(NamedTuple):
    """Everything random in one evaluation of the bound."""

    kept: Tensor  # [S, K]: 1 where the statistic network sees the observation, else 0; at least one of each set
    context: Tensor  # [S, C], standard normal
    latents: Tensor  # [L, S, K, Z], standard normal, z_1 first


class Bound(NamedTuple):
    """The parts of the lower bound on log p(D) of each set: reconstruction - context - latents."""

    reconstruction: Tensor  # [S]: E[sum over x of log p(x | z, c)]
    context: Tensor  # [S]: KL(q(c | D) || p(c))
    latents: Tensor  # [S]: E[sum over x and i of KL(q(z_i | z_i+1, x, c) || p(z_i | z_i+1, c))]

    @property
    def total(self) -> Tensor:
        """The bound [S]. The paper's equation 7 prints the divergences with a plus; equation 4 has the right signs."""
        return self.reconstruction - self.context - self.latents


@dataclass(frozen=True)
class Statistician:
    """Statistic network, inference networks, latent decoders, observation decoder: functions of one parameter dict."""

    coder: Coder
    sizes: Sizes

    def init(self, generator: torch.Generator) -> Params:
        size, width = self.sizes, self.sizes.hidden_size
        features, context, latent = self.coder.num_features, size.context_size, size.latent_size
        params = self.coder.init(generator, width)
        params |= init_blocks(generator, "before", self._before)
        params |= init_blocks(generator, "behind", self._behind)
        params |= self._init_gaussian(generator, "statistic", context)
        for level in range(size.num_latents):
            above = {} if level == size.num_latents - 1 else {"above": latent}
            for name, inputs in (("inference", {"features": features}), ("prior", {})):
                widths = {**inputs, "context": context, **above}
                params |= self._init_joined(generator, f"{name}{level}", widths)
                params |= init_blocks(generator, f"{name}{level}", self._residual)
                params |= self._init_gaussian(generator, f"{name}{level}", latent)
        each = {f"latent{level}": latent for level in range(size.num_latents)}
        return params | self._init_joined(generator, "decoder", {**each, "context": context})

    # --- the statistic network --------------------------------------------------------------------------------

    def instances(self, params: Params, features: Tensor, normalise: Normalise) -> Tensor:
        """The part of the statistic network before its mean over the set: [b, F] to [b, H]."""
        return run_blocks(params, "before", self._before, features, normalise)

    def context(self, params: Params, mean: Tensor, count: Tensor, normalise: Normalise) -> Gaussian:
        """q(c | D), [S, C], from the mean [S, H] over `count` [S] instances of each set, which is a further input."""
        pooled = torch.cat([mean, count.unsqueeze(-1).to(mean.dtype)], dim=-1)
        hidden = run_blocks(params, "behind", self._behind, pooled, normalise)
        return self._gaussian(params, "statistic", hidden, normalise)

    # --- latent variables -------------------------------------------------------------------------------------

    def prior(
        self, params: Params, level: int, above: Tensor | None, context: Tensor, normalise: Normalise
    ) -> Gaussian:
        """p(z_i | z_i+1, c), [S, K, Z]; of the highest level p(z_L | c), [S, 1, Z].

        Args:
            above: z_i+1 [S, K, Z], None at the highest level.
            context: [S, C].
        """
        return self._latent(params, f"prior{level}", {"context": context.unsqueeze(1)}, above, normalise)

    def posterior(
        self, params: Params, level: int, features: Tensor, above: Tensor | None, context: Tensor, normalise: Normalise
    ) -> Gaussian:
        """q(z_i | z_i+1, x, c), [S, K, Z], from features [S, K, F]; the others as in `prior`."""
        inputs = {"features": features, "context": context.unsqueeze(1)}
        return self._latent(params, f"inference{level}", inputs, above, normalise)

    def decode(self, params: Params, latents: list[Tensor], context: Tensor, normalise: Normalise) -> Tensor:
        """The numbers of p(x | z_1..L, c), [S K, ...], from z_1..L, each [S, K, Z], and c [S, C]."""
        inputs = {f"latent{level}": latent for level, latent in enumerate(latents)}
        hidden = self._joined(params, "decoder", {**inputs, "context": context.unsqueeze(1)})
        return self.coder.decode(params, hidden.flatten(0, 1), normalise)

    def imagine(self, params: Params, context: Tensor, noise: Tensor, normalise: Normalise) -> Tensor:
        """The means of new observations of sets, [S K, ...], with z drawn from the priors.

        Args:
            context: [S, C].
            noise: [L, S, K, Z], standard normal, z_1 first.
        """
        latents: list[Tensor] = []
        for level in reversed(range(len(noise))):
            above = latents[0] if latents else None
            latents.insert(0, self.prior(params, level, above, context, normalise).draw(noise[level]))
        return self.coder.mean(self.decode(params, latents, context, normalise))

    def bound(
        self, params: Params, observations: Tensor, noise: Noise, normalise: Normalise
    ) -> tuple[Bound, Tensor, Tensor]:
        """The lower bound on log p(D) with one draw of everything (equations 6 and 7).

        Args:
            observations: [S, K, ...].
        Returns:
            The bound; the instances [S, K, H] that the statistic is a mean of; and the means that observations are
            decoded to, without a gradient.
        """
        num_sets, size = observations.shape[:2]
        flat = observations.flatten(0, 1)
        features = self.coder.encode(params, flat, normalise)
        instances = self.instances(params, features, normalise).unflatten(0, (num_sets, size))
        about = self.context(params, *pooled(instances, noise.kept), normalise)
        context = about.draw(noise.context)
        features = features.unflatten(0, (num_sets, size))
        latents: list[Tensor] = []
        divergence = context.new_zeros(num_sets)
        for level in reversed(range(len(noise.latents))):
            above = latents[0] if latents else None
            found = self.posterior(params, level, features, above, context, normalise)
            divergence = divergence + kl(found, self.prior(params, level, above, context, normalise)).sum(dim=-1)
            latents.insert(0, found.draw(noise.latents[level]))
        decoded = self.decode(params, latents, context, normalise)
        likelihood = self.coder.log_likelihood(decoded, flat).unflatten(0, (num_sets, size))
        bound = Bound(likelihood.sum(dim=-1), kl(about, standard(about.mean)), divergence)
        return bound, instances, self.coder.mean(decoded.detach())

    # --- parts ------------------------------------------------------------------------------------------------

    @property
    def _before(self) -> list[Block]:
        return [Block("dense", self.coder.num_features, self.sizes.hidden_size)]

    @property
    def _behind(self) -> list[Block]:
        width = self.sizes.hidden_size
        return [Block("dense", width + (place == 0), width) for place in range(self.sizes.num_pooled)]

    @property
    def _residual(self) -> list[Block]:
        return [Block("dense", self.sizes.hidden_size, self.sizes.hidden_size)] * self.sizes.num_hidden

    def _init_joined(self, generator: torch.Generator, name: str, widths: dict[str, int]) -> Params:
        hidden = self.sizes.hidden_size
        weights = {f"{name}.{part}.weight": glorot(generator, (width, hidden)) for part, width in widths.items()}
        return weights | {f"{name}.join.bias": torch.zeros(hidden)}

    def _joined(self, params: Params, name: str, inputs: dict[str, Tensor]) -> Tensor:
        """ELU of a linear map of all the inputs side by side; those of a whole set have 1 in place of K."""
        total = params[f"{name}.join.bias"]
        for part, value in inputs.items():
            total = total + value @ params[f"{name}.{part}.weight"]
        return F.elu(total)

    def _init_gaussian(self, generator: torch.Generator, name: str, size: int) -> Params:
        weight = {f"{name}.out.weight": glorot(generator, (self.sizes.hidden_size, 2 * size))}
        return weight | init_norm(f"{name}.out", 1)

    def _gaussian(self, params: Params, name: str, hidden: Tensor, normalise: Normalise) -> Gaussian:
        """A Gaussian whose means and log-variances are normalised together, as one channel: it keeps variances sane."""
        outputs = hidden @ params[f"{name}.out.weight"]
        return Gaussian(*normalise(f"{name}.out", outputs.reshape(-1, 1)).view_as(outputs).chunk(2, dim=-1))

    def _latent(
        self, params: Params, name: str, inputs: dict[str, Tensor], above: Tensor | None, normalise: Normalise
    ) -> Gaussian:
        inputs = inputs if above is None else {**inputs, "above": above}
        hidden = self._joined(params, name, inputs)
        rows = run_blocks(params, name, self._residual, hidden.flatten(0, 1), normalise, residual=True)
        return self._gaussian(params, name, rows.view_as(hidden), normalise)


def pooled(instances: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The mean [S, H] over the instances [S, K, H] that are kept [S, K], and their number [S]."""
    count = kept.sum(dim=-1)
    return torch.einsum("skh,sk->sh", instances, kept) / count.unsqueeze(-1), count


Precision = Literal["float32", "bfloat16"]


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


NUM_STAGES = 3


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
