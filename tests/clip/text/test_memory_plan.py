"""The memory plan keeps to its budget and uses it."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from gopro.clip.text.memory_plan import KEPT_UNITS, KEPT_UNITS_INNER, Keep, MemoryPlan

UNITS = {Keep.KEEP_ALL: KEPT_UNITS, Keep.RECOMPUTE_INNER: KEPT_UNITS_INNER, Keep.RECOMPUTE_ALL: 0}
LAYERS, VECTOR_BYTES = 12, 4 * 512


@given(st.integers(0, 10_000), st.integers(1, 5_000))
def test_kept_activations_and_the_current_chunk_fit_into_the_budget(units: int, tokens: int) -> None:
    plan = MemoryPlan.for_budget(units * LAYERS * VECTOR_BYTES, tokens, VECTOR_BYTES, LAYERS, training=True)
    modes = [plan.mode(token) for token in range(1, tokens + 1)]
    assert modes == sorted(modes, key=UNITS.__getitem__, reverse=True)
    kept, working = sum(UNITS[mode] for mode in modes), plan.chunk_tokens * KEPT_UNITS
    if KEPT_UNITS * tokens <= units:
        assert set(modes) == {Keep.KEEP_ALL} and plan.chunk_tokens >= tokens
    else:
        assert kept + working <= units
        assert kept > 7 / 8 * units - KEPT_UNITS, "room is left unused"


def test_without_a_budget_everything_is_kept_in_one_chunk() -> None:
    plan = MemoryPlan.for_budget(None, 10**6, VECTOR_BYTES, LAYERS, training=True)
    assert plan.chunk_tokens == sys.maxsize and plan.mode(10**6) is Keep.KEEP_ALL
