"""How every figure looks: fonts, each method's colour, marker and name, the colours of x and x0."""

from collections.abc import Iterable
from typing import Any, NamedTuple

# Drawn in by `matplotlib.rc_context(STYLE)`, which leaves the caller's settings alone.
STYLE: Any = {
    "font.family": "serif",
    "font.serif": ["STIXGeneral", "DejaVu Serif"],
    "mathtext.fontset": "stix",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
}


class Look(NamedTuple):
    """What a method is drawn with. label: its name written out."""

    label: str
    colour: str
    marker: str


_DIFFUSION = Look("Diffusion Evolution", "#0072B2", "o")
_LATENT = Look("latent Diffusion Evolution", "#D55E00", "s")
_LARGE = Look("latent Diffusion Evolution, large network", "#E69F00", "D")
_CMA_ES = Look("CMA-ES", "#5F5F5F", "^")
_PRESET = Look("control preset", "#3A1C5E", "*")

# Of the names that methods have in configs/. The colours are of Okabe and Ito, shifted where two of
# them came too near: with each of the three colour blindnesses (Machado et al. 2009) any two differ
# by at least 15 in CIELAB, and markers differ as well.
METHODS: dict[str, Look] = {
    "diffusion_evolution": _DIFFUSION,
    "diffusion": _DIFFUSION,
    "raw": _DIFFUSION,
    "latent": _LATENT,
    "latent_large": _LARGE,
    "large": _LARGE,
    "cma_es": _CMA_ES,
    "cmaes": _CMA_ES,
    "open_es": Look("OpenES", "#00A37A", "v"),
    "pepg": Look("PEPG", "#C77CB5", "P"),
    "map_elites": Look("MAP-Elites", "#66BFF0", "X"),
    "preset": _PRESET,
}
# Colours and markers of methods that are not known, in the order in which they are taken.
_ORDER = tuple(dict.fromkeys((look.colour, look.marker) for look in METHODS.values()))

# Of a process: individuals on their way, their estimates of the origin, where they end.
X, X0, FINAL = "#2E7EBB", "#E0435C", "#1A1A1A"
GREY, PALE = "#6F6E6E", "#E3E3E3"  # guides and labels; what stands behind


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Give each method of a figure its look; where a name is not known, the next that is free.

    Two names of one method, as raw and diffusion, have the same look. Beyond eight, looks recur.
    """
    names = list(names)
    taken = {METHODS[name].colour for name in names if name in METHODS}
    free = [each for each in _ORDER if each[0] not in taken] or list(_ORDER)
    others = [name for name in names if name not in METHODS]
    given = {name: Look(name, *free[i % len(free)]) for i, name in enumerate(others)}
    return {name: METHODS.get(name) or given[name] for name in names}
