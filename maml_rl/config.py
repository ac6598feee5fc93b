"""The settings of a run: what the command line shows, and what is saved beside the results."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from maml_rl.convnet import ConvConfig
from maml_rl.core.inner import InnerConfig
from maml_rl.core.maml import OuterConfig
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.fewshot.matching import MatchingConfig
from maml_rl.fewshot.reptile import InnerOptimiserConfig
from maml_rl.policies import ObservationScale, PolicyConfig
from maml_rl.rl.family import AdvantageConfig
from maml_rl.sampling.local import SamplingConfig
from maml_rl.supervised.episodes import EpisodeConfig
from maml_rl.supervised.sinusoid import SinusoidConfig
from maml_rl.training.run_folder import ConfigError
from maml_rl.training.trainer import TrainingConfig

SINUSOID, OMNIGLOT, IMAGES = "sinusoid", "omniglot", "images"
FEW_SHOT = (OMNIGLOT, IMAGES)

LearnerName = Literal["maml", "fomaml", "anil", "meta-sgd", "reptile", "joint", "prototypical", "matching", "pixels"]


@dataclass(frozen=True)
class RunConfig:
    """Meta-train on a family of tasks. The defaults are the HalfCheetah-Vel protocol of Finn et al. 2017."""

    env: str = "maml/HalfCheetahVel-rllab-v0"
    """A registered Gymnasium id of a task environment, a short name such as AntVel, a class of your own as
    module:Class, "sinusoid", "omniglot", or "images" for few-shot classification of pictures of your own."""
    learner: Annotated[LearnerName, tyro.conf.arg(metavar="NAME")] = "maml"
    """Learning algorithm: maml, fomaml, anil or meta-sgd for all tasks; reptile, joint, prototypical, matching or
    pixels for few-shot classification of pictures."""
    physics: Literal["rllab", "gym"] | None = None
    """Physics of robots, in place of the one that the id names: rllab is the 2017 paper's, gym is Gymnasium's. By
    default a short name means rllab."""
    oracle: bool = False
    """Tell the policy its task: the task's numbers are appended to every observation."""
    observations: Literal["raw", "normalised"] = "raw"
    """How the policy sees observations: as the environment gives them (bytes scaled to 0..1), or with mean 0 and
    standard deviation 1 in every entry. These are measured once, in episodes of random actions before training begins,
    and saved in the run. Not by default, so that results stay comparable with the paper's."""
    observation_scale: tyro.conf.Suppress[tyro.conf.Fixed[ObservationScale | None]] = None  # measured, not chosen
    seed: int = 1
    """Training seed; evaluation has its own."""
    device: str = "cpu"
    """Where policies, adaptation and the outer step are computed: cpu, cuda or cuda:N. Physics is on the CPU."""
    init_from: str | None = None
    """A run's folder: begin with its last parameters (a warm start). It must be of the same environment and network; of
    a few-shot classifier, whatever both have is taken, and another last layer begins anew. The time and the environment
    steps that it took count as this run's."""
    init_from_any_env: bool = False
    """Let init_from name a run of another environment, as of other tasks of the same robot."""
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)
    sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")] = field(default_factory=SamplingConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    sinusoid: SinusoidConfig = field(default_factory=SinusoidConfig)
    episodes: Annotated[EpisodeConfig, tyro.conf.arg(name="")] = field(default_factory=EpisodeConfig)
    network: Annotated[ConvConfig, tyro.conf.arg(name="")] = field(default_factory=ConvConfig)
    inner_optimiser: InnerOptimiserConfig = field(default_factory=InnerOptimiserConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)

    def __post_init__(self) -> None:
        if not self.env.isprintable():
            raise ValueError(f"env must be a name that can be printed, got {self.env!r}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be cpu, cuda or cuda:N, got {self.device!r}")
        if self.oracle and self.env in (SINUSOID, *FEW_SHOT):
            raise ValueError(f"oracle applies to task environments, not to {self.env}")
        if self.observations == "normalised" and self.env in (SINUSOID, *FEW_SHOT):
            raise ValueError(f"observations normalised applies to task environments, not to {self.env}: leave it out")
        if self.physics and self.env_id == self.env and f"-{self.physics}-" not in self.env:
            raise ValueError(f"physics {self.physics} does not apply to {self.env}, which comes in one kind only")

    @property
    def is_few_shot(self) -> bool:
        return self.env in FEW_SHOT

    @property
    def env_id(self) -> str:
        """The id with the chosen physics put in; of AntVel it is maml/AntVel-rllab-v0."""
        if self.env not in (SINUSOID, *FEW_SHOT) and self.env.isalnum():
            return f"maml/{self.env}-{self.physics or 'rllab'}-v0"
        if self.physics is None:
            return self.env
        other = {"rllab": "gym", "gym": "rllab"}[self.physics]
        return self.env.replace(f"-{other}-", f"-{self.physics}-")

    @property
    def env_name(self) -> str:
        """What folders and titles are called: the id without namespace, the class without module."""
        return re.split("[/:]", self.env_id)[-1]

    @property
    def as_evaluated(self) -> RunConfig:
        """The same with the evaluation's number of episodes in place of training's."""
        if self.evaluation.episodes_per_task is None:
            return self
        sampling = dataclasses.replace(self.sampling, episodes_per_task=self.evaluation.episodes_per_task)
        return dataclasses.replace(self, sampling=sampling)


