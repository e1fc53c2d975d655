"""Settings that work together, measured, where the paper's are a start."""

from diffevo_jax.diffusion import sizes as sizes
from diffevo_jax.presets._control import Champion as Champion
from diffevo_jax.presets._control import Control as Control
from diffevo_jax.presets._control import choose_champion as choose_champion
from diffevo_jax.presets._control import control as control
from diffevo_jax.presets._hades import Conditional as Conditional
from diffevo_jax.presets._hades import Heuristic as Heuristic
from diffevo_jax.presets._hades import HeuristicInfo as HeuristicInfo
from diffevo_jax.presets._hades import charles as charles
from diffevo_jax.presets._hades import hades as hades
from diffevo_jax.presets._illuminate import Illumination as Illumination
from diffevo_jax.presets._illuminate import illuminate as illuminate
from diffevo_jax.presets._mpc import MPC as MPC
from diffevo_jax.presets._mpc import MPCMemory as MPCMemory
from diffevo_jax.presets._mpc import mpc as mpc
from diffevo_jax.presets._paper import paper as paper
from diffevo_jax.presets._plan import Plan as Plan
from diffevo_jax.presets._plan import plan as plan
from diffevo_jax.presets._renoise import renoise as renoise
from diffevo_jax.presets._sample import Samples as Samples
from diffevo_jax.presets._sample import sample as sample
from diffevo_jax.presets._track import Tracked as Tracked
from diffevo_jax.presets._track import TrackInfo as TrackInfo
from diffevo_jax.presets._track import Tracking as Tracking
from diffevo_jax.presets._track import track as track

__all__ = [  # for `help`
    "MPC",
    "Champion",
    "Conditional",
    "Control",
    "Heuristic",
    "HeuristicInfo",
    "Illumination",
    "MPCMemory",
    "Plan",
    "Samples",
    "TrackInfo",
    "Tracked",
    "Tracking",
    "charles",
    "choose_champion",
    "control",
    "hades",
    "illuminate",
    "mpc",
    "paper",
    "plan",
    "renoise",
    "sample",
    "sizes",
    "track",
]
