"""Pictures of Fig. 4: carts and poles, rewards, latent spaces, and the two animations."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

import diffevo_jax as de
from diffevo_jax.drawings.style import GREY, PALE
from diffevo_jax.runs.results.loading import quartiles
from experiments.files import WIDTH, in_style, save_figure, write_caption
from experiments.looks import METHODS

EPISODE = ("observations", "actions", "rewards", "length")  # fields kept of a Trajectory

CART = METHODS["latent"].colour  # whose run is shown
REWARD = LinearSegmentedColormap.from_list("reward", ["#F3DCCB", "#E99A5B", CART])
TILT = 2.4  # the published exaggeration of the pole's angle
FULL = 500


def cart(axes: Any, x: float, y: float, angle: float, *, size=1.0, colour=CART, alpha=1.0, z=3):
    """Draw a cart on its wheels whose base is at (x, y), with its pole at `angle` from upright."""
    width, height, wheel = 0.5 * size, 0.2 * size, 0.07 * size
    top = y + wheel + height
    tip = (x + 0.85 * size * np.sin(angle), top + 0.85 * size * np.cos(angle))
    axes.plot([x, tip[0]], [top, tip[1]], color=colour, alpha=alpha, linewidth=1.5 * size**0.5,
              solid_capstyle="round", zorder=z)  # fmt: skip
    body = Rectangle((x - width / 2, y + wheel), width, height, color=colour, alpha=alpha, lw=0,
                         zorder=z + 0.1)  # fmt: skip
    axes.add_patch(body)
    for side in (-1, 1):
        axes.add_patch(Circle((x + side * width / 3.2, y + wheel), wheel, color="#444444",
                                  alpha=alpha, lw=0, zorder=z + 0.2))  # fmt: skip


@in_style
def process(saved: dict[str, np.ndarray], path: Path) -> Path:
    """Fig. 4a: where the individuals of five generations are when their episode ends."""
    generations, bin_steps, row_height = (2, 4, 6, 8, 10), 25, 1.75
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    axes = figure.subplots()
    for row, generation in enumerate(generations):
        y = -row * row_height
        length, reward = saved["length"][generation - 1], saved["reward"][generation - 1]
        x, theta = saved["x"][generation - 1], saved["theta"][generation - 1]
        axes.plot([0, FULL / bin_steps + 0.4], [y, y], color=PALE, linewidth=0.8, zorder=0)
        slot = np.round(length / bin_steps).astype(int)
        for where in np.unique(slot):
            members = np.flatnonzero(slot == where)
            for i in members[:5]:
                cart(axes, where + 0.12 * x[i], y, TILT * theta[i], size=0.8,
                     colour=REWARD(reward[i] / FULL), alpha=0.55)  # fmt: skip
            axes.text(
                where, y - 0.1, str(len(members)), ha="center", va="top", fontsize=7, color=GREY
            )
    axes.set_yticks([-row * row_height + 0.4 for row in range(5)], [str(g) for g in generations])
    steps = np.arange(0, FULL + 1, 100)
    axes.set_xticks(steps / bin_steps, [str(step) for step in steps])
    axes.set(xlabel="time step at which the episode ends", ylabel="generation", aspect="equal")
    axes.set(xlim=(-0.6, FULL / bin_steps + 0.8), ylim=(-4 * row_height - 0.45, 1.3))
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)
    scale = ScalarMappable(Normalize(0, FULL), REWARD)
    figure.colorbar(scale, ax=axes, label="reward", shrink=0.6, aspect=14, pad=0.01)
    return save_figure(
        figure,
        path,
        "(a) One run of latent Diffusion Evolution: final state of the individuals of five "
        "generations, at the time step where their episode ends, in steps of 25. Carts are shifted "
        f"by their position, poles tilted by {TILT} times their angle; at most five carts stand "
        "at a place, the number below counts all.",
    )


@in_style
def comparison(saved: dict[str, dict[str, np.ndarray]], path: Path) -> Path:
    """Fig. 4b to 4d: reward by generation, the last populations projected, the system."""
    names = ("raw", "latent", "latent_large", "cmaes")
    figure = Figure(figsize=(WIDTH, 2.75), layout="constrained")
    parts = figure.add_gridspec(2, 4, width_ratios=(2.2, 0.9, 0.9, 1.7))
    rewards, system = figure.add_subplot(parts[:, 0]), figure.add_subplot(parts[:, 3])
    for i, name in enumerate(names):
        look = METHODS[name]
        low, median, high = quartiles(saved[name]["fitness"])
        # Side by side: bands of four methods over each other would hide one another.
        generations = np.arange(1, len(median) + 1) + 0.2 * (i - 1.5)
        bars = np.stack([median - low, high - median])
        rewards.errorbar(generations, median, bars, color=look.colour, marker=look.marker, ms=2.8,
                         mew=0, lw=0.9, elinewidth=0.8, label=look.label)  # fmt: skip
    rewards.axhline(FULL, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
    rewards.set(yscale="log", xlabel="generation", ylabel="reward", ylim=(7, 650))
    rewards.set_yticks([10, 30, 100, 300, 500], ["10", "30", "100", "300", "500"])
    rewards.minorticks_off()
    rewards.set_xticks(range(1, 11))
    figure.legend(*rewards.get_legend_handles_labels(), loc="outside upper center", ncols=2)

    # One projection for all of 58 genes; the large network has other genes, and its own.
    common = saved["latent"]["projection"]
    for i, name in enumerate(names):
        latents = figure.add_subplot(parts[i // 2, 1 + i % 2])
        own = saved[name]["projection"] if name == "latent_large" else common
        z = np.asarray(
            de.latent.project(saved[name]["final_population"][0], jax.numpy.asarray(own))
        )
        latents.scatter(*z.T, s=2, color=METHODS[name].colour, linewidth=0)
        latents.tick_params(labelsize=7)
        latents.set(aspect="equal", adjustable="datalim")
        latents.locator_params(nbins=3)
        if i % 2 == 0:
            latents.set_ylabel("$z_2$")
        if i // 2:
            latents.set_xlabel("$z_1$")
        if i == 0:
            latents.set_title("(c)", loc="left")

    _system(system)
    for axes, letter in ((rewards, "b"), (system, "d")):
        axes.set_title(f"({letter})", loc="left")
    return save_figure(
        figure,
        path,
        "(b) Reward by generation: median and quartiles over all individuals and repeats, methods "
        "side by side; dashed: the maximum, 500. (c) Last populations of the first repeat, a panel "
        "and colour a method, 58 genes under one common random projection to the plane, 17,410 "
        "genes under their own. (d) The system: a cart is pushed left or right so that its pole "
        "stays up.",
    )


def _system(axes: Any) -> None:
    """Draw the cart-pole system with faint other poses."""
    for x, angle in ((-1.6, -0.30), (1.65, 0.26)):
        cart(axes, x, 0, angle, size=1.7, colour="#BBBBBB", alpha=0.4)
    cart(axes, 0, 0, 0.12, size=1.9, colour=CART)
    axes.plot([0, 0], [0.6, 2.35], linestyle=":", color=GREY, linewidth=0.9, zorder=1)
    axes.annotate(r"$\theta$", (0.02, 2.35), ha="left", va="bottom", fontsize=10)
    for side, word in ((-1, "left"), (1, "right")):
        axes.annotate(
            "",
            (side * 1.15, 0.33),
            (side * 0.58, 0.33),
            arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1.2},
        )
        axes.text(side * 0.9, 0.45, word, ha="center", va="bottom", fontsize=8)
    axes.axhline(0, color="black", linewidth=0.9, zorder=0)
    axes.set(xlim=(-3, 3), ylim=(-0.05, 2.9), aspect="equal", xlabel="$x$", yticks=[])
    axes.set_xticks(range(-3, 4))
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def best(saved: dict[str, np.ndarray], path: Path) -> Path:
    """Animate the fittest individual of the last generation, in real time."""
    episode = _trajectory(saved, -1, slice(-1, None))
    de.drawings.animate_episodes(path, _task(), episode, colour=CART)
    length = int(episode.length.item())
    write_caption(
        path,
        f"The best policy of the last generation, in real time: its episode of {length} steps.",
    )
    return path


def population(saved: dict[str, np.ndarray], path: Path) -> Path:
    """Animate the same number of individuals of four generations; the fallen turn pale."""
    panels = {
        f"generation {number}": _trajectory(saved, number - 1, slice(-1))
        for number in (2, 7, 8, 10)
    }
    de.drawings.animate_episodes(path, _task(), panels, colour=CART)
    count = saved["episode_length"].shape[1] - 1
    write_caption(
        path,
        f"{count} individuals of four generations, in real time; those whose episode has ended "
        "turn pale.",
    )
    return path


def _task() -> Any:
    return de.tasks.make_task("CartPole-v1")


def _trajectory(saved: dict[str, np.ndarray], generation: int, which: slice) -> Any:
    """Some of the episodes that were recorded of a generation."""
    shown = {
        field: jax.numpy.asarray(saved[f"episode_{field}"][generation, which]) for field in EPISODE
    }
    return de.tasks.Trajectory(**shown)
