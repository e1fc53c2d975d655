"""The picture of a search: progress, its best evaluations, which parameters matter, slices."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffevo_jax.checks import InputError
from diffevo_jax.drawings import movie
from diffevo_jax.drawings.style import FINAL, GREY, PALE, STYLE, X0, X

MOST_PARAMETERS = 40  # beyond, those that matter most are drawn
MOST_BEST = 20  # evaluations that are drawn strong
MOST_LINES, MOST_DOTS = 200, 2000  # pale ones
INTERVALS, NEAREST = 24, 2  # of each side, and how many in each are near the best
MISSING = -0.18  # where a parameter without a value is drawn; the others are in [0, 1]
DECADES = 100  # costs whose largest is so many times the smallest get a logarithmic scale
# Of the forest: evaluations that it learns from, folds, trees, permutations of each parameter.
MOST_LEARNT, FOLDS, TREES, PERMUTATIONS = 1000, 5, 50, 3


class Side(NamedTuple):
    """A parameter as a side of the drawn box.

    name: as it is shown. place: of each evaluation, `[M]`, in [0, 1]; NaN where it has no value.
    ticks: places in [0, 1] and their labels.
    """

    name: str
    place: np.ndarray
    ticks: list[tuple[float, str]]


class Importance(NamedTuple):
    """How much of the costs' order a forest loses without a parameter, `[D]`, and its error.

    explained: R2 of the held-out evaluations, of the costs' ranks. reason: why there is none.
    """

    mean: np.ndarray
    error: np.ndarray
    explained: float
    reason: str = ""


def draw_search(
    parameters: Mapping[str, np.ndarray],
    costs: Any,
    *,
    feasible: Any = True,
    label: str = "cost",
    highest: bool = False,
    path: str | Path | None = None,
) -> Any:
    """Draw a search as four panels; returns matplotlib's figure, and saves it to a path.

    parameters: a column `[M]` each, numbers or text; NaN or None where one has no value.
    costs: `[M]`, in the order of evaluation; NaN for failures. highest: the best is the highest.
    feasible: `[M]`, bool; the others are drawn, but nothing is said of them.
    path: NAME.png, .pdf or .svg.

    Raises InputError where no evaluation has a cost, or on another ending of the path.
    """
    matplotlib = movie.matplotlib()
    path = None if path is None else Path(path)
    if path is not None and path.suffix not in (".png", ".pdf", ".svg"):
        raise InputError("path", "NAME.png, NAME.pdf or NAME.svg", path)
    costs = np.asarray(costs, float)
    costs = np.where(np.isfinite(costs), costs, np.nan)
    if not np.isfinite(costs).any():
        raise InputError("costs", "at least one number", f"none in {len(costs)}")
    known = np.where(feasible, costs, np.nan)
    order = np.argsort(-known if highest else known, kind="stable")[
        : np.isfinite(known).sum()
    ]  # NaN is last
    sides = [_side(name, np.asarray(values)) for name, values in parameters.items()]
    importance = _importance(sides, order)
    ranked = np.argsort(-importance.mean, kind="stable")[:MOST_PARAMETERS]
    shown = [sides[i] for i in sorted(ranked)]
    across = min(len(shown), 6 if len(shown) <= 24 else 8)
    down = math.ceil(len(shown) / across)
    tall = len(shown) > 12  # the bars stand beside two panels
    heights = [2.9, 2.9, (2.2 if down == 1 else 1.6) * down]
    with matplotlib.rc_context({**STYLE, "font.size": 10, "axes.titlesize": 11}):
        figure = matplotlib.figure.Figure(figsize=(11, sum(heights)), layout="constrained")
        grid = figure.add_gridspec(3, 3, height_ratios=heights)
        _progress(figure.add_subplot(grid[0, :2]), costs, order, label, highest)
        bars = figure.add_subplot(grid[:2, 2] if tall else grid[0, 2])
        _bars(bars, [sides[i] for i in ranked], importance, ranked, len(sides))
        lines = figure.add_subplot(grid[1, :2] if tall else grid[1, :])
        _parallel(lines, shown, np.flatnonzero(np.isfinite(costs)), order)
        panels = figure.add_subfigure(grid[2, :])
        title = f"{label}; blue where the other parameters are like the best's"
        title = title if len(order) else label
        panels.suptitle(title, x=0.01, ha="left", fontsize=11)
        _slices(panels, panels.add_gridspec(down, across), shown, costs, order, label)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=150)
    return figure


# Parameters


def _side(name: str, values: np.ndarray) -> Side:
    name = (name if len(name) <= 24 else f"{name[:10]}…{name[-13:]}").replace("$", r"\$")
    if values.dtype.kind not in "iuf":
        return _categories(name, values)
    values = values.astype(float)
    known = values[np.isfinite(values)]
    if not len(known):
        return Side(name, np.full(len(values), np.nan), [])
    low, high = float(known.min()), float(known.max())
    first = known[: max(10, len(known) // 5)]  # before the search has narrowed
    logarithmic = low > 0 and high > 100 * low and _is_even_in_logarithm(first)

    def place(x: Any) -> Any:
        if low == high:
            return 0.5 + 0.0 * x
        if logarithmic:
            return np.log(x / low) / np.log(high / low)
        return (x - low) / (high - low)

    whole = bool((known % 1 == 0).all())
    ticks = [(float(place(x)), text) for x, text in _ticks(low, high, logarithmic, whole)]
    return Side(name, place(np.where(np.isfinite(values), values, np.nan)), ticks)


def _categories(name: str, values: np.ndarray) -> Side:
    """Place categories evenly, in the order of their names."""
    known = [None if each is None or each != each else str(each) for each in values.tolist()]
    names = sorted({each for each in known if each is not None})
    places = np.linspace(0, 1, len(names)) if len(names) > 1 else [0.5]
    place = dict(zip(names, map(float, places), strict=False))
    ticks = [(at, each[:12].replace("$", r"\$")) for each, at in place.items()]
    found = [math.nan if each is None else place[each] for each in known]
    return Side(name, np.array(found, float), ticks)


def _is_even_in_logarithm(values: np.ndarray) -> bool:
    """Whether the middle one is nearer to the geometric middle of its range."""
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    if low == high:
        return False
    even = abs((middle - low) / (high - low) - 0.5)
    return bool(abs(np.log(middle / low) / np.log(high / low) - 0.5) < even)


def _ticks(low: float, high: float, logarithmic: bool, whole: bool) -> list[tuple[float, str]]:
    """Choose two or three round numbers in a range."""
    from matplotlib.ticker import MaxNLocator

    if low == high:
        return [(low, f"{low:.4g}")]
    if logarithmic:
        powers = np.arange(math.ceil(np.log10(low)), math.floor(np.log10(high)) + 1)
        step = max(1, math.ceil(len(powers) / 3))
        return [(10.0**p, f"$10^{{{p}}}$") for p in powers[::step]]
    marks = MaxNLocator(3, integer=whole).tick_values(low, high)
    marks = [x for x in marks if low <= x <= high]
    return [(float(x), f"{x:.4g}") for x in marks]


# What matters


def _importance(sides: list[Side], order: np.ndarray) -> Importance:
    """Shuffle each parameter among evaluations that a random forest has not seen.

    Of ranks in place of costs, which know no unit and no outliers. The error is over the folds.
    """
    count = len(order)
    nothing = np.zeros(len(sides)), np.zeros(len(sides)), math.nan
    if count < 4 * FOLDS:
        return Importance(*nothing, f"fewer than {4 * FOLDS} evaluations\nto learn from")
    try:
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.inspection import permutation_importance
        from sklearn.model_selection import KFold
    except ModuleNotFoundError:
        return Importance(*nothing, 'needs scikit-learn:\npip install "diffevo-jax[plots]"')
    rows = np.sort(order)[np.linspace(0, count - 1, min(count, MOST_LEARNT)).astype(int)]
    ranks = np.empty(order.max() + 1)
    ranks[order] = np.linspace(0, 1, count)
    x = np.stack([side.place for side in sides], axis=1)[rows]
    y = ranks[rows]
    losses, explained = [], []
    for learnt, held_out in KFold(FOLDS, shuffle=True, random_state=0).split(x):
        forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=0)
        forest.fit(x[learnt], y[learnt])
        explained.append(forest.score(x[held_out], y[held_out]))
        found: Any = permutation_importance(
            forest, x[held_out], y[held_out], n_repeats=PERMUTATIONS, random_state=0
        )
        losses.append(found.importances_mean)
    error = np.std(losses, axis=0, ddof=1) / math.sqrt(FOLDS)
    return Importance(np.mean(losses, axis=0), error, float(np.mean(explained)))


# Panels


def _progress(axes: Any, costs: np.ndarray, order: np.ndarray, label: str, highest: bool) -> None:
    number = np.arange(1, len(costs) + 1)
    known = np.full(len(costs), np.nan)
    known[order] = costs[order]
    best = (np.fmax if highest else np.fmin).accumulate(known)
    failed = np.isnan(costs)
    infeasible = np.isnan(known) & ~failed
    size, alpha = np.clip(np.array([60, 20]) / math.sqrt(len(costs)), [2.5, 0.1], [5, 0.5])
    dots = {"color": X, "ms": size, "alpha": alpha, "mew": 0, "rasterized": True}
    if len(order):
        axes.plot(number, known, "o", label="evaluation", **dots)
        axes.step(number, best, where="post", color=FINAL, linewidth=1.5, label="best so far")
    if infeasible.any():
        name = f"infeasible ({infeasible.sum()})"
        hollow = {**dots, "color": GREY, "mfc": "none", "mew": 0.6, "zorder": 1}
        axes.plot(number[infeasible], costs[infeasible], "o", label=name, **hollow)
    if failed.any():
        low, bottom = np.full(failed.sum(), 0.015), axes.get_xaxis_transform()
        name = f"failed ({failed.sum()})"
        axes.plot(number[failed], low, "x", color=X0, ms=4, mew=0.8, transform=bottom, label=name)
    _set_scale(axes, costs)
    axes.set_xlim(0, len(costs) + 1)
    axes.set(xlabel="evaluation", ylabel=label)
    title = "no point satisfies all constraints"
    if len(order):
        title = f"best {label} {costs[order[0]]:.5g} at evaluation {order[0] + 1}"
    axes.set_title(title, loc="left")
    place = {"loc": "lower right", "bbox_to_anchor": (1, 0.98)}
    for handle in axes.legend(frameon=False, fontsize=8, ncols=4, **place).legend_handles:
        handle.set_alpha(1)


def _set_scale(axes: Any, costs: np.ndarray) -> None:
    """Scale costs that span decades by their logarithm, also where some are 0 or negative."""
    costs = costs[np.isfinite(costs)]
    sizes = np.abs(costs[costs != 0])
    if not len(sizes):
        return
    of_one_sign = costs.min() >= 0 or costs.max() <= 0
    least = max(sizes.min(), 1e-12 * sizes.max()) if of_one_sign else np.median(sizes)
    if sizes.max() <= DECADES * least:
        return
    if costs.min() > 0:
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=least)


def _bars(
    axes: Any, sides: list[Side], importance: Importance, ranked: np.ndarray, count: int
) -> None:
    """Draw the importance of parameters, the most important on top."""
    axes.set_title("what matters", loc="left")
    if importance.reason:
        axes.set_axis_off()
        axes.text(0.5, 0.5, importance.reason, ha="center", va="center", color=GREY)
        return
    y = np.arange(len(sides))
    axes.barh(y, importance.mean[ranked], xerr=importance.error[ranked], color=X, ecolor=FINAL)
    axes.set_yticks(y, [side.name for side in sides], fontsize=8 if len(sides) < 30 else 7)
    axes.set_ylim(max(len(sides), 6) - 0.5, -0.6)
    axes.axvline(0, color=FINAL, linewidth=0.8)
    axes.set_xlabel(f"loss of R² when shuffled; R² is {importance.explained:.2f}", fontsize=9)
    if count > len(sides):
        axes.set_title(f"what matters, {len(sides)} of {count}", loc="left")


def _parallel(axes: Any, sides: list[Side], rows: np.ndarray, order: np.ndarray) -> None:
    """Draw a line an evaluation across all parameters: a sample of them pale, the best strong."""
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import withStroke

    x = np.arange(len(sides)) if len(sides) > 1 else np.array([-0.2, 0.2])
    places = np.stack([side.place for side in sides], axis=1)
    places = np.where(np.isnan(places), MISSING, places)
    if len(sides) == 1:
        places = np.repeat(places, 2, axis=1)

    def draw(rows: np.ndarray, **look: Any) -> None:
        lines = [np.stack([x, places[row]], axis=1) for row in rows]
        axes.add_collection(LineCollection(lines, **look))

    best = order[: max(3, min(MOST_BEST, len(order) // 10))]
    draw(_thinned(rows, MOST_LINES), colors=PALE, linewidths=0.6, zorder=1)
    draw(best[:0:-1], colors=X, linewidths=1.0, alpha=0.6, zorder=3)
    draw(best[:1], colors=X0, linewidths=2.0, zorder=4)
    outline = [withStroke(linewidth=2, foreground="white")]
    small = {"fontsize": 7, "color": GREY, "va": "center", "path_effects": outline, "zorder": 5}
    for i, side in enumerate(sides):
        axes.axvline(i, color=GREY, linewidth=0.6, zorder=2)
        for place, text in side.ticks if len(sides) <= 12 else []:
            axes.annotate(text, (i, place), xytext=(3, 0), textcoords="offset points", **small)
    crowded = len(sides) > 12 or max(len(side.name) for side in sides) > 90 // len(sides)
    axes.set_xticks(
        np.arange(len(sides)),
        [side.name for side in sides],
        fontsize=8,
        rotation=90 if len(sides) > 12 else 20 if crowded else 0,
    )
    missing = any(np.isnan(side.place).any() for side in sides)
    axes.set(xlim=(-0.3, len(sides) - 0.7), ylim=(MISSING - 0.05 if missing else -0.05, 1.05))
    axes.set_yticks([MISSING] if missing else [], ["none"] if missing else [], fontsize=8)
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    title = f"the best (red), the best {len(best)} (blue), and all" if len(best) else "all"
    axes.set_title(title, loc="left")


def _slices(
    figure: Any, grid: Any, sides: list[Side], costs: np.ndarray, order: np.ndarray, label: str
) -> None:
    """Draw costs against each parameter.

    Strong are, wherever on its side, those whose other parameters are nearest to the best's.
    """
    places = np.stack([side.place for side in sides], axis=1)
    places = np.where(np.isnan(places), MISSING, places)
    best, rows = order[:1], np.sort(order)
    infeasible = np.setdiff1d(np.flatnonzero(np.isfinite(costs)), rows)
    failed = np.flatnonzero(np.isnan(costs))
    distances = (places - places[best].sum(axis=0)) ** 2
    first = None
    for i, side in enumerate(sides):
        axes = figure.add_subplot(grid[divmod(i, grid.ncols)], sharey=first)
        if first is None:
            first = axes
            _set_scale(axes, costs)
        place = places[:, i]
        near = rows[_nearest(place[rows], distances[rows].sum(axis=1) - distances[rows, i])]
        sample = _thinned(rows, MOST_DOTS)
        axes.scatter(place[sample], costs[sample], s=4, color=PALE, linewidth=0, rasterized=True)
        if len(infeasible):
            some = _thinned(infeasible, MOST_DOTS)
            hollow = {"s": 5, "facecolor": "none", "edgecolor": GREY, "alpha": 0.4, "zorder": 0.9}
            axes.scatter(place[some], costs[some], rasterized=True, **hollow)
        axes.scatter(place[near], costs[near], s=9, color=X, linewidth=0, alpha=0.8)
        if len(failed):
            bottom = {"transform": axes.get_xaxis_transform(), "clip_on": False}
            axes.plot(place[failed], 0 * failed, "x", color=X0, ms=3, mew=0.6, **bottom)
        axes.scatter(place[best], costs[best], s=45, color=X0, marker="*", zorder=5)
        missing = bool(np.isnan(side.place).any())
        ticks = [*[(MISSING, "none")] * missing, *side.ticks]
        axes.set_xticks([place for place, _ in ticks], [text for _, text in ticks], fontsize=7)
        are_words = any(text[:1].isalpha() for _, text in side.ticks)
        if are_words and sum(len(text) + 1 for _, text in ticks) > 120 / grid.ncols:
            axes.tick_params(axis="x", labelrotation=25, pad=1)
        axes.set_xlim(MISSING - 0.08 if missing else -0.06, 1.06)
        axes.set_xlabel(side.name, fontsize=8, labelpad=1)
        axes.tick_params(axis="y", labelsize=7, labelleft=i % grid.ncols == 0)
        if i % grid.ncols == 0:
            axes.set_ylabel(label, fontsize=8)


def _thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """Take every so many of the rows, up to `most`."""
    return rows[:: max(1, math.ceil(len(rows) / most))]


def _nearest(place: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Choose the nearest few in each of the intervals of a side; returns their indices."""
    interval = np.floor(place * INTERVALS)
    rows = np.lexsort((distance, interval))
    _, start, count = np.unique(interval[rows], return_index=True, return_counts=True)
    rank = np.arange(len(rows)) - np.repeat(start, count)
    return rows[rank < NEAREST]
