"""What tests share: the golden vectors, and a float64 loop over the paper's Eq. 8."""

from pathlib import Path

import jax
import numpy as np
import pytest

# Before JAX starts: tests of many devices have virtual ones; all others run on the first.
jax.config.update("jax_num_cpu_devices", 8)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "golden.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def loop_x0(x, log_weight, alpha, z=None, floor=0.0, spread=None, rows=None) -> np.ndarray:
    """Eq. 8 in float64, one individual at a time: the oracle of every implementation.

    spread: 1 - alpha, where alpha has lost its digits. rows: individuals to estimate; None is all.
    """
    x = np.asarray(x, np.float64)
    z = x if z is None else np.asarray(z, np.float64)
    spread = 1 - alpha if spread is None else spread
    log_g = np.asarray(log_weight, np.float64)
    with np.errstate(divide="ignore"):
        log_floor = np.log(floor)
    missing = np.isnan(log_g)
    log_g = np.logaddexp(np.where(missing, -np.inf, log_g), log_floor)
    log_g[missing] = -np.inf
    shrink = spread / (1 + np.sqrt(alpha))
    rows = np.arange(len(x)) if rows is None else rows
    x0 = np.empty((len(rows), x.shape[1]))
    for row, i in enumerate(rows):
        difference = (z[i] - z) + shrink * z
        log_p = -np.sum(difference**2, axis=1) / (2 * spread)
        log_w = log_g + np.logaddexp(log_p, log_floor)
        w = np.exp(log_w - log_w.max())
        x0[row] = w @ x / w.sum()
    return x0
