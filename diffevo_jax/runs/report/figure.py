"""Fitness against generation, as the paper's Fig. 4b, drawn from a run folder's files alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffevo_jax.drawings.style import GREY, STYLE, Look, looks
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.config.schema import ConfigError, RunConfig
from diffevo_jax.runs.results import folder as results


def draw(folder: Path) -> list[Path]:
    """Draw figure.png and figure.pdf into a run folder: median and quartiles of each method.

    Quantiles are over all individuals and repeats. Raises ConfigError when the folder holds no
    results.
    """
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot, whose backend is the caller's
    from matplotlib.ticker import MaxNLocator

    config, arrays = results.load(folder)
    settings = config.figure
    drawn = {name: quartiles(saved["fitness"]) for name, saved in arrays.items()}
    look = looks(drawn)
    marks = [mark for mark in (settings.maximum, *(settings.ticks or ())) if mark is not None]
    # A log axis would leave out, without a word, what is not positive.
    log = settings.log and all(
        not np.any(shown <= 0) for shown in (*drawn.values(), np.array(marks))
    )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.subplots()
        labels = [config.methods[name].label for name in drawn]
        x = [np.arange(1, shown.shape[1] + 1) for shown in drawn.values()]
        curves(axes, x, list(drawn.values()), [look[name] for name in drawn], labels)
        if settings.maximum is not None:
            axes.axhline(settings.maximum, color=GREY, linestyle="--", linewidth=1, zorder=0)
            axes.annotate(
                f"maximum {settings.maximum:g}",
                (1, settings.maximum),
                textcoords="offset points",
                xytext=(0, 4),
                color=GREY,
                fontsize=9,
            )
        if log:
            axes.set_yscale("log")
        if settings.ticks is not None and log == settings.log:
            axes.set_yticks(settings.ticks, [f"{tick:g}" for tick in settings.ticks])
            axes.minorticks_off()
        low, high = axes.get_ylim()
        room = 1.15 if log else 1
        axes.set_ylim(low, high * room)  # the label above the maximum needs it on a log axis
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("generation")
        axes.set_ylabel(settings.ylabel or _measure(config))
        axes.legend(frameon=False, fontsize=9)
        paths = [folder / "figure.png", folder / "figure.pdf"]
        try:
            for path in paths:
                figure.savefig(path, dpi=200)
        except ValueError as error:  # mathtext in a label that does not parse
            raise ConfigError(f"{folder}: figure: {str(error).strip()}") from None
    return paths


def curves(
    axes: Any,
    x: Sequence[np.ndarray],
    shown: Sequence[np.ndarray],
    look: Sequence[Look],
    labels: Sequence[str],
) -> None:
    """Draw a median and the band of its quartiles for each method: x `[T]`, shown of `quartiles`.

    Few generations are marked, by the methods in turn, so that no mark hides another.
    """
    marked = all(len(each) <= 30 for each in x)
    for i, (generations, (low, median, high)) in enumerate(zip(x, shown, strict=True)):
        colour, marker = look[i].colour, look[i].marker if marked else ""
        axes.fill_between(generations, low, high, color=colour, alpha=0.2, linewidth=0)
        turn = (i % len(generations), len(x))
        axes.plot(
            generations, median, color=colour, marker=marker, markevery=turn, ms=5, label=labels[i]
        )


def _measure(config: RunConfig) -> str:
    """What the fitness of all methods is called."""
    named = {registry.measure(method.problem) for method in config.methods.values()}
    return named.pop() if len(named) == 1 else "fitness"


def quartiles(fitness: np.ndarray) -> np.ndarray:
    """25 %, 50 % and 75 % quantile of each generation, `[S, T, N]` to `[3, T]`."""
    per_generation = np.moveaxis(fitness, 1, 0).reshape(fitness.shape[1], -1)
    valid = np.where(np.isfinite(per_generation), per_generation, np.nan)
    return np.nanquantile(valid, [0.25, 0.5, 0.75], axis=1)
