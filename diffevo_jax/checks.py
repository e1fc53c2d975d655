"""Types of settings, and checks; they look at values only where these are not traced."""

import difflib
import inspect
import math
import operator
import warnings
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


class InputError(ValueError):
    """A value that an argument or a setting does not take.

    path: the argument, or a setting by its dotted place, "algorithm.eta". expected: what it may be.
    seen: the value in its place. advice: what to do, where that does not follow.
    """

    def __init__(self, path: str, expected: str, seen: Any, advice: str = ""):
        super().__init__(path, expected, str(seen), advice)
        self.path, self.expected, self.seen, self.advice = self.args

    def __str__(self) -> str:
        """Put the fields on one line."""
        ending = f"; {self.advice}" if self.advice else ""
        return f"{self.path}: expected {self.expected}; seen {self.seen}{ending}"


class Interval(NamedTuple):
    """The numbers that a setting takes, as its signature states them for the configs.

    closed: "[]", "()", "[)" or "(]": which of the ends belong to the interval.
    """

    low: float
    high: float
    closed: str = "[]"


# Settings of factories, as their signatures state them; a jax.Array is a traced number.
Number = float | jax.Array
Positive = Annotated[Number, Interval(0, math.inf, "()")]
NonNegative = Annotated[Number, Interval(0, math.inf, "[)")]
Fraction = Annotated[Number, Interval(0, 1)]
Share = Annotated[Number, Interval(0, 1, "(]")]
# Advice where an algorithm asks how individuals behave.
TELL_BEHAVIOUR = (
    'a fitness function returns it beside: (fitness, {"descriptors": [N, k]}), with has_aux=True'
)
# What JAX raises where Python asks a tracer for its value.
NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
# Sizes have 32 bits.
Count = Annotated[int, Interval(1, 2**31, "[)")]
VMAP = "jax.vmap(fn) takes a population where fn takes one genome"


def is_traced(value) -> bool:
    """Whether `value` stands for an array that is only known when the compiled function runs."""
    return isinstance(value, Tracer)


def concrete(value) -> np.ndarray | None:
    """`value` as a NumPy array where it is known at trace time and to this process, else None."""
    if is_traced(value) or not getattr(value, "is_fully_addressable", True):
        return None
    return np.asarray(value)


def check_number(name: str, value, low: float, high: float, *, closed: str = "[]") -> None:
    """Raise InputError unless a concrete `value` is one number from low to high.

    closed: "[]", "()", "[)" or "(]": which of the ends belong to the interval.
    """
    number = concrete(value)
    if number is None:
        return
    real = jnp.issubdtype(number.dtype, jnp.integer) or jnp.issubdtype(number.dtype, jnp.floating)
    if not real:
        raise InputError(name, "a number", repr(value))
    expected = f"a number in {closed[0]}{low:g}, {high:g}{closed[1]}"
    if not math.isfinite(low):
        expected = "a finite number"
    elif not math.isfinite(high):
        expected = f"a finite number above {low:g}"
        if closed == "[)":
            expected = f"a finite number of {low:g} or more"
    inside = number.shape == () and low <= number <= high
    if not inside or (number == low and closed[0] == "(") or (number == high and closed[1] == ")"):
        raise InputError(name, expected, value)


def check_count(name: str, value, least: int = 1, most: int | None = None) -> int:
    """Return `value`, an integer of any kind; raise InputError unless it is `least` or more.

    most: the largest that it may be; None for no end.
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = None
    if count is None or count < least or (most is not None and count > most):
        expected = f"of at least {least}" if most is None else f"from {least} to {most}"
        seen = repr(value) if isinstance(value, str) else value
        raise InputError(name, f"an integer {expected}", seen)
    return count


def check_array(
    name: str, value: Any, expected: str, advice: str = "", *, real: bool = True
) -> jax.Array:
    """Return `value` as an array; raise InputError unless it is one, of real numbers if need be."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError, OverflowError):
        is_container = isinstance(value, dict | list | tuple)
        kind = type(value).__name__
        seen = f"a {kind} that makes no array" if is_container else f"{value!r:.60}"
        raise InputError(name, expected, seen, advice) from None
    if real and jnp.iscomplexobj(array):
        raise InputError(name, "real numbers", array.dtype)
    return array


