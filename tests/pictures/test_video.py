"""Films that can be read back, and never half of one."""

import io

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from maml_rl.pictures import video
from maml_rl.pictures.video import Panel, VideoError, compose, encode_gif, write_gif, write_mp4


def panel(length, height=41, width=160, lines=("caption",)):
    pictures = [np.full((height, width, 3), 10 * i, dtype=np.uint8) for i in range(length)]
    return Panel(pictures, [lines] * length)


FRAMES = compose(["title"], [[panel(8), panel(5)]], font_size=12)


def test_panels_stand_side_by_side_and_keep_their_last_picture():
    assert len(FRAMES) == 8
    height, width = FRAMES[0].shape[:2]
    assert height % 2 == width % 2 == 0 and width >= 2 * 160 and height > 41 + 2 * 12
    assert all(frame.shape == (height, width, 3) and frame.dtype == np.uint8 for frame in FRAMES)
    row = FRAMES[-1][height // 2]  # through both pictures
    assert row[80].tolist() == [70, 70, 70] and row[250].tolist() == [40, 40, 40]


def test_rows_of_panels_of_different_width_are_padded():
    (frame,) = compose([], [[panel(1), panel(1)], [panel(1, width=100)]], font_size=12)
    assert frame.shape[1] >= 320 and (frame[-20:, 200:] == 255).all()


@pytest.mark.parametrize("size", [9, 12, 20])
def test_no_caption_is_clipped(size):
    # Ink touches neither side of the strip under the picture, however long the line.
    (frame,) = compose([], [[panel(1, lines=("a caption that is long", "return -123.4, mean speed 1.25 m/s"))]], size)
    strip = frame[41:]
    assert strip.min() < 100 and (strip[:, :4] == 255).all() and (strip[:, -4:] == 255).all()
    assert (strip[-2:] == 255).all()


def test_an_mp4_is_h264_that_every_browser_plays(tmp_path):
    write_mp4(tmp_path / "film.mp4", FRAMES, fps=10.0)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "film.mp4"))
    about = next(reader)
    assert about["codec"] == "h264" and about["pix_fmt"].startswith("yuv420p") and about["fps"] == 10.0
    width, height = about["size"]
    assert (height, width) == FRAMES[0].shape[:2]
    back = [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader]
    assert len(back) == 8
    assert np.abs(back[3].astype(int) - FRAMES[3]).mean() < 3  # lossy, but the same picture
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_film_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"the one before")

    def frames():
        yield from FRAMES[:3]
        raise KeyboardInterrupt

    class Frames(list):
        __iter__ = staticmethod(frames)

    with pytest.raises(KeyboardInterrupt):
        write_mp4(tmp_path / "film.mp4", Frames(FRAMES), fps=10.0)
    assert (tmp_path / "film.mp4").read_bytes() == b"the one before"
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_without_ffmpeg_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    def none():
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none)
    with pytest.raises(VideoError, match="apt install ffmpeg"):
        write_mp4(tmp_path / "film.mp4", FRAMES, fps=10.0)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises((VideoError, OSError), match=r"film\.mp4"):
        write_mp4(tmp_path / "nowhere" / "film.mp4", FRAMES, fps=10.0)
    with pytest.raises(OSError, match=r"film\.tmp\.gif"):
        write_gif(tmp_path / "nowhere" / "film.gif", FRAMES, 10.0, 10**6)


def test_a_gif_fits_and_plays_as_fast(tmp_path):
    rng = np.random.default_rng(0)
    noisy = [rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(16)]  # compresses badly
    whole = len(encode_gif(noisy, 10.0, 10**7))
    write_gif(tmp_path / "film.gif", noisy, 10.0, max_bytes=whole // 3)
    assert (tmp_path / "film.gif").stat().st_size <= whole // 3
    film = Image.open(tmp_path / "film.gif")
    assert 1 < film.n_frames < 16 and film.info["loop"] == 0
    assert film.info["duration"] == 100 * -(-16 // film.n_frames)  # [ms]
    with pytest.raises(VideoError, match="must fit into 100 bytes"):
        encode_gif(noisy, 10.0, 100)


def test_a_gif_keeps_its_colours():
    picture = np.full((60, 80, 3), 128, dtype=np.uint8)
    picture[:, 40:44] = (230, 30, 20)  # a red post
    frames = [np.roll(picture, i, axis=1) for i in range(8)]

    film = Image.open(io.BytesIO(encode_gif(frames, 10.0, 10**6))).convert("RGB")
    assert np.abs(np.asarray(film)[30, 42].astype(int) - (230, 30, 20)).max() < 20
    assert video.GIF_COLOURS <= 256
