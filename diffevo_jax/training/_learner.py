"""Networks that learn to denoise weighted genomes, and the buffer that these come from.

x = p x0 + q eps,   p^2 = alpha,   q^2 = 1 - alpha

A network sees x, the level and conditions, and is trained on the genomes of past generations, each
weighted by its fitness (Hartl et al., https://arxiv.org/abs/2411.13420). All of it is one compiled
program: epochs are a scan, and a buffer of fixed capacity has a mask.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from diffevo_jax import genome
from diffevo_jax.checks import Count, InputError, Number, Positive, check_count, check_number
from diffevo_jax.latent import project
from diffevo_jax.policies import MLP
from diffevo_jax.schedules import Schedule, check_schedule, cosine

Predicts = Literal["eps", "x0", "v", "flow"]
Weighting = Literal["resampled", "weighted"]
Leaves = Literal["oldest", "weakest"]

HIDDEN = (32, 32)
LEVELS = 100  # of the schedule that levels are drawn from, where none is given
HELD_OUT = 0.125  # share of the rows that the loss of an epoch is measured on
HELD_ROWS = 256  # noised rows that it is measured with
LAST_RATE = 1e-4  # of the learning rate, to which it falls as a cosine
DECAY = 1e-5  # decoupled, of the weights
BLOCK = 2**22  # numbers in memory where all pairs of rows are compared
DROPPED = 0.1  # share of the rows whose conditions are hidden in training


class Prediction(NamedTuple):
    """What a network predicts of x = p x0 + q eps, beside the best linear guess.

    target: (x0, eps, p, q) -> what it predicts. clean: (x, prediction, p, q) -> x0.
    linear: (p, q) -> factor of x that predicts best where x0 is N(0, I): the network adds to it.
    """

    target: Callable[..., jax.Array]
    clean: Callable[..., jax.Array]
    linear: Callable[..., jax.Array]


PREDICTIONS = {
    "eps": Prediction(
        lambda x0, eps, p, q: eps,
        lambda x, eps, p, q: (x - q * eps) / p,
        lambda p, q: q,
    ),
    "x0": Prediction(
        lambda x0, eps, p, q: x0,
        lambda x, x0, p, q: x0,
        lambda p, q: p,
    ),
    # Salimans and Ho, https://arxiv.org/abs/2202.00512
    "v": Prediction(
        lambda x0, eps, p, q: p * eps - q * x0,
        lambda x, v, p, q: p * x - q * v,
        lambda p, q: jnp.zeros_like(p),
    ),
    # Rectified flow, https://arxiv.org/abs/2209.03003: on its straight path from eps to x0, where
    # x / (p + q) is, the velocity.
    "flow": Prediction(
        lambda x0, eps, p, q: x0 - eps,
        lambda x, velocity, p, q: (x + q * velocity) / (p + q),
        lambda p, q: p - q,
    ),
}


class Buffer(NamedTuple):
    """Evaluated genomes, of fixed capacity M.

    genomes: `[M, D]`. fitness: `[M]`. conditions: what the genomes are conditioned on, `[M, C]`.
    filled: `[M]`, whether a row holds one.
    """

    genomes: jax.Array
    fitness: jax.Array
    conditions: jax.Array
    filled: jax.Array


class Trained(NamedTuple):
    """What training makes of a buffer.

    params: the network's, flat, `[P]`. centre, scale: of the genomes that it was trained on, `[D]`
        and `[]`. middle, spread: of their conditions, `[C]`.
    loss: of held-out genomes, at the best epoch, `[]`. diverged: whether the last epoch's was no
        number, `[]`; then the parameters are those that training began with.
    """

    params: jax.Array
    centre: jax.Array
    scale: jax.Array
    middle: jax.Array
    spread: jax.Array
    loss: jax.Array
    diverged: jax.Array


class Learner(NamedTuple):
    """A network and how it is trained, as pure functions.

    init: (key, genes D, conditions C) -> Trained, with a fresh network.
    fit: (key, start Trained, genomes `[M, D]`, conditions `[M, C]`, weight `[M]`, held_out `[M]`)
        -> Trained.
    clean: (Trained, x `[N, D]`, conditions `[N, C]` or None for none, alpha, one_minus_alpha) ->
        x0, `[N, D]`.
    levels: () -> the schedule whose levels it is trained at.
    """

    init: Callable[..., Trained]
    fit: Callable[..., Trained]
    clean: Callable[..., jax.Array]
    levels: Callable[[], Schedule]


def learner(
    module: nn.Module | None = None,
    *,
    hidden: Sequence[Count] | None = None,
    predicts: Predicts = "v",
    weighting: Weighting = "resampled",
    schedule: Schedule | None = None,
    epochs: Count = 100,
    batch_size: Count = 128,
    learning_rate: Positive = 1e-2,
) -> Learner:
    """Configure a network that denoises, and its training.

    module: of Flax Linen, inputs `[B, D + 1]` -> `[B, D]`: genomes in units of their own spread,
        and the noise q. With conditions inputs are `[B, D + 1 + C + 1]`, the last of which says
        whether the conditions count. None is an MLP.
    hidden: sizes of the MLP's hidden layers; two of 32 by default.
    predicts: the noise, the clean genome, v = p eps - q x0, or the velocity of a rectified flow.
    weighting: "resampled" draws rows by weight, "weighted" draws them evenly and weighs their loss.
    schedule: levels are drawn from it evenly; `schedules.cosine` by default.
    epochs: passes over the buffer, in batches of batch_size rows; the best of them is kept.
    learning_rate: where Adam's begins, to end at a ten-thousandth.

    Raises InputError, naming the argument.
    """
    check_one_of("predicts", predicts, Predicts)
    check_one_of("weighting", weighting, Weighting)
    if schedule is not None:
        schedule = check_schedule(schedule)
    epochs, batch_size = check_count("epochs", epochs), check_count("batch_size", batch_size)
    check_number("learning_rate", learning_rate, 0, jnp.inf, closed="()")
    if module is not None and not isinstance(module, nn.Module):
        raise InputError("module", "a module of Flax Linen", f"{module!r:.80}")
    hidden = HIDDEN if hidden is None else hidden
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise InputError("hidden", "the layers' sizes, (32, 32) for two", f"{hidden!r:.60}")
    sizes = tuple(check_count("hidden", size) for size in hidden)
    prediction = PREDICTIONS[predicts]

    def levels() -> Schedule:
        return cosine(LEVELS) if schedule is None else schedule

    def network(num_genes: int) -> nn.Module:
        return MLP((*sizes, num_genes), nn.silu) if module is None else module

    def codec(num_genes: int, num_conditions: int) -> tuple[genome.Codec, jax.Array]:
        """Tell the network's parameters from their vector, once it has the right shapes."""
        inputs = jnp.zeros((1, num_genes + 1 + (num_conditions + 1 if num_conditions else 0)))
        shapes = jax.eval_shape(network(num_genes).init, jax.random.key(0), inputs)
        output = jax.eval_shape(network(num_genes).apply, shapes, inputs)
        if getattr(output, "shape", None) != (1, num_genes):
            raise InputError(
                "module",
                f"outputs of shape [B, {num_genes}] from inputs [B, {inputs.shape[1]}]",
                getattr(output, "shape", type(output).__name__),
            )
        return genome.codec(shapes), inputs

    def init(key: jax.Array, num_genes: int, num_conditions: int = 0) -> Trained:
        parameters, inputs = codec(num_genes, num_conditions)
        return Trained(
            parameters.flatten(network(num_genes).init(key, inputs)),
            jnp.zeros(num_genes),
            jnp.ones(()),
            jnp.zeros(num_conditions),
            jnp.ones(num_conditions),
            jnp.asarray(jnp.inf, float),
            jnp.asarray(False),
        )

    def predict(params: Any, x: jax.Array, conditions: jax.Array, shown: Any, p: Any, q: Any):
        inputs = [x, jnp.broadcast_to(q, (len(x), 1))]
        if conditions.shape[1]:
            shown = jnp.broadcast_to(shown, (len(x), 1)).astype(x.dtype)
            inputs += [conditions * shown, shown]
        output: Any = network(x.shape[1]).apply(params, jnp.concatenate(inputs, axis=1))
        return prediction.linear(p, q) * x + output

    def fit(
        key: jax.Array,
        start: Trained,
        genomes: jax.Array,
        conditions: jax.Array,
        weight: jax.Array,
        held_out: jax.Array,
    ) -> Trained:
        num_rows, num_genes = genomes.shape
        num_conditions = conditions.shape[1]
        ladder = levels()
        parameters, _ = codec(num_genes, num_conditions)
        usable = usable_rows(genomes, weight, conditions) & (weight > 0)
        weight = jnp.where(usable, weight, 0) / jnp.max(weight, where=usable, initial=1e-30)
        genomes = jnp.where(usable[:, None], genomes, 0).astype(float)
        conditions = jnp.where(usable[:, None], conditions, 0).astype(float)
        centre, scale = moments(genomes, weight)
        scale = _positive(jnp.sqrt(jnp.mean(scale**2)))
        middle, spread = moments(conditions, usable)
        spread = _positive(spread)
        clean = (genomes - centre) / scale
        told = (conditions - middle) / spread

        steps = max(1, num_rows // batch_size)
        rows = min(batch_size, num_rows)
        total = epochs * steps
        # The last batches are held out; they measure each epoch.
        batches = total + max(1, HELD_ROWS // rows)
        key_luck, key_noise = jax.random.split(key)
        luck = jax.random.uniform(key_luck, (batches, 1 + (2 if num_conditions else 1) * rows))
        first, luck, hidden = luck[:, 0], luck[:, 1 : 1 + rows], luck[:, 1 + rows :]
        trains, held = split_weight(weight, held_out)
        drawn, factor = (trains, usable) if weighting == "resampled" else (trains > 0, weight)
        places = jnp.concatenate([draw_rows(luck[:total], drawn), draw_rows(luck[total:], held)])

        def noised(batch):
            """Inputs of `predict`, what it is to answer, and how much that counts."""
            number, first, places, hidden = batch
            # Levels at even distances, the first at random: less luck in a batch.
            even = first + jnp.arange(rows) / rows
            level = (even % 1 * len(ladder.alpha)).astype(int)
            p, q = (jnp.sqrt(each[level])[:, None] for each in ladder)
            x0 = clean[places]
            eps = jax.random.normal(jax.random.fold_in(key_noise, number), x0.shape)
            inputs = p * x0 + q * eps, told[places], hidden[:, None] >= DROPPED, p, q
            return inputs, prediction.target(x0, eps, p, q), factor[places]

        def error(params, inputs, target, factor):
            output = predict(parameters.unflatten(params), *inputs)
            return jnp.mean(factor * jnp.mean((target - output) ** 2, axis=1))

        optimizer = optax.adamw(
            lambda step: (
                learning_rate
                * (LAST_RATE + (1 - LAST_RATE) * (1 + jnp.cos(jnp.pi * step / total)) / 2)
            ),
            weight_decay=DECAY,
        )

        def update(carry, batch):
            params, memory = carry
            gradient = jax.grad(error)(params, *noised(batch))
            change, memory = optimizer.update(gradient, memory, params)
            return (params + change, memory), None

        hidden = hidden.at[total:].set(1)  # what is measured knows its conditions
        batch = jnp.arange(batches), first, places, hidden
        inputs, target, _ = jax.lax.map(noised, jax.tree.map(lambda leaf: leaf[total:], batch))
        measures = inputs, target, usable[places[total:]]  # they are drawn by their weight

        def epoch(carry, batches):
            searching, best, least = carry
            searching, _ = jax.lax.scan(update, searching, batches)
            loss = jnp.mean(jax.vmap(partial(error, searching[0]))(*measures))
            better = loss < least
            best = jnp.where(better, searching[0], best)
            return (searching, best, jnp.where(better, loss, least)), loss

        each = jax.tree.map(
            lambda leaf: leaf[:total].reshape(epochs, steps, *leaf.shape[1:]), batch
        )
        begin = (start.params, optimizer.init(start.params)), start.params, jnp.asarray(jnp.inf)
        (_, best, loss), losses = jax.lax.scan(epoch, begin, each)
        diverged = ~jnp.isfinite(losses[-1])
        params = jnp.where(diverged, start.params, best)
        trained = Trained(params, centre, scale, middle, spread, loss, diverged)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), trained, start)

    def denoise(
        trained: Trained,
        x: jax.Array,
        conditions: jax.Array | None,
        alpha: Number,
        one_minus_alpha: Number,
    ) -> jax.Array:
        # In units of the spread the level is another: alpha s^2 against 1 - alpha.
        num_conditions = len(trained.middle)
        signal, noise = alpha * trained.scale**2, one_minus_alpha
        size = jnp.sqrt(signal + noise)
        p, q = jnp.sqrt(signal) / size, jnp.sqrt(noise) / size
        if conditions is None:
            told = jnp.zeros((len(x), num_conditions))
        else:
            told = (conditions - trained.middle) / trained.spread
        parameters, _ = codec(x.shape[1], num_conditions)
        params = parameters.unflatten(trained.params)
        scaled = (x - jnp.sqrt(alpha) * trained.centre) / size
        output = predict(params, scaled, told, conditions is not None, p, q)
        clean = prediction.clean(scaled, output, p, q)
        return (trained.centre + trained.scale * clean).astype(x.dtype)

    return Learner(init, fit, denoise, levels)


