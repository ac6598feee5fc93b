"""The networks of the Neural Statistician (Edwards and Storkey 2017): a generative model of sets and its posteriors.

    p(D) = integral p(c) prod_x integral p(x | z_1..L, c) p(z_L | c) prod_i p(z_i | z_i+1, c) dz dc      (equation 5)

Axes: S sets of K observations each; F features of an observation; C numbers of the context c; Z of each latent z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maml_rl.core.gaussians import Gaussian, kl, standard
from maml_rl.core.trees import Params
from maml_rl.networks.blocks import Block, Normalise, glorot, init_blocks, init_norm, run_blocks
from maml_rl.networks.coders import Coder


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
