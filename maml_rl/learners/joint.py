"""Joint training with a fine-tuned head: the baseline without meta-learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import torch
import tyro

from maml_rl.core.adam import Moments, adam_step, init_moments
from maml_rl.core.clock import Clock
from maml_rl.core.contracts import Actor, Report
from maml_rl.core.inner import InnerConfig, adapt_tasks
from maml_rl.core.keys import Key
from maml_rl.core.lift import Threads
from maml_rl.core.outer.choice import GradientOuter
from maml_rl.core.trees import Params, as_leaves, flatten, stack, to_device, unflatten
from maml_rl.learners.entry import (
    SECOND,
    TRAINING_ONLY,
    WHOLE_PATH,
    Context,
    Entry,
    Protocol,
    omniglot_protocol,
    require_classes,
)
from maml_rl.learners.maml import MAMLAdapted, picture_model, require_fitting_norm
from maml_rl.networks.convnet import ConvConfig
from maml_rl.networks.mlp import linear
from maml_rl.supervised.classification import ClassificationModel, PictureSpec, cross_entropy
from maml_rl.supervised.encoder_pass import EncoderPass, gradient
from maml_rl.supervised.episodes import NUM_ROTATIONS, Episode, Examples, gather, rotated_class


@dataclass(frozen=True)
class Config:
    """Settings of joint training."""

    inner: InnerConfig = field(default_factory=lambda: InnerConfig(step_size=0.1))
    outer: GradientOuter = field(default_factory=GradientOuter)
    network: Annotated[ConvConfig, tyro.conf.arg(name="")] = field(default_factory=ConvConfig)


class JointState(NamedTuple):
    """Everything that is learned or carried along."""

    params: Params  # with a head for all training classes
    adam: Moments


class JointClassifier:
    """A network that learns to classify all training classes. At test a new linear layer of zeros replaces the last
    one, and the whole network is fine-tuned on the support.

    It sees the same episodes as the other learners, as one batch of pictures with their true classes.
    """

    def __init__(self, model: ClassificationModel, config: Config, spec: PictureSpec, threads: Threads):
        self.model, self._config, self._data, self._threads = model, config, spec.data, threads
        classes = [NUM_ROTATIONS * int(c) + r for c in spec.classes for r in range(NUM_ROTATIONS)]
        self._row = {number: row for row, number in enumerate(classes)}  # of the large linear layer

    def init(self, key: Key) -> JointState:
        params = self._with_head(self.model.init_params(key), len(self._row))
        return JointState(params, init_moments(flatten(params)))

    def meta_step(self, state: JointState, tasks: Sequence[Episode], key: Key) -> tuple[JointState, Report]:
        clock = Clock()
        with clock("sample_seconds"):
            examples = self._labelled(tasks)
        with clock("outer_seconds"):
            leaves = as_leaves(state.params)
            images, context = examples.images.unsqueeze(0), examples.context.unsqueeze(0)
            encoded = EncoderPass(state.params, images, context, self._config.network, self._threads)
            logits = linear(encoded.features.squeeze(0), leaves["head.weight"], leaves["head.bias"])
            loss = cross_entropy(logits, examples.labels)
            slope = gradient(loss, leaves, [encoded])
            vector, moments = adam_step(flatten(state.params), slope, state.adam, self._config.outer.gradient)
        right = (logits.argmax(dim=-1) == examples.labels).double().mean().item()
        metrics = {"accuracy_after": right, "loss": loss.item(), "gradient_norm": slope.norm().item()}
        return JointState(unflatten(vector, state.params), moments), Report(metrics, clock.seconds)

    def begin(self, state: JointState, num_tasks: int, key: Key) -> MAMLAdapted:
        """The encoder with a head of zeros: as wide as training's until the task's classes are known."""
        params = self._with_head(state.params, len(state.params["head.bias"]))
        return MAMLAdapted(stack(params, num_tasks), torch.zeros(num_tasks, dtype=torch.int64))

    def adapt(self, state: JointState, adapted: MAMLAdapted, data: Examples, key: Key) -> MAMLAdapted:
        """Take one gradient step, with a head for the task's classes."""
        count, params = self.num_gradient_steps(adapted), adapted.params
        if count == 0:
            params = self._with_head(params, int(data.labels.max()) + 1)
        sizes = self._config.inner.sizes_for(params, [self._config.inner.test_step_size_at(count)], self.model.head)
        return MAMLAdapted(adapt_tasks(self.model, params, [data], sizes, self._threads), adapted.num_steps + 1)

    def actor(self, state: JointState, adapted: MAMLAdapted, key: Key) -> Actor:
        return Actor(self.model.network, adapted.params)

    def num_gradient_steps(self, adapted: MAMLAdapted) -> int:
        return int(adapted.num_steps[0])

    def _with_head(self, params: Params, ways: int) -> Params:
        """The same parameters with a head of zeros for `ways` classes."""
        weight, bias = params["head.weight"], params["head.bias"]
        zeros = {"head.weight": weight.new_zeros(*weight.shape[:-1], ways)}
        return params | zeros | {"head.bias": bias.new_zeros(*bias.shape[:-1], ways)}

    def _labelled(self, tasks: Sequence[Episode]) -> Examples:
        """All pictures of the episodes as one batch, [B, ...], with the rows of their true classes."""
        assert self._data is not None, "training needs the pictures"
        images, labels = [], []
        for part in ("support", "query"):
            pictures, places = gather(self._data, list(tasks), part)
            rows = torch.tensor([[self._row[number] for number in rotated_class(task)] for task in tasks])
            images.append(pictures.flatten(0, 1))
            labels.append(rows.gather(1, places).flatten())
        batch = torch.cat(images)
        return to_device(Examples(batch, torch.cat(labels), batch[:0]), self.model.device)


def build(context: Context, config: Config) -> JointClassifier:
    return JointClassifier(picture_model(context, config.network), config, context.details, context.threads)


def omniglot(ways: int, shots: int) -> Protocol:
    return omniglot_protocol(ways, shots, num_iterations=20_000, num_steps=10, config=Config())


ENTRY = Entry(
    "joint",
    "Joint training on all classes, then fine-tuning: no meta-learning",
    {"pictures": Config},
    build,
    gradient_steps=True,
    unread={
        "method.network.head_std": "learners that adapt a last layer",
        "method.inner.num_steps": "learners that adapt in training",
        "method.inner.first_order method.inner.learn_step_sizes method.inner.train_later_ratio": SECOND,
        "method.inner.before_weight": WHOLE_PATH,
    },
    training_only=(*TRAINING_ONLY, "params/head."),  # a new one replaces it
    any_ways=True,
    require=lambda config: require_fitting_norm("joint", config.network),
    require_episodes=lambda config, episodes, num_tasks: require_classes("joint", episodes),
    paper=omniglot,
)
