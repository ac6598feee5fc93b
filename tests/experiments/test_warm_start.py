"""A run that begins with another run's parameters."""

import json
import shutil

import pytest
from pictures import write_folders
from safetensors.torch import load_file

from maml_rl.commands.train import train, train_omniglot
from maml_rl.experiments.config import SINUSOID
from maml_rl.experiments.runs import read_config
from maml_rl.storage.checkpoint import load_latest

pytestmark = pytest.mark.usefixtures("own_cache")

SMALL = ["--env", "images", "--image-size", "16", "--num-filters", "4", "--ways", "3", "--num-tasks", "2"]
SMALL += ["--checkpoint-every", "1", "--num-threads", "1", "--evaluate-every", "0"]
SMALL += ["--queries", "2", "--test-queries", "2"]


HALF_CHEETAH = "maml/HalfCheetahVel-rllab-v0"
ROBOT = ["--policy.hidden-sizes", "8", "--num-tasks", "2", "--episodes-per-task", "2", "--horizon", "5"]
ROBOT += ["--evaluate-every", "0", "--num-iterations", "1", "--num-threads", "1"]


@pytest.fixture(scope="module")
def cheetah(tmp_path_factory):
    """A run of the half cheetah."""
    folder = tmp_path_factory.mktemp("robots") / "cheetah"
    assert train(HALF_CHEETAH, [*ROBOT, "--output-dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("pictures") / "data")


@pytest.fixture
def command(data, tmp_path):
    """(learner, name of the run's folder, further flags) -> the flags of training."""

    def flags(learner, name, *more):
        return [*SMALL, "--learner", learner, "--data-root", str(data), "--output-dir", str(tmp_path / name), *more]

    return flags


@pytest.fixture
def source(command, tmp_path):
    """A run of Prototypical Networks."""
    assert train_omniglot(command("prototypical", "source", "--train-ways", "6", "--num-iterations", "2")) == 0
    return tmp_path / "source"


def parameters(folder):
    name = (folder / "checkpoints" / "latest").read_text().strip()
    state = load_file(folder / "checkpoints" / f"{name}.safetensors")
    return {name: value.tolist() for name, value in state.items() if name.startswith("params/")}


def test_what_fits_is_taken_and_the_rest_begins_as_it_always_does(command, source, tmp_path):
    assert train_omniglot(command("maml", "cold", "--num-iterations", "0")) == 0
    assert train_omniglot(command("maml", "warm", "--num-iterations", "0", "--init-from", str(source))) == 0
    known, cold, warm = parameters(source), parameters(tmp_path / "cold"), parameters(tmp_path / "warm")
    assert cold.keys() == warm.keys() and {"params/head.weight"} <= cold.keys() - known.keys()
    assert warm == cold | known != cold


def test_what_the_other_run_took_counts(command, source, tmp_path):
    before = load_latest(source / "checkpoints").counters["wall_seconds"]
    assert train_omniglot(command("maml", "warm", "--num-iterations", "0", "--init-from", str(source))) == 0
    assert load_latest(tmp_path / "warm" / "checkpoints").counters["wall_seconds"] == before > 0.0


def test_a_resumed_run_no_longer_needs_the_other(command, source, tmp_path):
    warm = ["--init-from", str(source), "--num-iterations"]
    assert train_omniglot(command("maml", "whole", *warm, "4")) == 0
    assert train_omniglot(command("maml", "parts", *warm, "2")) == 0
    shutil.rmtree(source)
    assert train(arguments=["--resume", str(tmp_path / "parts"), "--num-iterations", "4"]) == 0
    assert parameters(tmp_path / "parts") == parameters(tmp_path / "whole")


def test_environment_steps_are_counted_on(tmp_path):
    flags = ["--env", "maml/Navigation2D-v0", "--num-tasks", "2", "--episodes-per-task", "2", "--horizon", "5"]
    flags += ["--evaluate-every", "0", "--num-iterations", "1"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(arguments=[*flags, "--output-dir", str(first)]) == 0
    assert train(arguments=[*flags, "--output-dir", str(second), "--init-from", str(first)]) == 0
    ones, twos = (load_latest(run / "checkpoints").counters["env_steps"] for run in (first, second))
    assert twos == 2 * ones > 0


def test_what_does_not_fit_is_refused_before_anything_is_made(command, source, tmp_path, capfd):
    def refusal(*more):
        capfd.readouterr()
        assert train_omniglot(command("maml", "warm", "--num-iterations", "1", *more)) == 2
        assert not (tmp_path / "warm").exists()
        return capfd.readouterr().err

    assert "is no run folder" in refusal("--init-from", str(tmp_path / "nowhere"))
    other = refusal("--init-from", str(source), "--train-on", "trainval")
    assert "init_from must name a run with train_on trainval, but " in other and "tested on" in other
    sinusoid = ["--env", SINUSOID, "--num-iterations", "0", "--output-dir", str(tmp_path / "sinusoid")]
    assert train(arguments=sinusoid) == 0
    flags = ["--env", SINUSOID, "--num-iterations", "1", "--output-dir", str(tmp_path / "warm")]
    assert train(arguments=[*flags, "--init-from", str(source)]) == 2
    assert f"init_from must name a run of sinusoid, but {source} is one of images" in capfd.readouterr().err
    assert train(arguments=[*flags, "--init-from", str(source), "--init-from-any-env"]) == 2
    assert "init_from must name a run with a parameter of this one's" in capfd.readouterr().err
    assert not (tmp_path / "warm").exists()


def test_a_last_layer_for_another_number_of_classes_begins_anew_and_this_is_said(command, tmp_path, capfd):
    wide, narrow = ["--ways", "4"], ["--num-iterations", "0", "--init-from", str(tmp_path / "wide")]
    assert train_omniglot(command("maml", "wide", "--num-iterations", "1", *wide)) == 0
    capfd.readouterr()
    assert train_omniglot(command("maml", "narrow", *narrow)) == 0
    (note,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("note: "))
    assert note.endswith(" begin anew") and "head.weight" in note and "conv" not in note
    assert train_omniglot(command("maml", "cold", "--num-iterations", "0")) == 0
    known, cold, warm = (parameters(tmp_path / name) for name in ("wide", "cold", "narrow"))
    heads = {name: value for name, value in cold.items() if name.startswith("params/head.")}
    assert warm == known | heads and heads
    capfd.readouterr()
    assert train_omniglot(command("maml", "other", *narrow, "--num-filters", "8")) == 2
    error = capfd.readouterr().err
    assert "init_from must name a run whose parameters have this one's shapes, but conv" in error
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env", "HalfCheetahDir"], "must name a run of maml/HalfCheetahDir-rllab-v0, but "),
        (["--env", "AntVel"], "must name a run of maml/AntVel-rllab-v0, but "),
        (["--env", "AntVel", "--init-from-any-env"], "must name a run whose parameters have this one's shapes, but "),
        (["--policy.hidden-sizes", "7"], "must name a run whose parameters have this one's shapes, but "),
        (["--policy.hidden-sizes", "8", "8"], "must name a run whose parameters have this one's shapes, but "),
        (["--oracle"], "must name a run whose parameters have this one's shapes, but "),
    ],
)
def test_another_robot_or_network_is_refused(flags, message, cheetah, tmp_path, capfd):
    assert (
        train(HALF_CHEETAH, [*ROBOT, *flags, "--init-from", str(cheetah), "--output-dir", str(tmp_path / "new")]) == 2
    )
    assert message in capfd.readouterr().err
    assert not (tmp_path / "new").exists()


def test_other_tasks_of_the_same_robot_may_be_meant(cheetah, tmp_path):
    flags = ["--env", "HalfCheetahDir", "--init-from", str(cheetah), "--init-from-any-env", "--num-iterations", "0"]
    assert train(HALF_CHEETAH, [*ROBOT, *flags, "--output-dir", str(tmp_path / "new")]) == 0
    assert parameters(tmp_path / "new") == parameters(cheetah)


def test_the_warm_preset_has_the_source_s_network_and_needs_a_source(command, source, tmp_path, capfd):
    flags = command("fomaml", "warm", "--num-iterations", "1", "--preset", "warm")
    flags[flags.index("16")] = "28"
    assert train_omniglot(flags) == 2
    assert "preset warm must have init_from, got none: train" in capfd.readouterr().err
    assert not (tmp_path / "warm").exists()
    assert train_omniglot([*flags, "--init-from", str(source)]) == 0
    config, theirs = read_config(tmp_path / "warm"), read_config(source)
    network, inner = config.method.network, config.method.inner
    assert network.architecture == theirs.method.network.architecture and network.head_std == 0.0
    assert inner.test_step_sizes(5) == inner.step_sizes and inner.step_size == pytest.approx(0.02 * 3)
    assert inner.num_steps == config.evaluation.num_steps == 5 and inner.first_order
    assert train_omniglot(command("anil", "other", "--preset", "warm", "--init-from", str(source))) == 2
    assert "preset warm exists for the learners ['fomaml', 'maml', 'platipus'], not for anil" in capfd.readouterr().err


def test_the_run_says_where_it_began(command, source, tmp_path):
    assert train_omniglot(command("maml", "warm", "--num-iterations", "0", "--init-from", str(source))) == 0
    saved = json.loads((tmp_path / "warm" / "config.json").read_text())
    assert saved["config"]["init_from"] == str(source)
