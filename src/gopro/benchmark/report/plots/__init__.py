"""Plots, as inline SVG in the colours of the page and as files."""
