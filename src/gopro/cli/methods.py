"""`gopro methods`: the methods, what each learns, and its settings."""

from __future__ import annotations

import inspect
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

from cyclopts import Parameter

from gopro.cli.console import bar, out
from gopro.clip.weights.embedded import STRONGER
from gopro.methods.recipe import Task, Training

if TYPE_CHECKING:
    from gopro.clip.backbone import Backbone
    from gopro.methods.base import Method
    from gopro.methods.registry import MethodSpec

CLASSES, SHOTS, BATCH = 50, 16, 16


def methods_command(method: str | None = None, *, measure: Annotated[bool, Parameter(negative=())] = False) -> None:
    """List the methods, or describe one with all its settings.

    Parameters
    ----------
    method:
        Method to describe, optionally with settings: gopro[con=0].
    measure:
        Also time a training step of each method on this machine, relative to CoOp's.
    """
    if method is not None:
        _describe(method)
        return
    from rich.table import Table

    from gopro.clip.backbone import load_backbone
    from gopro.methods.registry import METHODS

    backbone = load_backbone("emoji")  # a ViT, on which every method can be built
    seconds = _step_seconds(backbone) if measure else {}
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("training", no_wrap=True)
    if measure:
        table.add_column("step", justify="right", no_wrap=True)
    table.add_column("description", overflow="fold")
    for name in METHODS:
        built = _build(name, backbone)
        row = [name, f"{_learned(built):,}", _training(built)]
        if measure:
            row.append(f"{seconds[name] / seconds['coop']:.1f} x" if name in seconds else "")
        table.add_row(*row, _summary(type(built)))
    out.print(table, markup=False, highlight=False)
    need_vit = ", ".join(name for name, kind in METHODS.items() if kind.needs_vit)
    out.print_line(f"{need_vit}: only for a backbone that is a vision transformer, such as emoji or {STRONGER}.")
    out.print_line(f"parameters: learned, with backbone emoji, {CLASSES} classes and {SHOTS} images per class.")
    if measure:
        out.print_line(f"step: time of a training step of {BATCH} images and {CLASSES} classes, relative to CoOp's.")
    out.print_line("To describe a method and its settings: gopro methods METHOD")


def _describe(spec: str) -> None:
    from rich.table import Table

    from gopro.methods.registry import RECIPE_FIELDS, parse_method

    method = parse_method(spec)
    kind, config = method.kind, method.config
    paragraphs = [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(kind) or "").split("\n\n")]
    out.print("\n\n".join(paragraphs), markup=False, highlight=False)
    _describe_recipes(method)
    table = Table(box=None, pad_edge=False)
    for heading in ("setting", "value", "allowed", "description"):
        table.add_column(heading, overflow="fold")
    docs = field_docs(type(config))
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        text = "the data set's" if name == "template" and value is None else _text(value)
        table.add_row(name, text, _choices(hint), docs.get(name, ""))
    out.print()
    out.print(table, markup=False, highlight=False)
    out.print_line(f"To change them: --method '{spec.partition('[')[0]}[key=value,...]'")
    if Training.STEPS in kind.trained_by:
        _print_wrapped(f"The brackets also take what its recipe has: {', '.join(RECIPE_FIELDS)}.")


def _describe_recipes(method: MethodSpec) -> None:
    """Print what the method is trained with for each task, and the authors' file for it on a line of its own."""
    from gopro.methods.describe_recipe import dassl_in_words, describe_recipe

    kind, repository = method.kind, method.kind.repository
    if repository is None:
        if Training.STEPS in kind.trained_by:
            [line] = describe_recipe(method, "few-shot")
            decay = method.recipe_settings.get("weight_decay", kind.recipe.weight_decay)
            _print_wrapped(f"\nRecipe for every task, ours: {line.recipe}, weight decay {decay:g}.")
        return
    _print_wrapped("\nRecipe by task; an indented line changes it for some data sets or shots:\n")
    for task in get_args(Task):
        if task not in repository.files:
            _print_wrapped(f"{task}: as {next(iter(repository.files))}, because the authors have no recipe for it")
            continue
        for line in describe_recipe(method, task):
            words = ", ".join(filter(None, [line.recipe, line.settings]))
            _print_wrapped(f"{line.where or task}: {words}", 2 if line.where else 0)
            for file in line.files:
                _print_wrapped(file, 4, style="dim")
    _print_wrapped(f"\nThese files are in https://github.com/{repository.name} at commit {repository.commit[:7]}.")
    if Training.STEPS in kind.trained_by:
        _print_wrapped(f"Where nothing else is said: {dassl_in_words()}.")


