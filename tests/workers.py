"""What tests call in processes of their own, which import this module: nothing that takes long."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np

if multiprocessing.parent_process() is not None:  # in a worker: a script that seeds at its top
    random.seed(0)
    np.random.seed(0)


class Unsendable(Exception):
    """An exception that does not survive pickling."""

    def __init__(self, genome, reason):
        super().__init__(f"{reason} at {genome[0]:.0f}")


def evaluate(genome: np.ndarray) -> float:
    match round(float(genome[0])):
        case 101:
            raise ZeroDivisionError("no such lab")
        case 102:
            raise Unsendable(genome, "lost")
        case 103:
            return float(subprocess.run(["false"], check=True).returncode)
        case 104:
            os._exit(1)
    return -float(((genome - 0.5) ** 2).sum())


def sometimes(genome: np.ndarray) -> float:
    """Fitness of a laboratory that fails for about a quarter of the genomes, each in its way."""
    draw = random.Random(genome.tobytes())
    match draw.randrange(16):
        case 0:
            raise OSError("no connection")
        case 1:
            raise ZeroDivisionError
        case 2:
            return float("nan")
        case 3:
            return float("-inf")
    return -float((genome**2).sum())


def ends(how: str | int) -> str | int:
    """Return a number, or end this process, or try to, as a word says."""
    match how:
        case "exit 0":
            os._exit(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sys.exit":
            sys.exit("enough")
        case "interrupt":
            raise KeyboardInterrupt
        case "lock":
            return threading.Lock()  # pyright: ignore[reportReturnType]
    return how


def sleeps(seconds: float) -> float:
    """Sleep in a process of its own, whose id is written down, where it is for long."""
    if seconds < 1:
        time.sleep(seconds)
    else:
        subprocess.run([sys.executable, "-c", f"import time; time.sleep({seconds})"], check=True)
    return seconds


def draws(seconds: float) -> tuple[int, float, float]:
    time.sleep(seconds)
    return os.getpid(), random.random(), float(np.random.random())


def _raises() -> None:
    raise ImportError("no such simulator")


class Unloadable:
    """A function that arrives and cannot be loaded."""

    def __call__(self, x):
        return x

    def __reduce__(self):
        return _raises, ()
