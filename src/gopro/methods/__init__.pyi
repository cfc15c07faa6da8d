from .base import Method
from .recipe import Recipe
from .registry import METHODS, build_method, parse_method

__all__ = ["METHODS", "Method", "Recipe", "build_method", "parse_method"]
