"""Bad input to the Python API: one clear sentence each, and nothing on disk."""

import json

import gymnasium
import numpy as np
import pytest

import maml_rl

TINY = {"num_iterations": 1, "num_tasks": 2, "episodes_per_task": 2, "horizon": 5, "evaluate_every": 0}
TINY |= {"policy.hidden_sizes": (4,), "num_threads": 1, "quiet": True, "outer.step": "gradient"}
NAVIGATION, WAVES, PICTURES = "Navigation2D", "sinusoid", "omniglot"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return maml_rl.train("Navigation2D", output_dir=tmp_path_factory.mktemp("api") / "run", **TINY)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(call, *arguments, **settings):
    """The one sentence that a call is refused with."""
    with pytest.raises(ValueError) as refused:
        call(*arguments, **settings)
    text = str(refused.value)
    assert "\n" not in text and "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("env", "settings", "message"),
    [
        (NAVIGATION, {"num_iteration": 3}, "and learner maml: did you mean num_iterations"),
        (NAVIGATION, {"nonsense": 3}, "setting nonsense does not exist for maml/Navigation2D-v0 and learner maml"),
        (NAVIGATION, {"ways": 5}, "setting ways does not exist for maml/Navigation2D-v0"),
        (WAVES, {"horizon": 5}, "setting horizon does not exist for sinusoid"),
        (PICTURES, {"learner": "pixels", "num_filters": 5}, "does not exist for omniglot and learner pixels"),
        (NAVIGATION, {"num_tasks": 2.5}, "num_tasks must be a whole number, got 2.5"),
        (NAVIGATION, {"num_tasks": "many"}, "num_tasks must be a whole number, got 'many'"),
        (NAVIGATION, {"seed": None}, "seed must be a whole number, got None"),
        (NAVIGATION, {"inner.step_size": "large"}, "step_size must be a number, got 'large'"),
        (NAVIGATION, {"oracle": "yes"}, "oracle must be true or false, got 'yes'"),
        (NAVIGATION, {"observations": "norm"}, "observations must be one of ('raw', 'normalised'), got 'norm'"),
        (NAVIGATION, {"policy.hidden_sizes": 64}, "hidden_sizes must be a list, got 64"),
        (NAVIGATION, {"policy.hidden_sizes": ["a"]}, "hidden_sizes[0] must be a whole number, got 'a'"),
        (PICTURES, {"ways": "five"}, "ways must be a whole number, got 'five'"),
        (NAVIGATION, {"observation_scale": 3}, "setting observation_scale does not exist"),
        (NAVIGATION, {"num_tasks": 0}, "num_tasks must be at least 1, got 0"),
        (NAVIGATION, {"outer.step": "reptile"}, "for learner maml, got 'reptile': take --learner reptile"),
        (NAVIGATION, {"num_steps": 1}, "setting num_steps must name one setting, but ["),
        (
            NAVIGATION,
            {"num_workers": 2},
            "sampling.num_workers 2 applies to --sampler processes or ray, not to --sampler local",
        ),
        (NAVIGATION, {"learner": "mamml"}, "learner must be one of ['maml', 'fomaml', "),
        (NAVIGATION, {"learner": "prototypical"}, "learner prototypical takes few-shot episodes of pictures"),
        (NAVIGATION, {"preset": "fats"}, "preset fats does not exist for"),
        (NAVIGATION, {"preset": "warm"}, "preset warm "),
        (NAVIGATION, {"physics": "moon"}, "physics must be rllab or gym, got 'moon'"),
        ("AntVel", {"physics": "moon"}, "physics must be rllab or gym, got 'moon'"),
        (NAVIGATION, {"film_every": -1}, "film_every must be at least 1, or 0 for no films, got -1"),
        (WAVES, {"film_every": 1}, "film_every must be 0: sinusoid has no episodes to film"),
        ("Navigation3D", {}, "got 'Navigation3D', or module:Class: did you mean Navigation2D?"),
        ("nowhere:Walk", {}, "env must name a module that can be found, but 'nowhere'"),
        (3, {}, "env must be an id, a class or a function that makes an environment, got 3"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_made(env, settings, message, here):
    assert message in refusal(maml_rl.train, env, **settings)
    assert list(here.iterdir()) == []


def test_a_folder_that_holds_something_is_left_as_it_is(here):
    (here / "run").mkdir()
    (here / "run" / "thesis.txt").write_text("all of it")
    assert "must not exist or be empty" in refusal(maml_rl.train, NAVIGATION, output_dir="run", **TINY)
    assert [path.name for path in (here / "run").iterdir()] == ["thesis.txt"]


def test_a_resumed_run_keeps_its_settings(run, here):
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    said = refusal(maml_rl.train, resume=run.path, **{"inner.step_size": 0.2})
    assert "a resumed run keeps its settings, but method.inner.step_size was 0.5, now 0.2" in said
    assert "env must be the environment of the run" in refusal(maml_rl.train, "AntVel", resume=run.path)
    assert "is no run folder" in refusal(maml_rl.train, resume="nowhere")
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert list(here.iterdir()) == []


def test_a_folder_without_a_run_is_refused(here):
    assert "nowhere is no run folder" in refusal(maml_rl.load, "nowhere")
    (here / "config.json").write_text(json.dumps({"format_version": 2, "config": []}))
    assert "must hold an object" in refusal(maml_rl.load, here)
    assert "must hold agent.json" in refusal(maml_rl.load_agent, "nowhere")
    assert [path.name for path in here.iterdir()] == ["config.json"]


def test_an_agent_acts_on_observations_of_its_environment_alone(run):
    agent = run.agent()
    for wrong in (np.zeros(3), np.zeros((2, 3)), 0.0, np.zeros((1, 1, 2)), {"x": 0.0}):
        assert "observation must have the shape [2], or one axis more for a batch, got" in refusal(agent.act, wrong)
    for wrong in (np.array(["a", "b"]), np.array([None, 0.0]), np.array([np.nan, 0.0])):
        assert "observation must consist of finite numbers" in refusal(agent.act, wrong)
    assert agent.act(np.zeros(2)).shape == (2,)


class Plain(gymnasium.Env):
    """The navigation's spaces, and no tasks."""

    observation_space = gymnasium.make("maml/Navigation2D-v0").observation_space
    action_space = gymnasium.make("maml/Navigation2D-v0").action_space


def test_an_agent_adapts_in_its_environment_alone(run):
    agent = run.agent()
    assert "env must be one gymnasium.Env, got str" in refusal(agent.adapt, "Navigation2D")
    assert "env must have the observation_space" in refusal(agent.adapt, gymnasium.make("CartPole-v1"))
    assert "env must be a task environment, as the agent was trained on, but <Plain" in refusal(agent.adapt, Plain())
    assert "episodes must hold at least one, got none" in refusal(agent.adapt_to, [])
    assert "episode 0 must have observations, actions and rewards" in refusal(agent.adapt_to, [{"rewards": [0.0]}])
    assert "this agent was not trained with --oracle" in refusal(agent.told, (0.0, 0.0))


def test_an_oracle_s_agent_is_told_its_task_first(here):
    agent = maml_rl.train(NAVIGATION, output_dir="run", oracle=True, **TINY).agent()
    assert "tell it the task by agent.told(task) first" in refusal(agent.act, np.zeros(2))
    assert "task must consist of 2 numbers, got 1.0" in refusal(agent.told, 1.0)
    assert agent.told((0.1, 0.2)).act(np.zeros(2)).shape == (2,)


def test_sinusoids_have_no_agent(here):
    run = maml_rl.train(WAVES, output_dir="run", num_iterations=0, evaluate_every=0, quiet=True)
    assert "agent acts in environments, but this is a run of sinusoid" in refusal(run.agent)


def test_the_learner_by_default_is_that_of_the_command(here):
    run = maml_rl.train("distributions", num_iterations=1, num_tasks=2, num_examples=4, evaluate_every=0, quiet=True)
    assert run.config.learner == "neural-statistician"
