"""Flags of settings: how they are called, and which a run refuses because nothing in it would read them."""

import dataclasses

import pytest

from maml_rl.api.settings import with_settings
from maml_rl.experiments.config import SETTLED, with_outer_step
from maml_rl.experiments.flags import changes, flags_of, require_own_flags, require_read
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.table import LEARNERS

VEL = "maml/HalfCheetahVel-rllab-v0"
ENVS = {"reinforcement": VEL, "regression": "sinusoid", "pictures": "omniglot", "density": "distributions"}
PAIRS = [(name, kind) for name, entry in LEARNERS.items() for kind in entry.kinds]
EVERY_FLAG = {flag for name, kind in PAIRS for flag in flags_of(default_config(ENVS[kind], name))}


def _with_underscores(flag):
    return "--" + flag.removeprefix("--").replace("-", "_")


def refusal(check, *arguments):
    """The sentence with which a check refuses; nothing if it does not."""
    try:
        check(*arguments)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_every_setting_has_a_flag_and_stands_where_it_says(name, kind):
    config = default_config(ENVS[kind], name)
    flags = flags_of(config)
    assert len(set(flags.values())) == len(flags)
    leaves = []

    def walk(value, path=()):
        for each in dataclasses.fields(value):
            child = getattr(value, each.name)
            if each.name in (*SETTLED, "fingerprint"):  # nobody chooses these
                continue
            if dataclasses.is_dataclass(child):
                walk(child, (*path, each.name))
            else:
                leaves.append((*path, each.name))

    walk(config)
    assert sorted(leaves) == sorted(flags.values())
    assert all(flag == flag.lower() and "_" not in flag and ".." not in flag for flag in flags)


def test_groups_stand_in_names_where_one_would_ask_whose_it_is():
    flags = flags_of(default_config(VEL, "maml"))
    assert flags["--num-iterations"] == ("training", "num_iterations")
    assert flags["--episodes-per-task"] == ("task", "sampling", "episodes_per_task")
    assert flags["--inner.step-size"] == ("method", "inner", "step_size")
    assert flags["--outer.trust-region.max-kl"] == ("method", "outer", "trust_region", "max_kl")
    pictures = flags_of(default_config("omniglot", "reptile"))
    assert pictures["--image-size"] == ("task", "images", "image_size")
    assert pictures["--norm"] == ("method", "network", "norm")
    assert pictures["--inner-optimiser.beta2"] == ("method", "optimiser", "beta2")
    assert flags_of(default_config("sinusoid", "maml"))["--sinusoid.num-examples"] == ("task", "num_examples")


def test_changes_are_the_settings_that_differ():
    old = default_config(VEL, "maml")
    assert changes(old, old) == {}
    new = with_settings(old, {"seed": 3, "inner.step_size": 0.5})
    assert changes(old, new) == {("seed",): (1, 3), ("method", "inner", "step_size"): (0.1, 0.5)}
    step = changes(old, with_outer_step(old, "gradient"))
    assert step["method", "outer", "step"] == ("trust_region", "gradient")
    assert step["method", "outer", "gradient", "learning_rate"] == (None, 0.001)


