"""A search on disk: its evaluations in a journal, from which the same call goes on.

A search is a function of its options and of the costs in the order in which they come, so the
journal's costs, told again, bring it to where it was, to the bit. Where its points are not those of
the journal, on another machine for example, what the journal has is known beforehand.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import takewhile
from typing import Any

import jax
import numpy as np

from diffevo_jax.optimize.arrays import joined
from diffevo_jax.optimize.ask_tell import Search
from diffevo_jax.optimize.evaluate import Answers
from diffevo_jax.optimize.journal import Journal, check_records
from diffevo_jax.optimize.known import known_records
from diffevo_jax.optimize.options import Options
from diffevo_jax.optimize.space import Space, columns

Record = dict[str, Any]


@contextmanager
def recorded(options: Options, sign: float) -> Iterator[tuple[Search, Callable[[Answers], None]]]:
    """Begin a search, or bring it to where its journal ends; yield it, and what records answers."""
    if options.journal is None:
        yield Search(options.bounds, **options.of_search()), lambda answers: None
        return
    header = _header(options, sign)
    with Journal(options.journal, header) as journal:
        check_records(options.journal, header, journal.records)
        search = _resumed(options, journal, sign)

        def record(answers: Answers) -> None:
            if options.space.template is None and _are_plain(search, options, answers):
                journal.append_points(search.x[answers.numbers], answers.costs)
            else:
                journal.append_all(_records(search, options, answers))

        yield search, record


def _header(options: Options, sign: float) -> Record:
    """Describe what a journal belongs to: all that decides where the search goes."""
    seed: Any = options.seed or 0
    if options.key is not None:
        seed = np.asarray(jax.random.key_data(options.key)).tolist()
    known = options.known_points()
    constraints: Any = options.constraints
    return {
        "parameters": options.space.description(),
        "maximize": sign < 0,
        "seed": seed,
        "optima": options.optima,
        "initial": options.first_points().tolist(),
        "step": options.step,
        "known": sha256(b"".join(part.tobytes() for part in known)).hexdigest()[:16],
        "constraints": constraints if constraints == "returned" else len(constraints),
        "noisy": options.noisy,
    }


def _are_plain(search: Search, options: Options, answers: Answers) -> bool:
    """Whether each is the next point, and has a cost and nothing else that is worth a word.

    The time of one of several that ended together is next to none.
    """
    numbers, count = answers.numbers, len(answers.numbers)  # in their order
    return (
        count > 1
        and not options.is_parallel
        and numbers[0] == search.evaluations == numbers[-1] - count + 1
        and not answers.broken.any()
        and bool(np.isfinite(answers.costs).all())
    )


def _records(search: Search, options: Options, answers: Answers) -> list[Record]:
    """Turn answers into records: the point, what it gave, and its number where it is not the next.

    With workers also how many were handed out by then, which decides what the search knew.
    """
    points = _points(options.space, search.x[answers.numbers])
    if _are_plain(search, options, answers):
        pairs = zip(points, answers.costs.tolist(), strict=True)
        return [{"x": x, "cost": cost} for x, cost in pairs]
    records = []
    for place, (x, number, cost, broken, error, seconds) in enumerate(
        zip(points, *answers, strict=True)
    ):
        record: Record = {"x": x, "cost": float(cost)}
        if broken:
            record["broken"] = float(broken)
        if error is not None:
            record["error"] = f"{type(error).__name__}: {error}"
        if np.isfinite(seconds):
            record["seconds"] = round(float(seconds), 6)
        if options.is_parallel or number != search.evaluations + place:
            record |= {"number": int(number), "handed": search.handed}
        records.append(record)
    return records


def _points(space: Space, x: np.ndarray) -> list[Any]:
    """Turn values `[N, P]` into what JSON has: a list, or name -> value, for each point."""
    if space.template is None:
        return x.tolist()
    table = {name: values.tolist() for name, values in columns(space, x).items()}
    return [
        {name: values[place] for name, values in table.items() if values[place] is not None}
        for place in range(len(x))
    ]


def _resumed(options: Options, journal: Journal, sign: float) -> Search:
    """Bring a search to where its journal ends."""
    restarts = [place for place, record in enumerate(journal.records) if "restart" in record]
    begin = restarts[-1] + 1 if restarts else 0
    earlier = [record for record in journal.records[:begin] if "x" in record]
    search = _begun(options, earlier, journal.records[begin:], sign)
    if not _replay(search, options.space, journal.records[begin:], sign):
        earlier = [record for record in journal.records if "x" in record]
        search = _begun(options, earlier, [], sign)
        journal.append({"restart": len(earlier)})
    budget = search.evaluations_in_all
    left = max(search.evaluations, options.evaluations - len(earlier))
    if budget != left or not journal.records:
        journal.append({"evaluations": options.evaluations - len(earlier)})
        search.extend(left)
    return search


def _begun(options: Options, earlier: list[Record], later: list[Record], sign: float) -> Search:
    """Begin a search with the budget that the journal has first, knowing the earlier records."""
    settings = options.of_search()
    budgets = [record["evaluations"] for record in later if "evaluations" in record]
    if budgets:
        settings["evaluations"] = budgets[0]
    if earlier:
        known = known_records(options.space, earlier)
        known = known._replace(costs=sign * known.costs)
        settings["known"] = joined(options.known_points(), known)
    return Search(options.bounds, **settings)


def _replay(search: Search, space: Space, records: list[Record], sign: float) -> bool:
    """Tell a search the records' costs; return whether it asks for their points."""
    place = 0
    while place < len(records):
        record = records[place]
        if "evaluations" in record:
            search.extend(record["evaluations"])
            place += 1
            continue
        if "number" in record:
            numbers, same = np.array([record["number"]]), [record]
            while search.handed < record["handed"]:
                taken = search.take(record["handed"] - search.handed, ahead=True)
                if taken is None or not len(taken):
                    return False
        else:  # the next of the generation
            search.take(2**31)
            numbers = search.waiting
            same = list(takewhile(_is_next, records[place : place + len(numbers)]))
            numbers = numbers[: len(same)]
        is_waiting = len(same) and np.all(np.isin(numbers, search.waiting))
        if not is_waiting or _points(space, search.x[numbers]) != [each["x"] for each in same]:
            return False
        costs = [np.nan if record["cost"] is None else sign * record["cost"] for record in same]
        broken = [record.get("broken", 0.0) for record in same]
        broken = [np.inf if each is None else each for each in broken]  # JSON has no infinity
        search.give(numbers, np.array(costs), np.array(broken))
        place += len(same)
    return True


def _is_next(record: Record) -> bool:
    return "x" in record and "number" not in record
