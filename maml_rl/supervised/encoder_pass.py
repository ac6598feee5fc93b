"""The encoder forwards and backwards over large batches, in chunks of pictures that are spread over threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from maml_rl.core.lift import Threads
from maml_rl.core.trees import Params, as_leaves, flatten
from maml_rl.networks.convnet import EPSILON, NUM_LAYERS, BatchMoments, ConvConfig, by_batch
from maml_rl.supervised.classification import encode_presented

CHUNK_PICTURES = 45
"""Pictures in a chunk, roughly: fewer make its products slower, more leave threads without work."""

Result = TypeVar("Result")
Correction = tuple[Tensor, Tensor]
"""[C, 1, 1] each: what is added to the gradient in a layer's maps, as a constant and for each unit of the map."""


class _Chunk(NamedTuple):
    batch: int
    start: int
    stop: int


class EncoderPass:
    """Features of N batches of pictures, and the gradient of whatever is computed from them.

    Normalisation ties all pictures of a batch together. So layers are computed one after the other: every chunk's
    convolution, then the batch's moments from those of its chunks. The chunks follow from the number of pictures alone
    and are added up in their order, hence no bit depends on the number of threads.

    Attributes:
        features: [N, b, features], a leaf for autograd.
        moments: of each layer, over the pictures and places of each batch; empty where there are no such.
    """

    def __init__(
        self,
        params: Params,
        images: Tensor,
        context: Tensor,
        config: ConvConfig,
        threads: Threads,
        chunk_pictures: int = CHUNK_PICTURES,
    ):
        """
        Args:
            params: the encoder's; others are ignored.
            images: [N, b, H, W, C], normalised together.
            context: [N, S, H, W, C]; if S is not 0, each picture is normalised with these alone instead.
        """
        own = {name: p for name, p in params.items() if name.startswith(("conv", "norm"))}
        self._leaves = as_leaves({name: _channels_last(p) for name, p in own.items()})
        self._images, self._context, self._config, self._threads = images, context, config, threads
        self._chunks = _chunks(images, context, chunk_pictures)
        self._is_presented = config.norm == "support" and context.shape[1] > 0
        self._num_stages = 1 if self._is_presented else NUM_LAYERS + 1
        self._inputs: list[list[Tensor]] = []  # of each stage, for each chunk
        self._outputs: list[list[Tensor]] = []
        self.moments: list[BatchMoments] = []
        inputs = [images[chunk.batch, chunk.start : chunk.stop] for chunk in self._chunks]
        for stage in range(self._num_stages):
            self._inputs.append([each.detach().requires_grad_(stage > 0) for each in inputs])
            is_normalised = stage < self._num_stages - 1 and config.norm != "none"
            rows = self._over_chunks(self._forward, stage, [is_normalised] * len(inputs))
            inputs = [row[0] for row in rows]
            self._outputs.append(inputs)
            if is_normalised:
                self.moments.append(self._of_batches(inputs, [row[1:] for row in rows]))
        self.features = torch.cat([each.detach() for each in inputs]).view(*images.shape[:2], -1).requires_grad_()

    def pull(self, slope: Tensor) -> Params:
        """The gradient in the encoder's parameters, from that in the features [N, b, features]."""
        gradient: Params = {}
        slopes = [slope[chunk.batch, chunk.start : chunk.stop] for chunk in self._chunks]
        corrections: Sequence[Correction | None] = [None] * len(slopes)
        for stage in reversed(range(self._num_stages)):
            rows = self._over_chunks(self._backward, stage, slopes, corrections)
            by_chunk = [dict(zip(self._names(stage), row[1:], strict=True)) for row in rows]
            gradient |= {name: _total([each[name] for each in by_chunk]) for name in self._names(stage)}
            slopes = [row[0] for row in rows]
            if stage and self.moments:
                corrections = self._corrections(stage - 1, by_chunk)
        return {name: gradient[name] for name in self._leaves}

    def _over_chunks(self, function: Callable[..., Result], stage: int, *columns: Sequence[Any]) -> list[Result]:
        """`function(stage, place of the chunk, ...)` for every chunk."""
        places = range(len(self._chunks))
        return self._threads.map(function, [stage] * len(places), places, *columns)

    def _names(self, stage: int) -> list[str]:
        """The parameters that a stage uses."""
        if self._is_presented:
            return list(self._leaves)
        return [name for name in self._leaves if name.startswith((f"conv{stage}.", f"norm{stage - 1}."))]

    def _forward(self, stage: int, place: int, is_normalised: bool) -> tuple[Tensor, ...]:
        """A stage's outputs for one chunk and, if these are to be normalised, their mean and variance."""
        with torch.enable_grad():
            outputs = self._stage(stage, self._chunks[place].batch, self._inputs[stage][place])
        return (outputs, *_mean_and_variance(outputs)) if is_normalised else (outputs,)

    def _stage(self, stage: int, batch: int, hidden: Tensor) -> Tensor:
        """Finish the layer before, then convolve by this one: maps [b, C, h, w]; after the last layer, features."""
        if self._is_presented:
            return encode_presented(self._leaves, hidden, self._context[batch], self._config, by_batch(self._leaves))
        hidden = self._ended(stage - 1, batch, hidden) if stage else hidden.permute(0, 3, 1, 2)
        if stage == NUM_LAYERS:
            places = hidden.permute(0, 2, 3, 1)
            return places.mean(dim=(1, 2)) if self._config.features == "mean" else places.flatten(1)
        weight, bias = (self._leaves[f"conv{stage}.{part}"] for part in ("weight", "bias"))
        return F.conv2d(hidden, weight, bias, self._config.stride, padding=1)

    def _ended(self, layer: int, batch: int, hidden: Tensor) -> Tensor:
        if self.moments:
            mean, variance = self.moments[layer].mean[batch], self.moments[layer].variance[batch]
            scale, bias = (self._leaves[f"norm{layer}.{part}"] for part in ("scale", "bias"))
            hidden = F.batch_norm(hidden, mean, variance, scale, bias, training=False, eps=EPSILON)
        if self._config.pools_after(layer):
            hidden = F.max_pool2d(hidden, 2)
        return F.relu(hidden, inplace=bool(self.moments))  # in place where nobody else sees it

    def _backward(self, stage: int, place: int, slope: Tensor, correction: Correction | None) -> tuple[Tensor, ...]:
        """The gradients in a stage's inputs and parameters, with its moments held fixed; in pictures there is none."""
        outputs, own = self._outputs[stage][place], self._inputs[stage][place]
        if correction is not None:
            slope = slope.add_(correction[0]).addcmul_(outputs.detach(), correction[1])
        leaves = [self._leaves[name] for name in self._names(stage)]
        if not stage:
            return slope, *torch.autograd.grad(outputs, leaves, slope)
        return torch.autograd.grad(outputs, [own, *leaves], slope)

    def _corrections(self, layer: int, by_chunk: Sequence[Params]) -> list[Correction | None]:
        """For every chunk, how its maps change the loss through their batch's mean and variance.

            d x -= scale / (count deviation) * (d bias + (x - mean) / deviation * d scale)

        Source: Ioffe and Szegedy 2015, section 3 (arXiv:1502.03167).
        """
        moments, scale = self.moments[layer], self._leaves[f"norm{layer}.scale"].detach()
        found: list[Correction | None] = []
        for batch, own in enumerate(self._places_of_batches()):
            of_bias, of_scale = (
                _total([each[f"norm{layer}.{part}"] for each in by_chunk[own]]) for part in ("bias", "scale")
            )
            inverse = (moments.variance[batch] + EPSILON).rsqrt()
            factor = -scale * inverse / moments.num_values
            by_map = factor * inverse * of_scale
            constant = factor * of_bias - by_map * moments.mean[batch]
            found += [(constant.view(-1, 1, 1), by_map.view(-1, 1, 1))] * (own.stop - own.start)
        return found

    def _of_batches(self, maps: Sequence[Tensor], by_chunk: Sequence[Sequence[Tensor]]) -> BatchMoments:
        """Every batch's mean and variance, from those of its chunks."""
        means, variances = (torch.stack(column) for column in zip(*by_chunk, strict=True))
        rows = []
        for own in self._places_of_batches():
            sizes = [chunk.stop - chunk.start for chunk in self._chunks[own]]
            shares = means.new_tensor(sizes).unsqueeze(1) / sum(sizes)
            mean = (shares * means[own]).sum(dim=0)
            rows.append((mean, (shares * (variances[own] + (means[own] - mean).square())).sum(dim=0)))
        mean, variance = (torch.stack(column) for column in zip(*rows, strict=True))
        return BatchMoments(mean, variance, self._images.shape[1] * maps[0][0, 0].numel())

    def _places_of_batches(self) -> list[slice]:
        each = len(self._chunks) // len(self._images)
        return [slice(i * each, (i + 1) * each) for i in range(len(self._images))]


