"""Frozen dataclasses of settings whose values pydantic checks when they are made."""

from __future__ import annotations

import dataclasses
import types
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

import pydantic.dataclasses
from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict, Strict, ValidationError

from gopro.errors import InputError

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
AnyPath = Annotated[Path, Strict(False)]
"""A path, which may be written as a string."""
Texts = Annotated[tuple[str, ...], Strict(False)]
"""Strings, which may come as a list."""
Ints = Annotated[tuple[int, ...], Strict(False)]
TwoFloats = Annotated[tuple[float, float], Strict(False)]

_CONFIG = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    types.NoneType: "null",
}

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make a frozen, keyword-only dataclass that refuses values of the wrong type or out of range.

    Types are strict: an int stands for a float, but a bool for neither, and a float must be finite. The string below a
    field is its help on the command line.

    Example:
        >>> @settings
        ... class Schedule:
        ...     epochs: PositiveInt = 50
        ...     '''Passes over the training images.'''
        >>> Schedule(epochs=0)
        Traceback (most recent call last):
        gopro.errors.InputError: epochs is 0: give at least 1

    Raises (when an instance is made):
        InputError: a setting that is unknown, missing, of another type or out of range, with what to give instead.
    """
    made: Any = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    # A subclass checks, so that `made` is no pydantic dataclass: cyclopts would bypass its __init__ and these messages.
    checker: Any = pydantic.dataclasses.dataclass(made, frozen=True, kw_only=True, config=_CONFIG)

    @wraps(made.__init__)
    def init(self: Any, **values: Any) -> None:
        try:
            self.__dict__.update(vars(checker(**values)))
        except ValidationError as error:
            raise InputError(_message(made, error)) from None

    made.__init__ = init
    return made


def describe_type(hint: Any) -> str:
    """Say what a setting may be: `a whole number, at least 1, or null`, `sgd or adamw`.

    Args:
        hint: the field's type, as `typing.get_type_hints` returns it with `include_extras=True`.
    """
    kind, arguments = get_origin(hint), get_args(hint)
    if kind is Annotated:
        bounds = [_describe_bound(bound) for bound in arguments[1:] if isinstance(bound, Ge | Gt | Le)]
        return ", ".join([describe_type(arguments[0]), *bounds])
    if kind is Literal:
        *most, last = map(str, arguments)
        return f"{', '.join(most)} or {last}" if most else last
    if kind in (Union, types.UnionType):
        options = [describe_type(argument) for argument in arguments]
        return (", or " if any("," in option for option in options) else " or ").join(options)
    if kind is tuple:
        return describe_type(arguments[0]) if ... in arguments else f"{len(arguments)} numbers"
    return _KINDS.get(hint, getattr(hint, "__name__", str(hint)))


def _describe_bound(bound: Ge | Gt | Le) -> str:
    if isinstance(bound, Gt):
        return f"above {bound.gt:g}"
    return f"at least {bound.ge:g}" if isinstance(bound, Ge) else f"at most {bound.le:g}"


def explain(name: str, error: ValidationError, hint: Any = None) -> str:
    """Say in one line what is wrong with the first value that pydantic refused, and what to give.

    Args:
        name: the setting, as it is called where the value comes from.
        hint: its type, for values of another type.
    """
    first = error.errors(include_url=False)[0]
    context = first.get("ctx", {})
    match first["type"]:
        case "greater_than_equal":
            expected = f"at least {context['ge']:g}"
        case "less_than_equal":
            expected = f"at most {context['le']:g}"
        case "greater_than":
            expected = f"a number above {context['gt']:g}"
        case "tuple_type":
            expected = "a list"
        case _:
            expected = describe_type(hint)
    value = repr(first["input"])
    return f"{name} is {value if len(value) <= 80 else value[:79] + '…'}: give {expected}"


def _message(cls: type, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if not first["loc"]:  # an InputError of __post_init__
        return str(first.get("ctx", {}).get("error", error))
    name, hints = str(first["loc"][0]), get_type_hints(cls, include_extras=True)
    match first["type"]:
        case "unexpected_keyword_argument":
            return f"no setting {name!r}; choose from {', '.join(hints)}"
        case "missing" | "missing_keyword_only_argument" if len(first["loc"]) == 1:
            return f"{name} is missing"
    return explain(name, error, hints[name])
