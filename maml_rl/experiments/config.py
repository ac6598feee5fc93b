"""The settings of a run: task + learner + training and evaluation. They are the command line, and are saved beside the
results; those of other tasks and learners appear in neither."""

from __future__ import annotations

import dataclasses
import re
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from maml_rl.core.outer.choice import OUTER_STEPS
from maml_rl.evaluation.adaptation_curve import DrawnEvaluationConfig, EvaluationConfig
from maml_rl.experiments.table import LEARNERS, learner_entry, names_for
from maml_rl.learners.entry import Entry, Kind
from maml_rl.policies.scale import ObservationScale
from maml_rl.sampling.local import MAX_WORKERS, SamplingConfig
from maml_rl.supervised.distributions import DistributionConfig
from maml_rl.supervised.episodes import EpisodeConfig
from maml_rl.supervised.sinusoid import SinusoidConfig
from maml_rl.supervised.sinusoid_or_line import SinusoidOrLineConfig
from maml_rl.training.trainer import TrainingConfig

SINUSOID, OMNIGLOT, IMAGES, DISTRIBUTIONS = "sinusoid", "omniglot", "images", "distributions"
SINUSOID_OR_LINE = "sinusoid-or-line"

Physics = Literal["rllab", "gym"]


@dataclass(frozen=True)
class EnvironmentConfig:
    """Settings of a task environment and of sampling in it."""

    oracle: bool = False
    """Append the task's numbers to every observation, so that the policy knows its task."""
    observations: Literal["raw", "normalised"] = "raw"
    """Observations that the policy sees: as the environment gives them (bytes scaled to 0..1), or with mean 0 and
    standard deviation 1 in every entry. These are measured once, in episodes of random actions before training begins,
    and saved in the run. Not by default, so that results stay comparable with the paper's."""
    observation_scale: tyro.conf.Suppress[tyro.conf.Fixed[ObservationScale | None]] = None  # measured, not chosen
    sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")] = field(default_factory=SamplingConfig)


@dataclass(frozen=True)
class EpisodeEvaluationConfig(EvaluationConfig):
    """Settings of held-out evaluation in an environment."""

    episodes_per_task: int | None = None  # Episodes for each number of steps; by default as in training.
    split: Literal["test", "train"] = "test"  # Tasks to score on, where the environment sets some aside (Meta-World).

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split not in ("test", "train"):
            raise ValueError(f"evaluation.split must be test or train, got {self.split!r}")
        if self.episodes_per_task is not None and self.episodes_per_task < 1:
            raise ValueError(f"evaluation.episodes_per_task must be at least 1, got {self.episodes_per_task}")


TaskConfig = EnvironmentConfig | SinusoidConfig | EpisodeConfig | DistributionConfig

TASKS: dict[Kind, tuple[type[Any], type[EvaluationConfig], str]] = {
    "reinforcement": (EnvironmentConfig, EpisodeEvaluationConfig, ""),
    "regression": (SinusoidConfig, EvaluationConfig, "sinusoid"),
    "pictures": (EpisodeConfig, EvaluationConfig, ""),
    "density": (DistributionConfig, EvaluationConfig, "distributions"),
}
"""For each kind of task: the type of its settings, that of its evaluation, and the prefix of the task's flags."""


def evaluation_type(kind: Kind, entry: Entry) -> type[EvaluationConfig]:
    """The type of the evaluation's settings; only learners that draw on given data have a number of draws."""
    return DrawnEvaluationConfig if entry.draws and kind != "reinforcement" else TASKS[kind][1]


def kind_of(env: str) -> Kind:
    """The kind of tasks that a name stands for."""
    if env in (SINUSOID, SINUSOID_OR_LINE):
        return "regression"
    if env == DISTRIBUTIONS:
        return "density"
    return "pictures" if env in (OMNIGLOT, IMAGES) else "reinforcement"


