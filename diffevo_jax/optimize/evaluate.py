"""From a user's cost function, in NumPy or JAX, to the costs of a search's points."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.checks import InputError, check_array, check_tree
from diffevo_jax.optimize import host, programs
from diffevo_jax.optimize.ask_tell import Search, violation
from diffevo_jax.optimize.options import Options
from diffevo_jax.optimize.side_effects import Footprint
from diffevo_jax.optimize.space import Space, as_taken

# Seconds that a free worker waits for a generation to be complete. Where evaluations take less, the
# points are those of one worker, whatever the order in which they end.
PATIENCE = 0.02
TOGETHER = 1e-3  # seconds of evaluations of a generation that are told, and recorded, together
POLL = 0.05  # seconds between two looks at futures that are not concurrent.futures'


class NoCost(InputError):
    """The cost function returned something that is no cost."""


class Answers(NamedTuple):
    """What evaluations gave: the points' numbers `[N]`, and what belongs to each.

    costs: `[N]`, NaN for failures. broken: by how much returned constraints are broken, `[N]`.
    errors: N, what they raised, None for nothing. seconds: `[N]`, that each took; NaN where they
        were evaluated together, or in a worker process that failed.
    """

    numbers: np.ndarray
    costs: np.ndarray
    broken: np.ndarray
    errors: Sequence[BaseException | None]
    seconds: np.ndarray


class Answer(NamedTuple):
    """One of them."""

    cost: float
    broken: float = 0.0
    error: BaseException | None = None
    seconds: float = np.nan


def evaluations(
    search: Search, cost_fn: Callable[..., Any], options: Options, deadline: float
) -> Generator[Answers, None, None]:
    """Evaluate the points of a search, which must take each answer before the next one is made.

    It ends when the search does, or at the deadline, a time of `time.monotonic`. Worker processes
    live as long as the iterator. An interrupt is raised after what has ended by then.

    Raises NoCost on an answer that is no number; InputError on a function that cannot be compiled,
    or sent to other processes, where the options say so.
    """
    if options.is_parallel:
        with _submitter(cost_fn, options) as (submit, number):
            # Worker processes count an evaluation's time themselves.
            timeout = options.timeout if options.executor is not None else None
            yield from _side_by_side(search, submit, number, timeout or np.inf, deadline)
    elif options.jit:
        compiled, reason = _compiled(cost_fn, options)
        if compiled is None:
            raise InputError("cost_fn", "a function that JAX can compile, as jit=True says", reason)
        yield from _by_generation(search, compiled)
    elif options.batched:
        yield from _by_generation(search, partial(_together, cost_fn, options))
    else:
        yield from _one_by_one(search, cost_fn, options)


def _one_by_one(search: Search, cost_fn: Callable, options: Options) -> Iterator[Answers]:
    """Call the function, until a whole generation of JAX answers lets jit=None compile it."""
    undecided = options.jit is None and not options.space.has_categories
    evaluate = partial(_evaluated, cost_fn, options.space, options.constraints == "returned")
    footprint = Footprint(cost_fn)
    while (numbers := _next(search)) is not None:
        answers: list[Answer] = []
        first, begun = 0, time.monotonic()
        for place, number in enumerate(numbers.tolist()):
            try:
                answer, in_jax = evaluate(search.x[number].copy())
            except BaseException:
                if answers:
                    yield _answers(numbers[first:place].tolist(), answers)
                raise
            undecided &= in_jax
            answers.append(answer)
            if time.monotonic() - begun >= TOGETHER or place == len(numbers) - 1:
                yield _answers(numbers[first : place + 1].tolist(), answers)
                answers, first, begun = [], place + 1, time.monotonic()
        if undecided and len(numbers) > 1:
            undecided = False
            if not footprint.has_changed():
                compiled, _ = _compiled(cost_fn, options)
                if compiled is not None:
                    yield from _by_generation(search, compiled)
                    return


def _by_generation(search: Search, evaluate: Callable[[np.ndarray], Answers]) -> Iterator[Answers]:
    while (numbers := _next(search)) is not None:
        yield evaluate(search.x[numbers])._replace(numbers=numbers)


def _next(search: Search) -> np.ndarray | None:
    """Return the points of a generation that wait for their costs, None for none."""
    taken = search.take(2**31)
    waiting = search.waiting
    return waiting if len(waiting) else taken


def _side_by_side(
    search: Search,
    submit: Callable[[np.ndarray], Any],
    number: int,
    timeout: float,
    deadline: float,
) -> Iterator[Answers]:
    """Keep `number` points in work, without waiting for a generation's slowest."""
    pending: dict[Any, int] = {}
    begun: dict[Any, float] = {}
    waiting = search.waiting.tolist()  # those that an interrupted search has handed out

    def fill(ahead: bool) -> None:
        while len(pending) < number:
            if not waiting:
                taken = search.take(number - len(pending), ahead)
                waiting.extend([] if taken is None else taken.tolist())
            if not waiting:
                return
            future = submit(search.x[waiting[0]].copy())
            if not callable(getattr(future, "done", None)):
                expected = "submit to return a Future, with done and result"
                raise InputError("executor", expected, type(future).__name__)
            begun[future], pending[future] = time.monotonic(), waiting.pop(0)

    def collected(answers: dict[Any, Answer]) -> Answers:
        numbers = [pending.pop(future) for future in answers]
        return _answers(numbers, list(answers.values()))

    is_ahead = False
    try:
        while True:
            fill(is_ahead)
            if not pending:
                return
            is_idle = len(pending) < number and not is_ahead
            oldest = min(begun[future] for future in pending)
            end = min(deadline, oldest + timeout)
            left = max(0.0, end - time.monotonic())
            done = _wait(list(pending), min(left, PATIENCE) if is_idle else left)
            now = time.monotonic()
            # Evaluations that take longer than the patience are not waited for each time.
            is_ahead = all(now - begun[each] > PATIENCE for each in done) if done else is_idle
            answers = {future: _result(future) for future in done}
            for future in pending:
                if future not in answers and now >= begun[future] + timeout:
                    future.cancel()
                    answers[future] = Answer(np.nan, 0, TimeoutError(f"over {timeout:g} s"))
            if answers:
                yield collected(answers)
            if now >= deadline:
                return
    except KeyboardInterrupt:
        answers = {future: _result(future) for future in pending if future.done()}
        if answers:
            yield collected(answers)
        raise


