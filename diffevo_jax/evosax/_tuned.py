"""Settings of evosax's strategies that were chosen by measurement, in place of evosax's own."""

import math
from typing import Any, Literal

import numpy as np
import optax

from diffevo_jax.checks import Count, InputError

# What settings are chosen for: costs of 100 and 1,000 genes, or a network's returns.
Use = Literal["function", "control"]

# By experiments/benchmarks/peers.py. optimizer: its name and learning rate. lr_std: times the rate
# of Wierstra et al. 2014, Table 1. fast: with `separable_rates`. Where sigma of 1 stands alone,
# nothing that was tried did better on fresh seeds than evosax's own.
TUNED: dict[str, dict[Use, dict[str, Any]]] = {
    "Open_ES": {
        "function": {
            "sigma": 0.3,
            "sigma_decay": 0.1,
            "optimizer": ("adam", 0.1),
            "learning_rate_decay": 0.1,
            "shaping": "centered_rank",
        },
        "control": {"sigma": 0.1, "optimizer": ("clipup", 0.03), "shaping": "centered_rank"},
    },
    "PGPE": {
        "function": {
            "sigma": 0.1,
            "optimizer": ("adam", 0.1),
            "shaping": "centered_rank",
            "params": {"std_lr": 0.3},
        },
        "control": {
            "sigma": 0.1,
            "optimizer": ("adam", 0.1),
            "learning_rate_decay": 0.1,
            "shaping": "centered_rank",
            "params": {"std_lr": 0.1},
        },
    },
    "SNES": {
        "function": {"sigma": 0.3, "optimizer": ("sgd", 2.0), "lr_std": 4.0},
        "control": {"sigma": 1.0},
    },
    "CMA_ES": {"function": {"sigma": 1.0}, "control": {"sigma": 1.0}},
    "Sep_CMA_ES": {"function": {"sigma": 0.6, "fast": True}, "control": {"sigma": 1.0}},
}


def tuned_settings(name: str, use: str, population_size: Count, num_genes: Count) -> dict[str, Any]:
    """Look up what was chosen for a strategy, as arguments of `strategy`. Raises InputError."""
    if name not in TUNED:
        raise InputError("tuned", f"nothing, but for {', '.join(TUNED)}", f"'{use}' for {name}")
    if use not in TUNED[name]:
        raise InputError("tuned", f"one of {', '.join(TUNED[name])}", repr(use))
    chosen = dict(TUNED[name][use])  # pyright: ignore[reportArgumentType]
    if "optimizer" in chosen:
        chosen["optimizer"] = _optimizer(*chosen["optimizer"])
    if "lr_std" in chosen:
        rate = (3 + math.log(num_genes)) / (5 * math.sqrt(num_genes))
        chosen["params"] = {"lr_std_init": chosen.pop("lr_std") * rate}
    if chosen.pop("fast", False):
        chosen["params"] = separable_rates(population_size, num_genes)
    return chosen


def _optimizer(name: str, learning_rate: float) -> optax.GradientTransformation:
    if name != "clipup":
        return getattr(optax, name)(learning_rate)
    from evosax.core.optimizer import clipup

    return clipup(learning_rate, max_velocity=2 * learning_rate)


def separable_rates(population_size: Count, num_genes: Count) -> dict[str, float]:
    """Compute how fast Sep-CMA-ES learns: (D + 2) / 3 times as fast as CMA-ES learns C.

    Ros and Hansen 2008, "A simple modification in CMA-ES achieving linear time and space
    complexity", Sec. 3; evosax's has the rates of the full matrix, Eqs. 57 and 58 of
    https://arxiv.org/abs/1604.00772.
    """
    weights = math.log((population_size + 1) / 2) - np.log(np.arange(population_size // 2) + 1)
    mu_eff = np.sum(weights) ** 2 / np.sum(weights**2)
    c_1 = 2 / ((num_genes + 1.3) ** 2 + mu_eff)
    c_mu = 2 * (mu_eff - 2 + 1 / mu_eff) / ((num_genes + 2) ** 2 + mu_eff)
    c_1 = min(1.0, (num_genes + 2) / 3 * c_1)
    return {"c_1": c_1, "c_mu": min(1 - c_1, (num_genes + 2) / 3 * c_mu)}