def gradient(loss: Tensor, leaves: Params, passes: Sequence[EncoderPass]) -> Tensor:
    """The gradient [P] of a loss of the features of `passes` and of further parameters among `leaves`."""
    wanted = [*(each.features for each in passes), *leaves.values()]
    slopes = torch.autograd.grad(loss, wanted, materialize_grads=True, allow_unused=True)
    totals = dict(zip(leaves, slopes[len(passes) :], strict=True))
    for each, slope in zip(passes, slopes, strict=False):
        totals |= {name: totals[name] + part for name, part in each.pull(slope).items()}
    return flatten(totals)


def _chunks(images: Tensor, context: Tensor, chunk_pictures: int) -> list[_Chunk]:
    """Every batch in the same number of chunks, as equal as can be and in pairs for the two cores that any machine has;
    in one on GPUs, whose products like to be large."""
    num_batches, size = images.shape[:2]
    pairs = size * (1 + context.shape[1]) / (2 * chunk_pictures)
    count = min(size, 2 * max(1, int(pairs))) if images.device.type == "cpu" and pairs >= 0.5 else 1
    edges = [i * size // count for i in range(count + 1)]
    return [_Chunk(batch, *pair) for batch in range(num_batches) for pair in itertools.pairwise(edges)]


def _channels_last(p: Tensor) -> Tensor:
    """Weights of a convolution laid out like the maps: torch would copy them so in every chunk, twice."""
    return p.contiguous(memory_format=torch.channels_last) if p.dim() == 4 else p


def _mean_and_variance(maps: Tensor) -> tuple[Tensor, Tensor]:
    """[C] each, over all else; the variance is divided by the count. This is by far the fastest way in torch."""
    return torch.batch_norm_update_stats(maps.detach(), None, None, 0.0)


def _total(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for each in tensors[1:]:
        total = total + each
    return total
