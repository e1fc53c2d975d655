"""What tests share: compiled programs, golden vectors, a float64 loop over the paper's Eq. 8."""

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.interpreters import mlir
from jaxlib.mlir import ir

from diffevo_jax.checks import InputError
from diffevo_jax.kernels import tiled
from diffevo_jax.kernels.geometry import make_frame
from diffevo_jax.kernels.types import Operands
from diffevo_jax.runs.report import figure
from diffevo_jax.runs.run import startup

REPOSITORY = Path(__file__).resolve().parent.parent
# XLA's older generator of loops, which its version in jax 0.11 no longer has, and a program as one
# piece, not several for several threads: a flag that XLA does not know ends the process without a
# word.
QUICK_LOOPS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
QUICK_LOOPS = QUICK_LOOPS if jax.__version_info__ < (0, 11) else ""
# Passes that move code in and out of loops, after each of which XLA begins its others anew.
LOOP_PASSES = "while-loop-invariant-code-motion,while-loop-constant-sinking"
LOOP_PASSES = f"simplify-while-loops,{LOOP_PASSES},reshape-mover"
QUICK_FLAGS = f"--xla_disable_hlo_passes={LOOP_PASSES} {QUICK_LOOPS}".strip()

# The command line in a process of its own, but for the figure, which takes more than a second.
PLAIN_CLI = [
    sys.executable,
    "-c",
    "from diffevo_jax.runs import main; from diffevo_jax.runs.report import figure; "
    "figure.draw = lambda folder: []; main()",
]

KEPT = 14 * 24 * 3600  # seconds from compilation on, of a program

# The wording of errors, by test: `pytest -n 0 --update-messages` writes it anew.
MESSAGES = Path(__file__).parent / "data" / "messages.json"
EXPECTED, RAISED = pytest.StashKey[set[str]](), pytest.StashKey[dict[str, list[str]]]()

