"""`minimize` and `maximize`: an answer in one call."""

import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from diffevo_jax.checks import InputError, check_takes
from diffevo_jax.optimize.ask_tell import Search
from diffevo_jax.optimize.evaluate import evaluations
from diffevo_jax.optimize.known import known_points
from diffevo_jax.optimize.options import Options, takes_options
from diffevo_jax.optimize.progress import progress_bar
from diffevo_jax.optimize.recording import recorded
from diffevo_jax.optimize.result import MaximizeResult, Result, in_values
from diffevo_jax.optimize.stage import SHARE


@takes_options(Options)
def minimize(cost_fn: Callable[..., Any], options: Options) -> Result:
    """Minimise a function of bounded parameters within a number of evaluations.

        result = de.minimize(cost, [(-5, 5)] * 12, evaluations=2000)
        result = de.minimize(train, {"rate": (1e-5, 1e-1), "layers": (1, 8)}, evaluations=200,
                             log=["rate"], integers=["layers"])

    Diffusion Evolution in the box, then CMA-ES from its best, helped by a quadratic model of the
    cost; up to 100 evaluations a parameter the model and CMA-ES alone. Neither the cost's unit nor
    its offset matters. Needs pycma, and evosax for a single parameter:
    `pip install "diffevo-jax[minimize]"`.

    cost_fn: parameters -> cost, lower is better. In NumPy, or anything else that Python calls, or
        in JAX: see jit. Evaluations that raise, or give NaN or an infinite number, count, and the
        search goes on: `Result.failures`.
    bounds: `[D, 2]`, a (low, high) for each parameter, for a cost_fn of an array `[D]`; or a
        pytree, a dict for example, for a cost_fn of the same pytree, whose leaves are
        (low, high), numbers or arrays of one shape; (low, high, step); a range of whole numbers,
        which are ints; a list of options, `["rbf", "poly"]`, or `optimize.choice` of values,
        ranges or templates of their own; a value by itself, which stays as it is.
    evaluations: of cost_fn, exactly so many, unless `target`, `seconds` or `callback` ends it, or
        the space has fewer points: none is evaluated twice where all parameters have steps.
    key, seed: a PRNG key, or a number, for the same draws again; seed 0 by default.
    integers, log: which parameters are whole numbers, which are searched by their logarithm: by
        index, or by name in a pytree, nested ones as "layer/rate". A whole number is an int in a
        leaf of its own, and in an array of whole numbers alone; among others in one array it is a
        float.
    optima: "one", or "all" for every distinct optimum (`Result.optima`; `Result.global_optima` are
        as good as the best), with 1,000 evaluations a parameter or more; for the best alone "one"
        is much quicker.
    initial: parameters to evaluate first, as cost_fn takes them, or a list of several; the middle
        of the box, or a random point, by default.
    step: the first standard deviation of a search around `initial`, as a share of each
        parameter's side, (0, 1]; without it the whole box is searched first.
    known: what is known already, and is not paid for: (parameters, cost) pairs, a pandas table with
        a column "cost", or "value" to maximize, the path of a journal, or a study of Optuna.
    constraints: functions g of the parameters, at most 0 where they hold, numbers or arrays: what
        breaks one is not evaluated. Or "returned": cost_fn returns (cost, g); what breaks one
        stands behind all that do not.
    noisy: the cost is another one each time: a fifth of the evaluations goes to the best points
        again, and `Result.cost` is their mean, with `Result.standard_error`.
    batched: cost_fn takes a whole generation, `[N, D]` or leaves `[N, ...]`, and returns `[N]`.
    workers: processes that evaluate side by side, see `optimize.host.executor`; a generation does
        not wait for its slowest. One that dies costs its point, and is replaced. A script calls
        `minimize` below `if __name__ == "__main__":`; they take some seconds to start.
    executor: workers of one's own: what has `submit`, of concurrent.futures, Dask or submitit.
        `workers` is then how many points it works on at once.
    timeout: seconds an evaluation may take; beyond it is a failure, and its process is ended.
    seconds: after which the search ends, with what is known by then.
    jit: True compiles cost_fn with JAX, as jax.jit does: what it prints, logs or draws in Python
        happens while it is traced, not at each point. False never traces it. None compiles it when
        it has answered with a JAX array at every point of the first generation, changed nothing
        that outlives its calls, writes nothing, and two traces of it are the same program.
    target: a cost that is low enough to end at.
    callback: called with the Result so far after each generation; any true answer ends the search.
    journal: a file that has every evaluation as it ends; the same call goes on where it ended, to
        the bit, and one with more evaluations from there. See `diffevo-jax search`.
    progress: show a bar; needs rich, without it a line now and then.

    A keyboard interrupt returns the Result so far, and any exception has it as `result`. Raises
    InputError naming the argument, expected and seen; on answers that are no real number; and where
    no evaluation gives a cost.
    """
    return _search(cost_fn, options, 1.0, lambda result: result)


