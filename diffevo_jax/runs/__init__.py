"""Config-driven runs and the `diffevo-jax` command, on top of the library."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffevo_jax.runs.results.champion import SavedChampion
    from diffevo_jax.runs.results.loading import Run
    from diffevo_jax.runs.results.table import PointResult


def main() -> None:
    """Entry point of the `diffevo-jax` command."""
    try:
        from diffevo_jax.runs.cli import app
    except ModuleNotFoundError as error:
        sys.exit(f'error: the command needs {error.name}: pip install "diffevo-jax[all]"')
    app(prog_name="diffevo-jax")


def load_run(folder: str | Path) -> "Run":
    """Read a run folder, which `diffevo-jax run` made, into arrays.

    Raises ValueError where it is none, or holds no results, and says what to do.

        run = load_run("runs/fig4_cartpole-20260101-120000")
        run.methods["latent"].fitness.mean(axis=(0, 2))  # of each generation
    """
    from diffevo_jax.runs.results import loading

    return loading.load_run(folder)


def load_champion(
    path: str | Path, *, method: str | None = None, repeat: int | None = None
) -> "SavedChampion":
    """Read the best policy of a run of a control task, from its folder or its champion.npz.

        champion = load_champion("runs/fig4_cartpole-20260101-120000")
        act = jax.jit(champion.controller())
        action = act(observation)

    method, repeat: of a folder, the best of this method, or this repeat of it, from 0.

    Raises ValueError where there is none, with what to do.
    """
    from diffevo_jax.runs.results import champion

    return champion.load(Path(path), method=method, repeat=repeat)


def load_sweep(folder: str | Path) -> "list[PointResult]":
    """Read the finished points of a sweep's folder, which `diffevo-jax sweep` made.

    Raises ValueError where it is none.

        for result in load_sweep("runs/sweep_cartpole"):
            print(result.point.settings, result.rows[0]["fitness_mean"], list(result.arrays))
    """
    from diffevo_jax.runs.results import loading

    return loading.load_sweep(folder)