def check_tree(name: str, tree: Any) -> Any:
    """Return a pytree with its leaves as arrays; raise InputError where one is no array."""
    return jax.tree.map(
        lambda leaf: check_array(name, leaf, "a pytree of arrays", real=False), tree
    )


def check_takes(
    name: str, function: Any, arguments: Iterable[str], because: str = "", advice: str = ""
) -> None:
    """Raise InputError where a user's function does not take what it will be called with."""
    arguments = tuple(arguments)
    expected = f"a function of ({', '.join(arguments)}){because}"
    if not callable(function):
        raise InputError(name, expected, f"{function!r:.80}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise InputError(name, expected, signature, advice) from None


def check_key(key: Any) -> jax.Array:
    """Return `key`; raise InputError unless it is one PRNG key, of either style of JAX."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", ())
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and not _is_key_data(key):
        number = isinstance(key, int | np.integer) and not isinstance(key, bool)
        example = f"jax.random.key({key if number else 0})"
        raise InputError("key", f"a PRNG key, {example}", f"{key!r:.60}")
    if len(shape) != (0 if typed else 1):
        raise InputError(
            "key", "one PRNG key", f"an array of keys, {shape}", "jax.vmap makes a run of each"
        )
    return key


def _is_key_data(key: Any) -> bool:
    """Whether these are the numbers of keys of JAX's default generator."""
    if getattr(key, "dtype", None) != np.uint32:
        return False
    try:
        jax.random.wrap_key_data(key)
    except TypeError:  # of another generator
        return False
    return True


def check_population(population) -> jax.Array:
    """Return a population as an array; raise InputError unless it is finite, `[N, D]`, N >= 2.

    Warns where JAX rounds NumPy's float64.
    """
    traced, original = is_traced(population), population
    population = check_array(
        "population",
        population,
        "an array [N, D]",
        "diffevo_jax.genome makes genomes of a tree of parameters",
    )
    if getattr(original, "dtype", None) == np.float64 != population.dtype:
        warnings.warn(
            "population: float64 is rounded to float32. For float64, call "
            'jax.config.update("jax_enable_x64", True) before anything else of JAX; '
            "if float32 will do, pass population.astype(numpy.float32)",
            stacklevel=2,
        )
    if population.ndim != 2 or len(population) < 2 or not population.size:
        raise InputError("population", "shape [N, D] with N >= 2, D >= 1", population.shape)
    if not jnp.issubdtype(population.dtype, jnp.floating) or population.itemsize < 2:
        expected = "floating-point genomes of 16 bits or more"
        raise InputError("population", expected, population.dtype)
    if not traced:
        with jax.ensure_compile_time_eval():
            bad = int(jnp.sum(~jnp.all(jnp.isfinite(population), axis=1)))
        if bad:
            raise InputError("population", "finite genomes", f"{bad} rows with NaN or infinity")
    return population


def call_in_jax(name: str, function: Callable, *args: Any, otherwise: str = "") -> Any:
    """Call a user's function while tracing, and raise InputError where it needs values for that.

    otherwise: what else can be done with a function in NumPy or Python, beginning with "; or".
    """
    try:
        return function(*args)
    except NEEDS_VALUES as error:
        raise InputError(
            name,
            "a function in JAX, for it is compiled",
            "one that asks for values while it is traced, as NumPy, float() and `if` do",
            f"write it with jax.numpy{otherwise}",
        ) from error


def call_on_population(name: str, function: Callable, *args: Any, otherwise: str = "") -> Any:
    """Do `call_in_jax`, the last argument `[N, D]`; raise InputError where one genome is taken."""
    try:
        return call_in_jax(name, function, *args, otherwise=otherwise)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        *before, population = args
        try:
            of_one = jax.eval_shape(function, *before, population[0])
        except Exception:  # whatever it is, it fails on one genome too
            raise error from None
        if any(leaf.shape for leaf in jax.tree.leaves(of_one)[:1]):
            raise
        expected, seen = "a function of a population [N, D]", "one that takes one genome [D]"
        raise InputError(name, expected, seen, VMAP) from error


def nearest(word: str, choices: Iterable) -> str:
    """Say "; did you mean ...?" where a choice begins with the word, or is close, else nothing."""
    choices = [str(choice) for choice in choices]
    close = [choice for choice in choices if len(word) > 2 and choice.startswith(word)]
    close += difflib.get_close_matches(word, choices, 1, 0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
