"""Scalars of a run for TensorBoard, written as it goes: `diffevo-jax run --log tensorboard`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffevo_jax.runs.config.schema import ConfigError
from diffevo_jax.runs.results.fields import metrics
from diffevo_jax.runs.results.files import Arrays

FOLDER = "tensorboard"
# method, number of the first repeat, generations before, what is kept of those since, `[n, k, ...]`
Log = Callable[[str, int, int, Arrays], None]


def check() -> None:
    """Raise ConfigError where the package that writes them is not installed."""
    try:
        import tensorboardX  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'--log tensorboard needs {error.name}: pip install "diffevo-jax[tensorboard]"'
        ) from None


@contextmanager
def tensorboard(folder: Path) -> Iterator[Log]:
    """Give a log into FOLDER/tensorboard, METHOD/REPEAT a line of each plot.

    A generation that is run again, after a kill, replaces what was written of it.
    """
    from tensorboardX import SummaryWriter

    writers: dict[tuple[str, int], Any] = {}

    def log(method: str, first: int, before: int, kept: Arrays) -> None:
        for ended in [key for key in writers if key[0] != method or key[1] < first]:
            writers.pop(ended).close()  # each has a file and a thread
        for number, fitness in enumerate(kept["fitness"]):
            repeat = first + number
            if (method, repeat) not in writers:
                place = folder / FOLDER / method / f"{repeat:03d}"
                writers[method, repeat] = SummaryWriter(str(place), purge_step=before + 1)
            writer = writers[method, repeat]
            for k in range(len(fitness)):
                for key, value in metrics(kept, number, k).items():
                    if value != "":
                        tag = key.replace("fitness_", "fitness/")
                        writer.add_scalar(tag, float(value), before + k + 1)
            writer.flush()

    try:
        yield log
    finally:
        for writer in writers.values():
            writer.close()
