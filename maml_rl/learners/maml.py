"""MAML and its kin: learners whose adaptation is gradient steps, in reinforcement learning and at H = 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple

import tyro
from torch import Tensor

from maml_rl.core.acting import Answered, answer
from maml_rl.core.adam import AdamConfig
from maml_rl.core.clock import Clock
from maml_rl.core.contracts import Actor, Collector, Measure, Model, Report
from maml_rl.core.inner import HEAD, InnerConfig, StepSize, adapt_tasks, join_step_sizes, split_step_sizes
from maml_rl.core.keys import INITIALISATION, Key
from maml_rl.core.lift import Threads
from maml_rl.core.objective import Begun, MetaObjective
from maml_rl.core.outer.choice import GradientOuter, OuterConfig, ProximalOuter, TrustRegionOuter
from maml_rl.core.outer.proximal import Proximal, ProximalConfig
from maml_rl.core.outer.step import Moved, OuterStep
from maml_rl.core.statistics import spread
from maml_rl.core.trees import Params, map_params, num_tasks, stack
from maml_rl.learners.entry import Context, Entry, Protocol, omniglot_protocol
from maml_rl.networks.convnet import ConvConfig
from maml_rl.policies.module import make_policy
from maml_rl.policies.policy import PolicyConfig
from maml_rl.rl.model import AdvantageConfig, PolicyModel
from maml_rl.supervised.classification import ClassificationModel
from maml_rl.supervised.sinusoid import RegressionModel


class MAMLState(NamedTuple):
    """Everything MAML has learned or carries along."""

    params: Params  # theta
    step_sizes: Params  # shaped like theta where they are learned (Meta-SGD), else empty
    outer: Any  # the outer step's memory


class MAMLAdapted(NamedTuple):
    """N tasks after some gradient steps."""

    params: Params  # theta' [N, ...]
    num_steps: Tensor  # [N] int64


class _Collected(NamedTuple):
    """One iteration's data on the way to the outer step."""

    experience: list[Any]  # as it was collected: the supports, then the query
    batches: list[Any]  # the same, ready for losses
    adapted: Params  # [task, ...]: the parameters that the query was collected with


