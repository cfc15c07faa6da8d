"""All methods by name, and their settings as text: `gopro`, or `gopro[con=0,rank=4]`."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_type_hints

import yaml

from gopro.clip.backbone import Backbone
from gopro.clip.image_tower_kind import other_than_vit
from gopro.clip.weights.embedded import STRONGER
from gopro.errors import InputError
from gopro.methods.base import Method
from gopro.methods.cocoop import CoCoOp
from gopro.methods.coop import CoOp
from gopro.methods.gopro import GOPro
from gopro.methods.gopro_kernel import GOProKernel
from gopro.methods.gopro_paper import GOProPaper
from gopro.methods.gopro_release import GOProRelease
from gopro.methods.kgcoop import KgCoOp
from gopro.methods.linear_probe import LinearProbe
from gopro.methods.maple import MaPLe
from gopro.methods.mmrl import MMRL
from gopro.methods.promptsrc import PromptSRC
from gopro.methods.recipe import Conditions, Recipe, Training, vary
from gopro.methods.slip import SLIP
from gopro.methods.stylip import StyLIP
from gopro.methods.tip_adapter import TipAdapter, TipAdapterF
from gopro.methods.zeroshot import ZeroShot

METHODS: dict[str, type[Method]] = {
    "zeroshot": ZeroShot,
    "linear-probe": LinearProbe,
    "tip-adapter": TipAdapter,
    "tip-adapter-f": TipAdapterF,
    "coop": CoOp,
    "cocoop": CoCoOp,
    "kgcoop": KgCoOp,
    "maple": MaPLe,
    "promptsrc": PromptSRC,
    "mmrl": MMRL,
    "slip": SLIP,
    "stylip": StyLIP,
    "gopro": GOPro,
    "gopro-paper": GOProPaper,
    "gopro-release": GOProRelease,
    "gopro-kernel": GOProKernel,
}


RECIPE_FIELDS = tuple(field.name for field in fields(Recipe))


@dataclass(frozen=True)
class MethodSpec:
    """A method and its settings, before there is a backbone or a class name.

    Attributes:
        name: the method's name in `METHODS`.
        kind: its class.
        config: its settings; where `template` is None, the data set's own prompt is used.
        chosen: names of the settings that the user chose, which no recipe changes.
        recipe_settings: fields of the recipe that the user chose, which go over the authors'.
    """

    name: str
    kind: type[Method]
    config: Any
    chosen: frozenset[str] = frozenset()
    recipe_settings: Mapping[str, Any] = field(default_factory=dict)

    def for_training(self, conditions: Conditions) -> tuple[MethodSpec, Recipe]:
        """Return the method with its authors' settings for a training, and their recipe.

        Example:
            >>> spec, recipe = parse_method("maple[tokens=3]").for_training(Conditions("transfer", "imagenet", 16))
            >>> spec.config.tokens, spec.config.depth, recipe.epochs
            (3, 3, 2)
        """
        recipe, settings = vary(self.kind.recipe, self.kind.variants, conditions)
        changed = {name: value for name, value in settings.items() if name not in self.chosen}
        return replace(self, config=replace(self.config, **changed)), recipe

    def with_settings(self, settings: Mapping[str, Any]) -> MethodSpec:
        """Return the method with exactly these settings, as `dataclasses.asdict` of its config gives them.

        Raises:
            InputError: a setting that is unknown, of another type or out of range.
        """
        return replace(self, config=type(self.config)(**settings))

    def build(self, backbone: Backbone, classnames: Sequence[str], template: str) -> Method:
        """Create the untrained method over class names.

        Args:
            template: the data set's own prompt.

        Raises:
            InputError: a setting, a class name or the backbone does not suit the method.
        """
        return self.kind(backbone, classnames, self.config, template)


def parse_method(text: str) -> MethodSpec:
    """Parse `NAME` or `NAME[key=value,...]`, with settings of the method and of its recipe.

    Example:
        >>> spec = parse_method("gopro[rank=4,lr=0.01]")
        >>> spec.config.rank, spec.recipe_settings
        (4, {'lr': 0.01})

    Raises:
        InputError: an unknown method or setting, or a value of the wrong type or out of range.
    """
    match = re.fullmatch(r"([\w-]+)(?:\[(.*)\])?", text.strip())
    name = match[1] if match else text
    if match is None or name not in METHODS:
        near = difflib.get_close_matches(name.partition("[")[0].strip(), METHODS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(METHODS)}"
        raise InputError(
            f"method {text!r}: no such method; {hint} (one of your own needs its file in place of gopro: "
            "python residual.py train ..., see docs/add-a-method.md)"
        )
    kind = METHODS[name]
    if not match[2]:
        return MethodSpec(name, kind, kind.config)
    try:
        values = _parse_settings(match[2], kind.config)
        recipe = {key: values.pop(key) for key in RECIPE_FIELDS if key in values}
        _check_recipe_settings(name, kind, recipe)
        return MethodSpec(name, kind, replace(kind.config, **values), frozenset(values), recipe)
    except (ValueError, TypeError) as error:
        raise InputError(f"method {text!r}: {error}") from error


def _check_recipe_settings(name: str, kind: type[Method], settings: Mapping[str, Any]) -> None:
    """Raise ValueError if a value is of another type or out of range, or if it has no effect on the method."""
    replace(kind.recipe, **settings)
    used = RECIPE_FIELDS if Training.STEPS in kind.trained_by else ("crop",) if kind.trained_by else ()
    if idle := [key for key in settings if key not in used]:
        raise ValueError(f"{name} is not trained in steps: leave {' and '.join(idle)} out")
    if "unlabeled_shots" in settings and not kind.uses_unlabeled:
        raise ValueError(f"{name} learns nothing from images without labels: leave unlabeled_shots out")


def check_backbone(methods: Iterable[str], backbone: str) -> None:
    """Check that methods suit a backbone, as far as the backbone's name tells; before anything is loaded.

    Args:
        methods: names, optionally with settings.
        backbone: as `load_backbone` takes it.

    Raises:
        InputError: some need a ViT, and the backbone has another image tower.
    """
    need = [method for method in methods if parse_method(method).kind.needs_vit]
    if need and (tower := other_than_vit(backbone)) is not None:
        suited = ", ".join(name for name, kind in METHODS.items() if not kind.needs_vit)
        verb = "learns" if len(need) == 1 else "learn"
        raise InputError(
            f"{' and '.join(need)} {verb} tokens inside a vision transformer, but the image tower of backbone "
            f"{backbone} is {tower}: use another backbone, such as {STRONGER}, or one of the methods {suited}"
        )


def build_method(text: str, backbone: Backbone, classnames: Sequence[str], template: str) -> Method:
    """Create an untrained method from its name and settings; see `parse_method` and `MethodSpec.build`.

    Example:
        >>> from gopro import load_backbone
        >>> build_method("coop[tokens=8]", load_backbone("emoji"), ["owl", "fox"], "a photo of a {}.").context.shape
        torch.Size([8, 128])
    """
    return parse_method(text).build(backbone, classnames, template)


_QUOTING = 'a value with a comma or an apostrophe stands in double quotes, as in template="a {}, a pet."'


def _parse_settings(text: str, config: Any) -> dict[str, Any]:
    """Read `key=value,...`; a value with a comma or an apostrophe stands in double quotes.

    Raises:
        ValueError: a quote that is not closed, or an entry without `=`.
    """
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = ",", True, ""
    hints = get_type_hints(type(config))
    values = {}
    try:
        entries = list(lexer)
    except ValueError as error:
        raise ValueError(f"a quote is not closed: {_QUOTING}") from error
    for entry in entries:
        key, equals, value = entry.partition("=")
        key = key.strip()
        if not equals:
            raise ValueError(f"no setting {key!r}; write settings as key=value, of {', '.join(hints)}; {_QUOTING}")
        if key not in hints and key not in RECIPE_FIELDS:
            recipe = ", ".join(RECIPE_FIELDS)
            raise ValueError(f"no setting {key!r}; choose from {', '.join(hints)}, or of its recipe {recipe}")
        values[key] = value if hints.get(key) in (str, str | None) and value != "null" else _parse_value(value)
    return values


def _parse_value(text: str) -> Any:
    """Read a setting that is no text: a number, true, false, null or one of several words."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    if isinstance(value, str):
        try:
            return float(value)  # YAML takes 1e-3 for a text
        except ValueError:
            return text
    return value
