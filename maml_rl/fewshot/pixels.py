"""Nearest neighbour on pixels: what any learner has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maml_rl.core.maml import Clock
from maml_rl.core.protocols import EVALUATION, Key, Predictor, Report, State
from maml_rl.supervised.classification import is_right, support_of
from maml_rl.supervised.episodes import Episode, EpisodeStream, Examples, gather


class PixelNeighbour:
    """A Learner and FewShotLearner that learns nothing: the class of the nearest support picture."""

    recorded_steps: tuple[int, ...] = (0,)

    def __init__(self, stream: EpisodeStream):
        self.stream = stream

    def init(self, key: Key) -> State:
        return {}

    def meta_step(self, state: State, tasks: Sequence[Episode], key: Key) -> tuple[State, Report]:
        clock = Clock()
        with clock("sample_seconds"):
            support = support_of(self.stream, tasks)
            images, labels = gather(self.stream.data, list(tasks), "query")
        log_probs = self.predict(state, support, Examples(images, labels, images[:, :0]), key)[0]
        return state, Report({"accuracy_after": is_right(log_probs, labels).double().mean().item()}, clock.seconds)

    def predict(self, state: State, support: Examples, query: Examples, key: Key) -> Tensor:
        """[1, N, B, ways]: minus the squared distance to the class's nearest picture."""
        near = -torch.cdist(query.images.flatten(-3), support.images.flatten(-3)).square()  # [N, B, S]
        ways = int(support.labels.max()) + 1
        of_class = torch.nn.functional.one_hot(support.labels, ways).bool().unsqueeze(-3)  # [N, 1, S, ways]
        return near.unsqueeze(-1).where(of_class, -torch.inf).amax(dim=-2).unsqueeze(0)

    def adapt(self, state: State, supports: Sequence[Examples]) -> Predictor:
        """Pictures [..., H, W, C] to minus the squared distances [..., ways]."""
        support = supports[0]

        def classify(images: Tensor) -> Tensor:
            rows = images.reshape(1, -1, *images.shape[-3:]).to(support.images)
            query = Examples(rows, support.labels[:, :0], support.images[:, :0])
            return self.predict({}, support, query, Key(0, EVALUATION, 0)).view(*images.shape[:-3], -1)

        return classify
