"""Pictures of one's own, told apart after a few examples: what a few-shot run has learned, without its data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maml_rl.core.lift import Threads
from maml_rl.learners import few_shot_learner
from maml_rl.supervised.classification import ClassificationFamily
from maml_rl.supervised.episodes import EpisodeSize, EpisodeStream, Examples, as_input
from maml_rl.supervised.images import DataError, ImageSet, decode
from maml_rl.trained import WhichCheckpoint, read_config
from maml_rl.training.checkpoint import load_best, load_latest

Probabilities = dict[str, float]
"""Of each class by its name; they add up to 1."""

ANY_NUMBER_OF_CLASSES = ("joint", "prototypical", "matching", "pixels")
"""Learners whose network has no output for each class of an episode."""


class FewShotClassifier:
    """A trained few-shot learner that takes and tells apart picture files. Nothing of its data set is needed."""

    def __init__(self, run: str | Path, checkpoint: WhichCheckpoint = "last"):
        """
        Args:
            run: folder of a run of `scripts/train_omniglot.py`, or of the checkpoints that the leaderboard leaves.
        Raises:
            ValueError: if it is none.
        """
        run = Path(run)
        self._config = config = read_config(run)
        if not config.is_few_shot:
            raise ValueError(f"run must be one of few-shot classification, but {run} is of {config.env_id}")
        saved = (load_best if checkpoint == "best" else load_latest)(run / "checkpoints")
        self._state = saved.state
        first = saved.state.get("params/conv0.weight")
        self._num_channels = 1 if first is None else first.shape[1]
        stream = _blank_stream(config.episodes.ways, config.episodes.images.image_size, self._num_channels)
        family = ClassificationFamily(stream, config.network, torch.device("cpu"))
        self._learner = few_shot_learner(config, family, Threads(1))

    def learn(self, examples: Mapping[str, Sequence[str | Path]]) -> Callable[[str | Path], Probabilities]:
        """Adapt to classes that are given by a few pictures each.

        Args:
            examples: class name -> picture files, as many for each class. They become what training's pictures became:
                for Omniglot's, dark strokes on light paper, square.
        Returns:
            A function from a picture file to the probability of each class, which depends on no other picture asked.
        Raises:
            DataError: if a picture cannot be read, or is in colour where training's were grey, or the other way round.
            ValueError: if the classes are too few or too many for the learner, or have unequal numbers of pictures.
        """
        names = list(examples)
        self._require_classes(examples)
        images = torch.stack([self._read(path) for name in names for path in examples[name]]).unsqueeze(0)
        shots = len(examples[names[0]])
        labels = torch.arange(len(names)).repeat_interleave(shots).unsqueeze(0)
        predict = self._learner.adapt(self._state, [Examples(images, labels, images[:, :0])])

        def classify(path: str | Path) -> Probabilities:
            with torch.no_grad():
                shares = predict(self._read(path)).softmax(dim=-1)
            return dict(zip(names, shares.tolist(), strict=True))

        return classify

    def _require_classes(self, examples: Mapping[str, Sequence[str | Path]]) -> None:
        counts = {name: len(paths) for name, paths in examples.items()}
        if len(counts) < 2 or len(set(counts.values())) > 1 or 0 in counts.values():
            raise ValueError(f"examples must be of two classes or more, as many pictures of each, got {counts}")
        ways = self._config.episodes.ways
        if self._config.learner not in ANY_NUMBER_OF_CLASSES and len(counts) != ways:
            raise ValueError(
                f"examples must be of {ways} classes, for which this run of {self._config.learner} was trained, got "
                f"{len(counts)}: any number will do with a learner among {list(ANY_NUMBER_OF_CLASSES)}"
            )

    def _read(self, path: str | Path) -> Tensor:
        """[H, W, C]"""
        pixels, kind = decode(Path(path).read_bytes(), str(path), self._config.episodes.images)
        if pixels.shape[-1] != self._num_channels:
            wanted = "grey" if self._num_channels == 1 else "colour"
            raise DataError(f"{path} must be {wanted}, as the pictures of training, but it is {kind}: convert it")
        return as_input(pixels)


def _blank_stream(ways: int, side: int, num_channels: int) -> EpisodeStream:
    """What a learner asks for the shape of its pictures: empty ones."""
    data = ImageSet(
        np.zeros((2 * ways, side, side, num_channels), dtype=np.uint8),
        np.arange(0, 2 * ways + 1, 2),
        tuple(map(str, range(ways))),
    )
    return EpisodeStream(data, np.arange(ways), "none", EpisodeSize(ways, 1, 1))