def empty_buffer(capacity: int, population: jax.Array, num_conditions: int = 0) -> Buffer:
    """Make a buffer without rows for genomes like those of a population, `[N, D]`.

    Raises InputError where the population has no place in it.
    """
    if capacity < len(population):
        expected = f"at least the population's {len(population)} individuals"
        raise InputError("capacity", expected, capacity)
    return Buffer(
        jnp.zeros((capacity, population.shape[1]), population.dtype),
        jnp.full(capacity, -jnp.inf, float),
        jnp.zeros((capacity, num_conditions)),
        jnp.zeros(capacity, bool),
    )


def push(
    buffer: Buffer,
    population: jax.Array,
    fitness: jax.Array,
    conditions: jax.Array | None = None,
    *,
    leaves: Leaves = "oldest",
) -> Buffer:
    """Add a generation, `[N, D]`; where places are short, the oldest or the weakest leave.

    Rows that are not finite are dropped. The weakest may be newcomers.
    """
    if conditions is None:
        conditions = jnp.zeros((len(population), 0))
    newcomers = Buffer(
        population, fitness, conditions, usable_rows(population, fitness, conditions)
    )
    both = jax.tree.map(
        lambda new, old: jnp.concatenate([new.astype(old.dtype), old]), newcomers, buffer
    )
    worth = jnp.where(both.filled, both.fitness if leaves == "weakest" else 0, -jnp.inf)
    order = jnp.argsort(-worth, stable=True)[: len(buffer.filled)]
    kept = jax.tree.map(lambda leaf: leaf[order], both)
    return kept._replace(
        genomes=jnp.where(kept.filled[:, None], kept.genomes, 0),
        fitness=jnp.where(kept.filled, kept.fitness, -jnp.inf),
        conditions=jnp.where(kept.filled[:, None], kept.conditions, 0),
    )