class MAML:
    """Model-Agnostic Meta-Learning (Finn et al. 2017, Algorithms 1 to 3) over any task family."""

    def __init__(
        self,
        model: Model,
        collector: Collector,
        measure: Measure,
        inner: InnerConfig,
        outer: OuterStep,
        threads: Threads,
    ):
        if outer.wants_adapted and inner.num_steps < 1:
            raise ValueError(
                f"inner.num_steps must be at least 1 for outer.step {outer.name}, which moves towards theta', got 0"
            )
        if inner.learn_step_sizes and not outer.learns_step_sizes:
            raise ValueError(
                "inner.learn_step_sizes needs an outer.step that moves the step sizes, too, gradient or proximal, got "
                f"{outer.name}"
            )
        if inner.learn_step_sizes and inner.only:
            raise ValueError(f"inner.only must be left out where step sizes are learned, got {list(inner.only)}")
        if isinstance(outer, Proximal) and len(outer.config.inner_kl) not in (1, inner.num_steps):
            raise ValueError(
                "proximal.inner_kl must be one number or as many as inner.num_steps, "
                f"{inner.num_steps}, got {outer.config.inner_kl}"
            )
        self.model, self.collector, self.measure = model, collector, measure
        self.inner, self.outer, self.threads = inner, outer, threads

    def init(self, key: Key) -> MAMLState:
        params = self.model.init_params(key)
        sizes: Params = {}
        if self.inner.learn_step_sizes:
            sizes = map_params(lambda p: p.new_full(p.shape, self.inner.step_size), params)
        return MAMLState(params, sizes, self.outer.init(join_step_sizes(params, sizes)))

    def meta_step(self, state: MAMLState, tasks: Sequence[Any], key: Key) -> tuple[MAMLState, Report]:
        """Run one iteration: collect, adapt, collect again, move theta."""
        clock = Clock()
        data = self._collect(state, tasks, key, clock)
        with clock("outer_seconds"):
            moved, begun = self._move(state, data, key)
        metrics = self._metrics(state.params, begun, data) | moved.metrics
        steps = metrics.get("env_steps", 0.0)
        rate = {"steps_per_s": steps / clock.seconds["sample_seconds"]} if steps else {}
        return MAMLState(*split_step_sizes(moved.params), moved.state), Report(metrics, clock.seconds | rate)

    def _move(self, state: MAMLState, data: _Collected, key: Key) -> tuple[Moved[Any], Begun | None]:
        """Take an outer step; also return the adapted tasks, if it has asked about them."""
        *supports, query = data.batches
        sizes = self._step_sizes(state, self.inner.step_sizes)
        objective = MetaObjective(self.model, self.inner, supports, query, self.threads, sizes)
        learned = join_step_sizes(state.params, state.step_sizes)
        return self.outer.step(objective, learned, data.adapted, state.outer, key.iteration), objective.begun

    def begin(self, state: MAMLState, num_tasks: int, key: Key) -> MAMLAdapted:
        """Theta for every task."""
        some = next(iter(state.params.values()))
        return MAMLAdapted(stack(state.params, num_tasks), some.new_zeros(num_tasks).long())

    def adapt(self, state: MAMLState, adapted: MAMLAdapted, data: Any, key: Key) -> MAMLAdapted:
        """Take one gradient step, of the size that the settings give it at test."""
        batch = self.model.prepare(adapted.params, data)
        trimmed = state._replace(step_sizes=self.model.trim(state.step_sizes, batch))
        sizes = self._step_sizes(trimmed, [self.inner.test_step_size_at(self.num_gradient_steps(adapted))])
        params = adapt_tasks(self.model, self.model.trim(adapted.params, batch), [batch], sizes, self.threads)
        return MAMLAdapted(params, adapted.num_steps + 1)

    def actor(self, state: MAMLState, adapted: MAMLAdapted, key: Key) -> Actor:
        return Actor(self.model.network, adapted.params)

    def num_gradient_steps(self, adapted: MAMLAdapted) -> int:
        return int(adapted.num_steps[0])

    def _step_sizes(self, state: MAMLState, sizes: Sequence[float]) -> Sequence[StepSize]:
        """The learned step sizes, one for each of `sizes`; or `sizes` themselves if none are learned."""
        if state.step_sizes:
            return [state.step_sizes] * len(sizes)
        return self.inner.sizes_for(state.params, sizes, self.model.head)

    def _collect(self, state: MAMLState, tasks: Sequence[Any], key: Key, clock: Clock) -> _Collected:
        """Support data and theta', step by step, then the query data under theta'.

        Theta' on given data, which ask for no parameters, is left to the outer step, unless it moves towards theta'.
        """
        resamples = self.collector.resamples
        experience: list[Any] = []
        batches: list[Any] = []
        adapted = stack(state.params, len(tasks))

        def collect(phase: int) -> None:
            actor = Actor(self.model.network, adapted) if resamples else None
            experience.append(self.collector.collect(tasks, actor, key.at_phase(phase)))
            batches.append(self.model.prepare(adapted, experience[-1]))

        for phase, step_size in enumerate(self._step_sizes(state, self.inner.step_sizes)):
            with clock("sample_seconds"):
                if resamples or phase == 0:
                    collect(phase)
                else:
                    experience.append(experience[0])
                    batches.append(batches[0])
            if resamples or self.outer.wants_adapted:
                with clock("adapt_seconds"):
                    adapted = adapt_tasks(self.model, adapted, batches[-1:], [step_size], self.threads)
        with clock("sample_seconds"):
            collect(self.inner.num_steps)
        return _Collected(experience, batches, adapted)

    def _metrics(self, theta: Params, begun: Begun | None, data: _Collected) -> dict[str, float]:
        """Scores before and after adaptation, each on the data collected at that moment, and further metrics.

        Args:
            begun: the adapted tasks with their outputs, if the outer step has asked about them.
        """
        metric, first, query = self.measure.metric, data.experience[0], data.experience[-1]
        adapted, before, after = begun or Begun(data.adapted, None, None)
        return {
            **spread(f"{metric}_before", self._score(stack(theta, num_tasks(adapted)), first, before)),
            **spread(f"{metric}_after", self._score(adapted, query, after)),
            **self.model.describe(data.batches),
            **self.measure.describe(data.experience),
        }

    def _score(self, params: Params, data: Any, outputs: Tensor | None) -> Tensor:
        """Scores [task, sample]. params, data: stacked; outputs: those of the parameters on the data, where known."""
        if self.collector.resamples:
            return self.measure.score(data)
        if outputs is None:
            return self.measure.score(answer(Actor(self.model.network, params), data, self.threads))
        return self.measure.score(Answered(data, outputs))


# --- settings and the table's lines -----------------------------------------------------------------------------