ADDED = {
    "config.oracle",
    "config.observations",
    "config.observation_scale",
    "config.init_from",
    "config.init_from_any_env",
    "config.outer.trust_region.fisher_share",
    "config.evaluation.episodes_per_task",
    "config.evaluation.split",
    "config.training.max_minutes",
    "config.sampling.num_workers",
    "config.sampling.task_timeout",
    "config.sampling.ray_address",
    "config.learner",
    "config.episodes",
    "config.episodes.images.channels",
    "config.episodes.fingerprint",
    "config.network",
    "config.inner_optimiser",
    "config.matching",
    "config.inner.only",
    "config.inner.learn_step_sizes",
    "config.outer.gradient.decay",
    "config.outer.gradient.decay_steps",
    "config.outer.reptile.decay_steps",
}
"""Settings that runs of earlier versions were saved without; what they did then is the default now."""

MAY_CHANGE = {
    ("training", "num_iterations"),
    ("training", "max_minutes"),
    ("training", "evaluate_every"),
    ("outer", "gradient", "decay_steps"),
    ("outer", "reptile", "decay_steps"),
    ("device",),
    ("sampling", "num_threads"),
    ("sampling", "sampler"),
    ("sampling", "num_workers"),
    ("sampling", "task_timeout"),
    ("sampling", "ray_address"),
    ("episodes", "data_root"),
    ("episodes", "evaluate_on"),
    ("episodes", "test_queries"),
    ("episodes", "test_rotations"),
    *(("evaluation", setting.name) for setting in dataclasses.fields(EvaluationConfig)),
}
"""Settings that a resumed run may have otherwise than it began: they change how long, where, or what is measured on the
way, but not what is learned."""


Setting = tuple[str, ...]
"""Where a setting stands in the config: ("inner", "num_steps")."""


def to_dict(config: RunConfig) -> dict[str, Any]:
    return dataclasses.asdict(config)


def from_dict(saved: Any) -> RunConfig:
    """The config that `to_dict` saved.

    Raises:
        ConfigError: for anything that is not one, naming the entry.
    """
    return _parse(RunConfig, saved, "config")


def forbidden_changes(saved: RunConfig, new: RunConfig) -> list[str]:
    """Sentences about the settings that differ and must not, for a run that is resumed."""
    # a scale is measured, not chosen: who asks for the same run need not know it
    saved, new = (dataclasses.replace(config, observation_scale=None) for config in (saved, new))
    return [
        f"{'.'.join(path)} was {before!r}, now {after!r}"
        for path, (before, after) in changes(saved, new).items()
        if path not in MAY_CHANGE
    ]


def changes(old: RunConfig, new: RunConfig) -> dict[Setting, tuple[Any, Any]]:
    """The settings that differ, with both values."""
    before, after = (dict(_leaves(to_dict(config))) for config in (old, new))
    return {path: (before[path], after[path]) for path in before if before[path] != after[path]}


def flag_of(path: Setting) -> str:
    """How a setting is called on the command line of training."""
    names = [name for name in path if name not in ("training", "sampling", "episodes", "images", "network")]
    return f"--{'.'.join(names).replace('_', '-')}"


def _leaves(tree: dict[str, Any], path: Setting = ()) -> list[tuple[Setting, Any]]:
    rows: list[tuple[Setting, Any]] = []
    for name, value in tree.items():
        rows += _leaves(value, (*path, name)) if isinstance(value, dict) else [((*path, name), value)]
    return rows


def _parse(kind: Any, value: Any, path: str) -> Any:
    """`value`, as JSON has it, as a `kind`: a dataclass, tuple, literal, optional or number."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _parse(arguments[0], value, path)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, path)
    if origin is Literal:
        return _require(value in arguments and type(value) in map(type, arguments), value, f"one of {arguments}", path)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _parse(next(a for a in arguments if a is not type(None)), value, path)
    if origin is tuple:
        _require(isinstance(value, list | tuple), value, "a list", path)
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        _require(len(kinds) == len(value), value, f"a list of {len(kinds)}", path)
        return tuple(_parse(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if kind is float and type(value) is int:
        return float(value)
    return _require(type(value) is kind, value, f"a {kind.__name__}", path)


def _parse_dataclass(kind: Any, value: Any, path: str) -> Any:
    _require(isinstance(value, dict), value, "an object", path)
    hints = typing.get_type_hints(kind, include_extras=True)
    unknown = value.keys() - hints.keys()
    missing = {name for name in hints.keys() - value.keys() if f"{path}.{name}" not in ADDED}
    if unknown or missing:
        raise ConfigError(
            f"{path} has unknown entries {sorted(unknown)} and lacks {sorted(missing)}: another version's?"
        )
    parsed = {name: _parse(hint, value[name], f"{path}.{name}") for name, hint in hints.items() if name in value}
    try:
        return kind(**parsed)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _require(holds: bool, value: Any, rule: str, path: str) -> Any:
    if not holds:
        raise ConfigError(f"{path} must be {rule}, got {value!r}")
    return value
