"""Few-shot episodes: N classes, K pictures of each to learn from, Q others of each to be asked about."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.networks.convnet import NormPolicy
from maml_rl.supervised.images import (
    DataError,
    ImageConfig,
    ImageFile,
    ImageSet,
    cached_images,
    class_folders,
    content_fingerprint,
    fingerprint,
    is_picture,
)
from maml_rl.supervised.omniglot import OneShotRun, Split, SplitName, load_omniglot, split_classes

Rotations = Literal["classes", "random", "none", "ambiguous"]
Part = Literal["train", "validation", "test"]

BLANK_RANGE = 8  # of 255 levels
NUM_ROTATIONS = 4  # by 0, 90, 180, 270 degrees


@dataclass(frozen=True)
class EpisodeConfig:
    """The choice of pictures, and how many of them make an episode."""

    data_root: str | None = None
    """The folder that holds omniglot/; by default $MAML_RL_DATA, or else a download. With --env images: the folder that
    holds train/ and test/, each with a folder of pictures for every class."""
    images: Annotated[ImageConfig, tyro.conf.arg(name="")] = field(default_factory=ImageConfig)
    split: SplitName = "vinyals"
    """Split of Omniglot: that of Vinyals et al. 2016, 1,200 characters at random to train on, or the data set's two
    parts."""
    train_on: Literal["train", "trainval"] = "train"
    """Classes to train on. trainval: the validation classes, too, for final results; evaluation during training then
    uses the test classes."""
    rotations: Rotations = "classes"
    """Rotations in training. classes: a picture turned by a quarter is of another class. random: each class of an
    episode is turned by a random number of quarters. none: as drawn. ambiguous: with --ways 2 --shots 1, a character
    upright and the same upside down, asked about lying down too, which belongs to one of them by a rule that the
    support does not show. The defaults are classes for Omniglot, whose papers do so, and none for --env images."""
    test_rotations: Rotations = "classes"
    """Rotations in validation and test; as above, with the same defaults."""
    ways: int = 5
    """Classes in an episode."""
    shots: int = 1
    """Pictures of each class to learn from."""
    queries: int = 1
    """Further pictures of each class to be classified, in training."""
    train_ways: int | None = None
    """Classes in an episode of training, if it is another number; where the last layer has an output for each, at least
    `ways`."""
    train_shots: int | None = None
    """Pictures of each class to learn from in training, if it is another number."""
    test_queries: int = 1
    """Further pictures of each class to be classified, in validation and test."""

    def __post_init__(self) -> None:
        least = {"ways": 2, "shots": 1, "queries": 1, "train_ways": 2, "train_shots": 1, "test_queries": 1}
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ValueError(f"{name} must be at least {minimum}, got {value}")
        is_ambiguous = self.rotations == "ambiguous", self.test_rotations == "ambiguous"
        if any(is_ambiguous) and not (all(is_ambiguous) and self.training[:2] == self.test[:2] == (2, 1)):
            raise ValueError(
                "rotations ambiguous must come with test_rotations ambiguous, and with 2 ways and 1 shot in training "
                f"and test, got rotations {self.rotations}, test_rotations {self.test_rotations}, in training "
                f"{self.training.ways} ways and {self.training.shots} shots, at test {self.ways} and {self.shots}"
            )

    evaluate_on: Part = "validation"
    """Classes that evaluation during training uses. Results are made on the test classes, by `maml-rl evaluate`."""
    fingerprint: tyro.conf.Suppress[tyro.conf.Fixed[str | None]] = None
    """Fingerprint of the user's own pictures that the run learns from; training fills it in."""

    @property
    def training(self) -> EpisodeSize:
        return EpisodeSize(self.train_ways or self.ways, self.train_shots or self.shots, self.queries)

    @property
    def test(self) -> EpisodeSize:
        return EpisodeSize(self.ways, self.shots, self.test_queries)

    def asking(self, ways: int | None, shots: int | None, test_queries: int | None) -> EpisodeConfig:
        """These settings with test episodes of another size, where one is given."""
        given = {"ways": ways, "shots": shots, "test_queries": test_queries}
        asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(self, train_ways=self.training.ways, train_shots=self.training.shots, **asked)

    def found_in(self, data_root: str | None) -> EpisodeConfig:
        """These settings or, if a folder is named, the same with its pictures, whatever they are."""
        return self if data_root is None else dataclasses.replace(self, data_root=data_root, fingerprint=None)


