"""A search that is asked for points and takes their costs: what `minimize` is a loop around."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np

from diffevo_jax.checks import InputError, check_count
from diffevo_jax.optimize import cma, one, optima
from diffevo_jax.optimize.arrays import CostSamples, finite
from diffevo_jax.optimize.basins import distinct
from diffevo_jax.optimize.options import OF_THE_LOOP, Options, takes_options
from diffevo_jax.optimize.result import Optimum, Result
from diffevo_jax.optimize.space import (
    as_taken,
    columns,
    least_deviation,
    parameters,
    rows_of,
    to_unit,
)

ENOUGH = 1000  # evaluations a parameter, below which optima="all" finds one of a few
STALE = 20  # generations without a point to evaluate, after which points are drawn evenly
OUTSIDE = 200  # those that constraints lead to where they hold
ROWS = 10_000  # points of either, at most: restarts double the generations
DRAWS = 1000  # even draws at a time, for points that are new and feasible
TRIES = 100  # times that they are drawn, before there are none
REPEATED = 0.2  # the share of a noisy search in which its best are evaluated again
CANDIDATES = 5  # how many they are at first; the better half goes on


class Search:
    """A minimisation whose loop is yours.

        search = de.optimize.Search([(-5, 5)] * 12, evaluations=2000)
        while (points := search.ask()) is not None:
            search.tell([cost(point) for point in points])
        print(search.result)

    The arguments are those of `minimize` that do not say how the function is called. Points come
    from where the costs of earlier ones have led, as in `minimize` with a function in NumPy.

    Workers that each take a point when they are free: `ask(1)`, and `tell([cost], [point])` in
    whatever order they end; a generation does not wait for its slowest.

    It holds arrays, numbers and a generator: it pickles and copies at any moment, and goes on bit
    for bit, in another process too. Raises InputError as `minimize`.
    """

    @takes_options(Options)
    def __init__(self, options: Options):
        for name in OF_THE_LOOP:
            if getattr(options, name) is not getattr(Options, name):
                value = repr(getattr(options, name))
                raise InputError(name, "no such option, for the loop is yours", value)
        space, num_genes = options.space, options.space.num_genes
        self._space = space
        self._constraints = () if options.constraints == "returned" else options.constraints
        self._least_broken = np.inf  # by how much what breaks constraints least does
        self._noisy, self._random = options.noisy, options.random()
        is_constrained = len(options.constraints) > 0
        guesses = self._random.uniform(size=(1, num_genes))
        if options.optima == "one" and one.is_local(space, options.evaluations, is_constrained):
            guesses = np.full((1, num_genes), 0.5)
        self._initial, known = options.first_points(), options.known_points()
        if np.any(self._broken_by(self._initial)):
            raise InputError("initial", "points that satisfy constraints", repr(options.initial))
        if len(self._initial) or len(known.costs):
            guesses = np.reshape(to_unit(space, self._initial), (-1, num_genes))
        self._known = known
        units = np.reshape(to_unit(space, known.points), (-1, num_genes))
        known = CostSamples(units, known.costs)
        self._few = ""
        if options.optima == "all":
            self._state = optima.begin(guesses, known, options.evaluations)
            if options.evaluations < ENOUGH * space.num_values:
                self._few = f"; few for all optima: take {ENOUGH} a parameter, or more"
        else:
            least = least_deviation(space)
            guess_x = parameters(space, guesses)
            guess_x[: len(self._initial)] = self._initial
            self._state = one.begin(
                self._random,
                space,
                guesses,
                guess_x,
                known,
                options.step or 0,
                options.evaluations,
                least,
                is_constrained,
                self._allows,
            )
        # Points by their numbers, in the order of handing out: x; the cost, NaN for none; by how
        # much constraints are broken; whether both are known; the generation, -1 - k for those that
        # repeat the k-th candidate.
        self._x = np.empty((0, space.num_values))
        self._costs, self._broken = np.empty(0), np.empty(0)
        self._is_told, self._generation_of = np.empty(0, bool), np.empty(0, int)
        self._drawn = self.handed = 0
        self._order: list[int] = []  # numbers, as they were told
        self._ends: list[int] = []  # evaluations after each generation
        self.lowest = float(np.fmin.reduce(known.costs, initial=np.nan))
        # Of a finite space: the bytes of x -> its number, or -1 - k for the k-th known point.
        self._number_of = {row.tobytes(): -1 - k for k, row in enumerate(self._known.points)}
        # The generation: its index, the numbers of its points `[N]`, -1 for those that are not
        # evaluated, whose costs `given` has; by how much the others break constraints.
        self._generation = -1
        self._numbers, self._given = np.empty(0, int), np.empty(0)
        self._outside = np.empty(0)
        self._late: list[int] = []  # numbers of earlier generations of this phase, told since
        self._phase_begin, self._phase = 0, None
        self._is_exhausted = False
        self._are_draws_inside = True  # whether even draws find points that constraints allow
        self._candidates: np.ndarray | None = None
        self.extend(options.evaluations)
        self._form_generation()

    def extend(self, evaluations: int) -> None:
        """Set how many evaluations there may be in all; the search goes on with what it knows."""
        self.evaluations_in_all = self._limit = check_count("evaluations", evaluations, least=0)
        self._state = self._state._replace(evaluations=evaluations)
        if self._noisy:
            self._limit -= int(REPEATED * max(0, evaluations - self.handed))
            self._candidates = None

    def ask(self, number: int | None = None) -> Any:
        """The points to evaluate next, `[N, D]`, or the template's structure, leaves `[N, ...]`.

        Without a number: those of a generation, or of the part of it that is evaluated first, that
        have no cost yet; N changes. With one: up to so many that nobody was given yet, fewer or
        none where the search must wait for costs. None once all evaluations are spent.
        """
        if number is not None:
            check_count("number", number, least=0)
            numbers = self.take(number, ahead=True)
        else:
            numbers = self.take(self.evaluations_in_all)
            if len(self.waiting):
                numbers = self.waiting
        return None if numbers is None else as_taken(self._space, self._x[numbers])

    def tell(self, costs: Any, x: Any = None, constraints: Any = None) -> None:
        """Give the costs `[N]` of the points, lower is better, NaN for those without one.

        x: the points that have these costs, in any order, in the form of `ask`, or a list of
            points; all that wait for a cost by default.
        constraints: `[N]` or `[N, C]`, at most 0 where they hold, for `constraints="returned"`.
        """
        waiting = self.waiting
        if not len(waiting) and x is None:
            self.take(self.evaluations_in_all)
            waiting = self.waiting
        if not len(waiting):
            what = "for all evaluations are spent: see result"
            if self.handed < self.evaluations_in_all and not self._is_exhausted:
                what = "for no point waits for one: ask first"
            raise InputError("costs", f"none, {what}", f"{costs!r:.60}")
        numbers = waiting if x is None else self._numbers_of(x, waiting)
        values, shape = _numeric("costs", costs), numbers.shape
        if values.shape not in (shape, (*shape, 1)):
            raise InputError("costs", f"shape {shape}", values.shape)
        violations = np.zeros(shape)
        if constraints is not None:
            given = _numeric("constraints", constraints)
            if given.shape[:1] != shape or given.ndim > 2:
                raise InputError("constraints", f"shape {shape} or {(*shape, 'C')}", given.shape)
            violations = violation(given.reshape(*shape, -1))
        self.give(numbers, values.reshape(shape), violations)

    # The loop of `minimize` names points by their numbers, in the order of handing out.

    def take(self, number: int, ahead: bool = False) -> np.ndarray | None:
        """Hand out up to `number` points: their numbers; None once all evaluations are spent.

        ahead: draw a generation before all costs of the last one are known, but those of half.
        """
        if self.handed == self._drawn and self.handed < self.evaluations_in_all:
            self._draw(ahead)
        first = self.handed
        self.handed = max(first, min(first + number, self._drawn, self.evaluations_in_all))
        if self.handed == first and (self._is_exhausted or first >= self.evaluations_in_all):
            return None
        return np.arange(first, self.handed)

    @property
    def x(self) -> np.ndarray:
        """The values `[..., P]` of points, by their numbers."""
        return self._x

    def give(
        self, numbers: np.ndarray, costs: np.ndarray, broken: np.ndarray | None = None
    ) -> None:
        """Take costs, and by how much constraints are broken; what is not finite is a failure."""
        costs = np.where(np.isfinite(costs), costs, np.nan)
        self._costs[numbers], self._is_told[numbers] = costs, True
        if broken is not None:
            self._broken[numbers] = broken
            costs = np.where(broken > 0, np.nan, costs)
        self.lowest = float(np.fmin.reduce(costs, initial=self.lowest))
        self._order += numbers.tolist()
        generations = self._generation_of[numbers]
        is_late = (self._phase_begin <= generations) & (generations < self._generation)
        is_guess = (generations == 0) & (self._generation > 0)
        if isinstance(self._state, one.SearchForOne) and self._state.learns_at_once:
            costs = self._behind(costs, self._broken[numbers], self._costs[: self.handed])
            self._state = one.learned(self._state, self._x[numbers], costs)
        if np.any(is_guess) and isinstance(self._state, one.SearchForOne):
            units = to_unit(self._space, self._x[numbers[is_guess]])
            self._state = one.guessed(self._state, units, costs[is_guess])
        self._late += numbers[is_late].tolist()
        ends = self._drawn, self.evaluations_in_all
        if len(self._order) == self.handed and self.handed in ends:
            self._ends.append(self.handed)

    @property
    def waiting(self) -> np.ndarray:
        """Numbers of the points that were handed out and have no cost yet."""
        return np.flatnonzero(~self._is_told[: self.handed])

    @property
    def has_cost(self) -> bool:
        """Whether any cost is known, of points that break constraints too."""
        return bool(len(self._known.costs) or np.any(np.isfinite(self._costs[: self.handed])))

    @property
    def is_between(self) -> bool:
        """Whether the last cost that was told completed a generation."""
        return self._ends[-1:] == [len(self._order)]

    @property
    def evaluations(self) -> int:
        """How many points have their costs."""
        return len(self._order)

    @property
    def result(self) -> Result:
        """The Result so far."""
        space, order = self._space, np.flatnonzero(self._is_told[: self.handed])
        x, costs, broken = self._x[order], self._costs[order], self._broken[order]
        known = self._known
        all_x = np.concatenate([x, known.points])
        all_costs = np.concatenate([costs, known.costs])
        all_broken = np.concatenate([broken, self._broken_by(known.points)])
        # Feasible ones first, then those that break the least.
        places = np.flatnonzero(np.isfinite(all_costs))
        best = places[np.lexsort((all_costs[places], all_broken[places]))[:1]]
        ends_x, ends_costs, error = all_x[best], all_costs[best], np.nan
        are_left = self.evaluations < self.evaluations_in_all
        message = "evaluations are left" if are_left else "all evaluations are spent"
        if self._is_exhausted and not len(self.waiting):
            message = "no other point satisfies all constraints"
            if np.isfinite(space.size):
                message = f"all {len(self._number_of)} points are evaluated"
        if np.any(all_broken[best] > 0):
            message += "; no point satisfies all constraints: the best breaks them the least"
        again, means, errors = self._repeated()
        if len(again):
            least = np.argsort(means)[:1]
            assert self._candidates is not None
            ends_x, ends_costs = self._candidates[again[least]], means[least]
            error = float(errors[least[0]])
        elif isinstance(self._state, optima.SearchForAll):
            # The best of all is one of the optima, polished to the end or not.
            known_optima = optima.known_optima(self._state)
            ends_x = np.concatenate([parameters(space, known_optima.points), ends_x])
            ends_costs = np.concatenate([known_optima.costs, ends_costs])
            units = np.reshape(to_unit(space, ends_x), (-1, space.num_genes))
            # Whole numbers differ by a step, whatever their range.
            apart = least_deviation(space)
            chosen = distinct(units, ends_costs, np.where(apart > 0, apart, optima.MERGED))
            ends_x, ends_costs = ends_x[chosen], ends_costs[chosen]
            message += optima.remark(self._state)
        ends = tuple(
            Optimum(as_taken(space, point), float(cost))
            for point, cost in zip(ends_x, ends_costs, strict=True)
        )
        first = self._x[0] if self._drawn else known.points[0]
        counts = [*filter(None, self._ends)]
        counts += [len(order)] * (counts[-1:] != [len(order)] and len(order) > 0)
        told = np.array(self._order, int)
        bests = np.fmin.accumulate(np.where(self._broken[told] > 0, np.nan, self._costs[told]))
        return Result(
            x=ends[0].x if ends else as_taken(space, first),
            cost=ends[0].cost if ends else np.nan,
            evaluations=len(costs),
            population=as_taken(space, x),
            costs=costs,
            optima=ends,
            history=np.array([(count, bests[count - 1]) for count in counts]).reshape(-1, 2),
            failures=int(np.sum(np.isnan(costs))),
            message=message + self._few,
            standard_error=error,
            feasible=broken <= 0,
            table=columns(space, x),
        )

    def _draw(self, ahead: bool) -> None:
        """Draw the points that are handed out next, if the costs that they need are known."""
        if self._is_exhausted:
            return
        if self._noisy and self._drawn >= self._limit:
            if not len(self.waiting):
                self._form_repeats()
            return
        own = self._numbers[self._numbers >= 0]
        missing = int(np.sum(~self._is_told[own]))
        is_free = getattr(self._state, "has_more", self._generation == 0)
        if missing > ahead * (len(own) if is_free else len(own) // 2):
            return
        if ahead and missing:
            self._ends.append(len(self._order))
        drawn, attempts = self._drawn, OUTSIDE if self._constraints else STALE
        attempt = rows = 0
        while attempt < attempts:
            attempt = attempts if rows > ROWS else attempt + 1
            self._advance()
            self._form_generation(evenly=attempt == attempts)
            rows += len(self._numbers)
            if self._drawn > drawn:
                return
        self._is_exhausted = True
        if not drawn:
            seen = f"at best broken by {self._least_broken:.3g}"
            mend = "widen bounds, or loosen the constraints; equations have no inside"
            raise InputError("constraints", "functions that hold inside bounds", seen, mend)

    def _advance(self) -> None:
        """Let the search learn from the generation."""
        values, broken = self._given.copy(), self._outside.copy()
        has_number = self._numbers >= 0
        own = self._numbers[has_number]
        values[has_number] = np.where(self._is_told[own], self._costs[own], np.nan)
        broken[has_number] = self._broken[own]
        missing = np.flatnonzero(has_number)[~self._is_told[own]]
        state = self._state
        if (
            len(missing)
            and self._late
            and isinstance(state, one.SearchForOne)
            and not state.learns_at_once  # which has taken them in
        ):
            # Those whose costs came late take the places of those whose costs are to come.
            late = np.array(self._late[-len(missing) :])
            missing = missing[: len(late)]
            units = to_unit(self._space, self._x[late])
            self._state = one.replaced(state, missing, units)
            values[missing], broken[missing] = self._costs[late], self._broken[late]
        self._late = []
        values = self._behind(values, broken, values[broken <= 0])
        if isinstance(self._state, one.SearchForOne):
            self._state = one.advance(self._random, self._state, values, self._allows)
        else:
            self._state = optima.advance(self._random, self._state, values)

    def _behind(self, costs: np.ndarray, broken: np.ndarray, feasible: np.ndarray) -> np.ndarray:
        """Put what breaks constraints behind all feasible costs, in the order of the violations."""
        if not np.any(broken > 0):
            return costs
        feasible = finite(feasible)
        most = np.max(broken, where=np.isfinite(broken), initial=0)
        share = np.minimum(broken / most if most > 0 else 1.0, 1.0)
        behind = feasible.max() + (np.ptp(feasible) or 1.0) * (0.5 + share)
        return np.where(broken > 0, behind, costs)

    def _form_generation(self, evenly: bool = False) -> None:
        """Number the points of the next generation that are to be evaluated.

        evenly: put even draws, new and feasible, in the place of the search's own.
        """
        self._generation += 1
        state = self._state
        phase = state.phase, getattr(state, "round", 0)
        begins = phase != self._phase
        if begins:
            self._phase, self._phase_begin = phase, self._generation
        is_of_one = isinstance(state, one.SearchForOne)
        x = state.x.copy() if is_of_one else parameters(self._space, state.points)
        if phase[0] == "model":
            x = self._chosen(x)
            state = self._state
        if self._generation == 0:
            x[: len(self._initial)] = self._initial  # to the bit, not by way of the unit cube
        given = None if phase[0] == "model" else getattr(state, "given", None)
        given = np.full(len(x), np.nan) if given is None else given.copy()
        outside = self._broken_by(x)
        places = np.arange(len(x)) if evenly else np.flatnonzero((outside > 0) & np.isnan(given))
        begins &= self._are_draws_inside
        if state.phase == "model":
            places = places[:0]
        if (evenly or begins) and len(places) and isinstance(state, one.SearchForOne):
            units = self._even_draws(len(places))
            self._are_draws_inside = len(units) > 0
            places = places[: len(units)]
            x[places], outside[places] = parameters(self._space, units), 0
            self._state = one.replaced(state, places, units)
        self._given, self._outside = given, outside
        is_wanted = np.isnan(given) & (outside <= 0)
        if self._noisy:
            is_wanted &= np.cumsum(is_wanted) <= self._limit - self._drawn
        self._numbers = np.full(len(x), -1)
        if not np.isfinite(self._space.size):
            self._numbers[is_wanted] = np.arange(self._drawn, self._drawn + np.sum(is_wanted))
            self._append(x[is_wanted], self._generation)
            return
        for place in np.flatnonzero(is_wanted):  # a point that has a number is not paid for again
            number = self._number_of.setdefault(x[place].tobytes(), self._drawn)
            if number < 0:
                self._given[place] = self._known.costs[-1 - number]
                continue
            self._numbers[place] = number
            if number == self._drawn:
                self._append(x[place : place + 1], self._generation)
        self._is_exhausted = len(self._number_of) >= self._space.size

    def _chosen(self, x: np.ndarray) -> np.ndarray:
        """Choose the first of the model's proposals that is new, and allowed, `[1, P]`."""
        assert isinstance(self._state, one.SearchForOne)
        for row in chain(x, self._even_rows()):
            if row.tobytes() not in self._number_of and not np.any(self._broken_by(row[None])):
                self._state = one.chosen(self._state, row)
                return row[None]
        return x[:1]

    def _even_rows(self) -> Iterator[np.ndarray]:
        yield from parameters(self._space, self._even_draws(1))

    def _append(self, x: np.ndarray, generation: Any) -> None:
        """Append points to those that are drawn; room is made for twice as many."""
        drawn = self._drawn + len(x)
        if drawn > len(self._x):
            room = max(2 * len(self._x), drawn, min(self.evaluations_in_all, 2**20)) - len(self._x)
            self._x = np.concatenate([self._x, np.empty((room, self._x.shape[1]))])
            self._costs = np.concatenate([self._costs, np.full(room, np.nan)])
            self._broken = np.concatenate([self._broken, np.zeros(room)])
            self._is_told = np.concatenate([self._is_told, np.zeros(room, bool)])
            self._generation_of = np.concatenate([self._generation_of, np.zeros(room, int)])
        self._x[self._drawn : drawn] = x
        self._generation_of[self._drawn : drawn] = generation
        self._drawn = drawn

    def _even_draws(self, number: int) -> np.ndarray:
        """Draw points `[K, U]`, K up to `number`, that are feasible, and new in a finite space."""
        units = np.empty((0, self._space.num_genes))
        seen = set(self._number_of)
        for _ in range(TRIES):
            even = self._random.uniform(size=(DRAWS, self._space.num_genes))
            x = parameters(self._space, even)
            for place in range(DRAWS):
                row = x[place].tobytes()
                if row in seen or np.any(self._broken_by(x[place : place + 1])):
                    continue
                if np.isfinite(self._space.size):
                    seen.add(row)
                units = np.concatenate([units, even[place : place + 1]])
                if len(units) == number:
                    return units
        return units

    def _form_repeats(self) -> None:
        """Evaluate the best points again: in each round the better half of them, twice as often."""
        left = self.evaluations_in_all - self._drawn
        if self._candidates is None:
            self._candidates = self._best_points(max(1, min(CANDIDATES, left // 2)))
            alive = np.arange(len(self._candidates))
        else:
            alive, means, _ = self._repeated()
            alive = alive[np.argsort(means)][: -(-len(alive) // 2)]
        self._is_exhausted = not len(alive) or left <= 0
        if self._is_exhausted:
            return
        rounds = int(np.ceil(np.log2(len(alive)))) + 1
        picks = np.repeat(alive, max(1, left // (rounds * len(alive))))
        picks = np.resize(picks, left) if len(alive) == 1 else picks[:left]
        self._append(self._candidates[picks], -1 - picks)

    def _best_points(self, number: int) -> np.ndarray:
        """Return the best feasible points `[K, P]` that differ; the middle of CMA-ES among them."""
        told = np.array(self._order, int)
        costs = np.where(self._broken[told] > 0, np.nan, self._costs[told])
        order = told[np.argsort(costs)[: np.sum(np.isfinite(costs))]]
        polish = getattr(self._state, "polish", None)
        middle = [] if polish is None else [parameters(self._space, cma.middle(polish))]
        middle = [row for row in middle if not np.any(self._broken_by(row[None]))]
        rows = {row.tobytes(): row for row in [*middle, *self._x[order[: 4 * number]]]}
        return np.array(list(rows.values())[:number]).reshape(-1, self._space.num_values)

    def _repeated(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the candidates of the last round, their mean costs and standard errors, `[K]`."""
        told = np.array(self._order, int)
        generations = self._generation_of[told]
        again, counts = np.unique(-1 - generations[generations < 0], return_counts=True)
        again = again[counts == counts.max(initial=0)]
        costs = [self._costs[told[generations == -1 - k]] for k in again]
        means = np.array([np.mean(values) for values in costs])
        spreads = [np.std(v, ddof=1) / np.sqrt(len(v)) if len(v) > 1 else np.nan for v in costs]
        return again, means, np.array(spreads)

    def _broken_by(self, x: np.ndarray) -> np.ndarray:
        """Return by how much points `[N, P]` break the constraints that are functions, `[N]`."""
        broken = np.zeros(len(x))
        if not self._constraints:
            return broken
        for place, row in enumerate(x):
            point = as_taken(self._space, row.copy())
            values = [np.ravel(_numeric("constraints", g(point))) for g in self._constraints]
            broken[place] = violation(np.concatenate(values))
            self._least_broken = min(self._least_broken, broken[place])
        return broken

    def _allows(self, x: np.ndarray) -> np.ndarray:
        """Return which points `[N, P]` constraints that are functions allow, `[N]`."""
        return self._broken_by(x) <= 0

    def _numbers_of(self, x: Any, waiting: np.ndarray) -> np.ndarray:
        """Return the numbers of points that wait for their costs, in the form that `ask` gives."""
        rows = rows_of(self._space, x, "x")
        numbers: dict[bytes, list[int]] = {}
        for number in waiting.tolist():
            numbers.setdefault(self._x[number].tobytes(), []).append(number)
        told = {row.tobytes() for row in self._x[self._order]}
        found = []
        for row in rows:
            same = numbers.get(row.tobytes())
            if not same:
                is_told = row.tobytes() in told
                expected = "points that wait for their costs"
                seen = f"{as_taken(self._space, row)!r:.60}"
                seen += ", whose cost is known already" if is_told else ", which ask did not give"
                mend = "" if is_told else "what was known before is given as known="
                raise InputError("x", expected, seen, mend)
            found.append(same.pop(0))
        return np.array(found, int)


def violation(values: np.ndarray) -> Any:
    """Return by how much constraints g(x) <= 0, `[..., C]`, are broken in all; NaN is infinite."""
    return np.where(np.isnan(values), np.inf, np.maximum(values, 0)).sum(axis=-1)


def _numeric(name: str, values: Any) -> np.ndarray:
    if values is not None:  # which would be NaN
        with suppress(TypeError, ValueError):
            return np.asarray(values, float)
    raise InputError(name, "numbers", f"{values!r:.60}")
