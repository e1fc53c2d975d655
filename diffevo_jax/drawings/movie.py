"""Pictures in a row, as a GIF or an MP4."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Pixels an inch: figures of 8 inches are 880 pixels wide.
DPI = 110
LETTERS = {"font.size": 13, "axes.titlesize": 13}
HOLD = 1.5  # seconds that the last picture stays


def matplotlib() -> Any:
    """The package, imported where something is drawn."""
    try:
        import matplotlib
        import matplotlib.figure
    except ModuleNotFoundError as error:
        message = f'drawings need {error.name}: pip install "diffevo-jax[run]"'
        raise ModuleNotFoundError(message) from None
    return matplotlib


def save(
    figure: Any,
    draw: Callable[[int], None],
    frames: Sequence[int],
    path: Path,
    *,
    per_second: float,
) -> Path:
    """Draw each frame into the figure and save them all; the last one stays for a while.

    path: NAME.gif, by Pillow, or NAME.mp4, where ffmpeg is installed. Raises ValueError on another
    ending, and where there is no ffmpeg.
    """
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"path: expected NAME.gif or NAME.mp4; seen {path}")
    from matplotlib.animation import FFMpegWriter

    if path.suffix == ".mp4" and not FFMpegWriter.isAvailable():
        raise ValueError(f"path: {path.name} needs ffmpeg, which is not installed; take NAME.gif")
    draw(frames[-1])
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once; again for every picture is slow
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        _save_gif(figure, draw, frames, path, per_second)
        return path
    writer = FFMpegWriter(fps=per_second)  # pyright: ignore[reportArgumentType]
    with writer.saving(figure, str(path), DPI):
        for frame in [*frames, *[frames[-1]] * round(HOLD * per_second)]:
            draw(frame)
            writer.grab_frame()
    return path


def _save_gif(figure: Any, draw: Any, frames: Sequence[int], path: Path, per_second: float):
    """By Pillow itself: matplotlib's writer gives all pictures one duration."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    pictures = []
    for frame in frames:
        draw(frame)
        canvas.draw()
        size = canvas.get_width_height()
        picture = Image.frombytes("RGBA", size, bytes(canvas.buffer_rgba())).convert("RGB")
        pictures.append(picture)
    # One palette for all: with one each, what stands still is stored again and again.
    some = pictures[:: math.ceil(len(pictures) / 8)]
    width, height = pictures[0].size
    beside = Image.new("RGB", (width, height * len(some)))
    for i, picture in enumerate(some):
        beside.paste(picture, (0, height * i))
    palette = beside.quantize(128, dither=Image.Dither.NONE)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    colours = palette.getpalette() or []
    ground = pictures[0].getpixel((0, 0))
    colours[3 * ground : 3 * ground + 3] = [255] * 3  # Pillow's nearest to white is not white
    for picture in pictures:
        picture.putpalette(colours)
    each = round(1000 / per_second)
    durations = [each] * (len(pictures) - 1) + [each + round(1000 * HOLD)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0)
