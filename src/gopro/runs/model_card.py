"""The model card of a run, written from the files in its folder."""

from __future__ import annotations

import inspect
import json
import math
import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Template
from safetensors import SafetensorError, safe_open

from gopro.errors import InputError
from gopro.methods.describe_recipe import field_in_words
from gopro.methods.recipe import Training
from gopro.methods.registry import parse_method
from gopro.runs.hub import CARD_MARK
from gopro.runs.results import ResultRow
from gopro.runs.run import COST, HEADS, LEARNED, UNKNOWN, read_cost
from gopro.runs.trained_with import TrainedWith

MAX_CLASSES = 200
"""Number of class names that a card lists, at most."""


def model_card(
    folder: Path,
    content: dict[str, Any],
    rows: Sequence[ResultRow],
    repository: str,
    license: str | None = None,
    revision: str | None = None,
) -> str:
    """Return the card: Markdown with the Hub's metadata in front.

    Args:
        folder: the run's folder.
        content: of `config.json`, as it is pushed.
        rows: results of the run, with `data`, `classes`, `accuracy`, `macro_accuracy` and `n`.
        repository, revision: the name and version under which the run will be loaded.
        license: by the Hub's identifier.

    Raises:
        InputError: the learned weights cannot be read.
    """
    template = Template(Path(__file__).with_name("model_card.md.jinja").read_text(), keep_trailing_newline=True)
    names, examples = content["classnames"], content["classnames"][:2]
    more = f" and {len(names) - MAX_CLASSES} more" if len(names) > MAX_CLASSES else ""
    return template.render(
        card_data=_metadata(content, rows, repository, license),
        title=repository.partition("/")[2],
        summary=_summary(content),
        name=repository if revision is None else f"{repository}@{revision}",
        python_names=json.dumps(examples, ensure_ascii=False),
        shell_names=shlex.quote(",".join(examples)),
        facts=_facts(folder, content),
        learned=_learned(folder),
        results=_results(rows),
        class_count=len(names),
        classes=", ".join(map(_escape, names[:MAX_CLASSES])) + more,
        license=license,
        backbone=content["backbone"]["name"],
        mark=CARD_MARK,
    )


def _summary(content: dict[str, Any]) -> str:
    """Describe the method by the first paragraph of its docstring, and name its training data."""
    config = content["config"]
    kind = parse_method(config["method"]).kind
    title = " ".join(inspect.cleandoc(kind.__doc__ or config["method"]).split("\n\n")[0].split()).rstrip(".")
    summary = f"An image classifier on a frozen CLIP: {title}."
    if not kind.trained_by:
        return summary
    if config["data"] == UNKNOWN:
        return f"{summary} Its training data are unknown."
    shots = config["shots"]
    images = f"{shots} image{'' if shots == 1 else 's'} per class of " if shots else ""
    if shots == "all":
        images = "all training images of "
    return f"{summary} Trained on {images}{_escape(content['data'])}{_half(config['classes'])}."


def _half(classes: str) -> str:
    return "" if classes == "all" else f" ({classes} classes)"


def _metadata(content: dict[str, Any], rows: Sequence[ResultRow], repository: str, license: str | None) -> str:
    results = [
        EvalResult(
            task_type="zero-shot-image-classification",
            dataset_type=row["data"],
            dataset_name=f"{row['data']}{_half(row['classes'])}",
            metric_type="accuracy",
            metric_value=row["accuracy"],
        )
        for row in rows
    ]
    return ModelCardData(
        library_name="gopro",
        license=license,
        pipeline_tag="zero-shot-image-classification",
        tags=["gopro", "clip", "prompt-learning", "few-shot", "image-classification"],
        base_model=_base_model(content["backbone"]["name"]),
        eval_results=results or None,
        model_name=repository.partition("/")[2] if results else None,
    ).to_yaml()


def _base_model(backbone: str) -> str | None:
    """Return the Hub repository of a backbone's weights, if open_clip knows one."""
    architecture, _, tag = backbone.partition(":")
    if tag not in open_clip.list_pretrained_tags_by_model(architecture):
        return None
    return (open_clip.get_pretrained_cfg(architecture, tag).get("hf_hub") or "").strip("/") or None


def _facts(folder: Path, content: dict[str, Any]) -> str:
    config, backbone = content["config"], content["backbone"]
    imported = content.get("imported")
    facts: list[tuple[str, Any]] = [
        ("method", f"`{config['method']}`"),
        ("backbone", f"`{backbone['name']}`, frozen, not included; fingerprint `{backbone['fingerprint']}`"),
        ("data set", f"{_escape(content['data'])}, classes: {config['classes']}"),
        ("shots", config["shots"] or "unknown"),
        ("seed", config["seed"] or "unknown"),
        ("zero-shot prompt of the data set", f"`{content['template']}`"),
        *_training_facts(content),
    ]
    if imported:
        facts.append(("imported from", f"`{imported['file']}`, a checkpoint of {imported['code']}"))
    if (folder / COST).is_file():
        cost = read_cost(folder)
        memory = "" if cost.peak_memory_mib is None else f", at most {cost.peak_memory_mib:.0f} MiB of memory"
        facts.append(("training cost", f"{cost.train_seconds:.0f} s{memory}"))
    if heads := len(list((folder / HEADS).glob("*.safetensors"))):
        facts.append(("first-order heads", heads))
    facts.append(("made with", f"gopro {content['gopro']}"))
    return _table(("", ""), facts)


def _training_facts(content: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what the run was trained with. Runs of earlier versions know the epochs alone, and these if given."""
    if content.get("trained_with") is None:
        epochs = content["config"]["epochs"]
        return [("epochs", epochs)] if epochs else []
    trained_with = TrainedWith.from_json(content["trained_with"])
    facts: list[tuple[str, Any]] = []
    if trained_with.template != content["template"]:
        facts.append(("prompt in use", f"`{trained_with.template}`"))
    if (recipe := trained_with.recipe) is None:
        return facts
    if Training.STEPS in parse_method(content["config"]["method"]).kind.trained_by:
        others = ", ".join(
            field_in_words(name, getattr(recipe, name)) for name in ("warmup", "schedule", "weight_decay")
        )
        facts += [(f"recipe for {trained_with.task}", recipe.in_words()), ("its schedule and weight decay", others)]
    return [*facts, ("random views", field_in_words("crop", recipe.crop))]


def _learned(folder: Path) -> str:
    """Return a table of the learned parts and their sizes, empty if there are none."""
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    try:
        with safe_open(folder / LEARNED, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                sizes[key.partition(".")[0]].append(math.prod(file.get_slice(key).get_shape()))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / LEARNED} cannot be read ({str(error).strip().splitlines()[0]})") from error
    rows = [(f"`{part}`", len(tensors), f"{sum(tensors):,}") for part, tensors in sorted(sizes.items())]
    return _table(("part", "tensors", "parameters"), rows) if rows else ""


def _results(rows: Sequence[ResultRow]) -> str:
    if not rows:
        return ""
    cells = [
        (_escape(row["data"]), row["classes"], f"{row['accuracy']:.2f}", f"{row['macro_accuracy']:.2f}", row["n"])
        for row in rows
    ]
    return _table(("test images of", "classes", "accuracy, %", "mean over classes, %", "images"), cells)


def _table(heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (heading, ["---"] * len(heading), *rows))


def _escape(text: str) -> str:
    """Escape Markdown's special characters and join lines."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>#|~" else c for c in " ".join(text.split()))
