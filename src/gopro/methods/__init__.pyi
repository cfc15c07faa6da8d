from .base import Method
from .recipe import Recipe, Repository, Variant
from .registry import METHODS, build_method, parse_method

__all__ = ["METHODS", "Method", "Recipe", "Repository", "Variant", "build_method", "parse_method"]
