"""Pictures in a row, as a GIF or an MP4."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffevo_jax.checks import InputError

# Pixels per inch: figures of 8 inches are 880 pixels wide.
DPI = 110
LETTERS = {"font.size": 13, "axes.titlesize": 13}
HOLD = 1.5  # seconds that the last picture stays
COLOURS = 128  # in a GIF


def matplotlib() -> Any:
    """Import the package, where something is drawn."""
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

    path: NAME.gif, by Pillow, or NAME.mp4, where ffmpeg is installed. Raises InputError on another
    ending, and where there is no ffmpeg.
    """
    if path.suffix not in (".gif", ".mp4"):
        raise InputError("path", "NAME.gif or NAME.mp4", path)
    from matplotlib.animation import FFMpegWriter

    if path.suffix == ".mp4" and not FFMpegWriter.isAvailable():
        raise InputError("path", "NAME.gif where ffmpeg is not installed", path.name)
    draw(frames[-1])
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laying out every picture is slow
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
    """Save with Pillow, one picture after the other, in the memory of one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import GifImagePlugin, Image

    canvas = FigureCanvasAgg(figure)

    def picture(frame: int) -> Image.Image:
        draw(frame)
        canvas.draw()
        size = canvas.get_width_height()
        return Image.frombytes("RGBA", size, bytes(canvas.buffer_rgba())).convert("RGB")

    # One palette for all: with a palette each, what stands still would be stored every time.
    some = [picture(frame) for frame in frames[:: math.ceil(len(frames) / 8)]]
    width, height = some[0].size
    samples = Image.new("RGB", (width, height * len(some)))
    for i, each in enumerate(some):
        samples.paste(each, (0, height * i))
    palette = samples.quantize(COLOURS, dither=Image.Dither.NONE)
    colours = (palette.getpalette() or [])[: 3 * COLOURS]
    ground = np.asarray(some[0].quantize(palette=palette, dither=Image.Dither.NONE))[0, 0]
    colours[3 * ground : 3 * ground + 3] = [255] * 3  # Pillow's nearest to white is not white
    colours += [0] * (3 * (COLOURS + 1) - len(colours))  # and one for what stays as it is
    before = None
    with path.open("wb") as file:
        for number, frame in enumerate(frames):
            indices = np.asarray(picture(frame).quantize(palette=palette, dither=Image.Dither.NONE))
            left, top, right, bottom = 0, 0, width, height
            shown = indices
            if before is not None:  # only what moves is stored, at least a point
                moved = indices != before
                left, top, right, bottom = Image.fromarray(moved).getbbox() or (0, 0, 1, 1)
                shown = np.where(moved, indices, np.uint8(COLOURS))[top:bottom, left:right]
            image = Image.fromarray(shown, "P")
            image.putpalette(colours)
            if before is None:
                file.writelines(GifImagePlugin.getheader(image, info={"loop": 0})[0])
            before = indices
            hold = HOLD if number == len(frames) - 1 else 0
            duration = round(1000 / per_second) + round(1000 * hold)
            settings = {"duration": duration, "transparency": COLOURS, "disposal": 1}
            file.writelines(GifImagePlugin.getdata(image, (left, top), **settings))
        file.write(b";")
