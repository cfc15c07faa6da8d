"""Checks of a data set before it is used: damaged images, wrong counts, and duplicates."""
