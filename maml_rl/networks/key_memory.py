"""A memory of keys, values and ages that is looked up by similarity (Kaiser, Nachum, Roy and Bengio 2017), as functions
of values.

M memories have n slots each. Slots are given only as they are needed, up to the memory's size: one without a value is
the oldest of all and never matches, so it need not exist.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maml_rl.core.trees import to_device

EMPTY = -1
"""The value of a slot without one. The released code has 0 there, which is also a class; values below are of classes
that may match but are not asked about."""

SHARPNESS = 40.0
"""Factor of similarities in class probabilities: t in section 2 of the paper."""


class Memory(NamedTuple):
    """M memories of n slots."""

    keys: Tensor  # [M, n, D] of length 1; zeros in empty slots
    values: Tensor  # [M, n] int64: classes, or EMPTY
    ages: Tensor  # [M, n] int64: steps since a slot was written or confirmed


class Readings(NamedTuple):
    """The neighbours of B pictures in each of M memories before they were written, for the loss; constants."""

    right: Tensor  # [M, B] bool: the nearest key's value is the picture's class; not if another is as near
    positive: Tensor  # [M, B, D]: the nearest key of its class; zeros if there is none
    negative: Tensor  # [M, B, D]: the nearest key of another class; zeros if there is none


def empty_memory(num_memories: int, num_slots: int, key_size: int) -> Memory:
    """Memories without values."""
    values = torch.full((num_memories, num_slots), EMPTY)
    return Memory(torch.zeros(num_memories, num_slots, key_size), values, torch.zeros_like(values))


def with_room(memory: Memory, count: int, size: int) -> Memory:
    """The same memories, in tensors that no other shares, with slots for `count` more values but at most `size`."""
    num_memories, num_slots, width = memory.keys.shape
    more = to_device(empty_memory(num_memories, max(0, min(size - num_slots, count)), width), memory.keys.device)
    return Memory(*(torch.cat(pair, dim=1) for pair in zip(memory, more, strict=True)))


def similarities(memory: Memory, queries: Tensor) -> Tensor:
    """Cosines [M, B, n] of queries [M, B, D] of length 1 with all keys; minus infinity for empty slots, so that these
    never match, not even where every key is unlike the query."""
    cosines = queries @ memory.keys.mT
    return cosines.masked_fill((memory.values == EMPTY).unsqueeze(1), -torch.inf)


def class_log_probs(memory: Memory, queries: Tensor, num_classes: int) -> Tensor:
    """Log-probabilities [M, B, num_classes] of the classes 0, 1, ..., proportional to exp(40 cosine) of each class's
    nearest key. The largest is the class of the nearest key, which is the paper's prediction."""
    cosines = similarities(memory, queries)
    is_asked = memory.values >= 0
    near = cosines.new_full((*queries.shape[:2], num_classes), -torch.inf)
    near = near.scatter_reduce(
        2,
        memory.values.clamp(min=0).unsqueeze(1).expand_as(cosines),
        cosines.masked_fill(~is_asked.unsqueeze(1), -torch.inf),
        "amax",
    )
    return (SHARPNESS * near).log_softmax(dim=-1)


def remember(memory: Memory, queries: Tensor, labels: Tensor, noise: Tensor | None) -> tuple[Memory, Readings]:
    """Show pictures to memories one step after the other; at each step look them up, then write them.

    Where the nearest key is of the picture's class, it becomes the normalised sum of key and query, with age 0. Else
    the query and its class replace the oldest slot. All other slots are a step older then (section 2 of the paper).

    Args:
        queries: [M, T, b, D] of length 1: b pictures at once in each of T steps. n must be at least b.
        labels: [M, T, b] int64.
        noise: [T, M, n] in steps, added to the ages when the oldest slot is chosen; None for none.
    Returns:
        The memories afterwards, and readings of the T * b pictures in their order.

    Departures from the released code: neighbours are sought among all keys, not among the nearest 256 and the last of
    the class; of pictures shown at once, each that is written gets a slot for itself, where the code may write several
    into the same.
    """
    now = Memory(*(part.clone() for part in memory))
    steps = [
        _step(now, queries[:, t], labels[:, t], None if noise is None else noise[t]) for t in range(labels.shape[1])
    ]
    return now, Readings(*(torch.cat(parts, dim=1) for parts in zip(*steps, strict=True)))


def _step(memory: Memory, queries: Tensor, labels: Tensor, noise: Tensor | None) -> Readings:
    """Look up queries [M, b, D], then write them into `memory` itself."""
    cosines = similarities(memory, queries)
    is_own = memory.values.unsqueeze(1) == labels.unsqueeze(-1)  # [M, b, n]
    like, slots = cosines.masked_fill(~is_own, -torch.inf).max(dim=-1)  # [M, b]
    unlike, others = cosines.masked_fill(is_own, -torch.inf).max(dim=-1)
    right = like > unlike  # an encoder that gives all pictures the same key is never right
    readings = Readings(right, _keys(memory, slots, like), _keys(memory, others, unlike))
    memory.ages.add_(1)
    _confirm(memory, queries, slots, right)
    _write(memory, queries, labels, right, noise)
    return readings


def _keys(memory: Memory, slots: Tensor, cosines: Tensor) -> Tensor:
    """The keys [M, b, D] at slots [M, b]; zeros where nothing was found."""
    rows = memory.keys.gather(1, slots.unsqueeze(-1).expand(-1, -1, memory.keys.shape[-1]))
    return rows.masked_fill((cosines == -torch.inf).unsqueeze(-1), 0.0)


def _confirm(memory: Memory, queries: Tensor, slots: Tensor, right: Tensor) -> None:
    """Turn the keys that were right towards their queries; several may have the same key."""
    rows, items = right.nonzero(as_tuple=True)
    places = slots[rows, items]
    memory.keys.index_put_((rows, places), queries[rows, items], accumulate=True)
    memory.keys[rows, places] = F.normalize(memory.keys[rows, places], dim=-1)
    memory.ages[rows, places] = 0


def _write(memory: Memory, queries: Tensor, labels: Tensor, right: Tensor, noise: Tensor | None) -> None:
    """Put the queries whose nearest key was wrong into the oldest slots, each into another."""
    rows, items = (~right).nonzero(as_tuple=True)
    if not len(rows):
        return
    ages = memory.ages.double()
    if noise is not None:
        ages = ages + noise
    ages = ages.masked_fill(memory.ages == 0, -torch.inf)  # confirmed in this step
    oldest = ages.masked_fill(memory.values == EMPTY, torch.inf).argsort(dim=-1, descending=True, stable=True)
    place_in_line = (~right).cumsum(dim=-1) - 1
    places = oldest[rows, place_in_line[rows, items]]
    memory.keys[rows, places] = queries[rows, items]
    memory.values[rows, places] = labels[rows, items]
    memory.ages[rows, places] = 0


def margin_loss(queries: Tensor, readings: Readings, margin: float) -> Tensor:
    """Mean over all pictures of max(0, negative - positive + margin) - margin, in cosines (section 2 of the paper; the
    margin is subtracted as in the released code). The gradient reaches the queries [M, B, D] alone."""
    positive = (queries * readings.positive).sum(dim=-1)
    negative = (queries * readings.negative).sum(dim=-1)
    return (negative - positive + margin).clamp(min=0.0).mean() - margin