def select(buffer: Buffer, weigh: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Log weight of each row, `[M]`: -inf where it is empty; all the same where none has any."""
    log_weight = weigh(jnp.where(buffer.filled, buffer.fitness, jnp.nan))
    log_weight = jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight)
    everybody = jnp.where(buffer.filled, 0, -jnp.inf)
    return jnp.where(jnp.any(log_weight > -jnp.inf), log_weight, everybody)


def squared_distances(first: jax.Array, second: jax.Array) -> jax.Array:
    """Compute |x_i - y_j|^2 of rows `[N, D]` and `[M, D]` by one matrix product, `[N, M]`."""
    centre = jnp.mean(second, axis=0)  # or what is far from 0 loses its digits
    first, second = first - centre, second - centre
    product = project(first, second.T)
    squares = (jnp.sum(each**2, axis=1) for each in (first, second))
    return jnp.maximum(jnp.add.outer(*squares) - 2 * product, 0)


def by_blocks(function: Callable[[jax.Array], jax.Array], rows: jax.Array, size: int) -> jax.Array:
    """Map a function over rows `[N, D]` that makes arrays `[size]` of each, in little memory."""
    return jax.lax.map(function, rows, batch_size=max(1, min(len(rows), BLOCK // size)))


def check_one_of(name: str, value: Any, choices: Any) -> None:
    """Raise InputError unless a value is one of a Literal's."""
    if value not in get_args(choices):
        raise InputError(name, f"one of {', '.join(map(repr, get_args(choices)))}", repr(value))


def usable_rows(genomes: jax.Array, number: jax.Array, conditions: jax.Array) -> jax.Array:
    """Tell rows that are finite throughout, `[M]`."""
    finite = jnp.isfinite(number) & jnp.all(jnp.isfinite(genomes), axis=1)
    return finite & jnp.all(jnp.isfinite(conditions), axis=1)


def moments(rows: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute the weighted mean and standard deviation of rows `[M, K]`, each `[K]`."""
    share = weight / jnp.maximum(jnp.sum(weight), 1e-30)
    mean = project(share, rows)
    return mean, jnp.sqrt(project(share, (rows - mean) ** 2))


def _positive(spread: jax.Array) -> jax.Array:
    return jnp.where(spread > 1e-6, spread, 1)


def split_weight(weight: jax.Array, held_out: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weights to train on and to measure with; all of them where one side would have none."""
    parts = jnp.where(held_out, 0, weight), jnp.where(held_out, weight, 0)
    both = (jnp.sum(parts[0]) > 0) & (jnp.sum(parts[1]) > 0)
    return jnp.where(both, parts[0], weight), jnp.where(both, parts[1], weight)


def draw_rows(luck: jax.Array, weight: jax.Array) -> jax.Array:
    """Draw rows by weight, `[M]`, with replacement, a row for each number in [0, 1)."""
    heights = jnp.cumsum(weight.astype(float))
    places = jnp.searchsorted(heights, luck * heights[-1], side="right")
    return jnp.minimum(places, jnp.argmax(heights))  # the last that has weight


LEARNER = learner()