@dataclass(frozen=True)
class PolicyInnerConfig(InnerConfig):
    """Settings of a policy's adaptation to a task."""

    estimator: Literal["log_prob", "ratio", "stored_ratio", "dice"] = "log_prob"
    """Inner policy-gradient loss: log-prob x advantage (Finn et al. 2017), likelihood ratio pi / stop(pi) (Rothfuss et
    al. 2019), the same to the policy that collected the data, which stays right in later epochs of the outer step, or
    DiCE (Foerster et al. 2018). Same first derivative on fresh data, different second."""
    unit_return: float | None = None
    """Return before a step, below 0, at which the step has its size: a task with twice that return takes twice the
    step, one with none stays. For tasks whose return says how far off they are, where a policy gradient alone gives a
    direction. By default every task takes the same step, as in Finn et al. 2017."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit_return is not None and not -float("inf") < self.unit_return < 0.0:
            raise ValueError(
                f"inner.unit_return must be negative and finite, got {self.unit_return}: give a return before "
                "adaptation, or leave it out where returns lie above 0"
            )


@dataclass(frozen=True)
class ReinforcementConfig:
    """Settings of MAML in reinforcement learning."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    inner: PolicyInnerConfig = field(default_factory=PolicyInnerConfig)
    outer: OuterConfig = field(default_factory=TrustRegionOuter)


@dataclass(frozen=True)
class ProximalReinforcementConfig(ReinforcementConfig):
    """Settings of the learners that the proximal outer step defines."""

    inner: PolicyInnerConfig = field(default_factory=lambda: PolicyInnerConfig(estimator="stored_ratio"))
    outer: ProximalOuter = field(default_factory=ProximalOuter)


@dataclass(frozen=True)
class RegressionConfig:
    """Settings of MAML in regression."""

    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=GradientOuter)


@dataclass(frozen=True)
class PicturesConfig:
    """Settings of MAML on pictures."""

    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=GradientOuter)
    network: Annotated[ConvConfig, tyro.conf.arg(name="")] = field(default_factory=ConvConfig)


MAMLConfig = ReinforcementConfig | RegressionConfig | PicturesConfig


def picture_model(context: Context, network: ConvConfig) -> ClassificationModel:
    return ClassificationModel(network, context.details.shape, context.device)


def make_model(context: Context, config: Any) -> Model:
    """The model of a gradient learner on this kind of task."""
    if context.kind == "reinforcement":
        policy = make_policy(context.details, config.policy)
        inner = config.inner
        return PolicyModel(
            policy, config.advantage, inner.estimator, context.threads, context.device, inner.unit_return
        )
    if context.kind == "regression":
        return RegressionModel(context.details, context.device)
    return picture_model(context, config.network)


def build(context: Context, config: MAMLConfig) -> MAML:
    """MAML or one of its kin.

    Raises:
        ValueError: if the settings do not go together, or no parameter adapts.
    """
    model, family = make_model(context, config), context.family
    config.inner.sizes_for(model.init_params(Key(0, INITIALISATION, 0)), (), model.head)
    return MAML(model, family.collector, family.measure, config.inner, config.outer.make(), context.threads)


def omniglot(ways: int, shots: int, **inner: Any) -> Protocol:
    """The protocol of the paper and its published code. Where 5 classes have settings other than 20, fewer than 10 take
    those of 5. In the code scale and bias of the normalisation do not adapt, but in Meta-SGD, which learns their sizes.
    """
    few = ways < 10
    # the published code's loss is the mean over a class's pictures and the sum over classes: 0.4 of 5, 0.1 of 20
    size = 0.4 * ways if few else 0.1 * ways
    usual = InnerConfig(num_steps=1 if few else 5, step_size=size, only=ADAPTING)
    config = PicturesConfig(replace(usual, **inner))
    return omniglot_protocol(ways, shots, num_iterations=60_000, num_steps=3 if few else 5, config=config)


ADAPTING = ("conv", "head")


def faster(paper: Protocol) -> Protocol:
    """The protocol with settings that learn faster.

    Steps of 0.4 on the mean loss and a small last layer let the first gradients reach the features; few tasks
    of five queries a class, twice the learning rate and its decay to zero make the most of each second.
    """
    inner, network = replace(paper.config.inner, step_size=0.4), replace(paper.config.network, head_std=0.1)
    return _with_few_tasks(
        paper._replace(config=replace(paper.config, inner=inner, network=network)),
        num_iterations=16_000,
        learning_rate=2e-3,
        evaluate_every=1000,
    )


def from_prototypes(paper: Protocol) -> Protocol:
    """The protocol for a warm start from Prototypical Networks.

    Their pooled network with a last layer of zeros, so that the first steps do nearly what they do: five of them in
    training, too, and a learning rate that does not undo what has been learned.
    """
    step_size = 0.02 * paper.episodes.ways  # the loss is the mean over the classes
    inner = replace(paper.config.inner, num_steps=5, step_size=step_size)
    network = replace(paper.config.network, architecture="pooled", head_std=0.0)
    return _with_few_tasks(
        paper._replace(
            evaluation=replace(paper.evaluation, num_steps=5),
            config=replace(paper.config, inner=inner, network=network),
        ),
        num_iterations=200,
        learning_rate=1e-4,
        evaluate_every=50,
    )


