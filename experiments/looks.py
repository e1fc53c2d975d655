"""How the paper's methods look, and what they are called, by the names that configs/ gives them."""

from typing import NamedTuple

from diffevo_jax.drawings.style import BASELINES, ORDER, Look


class Named(NamedTuple):
    """What a method is drawn with. label: its name written out."""

    label: str
    colour: str
    marker: str


def _named(label: str, look: Look) -> Named:
    return Named(label, *look)


_DIFFUSION = _named("Diffusion Evolution", ORDER[0])
_LATENT = _named("latent Diffusion Evolution", ORDER[1])
_LARGE = _named("latent Diffusion Evolution, large network", ORDER[2])
_CMA_ES = _named("CMA-ES", BASELINES["cma_es"])

METHODS: dict[str, Named] = {
    "diffusion_evolution": _DIFFUSION,
    "diffusion": _DIFFUSION,
    "raw": _DIFFUSION,
    "latent": _LATENT,
    "latent_large": _LARGE,
    "large": _LARGE,
    "cma_es": _CMA_ES,
    "cmaes": _CMA_ES,
    "open_es": _named("OpenES", BASELINES["open_es"]),
    "pepg": _named("PEPG", BASELINES["pepg"]),
    "map_elites": _named("MAP-Elites", BASELINES["map_elites"]),
    "preset": _named("control preset", ORDER[7]),
}