# Before JAX starts: tests of many devices have virtual ones; all others run on the first.
jax.config.update("jax_num_cpu_devices", 8)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: for a tenth of their time tests wait for others, and disks."""
    return (os.cpu_count() or 1) + 1


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-messages", action="store_true", help=f"rewrite {MESSAGES.name}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[RAISED] = {}
    config.stash[EXPECTED] = {
        item.nodeid for item in items if "refuses" in getattr(item, "fixturenames", ())
    }


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if config.getoption("update_messages"):
        messages = json.loads(MESSAGES.read_text()) | config.stash[RAISED]
        kept = {test: messages[test] for test in sorted(messages.keys() - unused_messages(config))}
        MESSAGES.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


def unused_messages(config: pytest.Config) -> set[str]:
    """The tests of messages.json that are gone from the files of this session."""
    expected = config.stash[EXPECTED]
    if any("::" in argument for argument in config.args):
        return set()  # parts of files
    files = {Path(argument).name for argument in config.args if argument.endswith(".py")}
    stored = json.loads(MESSAGES.read_text())
    return {
        test
        for test in stored
        if test not in expected and (not files or Path(test.split("::")[0]).name in files)
    }


@pytest.fixture
def refuses(
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[str], AbstractContextManager[pytest.ExceptionInfo[InputError]]]]:
    """Expect an InputError of a path, with the wording that messages.json has of this test."""
    test, update = request.node.nodeid, request.config.getoption("update_messages")
    stored = json.loads(MESSAGES.read_text()).get(test, [])
    raised = request.config.stash[RAISED].setdefault(test, []) if update else []

    @contextmanager
    def refused(path: str) -> Iterator[pytest.ExceptionInfo[InputError]]:
        with pytest.raises(InputError) as error:
            yield error
        assert error.value.path == path
        raised.append(str(error.value))
        assert update or raised == stored[: len(raised)]

    yield refused
    assert update or len(raised) == len(stored)


def pytest_configure(config: pytest.Config) -> None:
    """Compile quickly, once for the workers, the processes that tests start, and the next run.

    Most of the suite's time is compilation. XLA's older generator of loops with few of LLVM's
    passes takes a fifth of the default's over the same graph: 0.5 for 3 s of CPU time for `evolve`.
    What was compiled in the last weeks is kept in .pytest_cache: a second run takes 0.7 of the CPU
    time. Whoever sets either variable keeps it; the slow studies compute for longer than they
    compile.
    """
    if config.getoption("update_messages") and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--update-messages takes one process: -n 0")
    # JAX makes many small objects that live: fewer collections save a tenth of the suite's time.
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)
    share_contexts()
    if hasattr(config, "workerinput"):  # a worker inherits the environment
        return
    folder = REPOSITORY / ".pytest_cache" / "compiled"
    for path in folder.glob("*"):
        if time.time() - path.stat().st_mtime > KEPT:
            path.unlink(missing_ok=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    startup.keep_compiled()
    if config.option.markexpr != "slow":
        if "xla_cpu_use_fusion_emitters" not in os.environ.get("XLA_FLAGS", ""):
            os.environ["XLA_FLAGS"] = xla_flags(QUICK_FLAGS)
        few = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1"
        # JAX has read its environment; fixtures of a module come before `_optimisation`.
        jax.config.update("jax_disable_most_optimizations", few)


def share_contexts() -> None:
    """Lower programs in one MLIR context a thread; JAX makes one for each, with all its dialects.

    Half of what it takes to lower a small program, of which the suite has thousands. It is JAX's
    own, and stays where a version has it no more.
    """
    make, kept = getattr(mlir, "make_ir_context", None), threading.local()
    if make is None:
        return

    def shared() -> ir.Context:
        if ir.Context.current is not None:  # a program inside another's lowering: one of its own
            return make()
        if not hasattr(kept, "context"):
            kept.context = make()
        return kept.context

    mlir.make_ir_context = shared


@pytest.fixture(autouse=True)
def _optimisation(request):
    """Every pass where a test is of numbers that the library promises; otherwise as above."""
    few = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") == "1"
    few = few and request.node.get_closest_marker("promised") is None
    jax.config.update("jax_disable_most_optimizations", few)


def xla_flags(*more: str) -> str:
    """XLA_FLAGS of a process that compiles as this one, with more flags."""
    return " ".join([os.environ.get("XLA_FLAGS", ""), *more]).strip()


@pytest.fixture(scope="module")
def one_device():
    """Run repeats on one device, however many the session has: fewer programs to compile."""
    devices = jax.local_devices
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda **options: devices(**options)[:1])
        yield


@pytest.fixture
def undrawn(monkeypatch):
    """The command line draws no figure, which takes longer than a small run."""
    monkeypatch.setattr(figure, "draw", lambda folder: [])
    monkeypatch.setattr(figure, "draw_sweep", lambda *_: [])


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "golden.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def make_operands(z, x, log_weight, one_minus_alpha, *, own=True) -> Operands:
    """What an implementation of the estimate gets, for a population at places z."""
    one_minus_alpha = jnp.asarray(one_minus_alpha, x.dtype)
    return Operands(
        query=z,
        place=z,
        value=x,
        log_weight=log_weight,
        alpha=1 - one_minus_alpha,
        one_minus_alpha=one_minus_alpha,
        own=log_weight if own else None,
        frame=make_frame(z, x, centred=x.shape[1] < tiled.MANY_GENES),
        precision=jax.lax.Precision.HIGHEST,
        latent=True,
        still=False,
        sample_size=True,
    )


def loop_x0(x, log_weight, alpha, z=None, floor=0.0, spread=None, rows=None) -> np.ndarray:
    """Eq. 8 in float64, one individual at a time: the oracle of every implementation.

    spread: 1 - alpha, where alpha has lost its digits. rows: individuals to estimate; None is all.
    """
    x = np.asarray(x, np.float64)
    weights = loop_weights(x, log_weight, alpha, z, floor, spread, rows)
    return np.array([w @ x for w, _ in weights]).reshape(-1, x.shape[1])


def loop(x, log_weight, alpha, z=None, floor=0.0, spread=None, rows=None):
    """The same, and how far log weights off by 4 eps of the largest that counts may move it."""
    x = np.asarray(x, np.float64)
    x0, allowed = [], []
    for w, nats in loop_weights(x, log_weight, alpha, z, floor, spread, rows):
        x0.append(w @ x)
        allowed.append(4 * np.finfo(np.float32).eps * nats * (w @ np.abs(x - x0[-1])))
    return np.array(x0), np.array(allowed)


def loop_weights(x, log_weight, alpha, z, floor, spread, rows) -> Iterator[tuple]:
    """The weights in each individual's average, and the largest log weight that counts."""
    z = x if z is None else np.asarray(z, np.float64)
    spread = 1 - alpha if spread is None else spread
    log_g = np.asarray(log_weight, np.float64)
    with np.errstate(divide="ignore"):
        log_floor = np.log(floor)
    missing = np.isnan(log_g)
    log_g = np.logaddexp(np.where(missing, -np.inf, log_g), log_floor)
    log_g[missing] = -np.inf
    shrink = spread / (1 + np.sqrt(alpha))
    largest = np.max(log_g, initial=-np.inf, where=np.isfinite(log_g))
    for i in range(len(x)) if rows is None else rows:
        difference = (z[i] - z) + shrink * z
        log_p = -np.sum(difference**2, axis=1) / (2 * spread)
        log_w = log_g + np.logaddexp(log_p, log_floor)
        w = np.exp(log_w - log_w.max())
        w /= w.sum()
        yield w, np.abs(log_w - largest)[w > 1e-9].max()
