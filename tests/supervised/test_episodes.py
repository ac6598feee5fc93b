import shutil
import time

import numpy as np
import pytest
import torch
from pictures import drawings, write_folders, write_omniglot
from PIL import Image

from maml_rl.supervised.episodes import (
    EpisodeConfig,
    EpisodeSize,
    EpisodeStream,
    gather,
    make_streams,
    rotated_class,
)
from maml_rl.supervised.images import DataError, ImageConfig, ImageSet

pytestmark = pytest.mark.usefixtures("own_cache")


def image_set(sizes, size=8):
    pictures = [drawings(1, count, size, np.random.default_rng(i))[0] for i, count in enumerate(sizes)]
    images = np.concatenate(pictures)[..., None]
    return ImageSet(images, np.cumsum([0, *sizes]), tuple(f"train/c{i}" for i in range(len(sizes))))


SIZE = EpisodeSize(3, 2, 2)


def stream(rotations="classes", size=SIZE, sizes=(4, 6, 5, 9, 4), classes=None):
    data = image_set(sizes)
    return EpisodeStream(data, np.arange(len(sizes)) if classes is None else np.array(classes), rotations, size)


@pytest.mark.parametrize("rotations", ["classes", "random", "none"])
def test_support_and_query_never_overlap_and_classes_never_repeat(rotations):
    some = stream(rotations)
    for episode in some.sample(200, np.random.default_rng(0)):
        assert len(set(rotated_class(episode))) == 3
        if rotations != "classes":
            assert len(set(episode.classes)) == 3  # a class and its rotation never meet
        for c, support, query in zip(episode.classes, episode.support, episode.query, strict=True):
            assert len({*support, *query}) == 4
            assert max(*support, *query) < some.data.class_sizes[c]


def test_every_class_rotation_and_picture_comes_equally_often():
    # 4000 episodes draw 3 of 20 rotated classes each: 600 times every one, with a standard deviation of 22.6
    counts = np.zeros((5, 4))
    pictures = np.zeros(9)
    for episode in stream().sample(4000, np.random.default_rng(0)):
        for c, r, support in zip(episode.classes, episode.rotations, episode.support, strict=True):
            counts[c, r] += 1
            if c == 3:
                pictures[list(support)] += 1
    assert abs(counts - 600).max() < 5 * 22.6
    assert abs(pictures / pictures.mean() - 1).max() < 0.2


def test_episodes_are_a_function_of_the_generator():
    some = stream()
    assert some.sample(5, np.random.default_rng(7)) == some.sample(5, np.random.default_rng(7))
    assert some.sample(5, np.random.default_rng(7)) != some.sample(5, np.random.default_rng(8))


def test_pictures_are_those_of_the_episode_turned_as_it_says():
    some = stream()
    episodes = some.sample(20, np.random.default_rng(0))
    before = some.data.images.copy()
    for part, count in (("support", 2), ("query", 2)):
        images, labels = gather(some.data, episodes, part)
        assert images.shape == (20, 6, 8, 8, 1) and labels.tolist() == [[0, 0, 1, 1, 2, 2]] * 20
        for n, episode in enumerate(episodes):
            for way in range(3):
                for k in range(count):
                    number = some.data.first[episode.classes[way]] + getattr(episode, part)[way][k]
                    expected = np.rot90(some.data.images[number], episode.rotations[way]).astype(np.float32) / 255
                    assert (images[n, way * count + k].numpy() == expected).all()
    assert (some.data.images == before).all()  # turning writes into copies


def test_too_few_classes_or_pictures_are_refused_by_name():
    with pytest.raises(DataError, match="ways must be at most the number of classes, 2, got 3"):
        stream("none", classes=[0, 1])
    with pytest.raises(DataError, match=r"shots \+ queries = 3 \+ 2 pictures, but train/c0 has 4: add pictures"):
        stream(size=EpisodeSize(3, 3, 2))


def test_test_classes_never_appear_in_training(tmp_path):
    contents = {"background": [("Latin", 6), ("Hebrew", 6)], "evaluation": [("Tengwar", 6)]}
    root = write_omniglot(tmp_path / "data", contents)
    for train_on, both in (("train", 12), ("trainval", 18)):
        config = EpisodeConfig(data_root=str(root), images=ImageConfig(8), train_on=train_on)
        streams = make_streams(config, is_omniglot=True)
        seen = [{c for e in s.sample(200, np.random.default_rng(0)) for c in e.classes} for s in streams]
        assert len(seen[0] | seen[2]) == both
        assert not seen[0] & seen[2] and not seen[0] & seen[1]
        assert (seen[1] == seen[2]) == (train_on == "trainval")


