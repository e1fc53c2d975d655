"""How every figure looks: fonts, colours and markers of methods, the colours of x and x0."""

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

# For `matplotlib.rc_context(STYLE)`, which leaves the caller's settings alone.
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
    """What a method is drawn with."""

    colour: str
    marker: str


# Methods take them in this order. The colours are of Okabe and Ito, shifted where two of them came
# too near: with each of the three colour blindnesses (Machado et al. 2009) any two differ by at
# least 15 in CIELAB, and markers differ as well.
ORDER = (
    Look("#0072B2", "o"),
    Look("#D55E00", "s"),
    Look("#E69F00", "D"),
    Look("#5F5F5F", "^"),
    Look("#00A37A", "v"),
    Look("#C77CB5", "P"),
    Look("#66BFF0", "X"),
    Look("#3A1C5E", "*"),
)
# Other people's methods look the same in every figure.
BASELINES = {
    "cma_es": ORDER[3],
    "cmaes": ORDER[3],
    "open_es": ORDER[4],
    "pepg": ORDER[5],
    "map_elites": ORDER[6],
}

# Colours of a denoising process: individuals, their estimates of the origin, the last ones.
X, X0, FINAL = "#2E7EBB", "#E0435C", "#1A1A1A"
GREY, PALE = "#6F6E6E", "#E3E3E3"  # guides and labels; the background


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Give each method of a figure its look: the next that is free, of a baseline its own.

    Beyond eight, looks recur.
    """
    names = list(names)
    taken = {BASELINES[name] for name in names if name in BASELINES}
    free = itertools.cycle([look for look in ORDER if look not in taken])
    return {name: BASELINES.get(name) or next(free) for name in names}
