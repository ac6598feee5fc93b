import shutil

import numpy as np
import pytest
import safetensors.numpy
from pictures import write_folders
from PIL import Image

from maml_rl.supervised import images as images_module
from maml_rl.supervised.images import (
    DataError,
    ImageConfig,
    ImageFile,
    cached_images,
    class_folders,
    decode,
    fingerprint,
    read_images,
)

pytestmark = pytest.mark.usefixtures("own_cache")


def save(picture, path, mode="L"):
    Image.fromarray(picture).convert(mode).save(path)
    return path.read_bytes()


def test_area_is_the_mean_of_what_a_pixel_covers_and_nearest_one_of_its_pixels(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    data = save(picture, tmp_path / "a.png")
    area = decode(data, "a", ImageConfig(4, "area", invert=False))
    blocks = picture.reshape(4, 4, 4, 4).swapaxes(1, 2).reshape(4, 4, 16)
    assert np.abs(area[..., 0].astype(float) - blocks.mean(axis=-1)).max() <= 0.5 + 1e-9
    nearest = decode(data, "a", ImageConfig(4, "nearest", invert=False))
    assert (nearest == blocks).any(axis=-1).all()
    inverted = decode(data, "a", ImageConfig(4, "nearest", invert=True))
    assert (inverted == 255 - nearest).all()


@pytest.mark.parametrize("resize", ["nearest", "area"])
def test_turning_before_resizing_is_turning_after_it(resize, tmp_path):
    # The published codes differ in the order; from 105 to 28 pixels it makes no difference, so one array serves.
    picture = np.random.default_rng(0).integers(0, 256, (105, 105), dtype=np.uint8)
    config = ImageConfig(28, resize, invert=False)
    after = np.rot90(decode(save(picture, tmp_path / "a.png"), "a", config))
    before = decode(save(np.rot90(picture).copy(), tmp_path / "b.png"), "b", config)
    assert np.abs(after.astype(int) - before).max() <= (1 if resize == "area" else 0)


def test_class_folders_are_read_class_by_class(tmp_path):
    root = write_folders(tmp_path / "data", num_train=3, num_test=2, per_class=4)
    found = read_images(class_folders(root), ImageConfig(16))
    assert found.names == ("test/c00", "test/c01", "train/c00", "train/c01", "train/c02")
    assert found.class_sizes.tolist() == [4] * 5
    assert found.images.shape == (20, 16, 16, 1)
    expected = 255 - np.asarray(Image.open(root / "train" / "c01" / "2.png"))
    assert (found.images[found.first[3] + 2, :, :, 0] == expected).all()


def test_the_cache_gives_the_same_until_a_file_changes(tmp_path, own_cache):
    root = write_folders(tmp_path / "data", num_train=2, num_test=1, per_class=2)

    def load(files):
        paths = [f.path for f in class_folders(root)]
        return cached_images("small", fingerprint(map(root.__class__, paths)), ImageConfig(16), files)

    first = load(lambda: class_folders(root))
    again = load(lambda: pytest.fail("the cache was not used"))
    assert (first.images == again.images).all() and first.names == again.names
    assert first.first.tolist() == again.first.tolist()
    save(np.zeros((16, 16), dtype=np.uint8), root / "train" / "c00" / "0.png")
    assert not (load(lambda: class_folders(root)).images == first.images).all()
    assert not list(own_cache.glob("*.tmp"))


def without_notes(data):
    return safetensors.numpy.save(safetensors.numpy.load(data))


def without_names(data):
    return safetensors.numpy.save(safetensors.numpy.load(data), {"other": "notes"})


def without_pictures(data):
    return safetensors.numpy.save({"first": np.zeros(2)}, {"names": "[]", "digest": ""})


def of_other_text(data):
    return data.replace(b"names", b"games")


def with_a_class_less(data):
    return data.replace(b"train/c00", b"train/c01")


def with_other_numbers(data):
    return data.replace(b'"U8"', b'"I8"')


def with_one_bit_turned(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:100],
        lambda data: b"",
        without_notes,
        without_names,
        without_pictures,
        of_other_text,
        with_a_class_less,
        with_other_numbers,
        with_one_bit_turned,
    ],
)
def test_a_damaged_cache_is_made_anew(damage, tmp_path, own_cache):
    root = write_folders(tmp_path / "data", num_train=2, num_test=1, per_class=2)
    config = ImageConfig(8)
    state = tmp_path.name  # other tests share the cache
    first = cached_images("cut", state, config, lambda: class_folders(root))
    path = max(own_cache.glob("cut-*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    path.write_bytes(damage(path.read_bytes()))
    again = cached_images("cut", state, config, lambda: class_folders(root))
    assert (again.images == first.images).all() and again.first.tolist() == first.first.tolist()
    assert again.names == first.names
    cached_images("cut", state, config, lambda: pytest.fail("the cache was not made anew"))


def test_nothing_is_left_of_a_cache_that_cannot_be_written(tmp_path, own_cache, monkeypatch):
    root = write_folders(tmp_path / "data", num_train=2, num_test=1, per_class=2)

    def fail(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images_module.os, "replace", fail)
    with pytest.raises(DataError, match="No space left on device; name another folder by MAML_RL_CACHE"):
        cached_images("full", "state", ImageConfig(8), lambda: class_folders(root))
    assert not list(own_cache.glob("full*"))


def test_what_cannot_be_read_is_named(tmp_path):
    root = write_folders(tmp_path / "data", num_train=2, num_test=1, per_class=2)
    bad = root / "train" / "c01" / "1.png"
    bad.write_bytes(bad.read_bytes()[:20])
    with pytest.raises(
        DataError, match=r"c01/1\.png must be a picture, but it cannot be read .*: replace or delete it"
    ):
        read_images(class_folders(root), ImageConfig(16))
    (root / "train" / "c00" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"c00/0\.png must be a picture, .* \(and 1 more cannot be read\)"):
        read_images(class_folders(root), ImageConfig(16))
    (root / "train" / "nothing").mkdir()
    with pytest.raises(DataError, match="must hold a folder of pictures for each class, but"):
        class_folders(tmp_path / "data" / "train" / "nothing")


def test_pictures_of_any_size_and_mode_make_one_data_set(tmp_path):
    # Equal pixels in a block shrink to one of them; a grey picture is a colour one of equal channels.
    root = write_folders(tmp_path / "data", num_train=2, num_test=1, per_class=2)
    even = read_images(class_folders(root), ImageConfig(16))
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        image = Image.open(path)
        image = image.resize((16 * (1 + i % 2), 16 * (1 + i % 3)), Image.Resampling.NEAREST)
        image.convert("RGB" if i == 4 else "L").save(path)
    grey, auto, colour = (
        read_images(class_folders(root), ImageConfig(16, channels=c)) for c in ("grey", "auto", "colour")
    )
    assert (grey.images == even.images).all()
    assert (auto.images == np.repeat(even.images, 3, axis=-1)).all()
    assert (colour.images == auto.images).all()


def test_colour_is_kept(tmp_path):
    root = write_folders(tmp_path / "data", num_train=2, num_test=1, per_class=2, mode="RGB")
    assert read_images(class_folders(root), ImageConfig(8)).images.shape == (6, 8, 8, 3)


def test_what_other_programs_leave_is_no_class_and_no_picture(tmp_path):
    root = write_folders(tmp_path / "data", num_train=3, num_test=1, per_class=4)
    expected = class_folders(root)
    folder = root / "train" / "c00"
    for litter in (folder / ".ipynb_checkpoints", root / "test" / ".Trash-0" / "files", root / "__MACOSX" / "c00"):
        shutil.copytree(folder, litter)
    (folder / "._0.png").write_bytes(b"Mac OS X")
    (folder / "Thumbs.db").write_bytes(b"Windows")
    shutil.copy(folder / "0.png", root / "overview.png")
    assert [file[:2] for file in class_folders(root)] == [file[:2] for file in expected]


def test_links_are_followed_and_make_no_loop(tmp_path):
    root = write_folders(tmp_path / "data", num_train=3, num_test=1, per_class=4)
    plain = read_images(class_folders(root / "train"), ImageConfig(8))
    for name in ("c01", "c02"):
        (root / "train" / name).rename(tmp_path / name)
        (root / "train" / name).symlink_to(tmp_path / name)
    (root / "train" / "c00" / "back").symlink_to(root / "train")  # each of these would never end, or bring test classes
    (root / "train" / "up").symlink_to(root)
    (root / "train" / "self").symlink_to(root / "train" / "self")
    (tmp_path / "c02" / "first").symlink_to(root / "train" / "c00")
    (root / "train" / "c00" / "9.png").symlink_to(tmp_path / "nowhere.png")
    linked = read_images(class_folders(root / "train"), ImageConfig(8))
    assert linked.names == plain.names and linked.first.tolist() == plain.first.tolist()
    assert (linked.images == plain.images).all()


def test_a_folder_in_a_class_folder_belongs_to_the_class(tmp_path):
    root = write_folders(tmp_path / "data", num_train=2, num_test=1, per_class=4) / "train"
    (root / "c00" / "more" / "still").mkdir(parents=True)
    (root / "c00" / "1.png").rename(root / "c00" / "more" / "1.png")
    (root / "c00" / "2.png").rename(root / "c00" / "more" / "still" / "2.png")
    shutil.move(root / "c01", root / "group" / "c01")
    found = read_images(class_folders(root), ImageConfig(8))
    assert found.names == ("c00", "group/c01") and found.class_sizes.tolist() == [4, 4]


def test_pictures_that_no_memory_holds_are_refused_before_one_is_read():
    unread = [ImageFile("c00", f"{i}.png", lambda: pytest.fail("a picture was read")) for i in range(2)]
    with pytest.raises(
        DataError, match=r"image_size must let 2 pictures fit into .*, got 1000000, which takes 4e\+03 GB"
    ):
        read_images(unread, ImageConfig(1_000_000))
