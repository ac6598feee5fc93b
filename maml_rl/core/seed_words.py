"""Many of numpy's seed sequences at once: the words that `numpy.random.SeedSequence` would give, one row for each.

A SeedSequence takes nine microseconds to make and to ask, with Python's lock held throughout, where the generator that
it seeds draws an episode's noise in twelve without it.

Source: O'Neill 2015, "Developing a seed_seq Alternative" (its seed_seq_fe128), as numpy has it since version 1.17.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]  # of one place of the entropy: [rows], or [1] where all rows share it

POOL_SIZE = 4
_ENTER, _ENTER_TIMES = 0x43B0D7E5, 0x931E8875
_LEAVE, _LEAVE_TIMES = 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_SHIFT, _MASK = np.uint32(16), 0xFFFFFFFF


def seed_words(entropy: int, spawn_key: Iterable[int | NDArray[np.integer]], count: int) -> NDArray[np.uint64]:
    """`SeedSequence(entropy, spawn_key=...).generate_state(count, np.uint64)` for many spawn keys, [rows, count].

    Args:
        spawn_key: each a number that all rows share, or an array [rows] of numbers below 2^32.
    """
    words = _words_of(entropy)
    words += [np.zeros(1, np.uint32)] * (POOL_SIZE - len(words))
    for part in spawn_key:
        words += [part.astype(np.uint32)] if isinstance(part, np.ndarray) else _words_of(int(part))
    return _left(_entered(words), count)


def _words_of(number: int) -> list[Words]:
    """The words of a number, the lowest first; one for 0."""
    found = [number & _MASK]
    while number := number >> 32:
        found.append(number & _MASK)
    return [np.array([word], dtype=np.uint32) for word in found]


class _Hash:
    """A hash of words whose constant changes with each of them."""

    def __init__(self, start: int, times: int):
        self._constant, self._times = start, times

    def __call__(self, words: Words) -> Words:
        words = words ^ np.uint32(self._constant)
        self._constant = self._constant * self._times & _MASK
        words = words * np.uint32(self._constant)
        return words ^ words >> _SHIFT


def _entered(words: list[Words]) -> list[Words]:
    """The pool after these words, at least as many as it holds."""
    hashed = _Hash(_ENTER, _ENTER_TIMES)
    pool = [hashed(each) for each in words[:POOL_SIZE]]
    for source in range(POOL_SIZE):
        for place in range(POOL_SIZE):
            if place != source:
                pool[place] = _mixed(pool[place], hashed(pool[source]))
    for each in words[POOL_SIZE:]:
        pool = [_mixed(held, hashed(each)) for held in pool]
    return pool


def _mixed(one: Words, other: Words) -> Words:
    both = _MIX_LEFT * one - _MIX_RIGHT * other
    return both ^ both >> _SHIFT


def _left(pool: list[Words], count: int) -> NDArray[np.uint64]:
    hashed = _Hash(_LEAVE, _LEAVE_TIMES)
    columns = [hashed(pool[place % POOL_SIZE]) for place in range(2 * count)]
    return np.stack(columns, axis=1).astype("<u4").view("<u8").astype(np.uint64)
