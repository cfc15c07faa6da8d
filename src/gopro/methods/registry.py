"""All methods by name, and the one way to build one: `gopro`, or with settings `gopro[con=0,rank=4]`."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import shlex
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from gopro.clip.backbone import Backbone
from gopro.errors import InputError
from gopro.methods.base import Method
from gopro.methods.cocoop import CoCoOp, CoCoOpConfig
from gopro.methods.coop import CoOp, CoOpConfig
from gopro.methods.gopro import RELEASE, GOPro, GOProConfig, GOProRelease
from gopro.methods.kgcoop import KgCoOp, KgCoOpConfig
from gopro.methods.linear_probe import LinearProbe, LinearProbeConfig
from gopro.methods.maple import MaPLe, MaPLeConfig
from gopro.methods.mmrl import MMRL, MMRLConfig
from gopro.methods.promptsrc import PromptSRC, PromptSRCConfig
from gopro.methods.slip import SLIP, SLIPConfig
from gopro.methods.stylip import StyLIP, StyLIPConfig
from gopro.methods.tip_adapter import TipAdapter, TipAdapterConfig, TipAdapterF, TipAdapterFConfig
from gopro.methods.zeroshot import ZeroShot, ZeroShotConfig

METHODS: dict[str, tuple[type[Method], Any]] = {
    "zeroshot": (ZeroShot, ZeroShotConfig()),
    "linear-probe": (LinearProbe, LinearProbeConfig()),
    "tip-adapter": (TipAdapter, TipAdapterConfig()),
    "tip-adapter-f": (TipAdapterF, TipAdapterFConfig()),
    "coop": (CoOp, CoOpConfig()),
    "cocoop": (CoCoOp, CoCoOpConfig()),
    "kgcoop": (KgCoOp, KgCoOpConfig()),
    "maple": (MaPLe, MaPLeConfig()),
    "promptsrc": (PromptSRC, PromptSRCConfig()),
    "mmrl": (MMRL, MMRLConfig()),
    "slip": (SLIP, SLIPConfig()),
    "stylip": (StyLIP, StyLIPConfig()),
    "gopro": (GOPro, GOProConfig()),
    "gopro-release": (GOProRelease, RELEASE),
}


def parse_method(spec: str) -> tuple[type[Method], Any]:
    """The class and settings of `NAME` or `NAME[key=value,...]`.

    Raises:
        InputError: no such method or setting, or a value of the wrong kind.
    """
    match = re.fullmatch(r"([\w-]+)(?:\[(.*)\])?", spec.strip())
    name = match[1] if match else spec
    if match is None or name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(METHODS)}"
        raise InputError(f"method {spec!r}: no such method; {hint}")
    kind, config = METHODS[name]
    if not match[2]:
        return kind, config
    lexer = shlex.shlex(match[2], posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = ",", True, ""
    hints = get_type_hints(type(config))
    settings = {}
    try:
        pairs = [pair.partition("=") for pair in lexer]
    except ValueError as error:
        raise InputError(f"method {spec!r}: {error}") from error
    for key, equals, text in pairs:
        key = key.strip()
        if key not in hints or not equals:
            raise InputError(
                f"method {spec!r}: no setting {key!r}; {name} has {', '.join(hints)}, as {name}[key=value]"
            )
        value = _value(text, hints[key])
        if not fits(value, hints[key]):
            raise InputError(f"method {spec!r}: {key} is {text!r}, expected {_wanted(hints[key])}")
        settings[key] = float(value) if hints[key] is float else value
    return kind, dataclasses.replace(config, **settings)


def build_method(spec: str, backbone: Backbone, classnames: Sequence[str], template: str) -> Method:
    """A method over class names; `template` is the data set's, for methods whose own is not set."""
    kind, config = parse_method(spec)
    if config.template is None:
        config = dataclasses.replace(config, template=template)
    return kind(backbone, classnames, config)


def _value(text: str, hint: Any) -> Any:
    """A setting as written, as the value it stands for."""
    if hint in (str, str | None) and text != "null":
        return text
    if hint in (float, float | None) and text != "null":
        try:
            return float(text)  # YAML would take 1e-3 for a text
        except ValueError:
            return text
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def _wanted(hint: Any) -> str:
    """What a setting may be, for a person."""
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    kinds = get_args(hint) or (hint,)
    return " or ".join("null" if kind is types.NoneType else kind.__name__ for kind in kinds)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that a setting is annotated with; numbers must be finite."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return any(fits(value, option) for option in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is hint
