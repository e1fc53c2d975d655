"""Networks that learn to denoise weighted genomes, and the buffer that these come from."""

from diffevo_jax.training._learner import PREDICTIONS as PREDICTIONS
from diffevo_jax.training._learner import Buffer as Buffer
from diffevo_jax.training._learner import Learner as Learner
from diffevo_jax.training._learner import Prediction as Prediction
from diffevo_jax.training._learner import Trained as Trained
from diffevo_jax.training._learner import empty_buffer as empty_buffer
from diffevo_jax.training._learner import learner as learner
from diffevo_jax.training._learner import push as push
from diffevo_jax.training._learner import select as select

__all__ = [  # for `help`
    "PREDICTIONS",
    "Buffer",
    "Learner",
    "Prediction",
    "Trained",
    "empty_buffer",
    "learner",
    "push",
    "select",
]
