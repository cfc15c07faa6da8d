"""Many runs: what is missing of a protocol's results is done, here, in processes or on a cluster, and written down."""

from gopro.sweep.sweep import PLANS, Event, Outcome, benchmark, sweep

__all__ = ["PLANS", "Event", "Outcome", "benchmark", "sweep"]
