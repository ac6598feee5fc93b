"""MAML and its kin as classifiers, and joint training: learners whose predictions follow gradient steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from maml_rl.core.inner import InnerConfig, inner_gradient
from maml_rl.core.lift import Threads
from maml_rl.core.maml import MAML, Clock, OuterConfig, params_of
from maml_rl.core.outer.gradient import GradientConfig, Moments, gradient_step, init_moments
from maml_rl.core.params import as_leaves, flatten, to_device, unflatten
from maml_rl.core.protocols import Key, Report, State
from maml_rl.fewshot.encoder_pass import EncoderPass, gradient
from maml_rl.fewshot.fine_tuning import FineTuned, Plan
from maml_rl.networks import linear
from maml_rl.supervised.classification import ClassificationFamily, cross_entropy
from maml_rl.supervised.episodes import NUM_ROTATIONS, Episode, Examples, gather, rotated_class


class MAMLClassifier(FineTuned, MAML):
    """MAML, first-order MAML, ANIL and Meta-SGD over episodes: the core's learner, with its own steps at test."""

    family: ClassificationFamily

    def __init__(
        self,
        family: ClassificationFamily,
        inner: InnerConfig,
        outer: OuterConfig,
        test_step_sizes: Sequence[float],
        threads: Threads,
    ):
        """
        Args:
            test_step_sizes: of the gradient steps on a task at test; where step sizes are learned, only their number
                counts.
        """
        MAML.__init__(self, family, inner, outer, threads)
        FineTuned.__init__(self, test_step_sizes)

    def plan(self, state: State, support: Examples, key: Key) -> Plan:
        sizes = self.step_sizes(state, self.test_step_sizes)
        return Plan(params_of(state), [support] * len(sizes), sizes, lambda count: inner_gradient(self.family))


class JointClassifier(FineTuned):
    """The baseline without meta-learning: one network learns to tell all training classes apart; at test a new linear
    layer, of zeros, takes the place of the last, and all is fine-tuned on the support.

    It sees the same episodes as the others, as so many pictures with their true classes.
    """

    def __init__(
        self,
        family: ClassificationFamily,
        inner: InnerConfig,
        outer: GradientConfig,
        test_step_sizes: Sequence[float],
        threads: Threads,
    ):
        super().__init__(test_step_sizes)
        self.family, self._inner, self._outer, self.threads = family, inner, outer, threads
        classes = [NUM_ROTATIONS * int(c) + r for c in family.stream.classes for r in range(NUM_ROTATIONS)]
        self._row = {number: row for row, number in enumerate(classes)}  # of the large linear layer

    def init(self, key: Key) -> State:
        params = self.family.init_params(key)
        width = params["head.weight"].shape[0]
        params["head.weight"] = params["head.weight"].new_zeros(width, len(self._row))
        params["head.bias"] = params["head.bias"].new_zeros(len(self._row))
        state = {f"params/{name}": value for name, value in params.items()}
        return state | {f"adam/{name}": v for name, v in init_moments(flatten(params))._asdict().items()}

    def meta_step(self, state: State, tasks: Sequence[Episode], key: Key) -> tuple[State, Report]:
        clock = Clock()
        with clock("sample_seconds"):
            examples = self._labelled(tasks)
        with clock("outer_seconds"):
            theta, config = params_of(state), self.family.network
            leaves = as_leaves(theta)
            images, context = examples.images.unsqueeze(0), examples.context.unsqueeze(0)
            encoded = EncoderPass(theta, images, context, config, self.threads)
            logits = linear(encoded.features.squeeze(0), leaves["head.weight"], leaves["head.bias"])
            loss = cross_entropy(logits, examples.labels)
            slope = gradient(loss, leaves, [encoded])
            moments = Moments(**{name: state[f"adam/{name}"] for name in Moments._fields})
            vector, moments = gradient_step(flatten(theta), slope, moments, self._outer)
        new = {f"params/{name}": value for name, value in unflatten(vector, theta).items()}
        right = (logits.argmax(dim=-1) == examples.labels).double().mean().item()
        metrics = {"accuracy_after": right, "loss": loss.item(), "gradient_norm": slope.norm().item()}
        return new | {f"adam/{name}": v for name, v in moments._asdict().items()}, Report(metrics, clock.seconds)

    def plan(self, state: State, support: Examples, key: Key) -> Plan:
        params = params_of(state)
        ways = int(support.labels.max()) + 1
        params["head.weight"] = params["head.weight"].new_zeros(params["head.weight"].shape[0], ways)
        params["head.bias"] = params["head.bias"].new_zeros(ways)
        sizes = self._inner.sizes_for(params, self.test_step_sizes)
        return Plan(params, [support] * len(sizes), sizes, lambda count: inner_gradient(self.family))

    def _labelled(self, tasks: Sequence[Episode]) -> Examples:
        """All pictures of the episodes as one batch, [B, ...], with the rows of their true classes."""
        images, labels = [], []
        for part in ("support", "query"):
            pictures, places = gather(self.family.stream.data, list(tasks), part)
            rows = torch.tensor([[self._row[number] for number in rotated_class(task)] for task in tasks])
            images.append(pictures.flatten(0, 1))
            labels.append(rows.gather(1, places).flatten())
        batch = torch.cat(images)
        return to_device(Examples(batch, torch.cat(labels), batch[:0]), self.family.device)
