import hashlib
import zipfile

import numpy as np
import pytest
from pictures import drawings, png, write_omniglot
from serving import served

from maml_rl.supervised import omniglot
from maml_rl.supervised.images import DataError, ImageConfig
from maml_rl.supervised.omniglot import find_folder, load_omniglot, one_shot_runs, split_classes

pytestmark = pytest.mark.usefixtures("own_cache")

SMALL = {
    "background": [("Latin", 4), ("Hebrew", 2), ("Gurmukhi", 3)],
    "evaluation": [("Tengwar", 3), ("Atlantean", 2)],
}


def test_archives_and_folders_give_the_same(tmp_path):
    root = write_omniglot(tmp_path / "data", SMALL)
    packed = load_omniglot(str(root), ImageConfig(8))
    assert packed.names[:2] == ("background/Gurmukhi/character01", "background/Gurmukhi/character02")
    assert len(packed.names) == 14 and packed.class_sizes.tolist() == [4] * 14
    for archive in sorted((root / "omniglot").glob("*.zip")):
        zipfile.ZipFile(archive).extractall(root / "omniglot")
        archive.unlink()
    unpacked = load_omniglot(str(root), ImageConfig(8))
    assert unpacked.names == packed.names and (unpacked.images == packed.images).all()


def test_an_archive_that_macos_packed_anew_gives_the_same(tmp_path):
    root = write_omniglot(tmp_path / "data", SMALL)
    expected = load_omniglot(str(root), ImageConfig(8))
    for path in sorted((root / "omniglot").glob("*.zip")):
        with zipfile.ZipFile(path, "a") as archive:
            for name in [name for name in archive.namelist() if name.endswith(".png")]:
                folder, _, file = name.rpartition("/")
                archive.writestr(f"__MACOSX/{folder}/._{file}", b"Mac OS X")
    found = load_omniglot(str(root), ImageConfig(8))
    assert found.names == expected.names and (found.images == expected.images).all()


def test_the_environment_variable_names_the_folder(tmp_path, monkeypatch):
    root = write_omniglot(tmp_path / "data", SMALL)
    monkeypatch.setenv("MAML_RL_DATA", str(root))
    assert find_folder(None) == root / "omniglot"
    with pytest.raises(DataError, match=r"--data-root must name a folder that holds omniglot/, but .*elsewhere"):
        find_folder(str(tmp_path / "elsewhere"))


def test_the_published_split_goes_by_alphabets():
    names = ["background/Latin/character01", "evaluation/Gurmukhi/character41", "evaluation/Gurmukhi/character42"]
    names += ["background/Hebrew/character01", "evaluation/Tengwar/character09", "evaluation/Atlantean/character01"]
    split = split_classes(names, "vinyals")
    assert [part.tolist() for part in split] == [[0, 1, 5], [3], [2, 4]]
    split = split_classes(names, "background-evaluation")
    assert [part.tolist() for part in split] == [[0, 3], [], [1, 2, 4, 5]]


@pytest.mark.parametrize(
    ("split", "sizes"),
    [("vinyals", [1028, 172, 423]), ("random-1200", [1100, 100, 423]), ("background-evaluation", [964, 0, 659])],
)
def test_splits_of_the_real_data_set_are_whole_and_disjoint(split, sizes, real_data):
    data = load_omniglot(real_data, ImageConfig())
    assert data.images.shape == (32460, 28, 28, 1) and set(data.class_sizes) == {20}
    parts = split_classes(data.names, split)
    assert [len(part) for part in parts] == sizes
    assert sorted(np.concatenate(parts).tolist()) == list(range(1623))


def test_the_published_split_is_that_of_the_data_set_s_lists(real_data):
    data = load_omniglot(real_data, ImageConfig())
    for part, name in zip(split_classes(data.names, "vinyals"), ("train", "val", "test"), strict=True):
        lines = (find_folder(real_data) / "splits" / f"vinyals_{name}.txt").read_text().split()
        assert {data.names[c].split("/", 1)[1] for c in part} == set(lines)


def test_the_real_one_shot_runs(real_data):
    runs = one_shot_runs(real_data, ImageConfig())
    assert len(runs) == 20
    for run in runs:
        assert run.support.shape == run.query.shape == (20, 28, 28, 1)
        assert sorted(run.labels) == list(range(20))


def test_one_shot_runs_pair_what_their_list_pairs(tmp_path):
    folder = tmp_path / "omniglot"
    folder.mkdir()
    pictures = drawings(1, 4, 8, np.random.default_rng(0))[0]
    with zipfile.ZipFile(folder / "all_runs.zip", "w") as archive:
        for name, picture in zip(
            ("test/item01", "test/item02", "training/class01", "training/class02"), pictures, strict=True
        ):
            archive.writestr(f"run01/{name}.png", png(picture))
        archive.writestr(
            "run01/class_labels.txt",
            "run01/test/item01.png run01/training/class02.png\nrun01/test/item02.png run01/training/class01.png\n",
        )
    (run,) = one_shot_runs(str(tmp_path), ImageConfig(8))
    assert (run.query[..., 0] == pictures[:2]).all() and (run.support[..., 0] == pictures[2:]).all()
    assert run.labels.tolist() == [1, 0]


def test_half_a_download_is_refused_by_name(tmp_path):
    root = write_omniglot(tmp_path / "data", SMALL)
    archive = root / "omniglot" / "images_evaluation.zip"
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"images_evaluation\.zip must be a whole zip archive .*fetch it again"):
        load_omniglot(str(root), ImageConfig(8))
    archive.unlink()
    with pytest.raises(DataError, match=r"must hold images_evaluation\.zip or images_evaluation/, but"):
        load_omniglot(str(root), ImageConfig(8))


def test_a_picture_damaged_inside_its_archive_is_named(tmp_path):
    root = write_omniglot(tmp_path / "data", SMALL)
    archive = root / "omniglot" / "images_background.zip"
    data = bytearray(archive.read_bytes())
    place = data.index(b"IHDR")
    data[place + 4] ^= 0xFF
    archive.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"images_background\.zip is damaged at images_background/Latin/character01"):
        load_omniglot(str(root), ImageConfig(8))


def test_a_download_is_checked_and_kept_whole(tmp_path, own_cache, monkeypatch):
    root = write_omniglot(tmp_path / "data", SMALL)
    archives = {path.stem: path.read_bytes() for path in (root / "omniglot").glob("*.zip")}
    monkeypatch.setenv("MAML_RL_CACHE", str(tmp_path / "cache"))
    with served(root / "omniglot") as address:
        monkeypatch.setattr(omniglot, "ADDRESS", address)
        with pytest.raises(
            DataError, match=r"images_background\.zip cannot be downloaded \(it does not match its hash"
        ):
            load_omniglot(None, ImageConfig(8))
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
        checksums = {name: hashlib.md5(archives[name], usedforsecurity=False).hexdigest() for name in omniglot.MD5}
        assert len(load_omniglot(None, ImageConfig(8), checksums).names) == 14
    assert len(load_omniglot(None, ImageConfig(8)).names) == 14  # nothing is fetched twice


def test_without_data_and_network_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(omniglot, "ADDRESS", "http://127.0.0.1:9/")
    monkeypatch.delenv("MAML_RL_DATA", raising=False)
    monkeypatch.setenv("MAML_RL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"Omniglot was not found, .* name the folder above it by --data-root or"):
        load_omniglot(None, ImageConfig(8))
