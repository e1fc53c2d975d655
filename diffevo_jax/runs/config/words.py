"""What a run's header, table and axes say: what is really run, not what the file was made for."""

import copy
from collections.abc import Callable
from typing import Any

# Settings of a problem that say how it is met, not what is measured: runs that differ in these
# alone can be held against each other. Of other kinds of problem every setting counts.
HOW = {
    "control": (
        *("policy", "scale", "num_episodes", "shared_starts", "observations", "fast_trig"),
        "success",
    ),
    "function": ("scale", "limit", "success"),
    "bbob": ("scale", "limit", "success"),
}
_EVOLVES = ("population", "problem", "algorithm")
# Overrides under which a config is still what its description says.
_FREE = (
    *("name", "description", "seed", "repeats", "checkpoint", "figure", "save_populations"),
    *("save_x0", "sweep.seeds", "sweep.slurm", "sweep.points_per_job", "sweep.runs_per_call"),
)
_LONGEST = 60


def measured(problem: dict[str, Any]) -> dict[str, Any]:
    """Those settings of a problem that say what its fitness is."""
    how = HOW.get(str(problem.get("kind")), ())
    return {key: value for key, value in problem.items() if key not in how}


def measure(problem: Any) -> str:
    """What a problem's fitness is called: the reward of a control task, else the fitness."""
    return "reward" if get(problem, "kind") == "control" else "fitness"


def title(problem: Any) -> str:
    """Name a problem: its environment, its function and dimension, or its kind."""
    kind = get(problem, "kind")
    dim = get(problem, "dim")
    match kind:
        case "control":
            return str(get(problem, "environment"))
        case "function":
            return f"{str(get(problem, 'name')).replace('_', ' ')}, {dim} dimensions"
        case "bbob":
            return f"BBOB {get(problem, 'function')}, {dim} dimensions"
    return str(kind).replace("_", " ")


def header(config: Any, lengths: dict[str, int]) -> str:
    """Say what is run: on which problem, how many individuals, generations and repeats.

    config: a RunConfig. lengths: generations, by method.
    """
    methods = list(config.methods.values())
    problems = list(dict.fromkeys(title(method.problem) for method in methods))
    shown = "; ".join(problems[:3]) + ("; ..." if len(problems) > 3 else "")
    repeats = "1 repeat" if config.repeats == 1 else f"{config.repeats} repeats"
    many = "" if len(methods) == 1 else f" of {len(methods)} methods"
    return (
        f"{shown}: {_span(method.population for method in methods)} individuals, "
        f"{_span(lengths.values())} generations, {repeats}{many}"
    )


def restate(
    before: dict[str, Any],
    data: dict[str, Any],
    overrides: dict[str, Any],
    texts: list[str],
    expand: Callable[[dict], dict],
) -> dict[str, Any]:
    """Make the words of an overridden config follow what it runs; returns it.

    before: as the file has it. overrides: by their dotted keys. texts: as they were given.
    expand: moves shared settings into each method.
    Where another problem is measured, what the file says of axes goes, and of a control task the
    success, which was the other task's; where a method's settings change, so does what it was to
    be held against. The description says what was changed.
    """
    told = {key: value for key, value in overrides.items() if not key.startswith(_FREE)}
    if not told or not isinstance(before.get("description", ""), str):
        return data
    data = copy.deepcopy(data)
    old, new = _methods(expand(before)), _methods(expand(data))
    written = data["methods"] if isinstance(data.get("methods"), dict) else {}
    for name, method in written.items():
        same = name in old and all(old[name].get(k) == new[name].get(k) for k in _EVOLVES)
        if isinstance(method, dict) and not same and not _sets(overrides, "reference"):
            method.pop("reference", None)
    note = ""
    if any(_problem(old.get(name)) != _problem(new[name]) for name in new):
        given = overrides.get("figure")
        data["figure"] = dict(given) if isinstance(given, dict) else {}
        data["figure"] |= {
            key.split(".")[1]: value for key, value in overrides.items() if key.count(".") == 1
            and key.startswith("figure.")
        }  # fmt: skip
        if not _sets(overrides, "success"):
            places = [(before, data)]
            of_before = before.get("methods")
            of_before = of_before if isinstance(of_before, dict) else {}
            places += [(of_before.get(name), method) for name, method in written.items()]
            if any([_forget_success(*place) for place in places]):
                note = "; no success is defined (--set problem.success=...)"
    if "description" not in overrides:
        stem, words = f"{data.get('name')} with ", str(before.get("description", ""))
        changes = [" ".join(text.split()) for text in texts if not text.strip().startswith(_FREE)]
        changes = [text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..." for text in changes]
        first = words.partition(";")[0] + ", " if words.startswith(stem) else stem
        data["description"] = first + ", ".join(changes) + note
    return data


def _sets(overrides: dict[str, Any], setting: str) -> bool:
    """Whether an override names a setting, in its key or in a mapping."""
    return any(setting in f"{key}={value}" for key, value in overrides.items())


def _methods(expanded: dict[str, Any]) -> dict[str, dict]:
    methods = expanded.get("methods")
    methods = methods if isinstance(methods, dict) else {}
    return {name: method for name, method in methods.items() if isinstance(method, dict)}


def _problem(method: dict[str, Any] | None) -> Any:
    problem = (method or {}).get("problem")
    return measured(problem) if isinstance(problem, dict) else problem


def _forget_success(before: Any, data: Any) -> bool:
    """Drop the success of a section's problem where it was another environment's."""
    old = before.get("problem") if isinstance(before, dict) else None
    new = data.get("problem") if isinstance(data, dict) else None
    if not (isinstance(old, dict) and isinstance(new, dict) and new.get("kind") == "control"):
        return False
    if new.get("environment") == old.get("environment") or new.get("success") is None:
        return False
    del new["success"]
    return True


def get(section: Any, key: str) -> Any:
    """Read a setting of a section, which is validated, or as it is written."""
    return section.get(key) if isinstance(section, dict) else getattr(section, key, None)


def _span(numbers: Any) -> str:
    numbers = sorted(set(numbers))
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"
