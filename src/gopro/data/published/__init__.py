"""The published benchmark data sets: their contents, the readers of their annotations, and their download."""
