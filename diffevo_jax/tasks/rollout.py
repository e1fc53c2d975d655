"""Roll-outs at speed: lanes that take the next individual when theirs has ended.

L lanes step together as one batch, the lanes as the minor axis, so that a step is a handful of
vector operations however small the network. When half of them have ended, the free lanes take the
next individuals; when none waits, the last ones may go on in fewer lanes. No step is spent waiting
for the longest episode of a fixed chunk.

What a lane computes depends on its individual alone: lanes change the time, not the results.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.batch import individual_keys
from diffevo_jax.environments import Transition


class Episodes(NamedTuple):
    """What an environment and its policies are to the lanes.

    reset: key -> (observation, state) of one episode.
    step: (key, state, outputs `[A]`) -> Transition.
    memory: what a policy carries from step to step, as an episode begins; () for nothing.
    load: genomes `[L, D]` -> weights, in the layout that `apply` reads.
    apply: (weights, memory `[..., E, L]`, observations `[..., E, L]`) -> (memory,
        outputs `[A, E, L]`).
    max_steps: steps after which an episode is cut off.
    """

    reset: Callable[[jax.Array], tuple[jax.Array, Any]]
    step: Callable[[jax.Array, Any, jax.Array], Transition]
    memory: Any
    load: Callable[[jax.Array], Any]
    apply: Callable[[Any, Any, jax.Array], tuple[Any, jax.Array]]
    max_steps: int


class Lanes(NamedTuple):
    """Episodes under way; E and L are the last axes of all but `individual`, `[L]`.

    individual: its index; N in a lane that has none. memory: the policy's.
    started: the clock as the episode began. length: steps that it has taken, once it has ended.
    terminated: whether the environment's own rule has ended it; () where this is not asked for.
    moments: of the observations acted on, their mean and the sum of their squared differences from
        it; () where they are not gathered.
    """

    individual: jax.Array
    key: jax.Array
    started: jax.Array
    observation: jax.Array
    state: Any
    memory: Any
    total: jax.Array
    length: jax.Array
    ended: jax.Array
    terminated: Any
    moments: Any


def rollout(
    episodes: Episodes,
    keys: jax.Array,
    population: jax.Array,
    *,
    lanes: int,
    narrower: Sequence[int] = (),
    steps: int = 1,
    gather: bool = False,
    goal: bool = False,
    read: Callable[[Lanes], Any],
) -> Any:
    """Roll out every individual for every episode, and read the results off the lanes.

    keys: one for each episode, `[N, E]`. population: `[N, D]`.
    lanes: L, at most N. narrower: numbers of lanes for the last individuals, ever fewer.
    steps: steps between two counts of the running lanes, for which an accelerator's host waits.
    gather: whether lanes have the moments of their observations. goal: whether they have how their
        episodes ended, which costs a tenth of the fastest tasks.
    read: ended lanes -> pytree of `[..., E, L]`; returned as a pytree of `[N, E, ...]`.
    """
    num_individuals = len(population)
    # All episodes' starts at once, so that a lane only picks up the next one: drawing random
    # numbers in the loop took longer than the first steps of an untrained population.
    key_reset, key_steps = jnp.moveaxis(jax.vmap(jax.vmap(jax.random.split))(keys), -1, 0)
    starts = (key_steps.T, *over_lanes(episodes.reset)(key_reset.T))

    def place(individual: jax.Array) -> jax.Array:
        return jnp.minimum(individual, num_individuals - 1)

    def begin(individual: jax.Array, clock: jax.Array) -> Lanes:
        places = place(individual)
        key, observation, state = jax.tree.map(lambda x: x[..., places], starts)
        zeros = jnp.zeros(key.shape)
        return Lanes(
            individual=individual,
            key=key,
            started=jnp.broadcast_to(clock, zeros.shape),
            observation=observation,
            state=state,
            memory=jax.tree.map(
                lambda x: jnp.broadcast_to(x[..., None, None], (*x.shape, *zeros.shape)),
                episodes.memory,
            ),
            total=zeros,
            length=zeros.astype(jnp.int32),
            ended=jnp.broadcast_to(individual >= num_individuals, zeros.shape),
            terminated=jnp.zeros(zeros.shape, bool) if goal else (),
            moments=(jnp.zeros_like(observation), jnp.zeros_like(observation)) if gather else (),
        )

    def step(lane: Lanes, weights: Any, clock: jax.Array) -> Lanes:
        memory, outputs = episodes.apply(weights, lane.memory, lane.observation)
        key = jax.vmap(jax.vmap(jax.random.fold_in))(lane.key, clock - lane.started)
        new = over_lanes(episodes.step)(key, lane.state, outputs)
        taken = clock + 1 - lane.started

        def running(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(lane.ended, old, new)

        moments = lane.moments
        if gather:  # Welford's update
            mean, squares = moments
            after = mean + (lane.observation - mean) / taken
            both = (lane.observation - mean) * (lane.observation - after)
            moments = running(after, mean), running(squares + both, squares)
        return lane._replace(
            observation=new.observation,
            state=jax.tree.map(running, new.state, lane.state),
            memory=memory,
            total=lane.total + jnp.where(lane.ended, 0, new.reward),
            length=running(taken, lane.length),
            ended=lane.ended | new.terminated | new.truncated | (taken >= episodes.max_steps),
            terminated=running(new.terminated, lane.terminated) if goal else (),
            moments=moments,
        )

    def run(lane: Lanes, clock: jax.Array, until: jax.Array | int) -> tuple[Lanes, jax.Array]:
        """Step until at most `until` lanes are running."""
        weights = episodes.load(population[place(lane.individual)])

        def one(carry):
            lane, clock = carry
            return step(lane, weights, clock), clock + 1

        def several(carry):
            return jax.lax.fori_loop(0, steps, lambda _, carry: one(carry), carry)

        return jax.lax.while_loop(
            lambda carry: jnp.sum(~jnp.all(carry[0].ended, axis=0)) > until,
            one if steps == 1 else several,
            (lane, clock),
        )

    def write(results: Any, lane: Lanes) -> Any:
        def set_rows(result: jax.Array, rows: jax.Array) -> jax.Array:
            rows = jnp.moveaxis(rows, (-1, -2), (0, 1))
            return result.at[lane.individual].set(rows, mode="drop")

        return jax.tree.map(set_rows, results, read(lane))

    def blank(shape: tuple[int, ...], dtype: Any) -> jax.Array:
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):  # of an environment that keeps one
            return jnp.broadcast_to(keys[0, 0], shape)
        return jnp.zeros(shape, dtype)

    def refill(carry):
        lane, clock, waiting, results = carry
        results = write(results, lane)
        free = jnp.all(lane.ended, axis=0)
        next_ones = jnp.minimum(waiting + jnp.cumsum(free) - 1, num_individuals)
        lane = jax.tree.map(
            lambda new, old: jnp.where(free, new, old),
            begin(jnp.where(free, next_ones, lane.individual), clock),
            lane,
        )
        waiting = jnp.minimum(waiting + jnp.sum(free), num_individuals).astype(jnp.int32)
        until = jnp.where(waiting < num_individuals, lanes // 2, last)
        return *run(lane, clock, until), waiting, results

    last, *fewer = *narrower, 0
    absent = jnp.full(lanes, num_individuals)
    like = jax.eval_shape(begin, absent, jnp.int32(0))
    lane = jax.tree.map(lambda x: blank(x.shape, x.dtype), like)
    lane = lane._replace(individual=absent, ended=jnp.ones_like(lane.ended))
    results = jax.tree.map(
        lambda x: blank((num_individuals, x.shape[-2], *x.shape[:-2]), x.dtype), read(lane)
    )
    lane, clock, _, results = jax.lax.while_loop(
        lambda carry: carry[2] < num_individuals,
        refill,
        (lane, jnp.int32(0), jnp.int32(0), results),
    )
    results = write(results, lane)
    for now, until in zip(narrower, fewer, strict=True):
        slowest = jnp.argsort(jnp.all(lane.ended, axis=0), stable=True)[:now]
        lane = jax.tree.map(partial(jnp.take, indices=slowest, axis=-1), lane)
        lane, clock = run(lane, clock, until)
        results = write(results, lane)
    return results


def episode_keys(key: jax.Array, num_individuals: int, num_episodes: int) -> jax.Array:
    """Split keys `[N, E]`: an individual's depend on its index and N, not on the others.

    key: one key, or one for each individual, `[N]`.
    """
    keys = individual_keys(key, num_individuals)
    return jax.vmap(lambda key: jax.random.split(key, num_episodes))(keys)


def over_lanes(function: Callable) -> Callable:
    """Map over episodes and lanes, the last two axes of every argument and result."""
    return jax.vmap(jax.vmap(function, -1, -1), -1, -1)
