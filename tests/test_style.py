import itertools

import numpy as np
import pytest

from diffevo_jax.drawings.style import FINAL, ORDER, X0, X, looks
from experiments.looks import METHODS

# Linear RGB as seen without each kind of cone: Machado, Oliveira and Fernandes 2009, severity 1.
CONES = {
    "all cones": np.eye(3),
    "protanopia": [
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ],
    "deuteranopia": [
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ],
    "tritanopia": [
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ],
}


def _lab(colour: str, cones) -> np.ndarray:
    """CIELAB of a colour `#RRGGBB` as somebody sees it."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)]
    )
    xyz = to_xyz @ np.clip(np.array(cones) @ linear, 0, 1) / (0.9505, 1, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("cones", CONES.values(), ids=CONES)
@pytest.mark.parametrize(
    "colours", [{look.colour for look in ORDER}, {X, X0, FINAL}], ids=["methods", "x"]
)
def test_colours_differ_for_the_colour_blind(colours, cones):
    shown = [_lab(colour, cones) for colour in colours]
    # 2.3 is just noticeable side by side; lines and small markers need several times that.
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(shown, 2)) >= 15


def test_a_method_has_its_colour_whatever_stands_beside_it():
    assert looks(["mine", "cmaes", "raw"])["cmaes"] == looks(["cma_es"])["cma_es"]
    assert METHODS["cmaes"][1:] == looks(["cma_es"])["cma_es"]
    assert METHODS["raw"].label == "Diffusion Evolution"
    assert {look.colour for look in METHODS.values()} == {look.colour for look in ORDER}


def test_unknown_methods_take_the_next_colour_that_no_known_one_has():
    styles = looks(["cma_es", "a", "b", "c"])
    assert len({look.colour for look in styles.values()}) == 4
    assert len({look.marker for look in styles.values()}) == 4
    assert list(styles.values())[1:] == list(ORDER[:3])
    assert looks([f"method {i}" for i in range(20)]).keys() == {f"method {i}" for i in range(20)}