def _wait(futures: list, seconds: float) -> list:
    """Wait for the first of them to end, for so many seconds at most."""
    if all(isinstance(future, Future) for future in futures):
        limit = None if seconds == np.inf else seconds
        return list(wait(futures, limit, return_when=FIRST_COMPLETED).done)
    end = time.monotonic() + seconds
    while not (done := [future for future in futures if future.done()]):
        if time.monotonic() >= end:
            return []
        time.sleep(min(POLL, max(0.0, end - time.monotonic())))
    return done


def _result(future: Any) -> Answer:
    try:
        return future.result()
    except NoCost:
        raise
    except Exception as error:
        return Answer(np.nan, 0, error)


@contextmanager
def _submitter(
    cost_fn: Callable, options: Options
) -> Iterator[tuple[Callable[[np.ndarray], Any], int]]:
    """Start worker processes, or take the executor: submit, and how many points it works on."""
    returned = options.constraints == "returned"
    evaluate = _Sent(partial(_cost, cost_fn, options.space, returned))
    number = options.workers
    if options.executor is not None:
        number = number or getattr(options.executor, "_max_workers", None) or os.cpu_count() or 1
        yield partial(options.executor.submit, evaluate), number
        return
    try:
        host.packed(cost_fn)
    except InputError as error:
        raise InputError("workers, cost_fn", error.expected, error.seen) from None
    with host.executor(evaluate, num_workers=number, timeout=options.timeout) as submit:
        yield submit, number or 1


class _Sent:
    """A function that any executor can send to other processes, a lambda too."""

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __reduce__(self) -> tuple:
        return cloudpickle.loads, (cloudpickle.dumps(self.function),)


def _compiled(cost_fn: Callable, options: Options) -> tuple[Callable | None, str]:
    """Compile the function, or return None and the reason why it cannot be."""
    space, values = options.space, options.space.values
    returned = options.constraints == "returned"
    mapped = in_jax(cost_fn, space, options.batched, returned)
    dtype = jnp.result_type(float)
    digits = jnp.finfo(dtype).nmant + 1
    if np.any(values.whole & (np.maximum(abs(values.low), abs(values.high)) > 2.0**digits)):
        return None, f"whole numbers beyond 2**{digits}, which {dtype} does not hold"
    shape = jax.ShapeDtypeStruct((2, space.num_values), dtype)
    try:
        trace = programs.trace(mapped, shape)
        if not trace.is_same(programs.trace(mapped, shape)):
            return None, "one that is another program each time it is traced"
    except Exception as error:
        return None, f"{type(error).__name__}: {error}".split("\n", 1)[0]
    settings = space.key, options.batched, returned
    run = programs.compiled(cost_fn, settings, trace, lambda: jax.jit(mapped))

    sizes: set[int] = set()

    def evaluate(x: np.ndarray) -> Answers:
        # Every size is a program: one that is up to twice as large is taken where there is one. The
        # generations of all optima have so many sizes that powers of two have to do.
        count = len(x)
        size = min((each for each in sizes if count <= each <= 2 * count), default=count)
        size = 2 ** (count - 1).bit_length() if options.optima == "all" else size
        sizes.add(size)
        padded = np.resize(x, (size, x.shape[1]))
        costs, constraints = (np.asarray(part)[:count] for part in run(padded))
        return _of_all(costs.astype(float), violation(constraints))

    return evaluate, ""


