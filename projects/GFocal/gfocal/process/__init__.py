"""A process: its random states, and its share of sums over all processes."""

from .rng import preserved_rng, rng_state, set_rng_state, temporarily_seeded
from .sums import each_on_its_own, sum_over_workers

__all__ = [
    "each_on_its_own",
    "preserved_rng",
    "rng_state",
    "set_rng_state",
    "sum_over_workers",
    "temporarily_seeded",
]
