"""Other optimisers as `Algorithm`s: the paper's baselines, MAP-Elites; those of `bits` search bits.

They search in units of the genome, from an initial population drawn from N(0, I). The landscapes of
the paper's Fig. 3 see points 4 times the genome: what was published for points x = 4 u becomes, for
genomes u,

    sigma, cell                     divided by 4
    penalty on the mean of squares  times 16
    learning rate of OpenES         divided by 16: one 4 for the slope, one for the step
    PEPG's learning rate of sigma, decays, momentum, elite's share: as they are

and the runs are the same up to rounding. These are the defaults; only CMA-ES's, of the control
tasks, differ from Fig. 3's penalty=0.016, elitist=False.
"""

from diffevo_jax.baselines import bits as bits
from diffevo_jax.baselines._cma_es import ElitistState as ElitistState
from diffevo_jax.baselines._cma_es import cma_es as cma_es
from diffevo_jax.baselines._map_elites import EliteArchive as EliteArchive
from diffevo_jax.baselines._map_elites import EliteState as EliteState
from diffevo_jax.baselines._map_elites import map_elites as map_elites
from diffevo_jax.baselines._open_es import open_es as open_es
from diffevo_jax.baselines._pepg import pepg as pepg
from diffevo_jax.search import SearchInfo as SearchInfo
from diffevo_jax.search import SearchState as SearchState

__all__ = [  # for `help`
    "EliteArchive",
    "EliteState",
    "ElitistState",
    "SearchInfo",
    "SearchState",
    "bits",
    "cma_es",
    "map_elites",
    "open_es",
    "pepg",
]