class EpisodeSize(NamedTuple):
    ways: int
    shots: int
    queries: int  # per class


@dataclass(frozen=True)
class Episode:
    """One task: which classes, and which of their pictures. Labels count 0, 1, ... in the order of the classes."""

    classes: tuple[int, ...]
    rotations: tuple[int, ...]  # of each class, in quarters of a full turn, counter-clockwise
    support: tuple[tuple[int, ...], ...]  # of each class, K numbers of pictures within it
    query: tuple[tuple[int, ...], ...]  # of each class, Q others

    def __str__(self) -> str:
        return " ".join(f"{c}@{90 * r}" for c, r in zip(self.classes, self.rotations, strict=True))


class Examples(NamedTuple):
    """N episodes, B pictures each."""

    images: Tensor  # [N, B, H, W, C] in [0, 1]
    labels: Tensor  # [N, B] int64
    context: Tensor  # [N, S, H, W, C]: the support pictures that queries were presented with; S = 0 for none


def empty_support(num_tasks: int, side: int, num_channels: int, device: torch.device) -> Examples:
    """No pictures, of so many tasks."""
    images = torch.zeros(num_tasks, 0, side, side, num_channels, device=device)
    return Examples(images, torch.zeros(num_tasks, 0, dtype=torch.int64, device=device), images)


def together(support: Examples, more: Examples) -> Examples:
    """A support with more pictures in it."""
    if not support.labels.shape[1]:  # nor has it a size or channels of pictures
        return more
    images, labels = (torch.cat([a, b], dim=1) for a, b in zip(support[:2], more[:2], strict=True))
    return support._replace(images=images, labels=labels)


class EpisodeStream:
    """Endless episodes from some classes of a data set: a pure function of the generator that they are drawn by."""

    def __init__(self, data: ImageSet, classes: NDArray[np.int64], rotations: Rotations, size: EpisodeSize):
        """
        Raises:
            DataError: if a class has too few pictures, or there are too few classes.
        """
        self.data, self.classes, self.size, self.rotations = data, classes, size, rotations
        self.num_classes = len(classes) * (NUM_ROTATIONS if rotations == "classes" else 1)
        if self.num_classes < size.ways:
            raise DataError(
                f"ways must be at most the number of classes, {self.num_classes}, got {size.ways}: ask for fewer, or "
                "add classes"
            )
        counts = data.class_sizes[classes]
        poorest = int(counts.argmin())
        if counts[poorest] < size.shots + size.queries:
            raise DataError(
                f"every class must have shots + queries = {size.shots} + {size.queries} pictures, but "
                f"{data.names[classes[poorest]]} has {counts[poorest]}: add pictures, or take fewer shots or queries"
            )
        self._most = int(counts.max())

    def sample(self, num_episodes: int, rng: np.random.Generator) -> list[Episode]:
        ways, shots, queries = self.size
        chosen = np.stack([rng.choice(self.num_classes, ways, replace=False) for _ in range(num_episodes)])
        quarters = np.zeros_like(chosen)
        if self.rotations == "classes":
            chosen, quarters = chosen // NUM_ROTATIONS, chosen % NUM_ROTATIONS
        elif self.rotations == "random":
            quarters = rng.integers(NUM_ROTATIONS, size=chosen.shape)
        classes = self.classes[chosen]
        order = rng.random((*classes.shape, self._most))
        order[np.arange(self._most) >= self.data.class_sizes[classes][..., None]] = 2.0  # these do not exist: sort last
        pictures = order.argsort(axis=-1)[..., : shots + queries].tolist()
        return [
            Episode(
                tuple(c),
                tuple(q),
                tuple(tuple(row[:shots]) for row in p),
                tuple(tuple(row[shots:]) for row in p),
            )
            for c, q, p in zip(classes.tolist(), quarters.tolist(), pictures, strict=True)
        ]


