"""From pictures to films: panels with captions, MP4 and GIF."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Frames = list[NDArray[np.uint8]]  # [height, width, 3] each, all of one size
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
PAPER, INK, FRAME, MARGIN = (255, 255, 255), (25, 25, 25), (170, 170, 170), 6
GIF_COLOURS = 64


class VideoError(ValueError):
    """A film cannot be written; the message is one sentence."""


class Panel(NamedTuple):
    """One moving picture of several in a film, with its own caption under each frame."""

    pictures: Sequence[NDArray[np.uint8]]
    captions: Sequence[Sequence[str]]  # for each picture its lines


def compose(title: Sequence[str], rows: Sequence[Sequence[Panel]], font_size: int) -> Frames:
    """Panels in rows, lines of title above, sides even as H.264 wants. Panels that end early keep their last frame."""
    panels = [panel for row in rows for panel in row]
    length = max(len(panel.pictures) for panel in panels)
    lines = [line for panel in panels for caption in panel.captions for line in caption]
    font = _fitting_font(font_size, lines, min(panel.pictures[0].shape[1] for panel in panels))
    frames = []
    for time in range(length):
        drawn = [np.hstack([_captioned(panel, time, font) for panel in row]) for row in rows]
        width = max(row.shape[1] for row in drawn)
        head = _text_strip(title, width, _fitting_font(font_size, title, width))
        frames.append(_even(np.vstack([head, *(_padded(row, width) for row in drawn)])))
    return frames


def write_mp4(path: Path, frames: Frames, fps: float) -> None:
    """An H.264 film that every browser plays; it is there whole or not at all.

    Raises:
        VideoError: if there is no ffmpeg, or it fails.
        OSError: if the file cannot be written.
    """
    require_ffmpeg()
    height, width = frames[0].shape[:2]
    aside = path.with_name(f".{path.stem}.tmp{path.suffix}")
    writer = imageio_ffmpeg.write_frames(
        str(aside),
        (width, height),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        quality=None,
        output_params=["-crf", "21", "-movflags", "+faststart"],
        ffmpeg_log_level="error",
    )
    try:
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        os.replace(aside, path)
    except OSError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise VideoError(f"{path} cannot be written: {lines[-1] if lines else error!r}") from error
    finally:
        writer.close()  # ends ffmpeg, whatever has happened
        aside.unlink(missing_ok=True)


def require_ffmpeg() -> None:
    """
    Raises:
        VideoError: if there is no ffmpeg.
    """
    try:
        imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise VideoError(
            "an MP4 needs ffmpeg, but none was found: pip install --force-reinstall imageio-ffmpeg, which brings one, "
            "or install it (Debian: apt install ffmpeg)"
        ) from error


def write_gif(path: Path, frames: Frames, fps: float, max_bytes: int) -> None:
    """A GIF of at most `max_bytes`, as large and smooth as fits; it is there whole or not at all.

    Raises:
        VideoError: if it cannot be made as small as that.
        OSError: if the file cannot be written.
    """
    data = encode_gif(frames, fps, max_bytes)
    aside = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        aside.write_bytes(data)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def encode_gif(frames: Frames, fps: float, max_bytes: int) -> bytes:
    """The bytes of a GIF of at most `max_bytes`: first every second frame is given up, then size.

    Raises:
        VideoError: if it cannot be made as small as that.
    """
    for every, scale in ((1, 1.0), (2, 1.0), (2, 0.8), (2, 0.65), (3, 0.5), (4, 0.35), (8, 0.25)):
        data = _encode_gif(frames[::every], fps / every, scale)
        if len(data) <= max_bytes:
            return data
    raise VideoError(f"a GIF of {len(frames)} frames must fit into {max_bytes} bytes, but its smallest is {len(data)}")


def _encode_gif(frames: Frames, fps: float, scale: float) -> bytes:
    height, width = frames[0].shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    images = [Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS) for frame in frames]
    # one palette, of frames from all over the film, and no dithering: what does not move costs nothing
    sample = Image.fromarray(np.vstack(frames[:: max(1, len(frames) // 6)]))
    palette = sample.quantize(GIF_COLOURS, Image.Quantize.MEDIANCUT, kmeans=2)
    drawn = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    data = io.BytesIO()
    duration = [max(20, round(100 / fps) * 10)] * len(drawn)  # [ms]; viewers count in hundredths of a second
    duration[-1] = 1000  # the end is to be read
    drawn[0].save(data, "GIF", save_all=True, append_images=drawn[1:], duration=duration, loop=0, optimize=False)
    return data.getvalue()


def _fitting_font(size: int, lines: Sequence[str], width: int) -> Font:
    """The font in which the longest line fits, of one size for the whole film."""
    font = ImageFont.load_default(size)
    while size > 6 and max(map(font.getlength, lines), default=0.0) > width - 2 * MARGIN:
        size -= 1
        font = ImageFont.load_default(size)
    return font


def _captioned(panel: Panel, time: int, font: Font) -> NDArray[np.uint8]:
    now = min(time, len(panel.pictures) - 1)
    picture = np.array(panel.pictures[now])
    picture[[0, -1]] = picture[:, [0, -1]] = FRAME
    strip = _text_strip(panel.captions[now], picture.shape[1], font)
    framed = np.vstack([picture, strip])
    return np.pad(framed, ((0, 0), (2, 2), (0, 0)), constant_values=255)


def _text_strip(lines: Sequence[str], width: int, font: Font) -> NDArray[np.uint8]:
    """Lines of text [height, width, 3]."""
    pitch = int(font.getbbox("Ag|")[3] + 3)
    strip = Image.new("RGB", (width, pitch * len(lines) + (2 * MARGIN if lines else 0)), PAPER)
    draw = ImageDraw.Draw(strip)
    for i, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + i * pitch), line, fill=INK, font=font)
    return np.asarray(strip)


def _padded(row: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)


def _even(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), constant_values=255)
