"""Calibration: how often events come true whose probability was predicted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.core.contracts import Forecast

NUM_BINS = 10


class Reliability(NamedTuple):
    """Predicted events in bins of equal width over their probability; counts and sums, so that parts add up."""

    number: Tensor  # [bins] of events
    predicted: Tensor  # [bins] sum of their probabilities
    happened: Tensor  # [bins] number that came true

    def plus(self, other: Reliability) -> Reliability:
        return Reliability(*(one + two for one, two in zip(self, other, strict=True)))

    @property
    def rows(self) -> list[tuple[float, float, float]]:
        """Mean probability, share that came true and share of all events, of each bin that holds any."""
        total = self.number.sum()
        return [
            (float(p / n), float(h / n), float(n / total))
            for n, p, h in zip(self.number, self.predicted, self.happened, strict=True)
            if n > 0
        ]

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over events of |share that came true - mean probability| of their
        bin (Guo et al. 2017, equation 3; arXiv:1706.04599)."""
        return sum(share * abs(happened - predicted) for predicted, happened, share in self.rows)


def reliability(forecast: Forecast) -> Reliability:
    """The events of a forecast in their bins."""
    probabilities, happened = (part.double().flatten().cpu() for part in (forecast.probabilities, forecast.happened))
    places = (probabilities * NUM_BINS).long().clamp(0, NUM_BINS - 1)

    def summed(values: Tensor) -> Tensor:
        return torch.zeros(NUM_BINS, dtype=torch.float64).index_add(0, places, values)

    return Reliability(summed(torch.ones_like(happened)), summed(probabilities), summed(happened))