def gather(data: ImageSet, episodes: list[Episode], part: Literal["support", "query"]) -> tuple[Tensor, Tensor]:
    """The support or query pictures [N, B, H, W, C] in [0, 1] and labels [N, B], class by class."""
    numbers = np.array([getattr(episode, part) for episode in episodes])  # [N, ways, K or Q]
    classes = np.array([episode.classes for episode in episodes])[..., None]
    quarters = np.array([episode.rotations for episode in episodes])
    images = data.images[data.first[classes] + numbers]  # [N, ways, K or Q, H, W, C]
    for turn in range(1, NUM_ROTATIONS):
        rows = quarters == turn
        images[rows] = np.rot90(images[rows], turn, axes=(-3, -2))
    pictures = as_input(images).flatten(1, 2)
    labels = torch.arange(numbers.shape[1]).repeat_interleave(numbers.shape[2])
    return pictures, labels.expand(len(episodes), -1).contiguous()


def as_input(images: NDArray[np.uint8]) -> Tensor:
    """Pictures as networks get them: float in [0, 1]."""
    return torch.from_numpy(images).float().div_(255.0)


def rotated_class(episode: Episode) -> list[int]:
    """[ways]: a different number for every class in each of its four rotations."""
    return [NUM_ROTATIONS * c + r for c, r in zip(episode.classes, episode.rotations, strict=True)]


def class_names(data: ImageSet, episode: Episode) -> tuple[str, ...]:
    """The classes of an episode by name, without the part of the data set that they are in, and with their turn."""
    names = [data.names[c].split("/", 1)[-1] for c in episode.classes]
    return tuple(f"{n} {90 * r}\N{DEGREE SIGN}" if r else n for n, r in zip(names, episode.rotations, strict=True))


class Streams(NamedTuple):
    """A run's episodes: what it learns from, what is watched during training, and what results are made with."""

    training: EpisodeStream
    validation: EpisodeStream
    test: EpisodeStream

    def of_part(self, part: Part) -> EpisodeStream:
        """Episodes as at test, of the classes of `part`.

        Raises:
            DataError: if these have too few pictures for it.
        """
        if part == "train":
            return EpisodeStream(self.test.data, self.training.classes, self.test.rotations, self.test.size)
        return self.test if part == "test" else self.validation


def make_streams(config: EpisodeConfig, is_omniglot: bool) -> Streams:
    """
    Raises:
        DataError: if the data are missing, damaged, or too few.
    """
    if is_omniglot:
        data = load_omniglot(config.data_root, config.images)
        split = split_classes(data.names, config.split)
    else:
        data = _load_folder(config)
        split = _split_by_folder(data.names)
    train, validation, test = _parts(split, config.train_on)
    try:
        training = EpisodeStream(data, train, config.rotations, config.training)
    except DataError as error:
        raise DataError(f"in training, {error}") from error
    return Streams(
        training,
        EpisodeStream(data, validation, config.test_rotations, config.test),
        EpisodeStream(data, test, config.test_rotations, config.test),
    )


def _parts(split: Split, train_on: Literal["train", "trainval"]) -> Split:
    """The classes for training, for evaluation during it, and for results; the last two are the same without validation
    classes."""
    train, validation, test = split
    if train_on == "trainval":
        return Split(np.concatenate([train, validation]), test, test)
    return Split(train, validation if len(validation) else test, test)


def data_folder(data_root: str | None) -> Path | None:
    """The absolute path of the folder that is named, or else of $MAML_RL_DATA."""
    root = data_root or os.environ.get("MAML_RL_DATA")
    return Path(root).resolve() if root else None


def _load_folder(config: EpisodeConfig) -> ImageSet:
    root, files = _folder_files(config.data_root)
    state = fingerprint(Path(f.path) for f in files)
    content = content_fingerprint(root.name, state, files)
    if config.fingerprint not in (None, content):
        raise DataError(
            f"{root} must hold the pictures that the run learned from, but some have been changed, added or removed: "
            "restore them, name another folder by --data-root, or start a new run"
        )
    data = cached_images(root.name, state, config.images, lambda: files)._replace(fingerprint=content)
    _say_once(root, "; ".join(_in_words(part, data) for part in _part_folders(root)))
    return data


