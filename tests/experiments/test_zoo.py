"""The zoo: every card tells the whole story of a run that works; big runs are fetched whole or not at all."""

import hashlib
import importlib.util
from pathlib import Path

import pytest
import torch
from serving import served

import maml_rl
from maml_rl.experiments import zoo
from maml_rl.experiments.runs import load_checkpoint, read_config
from maml_rl.experiments.zoo import FOLDER, ZooError, card, cards, resolved

ROOT = Path(__file__).parents[2]
PACKED = [name for name, each in cards().items() if each.archive is None]
FETCHED = [name for name, each in cards().items() if each.archive is not None]


@pytest.fixture(scope="module")
def making():
    spec = importlib.util.spec_from_file_location("make_zoo", ROOT / "scripts" / "release" / "make_zoo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def release(tmp_path, making, monkeypatch, own_cache):
    """A server on this machine with the archives of a release, as MAML_RL_ZOO names it."""
    monkeypatch.setenv("MAML_RL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "release"
    folder.mkdir()
    for name in FETCHED[:1]:
        making.thin(ROOT / card(name).source, tmp_path / name)
        making.pack(tmp_path / name, folder / f"{name}.zip")
    with served(folder) as address:
        monkeypatch.setenv("MAML_RL_ZOO", address)
        yield folder


@pytest.mark.parametrize("name", PACKED)
def test_a_run_of_the_package_is_that_of_its_card(name):
    run = maml_rl.load(f"zoo:{name}")
    assert run.config.learner == card(name).learner
    assert run.checkpoints == [load_checkpoint(run.path, "last").iteration]
    assert (run.metrics == {}) == (run.config.kind == "pictures")  # those come from a leaderboard
    assert len(run.metrics.get("iteration", [])) <= 60
    source = ROOT / card(name).source
    assert read_config(source) == run.config
    if (source / "checkpoints" / "latest").exists():
        trained = load_checkpoint(source, "last").state
        assert all(torch.equal(value, trained[key]) for key, value in load_checkpoint(run.path, "last").state.items())


@pytest.mark.parametrize("name", PACKED)
def test_a_run_of_the_package_acts_or_classifies(name):
    run = maml_rl.load(f"zoo:{name}")
    if run.config.kind == "pictures":
        maml_rl.FewShotClassifier(f"zoo:{name}")
        return
    agent = run.agent()
    space = agent.surroundings.observation_space
    assert agent.surroundings.action_space.contains(agent.act(space.sample() * 0))


def test_every_card_says_everything():
    for each in cards().values():
        told = [
            each.task,
            each.score,
            each.details,
            each.learner,
            each.seeds,
            each.scores,
            each.command,
            each.commit,
            each.licence,
        ]
        assert all(told) and each.command.startswith("maml-rl "), each.name
        assert (ROOT / each.source / "config.json").exists()
        assert read_config(ROOT / each.source).learner == each.learner
        assert each.name not in ("", *FETCHED) or each.archive.size > 0


def test_what_the_package_carries_is_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 2_000_000


@pytest.mark.parametrize("name", FETCHED)
def test_the_same_source_gives_the_archive_with_the_hash_of_its_card(name, making, tmp_path):
    making.thin(ROOT / card(name).source, tmp_path / "run")
    making.pack(tmp_path / "run", tmp_path / "run.zip")
    data = (tmp_path / "run.zip").read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (card(name).archive.sha256, card(name).archive.size)


def test_rows_are_thinned_evenly_with_those_of_evaluations_and_the_last(making):
    rows = [str(i) for i in range(1, 468)]
    assert making.thinned(rows) == [*(str(i) for i in range(10, 468, 10)), "467"]
    assert making.thinned(rows[:50]) == rows[:50]


def test_a_big_run_is_fetched_once(release):
    name = FETCHED[0]
    folder = resolved(f"zoo:{name}")
    assert read_config(folder).learner == card(name).learner
    load_checkpoint(folder, "last")
    (release / f"{name}.zip").unlink()
    assert resolved(f"zoo:{name}") == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_archive_that_is_altered_is_refused_and_nothing_is_left(release, tmp_path):
    name = FETCHED[0]
    data = bytearray((release / f"{name}.zip").read_bytes())
    data[1000] ^= 1
    (release / f"{name}.zip").write_bytes(data)
    with pytest.raises(
        ZooError, match=rf"zoo:{name} cannot be fetched from .*\(it does not match its hash, .*\): try again"
    ):
        resolved(f"zoo:{name}")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_release_that_is_not_there_ends_in_one_sentence(release, monkeypatch):
    missing = FETCHED[1]
    with pytest.raises(
        ZooError, match=rf"zoo:{missing} cannot be fetched from .*404.*or train it by its command"
    ) as told:
        resolved(f"zoo:{missing}")
    assert "\n" not in str(told.value)
    monkeypatch.setenv("MAML_RL_ZOO", "http://127.0.0.1:9")
    with pytest.raises(ZooError, match="cannot be fetched from"):
        resolved(f"zoo:{missing}")
    monkeypatch.delenv("MAML_RL_ZOO")
    monkeypatch.setattr(zoo, "RELEASE", None)
    with pytest.raises(ZooError, match="asset of a release that does not exist yet: name the address"):
        resolved(f"zoo:{missing}")


@pytest.mark.parametrize(
    ("wrong", "hint"), [("halfcheeta-vel", "did you mean halfcheetah-vel"), ("go", "maml-rl zoo lists all")]
)
def test_an_unknown_name_is_refused(wrong, hint):
    with pytest.raises(ZooError, match=f"the zoo has no run {wrong!r}: {hint}"):
        maml_rl.load(f"zoo:{wrong}")


def test_other_paths_are_left_alone(tmp_path):
    assert resolved(tmp_path) == tmp_path and resolved("runs/zoo") == Path("runs/zoo")