@takes_options(Options)
def maximize(value_fn: Callable[..., Any], options: Options) -> MaximizeResult:
    """Maximise: `minimize` of -value_fn, with values in place of costs in target and result."""
    try:
        return _search(value_fn, options, -1.0, in_values)
    except InputError as error:
        if error.path == "cost_fn":
            error.path = "value_fn"
        raise


def _search(
    function: Callable[..., Any],
    options: Options,
    sign: float,
    convert: Callable[[Result], Any],
) -> Any:
    """Minimise sign * function; `convert` makes what the caller gets of a Result."""
    check_takes("cost_fn", function, ("parameters",))
    deadline = time.monotonic() + (np.inf if options.seconds is None else options.seconds)
    if sign < 0 and options.known is not None:
        known = known_points(options.space, options.known, "maximize")
        options = replace(options, known=known._replace(costs=-known.costs))
    search, message, first_error = None, None, None
    try:
        with (
            recorded(options, sign) as (search, record),
            progress_bar(options.evaluations if options.progress else None) as show,
            closing(evaluations(search, function, options, deadline)) as answers,
        ):
            message = _reached(search, options, sign)
            while message is None and (some := next(answers, None)) is not None:
                try:
                    record(some)
                finally:
                    search.give(some.numbers, sign * some.costs, some.broken)
                first_error = first_error or next(filter(None, some.errors), None)
                if search.evaluations >= _enough(options) and not search.has_cost:
                    raise _no_cost(search.evaluations, first_error)
                show(search.evaluations, sign * search.lowest)
                message = _reached(search, options, sign)
                if message is None and search.is_between and options.callback is not None:
                    answer = options.callback(convert(search.result))
                    message = "the callback ended it" if _is_true(answer) else None
                if message is None and time.monotonic() >= deadline:
                    message = _over(options)
    except KeyboardInterrupt:
        if search is None or not search.evaluations:
            raise
        message = "interrupted"
    except Exception as error:
        with suppress(Exception):  # some exceptions take no attribute
            assert search is not None
            error.result = convert(search.result)  # pyright: ignore[reportAttributeAccessIssue]
        raise
    result = search.result
    if message is None and len(search.waiting):
        message = _over(options)
    if message is None:
        message = result.message
        if first_error is not None:
            raised = f"{type(first_error).__name__}: {first_error}"
            message = f"{message}; the first failure raised {raised}"
    return convert(result._replace(message=message))


def _over(options: Options) -> str:
    return f"{options.seconds:g} seconds are over"


def _reached(search: Search, options: Options, sign: float) -> str | None:
    """Return the message of a target that is reached."""
    if options.target is None or not search.lowest <= sign * options.target:
        return None
    return f"the target {options.target:g} is reached"


def _enough(options: Options) -> int:
    """Return after how many failures, without any cost, a search ends."""
    return min(options.evaluations, max(10, int(np.ceil(SHARE * options.evaluations))))


def _is_true(answer: Any) -> bool:
    try:
        return bool(answer)
    except Exception as error:
        expected = "an answer that is true or false"
        raise InputError("callback", expected, f"{answer!r:.60} ({error})") from error


def _no_cost(count: int, error: BaseException | None) -> InputError:
    if error is None:
        return InputError(
            "cost_fn",
            "a finite number somewhere inside bounds",
            f"NaN or an infinite number at all of the first {count} points",
            "narrow bounds to where it has one, or give such a point as initial",
        )
    refused = InputError(
        "cost_fn",
        "a number for parameters inside bounds",
        f"{type(error).__name__}: {error}, or another, at all of the first {count} points",
        "call it by itself with such parameters; one that takes JAX arrays alone needs jit=True",
    )
    refused.__cause__ = error
    return refused
