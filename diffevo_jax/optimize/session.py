"""A search that asks for points and is told their costs: what `minimize` is a loop around."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np

from diffevo_jax.checks import check_key
from diffevo_jax.optimize.engine import Random, default_size, one_optimum
from diffevo_jax.optimize.local import evosax, pycma
from diffevo_jax.optimize.optima import Found, all_optima, merged
from diffevo_jax.optimize.result import Optimum, Result
from diffevo_jax.optimize.space import (
    Space,
    as_taken,
    least_deviation,
    make_space,
    parameters,
    unit_of,
)

Optima = Literal["one", "all"]
ENOUGH = 1000  # evaluations a parameter, below which optima="all" finds one of a few


class AskTell(NamedTuple):
    """A minimisation whose loop is yours.

    ask: () -> the points to evaluate next, `[N, D]`, or the template's structure with leaves
        `[N, ...]`; N changes. The same until they are told; None once all evaluations are spent.
    tell: costs `[N]` of the points last asked for, lower is better, NaN for those without one.
    result: () -> the Result so far.
    """

    ask: Callable[[], Any]
    tell: Callable[[Any], None]
    result: Callable[[], Result]


def ask_tell(
    bounds: Any,
    *,
    evaluations: int,
    key: jax.Array | None = None,
    seed: int | None = None,
    integers: Sequence[int | str] = (),
    log: Sequence[int | str] = (),
    optima: Optima = "one",
    initial: Any = None,
) -> AskTell:
    """Start a minimisation that asks for points and is told their costs; arguments of `minimize`.

        search = de.optimize.ask_tell([(-5, 5)] * 12, evaluations=2000)
        while (points := search.ask()) is not None:
            search.tell([cost(point) for point in points])
        print(search.result())

    It holds state: points come from where the costs told so far have led. Given the costs of a
    host function it does what `minimize` does with it. Raises ValueError as `minimize`.
    """
    space = make_space(bounds, integers, log)
    asked = session(space, evaluations, key, seed, optima, initial)

    def ask() -> Any:
        x = asked.ask()
        return None if x is None else as_taken(space, x)

    return AskTell(ask, asked.tell, asked.result)


def session(
    space: Space,
    evaluations: int,
    key: jax.Array | None,
    seed: int | None,
    optima: Optima,
    initial: Any,
    sign: float = 1.0,
) -> AskTell:
    """`ask_tell` in plain arrays `[N, D]`. sign: of the costs in the result, -1 for values."""
    num_genes = len(space.low)
    least = 2 * default_size(num_genes)
    if isinstance(evaluations, bool) or not isinstance(evaluations, int | np.integer):
        raise ValueError(f"evaluations: expected a whole number; seen {evaluations!r}")
    if evaluations < least:
        raise ValueError(
            f"evaluations: expected at least {least}, two generations of {num_genes} parameters; "
            f"seen {evaluations}"
        )
    if optima not in get_args(Optima):
        raise ValueError(f"optima: expected 'one' or 'all'; seen {optima!r}")
    random = _generator(key, seed)
    first = random.uniform(size=num_genes)
    if initial is not None:
        first = unit_of(space, initial)

    polish = evosax
    if num_genes > 1 and find_spec("cma") is not None:
        polish = partial(pycma, least=least_deviation(space))
    few = ""
    if optima == "all" and evaluations < ENOUGH * num_genes:
        few = f"; few for all optima: take {ENOUGH} a parameter, or more"
    polished = Found([], [])
    if optima == "all":
        search = all_optima(random, first, evaluations, polished)
    else:
        search = one_optimum(random, first, evaluations, polish)
    asked, told, history = [next(search)], [], []

    def left() -> int:
        return evaluations - sum(map(len, told))

    def ask() -> np.ndarray | None:
        return parameters(space, asked[-1][: left()]) if left() else None

    def tell(costs: Any) -> None:
        points = asked[-1][: left()]
        try:
            costs = np.asarray(costs, float)
        except (TypeError, ValueError):
            raise ValueError(f"costs: expected numbers; seen {costs!r:.60}") from None
        if not len(points):
            raise ValueError("costs: expected none, for all evaluations are spent: see result()")
        if costs.shape != points.shape[:1]:
            raise ValueError(f"costs: expected shape {points.shape[:1]}; seen {costs.shape}")
        told.append(np.where(np.isfinite(costs), costs, np.nan))
        known = np.fmin.reduce(told[-1], initial=history[-1][1] if history else np.nan)
        history.append((evaluations - left(), known))
        if left():
            asked.append(search.send(told[-1]))

    def result() -> Result:
        costs = np.concatenate([*told, np.zeros(0)])
        units = np.concatenate(asked)[: len(costs)]
        population = parameters(space, units)
        places = np.argsort(costs)[:1]
        places = places[np.isfinite(costs[places])]
        # The best of all is one of the optima, polished to the end or not.
        ends = Found([*polished.points, *units[places]], [*polished.costs, *costs[places]])
        found = tuple(
            Optimum(as_taken(space, parameters(space, ends.points[k])), float(sign * ends.costs[k]))
            for k in merged(ends)
        )
        best = found[0] if found else Optimum(as_taken(space, parameters(space, first)), np.nan)
        steps = np.array(history).reshape(-1, 2)
        return Result(
            x=best.x,
            cost=best.cost,
            evaluations=len(costs),
            population=as_taken(space, population),
            costs=sign * costs,
            optima=found,
            history=steps * np.array([1, sign]),
            failures=int(np.sum(np.isnan(costs))),
            message=("evaluations are left" if left() else "all evaluations are spent") + few,
        )

    return AskTell(ask, tell, result)


def _generator(key: jax.Array | None, seed: int | None) -> Random:
    if key is not None and seed is not None:
        raise ValueError("key, seed: expected one of the two; seen both")
    if key is None:
        seed = 0 if seed is None else seed
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"seed: expected a whole number of 0 or more; seen {seed!r}")
        return np.random.default_rng(seed)
    return np.random.default_rng(np.asarray(jax.random.key_data(check_key(key))))