@dataclass(frozen=True)
class RunConfig:
    """Meta-train a learner on a distribution of tasks."""

    env: str
    """A registered Gymnasium id of a task environment, a short name such as AntVel or Navigation2D, a class of your own
    as module:Class, "sinusoid", "sinusoid-or-line", "omniglot", "distributions", or "images" for few-shot
    classification of pictures of your own."""
    learner: str
    """Learning algorithm."""
    seed: int = 1
    """Seed of training; evaluation has its own."""
    device: str = "cpu"
    """Device for policies, adaptation and the outer step: cpu, cuda or cuda:N. Physics is always on the CPU."""
    num_threads: int = 0
    """Threads for sampling and learning; 0 uses every core, since results do not depend on it."""
    init_from: str | None = None
    """A run's folder: begin with its last parameters (a warm start). It must be of the same environment and network; of
    a few-shot classifier, the parameters that both have are taken, and a different last layer starts from scratch. The
    time and the environment steps that it took count as this run's."""
    init_from_any_env: bool = False
    """Let init_from name a run of another environment, such as other tasks of the same robot."""
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)
    evaluation: Any = field(default_factory=EvaluationConfig)
    task: Any = None
    method: Any = None

    def __post_init__(self) -> None:
        if not self.env.isprintable():
            raise ValueError(f"env must be a name that can be printed, got {self.env!r}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be cpu, cuda or cuda:N, got {self.device!r}")
        if self.num_threads < 0:
            raise ValueError(f"num_threads must be at least 1, or 0 for one per core, got {self.num_threads}")
        if self.num_threads > MAX_WORKERS:
            raise ValueError(f"num_threads must be at most {MAX_WORKERS}, got {self.num_threads}")

    @property
    def kind(self) -> Kind:
        return kind_of(self.env)

    @property
    def env_name(self) -> str:
        """The name for folders and titles: the id without namespace, the class without module."""
        return re.split("[/:]", self.env)[-1]

    @property
    def as_evaluated(self) -> RunConfig:
        """The same config with the evaluation's number of episodes in place of training's."""
        number = getattr(self.evaluation, "episodes_per_task", None)
        if number is None:
            return self
        sampling = dataclasses.replace(self.task.sampling, episodes_per_task=number)
        return dataclasses.replace(self, task=dataclasses.replace(self.task, sampling=sampling))


def config_type(env: str, entry: Entry) -> type[RunConfig]:
    """RunConfig with the settings of one kind of task and one learner, from which a command line is made."""
    kind = kind_of(env)
    task = SinusoidOrLineConfig if env == SINUSOID_OR_LINE else TASKS[kind][0]
    settings = task, evaluation_type(kind, entry), type(entry.configs[kind]())
    if settings not in _made_types:
        _made_types[settings] = _make_type(kind, *settings)
    return _made_types[settings]


_made_types: dict[tuple[Any, Any, Any], type[RunConfig]] = {}  # configs are equal only if their types are one


def _make_type(kind: Kind, task: type[Any], evaluation: type[EvaluationConfig], method: type[Any]) -> type[RunConfig]:
    prefix = TASKS[kind][2]
    learners = f"Learning algorithm: {', '.join(names_for(kind))}."
    return dataclasses.make_dataclass(
        "RunConfig",
        [
            ("learner", Annotated[str, tyro.conf.arg(help=learners)]),
            ("evaluation", evaluation, field(default_factory=evaluation)),
            ("task", Annotated[task, tyro.conf.arg(name=prefix)], field(default_factory=task)),
            ("method", Annotated[method, tyro.conf.arg(name="")], field(default_factory=method)),
        ],
        bases=(RunConfig,),
        frozen=True,
        namespace={"__doc__": RunConfig.__doc__},
    )


