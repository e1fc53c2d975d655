"""A champion at work: what it earns over fresh episodes, a record of them, a picture."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import diffevo_jax as de
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.config.schema import ConfigError
from diffevo_jax.runs.results.champion import SavedChampion
from diffevo_jax.runs.results.fields import mean_and_error
from diffevo_jax.runs.results.files import write_arrays


def rollout(
    champion: SavedChampion,
    episodes: int,
    seed: int,
    *,
    record: Path | None = None,
    draw: Path | None = None,
    shown: int = 1,
) -> Iterator[str]:
    """Evaluate a champion; yields lines for the user.

    record: where the first episodes go as arrays, NAME.npz. draw: where they are drawn, NAME.gif,
    .mp4, or .html of Brax. shown: how many of them.

    Raises ConfigError on another ending, before anything is rolled out.
    """
    for path, endings in ((record, (".npz",)), (draw, (".gif", ".mp4", ".html"))):
        if path is not None and path.suffix not in endings:
            raise ConfigError(f"{path}: expected a name that ends in {', '.join(endings)}")
    task, policy, genome = champion.task, champion.policy, champion.genome[None]
    statistics = () if champion.statistics is None else (champion.statistics,)
    evaluate = de.tasks.make_outcomes(task, policy, num_episodes=episodes)
    outcome = jax.jit(evaluate)(jax.random.key(seed), genome, *statistics)
    title = registry.title(champion.problem)
    yield f"{title}: {champion.method}, repeat {champion.repeat}, {genome.shape[1]} genes"
    returns = np.asarray(outcome.returns[0], np.float64)
    yield f"return    {_shown(returns)} over {episodes} fresh episode{'s'[: episodes > 1]}"
    yield f"range     {returns.min():.4g} to {returns.max():.4g}"
    yield f"steps     {_shown(np.asarray(outcome.length[0], np.float64))} an episode"
    success = champion.problem.get("success")
    if isinstance(success, int | float):
        yield f"success   {_shown(100 * (returns >= success))} % of a return of {success:g}"
    if record is None and draw is None:
        return
    trajectories = jax.jit(de.tasks.make_trajectories(task, policy, num_episodes=shown))
    whole = trajectories(jax.random.key(seed), genome, jnp.arange(1), *statistics)
    if record is not None:
        record.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(record, _arrays(whole))
        yield str(record)
    if draw is not None:
        yield str(de.drawings.animate_episodes(draw, task, {title: whole}))


def _shown(values: np.ndarray) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:.4g}" if error is None else f"{mean:.4g} ± {error:.2g}"


def _arrays(whole: de.tasks.Trajectory) -> dict[str, np.ndarray]:
    """Arrays of the episodes, `[E, ...]`; those of the states by their places in it."""
    fields = {name: value for name, value in whole._asdict().items() if name != "states"}
    leaves = jax.tree_util.tree_leaves_with_path(whole.states)
    fields |= {f"state{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}
    return {name: np.asarray(value)[0] for name, value in fields.items()}
