"""From one task to many: the one place where functions of a single task are applied to a stack of tasks.

Tasks are cut into chunks whose size depends on the amount of data alone, and chunks are spread over threads; whatever
the number of threads, the same numbers are computed and added up in the order of the tasks.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from maml_rl.core.params import device_of, num_tasks, take_task

Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., Tensor])

CHUNK_ELEMENTS = 40_000
"""Numbers of support data that one chunk may hold. Many small tasks share a chunk and run as one batched product; a
task with thousands of steps is a chunk of its own, so that its activations stay in the cache."""

CHUNK_ELEMENTS_GPU = 5_000_000
"""The same where products are large or not worth starting: some forty tasks of thousands of steps each."""


def takes_stacked(function: Function) -> Function:
    """Mark a function that takes stacked trees as well as those of one task, and is faster than lifting it."""
    function.takes_stacked = True  # type: ignore[attr-defined]
    return function


def over_tasks(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.vmap` of a function of one task's trees, or the function itself if it takes stacked ones."""
    return function if getattr(function, "takes_stacked", False) else torch.vmap(function)


def lift(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Turn a function of one task's trees into one of stacked trees; axis 0 of the result is the task."""
    if getattr(function, "takes_stacked", False):
        return function

    def lifted(*trees: Any) -> Tensor:
        if num_tasks(trees[0]) == 1:  # spares the batching rules, whose products are slower than plain ones
            return function(*(take_task(tree, 0) for tree in trees)).unsqueeze(0)
        return torch.vmap(function)(*trees)

    return lifted


def chunk_tasks(data: Any) -> list[tuple[int, int]]:
    """Half-open ranges of tasks that are computed together, as equal as can be, so that no thread waits for a longer
    one: a function of the data's shape, and on GPUs another, but never of the number of threads."""
    count = num_tasks(data)
    elements = sum(leaf[0].numel() for leaf in pytree.tree_leaves(data))
    limit = CHUNK_ELEMENTS if device_of(data).type == "cpu" else CHUNK_ELEMENTS_GPU
    num_chunks = math.ceil(count / max(1, limit // max(1, elements)))
    edges = [i * count // num_chunks for i in range(num_chunks + 1)]
    return list(itertools.pairwise(edges))


class Threads:
    """A pool that runs independent pieces of work, each on one BLAS thread; results come in the order of the pieces."""

    def __init__(self, num_threads: int):
        if num_threads < 0:
            raise ValueError(f"num_threads must be at least 1, or 0 for one per core, got {num_threads}")
        self.num_threads = num_threads or available_cores()
        # One product must not be split over several threads: that would change its last bits with their number.
        torch.set_num_threads(1)
        self._pool = (
            ThreadPoolExecutor(self.num_threads, initializer=torch.set_num_threads, initargs=(1,))
            if self.num_threads > 1
            else None
        )

    def map(self, function: Callable[..., Result], *arguments: Any) -> list[Result]:
        if self._pool is None:
            return [function(*each) for each in zip(*arguments, strict=True)]
        return list(self._pool.map(function, *arguments))

    @contextmanager
    def inside_products(self) -> Iterator[None]:
        """Spread every single product over the threads, for work that is not many small pieces. Its last bits depend on
        their number then."""
        torch.set_num_threads(self.num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(1)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