@pytest.mark.parametrize(
    ("env", "learner", "arguments", "message"),
    [
        (
            VEL,
            "maml",
            ["--ways", "3"],
            f"--ways 3 applies to few-shot classification, not to --env {VEL}: leave it out",
        ),
        (VEL, "maml", ["--num-filters=3"], "--num-filters 3 applies to few-shot classification, not to --env maml"),
        (VEL, "maml", ["--sinusoid.num-examples", "3"], "--sinusoid.num-examples 3 applies to --env sinusoid, not to"),
        (
            VEL,
            "maml",
            ["--outer.gradient.learning-rate", "1"],
            "--outer.gradient.learning-rate 1 applies to --outer.step gradient, not to --outer.step trust_region: leav",
        ),
        (
            VEL,
            "fomaml",
            ["--outer.reptile.step-size", "1"],
            "--outer.reptile.step-size 1 applies to --learner reptile, not to --learner fomaml: leave it out",
        ),
        (
            "sinusoid",
            "maml",
            ["--sampler", "processes"],
            "--sampler processes applies to task environments, not to --env",
        ),
        ("sinusoid", "maml", ["--no-oracle"], "--no-oracle applies to task environments, not to --env sinusoid"),
        ("sinusoid", "maml", ["--evaluation.split", "train"], "--evaluation.split train applies to task environments"),
        (
            "images",
            "maml",
            ["--policy.hidden-sizes", "8", "9"],
            "--policy.hidden-sizes 8 9 applies to task environments",
        ),
        ("images", "maml", ["--policy.hidden_sizes", "8"], "--policy.hidden-sizes 8 applies to task environments"),
        ("images", "maml", ["--inner.estimator", "dice"], "--inner.estimator dice applies to task environments"),
        (
            "images",
            "maml",
            ["--matching.scale", "2"],
            "--matching.scale 2 applies to --learner matching, not to --lear",
        ),
        (
            "images",
            "maml",
            ["--inner-optimiser.batch-size", "3"],
            "--inner-optimiser.batch-size 3 applies to --learner reptile, not to --learner maml: leave it out",
        ),
        (
            "images",
            "prototypical",
            ["--inner.no-first-order"],
            "--inner.no-first-order applies to learners maml, fomaml, anil, meta-sgd, reptile, joint, platipus, not to",
        ),
        (
            "omniglot",
            "pixels",
            ["--num-filters", "8"],
            "--num-filters 8 applies to learners maml, fomaml, anil, meta-sgd, reptile, joint, prototypical, matching,",
        ),
        (
            "images",
            "maml",
            ["--sampler", "ray", "--seed", "3", "--horizon", "9"],
            "--sampler ray applies to task environments, not to --env images; --horizon 9 applies to task environments,"
            " not to --env images: leave them out",
        ),
    ],
)
def test_flags_of_others_are_refused_with_what_they_are_for(env, learner, arguments, message):
    with pytest.raises(ValueError) as refused:
        require_own_flags(arguments, default_config(env, learner), ["--help"])
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_run_s_own_flags_are_let_through_in_either_spelling_and_no_others(name, kind):
    config = default_config(ENVS[kind], name)
    own = flags_of(config).keys()
    assert refusal(require_own_flags, [*own, *map(_with_underscores, own)], config, []) == ""
    others = sorted(EVERY_FLAG - own)
    message = refusal(require_own_flags, [f"{_with_underscores(flag)}=1" for flag in others], config, [])
    assert [clause.split(" 1 applies to ")[0] for clause in message.split("; ")] == others
    assert refusal(require_own_flags, others, config, []).count("applies to") == len(others)


def test_what_no_run_knows_and_what_the_command_knows_are_left_to_the_parser():
    config = default_config(VEL, "maml")
    given = ["--nonsense", "3", "--ways", "2", "--inner.no-first-order", "-h"]
    assert refusal(require_own_flags, given, config, ["--ways"]) == ""
    assert refusal(require_own_flags, given, config, []).startswith("--ways 2 applies to few-shot classification")


