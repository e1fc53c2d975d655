"""Moving pictures of episodes and populations, and archives as heat maps.

They need matplotlib, which is in the extra `run`.
"""

from diffevo_jax.drawings.archive import draw_archive as draw_archive
from diffevo_jax.drawings.episodes import animate_episodes as animate_episodes
from diffevo_jax.drawings.landscape import animate_population as animate_population
from diffevo_jax.drawings.tasks import DRAWINGS as DRAWINGS

__all__ = [  # for `help`
    "DRAWINGS",
    "animate_episodes",
    "animate_population",
    "draw_archive",
]