def test_training_classes_can_be_asked_as_at_test(tmp_path):
    root = write_folders(tmp_path / "data")
    config = EpisodeConfig(
        data_root=str(root), images=ImageConfig(8), ways=3, train_shots=2, test_queries=3, test_rotations="none"
    )
    streams = make_streams(config, is_omniglot=False)
    asked = streams.of_part("train")
    assert asked.size == streams.test.size != streams.training.size
    episodes = asked.sample(50, np.random.default_rng(0))
    assert {c for e in episodes for c in e.classes} == set(streams.training.classes)
    assert {r for e in episodes for r in e.rotations} == {0}
    assert streams.of_part("test") is streams.test and streams.of_part("validation") is streams.validation


def test_class_folders_are_split_by_their_first_level(tmp_path):
    root = write_folders(tmp_path / "data")
    (root / "notes").mkdir()
    (root / "notes" / "sketch.png").write_bytes(b"not a picture")
    streams = make_streams(EpisodeConfig(data_root=str(root), images=ImageConfig(16)), is_omniglot=False)
    names = [{stream.data.names[c].split("/")[0] for c in stream.classes} for stream in streams]
    assert names == [{"train"}, {"test"}, {"test"}]
    with pytest.raises(DataError, match=r"must hold train/ and test/ .* train/ is not there"):
        make_streams(EpisodeConfig(data_root=str(root / "train")), is_omniglot=False)


def test_how_much_was_found_is_said_once(tmp_path, capfd):
    root = write_folders(tmp_path / "data", num_train=5, num_test=4, per_class=6)
    shutil.copytree(root / "test" / "c00", root / "train" / ".ipynb_checkpoints")
    for _ in range(2):
        make_streams(EpisodeConfig(data_root=str(root), images=ImageConfig(16)), is_omniglot=False)
    said = capfd.readouterr()
    assert said.err == "train: 5 classes, 30 pictures; test: 4 classes, 24 pictures\n" and said.out == ""


def test_pictures_that_are_blank_or_in_no_class_are_counted(tmp_path, capfd):
    root = write_folders(tmp_path / "data", num_train=2, num_test=2, per_class=4)
    shutil.copy(root / "train" / "c00" / "0.png", root / "test" / "overview.png")
    for name in ("1.png", "2.png"):
        Image.new("L", (16, 16), "white").save(root / "train" / "c01" / name)
    make_streams(EpisodeConfig(data_root=str(root), images=ImageConfig(16), ways=2), is_omniglot=False)
    assert capfd.readouterr().err == (
        "train: 2 classes, 8 pictures (2 of them blank, such as in train/c01); "
        "test: 2 classes, 8 pictures (1 more, in no class folder, left out)\n"
    )


def test_loading_is_a_small_share_of_a_step():
    # A meta-step of 32 tasks takes several hundred milliseconds on two cores; 2 % of 300 ms are 6 ms.
    many = stream(size=EpisodeSize(5, 1, 1), sizes=(20,) * 1028)
    many.data.images.resize((1028 * 20, 8, 8, 1))
    times = []
    for i in range(20):
        begun = time.process_time()
        episodes = many.sample(32, np.random.default_rng(i))
        gather(many.data, episodes, "support"), gather(many.data, episodes, "query")
        times.append(time.process_time() - begun)
    assert sorted(times)[10] < 0.006


@pytest.mark.parametrize("name", ["ways", "shots", "queries", "test_queries", "train_ways", "train_shots"])
def test_settings_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} must be at least [12], got 0"):
        EpisodeConfig(**{name: 0})


def test_the_real_stream_is_of_28_by_28_drawings_with_ink_1(real_data):
    streams = make_streams(EpisodeConfig(data_root=real_data), is_omniglot=True)
    assert [s.num_classes for s in streams] == [4112, 688, 1692]
    images, _ = gather(streams.test.data, streams.test.sample(4, np.random.default_rng(0)), "support")
    assert images.shape == (4, 5, 28, 28, 1) and 0.0 < images.mean() < 0.2
    assert set(torch.unique(images).tolist()) == {0.0, 1.0}
