"""The default generator's seed and state. See https://docs.pytorch.org/docs/stable/random.html."""

from graphtorch.ops.random import fork_rng, get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from graphtorch.tensor.generator import default_generator

__all__ = ["default_generator", "fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state"]
