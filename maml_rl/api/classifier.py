"""A trained few-shot run as a classifier of the user's own pictures, without the run's data set."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from maml_rl.core.contracts import Actor, Learner, TaskFamily
from maml_rl.core.keys import EVALUATION, INITIALISATION, Key
from maml_rl.core.lift import Threads
from maml_rl.experiments.build import num_adaptations
from maml_rl.experiments.config import RunConfig
from maml_rl.experiments.runs import WhichCheckpoint, fitted, load_checkpoint, read_config, with_channels
from maml_rl.experiments.table import LEARNERS, learner_entry
from maml_rl.experiments.zoo import resolved
from maml_rl.learners.entry import Context, Entry
from maml_rl.runtime import product_threads
from maml_rl.supervised.classification import Accuracy, EpisodeCollector, PictureShape, PictureSpec
from maml_rl.supervised.decoding import Picture
from maml_rl.supervised.episodes import Examples, as_input
from maml_rl.supervised.images import decode

Probabilities = dict[str, float]
"""Probability of each class by its name; they add up to 1."""

KEY = Key(0, EVALUATION, 0)


class FewShotClassifier:
    """A trained few-shot learner for pictures of new classes."""

    def __init__(self, run: str | Path, checkpoint: WhichCheckpoint = "last"):
        """
        Args:
            run: folder of a few-shot run, or of the checkpoints that the leaderboard leaves; or zoo:NAME.
        Raises:
            ValueError: if it is no such folder.
        """
        run = resolved(run)
        config = read_config(run)
        if config.kind != "pictures":
            raise ValueError(f"run must be one of few-shot classification, but {run} is of {config.env}")
        loaded = load_checkpoint(run, checkpoint)
        self._config = config = with_channels(config, loaded.state)
        self._entry = learner_entry(config.learner, "pictures")
        self._learner = _learner(config, self._entry)
        template = self._learner.init(Key(config.seed, INITIALISATION, 0))
        self._state = fitted(loaded.state, template, config, run / "checkpoints" / loaded.name)

    @product_threads(1)
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
        given = [(p, _name(p, f"picture {i} of {name!r}")) for name in names for i, p in enumerate(examples[name])]
        pictures = [decode(picture, name, self._config.task.images) for picture, name in given]
        num_channels = max(picture.shape[-1] for picture in pictures)
        channels = "grey" if num_channels == 1 else "colour"
        settings = dataclasses.replace(self._config.task.images, channels=channels)
        on_black = [name for (_, name), p in zip(given, pictures, strict=True) if _is_on_black(p, settings.invert)]
        expects_light = settings.invert or len(on_black) < len(pictures)
        if on_black and expects_light:
            _warn_of_black_paper(on_black)
        images = torch.stack([as_input(np.repeat(p, num_channels // p.shape[-1], axis=-1)) for p in pictures])
        labels = torch.arange(len(names)).repeat_interleave(len(examples[names[0]]))
        support = images.unsqueeze(0)
        actors = self._adapted(Examples(support, labels.unsqueeze(0), support[:, :0]))

        @product_threads(1)
        def classify(picture: Picture) -> Probabilities:
            name = _name(picture, "the picture")
            pixels = decode(picture, name, settings)
            if expects_light and _is_on_black(pixels, settings.invert):
                _warn_of_black_paper([name])
            alone = Examples(as_input(pixels)[None, None], labels[None, :0], support)
            with torch.no_grad():
                outputs = [
                    actor.step((), alone, None)[0][..., : len(names)] for actor in actors
                ]  # maybe of more classes
            shares = Accuracy().mixture(outputs)[0, 0].softmax(dim=-1)
            return dict(zip(names, shares.tolist(), strict=True))

        return classify

    def _adapted(self, support: Examples) -> list[Actor]:
        """The actor after as many adaptations, or the draws of it, as in the run's own evaluation."""
        adapted = self._learner.begin(self._state, 1, KEY)
        for count in range(num_adaptations(self._config, self._entry)):
            adapted = self._learner.adapt(self._state, adapted, support, KEY.at_phase(count))
        draws = range(getattr(self._config.evaluation, "num_draws", 1))
        return [self._learner.actor(self._state, adapted, KEY.at_phase(draw)) for draw in draws]

    def _require_classes(self, examples: Mapping[str, Sequence[Picture]]) -> None:
        for name, pictures in examples.items():
            if isinstance(pictures, str | bytes | Path | Image.Image):
                raise ValueError(
                    f"examples of {name!r} must be a list of pictures, got a single one: put it into a list"
                )
        counts = {name: len(pictures) for name, pictures in examples.items()}
        if len(counts) < 2 or len(set(counts.values())) > 1 or 0 in counts.values():
            raise ValueError(f"examples must be of two classes or more, as many pictures of each, got {counts}")
        ways = self._config.task.ways
        if not self._entry.any_ways and len(counts) != ways:
            others = [name for name, entry in LEARNERS.items() if entry.any_ways]
            raise ValueError(
                f"examples must be of {ways} classes, for which this run of {self._entry.name} was trained, got "
                f"{len(counts)}: any number will do with a learner among {others}"
            )


def _name(picture: Picture, otherwise: str) -> str:
    return str(picture) if isinstance(picture, str | Path) else otherwise


def _is_on_black(pixels: NDArray[np.uint8], is_inverted: bool) -> bool:
    """Check whether decoded pixels look like a drawing on black paper; photographs have too many levels for that."""
    levels = 255 - pixels if is_inverted else pixels
    is_between = (levels >= 64) & (levels < 192)
    return bool(is_between.mean() < 0.25 and np.median(levels) < 64)


def _warn_of_black_paper(names: Sequence[str]) -> None:
    look = f"{names[0]} looks" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more look"
    warnings.warn(
        f"{look} white on black, but dark strokes on light paper are expected: invert what is not", stacklevel=3
    )


def _learner(config: RunConfig, entry: Entry) -> Learner:
    """The run's learner without its pictures.

    Where training normalises by batches, a gradient learner is asked about each picture beside the support, so that a
    single one can be classified and no prediction depends on what else is asked.
    """
    method, images = config.method, config.task.images
    if entry.gradient_steps and method.network.norm == "batch":
        method = dataclasses.replace(method, network=dataclasses.replace(method.network, norm="support"))
    threads, device = Threads(1), torch.device("cpu")
    shape = PictureShape(images.image_size, 3 if images.channels == "colour" else 1, config.task.training.ways)
    spec = PictureSpec(shape, None, np.zeros(0, dtype=np.int64))
    nowhere: Any = None  # the user brings the pictures
    family = TaskFamily(nowhere, EpisodeCollector(None, "support", device, threads), Accuracy())
    context = Context("pictures", family, num_adaptations(config, entry), threads, device, spec)
    return entry.build(context, method)
