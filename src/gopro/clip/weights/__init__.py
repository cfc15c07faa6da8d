"""Weights from files in every usual layout, safely read, and the models that come with gopro."""