def _with_few_tasks(paper: Protocol, num_iterations: int, learning_rate: float, evaluate_every: int) -> Protocol:
    """Eight tasks of at least five queries a class, and a learning rate that decays to zero."""
    adam = AdamConfig(learning_rate=learning_rate, decay="cosine", decay_steps=num_iterations)
    return paper._replace(
        num_iterations=num_iterations,
        num_tasks=8,
        evaluate_every=evaluate_every,
        episodes=replace(paper.episodes, queries=max(5, paper.episodes.queries)),
        config=replace(paper.config, outer=GradientOuter(gradient=adam)),
    )


def _entry(name: str, summary: str, presets: Mapping[str, Any], **inner: Any) -> Entry:
    """A line of the table: MAML with the settings of `inner` fixed that define the name. ANIL and Meta-SGD may also be
    first-order."""

    def require(config: MAMLConfig) -> None:
        fixed = {"learn_step_sizes": False} | (inner or {"first_order": False})
        found = {setting: getattr(config.inner, setting) for setting in fixed}
        wrong = [setting for setting in fixed if found[setting] != fixed[setting]]
        if wrong:
            needed, given = (in_words({setting: each[setting] for setting in wrong}) for each in (fixed, found))
            raise ValueError(
                f"learner {name} needs {needed} in inner, got {given}: leave that out, or take the learner that it "
                "belongs to (fomaml, anil, meta-sgd)"
            )
        if isinstance(config, PicturesConfig):
            require_fitting_norm(name, config.network)

    def on_pictures(ways: int, shots: int) -> Protocol:
        return omniglot(ways, shots, **({"only": ()} if name == "meta-sgd" else {}) | inner)

    outer = GradientOuter if inner.get("learn_step_sizes") else TrustRegionOuter
    return Entry(
        name,
        summary,
        {
            "reinforcement": lambda: ReinforcementConfig(inner=PolicyInnerConfig(**inner), outer=outer()),
            "regression": lambda: RegressionConfig(inner=InnerConfig(**inner)),
            "pictures": lambda: on_pictures(5, 1).config,
        },
        build,
        gradient_steps=True,
        require=require,
        paper=on_pictures,
        presets=presets,
    )


def require_fitting_norm(learner: str, network: ConvConfig) -> None:
    """Refuse normalisation that does not fit adapted weights.

    Raises:
        ValueError: if normalisation is by running averages, which are from before adaptation.
    """
    if network.norm == "running":
        raise ValueError(
            f"norm must be batch, support or none for learner {learner}, got running: averages from before adaptation "
            "do not fit the adapted weights"
        )


def in_words(settings: Mapping[str, Any]) -> str:
    return " and ".join(f"{name} {value}" for name, value in settings.items())


WARM = {"fast": faster, "warm": from_prototypes}
MAML_ENTRY = _entry("maml", "Model-Agnostic Meta-Learning (Finn et al. 2017)", WARM)
FOMAML_ENTRY = _entry("fomaml", "MAML without second derivatives (Finn et al. 2017)", WARM, first_order=True)
ANIL_ENTRY = _entry("anil", "MAML that adapts the last layer alone (Raghu et al. 2020)", {"fast": faster}, only=(HEAD,))
META_SGD_ENTRY = _entry(
    "meta-sgd", "MAML that learns its step sizes (Li et al. 2017)", {"fast": faster}, learn_step_sizes=True
)


def _proximal_entry(name: str, summary: str, proximal: ProximalConfig) -> Entry:
    """A line of the table: the proximal outer step with the ratio to the policies that collected the support."""

    def require(config: ProximalReinforcementConfig) -> None:
        if config.inner.estimator != "stored_ratio":
            raise ValueError(
                f"learner {name} needs inner.estimator stored_ratio, got {config.inner.estimator}: leave that out, or "
                "take --learner maml --outer.step proximal"
            )

    def default() -> ProximalReinforcementConfig:
        return ProximalReinforcementConfig(outer=ProximalOuter(proximal=proximal))

    return Entry(name, summary, {"reinforcement": default}, build, gradient_steps=True, require=require)


PROMP_ENTRY = _proximal_entry(
    "promp",
    "Proximal Meta-Policy Search: clipped epochs near the policies that collected the data (Rothfuss et al. 2019)",
    ProximalConfig(),  # the constants of its published run scripts
)
E_MAML_ENTRY = _proximal_entry(
    "e-maml",
    "MAML that credits actions before adaptation with the rewards after it (Stadie et al. 2018)",
    # The term is that of ProMP's published code, which takes one TRPO or plain gradient step with log pi in the inner
    # loss; here clipped epochs with the ratio. No inner KL: exploring is meant to move the policy before adaptation.
    ProximalConfig(inner_kl=(0.0,), exploration=1.0),
)
