"""`minimize` and `maximize`: an answer in one call."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from diffevo_jax.checks import InputError
from diffevo_jax.optimize.ask_tell import Search
from diffevo_jax.optimize.evaluate import evaluator
from diffevo_jax.optimize.options import Options, takes_options
from diffevo_jax.optimize.progress import progress_bar
from diffevo_jax.optimize.result import MaximizeResult, Result, in_values
from diffevo_jax.optimize.stage import SHARE


@takes_options(Options)
def minimize(cost_fn: Callable[..., Any], options: Options) -> Result:
    """Minimise a function of bounded parameters within a number of evaluations.

        result = de.minimize(cost, [(-5, 5)] * 12, evaluations=2000)
        result = de.minimize(train, {"rate": (1e-5, 1e-1), "layers": (1, 8)}, evaluations=200,
                             log=["rate"], integers=["layers"])

    Diffusion Evolution in the box, then CMA-ES from its best; neither the cost's unit nor its
    offset matters. Needs pycma, and evosax for a single parameter and for optima="all":
    `pip install "diffevo-jax[minimize]"`.

    cost_fn: parameters -> cost, lower is better. In NumPy, or anything else that Python calls, or
        in JAX: see jit. Evaluations that raise, or give NaN or an infinite number, count, and the
        search goes on: `Result.failures`.
    bounds: `[D, 2]`, a (low, high) for each parameter, for a cost_fn of an array `[D]`; or a
        pytree, a dict for example, whose leaves are (low, high), numbers or arrays of one shape,
        for a cost_fn of the same pytree.
    evaluations: of cost_fn, exactly so many, unless `target` or `callback` ends it.
    key, seed: a PRNG key, or a number to make one from; 0 by default.
    integers, log: which parameters are whole numbers, which are searched by their logarithm: by
        index, or by name in a pytree, nested ones as "layer/rate". A whole number is an int in a
        leaf of its own, and in an array of whole numbers alone; among others in one array it is a
        float.
    optima: "one", or "all" for every distinct optimum (`Result.optima`), with 1,000 evaluations a
        parameter or more; for the best alone "one" is much quicker.
    initial: parameters to evaluate first, as cost_fn takes them; at random by default.
    batched: cost_fn takes a whole generation, `[N, D]` or leaves `[N, ...]`, and returns `[N]`.
    workers: processes that evaluate side by side, see `optimize.host.pool`. A script calls
        `minimize` below `if __name__ == "__main__":`; they take some seconds to start.
    jit: True compiles cost_fn with JAX, as jax.jit does: what it prints, logs or draws in Python
        happens while it is traced, not at each point. False never traces it. None compiles it when
        it has answered with a JAX array at every point of the first generation, and two traces of
        it are the same program.
    target: a cost that is low enough to end at.
    callback: called with the Result so far after each generation; any true answer ends the search.
    progress: show a bar; needs rich, without it a line now and then.

    A keyboard interrupt returns the Result so far, and any exception has it as `result`. Raises
    InputError naming the argument, expected and seen; on answers that are no real number; and where
    no evaluation gives a cost.
    """
    return _search(cost_fn, options, 1.0, lambda result: result)


@takes_options(Options)
def maximize(value_fn: Callable[..., Any], options: Options) -> MaximizeResult:
    """Maximise: `minimize` of -value_fn, with values in place of costs in target and result."""
    return _search(value_fn, options, -1.0, in_values)


def _search(
    function: Callable[..., Any],
    options: Options,
    sign: float,
    convert: Callable[[Result], Any],
) -> Any:
    """Minimise sign * function; `convert` makes what the caller gets of a Result."""
    if not callable(function):
        raise InputError("cost_fn", "a function of the parameters", repr(function))
    search = Search(options.bounds, **options.of_search())
    message, first_error = None, None
    try:
        with (
            evaluator(function, options) as evaluate,
            progress_bar(options.evaluations if options.progress else None) as show,
        ):
            while message is None and search.waiting is not None:
                costs, error = evaluate(search.waiting)
                search.tell(sign * costs)
                first_error = first_error or error
                best = search.lowest
                if best != best and search.evaluations >= _enough(options.evaluations):
                    raise _no_cost(search.evaluations, first_error)
                show(search.evaluations, sign * best)
                if options.target is not None and best <= sign * options.target:
                    message = f"the target {options.target:g} is reached"
                elif options.callback is not None and _is_true(
                    options.callback(convert(search.result))
                ):
                    message = "the callback ended it"
    except KeyboardInterrupt:
        if not search.evaluations:
            raise
        message = "interrupted"
    except Exception as error:
        with suppress(Exception):  # some exceptions take no attribute
            error.result = convert(search.result)  # pyright: ignore[reportAttributeAccessIssue]
        raise
    result = search.result
    if message is None:
        message = result.message
        if first_error is not None:
            raised = f"{type(first_error).__name__}: {first_error}"
            message = f"{message}; the first failure raised {raised}"
    return convert(result._replace(message=message))


def _enough(evaluations: int) -> int:
    """Return after how many failures, without any cost, a search ends."""
    return min(evaluations, max(10, int(np.ceil(SHARE * evaluations))))


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
