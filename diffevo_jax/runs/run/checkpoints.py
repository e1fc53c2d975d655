"""Checkpoints: where a run is, saved while it goes on, and read again by `--resume`.

In the run folder, until the run is complete:

checkpoints/lock                     held by the process that runs
checkpoints/repeats/METHOD/000012.npz  finished repeats from number 12 on, each written once
checkpoints/progress/STEP/           of Orbax: the repeats in progress; STEP counts the generations
                                     of the whole run, over methods and repeats
"""

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import diffevo_jax as de
from diffevo_jax.runs.config import plugins
from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results.fields import ARRAYS
from diffevo_jax.runs.results.files import Arrays, differences

# Without `checkpoint.every`: seconds between checkpoints, and at least so many times what the last
# one took, so that they cost at most 1 % of a run.
SECONDS = 60.0
TIMES_ITS_COST = 100

# Of environment.json: what changes the numbers of a run that goes on elsewhere.
_MATTERS = ("versions", "backend", "device", "device_count", "x64", "git_commit")


class Call(NamedTuple):
    """Runs of a method that advance together.

    method: its name. first: number of the first run. size: how many are wanted; any others fill up
        the devices.
    generation: how many they have done.
    carry: what the program carries, keys of all generations, and the runs' numbers where these are
        data, a leading axis of runs; of a checkpoint the arrays alone.
    kept: what each generation done has left, pieces of `[size, k, ...]`.
    version: of a checkpoint, that of the package that saved it.
    """

    method: str
    first: int
    size: int
    generation: int
    carry: Any
    kept: list[Arrays]
    version: str = ""


def check_fits(saved: Call, leaves: Sequence[Any]) -> None:
    """Raise ConfigError unless a checkpoint has the arrays of the program, one for each of these.

    leaves: arrays of the program, a leading axis of repeats, whatever its length.
    """
    there, here = (
        [f"{np.dtype(a.dtype)} of shape {a.shape[1:]}" for a in each]
        for each in (saved.carry, leaves)
    )
    if there == here:
        return
    difference = f"expected {len(here)} arrays; seen {len(there)}"
    if len(there) == len(here):
        place = next(i for i in range(len(here)) if there[i] != here[i])
        difference = f"array {place}: expected {here[place]}; seen {there[place]}"
    version = f"version {saved.version}" if saved.version else "an earlier version"
    raise cfg.ConfigError(
        f"methods.{saved.method}: its checkpoint is of {version} and does not fit this one, "
        f"{de.__version__}: {difference}. Go on with the version that began the run, or begin "
        "another in a new folder"
    )


