"""From one task to many: the one place where functions of a single task are applied to a stack of tasks.

Tasks are cut into chunks whose size depends on the amount of data alone, and chunks are spread over threads; whatever
the number of threads, the same numbers are computed and added up in the order of the tasks.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import optree
import torch
from torch import Tensor

from maml_rl.core.trees import device_of, num_tasks, take_task

Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., Tensor])

CHUNK_ELEMENTS = 40_000
"""Numbers of support data that one chunk may hold. Many small tasks share a chunk and run as one batched product; a
task with thousands of steps is a chunk by itself, so that its activations stay in the cache."""

CHUNK_ELEMENTS_GPU = 5_000_000
"""The same on GPUs, where small products are not worth launching: about forty tasks of thousands of steps each."""


def takes_stacked(function: Function) -> Function:
    """Mark a function that takes stacked trees as well as one task's, faster than lifting it would be."""
    function.takes_stacked = True  # type: ignore[attr-defined]
    return function


def lift(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Turn a function of one task's trees into one of stacked trees; axis 0 of the result is the task."""
    if getattr(function, "takes_stacked", False):
        return function

    def lifted(*trees: Any) -> Tensor:
        if num_tasks(trees[0]) == 1:  # spares the batching rules, whose products are slower than plain ones
            return function(*(take_task(tree, 0) for tree in trees)).unsqueeze(0)
        return torch.vmap(function)(*trees)

    return lifted


def chunk_tasks(data: Any, max_elements: int | None) -> list[tuple[int, int]]:
    """Half-open ranges of tasks to compute together, as equal as possible, so that no thread waits for a longer one.

    They depend on the data's shape and on whether it is on a GPU, but never on the number of threads.

    Args:
        max_elements: numbers of data that one chunk may hold; None for what suits the device.
    """
    count = num_tasks(data)
    elements = sum(leaf[0].numel() for leaf in optree.tree_leaves(data))
    if max_elements is None:
        max_elements = CHUNK_ELEMENTS if device_of(data).type == "cpu" else CHUNK_ELEMENTS_GPU
    num_chunks = math.ceil(count / max(1, max_elements // max(1, elements)))
    edges = [i * count // num_chunks for i in range(num_chunks + 1)]
    return list(itertools.pairwise(edges))


class _Call:
    """One call of `Threads.map`, as its threads see it."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.is_wanted = True
        self.answers: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()

    def answer(self, index: int, arguments: tuple[Any, ...]) -> None:
        try:
            self.answers.put((index, self.function(*arguments) if self.is_wanted else None, None))
        except BaseException as error:  # raised again in the calling thread
            self.is_wanted = False
            self.answers.put((index, None, error))


class Threads:
    """A pool that runs independent pieces of work; results come in the order of the pieces.

    Each product inside a piece takes as many threads as PyTorch has when the pool is opened: one, in a run.

    A signal may raise in the calling thread at any point. In concurrent.futures it can leave a lock taken for ever,
    and the pool is never closed; a SimpleQueue has no such point.
    """

    def __init__(self, num_threads: int, chunk_elements: int | None = None):
        """
        Args:
            num_threads: 0 for one per core.
            chunk_elements: numbers of data that one chunk of tasks may hold; by default what suits the device.
        """
        if num_threads < 0:
            raise ValueError(f"num_threads must be at least 1, or 0 for one per core, got {num_threads}")
        self.num_threads = num_threads or available_cores()
        self._chunk_elements = chunk_elements
        self._work: _Work = SimpleQueue()
        num_helpers = self.num_threads if self.num_threads > 1 else 0
        self._helpers = [threading.Thread(target=_help, args=(self._work,), daemon=True) for _ in range(num_helpers)]
        for helper in self._helpers:
            helper.start()
        self._dismiss = weakref.finalize(self, _dismiss, self._work, num_helpers)

    def map(self, function: Callable[..., Result], *arguments: Any) -> list[Result]:
        """Results of the function for each piece of work, in order.

        Raises:
            Exception: the error of the first piece in order that failed, when those under way have ended.
        """
        pieces = list(zip(*arguments, strict=True))
        if not self._helpers:
            return [function(*piece) for piece in pieces]
        call = _Call(function)
        try:
            for index, piece in enumerate(pieces):
                self._work.put((call, index, piece))
            answers = sorted((call.answers.get() for _ in pieces), key=lambda answer: answer[0])
        except BaseException:
            call.is_wanted = False
            raise
        for _, _, error in answers:
            if error is not None:
                raise error
        return [result for _, result, _ in answers]

    def chunks(self, data: Any) -> list[tuple[int, int]]:
        """Half-open ranges of the stacked data's tasks that are computed together."""
        return chunk_tasks(data, self._chunk_elements)

    def over_chunks(self, function: Callable[[int, int], Result], data: Any) -> list[Result]:
        """`function(start, stop)` for the chunks of the stacked data's tasks."""
        return self.map(function, *zip(*self.chunks(data), strict=True))

    def close(self) -> None:
        """End the threads. A pool of one thread still works."""
        self._dismiss()
        for helper in self._helpers:
            helper.join()


_Work = SimpleQueue[tuple[_Call, int, tuple[Any, ...]] | None]


def _help(work: _Work) -> None:
    """Do one piece of work after another until told to stop."""
    torch.get_num_threads()  # has this thread take over the process's number, which a product by itself might not
    while (piece := work.get()) is not None:
        call, index, arguments = piece
        call.answer(index, arguments)
        del piece, call, arguments  # otherwise they would be kept until the next piece arrives


def _dismiss(work: _Work, num_helpers: int) -> None:
    for _ in range(num_helpers):
        work.put(None)


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
