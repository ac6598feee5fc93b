"""What a learner of few-shot classification can do besides being trained."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from maml_rl.core.protocols import Key, Learner, State
from maml_rl.supervised.episodes import Examples


class FewShotLearner(Learner, Protocol):
    recorded_steps: tuple[int, ...]
    """After how many gradient steps on a task `predict` says something; (0,) for learners that take none. May be set to
    some of them."""

    def predict(self, state: State, support: Examples, query: Examples, key: Key) -> Tensor:
        """[recorded, N, B, ways]: the queries' log-probabilities, up to a constant for each query.

        Args:
            support, query: of N episodes.
            key: names the randomness of learning from the support, if there is any.
        """