def _print_wrapped(text: str, indent: int = 0, style: str | None = None) -> None:
    """Print text wrapped to the width of the terminal, its further lines indented like its first."""
    margin = " " * indent
    for line in text.split("\n"):
        for part in textwrap.wrap(
            line,
            max(out.width, 40),
            initial_indent=margin,
            subsequent_indent=margin,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]:
            out.print_line(part, style)


def field_docs(config: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass, inherited fields included."""
    from docstring_parser import parse_from_object

    parsed = [param for base in reversed(config.__mro__[:-1]) for param in parse_from_object(base).params]
    return {param.arg_name: " ".join((param.description or "").split()) for param in parsed}


def _choices(hint: Any) -> str:
    """Describe the values that a type hint allows: `float`, `int or null`, `view or shared`."""
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if get_args(hint):
        return " or ".join(_choices(part) for part in get_args(hint))
    name: str = hint.__name__
    return {"str": "text", "NoneType": "null", "bool": "true or false"}.get(name, name)


def _text(value: Any) -> str:
    """Format a value as it is written in a method spec."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _summary(kind: type[Method]) -> str:
    """Return one line about a method: that of its module, or of its class if it builds on another method."""
    from gopro.methods.registry import METHODS

    if kind.__base__ in METHODS.values():
        return (kind.__doc__ or "").partition("\n")[0].partition(" (")[0].rstrip(".") + "."
    return (sys.modules[kind.__module__].__doc__ or "").partition("\n")[0]


def _build(name: str, backbone: Backbone) -> Method:
    from gopro.methods.registry import build_method

    return build_method(name, backbone, [f"thing {i}" for i in range(CLASSES)], "a photo of a {}.")


def _learned(method: Method) -> int:
    """Count the parameters; a method with a closed form is first solved on copies of one blank image."""
    import torch

    if Training.CLOSED_FORM in method.trained_by:
        size = method.backbone.preprocess.size
        images = method.encode(torch.zeros(1, 3, size, size))[torch.zeros(CLASSES * SHOTS, dtype=torch.long)]
        method.solve(lambda count: [images] * max(1, count), torch.arange(CLASSES * SHOTS) % CLASSES)
    return sum(parameter.numel() for parameter in method.parameters())


def _training(method: Method) -> str:
    """Describe how a method is trained."""
    return {
        Training.NONE: "no",
        Training.STEPS: "gradient steps",
        Training.CLOSED_FORM: "closed form",
        Training.CLOSED_FORM_THEN_STEPS: "closed form + steps",
    }[method.trained_by]


def _step_seconds(backbone: Backbone) -> dict[str, float]:
    """Measure the fastest of three training steps of each method that is trained in steps."""
    import torch

    from gopro.methods.registry import METHODS

    size = backbone.preprocess.size
    stepped = [name for name, kind in METHODS.items() if Training.STEPS in kind.trained_by]
    seconds = {}
    with bar("methods", len(stepped)) as advance:
        for name in stepped:
            method = _build(name, backbone)
            _learned(method)
            method.train()
            images = torch.randn(len(method.views), BATCH, 3, size, size)
            times = []
            for _ in range(3):
                started = time.perf_counter()
                torch.stack(list(method(method.encode(images), torch.arange(BATCH)).values())).sum().backward()
                times.append(time.perf_counter() - started)
            seconds[name] = min(times)
            advance(1)
    return seconds
