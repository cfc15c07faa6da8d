"""`gopro methods`: which methods there are, what each learns and what can be set of it."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import time
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import torch
from cyclopts import Parameter
from rich.table import Table

from gopro.cli.console import bar, out
from gopro.clip.backbone import Backbone, load_backbone
from gopro.methods.base import Method
from gopro.methods.registry import METHODS, build_method, parse_method

CLASSES, SHOTS, BATCH = 50, 16, 16


def methods_command(method: str | None = None, *, measure: Annotated[bool, Parameter(negative=())] = False) -> None:
    """The methods, or one with all its settings.

    Parameters
    ----------
    method:
        Method to describe, with settings if wanted: gopro[con=0].
    measure:
        Also time a training step of each against CoOp's, on this machine.
    """
    if method is not None:
        _describe(method)
        return
    backbone = load_backbone()
    seconds = _step_seconds(backbone) if measure else {}
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("learned", justify="right", no_wrap=True)
    table.add_column("how", no_wrap=True)
    if measure:
        table.add_column("step", justify="right", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for name in METHODS:
        built = _built(name, backbone)
        row = [name, f"{_learned(built):,}", _how(built)]
        if measure:
            row.append(f"{seconds[name] / seconds['coop']:.1f} x" if name in seconds else "")
        table.add_row(*row, _summary(type(built)))
    out.print(table, markup=False, highlight=False)
    notes = [
        f"learned: parameters on the embedded backbone, for {CLASSES} classes of {SHOTS} images.",
        "Settings of one: gopro methods NAME",
    ]
    if measure:
        notes.insert(1, f"step: time of a training step of {BATCH} images and {CLASSES} classes, CoOp's being 1.")
    for note in notes:
        out.print(note, highlight=False, soft_wrap=True)


def _describe(spec: str) -> None:
    kind, config = parse_method(spec)
    paragraphs = [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(kind) or "").split("\n\n")]
    out.print("\n\n".join(paragraphs), markup=False, highlight=False)
    if kind.recipe is not None:
        recipe = kind.recipe
        out.print(
            f"\nTrained with {recipe.optimizer}, learning rate {recipe.lr:g}, {recipe.epochs} epochs, batches of "
            f"{recipe.batch}, weight decay {recipe.weight_decay:g}, unless told otherwise.",
            highlight=False,
        )
    table = Table(box=None, pad_edge=False)
    for heading in ("setting", "value", "may be"):
        table.add_column(heading, overflow="fold")
    table.add_column("what it is", overflow="fold")
    docs = field_docs(type(config))
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        said = "the data set's" if name == "template" and value is None else _text(value)
        table.add_row(name, said, _choices(hint), docs.get(name, ""))
    out.print()
    out.print(table, markup=False, highlight=False)
    out.print(f"Set them as in: --method '{spec.partition('[')[0]}[key=value,...]'", markup=False, highlight=False)


def field_docs(config: type) -> dict[str, str]:
    """The string below each field of a dataclass, its bases' included, in one line."""
    docs: dict[str, str] = {}
    for base in reversed(config.__mro__[:-1]):
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        for field, below in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                docs[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return docs


def _choices(hint: Any) -> str:
    """A setting's type for a person: `float`, `int or null`, `view or shared`."""
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if get_args(hint):
        return " or ".join(_choices(part) for part in get_args(hint))
    name: str = hint.__name__
    return {"str": "text", "NoneType": "null", "bool": "true or false"}.get(name, name)


def _text(value: Any) -> str:
    """A value as it is written in a spec."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _summary(kind: type[Method]) -> str:
    """One line: of the method's file, or where it builds on another method, of its class."""
    if kind.__base__ in {other for other, _ in METHODS.values()}:
        return (kind.__doc__ or "").partition("\n")[0].partition(" (")[0].rstrip(".") + "."
    return (sys.modules[kind.__module__].__doc__ or "").partition("\n")[0]


def _built(name: str, backbone: Backbone) -> Method:
    return build_method(name, backbone, [f"thing {i}" for i in range(CLASSES)], "a photo of a {}.")


def _learned(method: Method) -> int:
    """How many parameters it has once it has seen its images, for which one image stands here."""
    if method.solves:
        size = method.backbone.preprocess.size
        images = method.encode(torch.zeros(1, 3, size, size))[torch.zeros(CLASSES * SHOTS, dtype=torch.long)]
        method.solve([images] * max(1, method.draws), torch.arange(CLASSES * SHOTS) % CLASSES)
    return sum(parameter.numel() for parameter in method.parameters())


def _how(method: Method) -> str:
    solved, stepped = method.solves, method.recipe is not None
    return ("at once, then steps" if stepped else "at once") if solved else "in steps" if stepped else "not at all"


def _step_seconds(backbone: Backbone) -> dict[str, float]:
    """The shortest of three training steps of each method that has steps."""
    size = backbone.preprocess.size
    stepped = [name for name, (kind, _) in METHODS.items() if kind.recipe is not None]
    seconds = {}
    with bar("methods", len(stepped)) as advance:
        for name in stepped:
            method = _built(name, backbone)
            _learned(method)
            method.train()
            images = torch.randn(len(method.views), BATCH, 3, size, size)
            took = []
            for _ in range(3):
                started = time.perf_counter()
                torch.stack(list(method(method.encode(images), torch.arange(BATCH)).values())).sum().backward()
                took.append(time.perf_counter() - started)
            seconds[name] = min(took)
            advance(1)
    return seconds
