"""A search that is asked for points and takes their costs: what `minimize` is a loop around."""

from typing import Any

import numpy as np

from diffevo_jax.checks import InputError
from diffevo_jax.optimize import one, optima
from diffevo_jax.optimize.arrays import CostSamples, joined
from diffevo_jax.optimize.options import OF_THE_LOOP, Options, takes_options
from diffevo_jax.optimize.result import Optimum, Result
from diffevo_jax.optimize.space import as_taken, flat, least_deviation, parameters, to_unit

ENOUGH = 1000  # evaluations a parameter, below which optima="all" finds one of a few


class Search:
    """A minimisation whose loop is yours.

        search = de.optimize.Search([(-5, 5)] * 12, evaluations=2000)
        while (points := search.ask()) is not None:
            search.tell([cost(point) for point in points])
        print(search.result)

    The arguments are those of `minimize` that do not say how the function is called. Points come
    from where the costs of earlier ones have led, as in `minimize` with a function in NumPy. It
    holds arrays, numbers and a generator: it pickles and copies at any moment, and goes on bit for
    bit, in another process too. Raises InputError as `minimize`.
    """

    @takes_options(Options)
    def __init__(self, options: Options):
        for name in OF_THE_LOOP:
            if getattr(options, name) is not getattr(Options, name):
                value = repr(getattr(options, name))
                raise InputError(name, "no such option, for the loop is yours", value)
        self._space, self._evaluations = options.space, options.evaluations
        self._random = options.random()
        num_genes = len(self._space.low)
        first, self._initial = self._random.uniform(size=num_genes), None
        if options.initial is not None:
            self._initial = flat(self._space, options.initial)
            first = to_unit(self._space, self._initial)
        self._few = ""
        if options.optima == "all":
            self._state = optima.begin(first, options.evaluations)
            if options.evaluations < ENOUGH * num_genes:
                self._few = f"; few for all optima: take {ENOUGH} a parameter, or more"
        else:
            self._state = one.begin(first, options.evaluations, least_deviation(self._space))
        # Generations `[N, D]` and their costs `[N]`; evaluations and the best cost after each.
        self._points, self._costs, self._history = [], [], []
        self.waiting = self._next()  # x `[N, D]`, also with a template

    def ask(self) -> Any:
        """The points to evaluate next, `[N, D]`, or the template's structure, leaves `[N, ...]`.

        N changes. They are the same until `tell` has their costs; None once all evaluations are
        spent.
        """
        return None if self.waiting is None else as_taken(self._space, self.waiting)

    def tell(self, costs: Any) -> None:
        """Give the costs `[N]` of the points, lower is better, NaN for those without one."""
        if self.waiting is None:
            spent = "for all evaluations are spent: see result"
            raise InputError("costs", f"none, {spent}", f"{costs!r:.60}")
        try:
            values = np.asarray(costs, float)
        except (TypeError, ValueError):
            raise InputError("costs", "numbers", f"{costs!r:.60}") from None
        shape = self.waiting.shape[:1]
        if values.shape not in (shape, (*shape, 1)):
            raise InputError("costs", f"shape {shape}", values.shape)
        values = np.where(np.isfinite(values), values, np.nan).reshape(shape)
        self._points.append(self.waiting)
        self._costs.append(values)
        best = np.fmin.reduce(values, initial=self.lowest)
        self._history.append((self.evaluations, float(best)))
        if self.evaluations < self._evaluations:
            advance = one.advance if isinstance(self._state, one.SearchForOne) else optima.advance
            self._state = advance(self._random, self._state, values)  # pyright: ignore
        self.waiting = self._next()

    @property
    def evaluations(self) -> int:
        """How many points have their costs."""
        return sum(map(len, self._costs))

    @property
    def lowest(self) -> float:
        """The best cost so far; NaN where there is none."""
        return self._history[-1][1] if self._history else np.nan

    @property
    def result(self) -> Result:
        """The Result so far."""
        population = np.concatenate([*self._points, np.empty((0, len(self._space.low)))])
        costs = np.concatenate([*self._costs, np.empty(0)])
        valid = np.flatnonzero(np.isfinite(costs))
        best = valid[np.argsort(costs[valid])[:1]]
        x, lowest = population[best], costs[best]
        if isinstance(self._state, optima.SearchForAll):
            # The best of all is one of the optima, polished to the end or not.
            units = CostSamples(np.reshape(to_unit(self._space, x), x.shape), lowest)
            places = optima.merged(joined(self._state.optima, units))
            x = np.concatenate([parameters(self._space, self._state.optima.points), x])[places]
            lowest = np.concatenate([self._state.optima.costs, lowest])[places]
        ends = tuple(
            Optimum(as_taken(self._space, point), float(cost))
            for point, cost in zip(x, lowest, strict=True)
        )
        first = parameters(self._space, self._state.first)
        left = self.evaluations < self._evaluations
        return Result(
            x=ends[0].x if ends else as_taken(self._space, first),
            cost=ends[0].cost if ends else np.nan,
            evaluations=len(costs),
            population=as_taken(self._space, population),
            costs=costs,
            optima=ends,
            history=np.array(self._history).reshape(-1, 2),
            failures=int(np.sum(np.isnan(costs))),
            message=("evaluations are left" if left else "all evaluations are spent") + self._few,
        )

    def _next(self) -> np.ndarray | None:
        left = self._evaluations - self.evaluations
        if not left:
            return None
        points = parameters(self._space, self._state.points[:left])
        if not self._points and self._initial is not None:
            points[0] = self._initial  # to the bit, not by way of the unit cube
        return points
