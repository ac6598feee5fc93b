"""Pictures of one's own, told apart after a few examples: what a few-shot run has learned, without its data set."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from maml_rl.core.lift import Threads
from maml_rl.learners import few_shot_learner
from maml_rl.supervised.classification import ClassificationFamily
from maml_rl.supervised.decoding import Picture
from maml_rl.supervised.episodes import EpisodeSize, EpisodeStream, Examples, as_input
from maml_rl.supervised.images import ImageSet, decode
from maml_rl.trained import WhichCheckpoint, read_config, with_channels
from maml_rl.training.checkpoint import load_best, load_latest

Probabilities = dict[str, float]
"""Of each class by its name; they add up to 1."""

ANY_NUMBER_OF_CLASSES = ("joint", "prototypical", "matching", "pixels")
"""Learners whose network has no output for each class of an episode."""


class FewShotClassifier:
    """A trained few-shot learner for pictures of new classes. Nothing of its data set is needed."""

    def __init__(self, run: str | Path, checkpoint: WhichCheckpoint = "last"):
        """
        Args:
            run: folder of a run of `scripts/train_omniglot.py`, or of the checkpoints that the leaderboard leaves.
        Raises:
            ValueError: if it is none.
        """
        run = Path(run)
        config = read_config(run)
        if not config.is_few_shot:
            raise ValueError(f"run must be one of few-shot classification, but {run} is of {config.env_id}")
        saved = (load_best if checkpoint == "best" else load_latest)(run / "checkpoints")
        self._state = saved.state
        self._config = config = with_channels(config, saved.state)
        self._images = config.episodes.images
        num_channels = 3 if self._images.channels == "colour" else 1
        stream = _blank_stream(config.episodes.ways, self._images.image_size, num_channels)
        family = ClassificationFamily(stream, config.network, torch.device("cpu"))
        self._learner = few_shot_learner(config, family, Threads(1))

    def learn(self, examples: Mapping[str, Sequence[Picture]]) -> Callable[[Picture], Probabilities]:
        """Adapt to classes that are given by a few pictures each.

        Args:
            examples: class name -> pictures, as many for each class: paths, PIL images, arrays or tensors. They become
                what training's pictures became: of its size, grey or in colour, inverted if those were.
        Returns:
            A function from a picture to the probability of each class, which depends on no other picture asked.
        Raises:
            DataError: if a picture cannot be read.
            ValueError: if the classes are too few or too many for the learner, or have unequal numbers of pictures.
        Warns:
            UserWarning: if a drawing looks white on black, where training's or the other examples are dark on light.
        """
        names = list(examples)
        self._require_classes(examples)
        named = [(p, _name(p, f"picture {i} of {name!r}")) for name in names for i, p in enumerate(examples[name])]
        pictures = [decode(picture, name, self._images) for picture, name in named]
        num_channels = max(picture.shape[-1] for picture in pictures)
        settings = dataclasses.replace(self._images, channels="grey" if num_channels == 1 else "colour")
        on_black = [name for (_, name), p in zip(named, pictures, strict=True) if _is_on_black(p, settings.invert)]
        expects_light = settings.invert or len(on_black) < len(pictures)
        if on_black and expects_light:
            _warn_of_black_paper(on_black)
        images = torch.stack([as_input(np.repeat(p, num_channels // p.shape[-1], axis=-1)) for p in pictures])
        labels = torch.arange(len(names)).repeat_interleave(len(examples[names[0]]))
        support = images.unsqueeze(0)
        predict = self._learner.adapt(self._state, [Examples(support, labels.unsqueeze(0), support[:, :0])])

        def classify(picture: Picture) -> Probabilities:
            name = _name(picture, "the picture")
            pixels = decode(picture, name, settings)
            if expects_light and _is_on_black(pixels, settings.invert):
                _warn_of_black_paper([name])
            with torch.no_grad():
                shares = predict(as_input(pixels)).softmax(dim=-1)
            return dict(zip(names, shares.tolist(), strict=True))

        return classify

    def _require_classes(self, examples: Mapping[str, Sequence[Picture]]) -> None:
        for name, pictures in examples.items():
            if isinstance(pictures, str | bytes | Path | Image.Image):
                raise ValueError(
                    f"examples of {name!r} must be a list of pictures, got a single one: put it into a list"
                )
        counts = {name: len(pictures) for name, pictures in examples.items()}
        if len(counts) < 2 or len(set(counts.values())) > 1 or 0 in counts.values():
            raise ValueError(f"examples must be of two classes or more, as many pictures of each, got {counts}")
        ways = self._config.episodes.ways
        if self._config.learner not in ANY_NUMBER_OF_CLASSES and len(counts) != ways:
            raise ValueError(
                f"examples must be of {ways} classes, for which this run of {self._config.learner} was trained, got "
                f"{len(counts)}: any number will do with a learner among {list(ANY_NUMBER_OF_CLASSES)}"
            )


def _name(picture: Picture, otherwise: str) -> str:
    return str(picture) if isinstance(picture, str | Path) else otherwise


def _is_on_black(pixels: NDArray[np.uint8], is_inverted: bool) -> bool:
    """Whether decoded pixels look like a drawing on black paper; photographs have too many levels for that."""
    levels = 255 - pixels if is_inverted else pixels
    is_between = (levels >= 64) & (levels < 192)
    return bool(is_between.mean() < 0.25 and np.median(levels) < 64)


def _warn_of_black_paper(names: Sequence[str]) -> None:
    look = f"{names[0]} looks" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more look"
    warnings.warn(
        f"{look} white on black, but dark strokes on light paper are expected: invert what is not", stacklevel=3
    )


def _blank_stream(ways: int, side: int, num_channels: int) -> EpisodeStream:
    """What a learner asks for the shape of its pictures: empty ones."""
    data = ImageSet(
        np.zeros((2 * ways, side, side, num_channels), dtype=np.uint8),
        np.arange(0, 2 * ways + 1, 2),
        tuple(map(str, range(ways))),
    )
    return EpisodeStream(data, np.arange(ways), "none", EpisodeSize(ways, 1, 1))
