"""Pictures of a learner that models sets: drawings it imagines, summaries of sets, beliefs about distributions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.core.contracts import ModelOfSets
from maml_rl.core.gaussians import kl
from maml_rl.core.keys import EVALUATION, TASKS, Key
from maml_rl.core.trees import to_device
from maml_rl.evaluation.evaluator import Stage
from maml_rl.experiments.runs import Trained
from maml_rl.pictures.imagination import (
    Believed,
    Imagined,
    Predicted,
    Summarised,
    context_plot,
    density_plot,
    imagined_sheet,
    summary_sheet,
)
from maml_rl.pictures.plots import save_figure
from maml_rl.supervised.distributions import SHAPES, Numbers
from maml_rl.supervised.episodes import Episode, class_names, gather

IMAGINED, SUMMARY = "imagined.png", "summary.png"
CONTEXTS, DENSITIES = "contexts.png", "densities.png"

NUM_CLASSES, NUM_GIVEN, NUM_NEW = 8, 5, 10  # of the sheet of imagined drawings
NUM_SUMMED, SUMMARY_SIZE, NUM_RANDOM = 5, 6, 50
"""Classes of the sheet of summaries, drawings of each summary, and random choices that it is compared with."""


def imagination(trained: Trained, subject: str, folder: Path) -> list[Path]:
    """Draw what the learner imagines for classes that training has not seen, and summaries of such classes; nothing for
    learners that do not model sets."""
    learner = trained.built.learner
    if not isinstance(learner, ModelOfSets):
        return []
    key = Key(trained.config.evaluation.seed, EVALUATION, 0)
    sheets = {
        IMAGINED: imagined_sheet(_imagined(learner, trained, key), f"{subject}: new drawings of unseen characters"),
        SUMMARY: summary_sheet(_summarised(learner, trained, key), f"{subject}: the drawings that tell most about all"),
    }
    for name, figure in sheets.items():
        save_figure(figure, folder / name)
    return [folder / name for name in sheets]


def beliefs(trained: Trained, stages: list[Stage], subject: str, folder: Path) -> list[Path]:
    """Draw predicted densities and, for a learner that models sets, where it places each distribution."""
    tasks: Sequence[Any] = trained.built.tasks()
    stage = stages[-1]
    seen = stage.support.numbers.squeeze(-1).double().cpu().numpy()
    chosen = [index for shape in SHAPES for index in [i for i, t in enumerate(tasks) if t.shape == shape][:1]]
    at = np.linspace(-6.0, 6.0, 300)
    column = Numbers(torch.from_numpy(at).float().view(1, -1, 1).to(trained.built.device))
    plots = []
    for index in chosen:
        with torch.no_grad():
            outputs = stage.actor.take_tasks(index, index + 1).step((), column, None)[0][0]
        task = tasks[index]
        plots.append(Predicted(str(task), at, task.density(at), outputs.double().exp().cpu().numpy(), seen[index]))
    save_figure(density_plot(plots, f"{subject}: densities predicted from {seen.shape[1]} numbers"), folder / DENSITIES)
    learner = trained.built.learner
    if not isinstance(learner, ModelOfSets):
        return [folder / DENSITIES]
    contexts = learner.about(trained.state, stage.adapted).mean[:, 0].double().cpu().numpy()
    sets = [Believed(t.shape, t.mean, t.variance, c) for t, c in zip(tasks, contexts, strict=True)]
    save_figure(context_plot(sets, f"{subject}: means of the contexts of {len(sets)} distributions"), folder / CONTEXTS)
    return [folder / DENSITIES, folder / CONTEXTS]


def _imagined(learner: ModelOfSets, trained: Trained, key: Key) -> list[Imagined]:
    drawings, names = _unseen(trained, NUM_CLASSES, NUM_GIVEN, key)
    instances = learner.instances(trained.state, drawings)
    contexts = learner.believed(trained.state, instances, drawings.new_ones(drawings.shape[:2])).mean
    new = learner.imagine(trained.state, contexts, NUM_NEW, key)
    as_drawn = _as_drawn(trained)
    return [
        Imagined(name, as_drawn(given), as_drawn(made)) for name, given, made in zip(names, drawings, new, strict=True)
    ]


def _summarised(learner: ModelOfSets, trained: Trained, key: Key) -> list[Summarised]:
    drawings, names = _unseen(trained, NUM_SUMMED, 20, key)
    as_drawn, rng, rows = _as_drawn(trained), key.rng(1), []
    for name, members, instances in zip(names, drawings, learner.instances(trained.state, drawings), strict=True):
        size = min(SUMMARY_SIZE, len(members))
        chosen, divergences = summary(learner, trained, instances, size)
        orders = np.stack([rng.permutation(len(members))[:size] for _ in range(NUM_RANDOM)])
        by_count = [
            _from_all(learner, trained, instances, orders[:, :count]).mean().item() for count in range(1, size + 1)
        ]
        rows.append(Summarised(name, as_drawn(members), chosen, divergences, by_count))
    return rows


def summary(learner: ModelOfSets, trained: Trained, instances: Tensor, size: int) -> tuple[list[int], list[float]]:
    """The members of a set that tell most about it, one after the other, and KL(q(c | these) || q(c | all)) after each.

    Each is the one that brings the divergence down the most (Edwards and Storkey 2017, section 5.2).

    Args:
        instances: [K, H] of the members.
    """
    chosen: list[int] = []
    divergences: list[float] = []
    for _ in range(size):
        free = [place for place in range(len(instances)) if place not in chosen]
        found = _from_all(learner, trained, instances, np.array([[*chosen, place] for place in free]))
        best = int(found.argmin())
        chosen.append(free[best])
        divergences.append(found[best].item())
    return chosen, divergences


def _from_all(learner: ModelOfSets, trained: Trained, instances: Tensor, subsets: NDArray[np.int64]) -> Tensor:
    """KL(q(c | subset) || q(c | all members)) of M subsets [M, k]: [M]."""
    size = len(instances)
    kept = torch.zeros(len(subsets), size).scatter_(1, torch.from_numpy(subsets), 1.0).to(instances.device)
    some = learner.believed(trained.state, instances.expand(len(subsets), -1, -1), kept)
    every = learner.believed(trained.state, instances.unsqueeze(0), instances.new_ones(1, size))
    return kl(some, every)


def _unseen(trained: Trained, num_classes: int, num_drawings: int, key: Key) -> tuple[Tensor, list[str]]:
    """Drawings [classes, K, H, W, 1] of classes that training has not seen, and their names; fewer where there are
    fewer."""
    spec = trained.built.spec
    assert spec is not None and spec.data is not None, "runs on pictures are loaded with them"
    data = spec.data
    episodes = trained.built.family.source.sample_test_tasks(num_classes, key.rng(TASKS))
    found = dict.fromkeys(pair for e in episodes for pair in zip(e.classes, e.rotations, strict=True))
    classes = list(found)[:num_classes]
    size = min(num_drawings, *(int(data.class_sizes[c]) for c, _ in classes))
    rng = key.rng()
    sets = [
        Episode((c,), (quarters,), (tuple(rng.permutation(data.class_sizes[c])[:size].tolist()),), ())
        for c, quarters in classes
    ]
    return to_device(gather(data, sets, "support")[0], trained.built.device), [
        class_names(data, each)[0] for each in sets
    ]


def _as_drawn(trained: Trained) -> Callable[[Tensor], NDArray[np.float64]]:
    """A function that turns pictures as networks get them into what was drawn."""
    is_inverted = trained.config.task.images.invert

    def convert(drawings: Tensor) -> NDArray[np.float64]:
        values = drawings.squeeze(-1).double().cpu().numpy()
        return 1.0 - values if is_inverted else values

    return convert