def make_config(env: str, learner: str, method: Any, **settings: Any) -> RunConfig:
    """A config of the kind of `env` and of the learner whose settings are `method`.

    Args:
        settings: of the run; an evaluation's get what the learner's have besides.
    """
    kind = kind_of(env)
    entry = learner_entry(learner, kind)
    if "evaluation" in settings:
        settings["evaluation"] = evaluation_type(kind, entry)(**dataclasses.asdict(settings["evaluation"]))
    return config_type(env, entry)(env=env, learner=learner, method=method, **settings)


def outer_steps(config: RunConfig) -> list[str]:
    """The outer steps that the learner may take, by name."""
    hint = typing.get_type_hints(type(config.method)).get("outer")
    kinds = typing.get_args(hint) or (hint,)
    names = [name for name, kind in OUTER_STEPS.items() if kind in kinds]
    return [name for name in names if name in LEARNERS[config.learner].outer_steps]


def with_outer_step(config: RunConfig, step: str) -> RunConfig:
    """The same config with another outer step, which has its own settings.

    Raises:
        ValueError: if the learner does not take it.
    """
    known = outer_steps(config)
    if not known:
        raise ValueError(f"outer.step must be left out for learner {config.learner}, which has none, got {step!r}")
    if step not in known:
        takers = [entry.name for entry in LEARNERS.values() if entry.outer_steps == (step,)]
        remedy = f"take --learner {' or '.join(takers)}" if takers else "leave it out"
        raise ValueError(f"outer.step must be one of {known} for learner {config.learner}, got {step!r}: {remedy}")
    if step == config.method.outer.step:
        return config
    return dataclasses.replace(config, method=dataclasses.replace(config.method, outer=OUTER_STEPS[step]()))


MAY_CHANGE = {
    ("training", "num_iterations"),
    ("training", "max_minutes"),
    ("training", "evaluate_every"),
    ("method", "inner", "test_step_size"),
    ("method", "inner", "later_ratio"),
    ("method", "outer", "gradient", "decay_steps"),
    ("method", "outer", "reptile", "decay_steps"),
    ("method", "outer", "proximal", "adam", "decay_steps"),
    ("device",),
    ("num_threads",),
    ("task", "sampling", "sampler"),
    ("task", "sampling", "num_workers"),
    ("task", "sampling", "task_timeout"),
    ("task", "sampling", "ray_address"),
    ("task", "data_root"),
    ("task", "evaluate_on"),
    ("task", "test_queries"),
    ("task", "test_rotations"),
    ("evaluation",),
}
"""Prefixes of settings that may differ when a run is resumed: they change how long and where it runs, or what is
measured on the way, or, as the length of a decay does with the number of iterations, how learning goes on from here."""


SETTLED = ("observation_scale", "expert_policy")
"""Names of settings that nobody chooses: they are measured, or read from another run, when a run begins."""


def with_settled(config: RunConfig, saved: RunConfig) -> RunConfig:
    """The config with what was settled when the saved run of the same settings began."""
    parts = {}
    for part in ("task", "method"):
        found = {name: getattr(getattr(saved, part), name) for name in SETTLED if hasattr(getattr(saved, part), name)}
        parts[part] = dataclasses.replace(getattr(config, part), **found)
    return dataclasses.replace(config, **parts)


def forbidden_changes(saved: RunConfig, new: RunConfig) -> list[str]:
    """Sentences about the settings that differ but must not when a run is resumed."""
    before, after = (dict(_leaves(dataclasses.asdict(config))) for config in (saved, new))
    return [
        f"{'.'.join(path)} was {before.get(path)!r}, now {after.get(path)!r}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path) and not _may_change(path)
    ]


def _may_change(path: tuple[str, ...]) -> bool:
    # whoever asks for the same run need not know what was settled when it began
    return any(name in path for name in SETTLED) or any(path[: len(start)] == start for start in MAY_CHANGE)


def _leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    rows: list[tuple[tuple[str, ...], Any]] = []
    for name, value in tree.items():
        rows += _leaves(value, (*path, name)) if isinstance(value, dict) else [((*path, name), value)]
    return rows