def _folder_files(data_root: str | None) -> tuple[Path, list[ImageFile]]:
    """The folder of the user's pictures, and these, of classes that are named train/CLASS, val/CLASS or test/CLASS."""
    root = data_folder(data_root)
    if root is None:
        raise DataError("--data-root must name the folder that holds train/ and test/, but it is left out")
    if missing := [name for name in ("train", "test") if not (root / name).is_dir()]:
        raise DataError(
            f"{root} must hold train/ and test/ with a folder for every class, but {missing[0]}/ is not there: make "
            "it, or name another folder by --data-root"
        )
    parts = _part_folders(root)
    return root, [f._replace(class_name=f"{part.name}/{f.class_name}") for part in parts for f in class_folders(part)]


def _part_folders(root: Path) -> list[Path]:
    return [root / name for name in ("train", "val", "test") if (root / name).is_dir()]


def _in_words(part: Path, data: ImageSet) -> str:
    """Such as "train: 5 classes, 30 pictures", and what may be wrong with them."""
    classes = [c for c, name in enumerate(data.names) if name.split("/")[0] == part.name]
    blank = {data.names[c]: _num_blank(data.images[data.first[c] : data.first[c + 1]]) for c in classes}
    text = f"{part.name}: {len(classes)} classes, {data.class_sizes[classes].sum()} pictures"
    if total := sum(blank.values()):
        text += f" ({total} of them blank, such as in {next(name for name, count in blank.items() if count)})"
    if num_loose := sum(map(is_picture, part.iterdir())):
        text += f" ({num_loose} more, in no class folder, left out)"
    return text


def _num_blank(images: NDArray[np.uint8]) -> int:
    """The number of pictures [M, H, W, C] that are of one colour, but for a few levels in 255."""
    low, high = images.min(axis=(1, 2)), images.max(axis=(1, 2))
    return int((high - low < BLANK_RANGE).all(axis=-1).sum())


@functools.cache
def _say_once(root: Path, text: str) -> None:
    """Print `text` the first time only: a program builds a run's episodes more than once."""
    print(text, file=sys.stderr)


class Supply(NamedTuple):
    """The amount of pictures to make episodes from."""

    num_classes: int
    fewest: int  # pictures of a class

    def __str__(self) -> str:
        return f"{self.num_classes} classes of at least {self.fewest} pictures"


def supplies(config: EpisodeConfig) -> tuple[Supply, Supply]:
    """The supply in the user's folder to train on, and to evaluate on: the smaller of validation and test.

    Raises:
        DataError: if the folder is missing or has no pictures.
    """
    counts = Counter(file.class_name for file in _folder_files(config.data_root)[1])
    names = tuple(counts)
    streams = _parts(_split_by_folder(names), config.train_on)
    sizes = [np.array([counts[names[c]] for c in classes]) for classes in streams]
    copies = [NUM_ROTATIONS if r == "classes" else 1 for r in (config.rotations, *(config.test_rotations,) * 2)]
    train, *others = (Supply(n * len(s), int(s.min())) for n, s in zip(copies, sizes, strict=True))
    return train, Supply(min(s.num_classes for s in others), min(s.fewest for s in others))


def _split_by_folder(names: tuple[str, ...]) -> Split:
    top = np.array([name.split("/")[0] for name in names])
    return Split(*(np.flatnonzero(top == wanted) for wanted in ("train", "val", "test")))


def one_shot_examples(run: OneShotRun, norm: NormPolicy) -> tuple[Examples, Examples]:
    """Support and query of one of Lake's runs, as one episode."""
    support, query = as_input(run.support)[None], as_input(run.query)[None]
    labels, context = torch.arange(len(run.support))[None], support if norm == "support" else support[:, :0]
    return Examples(support, labels, support[:, :0]), Examples(query, torch.from_numpy(run.labels)[None], context)