@pytest.mark.parametrize(
    ("env", "learner", "settings", "message"),
    [
        (
            VEL,
            "maml",
            {"num_workers": 2},
            "--num-workers 2 applies to --sampler processes or ray, not to --sampler local: leave it out",
        ),
        (
            VEL,
            "maml",
            {"ray_address": "auto", "sampler": "processes"},
            "--ray-address auto applies to --sampler ray, not to --sampler processes: leave it out",
        ),
        (
            "sinusoid",
            "maml",
            {"outer.gradient.decay_steps": 7},
            "--outer.gradient.decay-steps 7 applies to a learning rate",
        ),
        (
            "images",
            "maml",
            {"task.split": "random-1200"},
            "--split random-1200 applies to --env omniglot, not to --env im",
        ),
        ("omniglot", "prototypical", {"head_std": 3.0}, "--head-std 3.0 applies to learners that adapt a last layer"),
        ("omniglot", "joint", {"head_std": 3.0}, "--head-std 3.0 applies to learners that adapt a last layer"),
        ("omniglot", "joint", {"inner.num_steps": 3}, "--inner.num-steps 3 applies to learners that adapt in training"),
        (
            "omniglot",
            "matching",
            {"evaluation.num_steps": 3},
            "--evaluation.num-steps 3 applies to learners that take gradient steps on a task, not to --learner matchin",
        ),
        (
            "omniglot",
            "matching",
            {"num_readings": 2},
            "--matching.num-readings 2 applies to --matching.full-context, not",
        ),
        (
            "omniglot",
            "matching",
            {"matching.scale": 2.0, "matching.distance": "squared"},
            "--matching.scale 2.0 applies to distance cosine, not to distance squared",
        ),
        (
            "omniglot",
            "reptile",
            {"beta2": 0.5, "optimiser.kind": "sgd"},
            "--inner-optimiser.beta2 0.5 applies to kind adam, not to kind sgd",
        ),
        (
            VEL,
            "reptile",
            {"first_order": True},
            "--inner.first-order True applies to learners that differentiate through",
        ),
        ("omniglot", "joint", {"before_weight": 0.5}, "--inner.before-weight 0.5 applies to learners that weigh the"),
        ("sinusoid", "platipus", {"before_weight": 0.5}, "--inner.before-weight 0.5 applies to learners that weigh"),
        (VEL, "reptile", {"before_weight": 0.5}, "--inner.before-weight 0.5 applies to learners that weigh the losses"),
        ("omniglot", "joint", {"first_order": True}, "--inner.first-order True applies to learners that differentiate"),
        (
            "omniglot",
            "joint",
            {"learn_step_sizes": True},
            "--inner.learn-step-sizes True applies to learners that diff",
        ),
        (
            "sinusoid",
            "meta-sgd",
            {"later_ratio": 0.5},
            "--inner.later-ratio 0.5 applies to step sizes that are set, not to",
        ),
        (
            VEL,
            "maml",
            {"train_later_ratio": 0.5},
            "--inner.train-later-ratio 0.5 applies to several inner steps, not to --inner.num-steps 1: leave it out",
        ),
        (
            VEL,
            "promp",
            {"decay_steps": 7},
            "--outer.proximal.adam.decay-steps 7 applies to a learning rate that decays, not to decay none",
        ),
        (
            VEL,
            "maml",
            {"num_workers": 2, "ray_address": "auto"},
            "--num-workers 2 applies to --sampler processes or ray, not to --sampler local; --ray-address auto applies "
            "to --sampler ray, not to --sampler local: leave them out",
        ),
    ],
)
def test_settings_that_nothing_would_read_are_refused(env, learner, settings, message):
    default = default_config(env, learner)
    config = with_settings(default, settings)
    given = {path: new for path, (_, new) in changes(default, config).items()}
    with pytest.raises(ValueError) as refused:
        require_read(config, given)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("env", "learner", "settings"),
    [
        (VEL, "maml", {"num_workers": 2, "sampler": "processes"}),
        (VEL, "maml", {"first_order": True, "later_ratio": 0.3, "test_step_size": 0.2}),
        (VEL, "maml", {"inner.num_steps": 3, "train_later_ratio": 0.5, "inner.before_weight": 1.0}),
        ("sinusoid", "maml", {"outer.gradient.decay": "cosine", "outer.gradient.decay_steps": 7}),
        (VEL, "promp", {"adam.decay": "cosine", "decay_steps": 7, "clip": 0.1, "exploration": 0.5}),
        ("omniglot", "maml", {"head_std": 0.3, "task.split": "background-evaluation", "evaluation.num_steps": 7}),
        ("omniglot", "matching", {"matching.full_context": True, "num_readings": 2, "matching.scale": 2.0}),
        ("omniglot", "joint", {"inner.step_size": 0.3, "evaluation.num_steps": 3}),
        ("omniglot", "reptile", {"beta2": 0.5, "inner.num_steps": 3}),
    ],
)
def test_settings_that_are_read_are_let_through(env, learner, settings):
    default = default_config(env, learner)
    config = with_settings(default, settings)
    given = {path: new for path, (_, new) in changes(default, config).items()}
    assert len(given) == len(settings)  # each of them differs from its default, so each is judged
    assert refusal(require_read, config, given) == ""


def test_a_command_may_call_its_flags_otherwise():
    config = default_config("omniglot", "prototypical")
    with pytest.raises(ValueError, match=r"^--num-steps 2 applies to learners that take gradient steps on a task"):
        require_read(config, {("evaluation", "num_steps"): 2}, lambda path: f"--{path[-1].replace('_', '-')}")


@pytest.mark.parametrize("setting", ["clip", "exploration"])
def test_where_nothing_is_sampled_nothing_is_clipped_or_credited(setting):
    default = with_outer_step(default_config("sinusoid", "maml"), "proximal")
    require_read(default, {})
    given = {path: new for path, (_, new) in changes(default, with_settings(default, {setting: 0.2})).items()}
    with pytest.raises(ValueError, match=rf"--outer\.proximal\.{setting} 0\.2 applies to task environments, not to"):
        require_read(default, given)