class Checkpoints:
    """The repeats in progress of a run: when to save them, saving, restoring.

    A checkpoint that can't be saved is named and stops nothing. Orbax, which takes most of a second
    to import, is imported when the first one is due.
    """

    def __init__(self, folder: Path, settings: cfg.Checkpoint, say: Callable[[str], None]):
        self.folder = folder.absolute() / "checkpoints" / "progress"
        self.settings, self.say = settings, say
        self._manager: Any = None
        self._generations = 0
        self._begun = time.monotonic()
        self._cost = 0.0

    def due(self, generations: int) -> bool:
        """Count generations, and say whether a checkpoint is due."""
        self._generations += generations
        if self.settings.every is not None:
            return self._generations >= self.settings.every
        if self._manager is not None and self._manager.is_saving_in_progress():
            return False
        return time.monotonic() - self._begun >= max(SECONDS, TIMES_ITS_COST * self._cost)

    def save(self, step: int, write_repeats: Callable[[], None], call: Call | None) -> None:
        """Save finished repeats at once, and repeats in progress while the run goes on.

        step: generations of the whole run, increasing.
        """
        self._generations, self._begun = 0, time.monotonic()
        try:
            write_repeats()
        except OSError as error:
            self._not_saved(error)
            return
        if call is None:
            self._finished()
            return
        self.wait()
        try:
            import orbax.checkpoint as ocp

            where = call._asdict()
            carry, (kept,) = where.pop("carry"), where.pop("kept")
            leaves = {str(i): leaf for i, leaf in enumerate(carry)}
            # Orbax has no arrays of size 0.
            where["empty"] = {
                i: (list(leaf.shape), leaf.dtype.name)
                for i, leaf in leaves.items()
                if not leaf.size
            }
            leaves = {i: leaf for i, leaf in leaves.items() if leaf.size}
            arrays = {"carry": leaves, "kept": kept}
            self._open().save(
                step,
                args=ocp.args.Composite(
                    where=ocp.args.JsonSave(where), arrays=ocp.args.StandardSave(arrays)
                ),
                force=True,
            )
        except Exception as error:  # the file system's, as Orbax, TensorStore or Python wrap it
            self._not_saved(error)

    def restore(self, method: str, first: int) -> Call | None:
        """Read the newest checkpoint of these repeats that can be read, and delete newer ones."""
        if not self.folder.exists():
            return None
        import orbax.checkpoint as ocp

        self.wait()  # what is being saved deletes the oldest while it ends
        manager = self._open()
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                saved: Any = manager.restore(
                    step,
                    args=ocp.args.Composite(
                        where=ocp.args.JsonRestore(), arrays=ocp.args.StandardRestore()
                    ),
                )
                carry, kept = saved.arrays["carry"], saved.arrays["kept"]
                for i, (shape, dtype) in saved.where.pop("empty").items():
                    carry[i] = np.zeros(shape, dtype)
                leaves = [carry[str(i)] for i in range(len(carry))]
                call = Call(**saved.where, carry=leaves, kept=[kept])
            except Exception as error:  # whatever a damaged file leads to
                self.say(
                    f"{self.folder / str(step)}: not readable as a checkpoint ({_line(error)}); "
                    "the one before it is used, or the start of these repeats"
                )
            else:
                if (call.method, call.first) == (method, first):
                    return call
            shutil.rmtree(self.folder / str(step))
            manager.reload()
        return None

    def wait(self) -> None:
        """Wait until what is being saved is saved."""
        if self._manager is None:
            return
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # as in `save`
            self._not_saved(error)

    def close(self) -> None:
        """Wait, and end the threads that save."""
        self.wait()
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def _open(self) -> Any:
        if self._manager is None:
            import orbax.checkpoint as ocp

            # It logs each failure with its stack, which `say` puts into a line.
            logging.getLogger("absl").setLevel(logging.CRITICAL)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=ocp.CheckpointManagerOptions(
                    create=False,
                    # Of many processes only the first saves, which holds all of the arrays.
                    multiprocessing_options=ocp.options.MultiprocessingOptions(
                        primary_host=0, active_processes={0}
                    ),
                    preservation_policy=ocp.checkpoint_managers.LatestN(self.settings.keep),
                    cleanup_tmp_directories=True,
                    lightweight_initialize=True,
                    async_options=ocp.AsyncOptions(post_finalization_callback=self._finished),
                ),
            )
        return self._manager

    def _finished(self) -> None:
        self._cost = time.monotonic() - self._begun

    def _not_saved(self, error: Exception) -> None:
        self.say(f"checkpoint not saved ({_line(error)}); the run goes on, and tries again later")
        if self._manager is not None:
            with suppress(Exception):  # that of the save that failed
                self._manager.close()
        self._manager = None
        for partial in self.folder.glob("*.orbax-checkpoint-tmp"):  # the results need the room
            shutil.rmtree(partial, ignore_errors=True)


def begin(
    folder: Path,
    config: cfg.RunConfig,
    source: str,
    sources: dict[str, str],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Start the record of a run, `environment.json`; a run that goes on keeps its record.

    sources: texts of plugins, see `plugins.load`.
    Raises ConfigError, naming the keys, when the folder holds a run of another config.
    """
    goes_on, before = (folder / "config.yaml").exists(), {}
    record: dict[str, Any] = {**results.environment(), "status": "running", "methods": {}}
    if goes_on:
        plugins.check_same(folder, sources)
        before = results.read_environment(folder)
        _check_same(folder, config, before)
    else:  # first of all: from here on the folder alone is enough to go on
        plugins.keep(folder, sources)
        results.write_config(folder, config, source)
    if before:
        record["methods"] = before["methods"]
        earlier = {key: before[key] for key in ("written", *_MATTERS)}
        record["resumed"] = [*before.get("resumed", []), earlier]
        if before["status"] == "complete":
            return before
        for key in _MATTERS:
            if before[key] != record[key]:
                say(f"note: {key} was {before[key]} and is {record[key]}: numbers may differ")
    results.write_environment(folder, record)
    return record


def finished(folder: Path, config: cfg.RunConfig, say: Callable[[str], None]) -> dict[str, Arrays]:
    """Read the arrays of all generations of the methods that had ended; drop the others' rows."""
    complete = {}
    for name, path in ((name, folder / f"{name}.npz") for name in config.methods):
        if path.exists():
            try:
                arrays = results.read_arrays(path)
            except cfg.ConfigError as error:
                say(f"{error}. The method runs again.")
                continue
            if len(arrays.get("fitness", ())) == config.repeats:
                complete[name] = {key: value for key, value in arrays.items() if key in ARRAYS}
    results.drop_rows(folder, keep=complete)
    return complete


def _check_same(folder: Path, config: cfg.RunConfig, before: dict[str, Any]) -> None:
    stored = load(folder / "config.yaml").config.model_dump()
    new = config.model_dump()
    others = differences(stored, new) | results.other_settings_of_jax(before)
    lines = [
        f"  {key}: {there} there, {here} here"
        for key, (there, here) in others.items()
        # Words, which follow the others, and what results are held against.
        if key != "description" and not key.startswith("figure") and ".reference" not in key
    ]
    if lines:
        raise cfg.ConfigError(
            f"{folder}: holds a run of another config, and --resume goes on with the same one; "
            "leave the changes out, or run into another folder\n" + "\n".join(lines)
        )


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