def in_jax(
    cost_fn: Callable, space: Space, batched: bool = False, returned: bool = False
) -> Callable[[Any], tuple[jax.Array, jax.Array]]:
    """Make the function of x `[N, P]` that gives costs `[N]` and constraints `[N, C]`, to trace."""

    def one(x: jax.Array) -> Any:
        return check_tree("cost_fn", cost_fn(as_taken(space, x)))

    function = one if batched else jax.vmap(one)

    def mapped(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        costs, constraints = _parted(function(x), returned)
        costs = check_array("cost_fn", costs, "a number")
        constraints = check_array("cost_fn", constraints, "numbers as constraints")
        if costs.shape not in (x.shape[:1], (*x.shape[:1], 1)):
            raise NoCost(
                "cost_fn", "a number", f"shape {costs.shape if batched else costs.shape[1:]}"
            )
        return costs.reshape(x.shape[:1]), constraints.reshape(len(x), -1)

    return mapped


def _parted(value: Any, returned: bool) -> tuple[Any, Any]:
    """Part a cost from the constraints that are returned with it; none where none are."""
    if not returned:
        return value, np.zeros(np.shape(value))
    try:
        cost, constraints = value
    except (TypeError, ValueError):
        expected = "(cost, constraints), as constraints='returned' says"
        raise NoCost("cost_fn", expected, _described(value)) from None
    return cost, constraints


def _answers(numbers: list[int], answers: list[Answer]) -> Answers:
    costs, broken, errors, seconds = zip(*answers, strict=True)
    values = (np.array(column, float) for column in (costs, broken, seconds))
    costs, broken, seconds = values
    return Answers(np.array(numbers), costs, broken, errors, seconds)


def _of_all(costs: np.ndarray, broken: np.ndarray, error: BaseException | None = None) -> Answers:
    """Make the answers of points that were evaluated together, whose numbers are to come."""
    nothing = np.empty(0, int)
    return Answers(nothing, costs, broken, [error] * len(costs), np.full(len(costs), np.nan))


def _cost(cost_fn: Callable, space: Space, returned: bool, x: np.ndarray) -> Answer:
    """Evaluate one point `[P]`, in a worker process too; raise what the function raises."""
    begin = time.perf_counter()
    return _answer(cost_fn(as_taken(space, x)), returned, begin)


def _answer(whole: Any, returned: bool, begin: float) -> Answer:
    value, constraints = _parted(whole, returned)
    cost, broken = _number(value), _broken(constraints) if returned else 0.0
    return Answer(cost, broken, seconds=time.perf_counter() - begin)


def _evaluated(
    cost_fn: Callable, space: Space, returned: bool, x: np.ndarray
) -> tuple[Answer, bool]:
    """Evaluate one point `[P]`: the answer, and whether it is an array of JAX's."""
    begin = time.perf_counter()
    try:
        whole = cost_fn(as_taken(space, x))
    except (Exception, SystemExit) as error:  # as in a worker process
        return Answer(np.nan, 0, error, time.perf_counter() - begin), False
    answer = _answer(whole, returned, begin)
    return answer, isinstance(whole[0] if returned else whole, jax.Array)


def _together(cost_fn: Callable, options: Options, x: np.ndarray) -> Answers:
    """Call a function of all points `[N, P]` at once; NaN for all where it raises."""
    try:
        values = cost_fn(as_taken(options.space, x))
    except (Exception, SystemExit) as error:
        return _of_all(np.full(len(x), np.nan), np.zeros(len(x)), error)
    returned = options.constraints == "returned"
    costs, constraints = _parted(values, returned)
    if np.shape(costs) not in (x.shape[:1], (*x.shape[:1], 1)):
        expected = f"costs of shape {x.shape[:1]}, as batched=True says"
        raise NoCost("cost_fn", expected, _described(costs))
    broken = _broken(np.reshape(constraints, (len(x), -1))) if returned else np.zeros(len(x))
    return _of_all(np.array([_number(cost) for cost in costs]), broken)


def _broken(constraints: Any) -> Any:
    try:
        return violation(np.atleast_1d(np.asarray(constraints, float)))
    except (TypeError, ValueError):
        expected = "numbers as constraints"
        raise NoCost("cost_fn", expected, _described(constraints)) from None


def _number(value: Any) -> float:
    """Convert a cost, a number or an array of one, to a Python number."""
    if isinstance(value, Real):
        try:
            return float(value)
        except OverflowError:  # an int of over 1e308
            return np.inf
    array = np.asarray(value)
    is_number = array.dtype.kind in "biu" or jnp.issubdtype(array.dtype, jnp.floating)
    if array.shape not in ((), (1,)) or not is_number:
        raise NoCost("cost_fn", "a real number", _described(value))
    return float(array.reshape(()))


def _described(value: Any) -> str:
    shape = f" of shape {np.shape(value)}" if isinstance(value, np.ndarray | jax.Array) else ""
    return f"{value!r:.60}{shape}, {type(value).__name__}"
