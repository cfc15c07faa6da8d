"""Layers of a frozen model in forms that compute the same in less time or memory."""
