"""Fixtures of the product's tests, for the tests of benchmarks."""

from tests.conftest import cache, seed, shared, tiny

__all__ = ["cache", "seed", "shared", "tiny"]
