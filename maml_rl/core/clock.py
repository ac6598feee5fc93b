"""Seconds of an iteration, by the name of the part that takes them."""

from __future__ import annotations

from time import perf_counter


class Clock:
    """A sum, by name, of the seconds that `with clock(name):` blocks take."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"sample_seconds": 0.0, "adapt_seconds": 0.0, "outer_seconds": 0.0}
        self._name = ""

    def __call__(self, name: str) -> Clock:
        self._name = name
        return self

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds[self._name] += perf_counter() - self._start
