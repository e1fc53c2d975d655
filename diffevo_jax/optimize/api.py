"""`minimize` and `maximize`: an answer in one call."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import jax
import numpy as np

from diffevo_jax.optimize.engine import SHARE
from diffevo_jax.optimize.evaluate import evaluator
from diffevo_jax.optimize.host import packed
from diffevo_jax.optimize.progress import progress_bar
from diffevo_jax.optimize.result import Result
from diffevo_jax.optimize.session import Optima, session
from diffevo_jax.optimize.space import make_space


def minimize(
    cost_fn: Callable[..., Any],
    bounds: Any,
    *,
    evaluations: int,
    key: jax.Array | None = None,
    seed: int | None = None,
    integers: Sequence[int | str] = (),
    log: Sequence[int | str] = (),
    batched: bool = False,
    workers: int | None = None,
    optima: Optima = "one",
    initial: Any = None,
    target: float | None = None,
    callback: Callable[[Result], Any] | None = None,
    progress: bool = False,
) -> Result:
    """Minimise a function of bounded parameters within a number of evaluations.

        result = de.minimize(cost, [(-5, 5)] * 12, evaluations=2000)
        result = de.minimize(train, {"rate": (1e-5, 1e-1), "layers": (1, 8)}, evaluations=200,
                             log=["rate"], integers=["layers"])

    Diffusion Evolution in the box, then CMA-ES from its best; neither the cost's unit nor its
    offset matters. Wants pycma, and evosax for a single
    parameter and for optima="all": `pip install "diffevo-jax[minimize]"`.

    cost_fn: parameters -> cost, lower is better. In NumPy, or anything else that Python calls; one
        that answers with a JAX array, and can be traced and mapped, is compiled. Evaluations that
        raise, or give NaN or an infinite number, count and are survived: `Result.failures`.
    bounds: `[D, 2]`, a (low, high) for each parameter, for a cost_fn of an array `[D]`; or a
        pytree, a dict for example, whose leaves are (low, high), numbers or arrays of one shape,
        for a cost_fn of the same pytree.
    evaluations: of cost_fn, exactly so many, unless `target` or `callback` ends it.
    key, seed: a PRNG key, or a number to make one from; 0 by default.
    integers, log: which parameters are whole numbers, which are searched by their logarithm: by
        index, or by name in a pytree, nested ones as "layer/rate".
    batched: cost_fn takes a whole generation, `[N, D]` or leaves `[N, ...]`, and returns `[N]`.
    workers: processes that evaluate side by side, see `optimize.host.pool`; a script calls below
        `if __name__ == "__main__":`, and they take some seconds to start. 1 calls cost_fn here, as
        a function of NumPy that is never traced.
    optima: "one", or "all" for every distinct optimum (`Result.optima`), with 1,000 evaluations a
        parameter or more; for the best alone "one" is much quicker.
    initial: parameters to evaluate first, as cost_fn takes them; at random by default.
    target: a cost that is low enough to end at.
    callback: called with the Result so far after each generation; ends the search with True.
    progress: show a bar; needs rich, without it a line now and then.

    A keyboard interrupt returns the Result so far. Raises ValueError naming the argument, expected
    and seen; on answers that are no real number; and where no evaluation gives a cost.
    """
    settings = (evaluations, key, seed, integers, log, batched, workers, optima)
    return _search(1.0, cost_fn, bounds, *settings, initial, target, callback, progress)


def maximize(
    value_fn: Callable[..., Any],
    bounds: Any,
    *,
    evaluations: int,
    key: jax.Array | None = None,
    seed: int | None = None,
    integers: Sequence[int | str] = (),
    log: Sequence[int | str] = (),
    batched: bool = False,
    workers: int | None = None,
    optima: Optima = "one",
    initial: Any = None,
    target: float | None = None,
    callback: Callable[[Result], Any] | None = None,
    progress: bool = False,
) -> Result:
    """Maximise: `minimize` of -value_fn, with values in place of costs in target and Result."""
    settings = (evaluations, key, seed, integers, log, batched, workers, optima)
    return _search(-1.0, value_fn, bounds, *settings, initial, target, callback, progress)


def _search(
    sign: float,
    cost_fn: Callable[..., Any],
    bounds: Any,
    evaluations: int,
    key: jax.Array | None,
    seed: int | None,
    integers: Sequence[int | str],
    log: Sequence[int | str],
    batched: bool,
    workers: int | None,
    optima: Optima,
    initial: Any,
    target: float | None,
    callback: Callable[[Result], Any] | None,
    progress: bool,
) -> Result:
    if not callable(cost_fn):
        raise ValueError(f"cost_fn: expected a function of the parameters; seen {cost_fn!r}")
    if callback is not None and not callable(callback):
        raise ValueError(f"callback: expected a function of the Result so far; seen {callback!r}")
    if target is not None and not (isinstance(target, Real) and target == target):
        raise ValueError(f"target: expected a number; seen {target!r}")
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ValueError(f"workers: expected a whole number of 1 or more; seen {workers!r}")
    if workers is not None and workers > 1:
        if batched:
            raise ValueError(f"workers: expected None or 1 with batched=True; seen {workers}")
        try:
            packed(cost_fn)
        except ValueError as error:
            raise ValueError(f"workers, cost_fn: {error}") from None
    space = make_space(bounds, integers, log)
    with (
        evaluator(cost_fn, space, batched=batched, workers=workers) as costs_of,
        progress_bar(evaluations if progress else None) as show,
    ):
        search = session(space, evaluations, key, seed, optima, initial, sign=sign)
        done, failed, best, first_error = 0, 0, np.inf, None
        try:
            while (x := search.ask()) is not None:
                costs, error = costs_of(x)
                costs = sign * costs
                search.tell(costs)
                first_error = first_error or error
                done, failed = done + len(costs), failed + np.sum(~np.isfinite(costs))
                if failed == done and done >= min(evaluations, max(10, SHARE * evaluations)):
                    raise _no_cost(done, first_error)
                best = min(best, np.min(costs, where=np.isfinite(costs), initial=np.inf))
                show(done, sign * best)
                if target is not None and best <= sign * target:
                    return search.result()._replace(message=f"the target {target:g} is reached")
                if callback is not None and callback(search.result()) is True:
                    return search.result()._replace(message="the callback ended it")
        except KeyboardInterrupt:
            if not done:
                raise
            return search.result()._replace(message="interrupted")
    result = search.result()
    if first_error is None:
        return result
    raised = f"{type(first_error).__name__}: {first_error}"
    return result._replace(message=f"{result.message}; the first failure raised {raised}")


def _no_cost(done: int, error: BaseException | None) -> ValueError:
    if error is None:
        seen = f"NaN or an infinite number at all of the first {done} points"
        return ValueError(
            f"cost_fn: expected a finite number somewhere inside bounds; seen {seen}. "
            "Narrow bounds to where it has one, or give such a point as initial"
        )
    refused = ValueError(
        f"cost_fn: raised at all of the first {done} points; the first time "
        f"{type(error).__name__}: {error}. Call it by itself with parameters inside bounds"
    )
    refused.__cause__ = error
    return refused
