"""What goes in comes out; what is not a whole checkpoint of ours is refused in one sentence."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from maml_rl.storage import checkpoint as checkpoints
from maml_rl.storage.checkpoint import Checkpoint, CheckpointError, load, load_best, load_latest, save
from maml_rl.storage.checkpoint_file import hash_of_json

REUSE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def some_checkpoint(iteration: int = 7) -> Checkpoint:
    state = {"params/b": torch.arange(6.0).view(2, 3) / 7, "params/a": torch.tensor(3)}
    return Checkpoint(iteration, state, {"env_steps": 10, "best_score": -0.1, "best_iteration": iteration})


def saved(folder: Path, iteration: int = 7) -> Path:
    save(folder, some_checkpoint(iteration))
    return folder / checkpoints.stem(iteration)


def edit_json(path: Path, **changes) -> None:
    """As a program would write it: with the hash that fits."""
    file = path.with_suffix(".json")
    about = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(about | {"sha256_of_json": hash_of_json(about)}))


def test_a_checkpoint_comes_back_bit_for_bit_and_in_order(tmp_path):
    vector = torch.randn(12)
    state = {
        "z/view": vector[2:8].view(2, 3),
        "z/transposed": vector[:6].view(2, 3).T,
        "a/expanded": vector[:1].expand(4),
        "a/scalar": torch.tensor(2.5, dtype=torch.float64),
        "m/empty": torch.empty(0, 3),
        "m/mask": torch.tensor([True, False]),
        "m/half": torch.tensor([float("inf"), -0.0]).bfloat16(),
        "m/count": torch.tensor(2**60),
    }
    state["z/leaf"] = torch.ones(2, requires_grad=True)
    counters = {"env_steps": 2**60, "best_score": 0.1 + 0.2}
    save(tmp_path, Checkpoint(123, state, counters))
    for name in ("iteration-000123", "iteration-000123.json", "iteration-000123.safetensors"):
        back = load(tmp_path / name)
        assert (back.iteration, back.counters) == (123, counters)
        assert list(back.state) == list(state)  # a learner may flatten its parameters in this order
        for key, value in state.items():
            assert back.state[key].dtype == value.dtype
            assert back.state[key].shape == value.shape
            assert torch.equal(back.state[key], value)
            assert back.state[key].is_contiguous() and back.state[key].storage_offset() == 0


def test_the_json_says_what_the_numbers_were_made_with(tmp_path):
    about = json.loads(saved(tmp_path).with_suffix(".json").read_text())
    assert {"python", "torch", "numpy", "mujoco", "gymnasium"} <= about["versions"].keys()
    assert about["tensors"][0] == {"name": "params/b", "shape": [2, 3], "dtype": "float32"}
    assert about["format_version"] == 2
    assert "git_commit" in about and "saved_at" in about


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def refuse_cut(path):
    file = path.with_suffix(".safetensors")
    file.write_bytes(file.read_bytes()[:-3])


def refuse_altered(path):
    file = path.with_suffix(".safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def refuse_pickle(path):
    path.with_suffix(".safetensors").write_bytes(pickle.dumps(Bomb()))


def refuse_torch_pickle(path):
    torch.save({"bomb": Bomb()}, path.with_suffix(".safetensors"))


def refuse_foreign_tensors(path):
    data = b"no tensors at all"
    path.with_suffix(".safetensors").write_bytes(data)
    edit_json(path, sha256=hashlib.sha256(data).hexdigest())


REFUSED = {
    "was cut": refuse_cut,
    "or altered": refuse_altered,
    "is a pickle": refuse_pickle,
    "is a pickle, which could run code": refuse_torch_pickle,
    "is not safetensors": refuse_foreign_tensors,
    "cannot be read: No such file": lambda path: path.with_suffix(".json").unlink(),
    "safetensors cannot be read: No such": lambda path: path.with_suffix(".safetensors").unlink(),
    "is cut or not JSON": lambda path: path.with_suffix(".json").write_text('{"format_version": 1, '),
    "must hold an object, got list": lambda path: path.with_suffix(".json").write_text("[]"),
    "cut or not JSON .*recursion": lambda path: path.with_suffix(".json").write_text("[" * 100_000),
    "format_version 1 or 2, got 3": lambda path: edit_json(path, format_version=3),
    "format_version 1 or 2, got None": lambda path: path.with_suffix(".json").write_text("{}"),
    "valid entry 'iteration'": lambda path: edit_json(path, iteration=True),
    "valid entry 'counters'": lambda path: edit_json(path, counters={"a": "1"}),
    "valid entry 'tensors'": lambda path: edit_json(path, tensors=[{"name": "w"}]),
    "tensors that its JSON lists": lambda path: edit_json(path, tensors=[]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_damaged_and_foreign_checkpoints_are_refused(tmp_path, monkeypatch, reason):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path)
    REFUSED[reason](path)
    with pytest.raises(CheckpointError, match=reason) as refusal:
        load(path)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [('"env_steps": 10', '"env_steps": 11'), ('"best_iteration": 7', '"best_iteration": 6'), ("sha256_of_json", "sha")],
)
def test_an_altered_json_is_refused(tmp_path, old, new):
    file = saved(tmp_path).with_suffix(".json")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(CheckpointError, match=r"000007.json does not match the hash that it states: it was altered"):
        load(file)


def test_a_checkpoint_of_the_first_format_is_read(tmp_path):
    file = saved(tmp_path).with_suffix(".json")
    about = json.loads(file.read_text()) | {"format_version": 1}
    del about["sha256_of_json"]
    file.write_text(json.dumps(about))
    assert load(file).counters == some_checkpoint().counters


def test_counters_must_be_finite(tmp_path):
    path = saved(tmp_path)
    for bad in ("1e999", "NaN"):
        path.with_suffix(".json").write_text(
            path.with_suffix(".json").read_text().replace('"env_steps": 10', f'"env_steps": {bad}')
        )
        with pytest.raises(CheckpointError):
            load(path)
        saved(tmp_path)


@REUSE
@given(st.data())
def test_a_file_cut_anywhere_is_refused(tmp_path, data):
    path = saved(tmp_path)
    file = path.with_suffix(data.draw(st.sampled_from([".json", ".safetensors"])))
    whole = file.read_bytes()
    end = len(whole) - (2 if file.suffix == ".json" else 1)  # without its line end a JSON file is whole
    file.write_bytes(whole[: data.draw(st.integers(0, end))])
    with pytest.raises(CheckpointError):
        load(path)


@REUSE
@given(st.binary(max_size=300))
@example(b"\x80\x04N.")
@example(b"\xff" * 8 + b"{}")
def test_arbitrary_bytes_as_tensors_are_refused(tmp_path, data):
    path = saved(tmp_path)
    path.with_suffix(".safetensors").write_bytes(data)
    with pytest.raises(CheckpointError):
        load(path)
    edit_json(path, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(CheckpointError):
        load(path)


HEADERS = st.dictionaries(
    st.text(max_size=4),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "I64", "BOOL", "F8_E4M3", "C64", "F4", "X"]),
            "shape": st.lists(st.integers(0, 3) | st.just(2**62), max_size=3),
            "data_offsets": st.tuples(st.integers(0, 50), st.integers(0, 50)) | st.just([0, 4]),
        }
    ),
    max_size=2,
)


@REUSE
@given(HEADERS, st.binary(max_size=50))
def test_wrong_safetensors_headers_are_refused(tmp_path, header, body):
    path = saved(tmp_path)
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + body
    path.with_suffix(".safetensors").write_bytes(data)
    edit_json(path, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(CheckpointError):
        load(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = ["format_version", "iteration", "counters", "sha256", "tensors"]


@REUSE
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_as_json_are_refused(tmp_path, data):
    path = saved(tmp_path)
    path.with_suffix(".json").write_bytes(data)
    with pytest.raises(CheckpointError):
        load(path)


@REUSE
@given(st.sampled_from(ENTRIES), JSON)
def test_a_json_with_one_strange_entry_is_refused_or_loads(tmp_path, entry, value):
    path = saved(tmp_path)
    edit_json(path, **{entry: value})
    with contextlib.suppress(CheckpointError):
        assert isinstance(load(path), Checkpoint)


@REUSE
@given(st.binary(max_size=60))
@example(b"../iteration-000001\n")
def test_arbitrary_bytes_as_pointer_are_refused(tmp_path, data):
    saved(tmp_path)
    (tmp_path / "latest").write_bytes(data)
    with pytest.raises(CheckpointError, match="iteration-000007 is good"):
        load_latest(tmp_path)


def test_a_refusal_offers_the_newest_good_one_or_says_that_there_is_none(tmp_path):
    paths = [saved(tmp_path, iteration) for iteration in (1, 2, 3)]
    checkpoints.point(tmp_path, "latest", 3)
    for path in reversed(paths[1:]):
        refuse_cut(path)
    with pytest.raises(CheckpointError, match=r"iteration-000003.*; iteration-000001 is good"):
        load_latest(tmp_path)
    refuse_cut(paths[0])
    with pytest.raises(CheckpointError, match="no good checkpoint is left there: put them back, or train a new run"):
        load_latest(tmp_path)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("iteration-000009\n")])
def test_a_refusal_of_the_best_offers_the_one_that_was(tmp_path, damage):
    for iteration in (1, 2, 3):
        counters = {"best_score": 0.5, "best_iteration": 2}
        save(tmp_path, dataclasses.replace(some_checkpoint(iteration), counters=counters))
    checkpoints.point(tmp_path, "best", 2)
    damage(tmp_path / "best")
    with pytest.raises(CheckpointError) as refusal:
        load_best(tmp_path)
    assert str(refusal.value).endswith(f"iteration-000002 is good: write that name into {tmp_path / 'best'} to use it")
    (tmp_path / "best").write_text("iteration-000002\n")
    assert load_best(tmp_path).iteration == 2


def test_a_renamed_checkpoint_loads_but_is_not_resumed_from(tmp_path):
    path = saved(tmp_path)
    for ending in (".json", ".safetensors"):
        path.with_suffix(ending).rename(tmp_path / f"iteration-000009{ending}")
    assert load(tmp_path / "iteration-000009").iteration == 7
    checkpoints.point(tmp_path, "latest", 9)
    with pytest.raises(CheckpointError, match="renamed"):
        load_latest(tmp_path)


def test_pruning_keeps_the_last_the_latest_and_the_best(tmp_path):
    for iteration in (1, 2, 3, 4, 5, 999_999, 1_000_000):
        saved(tmp_path, iteration)
    checkpoints.point(tmp_path, "best", 2)
    checkpoints.point(tmp_path, "latest", 4)
    checkpoints.prune(tmp_path, keep=2)
    assert checkpoints.iterations_on_disk(tmp_path) == [2, 4, 999_999, 1_000_000]
    assert load_best(tmp_path).iteration == 2
    assert load_latest(tmp_path).iteration == 4


def test_rewinding_removes_what_came_later_and_what_is_unfinished(tmp_path):
    for iteration in (3, 4, 5):
        saved(tmp_path, iteration)
    checkpoints.point(tmp_path, "best", 5)
    (tmp_path / "iteration-000006.safetensors").write_bytes(b"killed before its JSON")
    (tmp_path / "iteration-000002.safetensors").write_bytes(b"killed while it was deleted")
    (tmp_path / "latest.tmp").write_bytes(b"iter")
    (tmp_path / "notes.txt").write_text("not ours")
    checkpoints.rewind(tmp_path, some_checkpoint(4))
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"iteration-00000{i}.{ending}" for i in (3, 4) for ending in ("json", "safetensors")),
        "best",
        "notes.txt",
    }
    assert load_best(tmp_path).iteration == 4


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_what_cannot_be_written_ends_in_one_sentence(tmp_path, monkeypatch, number, function):
    saved(tmp_path, 1)
    checkpoints.point(tmp_path, "latest", 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, fail)
    sentence = rf"^checkpoint .* cannot be written: {os.strerror(number)}; [^\n]*--resume [^\n]*$"
    with pytest.raises(CheckpointError, match=sentence):
        save(tmp_path, some_checkpoint(2))
    with pytest.raises(CheckpointError, match=sentence):
        checkpoints.point(tmp_path, "latest", 1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_is_gone_ends_in_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written: No such file"):
        save(tmp_path / "gone", some_checkpoint())
